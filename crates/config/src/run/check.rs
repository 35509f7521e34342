//! Checks of a whole run file that no single key can make: what goes together.

use std::collections::BTreeSet;

use super::{
    AnnotateBy, Ask, Data, KeepBy, LossName, LossSpec, PairsFormat, Reads, ReferenceKind, Revision, RunFile, Sampling,
    Weight,
};
use crate::{
    Error,
    judge::{JudgeConfig, MatrixJudge, Rule, RuleJudge},
    suggest::nearest,
    works::name_of,
};
use joust_core::Player;

/// Tells where a key was written.
pub(crate) type Place<'a> = &'a dyn Fn(&str) -> String;

impl RunFile {
    /// Finds every problem; an empty list is a run file that this build can run.
    pub(crate) fn find_problems(&self, place: Place<'_>) -> Vec<Error> {
        let mut found = Problems { place, errors: Vec::new() };
        self.check_policy(&mut found);
        self.check_judges(&mut found);
        self.check_asking(&mut found);
        self.check_lessons(&mut found);
        self.check_sampling(&mut found);
        self.check_loss(&mut found);
        self.check_given(&mut found);
        self.check_learner(&mut found);
        self.check_eval(&mut found);
        found.errors
    }

    fn check_policy(&self, found: &mut Problems<'_>) {
        if let Some(revision) = &self.policy.revision {
            let reason = "policy.model is a folder, which has no revisions; remove it";
            found.conflict("policy.revision", revision, reason);
        }
    }

    fn check_judges(&self, found: &mut Problems<'_>) {
        let mut seen = BTreeSet::new();
        for (index, judge) in self.judge.iter().enumerate() {
            if !seen.insert(judge.name()) {
                let reason = "another judge has the same name; give each its own";
                found.conflict(&format!("judge.{index}.name"), judge.name(), reason);
            }
            check_judge(judge, index, found);
        }
        for (key, name) in [("feedback.judge", &self.feedback.judge), ("eval.judge", &self.eval.judge)] {
            // An eval judge that merely follows the missing training judge would be reported twice.
            let follows = key == "eval.judge" && *name == self.feedback.judge;
            if name.is_empty() && !follows {
                let expected = "write the name of one of the judges, because there are several".to_owned();
                found.errors.push(Error::MissingKey { key: key.into(), file: (found.place)("judge"), expected });
            } else if self.judge_named(name).is_none() && !follows {
                found.errors.push(Error::UnknownValue {
                    key: key.to_owned(),
                    value: name.clone(),
                    place: (found.place)(key),
                    nearest: nearest(name, seen.iter().copied()),
                    known: seen.iter().map(|name| (*name).to_owned()).collect(),
                });
            }
        }
    }

    /// Checks the judges that learn, and those that cannot evaluate.
    fn check_lessons(&self, found: &mut Problems<'_>) {
        if let Some(JudgeConfig::Players(judge)) = self.eval_judge().filter(|_| self.eval.every > 0) {
            let reason = "it looks at who answered, and in an evaluation both are the policy; name another judge, or set eval.every = 0";
            found.conflict("eval.judge", &judge.name, reason);
        }
        for (index, judge) in self.judge.iter().enumerate() {
            let JudgeConfig::Learned(judge) = judge else { continue };
            let gold = self.judge.iter().find(|other| other.name() == judge.gold);
            if !gold.is_some_and(|gold| !matches!(gold, JudgeConfig::Learned(_))) {
                let reason =
                    "it labels for a judge that learns; write the name of another [[judge]], one that does not learn";
                found.conflict(&format!("judge.{index}.gold"), &judge.gold, reason);
            }
            if self.eval.judge == judge.name {
                let reason =
                    format!("what it says changes during the run; evaluate with its teacher, \"{}\"", judge.gold);
                found.conflict("eval.judge", &judge.name, &reason);
            }
            if self.deterministic && self.feedback.judge == judge.name {
                let reason = "what a judge that learns says depends on when it was asked; set deterministic = false";
                found.conflict("feedback.judge", &judge.name, reason);
            }
        }
    }

