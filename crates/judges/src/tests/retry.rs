//! Asking again: what, how often and until when.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use joust_core::{Judgement, JudgementStatus, JudgementValue};
use tokio::time::{Instant, sleep};

use super::{assert_no_stand_in, call, item, preference, provenance};
use crate::{
    Ask, CallContext, Judge, JudgeItem, Retry,
    verdict::{Failure, judgement},
};

/// Answers by script: the statuses of an item, one an attempt, the last one for good.
struct Scripted {
    items: Vec<JudgeItem>,
    script: Vec<Vec<JudgementStatus>>,
    delay: Duration,
    asked: Mutex<Vec<(u32, usize)>>,
}

impl Scripted {
    fn new(script: &[&[JudgementStatus]], delay: Duration) -> Arc<Self> {
        let items = (0..script.len() as u64).map(|n| item(n, Ask::Compare, &["a", "b"])).collect();
        let script = script.iter().map(|statuses| statuses.to_vec()).collect();
        Arc::new(Self { items, script, delay, asked: Mutex::default() })
    }
}

#[async_trait]
impl Judge for Scripted {
    fn name(&self) -> &str {
        "scripted"
    }

    fn config_hash(&self) -> &str {
        "hash"
    }

    async fn judge(&self, items: &[JudgeItem], call: &CallContext) -> Vec<Judgement> {
        sleep(self.delay).await;
        let answer = |item: &JudgeItem| {
            let at = self.items.iter().position(|known| known == item).expect("an item of the script");
            self.asked.lock().expect("not poisoned").push((call.attempt, at));
            let statuses = &self.script[at];
            let status = statuses[(call.attempt as usize).min(statuses.len() - 1)];
            let verdict = match status {
                JudgementStatus::Ok => Ok(JudgementValue::Preference(0.75)),
                failed => Err(Failure::new(failed, "scripted")),
            };
            judgement(verdict, &provenance())
        };
        items.iter().map(answer).collect()
    }
}

const SHORT: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_secs(30);

fn statuses(answers: &[Judgement]) -> Vec<(JudgementStatus, u32)> {
    answers.iter().for_each(assert_no_stand_in);
    answers.iter().map(|answer| (answer.status, answer.provenance.retries)).collect()
}

#[tokio::test(start_paused = true)]
async fn only_what_may_pass_is_asked_again() {
    use JudgementStatus::{InvalidInput, Ok, ParseFailed, Refused, Unavailable};
    let judge = Scripted::new(&[&[Ok], &[Unavailable, Ok], &[Refused, Ok], &[ParseFailed], &[InvalidInput, Ok]], SHORT);
    let answers = Retry::new(judge.clone(), 2, LONG).judge(&judge.items, &call()).await;
    assert_eq!(statuses(&answers), [(Ok, 0), (Ok, 1), (Refused, 0), (ParseFailed, 2), (InvalidInput, 0)]);
    assert_eq!(preference(&answers[1]), 0.75);
    let again: Vec<_> = judge.asked.lock().expect("not poisoned").iter().filter(|asked| asked.0 > 0).copied().collect();
    assert_eq!(again, [(1, 1), (1, 3), (2, 3)]);
}

#[tokio::test(start_paused = true)]
async fn no_answer_by_the_deadline_is_a_status() {
    use JudgementStatus::{Deadline, Ok, Unavailable};
    let judge = Scripted::new(&[&[Ok]], Duration::from_secs(5));
    let began = Instant::now();
    let hurried = CallContext::new(1, began + Duration::from_secs(2));
    assert_eq!(statuses(&Retry::new(judge.clone(), 3, LONG).judge(&judge.items, &hurried).await), [(Deadline, 0)]);
    assert_eq!(began.elapsed(), Duration::from_secs(2));
    let own_limit = Retry::new(judge.clone(), 3, Duration::from_secs(1));
    assert_eq!(statuses(&own_limit.judge(&judge.items, &call()).await), [(Deadline, 0)]);
    assert_eq!(began.elapsed(), Duration::from_secs(3));

    // The second attempt does not fit in the deadline; the answered item keeps its answer.
    let judge = Scripted::new(&[&[Ok], &[Unavailable]], Duration::from_secs(5));
    let hurried = CallContext::new(1, Instant::now() + Duration::from_secs(8));
    let answers = Retry::new(judge.clone(), 3, LONG).judge(&judge.items, &hurried).await;
    assert_eq!(statuses(&answers), [(Ok, 0), (Deadline, 1)]);
}

/// Gives one judgement too few.
struct Miscounting;

#[async_trait]
impl Judge for Miscounting {
    fn name(&self) -> &str {
        "miscounting"
    }

    fn config_hash(&self) -> &str {
        "hash"
    }

    async fn judge(&self, items: &[JudgeItem], _call: &CallContext) -> Vec<Judgement> {
        items[1..].iter().map(|_| judgement(Ok(JudgementValue::Preference(0.9)), &provenance())).collect()
    }
}

#[tokio::test]
async fn answers_that_may_belong_to_other_items_are_not_used() {
    let items = [item(1, Ask::Compare, &["a", "b"]), item(2, Ask::Compare, &["a", "b"])];
    let answers = Retry::new(Arc::new(Miscounting), 1, LONG).judge(&items, &call()).await;
    assert_eq!(statuses(&answers), [(JudgementStatus::Unavailable, 1); 2]);
    assert_eq!(answers[0].provenance.judge, "miscounting");
}
