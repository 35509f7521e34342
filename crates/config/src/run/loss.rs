//! What is minimised and what the policy is held to: `[loss]` and `[reference]`.

use std::{borrow::Cow, collections::BTreeMap};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::choices::{LossName, ReferenceKind, Select};
use crate::works::name_of;

/// The loss with its hyper-parameters; after resolution exactly the keys that it has are set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Loss {
    /// What is minimised.
    pub name: LossName,
    /// Hyper-parameters by key.
    #[serde(flatten)]
    pub params: BTreeMap<String, f64>,
}

/// The numbers that a hyper-parameter can have.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Domain {
    /// Above 0.
    Positive,
    /// At least 0.
    NotNegative,
    /// At least 0 and below 0.5.
    Smoothing,
    /// Above 0 and below 0.5.
    SomeSmoothing,
    /// Above 0 and at most 1.
    Share,
    /// In [0, 1].
    Fraction,
    /// 1 or 2.
    OneOrTwo,
    /// Whole, from 2 to 999.
    Count,
    /// Whole, from 1 to 999.
    Some,
    /// Any finite number.
    Any,
}

/// A hyper-parameter of a loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LossKey {
    /// Its key in the run file.
    pub key: &'static str,
    /// Used where nothing is written: the paper's, or TRL's where it is silent.
    pub default: f64,
    /// What it can be.
    pub domain: Domain,
}

/// What a loss reads, and so which answers must be contrasted for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    /// Pairs of answers.
    Pairs,
    /// Pairs of answers with the judge's scores, so `feedback.ask = "score"`.
    ScoredPairs,
    /// Pairs of answers with their win rates.
    WinRates,
    /// The policy's answers against those of another player; a policy gradient.
    Opponent,
    /// All answers of a prompt, ranked.
    List,
    /// All answers of a prompt; a policy gradient.
    Group,
    /// Single answers, each desirable or not, or with a score.
    Answers,
}

impl Reads {
    /// Lists the values of `pairing.select` that give it.
    pub fn selects(self) -> &'static [Select] {
        match self {
            Self::Pairs | Self::ScoredPairs => &[
                Select::BestWorst,
                Select::MaxRandom,
                Select::AllPairs,
                Select::Rejection,
                Select::SweetSpot,
                Select::Ranked,
                Select::MaxMax,
                Select::Curriculum,
            ],
            Self::WinRates => &[Select::WinRate],
            Self::Opponent => &[Select::Opponent],
            Self::List => &[Select::List],
            Self::Group | Self::Answers => &[Select::Single],
        }
    }

    /// Describes it, for example `pairs of answers`.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Pairs => "pairs of answers",
            Self::ScoredPairs => "pairs of scored answers",
            Self::WinRates => "win rates",
            Self::Opponent => "the policy's answers against an opponent's",
            Self::List => "the ranked answers of a prompt",
            Self::Group => "all answers of a prompt",
            Self::Answers => "single answers",
        }
    }

    /// Returns whether the loss is a policy gradient, which holds only for answers drawn as they are scored.
    pub fn is_gradient(self) -> bool {
        matches!(self, Self::Opponent | Self::Group)
    }
}

/// A loss that runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LossSpec {
    /// Its name.
    pub name: LossName,
    /// Its hyper-parameters.
    pub keys: &'static [LossKey],
    /// What it reads.
    pub reads: Reads,
    /// Whether it compares with a reference.
    pub reference: bool,
}

const fn key(key: &'static str, default: f64, domain: Domain) -> LossKey {
    LossKey { key, default, domain }
}

const fn beta(default: f64) -> LossKey {
    key("beta", default, Domain::Positive)
}

const fn spec(name: LossName, keys: &'static [LossKey]) -> LossSpec {
    LossSpec { name, keys, reads: Reads::Pairs, reference: true }
}

/// Makes a loss that reads the policy's log-probs alone.
const fn alone(spec: LossSpec) -> LossSpec {
    LossSpec { reference: false, ..spec }
}

const fn group(name: LossName, keys: &'static [LossKey]) -> LossSpec {
    LossSpec { name, keys, reads: Reads::Group, reference: true }
}

const fn scored(name: LossName, keys: &'static [LossKey]) -> LossSpec {
    LossSpec { name, keys, reads: Reads::ScoredPairs, reference: true }
}