    fn check_asking(&self, found: &mut Problems<'_>) {
        if self.feedback.ask == Ask::Score && matches!(self.training_judge(), Some(JudgeConfig::Matrix(_))) {
            let reason = "the judge is a preference matrix, which has no scores; use \"compare\" or \"rank\"";
            found.conflict("feedback.ask", "score", reason);
        }
    }

    fn check_sampling(&self, found: &mut Problems<'_>) {
        let (players, answers) = (self.sampling.players.len(), self.sampling.num_generations);
        if players < 2 && players == answers as usize {
            let reason = "one answer leaves nothing to compare; write two players, or num_generations of at least 2";
            found.conflict("sampling.players", &format!("{players} entry"), reason);
        } else if players != answers as usize {
            let reason =
                format!("sampling.num_generations is {answers}; write one of the two keys, or make them agree");
            found.conflict("sampling.players", &format!("{players} entries"), &reason);
        }
        let (annotate, mixed) = (self.sampling.annotate, self.sampling.players.windows(2).any(|two| two[0] != two[1]));
        if annotate == 1 || annotate > answers {
            let reason =
                format!("of {answers} answers (sampling.num_generations) 2 to {answers} can be judged, or 0 for all");
            found.conflict("sampling.annotate", &annotate.to_string(), &reason);
        } else if annotate > 0 && mixed {
            let reason = "it may leave one player without an answer; let one player give all of them, or set 0";
            found.conflict("sampling.annotate", &annotate.to_string(), reason);
        }
        self.check_annotate_by(found);
        self.check_penalty(found);
        self.check_revision(found);
        let styled = self.sampling.players.contains(&Player::Styled);
        let revised = self.sampling.players.contains(&Player::Revised);
        if !revised && styled == self.sampling.style.is_empty() {
            let reason = if styled {
                "the player styled needs it; write the text that comes before its prompts"
            } else {
                "no player reads it; add \"styled\" to sampling.players, or remove it"
            };
            found.conflict("sampling.style", &format!("{:?}", self.sampling.style), reason);
        }
        let replay = &self.pairing.replay;
        if replay.ratio > 0.0 && replay.capacity == 0 {
            let reason = "a capacity of 0 keeps nothing to replay; set pairing.replay.capacity or a ratio of 0";
            found.conflict("pairing.replay.ratio", &replay.ratio.to_string(), reason);
        }
    }

    /// Checks that the player `revised` has something to revise, and a judge that says what.
    fn check_revision(&self, found: &mut Problems<'_>) {
        let Sampling { players, revision, style, .. } = &self.sampling;
        let first = players.iter().position(|player| *player == Player::Revised);
        let Some(first) = first else {
            if *revision != Revision::default() {
                let reason = "no player reads it; add \"revised\" to sampling.players, or remove it";
                found.conflict("sampling.revision", "set", reason);
            }
            return;
        };
        let written = list_of(players);
        if first < 2 || players[first..].iter().any(|player| *player != Player::Revised) {
            let reason = "revised answers come last, after two or more among which the judge chooses what is revised";
            found.conflict("sampling.players", &written, reason);
        }
        if revision.request.is_empty() {
            let reason = "the player revised needs it; write what asks for a better answer";
            found.conflict("sampling.revision.request", "\"\"", reason);
        }
        if players.contains(&Player::Styled) && style.is_empty() {
            found.conflict(
                "sampling.style",
                "\"\"",
                "the player styled needs it; write the text that comes before its prompts",
            );
        }
        if let Some(JudgeConfig::Learned(judge)) = self.training_judge() {
            let reason = "it would learn from the first answers too; use its teacher, or leave out the player revised";
            found.conflict("feedback.judge", &judge.name, reason);
        }
    }

