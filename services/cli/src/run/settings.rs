//! From the run file to the settings of learner, judge and trainer.

use std::sync::Arc;

use joust_config::{
    Resolved, RunFile,
    run::{LossSpec, Reads, ReferenceKind},
};
use joust_core::Rationale;
use joust_data::Tokenizer;
use joust_losses::{GradientLoss, ListLoss, PairLoss, SingleLoss};
use joust_pairs::{Filter, Keep, KeepBy, Label, PairingRules, Select, Weight};
use joust_rollout::{Annotate, AnnotateBy};
use joust_train::{Objective, Reasons};

use super::assemble::Parts;

/// Builds the learner's settings.
pub(super) fn learner_config(resolved: &Resolved, parts: &Parts) -> joust_learner::Config {
    let run = &resolved.run;
    joust_learner::Config {
        run: run.name.clone(),
        seed: run.seed,
        settings_hash: resolved.hash.clone(),
        prompts_per_step: u64::from(run.learner.prompts_per_step),
        micro_batch: run.learner.micro_batch as usize,
        steps: parts.steps,
        epochs: u64::from(run.learner.epochs_per_iteration),
        iteration_steps: run.learner.iteration_steps,
        reference: held_to(run),
        max_staleness: u64::from(run.pipeline.max_staleness),
        replay: joust_learner::Replay {
            ratio: run.pairing.replay.ratio,
            capacity: run.pairing.replay.capacity as usize,
            order: match run.pairing.replay.order {
                joust_config::run::ReplayOrder::Recent => joust_pairs::replay::Order::Recent,
                joust_config::run::ReplayOrder::Uniform => joust_pairs::replay::Order::Uniform,
                joust_config::run::ReplayOrder::Margin => joust_pairs::replay::Order::Margin,
            },
        },
        weights: weights(run),
        diagnose_every: run.learner.diagnose_every,
        checkpoint_every: run.learner.checkpoint_every,
        keep_checkpoints: run.learner.keep_checkpoints as usize,
        checkpoints: run.output.dir.join("checkpoints"),
        eval_every: run.eval.every,
        stop: joust_learner::StopRules {
            max_kl: run.eval.stop.max_kl,
            patience: u64::from(run.eval.stop.patience),
            max_seconds: run.eval.stop.max_seconds,
        },
    }
}

/// Builds what the policy is held to.
pub(crate) fn held_to(run: &RunFile) -> joust_learner::Reference {
    match run.reference.kind {
        ReferenceKind::Initial => joust_learner::Reference::Initial,
        ReferenceKind::Previous => joust_learner::Reference::Previous,
        ReferenceKind::Ema => joust_learner::Reference::Average,
        ReferenceKind::None => joust_learner::Reference::None,
    }
}

/// Builds what is minimised.
pub(crate) fn objective(run: &RunFile) -> anyhow::Result<Objective> {
    let (name, params) = (run.loss.written_name(), &run.loss.params);
    Ok(match LossSpec::of(run.loss.name).map(|spec| spec.reads) {
        Some(Reads::Opponent | Reads::Group) => Objective::Gradient(GradientLoss::from_name(&name, params)?),
        Some(Reads::Answers) => Objective::Single(SingleLoss::from_name(&name, params)?),
        Some(Reads::List) => Objective::List(ListLoss::from_name(&name, params)?),
        _ => Objective::Pair(PairLoss::from_name(&name, params)?),
    })
}

/// Builds the weights that are known when a step is planned; the trainer's own, `wpo`, is not among them.
fn weights(run: &RunFile) -> Vec<Weight> {
    let decay = run.pairing.staleness_decay;
    let known = |weight: &joust_config::run::Weight| match weight {
        joust_config::run::Weight::ScoreGap => Some(Weight::ScoreGap),
        joust_config::run::Weight::Staleness => Some(Weight::Staleness { decay }),
        joust_config::run::Weight::Wpo => None,
    };
    run.pairing.weights.iter().filter_map(known).collect()
}

/// Builds what a share of the pairs is chosen by; `None` trains all.
pub(crate) fn keep(run: &RunFile) -> Option<Keep> {
    let by = match run.pairing.keep.by {
        joust_config::run::KeepBy::Clarity => KeepBy::Clarity,
        joust_config::run::KeepBy::Margin => KeepBy::Margin,
        joust_config::run::KeepBy::Ches => KeepBy::Ches,
    };
    let share = run.pairing.keep.share;
    (share < 1.0).then_some(Keep { by, share })
}

/// Builds how the judge's reasons are trained on; `None` leaves them alone.
pub(crate) fn reasons(run: &RunFile, tokenizer: Arc<Tokenizer>) -> Option<Reasons> {
    let term = &run.feedback.rationale;
    let encode = move |rationale: &Rationale| {
        let answered = tokenizer.encode_answer(&rationale.prompt, &rationale.text.as_str().into());
        let answered = answered.map_err(|error| error.to_string())?;
        Ok((answered.prompt_ids, answered.completion_ids))
    };
    (term.weight > 0.0).then(|| Reasons { gamma: term.weight, log_sigmoid: term.log_sigmoid, encode: Box::new(encode) })
}

