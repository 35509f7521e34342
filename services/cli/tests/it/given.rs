//! Given preferences, rankings and single answers train in `joust run`, alone or beside prompts that are answered.

use std::{fs, path::Path, process::Command};

use serde_json::{Value, json};

/// Writes rows that prefer a happy ending to a sad one, in a form, and returns the file's name.
fn rows(folder: &Path, name: &str, row: fn(&str, &str, &str) -> Vec<Value>) -> String {
    let prompts = fs::read_to_string("../../examples/stories/prompts.jsonl").expect("prompts");
    let mut text = String::new();
    for line in prompts.lines().take(22) {
        let prompt: Value = serde_json::from_str(line).expect("JSON");
        let prompt = prompt["prompt"].as_str().expect("a prompt").to_owned();
        for row in row(&prompt, " Everyone smiled and was happy.", " It was dark and she cried.") {
            text += &format!("{row}\n");
        }
    }
    let path = folder.join(name);
    fs::write(&path, text).expect("written");
    path.display().to_string()
}

/// Runs the stories model with `data` and what else is set; returns the lines of its metrics.
fn run(folder: &Path, name: &str, data: &str, rest: &str) -> (Vec<Value>, String) {
    let stories = Path::new("../../examples/stories").canonicalize().expect("the folder");
    let out = folder.join(name);
    let text = format!(
        "schema = 1\nname = \"given\"\npolicy = {{ model = {:?}, dtype = \"float32\" }}\ndata = {{ {data} }}\n{rest}\n\
         eval = {{ every = 0 }}\noutput = {{ dir = {out:?} }}\nsampling = {{ max_new_tokens = 12 }}\n\
         judge = [{{ name = \"j\", kind = \"rule\", rules = [{{ words = {{ the = 1.0, a = -1.0 }} }}] }}]\n",
        stories.join("base")
    );
    let file = folder.join(format!("{name}.toml"));
    fs::write(&file, text).expect("written");
    let done = Command::new(env!("CARGO_BIN_EXE_joust")).arg("run").arg(&file).output().expect("joust starts");
    let error = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "{name}: {error}");
    let metrics = fs::read_to_string(out.join("metrics.jsonl")).expect("metrics");
    (metrics.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect(), error)
}

fn number(line: &Value, key: &str) -> f64 {
    line[key].as_f64().expect(key)
}

const LEARNER: &str = "learner = { prompts_per_step = 4, micro_batch = 4, learning_rate = 2e-4 }";

#[test]
fn given_pairs_train_without_being_answered() {
    let folder = tempfile::tempdir().expect("a folder");
    let pairs =
        |prompt: &str, good: &str, bad: &str| vec![json!({ "prompt": prompt, "chosen": good, "rejected": bad })];
    let file = rows(folder.path(), "pairs.jsonl", pairs);
    let data = format!("pairs = {file:?}, eval_fraction = 0.0, epochs = 2");
    let (lines, error) = run(folder.path(), "dpo", &data, LEARNER);
    // 22 rows twice: every row is trained in each epoch.
    assert_eq!(lines.len(), 11, "{error}");
    let (first, last) = (&lines[0], &lines[10]);
    assert!((number(first, "loss") - 2f64.ln()).abs() < 1e-6, "{first}");
    assert!(number(last, "loss") < 0.5 && number(last, "rewards/accuracies") == 1.0, "{last}");
    assert!(lines.iter().all(|line| number(line, "examples/offline") == 4.0 && line["objective/kl"].is_null()));
    let data = format!("pairs = {file:?}, eval_fraction = 0.0");
    let (lines, error) = run(folder.path(), "rest", &data, LEARNER);
    assert!(lines.len() == 6 && error.contains("the last step takes 2 rows of another epoch"), "{error}");
    let lists = format!("{LEARNER}\nloss = {{ name = \"lipo\" }}\npairing = {{ select = \"list\" }}");
    let (lines, _) = run(folder.path(), "lipo", &data, &lists);
    assert!(number(&lines[5], "loss") < number(&lines[0], "loss"));
}

