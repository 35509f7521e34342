//! The policy gradients by name.

use std::collections::BTreeMap;

use crate::{Error, Result};

/// A policy gradient with its hyper-parameters, which are explained at its function.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(missing_docs, reason = "the parameters are those of the functions, which explain them")]
pub enum GradientLoss {
    /// [`crate::nash_md_loss`].
    NashMd { beta: f64 },
    /// [`crate::rloo_loss`] on [`crate::rloo_advantages`] of the score less `beta` times the log-ratio to the reference.
    Rloo { beta: f64, epsilon: f64 },
    /// [`crate::grpo_loss`] on [`crate::grpo_advantages`].
    Grpo { beta: f64, epsilon: f64 },
    /// [`crate::ppo_loss`] on whitened returns to go, REINFORCE++ (<https://arxiv.org/abs/2501.03262>).
    ReinforcePlusPlus { beta: f64, epsilon: f64 },
    /// [`crate::ppo_loss`] on whitened [`crate::gae`], and `vf_coef` times [`crate::value_loss`] for the critic.
    Ppo { beta: f64, epsilon: f64, epsilon_value: f64, vf_coef: f64, gamma: f64, lambda: f64 },
}

impl GradientLoss {
    /// Every policy gradient: its name in a run file and its keys.
    pub const ALL: [(&'static str, &'static [&'static str]); 5] = [
        ("nash_md", &["beta"]),
        ("rloo", &["beta", "epsilon"]),
        ("grpo", &["beta", "epsilon"]),
        ("reinforce++", &["beta", "epsilon"]),
        ("ppo", &["beta", "epsilon", "epsilon_value", "vf_coef", "gamma", "lambda"]),
    ];

    /// Builds a policy gradient from its name and all of its hyper-parameters.
    ///
    /// # Errors
    /// [`Error::UnknownLoss`] for another name; [`Error::Keys`] unless exactly its keys are given. Values are checked when the
    /// loss is computed.
    pub fn from_name(name: &str, params: &BTreeMap<String, f64>) -> Result<Self> {
        let unknown = || Error::UnknownLoss { name: name.to_owned() };
        let (loss, keys) = *Self::ALL.iter().find(|(known, _)| *known == name).ok_or_else(unknown)?;
        if params.len() != keys.len() || keys.iter().any(|key| !params.contains_key(*key)) {
            return Err(Error::Keys { loss, expected: keys, found: params.keys().cloned().collect() });
        }
        let value = |key: &str| params.get(key).copied().unwrap_or_default();
        let (beta, epsilon) = (value("beta"), value("epsilon"));
        Ok(match loss {
            "nash_md" => Self::NashMd { beta },
            "rloo" => Self::Rloo { beta, epsilon },
            "grpo" => Self::Grpo { beta, epsilon },
            "reinforce++" => Self::ReinforcePlusPlus { beta, epsilon },
            _ => Self::Ppo {
                beta,
                epsilon,
                epsilon_value: value("epsilon_value"),
                vf_coef: value("vf_coef"),
                gamma: value("gamma"),
                lambda: value("lambda"),
            },
        })
    }

    /// Returns the name in the run file.
    pub fn name(&self) -> &'static str {
        match self {
            Self::NashMd { .. } => "nash_md",
            Self::Rloo { .. } => "rloo",
            Self::Grpo { .. } => "grpo",
            Self::ReinforcePlusPlus { .. } => "reinforce++",
            Self::Ppo { .. } => "ppo",
        }
    }
}
