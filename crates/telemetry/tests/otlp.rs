//! What leaves the process: one test, since telemetry is set up once a process.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use joust_core::{RecordId, RunId};
use joust_queue::{Consumer, Done, Item, Leased, Queue, Settings, Topic, open_memory};
use joust_telemetry::{
    LogFormat, Telemetry, TraceContext, Work, init, instruments,
    names::{attribute as key, metric, span},
    step,
};
use opentelemetry_proto::tonic::{
    metrics::v1::{metric::Data, number_data_point::Value},
    trace::v1::Span,
};

mod common;

use common::{Sink, attribute};

/// Prompts of the step; more than a span has links.
const PROMPTS: u64 = 130;
const RUN: &str = "stories";

/// Puts a record with the context of the work that made it.
fn item(kind: &[u8], position: u64, work: &Work) -> Item {
    Item {
        id: RecordId::derive(&[kind, &position.to_le_bytes()]),
        body: vec![position as u8],
        trace: work.traceparent(),
    }
}

async fn take(queue: &dyn Queue, topic: &Topic) -> Vec<Leased> {
    let taken = queue.take(topic, &Consumer::new("w"), PROMPTS as usize, Duration::from_secs(5)).await;
    taken.expect("taken")
}

/// Passes the records of a topic on, each under a span of its own.
async fn pass(queue: &dyn Queue, (from, to): (&Topic, &Topic), work: impl Fn(&Leased) -> Work) {
    let leased = take(queue, from).await;
    let works: Vec<Work> = leased.iter().map(&work).collect();
    let next = works.iter().enumerate().map(|(at, work)| (to.clone(), item(b"next", at as u64, work))).collect();
    let done = leased.into_iter().map(|leased| (leased.lease, Done::Moved)).collect();
    queue.commit(done, next).await.expect("committed");
}

/// Sends a run's prompts along the whole way, and trains a step on what comes out.
async fn one_step(queue: Arc<dyn Queue>) {
    let run = RunId::new(RUN).expect("a name");
    let (prompts, rollouts, pairs) = (Topic::prompts(&run), Topic::rollouts(&run), Topic::pairs(&run));
    let items = (0..PROMPTS).map(|position| item(b"prompt", position, &Work::prompt(RUN, position))).collect();
    queue.put(&prompts, items).await.expect("put");
    instruments::prompts_put(RUN, PROMPTS);
    pass(&*queue, (&prompts, &rollouts), |leased| {
        let work = Work::rollout(RUN, leased.item.trace.as_deref()).with(key::OUTPUT_TOKENS, 7);
        work.set_content(key::OUTPUT_MESSAGES, || "private words".into());
        work.span().in_scope(|| tracing::info!(target: "joust_test", answers = 2, "answered"));
        work
    })
    .await;
    pass(&*queue, (&rollouts, &pairs), |leased| Work::judge(RUN, leased.item.trace.as_deref()).pair("put")).await;
    let outcomes = take(&*queue, &pairs).await;
    drop(step(RUN, 3, outcomes.iter().filter_map(|leased| leased.item.trace.as_deref())));
    instruments::step_trained(RUN, Duration::from_millis(300));
    instruments::outcome_put(RUN, "tie");
}

/// Returns the spans of a name, and checks that each continues one of `parents` in its trace.
fn children(sink: &Sink, name: &str, parents: &[Span]) -> Vec<Span> {
    let spans = sink.wait_for(name, |arrived| {
        let spans: Vec<Span> = arrived.spans.iter().filter(|span| span.name == name).cloned().collect();
        (spans.len() == PROMPTS as usize).then_some(spans)
    });
    for span in &spans {
        let parent = parents.iter().find(|parent| parent.span_id == span.parent_span_id);
        assert!(parents.is_empty() || parent.expect("a parent").trace_id == span.trace_id, "{span:?}");
    }
    spans
}