const fn answers(name: LossName, keys: &'static [LossKey]) -> LossSpec {
    LossSpec { name, keys, reads: Reads::Answers, reference: true }
}

const fn list(name: LossName, keys: &'static [LossKey]) -> LossSpec {
    LossSpec { name, keys, reads: Reads::List, reference: true }
}

/// Clipping of the ratio of probabilities, PPO's default everywhere.
const EPSILON: LossKey = key("epsilon", 0.2, Domain::Positive);

/// Every loss that runs, with its hyper-parameters and their defaults.
pub const LOSSES: [LossSpec; 53] = [
    spec(LossName::Dpo, &[beta(0.1), key("label_smoothing", 0.0, Domain::Smoothing)]),
    spec(LossName::Ipo, &[beta(1.0)]),
    spec(LossName::IpoAvg, &[beta(0.1)]),
    spec(LossName::Hinge, &[beta(0.1)]),
    alone(spec(LossName::SlicHf, &[key("delta", 1.0, Domain::NotNegative), key("lambda", 0.1, Domain::NotNegative)])),
    spec(LossName::Robust, &[beta(0.1), key("label_smoothing", 0.1, Domain::Smoothing)]),
    spec(LossName::ExoPair, &[beta(0.1), key("label_smoothing", 1e-3, Domain::SomeSmoothing)]),
    spec(LossName::NcaPair, &[beta(0.01)]),
    spec(LossName::BcoPair, &[beta(0.01)]),
    spec(LossName::ApoZero, &[beta(0.1)]),
    spec(LossName::ApoDown, &[beta(0.1)]),
    spec(LossName::Discopop, &[beta(0.05), key("tau", 0.05, Domain::Positive)]),
    spec(LossName::SigmoidNorm, &[beta(5.0)]),
    spec(LossName::RDpo, &[beta(0.1), key("alpha", 0.01, Domain::NotNegative)]),
    spec(LossName::Rpo, &[beta(0.1), key("alpha", 1.0, Domain::NotNegative)]),
    alone(spec(LossName::Cpo, &[beta(0.1), key("alpha", 1.0, Domain::NotNegative)])),
    alone(spec(LossName::Orpo, &[key("lambda", 0.1, Domain::NotNegative)])),
    scored(LossName::Odpo, &[beta(0.1), key("alpha", 1.0, Domain::NotNegative)]),
    spec(LossName::Dpop, &[beta(0.3), key("lambda", 50.0, Domain::NotNegative)]),
    spec(LossName::DpoShift, &[beta(0.1), key("lambda", 0.95, Domain::Share)]),
    alone(spec(LossName::Simpo, &[beta(2.0), key("gamma", 0.5, Domain::NotNegative)])),
    alone(spec(
        LossName::Alphapo,
        &[beta(2.5), key("gamma", 0.1, Domain::NotNegative), key("alpha", 0.25, Domain::Positive)],
    )),
    alone(spec(LossName::Asft, &[key("lambda", 0.1, Domain::NotNegative)])),
    spec(LossName::Bonbon, &[key("n", 8.0, Domain::Count), key("alpha", 0.005, Domain::Fraction)]),
    LossSpec { name: LossName::Sppo, keys: &[beta(1e-3)], reads: Reads::WinRates, reference: true },
    spec(LossName::Xpo, &[beta(0.1), key("alpha", 1e-5, Domain::NotNegative)]),
    spec(LossName::DpoJs, &[beta(0.1)]),
    spec(LossName::DpoAlpha, &[beta(0.1), key("alpha", 1.0, Domain::Share)]),
    spec(LossName::LdDpo, &[beta(0.1), key("alpha", 0.5, Domain::Fraction)]),
    scored(LossName::RewardGap, &[beta(0.1), key("eta", 1.0, Domain::NotNegative)]),
    scored(LossName::RewardGapKl, &[beta(0.1), key("eta", 1.0, Domain::NotNegative)]),
    alone(spec(
        LossName::Cringe,
        &[
            key("alpha", 0.005, Domain::NotNegative),
            key("tau", 10.0, Domain::Positive),
            key("margin", -10.0, Domain::Any),
            key("k", 5.0, Domain::Some),
        ],
    )),
    spec(LossName::Mapo, &[beta(0.1)]),
    spec(
        LossName::SparsePo,
        &[
            beta(0.1),
            key("lambda", 1e-3, Domain::NotNegative),
            key("heads", 1.0, Domain::OneOrTwo),
            key("mask_decay", 0.01, Domain::NotNegative),
        ],
    ),
    spec(LossName::Spo, &[beta(0.1), key("lambda", 0.1, Domain::NotNegative), key("degrees", 3.0, Domain::Some)]),
    scored(LossName::Dove, &[beta(0.1)]),
    alone(list(LossName::Raft, &[key("n", 1.0, Domain::Some)])),
    spec(LossName::Aot, &[beta(0.1), key("label_smoothing", 0.0, Domain::Smoothing)]),
    spec(LossName::AotUnpaired, &[beta(0.1), key("label_smoothing", 0.0, Domain::Smoothing)]),
    answers(
        LossName::Kto,
        &[
            beta(0.1),
            key("desirable_weight", 1.0, Domain::NotNegative),
            key("undesirable_weight", 1.0, Domain::NotNegative),
        ],
    ),
    answers(LossName::BcoUnpaired, &[beta(0.1)]),
    answers(LossName::Dro, &[beta(1.0)]),
    list(LossName::D2o, &[beta(0.1), key("alpha", 0.1, Domain::NotNegative)]),
    list(LossName::Pmpo, &[key("alpha", 0.5, Domain::Fraction), key("beta", 0.5, Domain::NotNegative)]),
    list(LossName::SppoList, &[beta(1e-3)]),
    list(LossName::ListMle, &[beta(0.05)]),
    list(LossName::Lipo, &[beta(0.05)]),
    alone(list(LossName::Pro, &[key("lambda", 0.05, Domain::NotNegative)])),
    LossSpec { name: LossName::NashMd, keys: &[beta(0.008)], reads: Reads::Opponent, reference: true },
    group(LossName::Rloo, &[key("beta", 0.05, Domain::NotNegative), EPSILON]),
    group(LossName::Grpo, &[key("beta", 0.04, Domain::NotNegative), EPSILON]),
    group(LossName::ReinforcePlusPlus, &[key("beta", 0.01, Domain::NotNegative), EPSILON]),
    group(
        LossName::Ppo,
        &[
            key("beta", 0.05, Domain::NotNegative),
            EPSILON,
            key("epsilon_value", 0.2, Domain::Positive),
            key("vf_coef", 0.1, Domain::NotNegative),
            key("gamma", 1.0, Domain::Share),
            key("lambda", 0.95, Domain::Fraction),
        ],
    ),
];

