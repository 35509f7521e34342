use std::fs;

use serde_json::Value;

use super::*;
use crate::{tensorboard::event_files, tfrecord};

fn values(kl: f64) -> BTreeMap<String, f64> {
    BTreeMap::from([("objective/kl".to_owned(), kl), ("loss".to_owned(), 0.5)])
}

fn lines(dir: &Path) -> Vec<Value> {
    let text = fs::read_to_string(dir.join(FILE)).expect("read");
    assert!(text.is_empty() || text.ends_with('\n'), "{text:?}");
    text.lines().map(|line| serde_json::from_str(line).expect("a whole line")).collect()
}

fn keys(dir: &Path) -> Vec<(String, u64)> {
    let key = |line: &Value| Some((line["kind"].as_str()?.to_owned(), line["step"].as_u64()?));
    lines(dir).iter().map(|line| key(line).expect("a key")).collect()
}

fn number(bytes: &mut &[u8]) -> u64 {
    let mut number = 0;
    for shift in (0..).step_by(7) {
        let (byte, rest) = bytes.split_first().expect("a digit");
        *bytes = rest;
        number |= u64::from(byte & 0x7F) << shift;
        if *byte < 0x80 {
            break;
        }
    }
    number
}

/// Decodes a protobuf message into (field, raw bytes of its value).
fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let tag = number(&mut bytes);
        let size = match tag & 7 {
            0 => {
                fields.push((tag >> 3, number(&mut bytes).to_le_bytes().to_vec()));
                continue;
            }
            1 => 8,
            2 => number(&mut bytes) as usize,
            5 => 4,
            other => panic!("wire type {other}"),
        };
        let (value, rest) = bytes.split_at(size);
        fields.push((tag >> 3, value.to_vec()));
        bytes = rest;
    }
    fields
}

/// Reads (step, tag, value) of every scalar of the one event file.
fn curves(dir: &Path) -> Vec<(u64, String, f32)> {
    let files = event_files(&dir.join(EVENTS)).expect("listed");
    assert_eq!(files.len(), 1, "{files:?}");
    let bytes = fs::read(&files[0]).expect("read");
    let (first, mut rest) = tfrecord::split(&bytes).expect("a version");
    assert!(fields(first).contains(&(3, b"brain.Event:2".to_vec())));
    let mut scalars = Vec::new();
    while !rest.is_empty() {
        let (payload, behind) = tfrecord::split(rest).expect("a whole frame");
        rest = behind;
        let event = fields(payload);
        let field = |number: u64| event.iter().find(|(field, _)| *field == number).expect("present").1.clone();
        let step = u64::from_le_bytes(field(2).try_into().expect("a step"));
        for (_, entry) in fields(&field(5)) {
            let entry = fields(&entry);
            let value = f32::from_le_bytes(entry[1].1.clone().try_into().expect("a float"));
            scalars.push((step, String::from_utf8(entry[0].1.clone()).expect("text"), value));
        }
    }
    scalars
}

#[test]
fn a_record_is_one_object_with_its_values() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut log = MetricsLog::open(dir.path(), None).expect("opens");
    log.step(0, &values(0.25)).expect("written");
    log.eval(1, &values(f64::NAN)).expect("written");
    let lines = lines(dir.path());
    assert_eq!((&lines[0]["kind"], &lines[0]["objective/kl"]), (&Value::from("step"), &Value::from(0.25)));
    assert!(lines[0]["time_s"].as_f64().expect("a time") > 1.7e9);
    assert_eq!((&lines[1]["kind"], &lines[1]["objective/kl"]), (&Value::from("eval"), &Value::Null));
    let text = fs::read_to_string(dir.path().join(FILE)).expect("read");
    assert!(text.starts_with("{\"kind\":\"step\",\"step\":0,\"time_s\":"), "{text}");
}

#[test]
fn a_resume_keeps_each_record_once_and_rebuilds_the_curves() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut log = MetricsLog::open(dir.path(), None).expect("opens");
    for step in 0..6 {
        log.step(step, &values(step as f64)).expect("written");
        if step % 2 == 1 {
            log.eval(step + 1, &values(-1.0)).expect("written");
        }
    }
    drop(log);
    let mut log = MetricsLog::open(dir.path(), Some(4)).expect("resumes");
    let all = [("step", 0), ("step", 1), ("eval", 2), ("step", 2), ("step", 3), ("eval", 4)];
    let mut expected: Vec<(String, u64)> = all.map(|(kind, step)| (kind.to_owned(), step)).into();
    assert_eq!(keys(dir.path()), expected);
    log.eval(4, &values(7.0)).expect("made again");
    log.step(4, &values(40.0)).expect("written");
    log.step(4, &values(41.0)).expect("a double is accepted and not written");
    expected.push(("step".to_owned(), 4));
    assert_eq!(keys(dir.path()), expected);
    let kl: Vec<(u64, f32)> = curves(dir.path())
        .into_iter()
        .filter_map(|(step, tag, value)| (tag == "objective/kl").then_some((step, value)))
        .collect();
    assert_eq!(kl, [(0, 0.0), (1, 1.0), (2, -1.0), (2, 2.0), (3, 3.0), (4, -1.0), (4, 40.0)]);
}

#[test]
fn values_that_are_no_numbers_stay_so_in_the_curves() {
    let dir = tempfile::tempdir().expect("a folder");
    MetricsLog::open(dir.path(), None).expect("opens").step(0, &values(f64::NAN)).expect("written");
    drop(MetricsLog::open(dir.path(), Some(1)).expect("resumes"));
    let curves = curves(dir.path());
    assert_eq!(curves.len(), 2);
    assert!(curves.iter().any(|(_, tag, value)| tag == "objective/kl" && value.is_nan()), "{curves:?}");
}

#[test]
fn without_resume_files_start_anew() {
    let dir = tempfile::tempdir().expect("a folder");
    MetricsLog::open(dir.path(), None).expect("opens").step(0, &values(1.0)).expect("written");
    drop(MetricsLog::open(dir.path(), None).expect("opens"));
    assert!(keys(dir.path()).is_empty());
    assert!(curves(dir.path()).is_empty());
}
