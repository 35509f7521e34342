//! What the coordinator tells a collector: alone in its process, since telemetry is set up once.

use std::{sync::Arc, time::Duration};

use joust_coordinator::{Feed, FeedDeps, PromptSource, feed, watch_depth};
use joust_core::{Progress, Prompt, PromptTask, Purpose, RecordId, Release, RunId, SCHEMA, Shutdown};
use joust_queue::{Consumer, Queue, Settings, Topic, open_memory};
use joust_telemetry::{Telemetry, TraceContext, init, names};
use opentelemetry_proto::tonic::metrics::v1::{metric::Data, number_data_point::Value};
use tokio::sync::watch;

#[path = "../../../crates/telemetry/tests/common/mod.rs"]
mod common;

use common::{Sink, attribute};

struct Prompts;

impl PromptSource for Prompts {
    fn task(&self, position: u64) -> PromptTask {
        let id = RecordId::derive(&[b"task", &position.to_le_bytes()]);
        let prompt = Prompt::Text("private words".into());
        PromptTask { schema: SCHEMA, id, position, epoch: 0, row: position, purpose: Purpose::Train, prompt }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prompts_begin_traces_and_what_waits_is_counted() {
    let (sink, endpoint) = Sink::start().await;
    let config = Telemetry { service: "joust-test".into(), otlp_endpoint: Some(endpoint), ..Telemetry::default() };
    let guard = init(config).expect("set up");
    let run = RunId::new("stories").expect("a name");
    let queue: Arc<dyn Queue> = open_memory(Settings::default()).expect("a queue");
    let release = Release { prompts_per_step: 3, steps: 1, max_staleness: 0, iteration_steps: 1 };
    let (_told, progress) = watch::channel(Some(Progress { steps_done: 0, version: 0 }));
    let deps = FeedDeps { queue: queue.clone(), prompts: Arc::new(Prompts), progress };
    feed(Feed { run: run.clone(), release }, deps, Shutdown::default()).await.expect("fed");
    let stop = Shutdown::default();
    let depth = tokio::spawn(watch_depth(run.clone(), queue.clone(), stop.clone()));
    wait_for_depth(&sink, &guard);
    stop.trigger();
    depth.await.expect("no panic");

    let leased = queue.take(&Topic::prompts(&run), &Consumer::new("w"), 9, Duration::ZERO).await.expect("taken");
    assert_eq!(leased.len(), 3);
    let spans = sink.wait_for("prompts", |arrived| (arrived.spans.len() == 3).then(|| arrived.spans.clone()));
    for (position, leased) in leased.iter().enumerate() {
        let trace = leased.item.trace.as_deref().and_then(TraceContext::parse).expect("a context");
        let span = spans.iter().find(|span| hex(&span.span_id) == trace.span_id()).expect("its span");
        assert_eq!((span.name.as_str(), hex(&span.trace_id)), (names::span::PROMPT, trace.trace_id()));
        assert_eq!(attribute(&span.attributes, names::attribute::POSITION), Some(position.to_string()));
        assert!(!format!("{span:?}").contains("private words"));
    }
}

/// Waits until the sink knows that three prompts wait.
fn wait_for_depth(sink: &Sink, guard: &joust_telemetry::Guard) {
    let known = || {
        sink.find(|arrived| {
            let depths = arrived.metrics.iter().filter(|found| found.name == names::metric::QUEUE_DEPTH);
            let points = depths.filter_map(|found| match &found.data {
                Some(Data::Gauge(gauge)) => Some(gauge.data_points.clone()),
                _ => None,
            });
            points.flatten().find(|point| point.value == Some(Value::AsInt(3)))
        })
    };
    let until = std::time::Instant::now() + Duration::from_secs(30);
    let point = tokio::task::block_in_place(|| {
        loop {
            guard.flush();
            if let Some(point) = known() {
                break point;
            }
            assert!(std::time::Instant::now() < until, "the depth did not arrive");
        }
    });
    assert_eq!(attribute(&point.attributes, names::attribute::QUEUE).as_deref(), Some("prompts"));
    assert_eq!(attribute(&point.attributes, names::attribute::RUN).as_deref(), Some("stories"));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