/// Meaning of each key, whatever the loss.
const MEANINGS: [(&str, &str); 19] = [
    (
        "beta",
        "How tightly the policy is held to the reference, per nat; for losses without a reference, the scale of the reward. Near 0 \
         the policy drifts away, far above the default it hardly moves",
    ),
    ("label_smoothing", "Share of labels taken to be wrong; 0.5 would make every label worthless"),
    ("delta", "Margin in nats that chosen must lead by"),
    ("lambda", "Weight of the loss's second term: see the loss; of `ppo` how far an advantage looks ahead"),
    ("alpha", "Weight of the loss's second term, or shape of its reward: see the loss"),
    ("gamma", "Margin of the reward that chosen must lead by; of `ppo` the discount of a token's reward"),
    ("tau", "Temperature of the mixture of the two forms; of `cringe` of the gate, in nats"),
    ("margin", "Lead of chosen in nats at which a pair counts half"),
    ("k", "Most probable tokens that a rejected token is pushed below"),
    ("heads", "Masks of a token: 1 that log-ratio and divergence share, 2 for one each"),
    ("mask_decay", "Weight decay of what makes the masks; what trains the policy has its own"),
    ("degrees", "Versions of an answer with ever more of it taken away; each is one more answer to compute"),
    ("epsilon", "The ratio of new to old probability counts only within 1 - epsilon and 1 + epsilon"),
    ("epsilon_value", "How far a value may move from the one before and still count, in the unit of the reward"),
    ("vf_coef", "Weight of the critic's loss"),
    ("eta", "Scale of the judge's gap in scores that the implicit margin is to reach, per unit of score"),
    ("desirable_weight", "Weight of answers that win more often than not"),
    ("undesirable_weight", "Weight of answers that lose more often than not"),
    ("n", "Answers that the best and the worst were taken from; of `raft` the best answers that are imitated"),
];

