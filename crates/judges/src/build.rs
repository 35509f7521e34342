//! From the settings of a run file to judges that can be asked.

use std::{collections::HashMap, sync::Arc, time::Duration};

use joust_config::judge::JudgeConfig;
use joust_core::Provenance;
use serde_json::Value;

use crate::{Error, Judge, Learned, Lessons, Matrix, Oracle, Players, Pupil, Result, Retry, RewardModel, Rule, Scorer};

/// Loaded reward models by the name of the judge that uses them.
#[derive(Default)]
pub struct Opened {
    /// Those that stay as they are.
    pub scorers: HashMap<String, Arc<dyn Scorer>>,
    /// Those that learn.
    pub pupils: HashMap<String, Arc<dyn Pupil>>,
}

/// Builds the judge that a configuration describes, wrapped so that it asks again and keeps its time limit.
///
/// # Arguments
/// * `judges` - all judges of the run, among which a judge that learns finds its teacher.
///
/// # Errors
/// An [`Error`] naming the judge, and the rule and pattern or the model at fault.
pub fn build(config: &JudgeConfig, judges: &[JudgeConfig], opened: &Opened) -> Result<Arc<dyn Judge>> {
    let provenance = Provenance {
        judge: config.name().to_owned(),
        config_hash: config_hash(config),
        backend: config.kind().to_owned(),
        retries: 0,
    };
    let leaf: Arc<dyn Judge> = match config {
        JudgeConfig::Rule(rule) => Arc::new(Rule::new(provenance, rule)?),
        JudgeConfig::Oracle(oracle) => Arc::new(Oracle::new(provenance, oracle)?),
        JudgeConfig::Players(players) => Arc::new(Players::new(provenance, players)),
        JudgeConfig::Matrix(matrix) => Arc::new(Matrix::new(provenance, matrix)?),
        JudgeConfig::RewardModel(model) => {
            let missing =
                || Error::MissingScorer { judge: model.name.clone(), model: model.model.display().to_string() };
            let scorer = opened.scorers.get(&model.name).ok_or_else(missing)?;
            Arc::new(RewardModel::new(provenance, Arc::clone(scorer), model.scale))
        }
        JudgeConfig::Learned(learned) => {
            let missing =
                || Error::MissingScorer { judge: learned.name.clone(), model: learned.model.display().to_string() };
            let pupil = opened.pupils.get(&learned.name).ok_or_else(missing)?;
            let no_gold = || Error::MissingGold { judge: learned.name.clone(), gold: learned.gold.clone() };
            let teaches =
                |judge: &&JudgeConfig| judge.name() == learned.gold && !matches!(judge, JudgeConfig::Learned(_));
            let gold = build(judges.iter().find(teaches).ok_or_else(no_gold)?, judges, opened)?;
            let lessons =
                Lessons { every: learned.every as usize, labels: learned.labels as usize, budget: learned.budget };
            Arc::new(Learned::new(provenance, Arc::clone(pupil), gold, (lessons, learned.scale)))
        }
    };
    let again = config.ask_again();
    // A time limit beyond what a Duration holds is none at all.
    let timeout = Duration::try_from_secs_f64(again.timeout_s).unwrap_or(Duration::MAX);
    Ok(Arc::new(Retry::new(leaf, again.retries, timeout)))
}

/// Computes the BLAKE3 of a configuration's canonical JSON (sorted keys, no white space), hexadecimal.
pub fn config_hash(config: &JudgeConfig) -> String {
    let value = serde_json::to_value(config).expect("settings hold only plain data with text keys");
    let mut canonical = String::new();
    write_canonical(&value, &mut canonical);
    blake3::hash(canonical.as_bytes()).to_hex().to_string()
}

/// Writes JSON with sorted keys: another crate's choice of serde_json's features must not change a hash.
fn write_canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort_unstable();
            let pairs = keys.into_iter().map(|key| (Some(key), &map[key]));
            write_list(pairs, ('{', '}'), out);
        }
        Value::Array(values) => write_list(values.iter().map(|value| (None, value)), ('[', ']'), out),
        plain => out.push_str(&plain.to_string()),
    }
}

fn write_list<'a>(
    entries: impl Iterator<Item = (Option<&'a String>, &'a Value)>,
    (open, close): (char, char),
    out: &mut String,
) {
    out.push(open);
    for (at, (key, value)) in entries.enumerate() {
        if at > 0 {
            out.push(',');
        }
        if let Some(key) = key {
            out.push_str(&Value::from(key.as_str()).to_string());
            out.push(':');
        }
        write_canonical(value, out);
    }
    out.push(close);
}
