//! Few-shot preference data: whose pairs are shown, and that every verb reads them.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use joust_testkit::tiny_folder;
use serde_json::Value;

fn joust(root: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_joust")).args(arguments).current_dir(root).output().expect("joust starts")
}

fn few_shot(root: &Path, out: &str, more: &[&str]) -> String {
    let output = joust(root, &[&["few-shot", "pairs.jsonl", "--out", out], more].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs::read_to_string(root.join(out)).expect("written")
}

fn refused(root: &Path, arguments: &[&str]) -> String {
    let output = joust(root, arguments);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Ann's and Bo's tastes are opposite; Cy has two pairs only.
fn write(root: &Path) -> Vec<[String; 4]> {
    let users = [("Ann", 6), ("Bo", 5), ("Cy", 2)];
    let pair = |(user, i): (&str, usize)| {
        let day = |kind: &str| format!(" a {kind} mat {i}");
        let [better, worse] = if user == "Bo" { ["sad", "happy"] } else { ["happy", "sad"] };
        [user.to_owned(), format!("the cat {user} {i} sat on"), day(better), day(worse)]
    };
    let pairs: Vec<_> = users.into_iter().flat_map(|(user, n)| (0..n).map(move |i| (user, i))).map(pair).collect();
    let line = |[user, prompt, chosen, rejected]: &[String; 4]| {
        format!(
            "{{\"user\": \"{user}\", \"prompt\": \"{prompt}\", \"chosen\": \"{chosen}\", \"rejected\": \"{rejected}\"}}\n"
        )
    };
    fs::write(root.join("pairs.jsonl"), pairs.iter().map(line).collect::<String>()).expect("written");
    pairs
}

#[test]
fn each_prompt_shows_other_pairs_of_its_user() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    let pairs = write(root);
    let text = few_shot(root, "few.jsonl", &["--shots", "3"]);
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(rows.len(), 11, "Cy's two pairs cannot show three others");
    for (row, [user, prompt, chosen, rejected]) in rows.iter().zip(&pairs) {
        let field = |key: &str| row[key].as_str().expect("text");
        assert_eq!([field("user"), field("chosen"), field("rejected")], [user, chosen, rejected]);
        assert_eq!(field("completion"), chosen);
        let shown = field("prompt").strip_suffix(prompt.as_str()).expect("the query comes last");
        let mut count = 0;
        for [other, asked, better, worse] in &pairs {
            let text = format!("Asked: {asked}\nPreferred: {}\nNot preferred: {}\n\n", better.trim(), worse.trim());
            let there = shown.matches(&text).count();
            assert!(there == 0 || (there == 1 && other == user && asked != prompt), "{shown}");
            count += there;
        }
        assert_eq!((count, shown.matches("Asked: ").count()), (3, 3), "{shown}");
    }
    assert_eq!(few_shot(root, "again.jsonl", &["--shots", "3"]), text);
    assert_ne!(few_shot(root, "other.jsonl", &["--shots", "3", "--seed", "1"]), text);
    let full = refused(root, &["few-shot", "pairs.jsonl", "--out", "few.jsonl"]);
    assert!(full.contains("few.jsonl exists"), "{full}");
    let many = refused(root, &["few-shot", "pairs.jsonl", "--out", "x.jsonl", "--shots", "9"]);
    assert!(many.contains("no user has pairs of 10 prompts"), "{many}");
    fs::write(root.join("nobody.jsonl"), "{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\"}\n")
        .expect("written");
    let nobody = refused(root, &["few-shot", "nobody.jsonl", "--out", "x.jsonl"]);
    assert!(nobody.contains("a pair has no column user"), "{nobody}");
}

#[test]
fn the_same_file_is_imitated_judged_by_and_answered() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    write(root);
    tiny_folder(&root.join("base"), 3);
    few_shot(root, "few.jsonl", &["--shots", "1"]);
    let learner = "learner = { steps = 1, batch_size = 4, micro_batch = 2 }\n";
    let of = |name: &str| {
        format!(
            "schema = 1\nname = \"{name}\"\nmodel = {{ base = \"base\", dtype = \"float32\" }}\ndata = {{ train = \"few.jsonl\", max_length = 128 }}\n{learner}"
        )
    };
    fs::write(root.join("sft.toml"), of("imitated")).expect("written");
    fs::write(root.join("reward.toml"), of("judge")).expect("written");
    let run = "schema = 1\nname = \"aligned\"\npreset = \"oaif-ipo\"\npolicy = { model = \"imitated\", dtype = \"float32\" }\n\
               data = { prompts = \"few.jsonl\", eval_fraction = 0.0 }\nsampling = { max_new_tokens = 4 }\nloss = { beta = 0.01 }\n\
               learner = { steps = 1, prompts_per_step = 4, micro_batch = 2 }\neval = { every = 0 }\noutput = { dir = \"out\" }\n\
               [[judge]]\nname = \"user\"\nkind = \"reward_model\"\nmodel = \"judge\"\nmax_length = 128\n";
    fs::write(root.join("run.toml"), run).expect("written");
    for arguments in [
        vec!["sft", "sft.toml", "--set", "output.dir=imitated"],
        vec!["train-reward", "reward.toml", "--set", "output.dir=judge"],
        vec!["run", "run.toml"],
    ] {
        let output = joust(root, &arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    assert!(root.join("out/policy/model.safetensors").exists());
}
