//! The pair losses by name: a closed choice, so that a missing case is a compile error.

use std::collections::BTreeMap;

use crate::{Error, LossOutput, PairLogps, Result, anchored::*, dpo::*, ipo::*, likelihood::*, slic::*};

/// Writes the choice, its names, its keys and its calls from one list.
macro_rules! pair_losses {
    ($($variant:ident = $name:literal, $function:ident($($key:ident),+), $reads:tt;)+) => {
        /// A pair loss with its hyper-parameters, which are explained at its function.
        #[derive(Debug, Clone, Copy, PartialEq)]
        #[allow(missing_docs, reason = "the parameters are those of the functions, which explain them")]
        pub enum PairLoss {
            $(#[doc = concat!("[`crate::", stringify!($function), "`].")] $variant { $($key: f64),+ },)+
        }

        impl PairLoss {
            /// Every loss: its name in a run file, its keys, and whether it reads the reference.
            pub const ALL: &'static [(&'static str, &'static [&'static str], bool)] =
                &[$(($name, &[$(stringify!($key)),+], pair_losses!(@reference $reads))),+];

            /// Builds a loss from its name and all of its hyper-parameters.
            ///
            /// # Errors
            /// [`Error::UnknownLoss`] for another name; [`Error::Keys`] unless exactly its keys are given. Values are checked when
            /// the loss is computed.
            pub fn from_name(name: &str, params: &BTreeMap<String, f64>) -> Result<Self> {
                match name {
                    $($name => {
                        let keys: &'static [&'static str] = &[$(stringify!($key)),+];
                        if params.len() != keys.len() || keys.iter().any(|key| !params.contains_key(*key)) {
                            let found = params.keys().cloned().collect();
                            return Err(Error::Keys { loss: $name, expected: keys, found });
                        }
                        Ok(Self::$variant { $($key: params[stringify!($key)]),+ })
                    })+
                    _ => Err(Error::UnknownLoss { name: name.to_owned() }),
                }
            }

            /// Computes the loss.
            ///
            /// # Errors
            /// As the loss's own function.
            pub fn compute(&self, inputs: &PairLogps) -> Result<LossOutput> {
                match *self {
                    $(Self::$variant { $($key),+ } => $function(inputs, $($key),+),)+
                }
            }

            /// Returns the name in the run file.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant { .. } => $name,)+
                }
            }
        }
    };
    (@reference reference) => { true };
    (@reference policy) => { false };
}

pair_losses! {
    Dpo = "dpo", dpo_loss(beta, label_smoothing), reference;
    Robust = "robust", robust_loss(beta, label_smoothing), reference;
    RDpo = "r_dpo", r_dpo_loss(beta, alpha), reference;
    SigmoidNorm = "sigmoid_norm", sigmoid_norm_loss(beta), reference;
    Odpo = "odpo", odpo_loss(beta, alpha), reference;
    Dpop = "dpop", dpop_loss(beta, lambda), reference;
    DpoShift = "dpo_shift", dpo_shift_loss(beta, lambda), reference;
    Discopop = "discopop", discopop_loss(beta, tau), reference;
    ExoPair = "exo_pair", exo_pair_loss(beta, label_smoothing), reference;
    Xpo = "xpo", xpo_loss(beta, alpha), reference;
    Ipo = "ipo", ipo_loss(beta), reference;
    IpoAvg = "ipo_avg", ipo_avg_loss(beta), reference;
    Bonbon = "bonbon", bonbon_loss(n, alpha), reference;
    Hinge = "hinge", hinge_loss(beta), reference;
    SlicHf = "slic_hf", slic_hf_loss(delta, lambda), policy;
    NcaPair = "nca_pair", nca_pair_loss(beta), reference;
    BcoPair = "bco_pair", bco_pair_loss(beta), reference;
    ApoZero = "apo_zero", apo_zero_loss(beta), reference;
    ApoDown = "apo_down", apo_down_loss(beta), reference;
    Sppo = "sppo", sppo_loss(beta), reference;
    Simpo = "simpo", simpo_loss(beta, gamma), policy;
    Alphapo = "alphapo", alphapo_loss(beta, gamma, alpha), policy;
    Cpo = "cpo", cpo_loss(beta, alpha), policy;
    Orpo = "orpo", orpo_loss(lambda), policy;
    Asft = "asft", asft_loss(lambda), policy;
    Rpo = "rpo", rpo_loss(beta, alpha), reference;
}

impl PairLoss {
    /// Returns whether reference log-probabilities are read; without need the caller can spare the forward pass.
    pub fn needs_reference(&self) -> bool {
        Self::ALL.iter().any(|(name, _, reference)| *name == self.name() && *reference)
    }

    /// Returns whether the judge's scores are read.
    pub fn needs_scores(&self) -> bool {
        matches!(self, Self::Odpo { .. })
    }
}
