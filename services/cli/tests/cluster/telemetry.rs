//! One preference is one trace over all processes of a cluster, and a step links to its pairs.

use std::collections::{BTreeMap, HashMap};

use joust_proto::coordinator::v1::ListWorkersRequest;
use opentelemetry_proto::tonic::trace::v1::Span;

use crate::{
    harness::{Cluster, LIMIT, wait_for, wait_until_done},
    sink::{Sink, attribute},
    twin,
};

/// What a span is the child of.
const CHAIN: [(&str, &str); 3] =
    [("joust.rollout", "joust.prompt"), ("joust.judge", "joust.rollout"), ("joust.pair", "joust.judge")];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preference_is_one_trace_over_all_processes() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("inputs");
    twin::inputs(&root);
    let Some(mut cluster) = Cluster::start_redis(&folder.path().join("cluster"), &root) else { return };
    let (sink, url) = Sink::start().await;
    let settings = [format!("telemetry.otlp_endpoint={url:?}")];
    for (role, name) in
        [("coordinator", "coordinator"), ("learner", "learner-0"), ("judge", "judge-0"), ("rollout", "rollout-0")]
    {
        cluster.start_part((role, name), &settings);
    }
    let mut client = cluster.client();
    let there = wait_for("three workers", LIMIT, async || {
        let found = client.list_workers(ListWorkersRequest::default()).await.ok()?.into_inner().workers;
        (found.len() == 3).then_some(())
    });
    there.await;
    twin::submit(&cluster, &root, "traced");
    wait_until_done(&cluster, "traced", LIMIT).await;
    let prompts = (twin::STEPS * twin::PROMPTS) as usize;
    let whole = wait_for("all spans", LIMIT, async || {
        sink.find(|arrived| {
            let count = |name: &str| arrived.spans.iter().filter(|span| span.name == name).count();
            let all = ["joust.prompt", "joust.rollout", "joust.judge", "joust.pair"].map(count);
            let all = all.into_iter().all(|count| count >= prompts);
            (all && count("joust.step") >= twin::STEPS as usize).then(|| arrived.spans.clone())
        })
    });
    let spans = whole.await;
    let by_id: HashMap<&[u8], &Span> = spans.iter().map(|span| (&span.span_id[..], span)).collect();
    let mut chains = BTreeMap::new();
    for (child, parent) in CHAIN {
        for span in spans.iter().filter(|span| span.name == child) {
            let found = by_id.get(&span.parent_span_id[..]).expect("its parent arrived");
            assert_eq!((found.name.as_str(), &found.trace_id), (parent, &span.trace_id));
            *chains.entry(child).or_insert(0) += 1;
        }
    }
    assert_eq!(chains.into_values().collect::<Vec<_>>(), [prompts; 3]);
    for step in spans.iter().filter(|span| span.name == "joust.step") {
        assert_eq!(step.links.len(), twin::PROMPTS as usize);
        for link in &step.links {
            let pair = by_id.get(&link.span_id[..]).expect("the pair arrived");
            assert_eq!((pair.name.as_str(), &pair.trace_id), ("joust.pair", &link.trace_id));
            assert_ne!(step.trace_id, pair.trace_id);
        }
    }
    let services = sink.find(|arrived| {
        let names = arrived.resources.iter().filter_map(|resource| attribute(resource, "service.name"));
        Some(names.collect::<std::collections::BTreeSet<_>>())
    });
    let services: Vec<String> = services.into_iter().flatten().collect();
    assert_eq!(services, ["joust-coordinator", "joust-judge", "joust-learner", "joust-rollout"]);
    // Nobody asked for texts.
    let told = format!("{spans:?}");
    assert!(!told.contains("the cat number"), "a prompt's text in a span");
}
