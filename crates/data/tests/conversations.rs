//! Rows of every form against the ids that `transformers` and TRL give
//! (`scripts/fixtures/conversations.py`).

use std::{fs, path::Path};

use joust_data::{LossOn, OnError, PreferenceOptions, Tokenizer, read_preferences, read_prompts, read_supervised};
use serde_json::{Value, json};

fn fixture() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/conversations.json");
    serde_json::from_slice(&fs::read(&path).expect("the fixture")).expect("JSON")
}

fn open(folder: &Path, files: &Value, template: Option<&str>) -> Tokenizer {
    for (name, content) in files.as_object().expect("files") {
        fs::write(folder.join(name), content.to_string()).expect("written");
    }
    if let Some(template) = template {
        fs::write(folder.join("chat_template.jinja"), template).expect("written");
    }
    Tokenizer::open(folder).expect("a tokenizer")
}

fn ranges(learned: &[bool]) -> Vec<[usize; 2]> {
    let mut found: Vec<[usize; 2]> = Vec::new();
    for at in (0..learned.len()).filter(|at| learned[*at]) {
        match found.last_mut().filter(|last| last[1] == at) {
            Some(last) => last[1] = at + 1,
            None => found.push([at, at + 1]),
        }
    }
    found
}

/// Reads one row from a file and encodes it, in the fixture's form.
fn found(tokenizer: &Tokenizer, kind: &str, row: &Value, path: &Path) -> Result<Value, joust_data::Error> {
    fs::write(path, row.to_string()).expect("written");
    match kind {
        "prompt" => {
            let (prompts, _) = read_prompts(path, OnError::Fail)?;
            Ok(json!({ "ids": tokenizer.encode_prompt(&prompts[0].1)? }))
        }
        "sft" => {
            let (examples, _) = read_supervised(path, OnError::Fail)?;
            let sequence = tokenizer.encode_supervised(&examples[0], LossOn::All)?;
            let last = tokenizer.encode_supervised(&examples[0], LossOn::Last)?;
            assert_eq!(ranges(&last.learned).first(), ranges(&sequence.learned).last(), "the last answer alone");
            Ok(json!({ "ids": sequence.ids, "learned": ranges(&sequence.learned) }))
        }
        _ => {
            let (pairs, _) = read_preferences(path, &PreferenceOptions::new(OnError::Fail))?;
            let pair = &pairs[0];
            let ids = tokenizer.encode_pair(&pair.prompt, &pair.chosen, &pair.rejected)?;
            let whole = tokenizer.encode_answered(&pair.prompt, &pair.chosen)?;
            assert_eq!(whole, [&ids.prompt_ids[..], &ids.chosen_ids].concat(), "a reward model reads the same");
            Ok(json!({ "prompt": ids.prompt_ids, "chosen": ids.chosen_ids, "rejected": ids.rejected_ids }))
        }
    }
}

/// Lists what a case says: its row and what is wanted, and the same conversation in other columns.
fn rows(case: &Value) -> Vec<(Value, Value)> {
    let mut wanted = case.clone();
    wanted.as_object_mut().expect("a case").retain(|key, _| !["kind", "row", "as_messages"].contains(&key.as_str()));
    let row = &case["row"];
    let mut rows = vec![(row.clone(), wanted.clone())];
    let joined = |name: &str| -> Option<Value> {
        let (prompt, answer) = (row["prompt"].as_array()?, row[name].as_array()?);
        Some(prompt.iter().chain(answer).cloned().collect())
    };
    let with = |columns: &[(&str, Value)]| {
        let mut other = row.as_object().expect("a row").clone();
        other.retain(|key, _| !["prompt", "completion", "chosen", "rejected"].contains(&key.as_str()));
        other.extend(columns.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        Value::Object(other)
    };
    if let (Some(learned), Some(messages)) = (case.get("as_messages"), joined("completion")) {
        rows.push((with(&[("messages", messages)]), json!({ "ids": wanted["ids"], "learned": learned })));
    }
    if let (Some(chosen), Some(rejected)) = (joined("chosen"), joined("rejected")) {
        rows.push((with(&[("chosen", chosen), ("rejected", rejected)]), wanted));
    }
    rows
}

#[test]
fn rows_give_the_ids_of_transformers_and_trl() {
    let fixture = fixture();
    let (mut count, mut wrong) = (0, Vec::new());
    for group in fixture["groups"].as_array().expect("groups") {
        let folder = tempfile::tempdir().expect("a folder");
        let template = group["template"].as_str().map(|name| fixture["templates"][name].as_str().expect("a template"));
        let name = group["folder"].as_str().expect("a folder");
        let tokenizer = open(folder.path(), &fixture["folders"][name], template);
        for case in group["cases"].as_array().expect("cases") {
            let kind = case["kind"].as_str().expect("a kind");
            for (row, wanted) in rows(case) {
                count += 1;
                let got = found(&tokenizer, kind, &row, &folder.path().join("row.jsonl"));
                if !got.as_ref().is_ok_and(|got| *got == wanted) {
                    let got = got.map_or_else(|error| error.to_string(), |got| got.to_string());
                    wrong.push(format!(
                        "{name} {:?} {kind} {row}\n  wanted {wanted}\n  found  {got}",
                        group["template"]
                    ));
                }
            }
        }
    }
    assert!(count > 1200, "{count} rows");
    assert!(wrong.is_empty(), "{} of {count} differ:\n{}", wrong.len(), wrong.join("\n"));
}
