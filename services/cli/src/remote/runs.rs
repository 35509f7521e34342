//! `joust run submit | ls | watch | pause | resume | stop | set | prompts | fork | diff`.

use std::{collections::BTreeMap, process::ExitCode, time::Duration};

use anyhow::Context;
use joust_config::{RunFile, load};
use joust_proto::coordinator::v1 as wire;
use serde_json::{Value, json};

use super::{Client, connect, give, key, said, watch::watch};
use crate::args::{ClusterRunCommand, SubmitArgs};

/// How long a learner may take to open a run.
const OPENING: Duration = Duration::from_secs(300);

/// Runs one of the verbs.
///
/// # Errors
/// No cluster, or what it refuses.
pub async fn run(command: ClusterRunCommand) -> anyhow::Result<ExitCode> {
    match command {
        ClusterRunCommand::Submit(args) => return submit(args).await,
        ClusterRunCommand::Ls(args) => {
            let mut client = connect(args.cluster.folder())?;
            let runs = all(&mut client).await?;
            if args.json {
                runs.iter().for_each(|run| println!("{}", of(run)));
            } else {
                println!("{:<24} {:<9} {:>11}  reason", "run", "state", "steps");
                runs.iter().for_each(|run| println!("{}", line(run)));
            }
        }
        ClusterRunCommand::Watch(args) => {
            let mut client = connect(args.at.cluster.folder())?;
            return watch(&mut client, &args.run, args.at.json).await;
        }
        ClusterRunCommand::Pause(args) => {
            let request = wire::PauseRunRequest { run_id: args.run, idempotency_key: key() };
            let answer = connect(args.at.cluster.folder())?.pause_run(request).await.map_err(said)?;
            show(answer.into_inner().run, args.at.json);
        }
        ClusterRunCommand::Resume(args) => {
            let request = wire::ResumeRunRequest { run_id: args.run, idempotency_key: key() };
            let answer = connect(args.at.cluster.folder())?.resume_run(request).await.map_err(said)?;
            show(answer.into_inner().run, args.at.json);
        }
        ClusterRunCommand::Stop(args) => {
            let request = wire::StopRunRequest { run_id: args.run, idempotency_key: key() };
            let answer = connect(args.at.cluster.folder())?.stop_run(request).await.map_err(said)?;
            show(answer.into_inner().run, args.at.json);
        }
        ClusterRunCommand::Set(args) => {
            let overrides = args.changes.iter().map(change).collect();
            let request = wire::UpdateRunRequest { run_id: args.run, overrides, idempotency_key: key() };
            let mut request = tonic::Request::new(request);
            // The learner opens the run anew.
            request.set_timeout(OPENING);
            let answer = connect(args.at.cluster.folder())?.update_run(request).await.map_err(said)?.into_inner();
            let run = answer.run.context("the coordinator sent no run")?;
            match args.at.json {
                true => println!("{}", json!({ "effective_step": answer.effective_step, "run": of(&run) })),
                false => println!("run {} has the new settings from step {} on", run.run_id, answer.effective_step),
            }
        }
        ClusterRunCommand::Prompts(args) => return give::prompts(args).await,
        ClusterRunCommand::Fork(args) => {
            let request = wire::ForkRunRequest {
                run_id: args.run,
                checkpoint: args.checkpoint.unwrap_or_default(),
                new_run_id: args.name,
                overrides: args.overrides.iter().map(change).collect(),
                idempotency_key: key(),
            };
            let answer = connect(args.at.cluster.folder())?.fork_run(request).await.map_err(said)?;
            show(answer.into_inner().run, args.at.json);
        }
        ClusterRunCommand::Diff(args) => {
            let mut client = connect(args.at.cluster.folder())?;
            let (first, second) = (file(&mut client, &args.first).await?, file(&mut client, &args.second).await?);
            for (key, left, right) in differences(&first, &second) {
                match args.at.json {
                    true => println!("{}", json!({ "key": key, "first": left, "second": right })),
                    false => println!("{key}: {left} -> {right}"),
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads KEY=VALUE; what has no value is refused where it is applied.
fn change(text: impl AsRef<str>) -> wire::Override {
    let text = text.as_ref();
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    wire::Override { key: key.into(), value: value.into() }
}

async fn submit(args: SubmitArgs) -> anyhow::Result<ExitCode> {
    // What is wrong with the file is said here, with its place.
    load::<RunFile>(&args.file, &args.overrides)?;
    let text =
        std::fs::read_to_string(&args.file).with_context(|| format!("failed to read {}", args.file.display()))?;
    let path = args.file.canonicalize().with_context(|| format!("failed to find {}", args.file.display()))?;
    let request = wire::CreateRunRequest {
        run_toml: text,
        overrides: args.overrides.iter().map(change).collect(),
        run_id: args.name.unwrap_or_default(),
        idempotency_key: key(),
        by_hand: args.by_hand,
        folder: path.parent().map(|folder| folder.display().to_string()).unwrap_or_default(),
    };
    let mut client = connect(args.at.cluster.folder())?;
    let run = client.create_run(request).await.map_err(said)?.into_inner().run;
    let name = run.as_ref().map(|run| run.run_id.clone()).unwrap_or_default();
    show(run, args.at.json);
    if args.watch { watch(&mut client, &name, args.at.json).await } else { Ok(ExitCode::SUCCESS) }
}

async fn all(client: &mut Client) -> anyhow::Result<Vec<wire::Run>> {
    let (mut runs, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = wire::ListRunsRequest { page_token, ..wire::ListRunsRequest::default() };
        let answer = client.list_runs(request).await.map_err(said)?.into_inner();
        runs.extend(answer.runs);
        page_token = answer.next_page_token;
        if page_token.is_empty() {
            return Ok(runs);
        }
    }
}

async fn file(client: &mut Client, run: &str) -> anyhow::Result<BTreeMap<String, Value>> {
    let request = wire::GetRunRequest { run_id: run.into() };
    let run = client.get_run(request).await.map_err(said)?.into_inner().run.context("the coordinator sent no run")?;
    let value: Value = toml::from_str(&run.resolved_toml).context("the run file of the run does not parse")?;
    let mut flat = BTreeMap::new();
    flatten(String::new(), value, &mut flat);
    Ok(flat)
}

fn flatten(key: String, value: Value, into: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(map) => map.into_iter().for_each(|(name, value)| {
            flatten(if key.is_empty() { name } else { format!("{key}.{name}") }, value, into);
        }),
        value => drop(into.insert(key, value)),
    }
}

/// Lists the keys whose values differ, with both; absent is null.
fn differences(first: &BTreeMap<String, Value>, second: &BTreeMap<String, Value>) -> Vec<(String, Value, Value)> {
    let keys: std::collections::BTreeSet<&String> = first.keys().chain(second.keys()).collect();
    let of = |map: &BTreeMap<String, Value>, key: &String| map.get(key).cloned().unwrap_or(Value::Null);
    let both = keys.into_iter().map(|key| (key.clone(), of(first, key), of(second, key)));
    both.filter(|(_, left, right)| left != right).collect()
}

/// Returns the word of a state.
pub(super) fn state(number: i32) -> String {
    let known = wire::RunState::try_from(number).unwrap_or_default();
    known.as_str_name().trim_start_matches("RUN_STATE_").to_lowercase()
}

pub(super) fn of(run: &wire::Run) -> Value {
    json!({
        "run": run.run_id, "state": state(run.state), "reason": run.reason, "steps_done": run.steps_done, "steps": run.steps,
        "by_hand": run.by_hand, "settings_hash": run.settings_hash,
    })
}

pub(super) fn line(run: &wire::Run) -> String {
    format!("{:<24} {:<9} {:>5}/{:<5}  {}", run.run_id, state(run.state), run.steps_done, run.steps, run.reason)
}

fn show(run: Option<wire::Run>, as_json: bool) {
    let Some(run) = run else { return };
    match as_json {
        true => println!("{}", of(&run)),
        false if run.reason.is_empty() => println!("run {} is {}", run.run_id, state(run.state)),
        false => println!("run {} is {}: {}", run.run_id, state(run.state), run.reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_told_by_dotted_key() {
        let flat = |text: &str| {
            let mut map = BTreeMap::new();
            flatten(String::new(), toml::from_str(text).expect("TOML"), &mut map);
            map
        };
        let (first, second) = (flat("a = 1\n[b]\nc = 2\nd = 3"), flat("a = 1\n[b]\nc = 4\ne = [5]"));
        let found: Vec<String> = differences(&first, &second)
            .into_iter()
            .map(|(key, left, right)| format!("{key}: {left} -> {right}"))
            .collect();
        assert_eq!(found, ["b.c: 2 -> 4", "b.d: 3 -> null", "b.e: null -> [5]"]);
    }
}