impl Domain {
    /// Returns whether the number lies in the domain.
    pub fn holds(self, value: f64) -> bool {
        value.is_finite()
            && match self {
                Self::Positive => value > 0.0,
                Self::NotNegative => value >= 0.0,
                Self::Smoothing => (0.0..0.5).contains(&value),
                Self::SomeSmoothing => value > 0.0 && value < 0.5,
                Self::Share => value > 0.0 && value <= 1.0,
                Self::Fraction => (0.0..=1.0).contains(&value),
                Self::Any => true,
                Self::Some => (1.0..1000.0).contains(&value) && value.fract() == 0.0,
                Self::OneOrTwo => value == 1.0 || value == 2.0,
                Self::Count => (2.0..1000.0).contains(&value) && value.fract() == 0.0,
            }
    }

    /// Describes the domain, for example `a number above 0`.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Positive => "a number above 0",
            Self::NotNegative => "a number of at least 0",
            Self::Smoothing => "a number of at least 0 and below 0.5",
            Self::SomeSmoothing => "a number above 0 and below 0.5",
            Self::Share => "a number above 0 and at most 1",
            Self::Fraction => "a number of at least 0 and at most 1",
            Self::Any => "a number",
            Self::Some => "a whole number of at least 1 and below 1000",
            Self::OneOrTwo => "1 or 2",
            Self::Count => "a whole number of at least 2 and below 1000",
        }
    }
}

impl LossSpec {
    /// Returns the loss of this name, if it runs.
    pub fn of(name: LossName) -> Option<&'static Self> {
        LOSSES.iter().find(|spec| spec.name == name)
    }
}

impl Loss {
    /// Returns the name as the run file writes it.
    pub fn written_name(&self) -> String {
        name_of(&self.name)
    }

    /// Writes the defaults of its own keys into those that are not set.
    pub(crate) fn fill(&mut self) {
        for key in LossSpec::of(self.name).into_iter().flat_map(|spec| spec.keys) {
            self.params.entry(key.key.to_owned()).or_insert(key.default);
        }
    }
}

/// Joins a key's meaning with the losses that have it and their defaults.
fn describe(key: &str, meaning: &str) -> String {
    let has = |spec: &LossSpec| {
        let own = spec.keys.iter().find(|own| own.key == key)?;
        Some(format!("`{}` {}", name_of(&spec.name), own.default))
    };
    format!("{meaning}. Defaults: {}.", LOSSES.iter().filter_map(has).collect::<Vec<_>>().join(", "))
}

impl JsonSchema for Loss {
    fn schema_name() -> Cow<'static, str> {
        "Loss".into()
    }

    fn inline_schema() -> bool {
        true
    }

    /// Lists the keys of all losses; which of them a loss has, and its own domain, is checked with the whole file.
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut name = LossName::json_schema(generator);
        name.insert("description".into(), "What is minimised.".into());
        name.insert("default".into(), json!(LossName::default()));
        let mut properties = Map::from_iter([("name".to_owned(), Value::from(name))]);
        for (key, meaning) in MEANINGS {
            let mut domains =
                LOSSES.iter().flat_map(|spec| spec.keys).filter(|own| own.key == key).map(|own| own.domain);
            let low = if domains.all(|domain| domain == Domain::Positive) { "exclusiveMinimum" } else { "minimum" };
            let free = LOSSES.iter().flat_map(|spec| spec.keys).any(|own| own.key == key && own.domain == Domain::Any);
            let mut schema = json!({ "type": ["number", "null"], "description": describe(key, meaning), low: 0.0 });
            if free {
                schema.as_object_mut().and_then(|schema| schema.remove(low));
            }
            properties.insert(key.to_owned(), schema);
        }
        let text = "The loss; after resolution exactly the keys that it has are set.";
        Schema::from(Map::from_iter([
            ("type".to_owned(), json!("object")),
            ("description".to_owned(), json!(text)),
            ("properties".to_owned(), Value::Object(properties)),
            ("additionalProperties".to_owned(), json!(false)),
        ]))
    }
}

/// What the policy is held to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Reference {
    /// Which weights the policy is held to.
    pub kind: ReferenceKind,
}