    /// Checks that implicit rewards can be had.
    fn check_annotate_by(&self, found: &mut Problems<'_>) {
        let Sampling { annotate, annotate_by, players, .. } = &self.sampling;
        if *annotate_by != AnnotateBy::Margin {
            return;
        }
        let reason = if *annotate == 0 {
            "all answers are judged; set sampling.annotate to 2 or more"
        } else if players.iter().any(|player| *player != Player::Policy) {
            "the implicit reward is that of the policy's own answers; write sampling.players = [\"policy\"]"
        } else if self.reference.kind == ReferenceKind::None {
            "it is measured against the reference; use \"aepo\", or another reference.kind than \"none\""
        } else {
            return;
        };
        found.conflict("sampling.annotate_by", "margin", reason);
    }

    fn check_loss(&self, found: &mut Problems<'_>) {
        let Some(spec) = LossSpec::of(self.loss.name) else { return };
        let name = name_of(&spec.name);
        for (key, value) in &self.loss.params {
            let path = format!("loss.{key}");
            let Some(own) = spec.keys.iter().find(|own| own.key == key) else {
                let keys: Vec<&str> = spec.keys.iter().map(|own| own.key).collect();
                let reason = format!("the loss {name} has no such key, it has {}; remove it", keys.join(" and "));
                found.conflict(&path, "set", &reason);
                continue;
            };
            if !own.domain.holds(*value) {
                let expected = format!("{}; the default of {name} is {}", own.domain.describe(), own.default);
                let (place, value) = ((found.place)(&path), value.to_string());
                found.errors.push(Error::BadValue { key: path, value, place, expected });
            }
        }
        self.check_answers(spec, found);
        self.check_reference(spec, found);
        self.check_pairs(spec, found);
        if spec.reads == Reads::ScoredPairs && self.feedback.ask != Ask::Score {
            let reason = "it reads the judge's scores, which only feedback.ask = \"score\" gives";
            found.conflict("loss.name", &name, reason);
        }
    }

    /// Checks what only pairs can have.
    fn check_pairs(&self, spec: &LossSpec, found: &mut Problems<'_>) {
        let (pairing, name) = (&self.pairing, name_of(&spec.name));
        let pairs = matches!(spec.reads, Reads::Pairs | Reads::ScoredPairs | Reads::WinRates);
        if pairing.keep.share < 1.0 && !pairs {
            let reason = format!("it chooses among pairs, and the loss {name} reads {}; set 1", spec.reads.describe());
            found.conflict("pairing.keep.share", &pairing.keep.share.to_string(), &reason);
        }
        if pairing.keep.share < 1.0 && pairing.keep.by != KeepBy::Ches && self.reference.kind == ReferenceKind::None {
            let reason = "it is measured against the reference; use \"ches\", or another reference.kind than \"none\"";
            found.conflict("pairing.keep.by", &name_of(&pairing.keep.by), reason);
        }
        let written = self.feedback.rationale.weight;
        if written > 0.0 && !pairs {
            let reason = format!("reasons belong to pairs, and the loss {name} reads {}; set 0", spec.reads.describe());
            found.conflict("feedback.rationale.weight", &written.to_string(), &reason);
        }
        if written > 0.0 && !matches!(self.training_judge(), Some(JudgeConfig::Rule(_))) {
            let reason = "the judge writes no reasons; use one of kind \"rule\", or set 0";
            found.conflict("feedback.rationale.weight", &written.to_string(), reason);
        }
        for weight in pairing.weights.iter().filter(|weight| **weight != Weight::Staleness && !pairs) {
            let reason = format!("it weighs pairs, and the loss {name} reads {}; remove it", spec.reads.describe());
            found.conflict("pairing.weights", &name_of(weight), &reason);
        }
    }

