//! The losses on pairs, on lists and on single answers by name: closed choices, so that a missing case is a compile error.

use std::collections::BTreeMap;

use crate::{
    Error, ListLogps, ListOutput, LossOutput, PairLogps, Result, SingleLogps, SingleOutput, anchored::*, cringe::*,
    degree::*, divergence::*, dpo::*, ipo::*, likelihood::*, list::*, single::*, slic::*, sparse::*, transport::*,
};

/// Writes a choice, its names, its keys and its calls from one list.
macro_rules! losses {
    (
        $(#[$meaning:meta])* $choice:ident($inputs:ident) -> $output:ident;
        $($variant:ident = $name:literal, $function:ident($($key:ident),+), $reads:tt;)+
    ) => {
        $(#[$meaning])*
        #[derive(Debug, Clone, Copy, PartialEq)]
        #[allow(missing_docs, reason = "the parameters are those of the functions, which explain them")]
        pub enum $choice {
            $(#[doc = concat!("[`crate::", stringify!($function), "`].")] $variant { $($key: f64),+ },)+
        }

        impl $choice {
            /// Every loss: its name in a run file, its keys, and whether it reads the reference.
            pub const ALL: &'static [(&'static str, &'static [&'static str], bool)] =
                &[$(($name, &[$(stringify!($key)),+], losses!(@reference $reads))),+];

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
            pub fn compute(&self, inputs: &$inputs) -> Result<$output> {
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

losses! {
    /// A pair loss with its hyper-parameters, which are explained at its function.
    PairLoss(PairLogps) -> LossOutput;
    Dpo = "dpo", dpo_loss(beta, label_smoothing), reference;
    Robust = "robust", robust_loss(beta, label_smoothing), reference;
    RDpo = "r_dpo", r_dpo_loss(beta, alpha), reference;
    SigmoidNorm = "sigmoid_norm", sigmoid_norm_loss(beta), reference;
    Odpo = "odpo", odpo_loss(beta, alpha), reference;
    Dpop = "dpop", dpop_loss(beta, lambda), reference;
    DpoShift = "dpo_shift", dpo_shift_loss(beta, lambda), reference;
    Discopop = "discopop", discopop_loss(beta, tau), reference;
    ExoPair = "exo_pair", exo_pair_loss(beta, label_smoothing), reference;
    DpoJs = "dpo_js", dpo_js_loss(beta), reference;
    DpoAlpha = "dpo_alpha", dpo_alpha_loss(beta, alpha), reference;
    LdDpo = "ld_dpo", ld_dpo_loss(beta, alpha), reference;
    RewardGap = "reward_gap", reward_gap_loss(beta, eta), reference;
    RewardGapKl = "reward_gap_kl", reward_gap_kl_loss(beta, eta), reference;
    Cringe = "cringe", cringe_loss(alpha, tau, margin, k), policy;
    Mapo = "mapo", mapo_loss(beta), reference;
    SparsePo = "sparse_po", sparse_po_loss(beta, lambda, heads, mask_decay), reference;
    Spo = "spo", spo_loss(beta, lambda, degrees), reference;
    Dove = "dove", dove_loss(beta), reference;
    Aot = "aot", aot_loss(beta, label_smoothing), reference;
    AotUnpaired = "aot_unpaired", aot_unpaired_loss(beta, label_smoothing), reference;
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

losses! {
    /// A loss on the ranked answers of a prompt with its hyper-parameters, which are explained at its function.
    ListLoss(ListLogps) -> ListOutput;
    SppoList = "sppo_list", sppo_list_loss(beta), reference;
    ListMle = "list_mle", list_mle_loss(beta), reference;
    Lipo = "lipo", lipo_loss(beta), reference;
    Pro = "pro", pro_loss(lambda), policy;
    D2o = "d2o", d2o_loss(beta, alpha), reference;
    Pmpo = "pmpo", pmpo_loss(alpha, beta), reference;
    Raft = "raft", raft_loss(n), policy;
}

losses! {
    /// A loss on single answers with its hyper-parameters, which are explained at its function.
    SingleLoss(SingleLogps) -> SingleOutput;
    Kto = "kto", kto_loss(beta, desirable_weight, undesirable_weight), reference;
    BcoUnpaired = "bco_unpaired", bco_unpaired_loss(beta), reference;
    Dro = "dro", dro_loss(beta), reference;
}

impl PairLoss {
    /// Returns whether reference log-probabilities are read; without need the caller can spare the forward pass.
    pub fn needs_reference(&self) -> bool {
        Self::ALL.iter().any(|(name, _, reference)| *name == self.name() && *reference)
    }

    /// Returns whether the judge's scores are read.
    pub fn needs_scores(&self) -> bool {
        matches!(self, Self::Odpo { .. } | Self::RewardGap { .. } | Self::RewardGapKl { .. } | Self::Dove { .. })
    }

    /// Returns whether tokens are weighed by masks, and so what the reference computes at each of them.
    pub fn needs_masks(&self) -> bool {
        matches!(self, Self::Mapo { .. } | Self::SparsePo { .. })
    }

    /// Returns whether answers are matched with others of the step, so that all of its log-probabilities must be known.
    pub fn needs_matching(&self) -> bool {
        matches!(self, Self::Aot { .. } | Self::AotUnpaired { .. } | Self::Dove { .. })
    }
}
