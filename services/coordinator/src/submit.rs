//! Run files that users submit, and changes of them: checked against the roots and the inputs before anything is made.

use std::path::Path;

use joust_config::{ConfigFile, Resolved, RunFile, dump, resolve};
use joust_core::{Prompt, Purpose, Release, RunId};
use joust_proto::{
    Error, Failure, Reason,
    coordinator::v1 as wire,
    limits::{MAX_ITEMS, MAX_OVERRIDES, MAX_TEXT_BYTES},
    parse::{choice, counted, list, name, run_id},
};
use serde_json::Value;

use crate::{
    FORK,
    cluster::{NewRun, NewSettings, Run},
    prompts,
    service::{Core, broken, resolved},
};

/// Sections of a run file that may change while the run lives.
const FREE: [&str; 4] = ["eval", "learner", "loss", "sampling"];
/// Keys of them that may not: what is under way, or in a checkpoint, was made by them.
const HELD: [&str; 5] =
    ["learner.iteration_steps", "learner.optimizer", "learner.prompts_per_step", "loss.name", "sampling.players"];

/// A run file whose inputs are there, below the roots.
struct Checked {
    resolved: Resolved,
    toml: String,
    steps: u64,
}

/// Refuses what a field says, with the reason as it stands.
pub(crate) fn refused(field: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(Reason::InvalidField, format!("{field}: {error}")).of_field(field)
}

/// Resolves a run file; all that it names lies below the roots, and it writes where the deployment says.
fn checked(
    core: &Core,
    (toml, folder): (&str, &Path),
    changes: &[wire::Override],
    id: Option<&RunId>,
) -> Result<Checked, Failure> {
    counted("overrides", changes.len(), 0..=MAX_OVERRIDES)?;
    let mut overrides: Vec<String> = changes.iter().map(|change| format!("{}={}", change.key, change.value)).collect();
    overrides.extend(id.map(|id| format!("name={:?}", id.to_string())));
    let read = |overrides: &[String]| resolve::<RunFile>(toml, &folder.join("run.toml"), overrides, &[]);
    let first = read(&overrides).map_err(|error| refused("run_toml", &error))?;
    overrides.push(format!("output.dir={:?}", core.runs.join(first.run.name.as_str()).display().to_string()));
    let mut resolved: Resolved = read(&overrides).map_err(|error| refused("run_toml", &error))?;
    for input in resolved.run.inputs() {
        *input = core.roots.find("run_toml", input)?;
    }
    let run = &resolved.run;
    let opened = prompts::of_policy(&run.policy.model).and_then(|(tokenizer, context)| {
        anyhow::Ok(prompts::read(run, &prompts::Reader { tokenizer: &tokenizer, context })?.steps(run))
    });
    let steps = opened.map_err(|error| refused("run_toml", &format!("{error:#}")))?;
    let toml = dump(&resolved).map_err(|error| refused("run_toml", &error))?;
    Ok(Checked { resolved, toml, steps })
}

impl Checked {
    fn new_run(self, (by_hand, key): (bool, String), forked_from: Option<RunId>) -> NewRun {
        let run = &self.resolved.run;
        NewRun {
            id: run.name.clone(),
            hash: self.resolved.hash.clone(),
            release: Release {
                prompts_per_step: u64::from(run.learner.prompts_per_step),
                steps: self.steps,
                max_staleness: u64::from(run.pipeline.max_staleness),
                iteration_steps: run.learner.iteration_steps,
            },
            model_bytes: model_bytes(&run.policy.model),
            toml: self.toml,
            by_hand,
            key,
            forked_from,
        }
    }
}

/// Reads a submitted run file.
pub(crate) fn submitted(core: &Core, request: &wire::CreateRunRequest) -> Result<NewRun, Failure> {
    if request.run_toml.len() > MAX_TEXT_BYTES {
        let found = format!("{} bytes", request.run_toml.len());
        return Err(Error::value("run_toml", found, format!("at most {MAX_TEXT_BYTES}")).into());
    }
    let key = name("idempotency_key", request.idempotency_key.clone())?;
    let folder = core.roots.find("folder", Path::new(&request.folder))?;
    let id = if request.run_id.is_empty() { None } else { Some(run_id("run_id", &request.run_id)?) };
    let made = checked(core, (&request.run_toml, &folder), &request.overrides, id.as_ref())?;
    let (name, output) = (&made.resolved.run.name, &made.resolved.run.output.dir);
    if core.read(|cluster| cluster.run(name).is_err())
        && ["run.json", FORK].iter().any(|file| output.join(file).exists())
    {
        let text = format!("{} holds a run that this coordinator does not know; choose another name", output.display());
        return Err(Failure::new(Reason::RunExists, text));
    }
    Ok(made.new_run((request.by_hand, key), None))
}

