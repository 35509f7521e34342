//! Asking again what failed for a reason that may pass.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use joust_core::{Judgement, JudgementStatus, Provenance};
use tokio::time::{Instant, timeout_at};

use crate::{
    Ask, CallContext, Judge, JudgeItem,
    verdict::{Failure, judgement},
};

/// Asks a judge again for items that were unavailable, unparsable or late, while the deadline allows.
pub struct Retry {
    inner: Arc<dyn Judge>,
    retries: u32,
    timeout: Duration,
}

impl Retry {
    /// Wraps a judge; each item is asked at most `1 + retries` times, all of a call within `timeout` and its own deadline.
    pub fn new(inner: Arc<dyn Judge>, retries: u32, timeout: Duration) -> Self {
        Self { inner, retries, timeout }
    }

    /// Asks for `items` once; the answer fits them whatever the inner judge does.
    async fn ask(&self, items: &[JudgeItem], call: &CallContext) -> Vec<Judgement> {
        let failure = match timeout_at(call.deadline, self.inner.judge(items, call)).await {
            Ok(judgements) if judgements.len() == items.len() => return judgements,
            Ok(judgements) => {
                let detail = format!("judge gave {} judgements for {} items", judgements.len(), items.len());
                Failure::new(JudgementStatus::Unavailable, detail)
            }
            Err(_) => Failure::new(JudgementStatus::Deadline, "no answer before the deadline"),
        };
        let provenance = Provenance {
            judge: self.name().to_owned(),
            config_hash: self.config_hash().to_owned(),
            backend: "retry".to_owned(),
            retries: 0,
        };
        items.iter().map(|_| judgement(Err(failure.clone()), &provenance)).collect()
    }
}

#[async_trait]
impl Judge for Retry {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn config_hash(&self) -> &str {
        self.inner.config_hash()
    }

    fn asks(&self) -> &'static [Ask] {
        self.inner.asks()
    }

    fn writes_notes(&self) -> bool {
        self.inner.writes_notes()
    }

    async fn judge(&self, items: &[JudgeItem], call: &CallContext) -> Vec<Judgement> {
        let own = Instant::now().checked_add(self.timeout);
        let call = &CallContext { deadline: own.map_or(call.deadline, |own| own.min(call.deadline)), ..*call };
        let mut answers = self.ask(items, call).await;
        for attempt in 1..=self.retries {
            let open: Vec<usize> = (0..answers.len()).filter(|&i| may_pass(answers[i].status)).collect();
            if open.is_empty() || Instant::now() >= call.deadline {
                break;
            }
            let again: Vec<JudgeItem> = open.iter().map(|&i| items[i].clone()).collect();
            let call = CallContext { attempt: call.attempt + attempt, ..*call };
            for (&i, mut answer) in open.iter().zip(self.ask(&again, &call).await) {
                answer.provenance.retries += attempt;
                answers[i] = answer;
            }
        }
        answers
    }
}

/// Returns whether asking again can help: a refusal or an input that cannot be judged stays what it is.
fn may_pass(status: JudgementStatus) -> bool {
    match status {
        JudgementStatus::Unavailable | JudgementStatus::ParseFailed | JudgementStatus::Deadline => true,
        JudgementStatus::Ok | JudgementStatus::Refused | JudgementStatus::InvalidInput => false,
    }
}
