//! Tokenizers and data files against values worked out by hand.

use std::{collections::BTreeSet, fs, path::Path, sync::Arc};

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use joust_core::{Message, Prompt};
use joust_data::{
    Error, OnError, PromptSet, SetOptions, Tokenizer, read_preferences, read_prompts, read_supervised, train_bpe,
};
use parquet::arrow::ArrowWriter;

fn tokenizer(folder: &Path) -> Tokenizer {
    let texts: Vec<String> = (0..40).map(|i| format!("one day Tom saw {i} boats and a red kite")).collect();
    train_bpe(&texts, 300, folder).expect("trained");
    Tokenizer::open(folder).expect("opened")
}

fn write(folder: &Path, name: &str, text: &str) -> std::path::PathBuf {
    let path = folder.join(name);
    fs::write(&path, text).expect("written");
    path
}

fn chat(turns: &[(&str, &str)]) -> Prompt {
    let message = |(role, content): &(&str, &str)| Message { role: (*role).into(), content: (*content).into() };
    Prompt::Chat(turns.iter().map(message).collect())
}

#[test]
fn text_goes_through_and_specials_are_stripped() {
    let folder = tempfile::tempdir().expect("a folder");
    let tokenizer = tokenizer(folder.path());
    let text = "one day Tom saw a kite, naïve 日本";
    let ids = tokenizer.encode_prompt(&Prompt::Text(text.into())).expect("encoded");
    assert_eq!(tokenizer.decode(&ids).expect("decoded"), text);
    let answer = tokenizer.encode_completion(" a red kite").expect("encoded");
    assert_eq!(answer.last(), Some(&2), "EOS ends an answer");
    assert_eq!(tokenizer.decode(&[&[1], answer.as_slice(), &[0]].concat()).expect("decoded"), " a red kite");
    assert_eq!((tokenizer.eos_ids(), tokenizer.pad_id()), (&[2][..], Some(0)));
}

#[test]
fn eos_ids_are_those_of_all_files() {
    let folder = tempfile::tempdir().expect("a folder");
    tokenizer(folder.path());
    write(folder.path(), "generation_config.json", r#"{"eos_token_id": [7, 9]}"#);
    write(folder.path(), "config.json", r#"{"eos_token_id": 9}"#);
    assert_eq!(Tokenizer::open(folder.path()).expect("opened").eos_ids(), [2, 7, 9]);
}

#[test]
fn more_ids_than_rows_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let tokenizer = tokenizer(folder.path());
    assert!(tokenizer.check_embedding(1000).is_ok());
    assert!(matches!(tokenizer.check_embedding(100), Err(Error::Embedding { rows: 100, .. })));
}

#[test]
fn chat_needs_a_template_and_a_raised_exception_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let messages = chat(&[("user", "hi")]);
    let error = tokenizer(folder.path()).encode_prompt(&messages).expect_err("no template");
    assert!(error.to_string().contains("chat_template.jinja"), "{error}");
    write(folder.path(), "chat_template.jinja", "{{ raise_exception('roles must alternate') }}");
    let error = Tokenizer::open(folder.path()).expect("opened").encode_prompt(&messages).expect_err("raised");
    assert!(error.to_string().contains("roles must alternate"), "{error}");
}

