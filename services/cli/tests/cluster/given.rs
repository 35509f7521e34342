//! What users give to a run that lives: prompts and preferences, each trained once although the coordinator is killed.

use std::{collections::BTreeMap, fs, path::Path};

use joust_core::Prompt;
use joust_data::Tokenizer;
use joust_proto::{Reason, common::v1::Purpose, coordinator::v1 as wire};
use serde_json::{Value, json};

use crate::{
    books,
    harness::{Cluster, LIMIT, ONE, accounts, run_now, signal, wait_for, wait_until_done},
    twin,
};

const RUN: &str = "given";
const STEPS: u64 = 300;
const PROMPTS: usize = 12;
const PREFERENCES: usize = 20;

/// Writes rows as JSON lines; returns the path.
fn rows(root: &Path, name: &str, rows: impl Iterator<Item = Value>) -> String {
    let path = root.join(name);
    fs::write(&path, rows.map(|row| format!("{row}\n")).collect::<String>()).expect("written");
    path.display().to_string()
}

fn added_prompt(number: usize) -> String {
    format!("a dog number {number}")
}

fn preference(number: usize) -> (String, String) {
    (format!("which is better {number}"), format!("this one {number}"))
}

/// The run of the twins, with a judge that finds every answer better or worse than any other, and a queue that keeps all examples.
fn inputs(root: &Path) -> String {
    twin::inputs(root);
    let text = fs::read_to_string(root.join("run.toml")).expect("a run file");
    let letters = "etaoinshrdlucmfw".chars().enumerate();
    let rules = letters.map(|(i, letter)| {
        format!("{{ pattern = \"{letter}\", score = {}, max_count = 100 }}", 0.37 + 0.0173 * (i * i) as f64)
    });
    let rules = format!("rules = [{}]", rules.collect::<Vec<_>>().join(", "));
    let own: String = text
        .lines()
        .map(|line| if line.starts_with("rules") { format!("{rules}\n") } else { format!("{line}\n") })
        .collect();
    let own = own.replace("ratio = 0.25", "ratio = 0.0").replace("capacity = 12", "capacity = 5000");
    fs::write(root.join("run.toml"), own.replace("steps = 24", &format!("steps = {STEPS}"))).expect("written");
    root.join("run.toml").display().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_users_give_is_trained_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("inputs");
    let file = inputs(&root);
    let Some(cluster) = Cluster::start(&folder.path().join("cluster"), &root, ONE) else { return };
    cluster.joust(&["run", "submit", &file, "--name", RUN]);
    let mut client = cluster.client();
    wait_for("two steps", LIMIT, async || run_now(&mut client, RUN).await.filter(|run| run.steps_done >= 2)).await;
    refusals(&cluster, &root).await;

    let prompts = rows(&root, "more.jsonl", (0..PROMPTS).map(|i| json!({ "prompt": added_prompt(i) })));
    let preferences = (0..PREFERENCES).map(|i| {
        let (prompt, chosen) = preference(i);
        json!({ "prompt": prompt, "chosen": chosen, "rejected": "that one" })
    });
    let preferences = rows(&root, "preferences.jsonl", preferences);
    let told = cluster.joust(&["run", "prompts", RUN, &prompts]);
    assert!(told.contains("has the 12 prompts of"), "{told}");
    cluster.joust(&["pairs", "add", RUN, &preferences]);
    // The same again, behind a kill, changes nothing.
    let before = cluster.processes()["coordinator"];
    signal("KILL", before);
    wait_for("a new coordinator", LIMIT, async || {
        (cluster.processes()["coordinator"] != before && run_now(&mut client, RUN).await.is_some()).then_some(())
    })
    .await;
    let told = cluster.joust(&["run", "prompts", RUN, &prompts, "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&told).expect("JSON")["added"], PROMPTS);
    let told = cluster.joust(&["pairs", "add", RUN, &preferences, "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&told).expect("JSON")["added"], PREFERENCES);

    wait_until_done(&cluster, RUN, LIMIT).await;
    let exported = folder.path().join("examples.jsonl");
    cluster.joust(&["pairs", "export", RUN, "--out", &exported.display().to_string()]);
    check_examples(&root, &exported);
    check_accounts(&cluster).await;
}

/// Each prompt and each preference is there once, as the policy reads them.
fn check_examples(root: &Path, exported: &Path) {
    let tokenizer = Tokenizer::open(&root.join("model")).expect("a tokenizer");
    let ids = |text: String| json!(tokenizer.encode_prompt(&Prompt::Text(text)).expect("encodes"));
    let text = fs::read_to_string(exported).expect("exported");
    let examples: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let of = |prompt: &Value| -> Vec<&Value> {
        examples
            .iter()
            .filter(|found| found["example"]["prompt_ids"] == *prompt)
            .map(|found| &found["example"])
            .collect()
    };
    for number in 0..PROMPTS {
        let found = of(&ids(added_prompt(number)));
        assert_eq!(found.len(), 1, "prompt {number}");
        assert_eq!(found[0]["source"], "online");
    }
    for number in 0..PREFERENCES {
        let (prompt, chosen) = preference(number);
        let answered = tokenizer.encode_answer(&Prompt::Text(prompt), &chosen.as_str().into()).expect("encodes");
        let found = of(&json!(answered.prompt_ids));
        assert_eq!(found.len(), 1, "preference {number}");
        assert_eq!(found[0]["source"], "human");
        assert_eq!(found[0]["answers"][0]["token_ids"], json!(answered.completion_ids));
    }
}

/// Steps took at most as many preferences as they have prompts; no prompt of the run is lost for them.
async fn check_accounts(cluster: &Cluster) {
    let metrics = fs::read_to_string(cluster.run_folder(RUN).join("metrics.jsonl")).expect("metrics");
    let lines: Vec<Value> = metrics.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let human: Vec<u64> = lines.iter().filter_map(|line| line["examples/human"].as_f64()).map(|n| n as u64).collect();
    assert_eq!(human.iter().sum::<u64>(), PREFERENCES as u64, "{human:?}");
    assert!(human.iter().all(|count| *count <= twin::PROMPTS), "{human:?}");
    let trained: f64 = lines
        .iter()
        .filter_map(|line| Some(line["prompts/trained"].as_f64()? + line["prompts/dropped"].as_f64()?))
        .sum();
    assert_eq!(trained as u64, STEPS * twin::PROMPTS);
    let topics: BTreeMap<String, wire::TopicStats> =
        accounts(cluster, RUN).await.into_iter().map(|topic| (topic.topic.clone(), topic)).collect();
    let (given, asked) = (PREFERENCES as u64, STEPS * twin::PROMPTS);
    let put = |topic: &str| (topics[topic].put, topics[topic].finished + topics[topic].assigned);
    assert_eq!((put("prompts"), put("rollouts")), ((asked, asked), (asked, asked)));
    assert_eq!((put("feedback"), put("pairs")), ((given, given), (asked + given, asked + given)));
    let events = cluster.joust(&["run", "watch", RUN, "--json"]);
    books::told(&events, STEPS);
}

/// What cannot be used is refused for what it is, and changes nothing.
async fn refusals(cluster: &Cluster, root: &Path) {
    let many = rows(root, "many.jsonl", (0..STEPS * twin::PROMPTS).map(|i| json!({ "prompt": format!("a cat {i}") })));
    let told = cluster.refused(&["run", "prompts", RUN, &many]);
    assert!(told.contains("places for") && told.contains("learner.steps"), "{told}");
    let told = cluster.refused(&["run", "prompts", "other", &many]);
    assert!(told.contains("there is no run other"), "{told}");
    let long = rows(root, "long.jsonl", [json!({ "prompt": "a cat ".repeat(5000) })].into_iter());
    let told = cluster.refused(&["run", "prompts", RUN, &long]);
    assert!(told.contains("prompts[0]: the prompt has"), "{told}");
    let mut client = cluster.client();
    let prompt = || Some(Prompt::Text("a cat".into()).into());
    let request = wire::SubmitPromptsRequest {
        run_id: RUN.into(),
        prompts: vec![prompt().expect("one")],
        purpose: Purpose::ByHand.into(),
        idempotency_key: "by hand".into(),
    };
    let refused = client.submit_prompts(request).await.expect_err("refused");
    assert_eq!(Reason::of(&refused), Some(Reason::InvalidField), "{refused}");
    let said = |first: &str, second: &str, preference: wire::Preference| wire::SubmitFeedbackRequest {
        run_id: RUN.into(),
        feedback: vec![wire::Feedback {
            prompt: prompt(),
            first: first.into(),
            second: second.into(),
            preference: preference.into(),
            author: "somebody".into(),
            ..Default::default()
        }],
        idempotency_key: blake3::hash(first.as_bytes()).to_hex().to_string(),
    };
    for (request, wanted) in [
        (said("same", "same", wire::Preference::First), "feedback[0].second"),
        (said("a", "b", wire::Preference::Unspecified), "feedback[0].preference"),
        (said(&"a cat ".repeat(5000), "b", wire::Preference::First), "the policy's context"),
    ] {
        let refused = client.submit_feedback(request).await.expect_err("refused");
        assert_eq!(Reason::of(&refused), Some(Reason::InvalidField), "{refused}");
        assert!(refused.message().contains(wanted), "{refused}");
    }
    let tie = client.submit_feedback(said("a", "b", wire::Preference::Tie)).await.expect("taken").into_inner();
    assert_eq!((tie.added, tie.ties), (0, 1));
}
