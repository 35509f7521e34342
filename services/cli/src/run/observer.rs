//! What a run tells: metrics, ledger, progress line, evaluations, kept answers, archive and the policy folders.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use anyhow::Context;
use async_trait::async_trait;
use joust_config::RunFile;
use joust_core::{RecordId, Rollout};
use joust_engine::Snapshot;
use joust_learner::{Error, Evaluation, Observer, Result, StepReport};
use joust_model::Weights;
use joust_runlog::{Archive, Ledger, MetricsLog, Progress, ProgressSnapshot};
use tokio::{sync::mpsc, task::JoinHandle};

use super::{assemble::Parts, folder::write_atomically};
use crate::{
    evaluation::{Evaluator, Report},
    export::Export,
};

/// Answers kept to read at each evaluation.
const KEPT_SAMPLES: usize = 8;

/// Takes what the learner reports and makes its evaluations.
pub struct RunObserver {
    dir: PathBuf,
    steps: u64,
    num_generations: f64,
    keep_best: bool,
    export: Export,
    evaluator: Evaluator,
    initial: Arc<Snapshot>,
    initial_answers: Option<Vec<Rollout>>,
    files: Option<Files>,
    last: Instant,
    win_rate: Option<f64>,
}

/// The files that grow with the run.
struct Files {
    metrics: MetricsLog,
    ledger: Ledger,
    progress: Progress,
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::Observer(format!("{error:#}"))
}

impl RunObserver {
    /// Observes a run whose files are opened once the learner knows where it continues.
    pub fn new(run: &RunFile, parts: &Parts, evaluator: Evaluator, initial: Arc<Snapshot>) -> Self {
        Self {
            dir: run.output.dir.clone(),
            steps: parts.steps,
            num_generations: f64::from(run.sampling.num_generations),
            keep_best: run.eval.keep_best,
            export: Export::new(run, &parts.model),
            evaluator,
            initial,
            initial_answers: None,
            files: None,
            last: Instant::now(),
            win_rate: None,
        }
    }

    fn files(&mut self) -> Result<&mut Files> {
        self.files.as_mut().ok_or_else(|| Error::Observer("the run's files are not open yet".into()))
    }

    async fn report(&mut self, policy: &Arc<Snapshot>) -> anyhow::Result<Report> {
        if self.initial_answers.is_none() {
            self.initial_answers = Some(self.evaluator.answers(&self.initial).await?);
        }
        let others = self.initial_answers.clone().unwrap_or_default();
        let answers = self.evaluator.answers(policy).await?;
        Ok(self.evaluator.compare(answers, others).await)
    }

    fn publish(&self, name: &str, weights: &Weights) -> Result<()> {
        self.export.publish(&self.dir.join(name), weights).map_err(failed)
    }
}

#[async_trait]
impl Observer for RunObserver {
    async fn resumed(&mut self, step: u64) -> Result<()> {
        let resume = (step > 0 || self.dir.join("metrics.jsonl").exists()).then_some(step);
        let open = || -> anyhow::Result<Files> {
            Ok(Files {
                metrics: MetricsLog::open(&self.dir, resume)?,
                ledger: Ledger::open(&self.dir, resume)?,
                progress: Progress::new(self.steps),
            })
        };
        self.files = Some(open().map_err(failed)?);
        self.last = Instant::now();
        Ok(())
    }

    async fn step(&mut self, report: StepReport) -> Result<()> {
        let seconds = self.last.elapsed().as_secs_f64();
        self.last = Instant::now();
        let mut metrics = report.metrics;
        let value = |metrics: &BTreeMap<String, f64>, name: &str| metrics.get(name).copied();
        let prompts =
            value(&metrics, "prompts/trained").unwrap_or(0.0) + value(&metrics, "prompts/dropped").unwrap_or(0.0);
        let tokens = value(&metrics, "completions/mean_length").unwrap_or(0.0) * prompts * self.num_generations;
        metrics.insert("time/step_s".into(), seconds);
        metrics.insert("throughput/tokens_per_s".into(), tokens / seconds);
        for unit in ["pairs", "answers"] {
            if let Some(count) = value(&metrics, unit) {
                metrics.insert(format!("throughput/{unit}_per_s"), count / seconds);
            }
        }
        let step = report.manifest.step;
        let (steps, win_rate) = (self.steps, self.win_rate);
        let files = self.files()?;
        files.metrics.step(step, &metrics).map_err(failed)?;
        let ids: Vec<RecordId> = report.manifest.micro_batches.iter().flatten().copied().collect();
        files.ledger.enter(step, &ids, &report.manifest.replayed, &report.dropped).map_err(failed)?;
        files.progress.step(&ProgressSnapshot {
            step: step + 1,
            steps,
            reward: value(&metrics, "objective/scores"),
            win_rate,
            kl: value(&metrics, "objective/kl"),
            tokens_per_s: value(&metrics, "throughput/tokens_per_s"),
            staleness: value(&metrics, "staleness/mean"),
        });
        Ok(())
    }