/// Builds which answers are judged; `None` for all.
pub(super) fn annotate(run: &RunFile) -> Option<Annotate> {
    let by = match run.sampling.annotate_by {
        joust_config::run::AnnotateBy::Aepo => AnnotateBy::Aepo,
        joust_config::run::AnnotateBy::Margin => AnnotateBy::Margin,
    };
    let count = run.sampling.annotate as usize;
    (count > 0).then_some(Annotate { count, by })
}

/// Builds the rules of pairing.
pub(super) fn rules(run: &RunFile, steps: u64) -> PairingRules {
    PairingRules {
        select: match run.pairing.select {
            joust_config::run::Select::MaxRandom => Select::MaxRandom,
            joust_config::run::Select::AllPairs => Select::AllPairs,
            joust_config::run::Select::Rejection => Select::Rejection,
            joust_config::run::Select::SweetSpot => Select::SweetSpot,
            joust_config::run::Select::Ranked => Select::Ranked,
            joust_config::run::Select::MaxMax => Select::MaxMax,
            joust_config::run::Select::Curriculum => Select::Curriculum,
            joust_config::run::Select::WinRate => Select::WinRate,
            joust_config::run::Select::Opponent => Select::Opponent,
            joust_config::run::Select::Single => Select::Single,
            joust_config::run::Select::List => Select::List,
            joust_config::run::Select::BestWorst => Select::BestWorst,
        },
        filters: run
            .pairing
            .filters
            .iter()
            .map(|filter| match filter {
                joust_config::run::Filter::Ties => Filter::Ties,
                joust_config::run::Filter::Identical => Filter::Identical,
                joust_config::run::Filter::Truncated => Filter::Truncated,
            })
            .collect(),
        label: match run.feedback.label {
            joust_config::run::Label::Soft => Label::Soft,
            joust_config::run::Label::Sampled => Label::Sampled,
            joust_config::run::Label::Hard => Label::Hard,
        },
        missing_eos_penalty: run.sampling.missing_eos_penalty,
        score_scale: run.training_judge().map_or(1.0, |judge| judge.scale()),
        threshold: run.pairing.threshold,
        rationale: (run.feedback.rationale.weight > 0.0).then(|| run.feedback.rationale.question.clone()),
        positions: steps * u64::from(run.learner.prompts_per_step),
        seed: run.seed,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use joust_config::{
        run::{LOSSES, Loss, Reads},
        works::name_of,
    };
    use joust_losses::{GradientLoss, ListLoss, PairLoss, SingleLoss};

    #[test]
    fn run_file_and_losses_name_the_same_losses_and_keys() {
        let ours: BTreeSet<(String, Vec<&str>, bool, bool)> = LOSSES
            .iter()
            .map(|spec| {
                let keys = spec.keys.iter().map(|key| key.key).collect();
                (name_of(&spec.name), keys, spec.reads == Reads::ScoredPairs, spec.reference)
            })
            .collect();
        let mut theirs = BTreeSet::new();
        for (name, keys, reference) in PairLoss::ALL {
            let params = keys.iter().map(|key| ((*key).to_owned(), 0.2)).collect();
            let loss = PairLoss::from_name(name, &params).expect("its own keys");
            theirs.insert(((*name).to_owned(), keys.to_vec(), loss.needs_scores(), *reference));
        }
        for (name, keys, reference) in ListLoss::ALL.iter().chain(SingleLoss::ALL) {
            theirs.insert(((*name).to_owned(), keys.to_vec(), false, *reference));
        }
        for (name, keys) in GradientLoss::ALL {
            theirs.insert((name.to_owned(), keys.to_vec(), false, true));
        }
        assert_eq!(ours, theirs);
        assert_eq!(ours.len(), 53);
    }

    #[test]
    fn every_loss_has_a_line_in_the_documentation() {
        let page = std::fs::read_to_string("../../docs/algorithms.md").expect("the page");
        let gradients = GradientLoss::ALL.iter().map(|(name, _)| name);
        let lists = ListLoss::ALL.iter().map(|(name, ..)| name);
        let single = SingleLoss::ALL.iter().map(|(name, ..)| name);
        for name in PairLoss::ALL.iter().map(|(name, ..)| name).chain(lists).chain(single).chain(gradients) {
            assert!(page.contains(&format!("| `{name}` |")), "{name}");
        }
    }

    #[test]
    fn every_default_is_in_its_domain() {
        for key in LOSSES.iter().flat_map(|spec| spec.keys) {
            assert!(key.domain.holds(key.default), "{key:?}");
        }
        assert_eq!(Loss::default().written_name(), "dpo");
    }
}