    /// Checks what the policy is held to.
    fn check_reference(&self, spec: &LossSpec, found: &mut Problems<'_>) {
        let kind = self.reference.kind;
        let moves = matches!(kind, ReferenceKind::Previous | ReferenceKind::Ema);
        let written = name_of(&kind);
        if moves && self.pairing.replay.ratio > 0.0 {
            let reason =
                "a replayed example would be held to a newer reference than its own; use reference.kind = \"initial\"";
            found.conflict("pairing.replay.ratio", &self.pairing.replay.ratio.to_string(), reason);
        }
        self.check_previous(found);
        if self.eval.stop.max_kl > 0.0 && !self.sampling.players.contains(&Player::Policy) {
            let reason = "the KL is measured on the policy's own answers; add \"policy\" to sampling.players, or set 0";
            found.conflict("eval.stop.max_kl", &self.eval.stop.max_kl.to_string(), reason);
        }
        if kind != ReferenceKind::Initial && self.eval.stop.max_kl > 0.0 {
            let reason = format!(
                "the KL is measured against the reference, which is {written}; use reference.kind = \"initial\""
            );
            found.conflict("eval.stop.max_kl", &self.eval.stop.max_kl.to_string(), &reason);
        }
        if kind == ReferenceKind::None && spec.reference {
            let reason = format!("the loss {} compares with a reference; use \"initial\"", name_of(&spec.name));
            found.conflict("reference.kind", &written, &reason);
        }
        let asked = self.sampling.players.iter().find(|p| matches!(p, Player::Reference | Player::Mixture));
        if let (ReferenceKind::None, Some(player)) = (kind, asked) {
            let reason = format!("the player {} answers with it; use \"initial\"", name_of(player));
            found.conflict("reference.kind", &written, &reason);
        }
    }

    /// Checks that a reference which follows the policy is not the policy itself, and is the one that sampled.
    fn check_previous(&self, found: &mut Problems<'_>) {
        if self.reference.kind != ReferenceKind::Previous {
            return;
        }
        let (steps, epochs) = (self.learner.iteration_steps, self.learner.epochs_per_iteration);
        if steps == 1 && epochs == 1 {
            let reason = "learner.iteration_steps and learner.epochs_per_iteration are 1, so the reference would be the policy \
                          itself at every gradient and hold it to nothing; set learner.iteration_steps above 1, a third of \
                          learner.steps in the papers";
            found.conflict("reference.kind", "previous", reason);
        }
        let staleness = self.pipeline.max_staleness;
        if steps == 1 && staleness > 0 {
            let reason = "answers of an older policy would be held to a newer reference; set 0";
            found.conflict("pipeline.max_staleness", &staleness.to_string(), reason);
        }
    }

    /// Checks that the best and the worst of n come from n answers of the reference.
    fn check_bonbon(&self, found: &mut Problems<'_>) {
        let (n, answers) = (self.loss.params.get("n").copied().unwrap_or_default(), self.sampling.num_generations);
        if n != f64::from(answers) && n.fract() == 0.0 {
            let reason = format!("the prompt has {answers} answers (sampling.num_generations); leave it out");
            found.conflict("loss.n", &n.to_string(), &reason);
        }
        if self.sampling.players.iter().any(|player| *player != Player::Reference) {
            let reason = "bonbon aims at the best of n answers of the reference; write sampling.players = [\"reference\"] \
                          beside sampling.num_generations";
            found.conflict("sampling.players", &list_of(&self.sampling.players), reason);
        }
        if self.sampling.annotate > 0 {
            let reason = "bonbon's target is computed for all of the answers; set 0";
            found.conflict("sampling.annotate", &self.sampling.annotate.to_string(), reason);
        }
    }

    /// Checks that a penalty moves what the judge says: a certainty has no log-odds that it could be added to.
    fn check_penalty(&self, found: &mut Problems<'_>) {
        let certain = match self.training_judge() {
            Some(JudgeConfig::Players(_)) => true,
            Some(JudgeConfig::Matrix(judge)) => judge.preference.iter().flatten().any(|p| *p == 0.0 || *p == 1.0),
            _ => false,
        };
        let penalty = self.sampling.missing_eos_penalty;
        if penalty > 0.0 && certain {
            let reason = "the judge gives probabilities of 0 and 1, which no finite penalty moves; set 0, or filter truncated \
                          answers with pairing.filters = [\"ties\", \"identical\", \"truncated\"]";
            found.conflict("sampling.missing_eos_penalty", &penalty.to_string(), reason);
        }
    }