/// Reads the run file of a run that goes on from another one's checkpoint.
pub(crate) fn of_fork(core: &Core, source: &Run, request: &wire::ForkRunRequest) -> Result<NewRun, Failure> {
    let key = name("idempotency_key", request.idempotency_key.clone())?;
    let id = run_id("new_run_id", &request.new_run_id)?;
    let made = checked(core, (&source.toml, Path::new("/")), &request.overrides, Some(&id))?;
    Ok(made.new_run((source.by_hand, key), Some(source.id.clone())))
}

/// Reads other settings for a run that lives.
pub(crate) fn changed(core: &Core, run: &Run, changes: &[wire::Override]) -> Result<NewSettings, Failure> {
    counted("overrides", changes.len(), 1..=MAX_OVERRIDES)?;
    let made = checked(core, (&run.toml, Path::new("/")), changes, Some(&run.id))?;
    let file = |run: &RunFile| serde_json::to_value(run).map_err(broken);
    let (old, new) = (file(&resolved(&run.toml).map_err(broken)?.run)?, file(&made.resolved.run)?);
    if let Some(key) = held(&old, &new) {
        let text = format!("{key} cannot change while run {} lives: fork the run with it", run.id);
        return Err(refused("overrides", &text));
    }
    Ok(NewSettings { from: run.toml.clone(), toml: made.toml, hash: made.resolved.hash, steps: made.steps })
}

/// Reads prompts for a run; its policy can read and answer each.
pub(crate) fn prompts(run: &Run, request: wire::SubmitPromptsRequest) -> Result<Vec<Prompt>, Failure> {
    let purpose: Purpose = choice::<joust_proto::common::v1::Purpose, _>("purpose", request.purpose)?;
    if purpose != Purpose::Train {
        let text =
            "purpose: prompts of a run are for train; what is for a script is asked of a rollout worker (Generate)";
        return Err(Failure::new(Reason::InvalidField, text).of_field("purpose"));
    }
    let prompts: Vec<Prompt> = list("prompts", request.prompts, 1..=MAX_ITEMS)?;
    let file = resolved(&run.toml).map_err(broken)?.run;
    if file.data.pairs.is_some() {
        let text = format!("run {} trains on data.pairs, whose places prompts cannot take; submit another run", run.id);
        return Err(Failure::new(Reason::WrongState, text));
    }
    let (tokenizer, context) = prompts::of_policy(&file.policy.model).map_err(|error| broken(format!("{error:#}")))?;
    let reader = prompts::Reader { tokenizer: &tokenizer, context };
    for (index, prompt) in prompts.iter().enumerate() {
        let field = format!("prompts[{index}]");
        if let Some(problem) = reader.problem(prompt).map_err(|error| refused(&field, &error))? {
            return Err(refused(&field, &problem));
        }
    }
    Ok(prompts)
}

/// Returns the first key that differs and may not.
fn held(old: &Value, new: &Value) -> Option<String> {
    let differs = |path: &str| old.pointer(path) != new.pointer(path);
    let sections =
        |file: &Value| file.as_object().map(|map| map.keys().cloned().collect::<Vec<_>>()).unwrap_or_default();
    let mut keys = sections(old);
    keys.extend(sections(new));
    let section = keys.into_iter().find(|key| !FREE.contains(&key.as_str()) && differs(&format!("/{key}")));
    section.or_else(|| HELD.iter().find(|key| differs(&format!("/{}", key.replace('.', "/")))).map(ToString::to_string))
}

/// Returns the bytes of a folder's weights.
fn model_bytes(folder: &Path) -> u64 {
    let files = folder.read_dir().into_iter().flatten().flatten();
    let weights = files.filter(|file| file.path().extension().is_some_and(|end| end == "safetensors"));
    weights.filter_map(|file| file.metadata().ok()).map(|found| found.len()).sum()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::held;

    #[test]
    fn what_work_under_way_depends_on_is_held() {
        let old = json!({ "learner": { "learning_rate": 1e-3, "prompts_per_step": 8 }, "policy": { "model": "a" } });
        let with = |path: &str, value: serde_json::Value| {
            let mut new = old.clone();
            *new.pointer_mut(path).expect("a key") = value;
            held(&old, &new)
        };
        assert_eq!(with("/learner/learning_rate", json!(1e-4)), None);
        assert_eq!(with("/learner/prompts_per_step", json!(4)), Some("learner.prompts_per_step".into()));
        assert_eq!(with("/policy/model", json!("b")), Some("policy".into()));
        let mut new = old.clone();
        new["pairing"] = json!({});
        assert_eq!(held(&old, &new), Some("pairing".into()));
    }
}
