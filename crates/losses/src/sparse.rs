//! DPO that weighs tokens: a mask on each token's log-ratio and on its divergence from the reference.
//!
//! Christopoulou et al., "SparsePO: Controlling Preference Alignment of LLMs via Sparse Token Masks", <https://arxiv.org/abs/2410.05102>. The masks come from the
//! reference's hidden states, by a rule (MaPO) or by small heads that are trained beside the policy (SparsePO).

use tch::{Kind, Tensor};

use crate::{
    Error, LossOutput, PairLogps, Result,
    error::{alike, check, not_negative, positive},
};

/// Sums over the tokens of chosen and of rejected answers, each `[B]`, of what the masks leave.
#[derive(Debug, Clone, Copy)]
pub struct MaskedSums<'a> {
    /// `Σ_t m_u(t)·(lp_t − refp_t)`, in nats; carry the gradient.
    pub ratios: [&'a Tensor; 2],
    /// `Σ_t m_d(t)·KL_t` with KL_t the divergence of the policy from the reference over the whole vocabulary, in nats; carry the gradient.
    pub divergences: [&'a Tensor; 2],
    /// `Σ_t m_u(t) + m_d(t)`, no unit; carry the gradient where masks are trained.
    pub masks: [&'a Tensor; 2],
}

/// Weights of the head that says the masks, float32 or float64; they carry the gradient.
#[derive(Debug, Clone, Copy)]
pub struct MaskHead<'a> {
    /// w of each layer, `[L, H]`.
    pub weight: &'a Tensor,
    /// b of each layer, `[L]`.
    pub bias: &'a Tensor,
    /// Weight of each layer in the mix, `[1, L]`.
    pub mixer: &'a Tensor,
}

/// Computes the masks of MaPO for the tokens of one answer, `[T]` in [0, 1]: of each layer the mean activation, moved to mean 0 and variance 1 over the
/// tokens and then to [0, 1], and the mean of that over the layers. The second move undoes the first, so that only it is made.
///
/// A layer whose activations are all equal, as those of one token are, has the mask 1.
///
/// # Arguments
/// * `activations` - mean over the hidden width of each token and layer, float32 or float64 `[T, L]`, T at least 1.
pub fn activation_masks(activations: &Tensor) -> Tensor {
    let activations = activations.detach();
    let (lowest, highest) = (activations.amin([0i64].as_slice(), true), activations.amax([0i64].as_slice(), true));
    let span = highest - &lowest;
    let flat = span.eq(0.0);
    let scaled = (activations - lowest) / span.masked_fill(&flat, 1.0);
    scaled.masked_fill(&flat, 1.0).mean_dim(1i64, false, scaled.kind())
}

/// Computes the learned mask of each token, `[N]`, at least 0: `ReLU(Σ_l c_l·ReLU(w_l·LN(h_l) + b_l))`.
///
/// LN has no weights of its own, which w and b would take up.
///
/// # Arguments
/// * `states` - the reference's hidden state after each layer, `[N, L, H]`, without gradient.
/// * `eps` - of the layer norm.
///
/// # Errors
/// [`Error::Shape`] for a head that does not fit the states.
pub fn learned_masks(states: &Tensor, head: &MaskHead, eps: f64) -> Result<Tensor> {
    let size = states.size();
    let [_, layers, width] = size[..] else {
        return Err(Error::Shape { name: "states", expected: vec![-1, -1, -1], found: size });
    };
    let shapes = [("weight", head.weight, vec![layers, width]), ("bias", head.bias, vec![layers])];
    for (name, tensor, expected) in shapes.into_iter().chain([("mixer", head.mixer, vec![1, layers])]) {
        if tensor.size() != expected {
            return Err(Error::Shape { name, expected, found: tensor.size() });
        }
    }
    let kind = head.weight.kind();
    let normed = states.detach().to_kind(kind).layer_norm([width], None::<Tensor>, None::<Tensor>, eps, false);
    let by_layer = ((normed * head.weight).sum_dim_intlist(2i64, false, kind) + head.bias).relu(); // [N, L]
    Ok((by_layer * head.mixer).sum_dim_intlist(1i64, false, kind).relu())
}

/// Computes masked log-ratio plus masked divergence of both answers, `[B]` each, whose difference is the margin.
fn masked<'a>(inputs: &PairLogps<'a>, loss: &'static str) -> Result<([Tensor; 2], MaskedSums<'a>)> {
    let [chosen, _] = inputs.policy()?;
    let sums = inputs.masked(loss)?;
    alike([
        ("policy_chosen", Some(chosen)),
        ("ratios_chosen", Some(sums.ratios[0])),
        ("ratios_rejected", Some(sums.ratios[1])),
        ("divergences_chosen", Some(sums.divergences[0])),
        ("divergences_rejected", Some(sums.divergences[1])),
        ("masks_chosen", Some(sums.masks[0])),
        ("masks_rejected", Some(sums.masks[1])),
    ])?;
    Ok(([0, 1].map(|side: usize| sums.ratios[side] + sums.divergences[side]), sums))
}

