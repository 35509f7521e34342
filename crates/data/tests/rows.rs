//! Data files of every format against the same rows as JSON.

use std::{fs, path::Path};

use joust_core::{Message, Prompt};
use joust_data::{Error, Format, OnError, read_preferences, read_prompts, read_ratings, read_supervised};
use joust_data::{LossOn, Margins, PreferenceOptions, Supervised, read_unpaired};
use serde_json::{Value, json};

fn testdata() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/rows"))
}

fn write(folder: &tempfile::TempDir, name: &str, bytes: impl AsRef<[u8]>) -> std::path::PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, bytes).expect("written");
    path
}

fn texts(path: &Path) -> Result<Vec<(u64, String)>, Error> {
    let (prompts, _) = read_prompts(path, OnError::Fail)?;
    Ok(prompts.into_iter().map(|(row, prompt)| (row, prompt.display())).collect())
}

#[test]
fn parquet_reads_like_jsonl() {
    let folder = tempfile::tempdir().expect("a folder");
    let rows: Value = serde_json::from_slice(&fs::read(testdata().join("rows.json")).expect("rows")).expect("JSON");
    let mut read = 0;
    for (name, rows) in rows.as_object().expect("files") {
        let Some(rows) = rows.as_array().filter(|_| name != "ratings") else { continue };
        let lines: Vec<String> = rows.iter().map(Value::to_string).collect();
        let expected = read_prompts(&write(&folder, "rows.jsonl", lines.join("\n")), OnError::Fail).expect("JSONL");
        let parquet = testdata().join(format!("{name}.parquet"));
        let found = read_prompts(&parquet, OnError::Fail).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(plain(found.0), plain(expected.0), "{name}");
        read += 1;
    }
    assert!(read > 18, "{read} files");
    for name in ["rows.pq", "rows.PARQUET", "rows", "rows.jsonl"] {
        let path = write(&folder, name, fs::read(testdata().join("zstd.parquet")).expect("a file"));
        assert_eq!(texts(&path).expect(name).len(), 2, "by its content, whatever its name");
    }
    let broken = write(&folder, "broken.parquet", "PAR1 no");
    assert!(matches!(texts(&broken), Err(Error::Format { format: "Parquet", .. })));
}

/// Takes null fields away, which tables of fixed columns have.
fn plain(prompts: Vec<(u64, Prompt)>) -> Vec<(u64, Value)> {
    let message = |message: &Value| -> Value {
        message
            .as_object()
            .expect("a message")
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect()
    };
    let prompt = |prompt: Prompt| match json!(prompt) {
        Value::Array(messages) => messages.iter().map(message).collect(),
        other => other,
    };
    prompts.into_iter().map(|(row, own)| (row, prompt(own))).collect()
}

#[test]
fn parquet_rows_and_columns_are_named_and_never_printed() {
    let error = texts(&testdata().join("null_row.parquet")).expect_err("refused").to_string();
    assert!(error.contains("null_row.parquet:2: ") && error.contains("prompt"), "{error}");
    let error = texts(&testdata().join("bad_binary.parquet")).expect_err("refused").to_string();
    assert!(error.contains("column prompt is binary and not UTF-8") && !error.contains("private"), "{error}");
    let error =
        read_supervised(&testdata().join("odd_columns.parquet"), OnError::Fail).expect_err("refused").to_string();
    assert!(error.contains("column completion is missing") && error.contains("zone"), "{error}");
    let attributes = ["help", "deep", "fine"].map(str::to_owned);
    let (rated, _) =
        read_ratings(&testdata().join("ratings.parquet"), &attributes, Format::Trl, OnError::Fail).expect("rated");
    assert_eq!(rated[0].ratings, [1.5, 2.0, 0.1]);
    assert!(rated[1].ratings[0].is_nan() && rated[1].ratings[1].is_nan() && rated[1].ratings[2] == 2.0);
}