    async fn evaluate(&mut self, steps_done: u64, policy: Arc<Snapshot>) -> Result<Option<Evaluation>> {
        if self.evaluator.prompts.is_empty() {
            return Ok(None);
        }
        let began = Instant::now();
        let report = self.report(&policy).await.map_err(failed)?;
        let Some(win_rate) = report.tally.win_rate() else {
            self.files()?.progress.note("evaluation: every judgement failed, no win rate");
            return Ok(None);
        };
        self.win_rate = Some(win_rate);
        let (low, high) = report.tally.interval();
        let tally = report.tally;
        let metrics = BTreeMap::from([
            ("eval/win_rate".to_owned(), win_rate),
            ("eval/win_rate_low".to_owned(), low),
            ("eval/win_rate_high".to_owned(), high),
            ("eval/ties".to_owned(), tally.ties as f64),
            ("eval/failed".to_owned(), tally.failed as f64),
            ("eval/eos_share".to_owned(), Report::eos_share(&report.answers)),
        ]);
        let samples: Vec<_> = report.samples.into_iter().take(KEPT_SAMPLES).collect();
        let path = self.dir.join(format!("samples/step-{steps_done:06}.json"));
        keep_samples(&path, &samples).map_err(failed)?;
        let files = self.files()?;
        files.metrics.eval(steps_done, &metrics).map_err(failed)?;
        files.progress.note(&format!(
            "evaluation after step {steps_done}: win_rate={win_rate:.3} ci=[{low:.3},{high:.3}] ties={} failed={} of {}",
            tally.ties,
            tally.failed,
            tally.judged() + tally.failed
        ));
        self.last += began.elapsed(); // evaluation is not the next step's time
        Ok(Some(Evaluation { win_rate }))
    }

    async fn best(&mut self, _steps_done: u64, policy: Weights) -> Result<()> {
        if self.keep_best { self.publish("best", &policy) } else { Ok(()) }
    }

    async fn finish(&mut self, _steps_done: u64, policy: Weights) -> Result<()> {
        self.publish("policy", &policy)?;
        self.files()?.progress.finish();
        Ok(())
    }
}

fn keep_samples(path: &Path, samples: &[crate::evaluation::Sample]) -> anyhow::Result<()> {
    let folder = path.parent().context("a samples file has a folder")?;
    std::fs::create_dir_all(folder).with_context(|| format!("failed to create {}", folder.display()))?;
    write_atomically(path, &serde_json::to_string_pretty(samples)?)
}

/// Where judged rollouts are sent, and the task that writes them until every sender is gone.
pub type ArchiveTask = (Option<mpsc::Sender<joust_judge::Judged>>, JoinHandle<anyhow::Result<()>>);

/// Starts the task that archives judged rollouts under `dir`, if the run file asks for one.
///
/// # Errors
/// An archive that cannot be opened.
pub fn archive_of(run: &RunFile, dir: &Path) -> anyhow::Result<ArchiveTask> {
    if !run.output.archive {
        return Ok((None, tokio::spawn(async { Ok(()) })));
    }
    let mut archive = Archive::open(dir, u64::from(run.learner.prompts_per_step))?;
    let (sender, mut receiver) = mpsc::channel::<joust_judge::Judged>(super::roles::ARCHIVE_BACKLOG);
    let task = tokio::task::spawn_blocking(move || {
        while let Some(judged) = receiver.blocking_recv() {
            archive.add(&judged.rollout, &judged.judgement, &judged.outcome)?;
        }
        Ok(archive.close()?)
    });
    Ok((Some(sender), task))
}