#[test]
fn prompts_come_from_all_columns_and_bad_lines_have_numbers() {
    let folder = tempfile::tempdir().expect("a folder");
    let lines = [
        r#"{"prompt": "Tell"}"#,
        r#"{"prompt": [{"role": "user", "content": "hi"}]}"#,
        r#"{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}"#,
    ];
    let good = write(folder.path(), "good.jsonl", &lines.join("\n"));
    let (prompts, skipped) = read_prompts(&good, OnError::Fail).expect("read");
    let expected = [Prompt::Text("Tell".into()), chat(&[("user", "hi")]), chat(&[("user", "hi")])];
    assert_eq!(prompts.iter().map(|(row, _)| *row).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(prompts.into_iter().map(|(_, prompt)| prompt).collect::<Vec<_>>(), expected);
    assert!(skipped.is_empty());

    let bad = write(folder.path(), "bad.jsonl", "{\"prompt\": \"a\"}\n\n[1]\n{\"prompt\": 3}\n");
    assert!(matches!(read_prompts(&bad, OnError::Fail), Err(Error::Row { line: 3, .. })));
    let (prompts, skipped) = read_prompts(&bad, OnError::Skip).expect("read");
    assert_eq!((prompts.len(), skipped.values().sum::<usize>()), (1, 2));
}

#[test]
fn parquet_reads_like_jsonl() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("prompts.parquet");
    let column: ArrayRef = Arc::new(StringArray::from(vec!["one", "two"]));
    let batch = RecordBatch::try_from_iter([("prompt", column)]).expect("a batch");
    let file = fs::File::create(&path).expect("a file");
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).expect("a writer");
    writer.write(&batch).expect("written");
    writer.close().expect("closed");
    let (prompts, _) = read_prompts(&path, OnError::Fail).expect("read");
    assert_eq!(prompts, [(0, Prompt::Text("one".into())), (1, Prompt::Text("two".into()))]);
    let broken = write(folder.path(), "broken.parquet", "PAR1 no");
    assert!(matches!(read_prompts(&broken, OnError::Fail), Err(Error::Format { format: "Parquet", .. })));
}

#[test]
fn preferences_find_the_prompt_that_answers_share() {
    let folder = tempfile::tempdir().expect("a folder");
    let lines = [
        r#"{"prompt": "Q", "chosen": " yes", "rejected": " no", "margin": 2}"#,
        r#"{"chosen": "Q: hi A: good day", "rejected": "Q: hi A: bad day"}"#,
        r#"{"chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "b"}]}"#,
    ];
    let path = write(folder.path(), "pairs.jsonl", &lines.join("\n"));
    let (pairs, _) = read_preferences(&path, OnError::Fail).expect("read");
    assert_eq!(pairs[0].margin, Some(2.0));
    assert_eq!((&pairs[1].prompt, pairs[1].chosen.as_str()), (&Prompt::Text("Q: hi A:".into()), " good day"));
    assert_eq!((&pairs[2].prompt, pairs[2].rejected.as_str()), (&chat(&[("user", "q")]), "b"));
}

#[test]
fn supervised_rows_learn_the_last_answer_only() {
    let folder = tempfile::tempdir().expect("a folder");
    let lines = [
        r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}, {"role": "assistant", "content": "d"}]}"#,
        r#"{"prompt": "p", "completion": " bad", "label": false}"#,
        r#"{"text": "plain"}"#,
    ];
    let path = write(folder.path(), "sft.jsonl", &lines.join("\n"));
    let (examples, skipped) = read_supervised(&path, OnError::Fail).expect("read");
    assert_eq!(examples[0].completion, "d");
    assert_eq!(examples[0].prompt, Some(chat(&[("user", "a"), ("assistant", "b"), ("user", "c")])));
    assert_eq!((examples.len(), examples[1].prompt.is_none(), skipped.len()), (2, true, 1));
}

#[test]
fn the_held_out_side_shares_no_prompt_and_epochs_hold_each_row_once() {
    let prompts: Vec<(u64, Prompt)> = (0..100).map(|i| (i, Prompt::Text(format!("p{}", i % 40)))).collect();
    let options = SetOptions { seed: 3, shuffle: true, eval_fraction: 0.25 };
    let set = PromptSet::new(prompts.clone(), None, options).expect("split");
    let texts = |side: &[(u64, Prompt)]| side.iter().map(|(_, prompt)| prompt.display()).collect::<BTreeSet<_>>();
    let (train, held) = (texts(set.train()), texts(set.eval()));
    assert!(train.is_disjoint(&held));
    assert_eq!((train.len(), held.len(), set.train().len() + set.eval().len()), (30, 10, 100));
    let mut order = set.order(1);
    assert_ne!(order, set.order(2));
    order.sort_unstable();
    assert_eq!(order, (0..set.len()).collect::<Vec<_>>());
    let few = PromptSet::new(prompts[..1].to_vec(), None, options);
    assert!(matches!(few, Err(Error::Split { prompts: 1, .. })));
}
