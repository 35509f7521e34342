//! What is told about an answered prompt.

use joust_core::{Completion, Rollout};
use joust_telemetry::{Work, instruments, names::attribute};

/// Counts the answers and notes them at the span; texts only where the deployment lets them be seen.
pub(crate) fn rollout(run: &str, rollout: &Rollout, work: &Work) {
    let tokens: usize = rollout.completions.iter().map(|completion| completion.token_ids.len()).sum();
    instruments::completions_sampled(run, rollout.completions.len() as u64, tokens as u64);
    work.set(attribute::POSITION, rollout.task.position as i64);
    work.set(attribute::INPUT_TOKENS, rollout.prompt_ids.len() as i64);
    work.set(attribute::OUTPUT_TOKENS, tokens as i64);
    if let Some(version) = rollout.completions.iter().map(|completion| completion.model.version).min() {
        work.set(attribute::POLICY_VERSION, version as i64);
    }
    work.set_content(attribute::INPUT_MESSAGES, || rollout.task.prompt.display());
    work.set_content(attribute::OUTPUT_MESSAGES, || {
        let texts: Vec<&str> = rollout.completions.iter().map(|Completion { text, .. }| text.as_str()).collect();
        texts.join("\n---\n")
    });
}
