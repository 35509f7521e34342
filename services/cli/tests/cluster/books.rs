//! What a run has written down: each step once, no example twice, nothing lost, nothing too old.

use std::{collections::HashSet, fs, path::Path};

use joust_proto::coordinator::v1::TopicStats;
use serde_json::Value;

/// What the ledger of a finished run says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Books {
    /// Steps that are not there, or stand out of their order.
    pub steps_wrong: usize,
    /// Prompts that their step neither trained on nor dropped with a reason, or counted twice.
    pub lost: u64,
    /// Examples that were applied for the first time twice.
    pub twice: usize,
    /// Largest staleness of an example in policy versions.
    pub staleness: u64,
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).expect("a file of the run");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// Reads the ledger and the metrics of a run of so many steps and prompts a step.
pub fn read(run: &Path, steps: u64, prompts: u64) -> Books {
    let ledger = lines(&run.join("ledger.jsonl"));
    let numbers: Vec<u64> = ledger.iter().map(|line| line["step"].as_u64().expect("a step")).collect();
    let steps_wrong = (0..steps).filter(|step| numbers.get(*step as usize) != Some(step)).count()
        + numbers.len().saturating_sub(steps as usize);
    let (mut seen, mut twice, mut lost) = (HashSet::new(), 0, 0);
    for line in &ledger {
        let list = |key: &str| line[key].as_array().expect("a list").clone();
        let replayed: HashSet<String> = list("replayed").iter().map(Value::to_string).collect();
        let fresh: Vec<String> =
            list("examples").iter().map(Value::to_string).filter(|id| !replayed.contains(id)).collect();
        let dropped: u64 = line["dropped"].as_object().expect("a map").values().filter_map(Value::as_u64).sum();
        lost += prompts.abs_diff(fresh.len() as u64 + dropped);
        twice += fresh.into_iter().filter(|id| !seen.insert(id.clone())).count();
    }
    let told = lines(&run.join("metrics.jsonl"));
    let of_steps: Vec<&Value> = told.iter().filter(|line| line["kind"] == "step").collect();
    let once: HashSet<u64> = of_steps.iter().map(|line| line["step"].as_u64().expect("a step")).collect();
    assert_eq!((of_steps.len(), once.len()), (steps as usize, steps as usize), "each step's metrics once");
    let staleness = of_steps.iter().filter_map(|line| line["staleness/max"].as_f64()).fold(0.0, f64::max);
    Books { steps_wrong, lost, twice, staleness: staleness as u64 }
}

/// Checks that each topic's accounts add up, and that nothing of a finished run waits or is dead.
pub fn balance(topics: &[TopicStats], prompts: u64) {
    assert_eq!(topics.len(), 3, "prompts, rollouts and pairs: {topics:?}");
    for topic in topics {
        let (dropped, dead): (u64, u64) = (topic.dropped.values().sum(), topic.dead.values().sum());
        assert_eq!(
            topic.put,
            topic.waiting + topic.leased + topic.assigned + topic.finished + dropped + dead,
            "{topic:?}"
        );
        assert_eq!((topic.put, topic.waiting, topic.leased, dead), (prompts, 0, 0, 0), "{topic:?}");
    }
}

/// Checks that the events of a run, lines of JSON, tell each step, and none twice but those that were replayed.
pub fn told(events: &str, steps: u64) {
    let events = events.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let first: Vec<u64> = events
        .filter(|event| event["event"] == "step" && event["recovered"] == false)
        .filter_map(|event| event["step"].as_u64())
        .collect();
    let once: HashSet<&u64> = first.iter().collect();
    assert_eq!(once.len(), first.len(), "a step was told twice: {first:?}");
    // What a learner had not told yet when it was killed, it replays or never tells.
    assert!(once.len() as u64 > steps / 2 && once.iter().all(|step| **step < steps), "{} of {steps} steps", once.len());
}
