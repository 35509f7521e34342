use std::{collections::BTreeSet, fs::File, path::Path};

use joust_core::{
    Completion, DropReason, Finish, JudgementStatus, JudgementValue, ModelRef, Player, Prompt, PromptTask, Provenance,
    RecordId, SCHEMA,
};
use parquet::{
    file::serialized_reader::SerializedFileReader,
    record::{Field, Row as Record},
};
use proptest::prelude::*;

use super::*;

const PROMPTS: u64 = 2;

fn completion(sample_index: u32, text: &str) -> Completion {
    Completion {
        sample_index,
        player: Player::Policy,
        model: ModelRef { generation: 0, version: 5, hash: "h".into() },
        token_ids: vec![7, 8 + sample_index, 2],
        logprobs: vec![-0.5, -0.25, -1.0],
        text: text.to_owned(),
        finish: Finish::Eos,
    }
}

fn rollout(position: u64, text: &str) -> Rollout {
    Rollout {
        schema: SCHEMA,
        id: RecordId::derive(&[b"r", &position.to_le_bytes()]),
        task: PromptTask {
            schema: SCHEMA,
            id: RecordId::derive(&[b"t", &position.to_le_bytes()]),
            position,
            epoch: 1,
            row: position % 10,
            purpose: Purpose::Train,
            prompt: Prompt::Text("Once".into()),
        },
        prompt_ids: vec![1],
        completions: vec![completion(0, text), completion(1, "ähm\n")],
    }
}

fn judgement() -> Judgement {
    Judgement {
        status: JudgementStatus::Ok,
        detail: None,
        value: Some(JudgementValue::Scores(vec![0.1, -2.0])),
        notes: Vec::new(),
        provenance: Provenance { judge: "happy".into(), config_hash: "c".into(), backend: "rule".into(), retries: 0 },
    }
}

fn outcome(position: u64) -> Outcome {
    Outcome {
        schema: SCHEMA,
        id: RecordId::derive(&[b"o", &position.to_le_bytes()]),
        position,
        purpose: Purpose::Train,
        examples: Vec::new(),
        dropped: None,
        left_out: Vec::new(),
        scores: vec![0.1, -2.0],
        eos_share: 1.0,
        mean_tokens: 3.0,
    }
}

fn add(archive: &mut Archive, position: u64, text: &str) {
    archive.add(&rollout(position, text), &judgement(), &outcome(position)).expect("added");
}

fn files(dir: &Path, end: &str) -> Vec<String> {
    let entries = fs::read_dir(dir.join(FOLDER)).expect("a folder");
    let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    names.filter(|name| name.ends_with(end)).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Reads every row as the record API of another reader shows it, in the order of the files.
fn records(dir: &Path) -> Vec<Record> {
    let open = |name: &String| {
        let file = File::open(dir.join(FOLDER).join(name)).expect("opens");
        SerializedFileReader::new(file).expect("Parquet").into_iter()
    };
    files(dir, ".parquet").iter().flat_map(open).map(|row| row.expect("a row")).collect()
}

fn column(record: &Record, name: &str) -> Field {
    let found = record.get_column_iter().find(|(column, _)| *column == name);
    found.unwrap_or_else(|| panic!("no column {name}")).1.clone()
}

/// Reads (position, sample index, completion) of every row, in the order of the files.
fn rows(dir: &Path) -> Vec<(u64, u32, String)> {
    let key = |record: &Record| match ["position", "sample_index", "completion"].map(|name| column(record, name)) {
        [Field::ULong(position), Field::UInt(index), Field::Str(text)] => (position, index, text),
        other => panic!("{other:?}"),
    };
    records(dir).iter().map(key).collect()
}

fn expected(positions: impl IntoIterator<Item = u64>) -> Vec<(u64, u32, String)> {
    let both = |position| [(position, 0, format!("p{position}")), (position, 1, "ähm\n".to_owned())];
    positions.into_iter().flat_map(both).collect()
}

#[test]
fn a_part_is_written_when_its_last_position_comes() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut archive = Archive::open(dir.path(), PROMPTS).expect("opens");
    for position in (0..PROMPTS * PART_STEPS).rev() {
        assert!(rows(dir.path()).is_empty());
        add(&mut archive, position, &format!("p{position}"));
    }
    assert_eq!(files(dir.path(), ""), ["completions-000000-000019.parquet"]);
    assert_eq!(rows(dir.path()), expected(0..PROMPTS * PART_STEPS));
}