fn page(address: SocketAddr, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).expect("connected");
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes()).expect("asked");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("answered");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
    (head.to_owned(), body.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_is_seen_from_the_prompt_on() {
    let (sink, endpoint) = Sink::start().await;
    let guard = init(Telemetry {
        log_format: LogFormat::Json,
        service: "joust-test".into(),
        worker: Some("worker-7".into()),
        otlp_endpoint: Some(endpoint),
        metrics: Some("127.0.0.1:0".into()),
        capture_content: false,
    })
    .expect("set up");
    one_step(open_memory(Settings::default()).expect("a queue")).await;
    tokio::task::block_in_place(|| guard.flush());

    check_spans(&sink);
    check_logs(&sink);
    check_metrics(&sink);
    let address = guard.metrics_address().expect("a port");
    tokio::task::block_in_place(|| check_pages(address));
    let second = init(Telemetry::default()).expect_err("once a process").to_string();
    assert!(second.contains("already set up"), "{second}");
}

fn check_spans(sink: &Sink) {
    let prompts = children(sink, span::PROMPT, &[]);
    assert!(prompts.iter().all(|prompt| prompt.parent_span_id.is_empty()));
    let rollouts = children(sink, span::ROLLOUT, &prompts);
    let judges = children(sink, span::JUDGE, &rollouts);
    let pairs = children(sink, span::PAIR, &judges);
    assert_eq!(attribute(&rollouts[0].attributes, key::OUTPUT_TOKENS).as_deref(), Some("7"));
    assert_eq!(attribute(&rollouts[0].attributes, key::RUN).as_deref(), Some(RUN));
    assert_eq!(attribute(&rollouts[0].attributes, key::OUTPUT_MESSAGES), None, "content is not captured");

    let step = sink.span(span::STEP);
    assert!(step.parent_span_id.is_empty());
    assert!(prompts.iter().all(|prompt| prompt.trace_id != step.trace_id), "a step is a trace of its own");
    assert_eq!(step.links.len(), 128);
    for link in &step.links {
        let pair = pairs.iter().find(|pair| pair.span_id == link.span_id).expect("a link to a pair");
        assert_eq!(pair.trace_id, link.trace_id);
    }
    let linked: std::collections::BTreeSet<&[u8]> = step.links.iter().map(|link| link.span_id.as_slice()).collect();
    assert_eq!(linked.len(), 128, "each link is to another pair");

    let resource = sink.wait_for("a resource", |arrived| arrived.resources.first().cloned());
    assert_eq!(attribute(&resource, "service.name").as_deref(), Some("joust-test"));
    assert_eq!(attribute(&resource, "service.instance.id").as_deref(), Some("worker-7"));
}

fn check_logs(sink: &Sink) {
    let record = sink.wait_for("a log record", |arrived| arrived.logs.first().cloned());
    assert_eq!(attribute(&record.attributes, "answers").as_deref(), Some("2"));
    let rollouts = children(sink, span::ROLLOUT, &[]);
    let span = rollouts.iter().find(|span| span.span_id == record.span_id).expect("the span it was logged in");
    assert_eq!(span.trace_id, record.trace_id);
}

fn check_metrics(sink: &Sink) {
    let prompts = sink.wait_for(metric::PROMPTS, |arrived| {
        arrived.metrics.iter().find(|found| found.name == metric::PROMPTS).cloned()
    });
    let sum = prompts.data.and_then(|data| if let Data::Sum(sum) = data { Some(sum) } else { None });
    let sum = sum.expect("a counter is a sum");
    assert!(sum.is_monotonic);
    assert_eq!(sum.data_points[0].value, Some(Value::AsInt(PROMPTS as i64)));
    assert_eq!(attribute(&sum.data_points[0].attributes, key::RUN).as_deref(), Some(RUN));
    let took = sink.wait_for(metric::STEP_DURATION, |arrived| {
        arrived.metrics.iter().find(|found| found.name == metric::STEP_DURATION).cloned()
    });
    let histogram = took.data.and_then(|data| if let Data::Histogram(found) = data { Some(found) } else { None });
    let histogram = histogram.expect("durations are a histogram");
    assert_eq!((took.unit.as_str(), histogram.data_points[0].count), ("s", 1));
    assert_eq!(histogram.data_points[0].sum, Some(0.3));
}

fn check_pages(address: SocketAddr) {
    let (head, body) = page(address, "/metrics");
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("text/plain; version=0.0.4"), "{head}");
    for line in [
        r#"joust_prompts_total{run="stories"} 130"#,
        r#"joust_pairs_total{outcome="tie",run="stories"} 1"#,
        "# TYPE joust_step_duration_seconds histogram",
        r#"joust_step_duration_seconds_bucket{run="stories",le="0.25"} 0"#,
        r#"joust_step_duration_seconds_bucket{run="stories",le="0.5"} 1"#,
        r#"joust_step_duration_seconds_bucket{run="stories",le="+Inf"} 1"#,
    ] {
        assert!(body.lines().any(|found| found == line), "{line} is not in\n{body}");
    }
    assert!(body.contains(r#"service_name="joust-test""#), "{body}");
    // <https://github.com/prometheus/docs/blob/main/docs/instrumenting/exposition_formats.md>
    let label = r#"[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\]|\\["\\n])*""#;
    let sample =
        format!(r"^[a-zA-Z_:][a-zA-Z0-9_:]*(?:\{{(?:{label}(?:,{label})*)?\}})? (?:[-+]?[0-9.e+-]+|[+-]Inf|NaN)$");
    let sample = regex::Regex::new(&sample).expect("a pattern");
    let comment = regex::Regex::new(
        r"^# (?:HELP [a-zA-Z_:][a-zA-Z0-9_:]* .*|TYPE [a-zA-Z_:][a-zA-Z0-9_:]* (?:counter|gauge|histogram))$",
    );
    let comment = comment.expect("a pattern");
    for line in body.lines() {
        assert!(sample.is_match(line) || comment.is_match(line), "not the text form: {line}");
    }
    assert_eq!(page(address, "/healthz").1, "ok\n");
    assert!(page(address, "/").0.starts_with("HTTP/1.1 404"));
}

#[test]
fn what_cannot_work_is_refused() {
    let other = |otlp: Option<&str>, metrics: Option<&str>| {
        let (otlp_endpoint, metrics) = (otlp.map(str::to_owned), metrics.map(str::to_owned));
        init(Telemetry { otlp_endpoint, metrics, ..Telemetry::default() }).expect_err("refused").to_string()
    };
    let error = other(Some("no address at all"), None);
    assert!(error.contains("telemetry.otlp_endpoint"), "{error}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let error = other(None, Some(&address));
    assert!(error.contains(&address) && error.contains("listen.metrics"), "{error}");
    assert_eq!(TraceContext::parse("no context"), None);
}