    /// Checks that the answers are drawn and contrasted as the loss reads them.
    fn check_answers(&self, spec: &LossSpec, found: &mut Problems<'_>) {
        let name = name_of(&spec.name);
        let (selects, players) = (spec.reads.selects(), &self.sampling.players);
        if !selects.contains(&self.pairing.select) {
            let fit = selects.iter().map(|select| format!("\"{}\"", name_of(select))).collect::<Vec<_>>().join(" or ");
            let reason = format!("the loss {name} reads {}; use {fit}, or another loss", spec.reads.describe());
            found.conflict("pairing.select", &name_of(&self.pairing.select), &reason);
        }
        let count = |wanted| players.iter().filter(|player| **player == wanted).count();
        let one_each = players.len() == 2 && count(Player::Reference) == 1 && count(Player::Policy) == 1;
        if spec.name == LossName::Xpo && !one_each {
            let reason = "xpo explores away from one answer of the reference; write sampling.players = [\"policy\", \"reference\"]";
            found.conflict("loss.name", &name, reason);
        }
        if spec.name == LossName::Bonbon {
            self.check_bonbon(found);
        }
        if spec.name == LossName::Pmpo && count(Player::Reference) == 0 {
            let reason =
                "pmpo measures its divergence on answers of the reference; add \"reference\" to sampling.players";
            found.conflict("loss.name", &name, reason);
        }
        if spec.name == LossName::Kto && self.learner.prompts_per_step < 2 {
            let reason = "kto compares each prompt with the answers of another; set 2 or more";
            found.conflict("learner.prompts_per_step", &self.learner.prompts_per_step.to_string(), reason);
        }
        if !spec.reads.is_gradient() {
            return;
        }
        let (own, all) = (count(Player::Policy), players.len());
        let written = list_of(players);
        if spec.reads == Reads::Opponent && (own == 0 || own == all) {
            let reason = format!(
                "{name} trains the policy's answer against another player's; write sampling.players = [\"policy\", \"mixture\"]"
            );
            found.conflict("sampling.players", &written, &reason);
        }
        if spec.reads == Reads::Group && own < all {
            let reason = format!("{name} is a policy gradient and trains on the policy's own answers only");
            found.conflict("sampling.players", &written, &reason);
        }
        let sampling = &self.sampling;
        let drawn = [
            ("temperature", sampling.temperature, 1.0),
            ("top_p", sampling.top_p, 1.0),
            ("top_k", f64::from(sampling.top_k), 0.0),
        ];
        for (key, value, wanted) in drawn.into_iter().filter(|(_, value, wanted)| value != wanted) {
            let reason =
                format!("{name} is a policy gradient: its answers must be drawn as they are scored; set {wanted}");
            found.conflict(&format!("sampling.{key}"), &value.to_string(), &reason);
        }
        if self.pairing.replay.ratio > 0.0 {
            let reason = format!("{name} is a policy gradient and needs fresh answers; set 0");
            found.conflict("pairing.replay.ratio", &self.pairing.replay.ratio.to_string(), &reason);
        }
    }

    /// Checks where the examples come from, and that the loss can read given ones.
    fn check_given(&self, found: &mut Problems<'_>) {
        let Data { prompts, pairs, pairs_share, .. } = &self.data;
        if pairs.is_none() {
            if prompts.is_none() {
                let expected = "write a file of prompts, or data.pairs with given preferences".to_owned();
                let (key, file) = ("data.prompts".to_owned(), (found.place)("data"));
                found.errors.push(Error::MissingKey { key, file, expected });
            }
            return;
        }
        let (share, step) = (pairs_share.to_string(), u64::from(self.learner.prompts_per_step));
        let places = self.data.given_per_step(step);
        if prompts.is_none() && *pairs_share < 1.0 {
            let reason = "there are no prompts for the other places; write data.prompts, or set 1";
            found.conflict("data.pairs_share", &share, reason);
        } else if prompts.is_some() && (places == 0 || places == step) {
            let reason = format!(
                "that is {places} of {step} places of a step (learner.prompts_per_step), and data.pairs and data.prompts \
                 both need some"
            );
            found.conflict("data.pairs_share", &share, &reason);
        }
        self.check_given_form(found);
    }