#[test]
fn json_is_read_as_python_reads_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let both = vec![(0, "Tom".to_owned()), (1, "Rosa".to_owned())];
    let (a, b) = (r#"{"prompt": "Tom"}"#, r#"{"prompt": "Rosa"}"#);
    let files = [
        ("bom", format!("\u{feff}{a}\n{b}\n")),
        ("cr", format!("{a}\r{b}\r")),
        ("crlf", format!("{a}\r\n{b}")),
        ("array", format!("[{a},\n {b}]\n")),
        ("spread", format!("\u{feff}\n [\n{{\"prompt\":\n\"Tom\"}},{b}\n]")),
        ("twice", format!("{}\n{b}", r#"{"prompt": "x", "prompt": "Tom"}"#)),
    ];
    for (name, text) in files {
        assert_eq!(
            texts(&write(&folder, name, text)).expect(name).into_iter().map(|(_, text)| text).collect::<Vec<_>>(),
            ["Tom", "Rosa"],
            "{name}"
        );
    }
    assert_eq!(texts(&write(&folder, "rows", format!("{a}\n{b}"))).expect("rows"), both);
    let blank = texts(&write(&folder, "blank", format!("\r\n{a}\r\n \n{b}"))).expect("rows");
    assert_eq!(blank.iter().map(|(row, _)| *row).collect::<Vec<_>>(), [1, 3], "rows are numbered by line");
    let kept = "Tom\u{2028}had\u{2029}a\u{85}kite \u{1f642}";
    assert_eq!(texts(&write(&folder, "u2028", json!({ "prompt": kept }).to_string())).expect("one")[0].1, kept);
    let utf16: Vec<u8> = a.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let marked = [&b"\xff\xfe"[..], &utf16].concat();
    let bad: [(&str, Vec<u8>, &str); 8] = [
        ("utf16", marked, "it is UTF-16; save it as UTF-8"),
        ("utf16le", utf16, "it is UTF-16"),
        (
            "latin1",
            b"{\"prompt\": \"Tom\"}\n{\"prompt\": \"caf\xe9 private\"}".to_vec(),
            ":2: not UTF-8 (at byte 16 of the line)",
        ),
        ("number", b"{\"prompt\": 3}".to_vec(), ":1: column prompt is text or a list of messages, found a number"),
        ("list", b"{\"prompt\": \"Tom\"}\n[\"private\"]".to_vec(), ":2: expected an object, found a list"),
        ("cut", b"{\"prompt\": \"private".to_vec(), ":1: not valid JSON (column 19: EOF while parsing a string)"),
        ("nan", b"{\"prompt\": \"private\", \"x\": NaN}".to_vec(), ":1: not valid JSON"),
        ("cut_array", b"[{\"prompt\": \"private\"},\n{\"prompt\":".to_vec(), "line 2: not valid JSON"),
    ];
    for (name, bytes, wanted) in bad {
        let error = texts(&write(&folder, name, bytes)).expect_err(name).to_string();
        assert!(error.contains(wanted) && !error.contains("private"), "{name}: {error}");
    }
}

fn problem<T: std::fmt::Debug>(read: Result<T, Error>) -> String {
    read.expect_err("refused").to_string()
}

#[test]
fn columns_that_would_be_lost_are_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let bad = [
        (json!({"prompt": "private", "tools": [{}]}), "column tools needs a prompt of messages"),
        (json!({"prompt": "private", "images": ["private"]}), "column images is not supported"),
        (
            json!({"prompt": [{"role": "user", "content": "private"}], "tools": {"a": 1}}),
            "column tools is a list, found an object",
        ),
        (
            json!({"prompt": [{"role": "user", "content": "private"}], "tools": "private"}),
            "column tools is text that is not JSON",
        ),
        (json!({"prompt": [{"role": "user"}]}), "column prompt has a bad message (element 0): content is missing"),
        (json!({"prompt": ["private"]}), "column prompt needs messages (element 0 is text)"),
        (json!({"prompt": {"role": "user"}}), "column prompt is text or a list of messages, found an object"),
        (json!({"prompt": []}), "column prompt is an empty list"),
        (
            json!({"question": "private", "prompt": null}),
            "neither prompt nor messages among the columns that are set: question, prompt",
        ),
    ];
    for (row, wanted) in bad {
        let error = problem(read_prompts(&write(&folder, "row.jsonl", row.to_string()), OnError::Fail));
        assert!(error.contains(wanted) && error.contains("row.jsonl:1: ") && !error.contains("private"), "{error}");
    }
    let kept = json!({"prompt": null, "messages": [{"from": "user", "value": "Hi"}], "tools": "[{\"b\": 1, \"a\": 2}]", "extra": 3});
    let (prompts, _) = read_prompts(&write(&folder, "kept.jsonl", kept.to_string()), OnError::Fail).expect("a prompt");
    let Prompt::Chat(chat) = &prompts[0].1 else { panic!("a chat") };
    assert_eq!(chat.messages, [Message::new("user", "Hi")]);
    assert_eq!(chat.tools.as_ref().expect("tools").to_string(), r#"[{"b":1,"a":2}]"#);
}

#[test]
fn supervised_rows_have_three_forms_and_labels() {
    let folder = tempfile::tempdir().expect("a folder");
    let (u, a) = (json!({"role": "user", "content": "Hi"}), json!({"role": "assistant", "content": "Ho"}));
    let rows = [
        json!({"messages": [u, a]}),
        json!({"conversations": [{"from": "user", "value": "Hi"}, {"from": "assistant", "value": "Ho"}]}),
        json!({"prompt": [u], "completion": [a]}),
        json!({"prompt": "Hi", "completion": " Ho", "label": "1"}),
        json!({"text": "plain"}),
        json!({"prompt": "Hi", "completion": " No", "label": 0}),
        json!({"prompt": "Hi", "completion": " No", "label": "False"}),
    ];
    let lines: Vec<String> = rows.iter().map(Value::to_string).collect();
    let (examples, skipped) =
        read_supervised(&write(&folder, "rows.jsonl", lines.join("\n")), OnError::Fail).expect("rows");
    assert_eq!((examples.len(), skipped.get("label is false")), (5, Some(&2)));
    assert!(matches!(&examples[1], Supervised::Messages(chat) if chat.messages.len() == 2));
    assert_eq!(examples[0].asked(), "user: Hi");
    let bad = [
        (json!({"prompt": "x", "completion": "y", "label": "maybe"}), "column label is true, false, 1 or 0"),
        (json!({"prompt": "x"}), "column completion is missing (columns: prompt)"),
        (json!({"messages": [u]}), "column messages has no message of the assistant"),
        (json!({"prompt": [u], "completion": [u]}), "column completion does not end with the assistant's message"),
        (json!({"instruction": "x", "output": "y"}), "column text is missing (columns: instruction, output)"),
        (json!({"text": ""}), "column text is empty"),
    ];
    for (row, wanted) in bad {
        let error = problem(read_supervised(&write(&folder, "bad.jsonl", row.to_string()), OnError::Fail));
        assert!(error.contains(wanted), "{error}");
    }
    let unpaired = json!({"prompt": [u], "completion": [a], "label": "0"});
    let (rows, _) = read_unpaired(&write(&folder, "kto.jsonl", unpaired.to_string()), OnError::Fail).expect("a row");
    assert_eq!((rows[0].label, rows[0].completion.display().as_str()), (false, "Ho"));
    assert_eq!(LossOn::default(), LossOn::All);
}

#[test]
fn preferences_of_every_form_are_one_conversation() {
    let folder = tempfile::tempdir().expect("a folder");
    let message = |role: &str, content: &str| json!({"role": role, "content": content});
    let (u, yes, no) = (message("user", "Q?"), message("assistant", "Yes."), message("assistant", "No."));
    let (more, end) = (message("user", "And?"), message("assistant", "So."));
    let same = [
        json!({"prompt": [u], "chosen": [yes], "rejected": [no]}),
        json!({"prompt": [u], "chosen": "Yes.", "rejected": "No."}),
        json!({"chosen": [u, yes], "rejected": [u, no]}),
        json!({"prompt": "Q?", "chosen": [u, yes], "rejected": [u, no], "score_chosen": 8}),
        json!({"prompt": "Q?", "chosen": [yes], "rejected": [no]}),
        json!({"prompt": [u], "chosen": [u, yes], "rejected": [u, no]}),
    ];
    let read = |row: &Value, options: PreferenceOptions| {
        read_preferences(&write(&folder, "row.jsonl", row.to_string()), &options)
    };
    let plain = PreferenceOptions::new(OnError::Fail);
    for row in same {
        let pair = read(&row, plain).expect("a pair").0.remove(0);
        assert_eq!(json!(pair.prompt), json!([u]), "{row}");
        assert_eq!((pair.chosen.display(), pair.rejected.display()), ("Yes.".into(), "No.".into()));
    }
    let turns = json!({"chosen": [u, yes, more, end], "rejected": [u, no, more, end]});
    let pair = read(&turns, plain).expect("a pair").0.remove(0);
    assert_eq!((json!(pair.prompt), json!(pair.chosen)), (json!([u]), json!([yes, more, end])), "several turns stay");
    let bad = [
        (json!({"chosen": [u, yes], "rejected": "No."}), "one of chosen and rejected is text, the other messages"),
        (json!({"chosen": [yes], "rejected": [no]}), "share no first message"),
        (
            json!({"prompt": "Other", "chosen": [u, yes], "rejected": [u, no]}),
            "another message of the user than the prompt",
        ),
        (
            json!({"prompt": [u], "chosen": [yes], "rejected": [more]}),
            "column rejected does not end with the assistant's message",
        ),
        (json!({"prompt": "a", "chosen": "b", "rejected": "b"}), "chosen and rejected are the same"),
        (json!({"prompt": "a", "chosen": "b", "rejected": null}), "column rejected is null"),
        (json!({"chosen": "Yes", "rejected": "No"}), "share no beginning"),
    ];
    for (row, wanted) in bad {
        let error = problem(read(&row, plain));
        assert!(error.contains(wanted), "{error}");
    }
    let marked = |margin: Value, margins| {
        read(
            &json!({"prompt": "a", "chosen": "b", "rejected": "c", "margin": margin}),
            PreferenceOptions { margins, ..plain },
        )
    };
    assert_eq!(marked(json!("2.5"), Margins::Needed).expect("a margin").0[0].margin, Some(2.5));
    assert_eq!(marked(json!(-1), Margins::Needed).expect("a margin").0[0].margin, Some(-1.0));
    assert_eq!(marked(json!("much"), Margins::Ignored).expect("not read").0[0].margin, None);
    let bad = [
        (json!(-1), "negative"),
        (json!(null), "column margin is null"),
        (json!("much"), "column margin is a number, found text"),
        (json!("inf"), "found text"),
    ];
    for (margin, wanted) in bad {
        let error = problem(marked(margin, Margins::AtLeastZero));
        assert!(error.contains(wanted), "{error}");
    }
}
