//! Following a run: its events as lines, on a terminal with a progress line.

use std::{process::ExitCode, time::Duration};

use joust_proto::{
    Reason,
    coordinator::v1::{WatchRunRequest, WatchRunResponse, watch_run_response::Event},
};
use joust_runlog::{Progress, ProgressSnapshot};
use serde_json::json;

use super::{Client, runs::state, said};

/// Exit code of a run that ended without its result.
const FAILED: u8 = 1;
/// Pause before a stream that was cut is gone on with.
const PAUSE: Duration = Duration::from_millis(500);

/// What a watcher shows.
struct Shown {
    json: bool,
    steps: u64,
    progress: Option<Progress>,
    win_rate: Option<f64>,
    ended: Option<bool>,
}

/// Shows what happens in a run until it ends; goes on where it was when the stream is cut.
///
/// # Errors
/// A run that is not there, or a coordinator that refuses.
pub(super) async fn watch(client: &mut Client, run: &str, as_json: bool) -> anyhow::Result<ExitCode> {
    let request = joust_proto::coordinator::v1::GetRunRequest { run_id: run.into() };
    let steps = client.get_run(request).await.map_err(said)?.into_inner().run.map_or(0, |run| run.steps);
    let mut shown = Shown { json: as_json, steps, progress: None, win_rate: None, ended: None };
    let mut position = 0;
    loop {
        let request = WatchRunRequest { run_id: run.into(), after_position: position };
        match client.watch_run(request).await {
            Ok(stream) => {
                let mut stream = stream.into_inner();
                // An error is a cut: the coordinator may be coming back.
                while let Ok(Some(event)) = stream.message().await {
                    position = position.max(event.position);
                    shown.event(event);
                }
            }
            Err(status) if Reason::of(&status) != Some(Reason::NotReady) => return Err(said(status)),
            Err(_) => {}
        }
        if let Some(well) = shown.ended {
            return Ok(if well { ExitCode::SUCCESS } else { ExitCode::from(FAILED) });
        }
        tokio::time::sleep(PAUSE).await;
    }
}

impl Shown {
    fn event(&mut self, told: WatchRunResponse) {
        let Some(event) = told.event else { return };
        if let Event::State(now) = &event {
            self.ended = match state(now.state).as_str() {
                "done" => Some(true),
                "failed" => Some(false),
                _ => None,
            };
        }
        if self.json {
            println!("{}", line(told.position, event));
            return;
        }
        match event {
            Event::State(now) => {
                if self.ended.is_some()
                    && let Some(mut progress) = self.progress.take()
                {
                    progress.finish();
                }
                self.note(&format!("{} {}", state(now.state), now.reason));
            }
            Event::Step(step) => {
                let value = |name: &str| step.metrics.get(name).copied();
                let snapshot = ProgressSnapshot {
                    step: step.step + 1,
                    steps: self.steps,
                    reward: value("objective/scores"),
                    win_rate: self.win_rate,
                    kl: value("objective/kl"),
                    tokens_per_s: None,
                    staleness: value("staleness/mean"),
                };
                self.progress.get_or_insert_with(|| Progress::new(self.steps)).step(&snapshot);
            }
            Event::Evaluation(found) => {
                self.win_rate = found.metrics.get("eval/win_rate").copied().or(self.win_rate);
                let rate = self.win_rate.unwrap_or_default();
                self.note(&format!("evaluation after step {}: win_rate={rate:.3}", found.steps_done));
            }
            Event::Checkpoint(found) => self.note(&format!("checkpoint after step {}", found.steps_done)),
            Event::Models(_) => {}
        }
    }

    fn note(&mut self, text: &str) {
        match &mut self.progress {
            Some(progress) => progress.note(text.trim()),
            None => println!("{}", text.trim()),
        }
    }
}

fn line(position: u64, event: Event) -> serde_json::Value {
    match event {
        Event::State(now) => {
            json!({ "position": position, "event": "state", "state": state(now.state), "reason": now.reason })
        }
        Event::Step(step) => {
            let metrics: std::collections::BTreeMap<_, _> = step.metrics.into_iter().collect();
            json!({ "position": position, "event": "step", "step": step.step, "metrics": metrics, "recovered": step.recovered })
        }
        Event::Evaluation(found) => {
            let metrics: std::collections::BTreeMap<_, _> = found.metrics.into_iter().collect();
            json!({ "position": position, "event": "evaluation", "steps_done": found.steps_done, "metrics": metrics })
        }
        Event::Checkpoint(found) => {
            json!({ "position": position, "event": "checkpoint", "checkpoint": found.checkpoint, "steps_done": found.steps_done })
        }
        Event::Models(set) => {
            json!({ "position": position, "event": "models", "policy_version": set.policy.map(|policy| policy.version) })
        }
    }
}
