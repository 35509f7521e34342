use std::path::PathBuf;

use joust_core::{Message, Prompt};
use serde_json::{Value, json};

use super::*;
use crate::{OnError, PreferenceOptions, read_preferences, read_ratings};

fn file(folder: &tempfile::TempDir, rows: &[Value]) -> PathBuf {
    let path = folder.path().join("rows.jsonl");
    let lines: Vec<String> = rows.iter().map(Value::to_string).collect();
    std::fs::write(&path, lines.join("\n")).expect("written");
    path
}

fn read(format: Format, rows: &[Value]) -> (Vec<Preference>, usize) {
    let folder = tempfile::tempdir().expect("a folder");
    let options = PreferenceOptions { format, ..PreferenceOptions::new(OnError::Skip) };
    let (pairs, skipped) = read_preferences(&file(&folder, rows), &options).expect("pairs");
    (pairs, skipped.values().sum())
}

fn chat(turns: &[(&str, &str)]) -> Prompt {
    let messages: Vec<Message> = turns.iter().map(|(role, text)| Message::new(*role, *text)).collect();
    Prompt::Chat(messages.into())
}

fn texts(pair: &Preference) -> (String, String) {
    (pair.chosen.display(), pair.rejected.display())
}

#[test]
fn ultrafeedback_contrasts_best_and_worst() {
    let answer = |text: &str, score: Value| json!({"response": text, "overall_score": score, "model": "m"});
    let rows = [
        json!({"instruction": "Q", "completions": [answer("a", json!(7.5)), answer("b", json!("9")), answer("c", json!(2))]}),
        json!({"instruction": "Q", "completions": [answer("a", json!(5)), answer("b", json!(5.0))]}),
        json!({"instruction": "Q", "completions": [answer("a", json!("high"))]}),
    ];
    let (pairs, skipped) = read(Format::UltraFeedback, &rows);
    assert_eq!((pairs.len(), skipped), (1, 2));
    assert_eq!(texts(&pairs[0]), ("b".into(), "c".into()));
    assert_eq!((pairs[0].margin, &pairs[0].prompt), (Some(7.0), &chat(&[("user", "Q")])));
}

#[test]
fn code_ultrafeedback_joins_ratings_by_model() {
    let rows = [json!({
        "instruction": "Sort.",
        "responses": [{"model": "m1", "response": "x"}, {"model": "m2", "response": "y"}],
        "annotations": [{"model": "m2", "rating": "4"}, {"model": "m1", "rating": "2"}, {"model": "m1", "rating": 3}],
    })];
    let (pairs, _) = read(Format::CodeUltraFeedback, &rows);
    assert_eq!((texts(&pairs[0]), pairs[0].margin), (("y".into(), "x".into()), Some(1.5)));
}

#[test]
fn hh_dialogues_become_messages() {
    let rows = [
        json!({"chosen": "\n\nHuman: Hi\n\nAssistant: Ho\n\nHuman: So?\n\nAssistant: Yes.", "rejected": "\n\nHuman: Hi\n\nAssistant: Ho\n\nHuman: So?\n\nAssistant: No."}),
        json!({"chosen": "\n\nHuman: Hi\n\nAssistant: Ho", "rejected": "plain"}),
    ];
    let (pairs, skipped) = read(Format::Hh, &rows);
    assert_eq!((pairs.len(), skipped), (1, 1));
    assert_eq!(pairs[0].prompt, chat(&[("user", "Hi"), ("assistant", "Ho"), ("user", "So?")]));
    assert_eq!(texts(&pairs[0]), ("Yes.".into(), "No.".into()));
}

#[test]
fn helpsteer_rows_are_rated_answers_or_pairs_of_neighbours() {
    let row = |prompt: &str, response: &str, help: f64| json!({"prompt": prompt, "response": response, "helpfulness": help, "verbosity": 1});
    let long = "Hi<extra_id_1>Assistant\nHo<extra_id_1>User\nSo?<extra_id_1>Assistant\n";
    let rows = [row("Q", "good", 4.0), row("Q", "bad", 1.0), row(long, "one", 2.0), row(long, "two", 2.0)];
    let (pairs, skipped) = read(Format::HelpSteer, &rows);
    assert_eq!(
        (texts(&pairs[0]), pairs[0].margin, pairs.len(), skipped),
        (("good".into(), "bad".into()), Some(3.0), 1, 1)
    );
    let folder = tempfile::tempdir().expect("a folder");
    let attributes = ["helpfulness".to_owned(), "verbosity".to_owned()];
    let (rated, _) = read_ratings(&file(&folder, &rows), &attributes, Format::HelpSteer, OnError::Fail).expect("rated");
    assert_eq!((rated.len(), rated[1].ratings.as_slice()), (4, [1.0, 1.0].as_slice()));
    assert_eq!(rated[2].prompt, chat(&[("user", "Hi"), ("assistant", "Ho"), ("user", "So?")]));
}

#[test]
fn oasst_trees_and_their_messages_give_the_same_pairs() {
    let message = |id: &str, parent: Option<&str>, role: &str, rank: Option<u32>| json!({"message_id": id, "parent_id": parent, "text": id, "role": role, "rank": rank, "deleted": false});
    let flat = [
        message("q", None, "prompter", None),
        message("a0", Some("q"), "assistant", Some(1)),
        message("a1", Some("q"), "assistant", Some(0)),
        message("q2", Some("a1"), "prompter", Some(0)),
        message("b0", Some("q2"), "assistant", Some(0)),
        message("b1", Some("q2"), "assistant", Some(2)),
    ];
    let tree = |own: &Value, replies: Vec<Value>| {
        let mut tree = own.clone();
        tree["replies"] = replies.into();
        tree
    };
    let inner = tree(&flat[3], vec![flat[4].clone(), flat[5].clone()]);
    let nested = json!({"prompt": tree(&flat[0], vec![flat[1].clone(), tree(&flat[2], vec![inner])])});
    let (pairs, _) = read(Format::Oasst, &flat);
    assert_eq!(pairs.iter().map(texts).collect::<Vec<_>>(), [("a1".into(), "a0".into()), ("b0".into(), "b1".into())]);
    assert_eq!(pairs[1].prompt, chat(&[("user", "q"), ("assistant", "a1"), ("user", "q2")]));
    assert_eq!(read(Format::Oasst, &[nested]).0, pairs);
}