/// Computes MaPO, `−log σ(β·(u − d))` with `u = Σ_t m(t)(lp_t − refp_t)|y⁺ − |y⁻` and `d = −Σ_t m(t)·KL_t|y⁺ + |y⁻` (Eq. 6), the masks m by
/// [`activation_masks`].
///
/// With m = 1 it is TDPO1 (Zeng et al., <https://arxiv.org/abs/2404.11999>), and without d DPO.
///
/// # Arguments
/// * `inputs` - with masked sums.
/// * `beta` - above 0; 0.1 in the authors' code, 0.8 in their runs on sentiment and summaries.
///
/// # Returns and errors
/// As [`crate::dpo_loss`]; [`Error::Missing`] without masked sums.
pub fn mapo_loss(inputs: &PairLogps, beta: f64) -> Result<LossOutput> {
    positive("mapo", [("beta", beta)])?;
    let (h, _) = masked(inputs, "mapo")?;
    let per_pair = inputs.mix(|w, l| -(beta * (&h[w] - &h[l])).log_sigmoid());
    Ok(LossOutput::new(per_pair, &h, beta))
}

/// Computes SparsePO: [`mapo_loss`] on [`learned_masks`], plus `λ·(‖m_u‖₁ + ‖m_d‖₁)` of both answers (Eq. 6 and 7).
///
/// # Arguments
/// * `inputs` - with masked sums.
/// * `beta` - as of [`mapo_loss`].
/// * `lambda` - weight of the masks' sizes, at least 0; 0.001 where the authors found sparse masks. Of one head the mask counts once.
/// * `heads` - 1 for a mask that both terms share, 2 for one each.
/// * `mask_decay` - weight decay of the heads, read by whoever updates them.
///
/// # Returns and errors
/// As [`mapo_loss`].
pub fn sparse_po_loss(inputs: &PairLogps, beta: f64, lambda: f64, heads: f64, mask_decay: f64) -> Result<LossOutput> {
    positive("sparse_po", [("beta", beta)])?;
    not_negative("sparse_po", [("lambda", lambda), ("mask_decay", mask_decay)])?;
    check("sparse_po", [("heads", heads)], "1 or 2", |heads| heads == 1.0 || heads == 2.0)?;
    let (h, sums) = masked(inputs, "sparse_po")?;
    let sizes = lambda * (heads / 2.0) * (sums.masks[0] + sums.masks[1]);
    let per_pair = inputs.mix(|w, l| -(beta * (&h[w] - &h[l])).log_sigmoid() + &sizes);
    Ok(LossOutput::new(per_pair, &h, beta))
}

/// Mask heads as they start, by name: every mask is 1, so that training begins as TDPO1 and no ReLU is dead.
///
/// # Arguments
/// * `layers`, `width` - L and H of the reference.
/// * `names` - one prefix a head.
pub fn first_mask_heads(layers: i64, width: i64, names: &[&str]) -> Vec<(String, Tensor)> {
    let options = (Kind::Float, tch::Device::Cpu);
    let head = |name: &&str| {
        [
            (format!("{name}.weight"), Tensor::zeros([layers, width], options)),
            (format!("{name}.bias"), Tensor::ones([layers], options)),
            (format!("{name}.mixer"), Tensor::ones([1, layers], options) / layers as f64),
        ]
    };
    names.iter().flat_map(head).collect()
}
