//! A reward model that learns during the run from a few labels of a dearer judge (D2PO, Singhal et al.,
//! <https://arxiv.org/abs/2405.01511>).

use std::sync::Arc;

use async_trait::async_trait;
use joust_core::{Judgement, JudgementStatus, JudgementValue, Prompt, Provenance};
use tokio::{sync::Mutex, task::spawn_blocking};

use crate::{Ask, CallContext, Judge, JudgeItem, RewardModel, Scorer};

/// One gold label.
#[derive(Debug, Clone, PartialEq)]
pub struct Lesson {
    /// What was to be answered.
    pub prompt: Prompt,
    /// The answer that the gold judge prefers.
    pub chosen: String,
    /// The other one.
    pub rejected: String,
}

/// A scorer that can be taught; implemented where the tensors are.
pub trait Pupil: Scorer {
    /// Updates the model on labels and keeps it, with the count of questions that they cost. Blocks while the model trains.
    ///
    /// # Errors
    /// A message saying what failed; scores and version are then as before.
    fn learn(&self, lessons: &[Lesson], asked: u64) -> Result<(), String>;

    /// Returns how often it was taught.
    fn version(&self) -> u64;

    /// Returns how many questions the gold judge was asked for it.
    fn asked(&self) -> u64;
}

/// When a pupil is taught.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lessons {
    /// Judged prompts between two lessons.
    pub every: usize,
    /// Questions of each lesson.
    pub labels: usize,
    /// Questions of the whole run; 0 for any number.
    pub budget: u64,
}

/// Judges by a reward model that a gold judge teaches: of every so many judged prompts, the pairs that the model finds closest are labelled.
pub struct Learned {
    provenance: Provenance,
    pupil: Arc<dyn Pupil>,
    gold: Arc<dyn Judge>,
    lessons: Lessons,
    scale: f64,
    pool: Mutex<Vec<(f64, JudgeItem)>>,
}

impl Learned {
    /// Wraps a pupil and its teacher; `scale` is the log-odds of preference per unit of reward.
    pub fn new(
        provenance: Provenance,
        pupil: Arc<dyn Pupil>,
        gold: Arc<dyn Judge>,
        (lessons, scale): (Lessons, f64),
    ) -> Self {
        Self { provenance, pupil, gold, lessons, scale, pool: Mutex::default() }
    }

    /// Lets the gold judge label the closest pairs of the pool and teaches the pupil; a lesson that fails is told in `Err`.
    async fn teach(&self, mut pool: Vec<(f64, JudgeItem)>, call: &CallContext) -> Result<(), String> {
        let left = match self.lessons.budget {
            0 => u64::MAX,
            budget => budget.saturating_sub(self.pupil.asked()),
        };
        pool.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.id.cmp(&b.1.id)));
        pool.truncate(self.lessons.labels.min(usize::try_from(left).unwrap_or(usize::MAX)));
        let questions: Vec<JudgeItem> = pool.into_iter().map(|(_, item)| item).collect();
        if questions.is_empty() {
            return Ok(());
        }
        let labels = self.gold.judge(&questions, call).await;
        let lessons: Vec<Lesson> =
            questions.iter().zip(&labels).filter_map(|(item, label)| lesson(item, label)).collect();
        let (pupil, asked) = (Arc::clone(&self.pupil), questions.len() as u64);
        spawn_blocking(move || pupil.learn(&lessons, asked)).await.map_err(|error| error.to_string())?
    }
}

/// Reads a gold label; ties and failures teach nothing.
fn lesson(item: &JudgeItem, label: &Judgement) -> Option<Lesson> {
    let Some(JudgementValue::Preference(p)) = label.value else { return None };
    let (chosen, rejected) = match p.total_cmp(&0.5) {
        std::cmp::Ordering::Greater => (0, 1),
        std::cmp::Ordering::Less => (1, 0),
        std::cmp::Ordering::Equal => return None,
    };
    let text = |i: usize| item.candidates[i].text.clone();
    Some(Lesson { prompt: item.prompt.clone(), chosen: text(chosen), rejected: text(rejected) })
}

/// Asks about the two answers that the model finds closest, with their distance from a tie.
fn closest(item: &JudgeItem, value: &JudgementValue) -> Option<(f64, JudgeItem)> {
    let k = item.candidates.len();
    let gap = |i: usize, j: usize| match value {
        JudgementValue::Scores(scores) => (scores[i] - scores[j]).abs(),
        JudgementValue::Preference(p) => (p - 0.5).abs(),
        JudgementValue::Matrix(p) => (p[i * k + j] - 0.5).abs(),
    };
    let differ = |i: usize, j: usize| item.candidates[i].text != item.candidates[j].text;
    let pairs = (0..k).flat_map(|i| (i + 1..k).map(move |j| (i, j))).filter(|&(i, j)| differ(i, j));
    let (i, j) = pairs.min_by(|a, b| gap(a.0, a.1).total_cmp(&gap(b.0, b.1)))?;
    let candidates = vec![item.candidates[i].clone(), item.candidates[j].clone()];
    Some((gap(i, j), JudgeItem { id: item.id, ask: Ask::Compare, prompt: item.prompt.clone(), candidates }))
}

#[async_trait]
impl Judge for Learned {
    fn name(&self) -> &str {
        &self.provenance.judge
    }

    fn config_hash(&self) -> &str {
        &self.provenance.config_hash
    }

    /// Judges by the model as it is; lessons come after, so that a batch is judged by one version.
    async fn judge(&self, items: &[JudgeItem], call: &CallContext) -> Vec<Judgement> {
        let mut pool = self.pool.lock().await;
        let backend = format!("{} v{}", self.provenance.backend, self.pupil.version());
        let provenance = Provenance { backend, ..self.provenance.clone() };
        let scorer: Arc<dyn Scorer> = self.pupil.clone();
        let mut judgements = RewardModel::new(provenance, scorer, self.scale).judge(items, call).await;
        let judged = items.iter().zip(&judgements);
        pool.extend(judged.filter_map(|(item, judgement)| closest(item, judgement.value.as_ref()?)));
        if pool.len() >= self.lessons.every {
            let taught = self.teach(std::mem::take(&mut *pool), call).await;
            // Told as a failure, so that it is counted: asked again, the version of before judges, and without retries the batch is dropped.
            if let Err(detail) = taught {
                for judgement in &mut judgements {
                    (judgement.status, judgement.value) = (JudgementStatus::Unavailable, None);
                    judgement.detail = Some(format!("the reward model could not be taught: {detail}"));
                }
            }
        }
        judgements
    }
}
