//! Tokenizers and data files against values worked out by hand.

use std::{collections::BTreeSet, fs, path::Path};

use joust_core::{Message, Prompt};
use joust_data::{Error, OnError, PromptSet, SetOptions, Tokenizer, read_prompts, train_bpe};

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
    Prompt::Chat(turns.iter().map(|(role, content)| Message::new(*role, *content)).collect::<Vec<_>>().into())
}

#[test]
fn text_goes_through_and_specials_are_stripped() {
    let folder = tempfile::tempdir().expect("a folder");
    let tokenizer = tokenizer(folder.path());
    let text = "one day Tom saw a kite, naïve 日本";
    let ids = tokenizer.encode_prompt(&Prompt::Text(text.into())).expect("encoded");
    assert_eq!(tokenizer.decode(&ids).expect("decoded"), text);
    let answer = tokenizer.encode_answer(&Prompt::Text("one day".into()), &" a red kite".into()).expect("encoded");
    let answer = answer.completion_ids;
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
fn the_learned_end_is_the_tokenizers_own_and_turns_end_where_the_template_ends_them() {
    let folder = tempfile::tempdir().expect("a folder");
    tokenizer(folder.path());
    write(folder.path(), "generation_config.json", r#"{"eos_token_id": [0, 9, 2]}"#);
    assert_eq!(Tokenizer::open(folder.path()).expect("opened").eos_id(), Some(2), "not the lowest");
    let template = "{% for m in messages %}{{ m.content }}{{ '<s>' if m.role == 'assistant' }}{% endfor %}";
    write(folder.path(), "chat_template.jinja", template);
    assert_eq!(Tokenizer::open(folder.path()).expect("opened").eos_ids(), [0, 1, 2, 9], "<s> ends the turn");
    let config: serde_json::Value =
        serde_json::from_slice(&fs::read(folder.path().join("tokenizer_config.json")).expect("read")).expect("JSON");
    let mut config = config.as_object().expect("an object").clone();
    config.shift_remove("eos_token");
    write(folder.path(), "tokenizer_config.json", &serde_json::Value::Object(config).to_string());
    assert_eq!(Tokenizer::open(folder.path()).expect("opened").eos_id(), Some(0), "the first that is listed");
    write(folder.path(), "generation_config.json", r#"{"eos_token_id": 5000}"#);
    let error = Tokenizer::open(folder.path()).expect("opened").check_embedding(1000).expect_err("refused");
    assert!(matches!(error, Error::EosEmbedding { id: 5000, rows: 1000, .. }), "{error}");
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