    /// Checks that the loss reads what the rows of `data.pairs` hold.
    fn check_given_form(&self, found: &mut Problems<'_>) {
        let (Some(spec), Some(file)) = (LossSpec::of(self.loss.name), &self.data.pairs) else { return };
        let (name, format) = (name_of(&spec.name), self.data.pairs_format);
        let of_reference = matches!(spec.name, LossName::Bonbon | LossName::Pmpo);
        let is_read = matches!(spec.reads, Reads::Pairs | Reads::Answers | Reads::List) && spec.name != LossName::Dro;
        if !is_read || of_reference {
            let reads = if of_reference { "answers of the reference" } else { spec.reads.describe() };
            let reason =
                format!("the loss {name} reads {reads}, which a file of given answers does not hold; remove it");
            found.conflict("data.pairs", &file.display().to_string(), &reason);
        }
        let fits = match format {
            PairsFormat::Unpaired => spec.reads == Reads::Answers,
            PairsFormat::Ranked => spec.reads == Reads::List,
            _ => true,
        };
        if !fits {
            let reads = spec.reads.describe();
            let reason = format!("the loss {name} reads {reads}; write another format, or another loss");
            found.conflict("data.pairs_format", &name_of(&format), &reason);
        }
    }

    fn check_learner(&self, found: &mut Problems<'_>) {
        self.learner.optim.check(found);
        let (ranks, prompts) = (self.learner.ranks, self.learner.prompts_per_step);
        if ranks > prompts {
            let reason = format!(
                "a step has {prompts} prompts (learner.prompts_per_step), so some ranks would have nothing to do"
            );
            found.conflict("learner.ranks", &ranks.to_string(), &reason);
        }
        if self.learner.min_ranks > ranks {
            let reason = format!("there are {ranks} (learner.ranks)");
            found.conflict("learner.min_ranks", &self.learner.min_ranks.to_string(), &reason);
        }
        if !self.deterministic {
            return;
        }
        let staleness = self.pipeline.max_staleness;
        if staleness > 0 {
            let reason =
                "deterministic = true needs 0, because overlapping makes the order of updates depend on timing";
            found.conflict("pipeline.max_staleness", &staleness.to_string(), reason);
        }
        let seconds = self.eval.stop.max_seconds;
        if seconds > 0 {
            let reason = "deterministic = true needs 0, because where a clock ends the run differs each time";
            found.conflict("eval.stop.max_seconds", &seconds.to_string(), reason);
        }
    }

    fn check_eval(&self, found: &mut Problems<'_>) {
        let fraction = self.data.eval_fraction;
        if self.data.eval_prompts.is_some() && fraction > 0.0 {
            let reason = "data.eval_prompts names the held-out prompts already; write one of the two keys";
            found.conflict("data.eval_fraction", &fraction.to_string(), reason);
        }
        if self.eval.every > 0 && self.data.eval_prompts.is_none() && fraction == 0.0 {
            let reason =
                "there are no held-out prompts; set data.eval_fraction above 0 or data.eval_prompts, or eval.every = 0";
            found.conflict("eval.every", &self.eval.every.to_string(), reason);
        }
        let stop = &self.eval.stop;
        if self.eval.every == 0 && (stop.patience > 0 || stop.max_kl > 0.0) {
            let reason = "without evaluations eval.stop.patience and eval.stop.max_kl can stop nothing; set eval.every";
            found.conflict("eval.every", "0", reason);
        }
    }
}

impl super::Optimization {
    /// Checks what single keys cannot.
    pub(crate) fn check(&self, found: &mut Problems<'_>) {
        if self.warmup_steps > 0 && self.warmup_ratio > 0.0 {
            let reason = format!("learner.warmup_steps is {} already; write one of the two keys", self.warmup_steps);
            found.conflict("learner.warmup_ratio", &self.warmup_ratio.to_string(), &reason);
        }
        if let Some(steps) = self.steps.filter(|steps| self.warmup_steps > *steps) {
            let reason = format!("the run has {steps} steps (learner.steps), the warm-up must fit into them");
            found.conflict("learner.warmup_steps", &self.warmup_steps.to_string(), &reason);
        }
    }
}