#[test]
fn single_answers_and_rankings_train() {
    let folder = tempfile::tempdir().expect("a folder");
    let single = |prompt: &str, good: &str, bad: &str| {
        let row = |text: &str, label: bool| json!({ "prompt": prompt, "completion": text, "label": label });
        vec![row(good, true), row(bad, false)]
    };
    let file = rows(folder.path(), "single.jsonl", single);
    let data = format!("pairs = {file:?}, pairs_format = \"unpaired\", eval_fraction = 0.0");
    let kto = format!("{LEARNER}\nloss = {{ name = \"kto\" }}\npairing = {{ select = \"single\" }}");
    let (lines, _) = run(folder.path(), "kto", &data, &kto);
    let last = lines.last().expect("lines");
    assert!(number(last, "loss") < number(&lines[0], "loss"), "{last}");
    assert!(number(last, "rewards/chosen") > number(last, "rewards/rejected"), "{last}");

    let ranked = |prompt: &str, good: &str, bad: &str| {
        vec![json!({ "prompt": prompt, "completions": [good, " They went home.", bad] })]
    };
    let file = rows(folder.path(), "ranked.jsonl", ranked);
    let data = format!("pairs = {file:?}, pairs_format = \"ranked\", eval_fraction = 0.0");
    let lists = format!("{LEARNER}\nloss = {{ name = \"list_mle\" }}\npairing = {{ select = \"list\" }}");
    let (lines, _) = run(folder.path(), "ranked", &data, &lists);
    assert!(number(&lines[5], "loss") < number(&lines[0], "loss"));
    assert_eq!(number(&lines[0], "answers"), 12.0);
}

#[test]
fn given_pairs_take_their_share_of_each_step() {
    let folder = tempfile::tempdir().expect("a folder");
    let pairs =
        |prompt: &str, good: &str, bad: &str| vec![json!({ "prompt": prompt, "chosen": good, "rejected": bad })];
    let file = rows(folder.path(), "pairs.jsonl", pairs);
    let prompts = Path::new("../../examples/stories/prompts.jsonl").canonicalize().expect("prompts");
    let data = format!("prompts = {prompts:?}, pairs = {file:?}, pairs_share = 0.25, eval_fraction = 0.0");
    let learner = "learner = { prompts_per_step = 8, micro_batch = 4, learning_rate = 1e-4, steps = 4 }";
    let (lines, error) = run(folder.path(), "mixed", &data, learner);
    assert_eq!(lines.len(), 4, "{error}");
    for line in &lines {
        assert_eq!(number(line, "examples/offline"), 2.0, "{line}");
        // The rest was sampled and judged, but for ties, which are dropped.
        assert!(number(line, "pairs") > 2.0 && !line["objective/kl"].is_null(), "{line}");
        assert_eq!(number(line, "prompts/trained") + number(line, "prompts/dropped"), 8.0, "{line}");
    }
}

#[test]
fn what_given_examples_cannot_train_is_refused_by_key() {
    let folder = tempfile::tempdir().expect("a folder");
    let check = |sets: &[&str]| {
        let mut args = vec!["config", "check", "../../examples/stories/run.toml", "--set", "data.pairs=pairs.jsonl"];
        args.extend(sets.iter().flat_map(|set| ["--set", *set]));
        let done =
            Command::new(env!("CARGO_BIN_EXE_joust")).args(&args).current_dir(".").output().expect("joust starts");
        assert_eq!(done.status.code(), Some(2), "{sets:?}");
        String::from_utf8_lossy(&done.stderr).into_owned()
    };
    drop(folder);
    assert!(check(&[]).contains("data.pairs_share = 1"));
    assert!(check(&["data.pairs_share=0.5", "preset=grpo"]).contains("data.pairs = "));
    assert!(check(&["data.pairs_share=0.5", "data.pairs_format=unpaired"]).contains("data.pairs_format = unpaired"));
}