#[test]
fn a_row_holds_what_is_known() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut archive = Archive::open(dir.path(), PROMPTS).expect("opens");
    add(&mut archive, 4, "p4");
    let failed = Judgement { status: JudgementStatus::Refused, value: None, ..judgement() };
    let dropped = Outcome { dropped: Some(DropReason::JudgementFailed), scores: Vec::new(), ..outcome(5) };
    archive.add(&rollout(5, "p5"), &failed, &dropped).expect("added");
    archive.close().expect("closed");
    let records = records(dir.path());
    let text = |name: &str, at: usize| match column(&records[at], name) {
        Field::Str(text) => text,
        other => panic!("{name} is {other:?}"),
    };
    let names = ["prompt", "finish", "player", "judgement_status", "judgement_value", "judge", "judge_config_hash"];
    let first: Vec<String> = names.iter().map(|name| text(name, 1)).collect();
    assert_eq!(first, ["Once", "eos", "policy", "ok", "{\"scores\":[0.1,-2.0]}", "happy", "c"]);
    let list = |name: &str| match column(&records[1], name) {
        Field::ListInternal(list) => list.elements().to_vec(),
        other => panic!("{name} is {other:?}"),
    };
    assert_eq!(list("prompt_ids"), [Field::UInt(1)]);
    assert_eq!(list("token_ids"), [7, 9, 2].map(Field::UInt));
    assert_eq!(list("logprobs"), [-0.5, -0.25, -1.0].map(Field::Float));
    assert_eq!(column(&records[1], "logprob_sum"), Field::Double(-1.75));
    assert_eq!(column(&records[1], "score"), Field::Double(-2.0));
    let numbers = ["position", "epoch", "row", "policy_version"].map(|name| column(&records[1], name));
    assert_eq!(numbers, [4, 1, 4, 5].map(Field::ULong));
    assert_eq!(column(&records[1], "dropped"), Field::Null);
    assert_eq!((text("judgement_status", 2), text("dropped", 2)), ("refused".into(), "judgement_failed".into()));
    assert_eq!(["score", "judgement_value"].map(|name| column(&records[2], name)), [Field::Null, Field::Null]);
}

#[test]
fn parts_with_gaps_are_written_when_the_run_has_moved_on() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut archive = Archive::open(dir.path(), PROMPTS).expect("opens");
    for position in [0, 40, 1] {
        add(&mut archive, position, &format!("p{position}"));
    }
    assert!(rows(dir.path()).is_empty(), "rows of the part before may still come");
    add(&mut archive, 80, "p80");
    assert_eq!(rows(dir.path()), expected([0, 1]));
    add(&mut archive, 2, "p2");
    archive.close().expect("closed");
    assert_eq!(rows(dir.path()), expected([0, 1, 2, 40, 80]));
    assert!(files(dir.path(), JOURNAL_END).is_empty());
}

const JOURNAL_END: &str = ".journal";

#[test]
fn answers_to_evaluation_prompts_are_left_out() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut archive = Archive::open(dir.path(), PROMPTS).expect("opens");
    let mut rollout = rollout(0, "p0");
    rollout.task.purpose = Purpose::Eval;
    archive.add(&rollout, &judgement(), &outcome(0)).expect("accepted");
    archive.close().expect("closed");
    assert!(rows(dir.path()).is_empty());
}

#[test]
fn a_damaged_file_is_named_and_its_journal_kept() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut archive = Archive::open(dir.path(), PROMPTS).expect("opens");
    add(&mut archive, 0, "p0");
    let parquet = dir.path().join(FOLDER).join("completions-000000-000019.parquet");
    fs::write(&parquet, "no Parquet").expect("written");
    let error = archive.close().expect_err("refused");
    assert!(error.to_string().contains("completions-000000-000019.parquet"), "{error}");
    fs::remove_file(&parquet).expect("removed");
    Archive::open(dir.path(), PROMPTS).expect("opens").close().expect("closed");
    assert_eq!(rows(dir.path()), expected([0]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever is killed (dropped without close, the last entry cut) and sent again, the archive ends with every position
    /// that was sent after its last loss, once.
    #[test]
    fn kills_neither_lose_nor_double_rows(lives in prop::collection::vec(
        (prop::collection::vec(0u64..130, 0..30), any::<bool>(), prop::option::of(1u64..9)), 1..5,
    )) {
        let dir = tempfile::tempdir().expect("a folder");
        let mut present = BTreeSet::new();
        for (positions, close, cut) in lives {
            let mut archive = Archive::open(dir.path(), PROMPTS).expect("opens");
            for position in positions {
                add(&mut archive, position, &format!("p{position}"));
                present.insert(position);
            }
            if close {
                archive.close().expect("closed");
                prop_assert_eq!(rows(dir.path()), expected(present.iter().copied()));
                continue;
            }
            drop(archive);
            if let (Some(cut), Some(name)) = (cut, files(dir.path(), JOURNAL_END).first()) {
                // A kill within a write leaves the first bytes of an entry that was not taken.
                let path = dir.path().join(FOLDER).join(name);
                let mut bytes = fs::read(&path).expect("read");
                bytes.extend(&[3, 0, 0, 0, 0, 0, 0, 0, 1][..cut as usize]);
                fs::write(&path, bytes).expect("written");
            }
        }
        Archive::open(dir.path(), PROMPTS).expect("opens").close().expect("closed");
        prop_assert_eq!(rows(dir.path()), expected(present.iter().copied()));
    }
}

#[test]
fn a_row_that_comes_again_replaces_the_first() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut archive = Archive::open(dir.path(), PROMPTS).expect("opens");
    add(&mut archive, 0, "unused");
    archive.close().expect("closed");
    let mut archive = Archive::open(dir.path(), PROMPTS).expect("opens");
    add(&mut archive, 0, "p0");
    archive.close().expect("closed");
    assert_eq!(rows(dir.path()), expected([0]));
}