/// Writes players as a list of their names.
fn list_of(players: &[Player]) -> String {
    players.iter().map(name_of).collect::<Vec<_>>().join(", ")
}

/// Checks what no single key of a judge can.
fn check_judge(judge: &JudgeConfig, index: usize, found: &mut Problems<'_>) {
    match judge {
        JudgeConfig::Rule(judge) => check_rules(judge, index, found),
        JudgeConfig::Matrix(judge) => check_matrix(judge, index, found),
        JudgeConfig::RewardModel(_) | JudgeConfig::Oracle(_) | JudgeConfig::Learned(_) | JudgeConfig::Players(_) => {}
    }
}

/// Checks expressions that compile, and a matrix of probabilities that fits them.
fn check_matrix(judge: &MatrixJudge, index: usize, found: &mut Problems<'_>) {
    for (number, pattern) in judge.patterns.iter().enumerate() {
        found.regex(&format!("judge.{index}.patterns.{number}"), pattern);
    }
    let (key, kinds, rows) = (format!("judge.{index}.preference"), judge.patterns.len(), &judge.preference);
    if rows.len() != kinds || rows.iter().any(|row| row.len() != kinds) {
        let reason = format!("there are {kinds} patterns; write {kinds} rows of {kinds} numbers");
        found.conflict(&key, &format!("{} rows", rows.len()), &reason);
        return;
    }
    for (i, j) in (0..kinds).flat_map(|i| (0..=i).map(move |j| (i, j))) {
        let (there, back) = (rows[i][j], rows[j][i]);
        if !(0.0..=1.0).contains(&there) || !(0.0..=1.0).contains(&back) || (there + back - 1.0).abs() > 1e-9 {
            let reason = "the two must be probabilities that add up to 1, 0.5 on the diagonal";
            found.conflict(&key, &format!("{there} in row {i}, column {j} and {back} crosswise"), reason);
        }
    }
}

/// Checks expressions that compile, and lengths that exist.
fn check_rules(judge: &RuleJudge, index: usize, found: &mut Problems<'_>) {
    for (number, rule) in judge.rules.iter().enumerate() {
        let at = format!("judge.{index}.rules.{number}");
        match rule {
            Rule::Pattern(rule) => found.regex(&format!("{at}.pattern"), &rule.pattern),
            Rule::EndsWith(rule) => found.regex(&format!("{at}.ends_with"), &rule.ends_with),
            Rule::Length(rule) if rule.length.max < rule.length.min => {
                let reason = format!("it is below length.min = {}; no answer can have that length", rule.length.min);
                found.conflict(&format!("{at}.length.max"), &rule.length.max.to_string(), &reason);
            }
            Rule::Length(_) | Rule::Words(_) | Rule::Repetition(_) => {}
        }
    }
}

/// The problems found so far.
pub(crate) struct Problems<'a> {
    /// Tells where a key was written.
    pub place: Place<'a>,
    /// What was found.
    pub errors: Vec<Error>,
}

impl Problems<'_> {
    /// Notes a value that does not go together with the rest.
    pub fn conflict(&mut self, key: &str, value: &str, reason: &str) {
        let place = (self.place)(key);
        self.errors.push(Error::Conflict { key: key.into(), value: value.into(), place, reason: reason.into() });
    }

    fn regex(&mut self, key: &str, pattern: &str) {
        if let Err(error) = regex::Regex::new(pattern) {
            let reason = error.to_string();
            let last = reason.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            self.errors.push(Error::BadValue {
                key: key.to_owned(),
                value: format!("{pattern:?}"),
                place: (self.place)(key),
                expected: format!("a regular expression ({last})"),
            });
        }
    }
}
