//! What is minimised and what the policy is held to: `[loss]` and `[reference]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::choices::{LossName, ReferenceKind};

/// The loss; after resolution exactly the keys that it has are set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Loss {
    /// What is minimised.
    pub name: LossName,
    /// How tightly the policy is held to the reference, per nat. `dpo`, `ipo_avg` and `hinge` start at 0.1, `ipo` at 1.0; the
    /// presets bring the paper's 0.1, 1.0 and 0.002. Near 0 the policy drifts away, at 10 it hardly moves.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub beta: Option<f64>,
    /// Share of labels taken to be wrong (`dpo` only, default 0); 0.5 would make every label worthless.
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 0.5))]
    pub label_smoothing: Option<f64>,
    /// Margin in nats that chosen must lead by (`slic_hf` only, default 1).
    #[schemars(range(min = 0.0))]
    pub delta: Option<f64>,
    /// Weight of the chosen answer's likelihood (`slic_hf` only, default 0.1); 0 lets the policy forget it.
    #[schemars(range(min = 0.0))]
    pub lambda: Option<f64>,
}

/// A loss that this build can run, with its hyper-parameters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LossParams {
    /// Logistic loss.
    Dpo {
        /// Per nat, above 0.
        beta: f64,
        /// In [0, 0.5).
        label_smoothing: f64,
    },
    /// Squared loss on sums.
    Ipo {
        /// Per nat, above 0.
        beta: f64,
    },
    /// Squared loss on token averages.
    IpoAvg {
        /// Per nat, above 0.
        beta: f64,
    },
    /// Reference-normalised hinge.
    Hinge {
        /// Per nat, above 0.
        beta: f64,
    },
    /// Reference-free hinge.
    SlicHf {
        /// Margin in nats, at least 0.
        delta: f64,
        /// Weight of the likelihood, at least 0.
        lambda: f64,
    },
}

/// The default beta of a loss where no preset names one: TRL's 0.1, and the paper's 1.0 for IPO on sums.
fn default_beta(name: LossName) -> f64 {
    if name == LossName::Ipo { 1.0 } else { 0.1 }
}

impl Loss {
    /// Returns the loss with its hyper-parameters, defaults filled in; `None` for a loss that this build cannot run.
    pub fn params(&self) -> Option<LossParams> {
        let beta = self.beta.unwrap_or(default_beta(self.name));
        match self.name {
            LossName::Dpo => Some(LossParams::Dpo { beta, label_smoothing: self.label_smoothing.unwrap_or_default() }),
            LossName::Ipo => Some(LossParams::Ipo { beta }),
            LossName::IpoAvg => Some(LossParams::IpoAvg { beta }),
            LossName::Hinge => Some(LossParams::Hinge { beta }),
            LossName::SlicHf => {
                Some(LossParams::SlicHf { delta: self.delta.unwrap_or(1.0), lambda: self.lambda.unwrap_or(0.1) })
            }
            _ => None,
        }
    }

    /// Lists the keys beside `name` that the loss has.
    pub fn keys(&self) -> &'static [&'static str] {
        match self.params() {
            Some(LossParams::Dpo { .. }) => &["beta", "label_smoothing"],
            Some(LossParams::SlicHf { .. }) => &["delta", "lambda"],
            _ => &["beta"],
        }
    }

    /// Writes the defaults of its own keys into those that are not set.
    pub(crate) fn fill(&mut self) {
        match self.params() {
            Some(LossParams::Dpo { beta, label_smoothing }) => {
                self.beta = Some(beta);
                self.label_smoothing = Some(label_smoothing);
            }
            Some(LossParams::Ipo { beta } | LossParams::IpoAvg { beta } | LossParams::Hinge { beta }) => {
                self.beta = Some(beta);
            }
            Some(LossParams::SlicHf { delta, lambda }) => {
                self.delta = Some(delta);
                self.lambda = Some(lambda);
            }
            None => {}
        }
    }

    /// Lists the keys that are set, whether the loss has them or not.
    pub(crate) fn set_keys(&self) -> Vec<&'static str> {
        let all = [
            ("beta", self.beta),
            ("label_smoothing", self.label_smoothing),
            ("delta", self.delta),
            ("lambda", self.lambda),
        ];
        all.into_iter().filter(|(_, value)| value.is_some()).map(|(key, _)| key).collect()
    }
}

/// What the policy is held to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Reference {
    /// Which weights the policy is held to.
    pub kind: ReferenceKind,
}
