//! The spans and counts of calls, as a collector sees them: alone in its process, since telemetry is set up once.

use joust_telemetry::{Telemetry, TraceContext, init, names};
use opentelemetry_proto::tonic::{
    metrics::v1::metric::Data,
    trace::v1::{Span, span::SpanKind},
};
use tracing::Instrument;

#[allow(dead_code, reason = "shared with the cluster tests, which need more of it")]
#[path = "cluster/common.rs"]
mod common;
#[path = "../../telemetry/tests/common/mod.rs"]
mod sink;

use common::{Running, judge_of, notes, plain, score};
use sink::{Sink, attribute};

const METHOD: &str = "joust.judge.v1.JudgeService/Score";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_is_a_child_of_its_caller_on_both_sides() {
    let (sink, endpoint) = Sink::start().await;
    let config = Telemetry { service: "joust-test".into(), otlp_endpoint: Some(endpoint), ..Telemetry::default() };
    let guard = init(config).expect("set up");
    let server = Running::start(plain()).await;

    let work = tracing::info_span!(target: "joust_test", "work");
    let answered = judge_of(server.client()).score(score("")).instrument(work.clone()).await.expect("served");
    let context = TraceContext::of(&work).expect("it is recorded");
    assert_eq!(notes(answered)[2], context.trace_id(), "the handler works for the trace of its caller");
    drop(work);
    judge_of(server.client()).score(score("broken")).await.expect_err("broken");
    // A caller without spans, whose context comes with the call alone.
    let bare = TraceContext::new_root();
    bare.scope(judge_of(server.client()).score(score(""))).await.expect("served");
    tokio::task::block_in_place(|| guard.flush());

    let spans = sink.wait_for("the calls", |arrived| {
        let calls = arrived.spans.iter().filter(|span| span.name == METHOD);
        (calls.count() == 6).then(|| arrived.spans.clone())
    });
    check_pair(&spans, &context.trace_id(), Some(&context.span_id()), "OK");
    check_pair(&spans, &bare.trace_id(), Some(&bare.span_id()), "OK");
    let failed =
        |span: &&Span| attribute(&span.attributes, names::attribute::RPC_STATUS).as_deref() == Some("INTERNAL");
    let broken = spans.iter().find(failed).expect("the broken call");
    check_pair(&spans, &hex(&broken.trace_id), None, "INTERNAL");

    for name in [names::metric::RPC_SERVER_DURATION, names::metric::RPC_CLIENT_DURATION] {
        let metric = sink.wait_for(name, |arrived| arrived.metrics.iter().find(|found| found.name == name).cloned());
        let data = metric.data.and_then(|data| if let Data::Histogram(found) = data { Some(found) } else { None });
        let points = data.expect("durations are a histogram").data_points;
        let count = |code: &str| {
            let of = |key, value: &str, attributes| attribute(attributes, key).as_deref() == Some(value);
            let point = points.iter().find(|point| {
                of(names::attribute::RPC_METHOD, METHOD, &point.attributes)
                    && of(names::attribute::RPC_STATUS, code, &point.attributes)
            });
            point.map(|point| point.count)
        };
        assert_eq!((count("OK"), count("INTERNAL")), (Some(2), Some(1)), "{name}");
    }
}

/// Checks that a call's client span has this parent, and its server span the client span.
fn check_pair(spans: &[Span], trace: &str, parent: Option<&str>, code: &str) {
    let of = |kind: SpanKind| {
        let mut found = spans.iter().filter(|span| hex(&span.trace_id) == trace && span.kind == kind as i32);
        found.next().expect("a span of each side")
    };
    let (client, server) = (of(SpanKind::Client), of(SpanKind::Server));
    assert_eq!(hex(&client.parent_span_id), parent.unwrap_or_default());
    assert_eq!(server.parent_span_id, client.span_id);
    for side in [client, server] {
        assert_eq!(attribute(&side.attributes, names::attribute::RPC_STATUS).as_deref(), Some(code), "{side:?}");
        assert_eq!(attribute(&side.attributes, names::attribute::RPC_METHOD).as_deref(), Some(METHOD));
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
