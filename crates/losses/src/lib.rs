//! Preference losses as pure functions on tensors.
//!
//! One file a family, one function a loss; nothing here samples, scores, reduces over the batch or logs. The caller brings
//! summed log-probabilities in nats and gets one loss a pair; each file names its paper.

mod advantage;
mod anchored;
mod cringe;
mod degree;
mod diagnostics;
mod direction;
mod divergence;
mod dpo;
mod error;
mod gradient;
mod inputs;
mod ipo;
mod likelihood;
mod list;
mod pal;
mod rationale;
mod registry;
mod reward;
mod single;
mod slic;
mod sparse;
#[cfg(test)]
mod tests;
mod token;
mod transport;

pub use advantage::{gae, grpo_advantages, rewards_to_go, rloo_advantages, token_rewards, whiten};
pub use anchored::{apo_down_loss, apo_zero_loss, bco_pair_loss, nca_pair_loss, sppo_loss};
pub use cringe::{cringe_loss, cringe_tokens};
pub use degree::{degree_losses, first_degree_head, spo_loss};
pub use diagnostics::{TopK, entanglement, idealised_margin, top_k};
pub use direction::{head_weights, legend_margins, reward_components, safety_direction};
pub use divergence::{dpo_alpha_loss, dpo_js_loss};
pub use dpo::{
    discopop_loss, dpo_loss, dpo_shift_loss, dpop_loss, exo_pair_loss, ld_dpo_loss, odpo_loss, r_dpo_loss,
    reward_gap_kl_loss, reward_gap_loss, robust_loss, sigmoid_norm_loss, xpo_loss,
};
pub use error::{Error, Result};
pub use gradient::GradientLoss;
pub use inputs::{LossOutput, PairLogps};
pub use ipo::{bonbon_loss, ipo_avg_loss, ipo_loss};
pub use likelihood::{alphapo_loss, asft_loss, cpo_loss, orpo_loss, rpo_loss, simpo_loss};
pub use list::{
    ListLogps, ListOutput, d2o_loss, lipo_loss, list_mle_loss, pmpo_loss, pro_loss, raft_loss, sppo_list_loss,
};
pub use pal::{distances, ideal_points, pal_loss};
pub use rationale::rationale_loss;
pub use registry::{ListLoss, PairLoss, SingleLoss};
pub use reward::{Margin, attribute_loss, bradley_terry_loss};
pub use single::{SingleLogps, SingleOutput, bco_unpaired_loss, dro_loss, dro_value_loss, kto_loss};
pub use slic::{hinge_loss, slic_hf_loss};
pub use sparse::{MaskHead, MaskedSums, activation_masks, first_mask_heads, learned_masks, mapo_loss, sparse_po_loss};
pub use token::{GradientOutput, TokenLogps, grpo_loss, nash_md_loss, ppo_loss, rloo_loss, value_loss};
pub use transport::{aot_loss, aot_unpaired_loss, dove_loss};
