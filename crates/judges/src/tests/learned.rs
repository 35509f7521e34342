//! A judge that learns: what it asks its teacher, when, and what it says of itself.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use joust_core::{JudgementStatus, Prompt};

use super::{assert_no_stand_in, call, item, json, scores};
use crate::{Ask, Error, Lesson, Opened, Pupil, Scorer, build};

/// Scores by length, and remembers what it was taught.
#[derive(Default)]
struct Student {
    lessons: Mutex<Vec<Lesson>>,
    version: AtomicU64,
    asked: AtomicU64,
    dull: bool,
}

impl Scorer for Student {
    fn score(&self, texts: Vec<(Prompt, String)>) -> Result<Vec<Option<f64>>, String> {
        Ok(texts.iter().map(|(_, text)| Some(text.len() as f64)).collect())
    }
}

impl Pupil for Student {
    fn learn(&self, lessons: &[Lesson], asked: u64) -> Result<(), String> {
        self.asked.fetch_add(asked, Ordering::SeqCst);
        if self.dull {
            return Err("it diverged".into());
        }
        self.lessons.lock().expect("a lock").extend_from_slice(lessons);
        self.version.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn version(&self) -> u64 {
        self.version.load(Ordering::SeqCst)
    }

    fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }
}

fn judge_of(student: &Arc<Student>, gold: &str) -> crate::Result<Arc<dyn crate::Judge>> {
    let settings = format!(
        r#"{{ "kind": "learned", "name": "rm", "gold": "{gold}", "model": "rm", "every": 4, "labels": 2, "budget": 5,
             "ask_again": {{ "retries": 0, "timeout_s": 60.0 }} }}"#
    );
    let gold =
        json(r#"{ "kind": "rule", "name": "gold", "rules": [{ "pattern": "x", "score": 1.0, "max_count": 9 }] }"#);
    let pupils = HashMap::from([("rm".to_owned(), Arc::clone(student) as Arc<dyn Pupil>)]);
    let own = json(&settings);
    build(&own, &[gold, own.clone()], &Opened { pupils, ..Opened::default() })
}

#[tokio::test]
async fn the_closest_pairs_are_labelled_within_the_budget() {
    let student = Arc::new(Student::default());
    let judge = judge_of(&student, "gold").expect("valid settings");
    // Distances by length: 3, 1, 2 (of three answers the two closest), 5; the first lesson asks about the second and the third.
    let items = [
        item(1, Ask::Score, &["xaaaaa", "xx"]),
        item(2, Ask::Score, &["aaa", "xx"]),
        item(3, Ask::Rank, &["xxxxxxxx", "aaa", "a"]),
        item(4, Ask::Score, &["aaaaaaaa", "xxx"]),
    ];
    let first = judge.judge(&items[..3], &call()).await;
    assert_eq!((student.version(), student.asked()), (0, 0), "three of four prompts");
    assert_eq!(scores(&first[0]), [6.0, 2.0]);
    let second = judge.judge(&items[3..], &call()).await;
    assert_eq!(second[0].provenance.backend, "learned v0", "lessons come after the batch");
    assert_eq!((student.version(), student.asked()), (1, 2));
    let taught = student.lessons.lock().expect("a lock").clone();
    let pairs: Vec<(&str, &str)> = taught.iter().map(|l| (l.chosen.as_str(), l.rejected.as_str())).collect();
    assert_eq!(pairs, [("xx", "aaa")], "the third item's closest pair is a tie of the teacher, which teaches nothing");
    // Two more lessons: two questions, then the one that the budget leaves, then none.
    for (version, asked) in [(2, 4), (3, 5), (3, 5)] {
        let answers = judge.judge(&items, &call()).await;
        answers.iter().for_each(assert_no_stand_in);
        assert_eq!((student.version(), student.asked()), (version, asked));
    }
    assert_eq!(judge.judge(&items[..1], &call()).await[0].provenance.backend, "learned v3");
}

#[tokio::test]
async fn a_lesson_that_fails_is_no_verdict() {
    let student = Arc::new(Student { dull: true, ..Student::default() });
    let judge = judge_of(&student, "gold").expect("valid settings");
    let items: Vec<_> = (0..4).map(|n| item(n, Ask::Score, &["x", "aa"])).collect();
    for answer in judge.judge(&items, &call()).await {
        assert_no_stand_in(&answer);
        assert_eq!(answer.status, JudgementStatus::Unavailable);
        assert!(answer.detail.expect("a reason").contains("could not be taught: it diverged"));
    }
}

#[test]
fn a_teacher_is_needed() {
    for gold in ["nobody", "rm"] {
        let Err(error) = judge_of(&Arc::new(Student::default()), gold) else { panic!("{gold} cannot teach") };
        assert!(matches!(error, Error::MissingGold { .. }) && error.to_string().contains(gold), "{error}");
    }
}
