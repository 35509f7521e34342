//! Rewards as directions in a model's hidden space: Legend's margins of safety, and the heads of decomposed reward models.
//!
//! Feng et al., "Legend: Leveraging Representation Engineering to Annotate Safety Margin for Preference Datasets", <https://arxiv.org/abs/2406.08124>; Luo et al., "Rethinking
//! Diverse Human Preference Learning through Principal Component Analysis" (DRM), <https://arxiv.org/abs/2502.13131>.

use tch::{Kind, Tensor};

use crate::{
    Error, Result,
    error::{like, positive},
};

/// Computes the direction from harm to safety, `v/‖v‖` with `v = mean h(refusal) − mean h(harmful)`, float64 `[H]`.
///
/// # Arguments
/// * `refusals`, `harmful` - hidden states of the last token of answers that refuse, and of such as they refuse to give, `[N, H]` and `[M, H]`.
///
/// # Errors
/// [`Error::Shape`] for states of another width, [`Error::Degenerate`] if both have one mean.
pub fn safety_direction(refusals: &Tensor, harmful: &Tensor) -> Result<Tensor> {
    let mean = |states: &Tensor| states.to_kind(Kind::Double).mean_dim([0i64].as_slice(), false, Kind::Double);
    let (safe, unsafe_) = (mean(refusals), mean(harmful));
    like("harmful", &unsafe_, &safe)?;
    let direction = safe - unsafe_;
    let length = direction.norm().double_value(&[]);
    if length > 0.0 && length.is_finite() {
        return Ok(direction / length);
    }
    let problem = "refusals and harmful answers have the same mean state, or one that is not finite";
    Err(Error::Degenerate { input: "the direction of safety", problem })
}

/// Computes Legend's margins: how much further along the direction of safety chosen lies than rejected, moved to mean 0 and standard deviation 1 over
/// the pairs; all 0 where all are equal. They may be negative: such a pair asks for less lead than none.
pub fn legend_margins(chosen: &[f64], rejected: &[f64]) -> Vec<f64> {
    let gaps: Vec<f64> = chosen.iter().zip(rejected).map(|(chosen, rejected)| chosen - rejected).collect();
    let count = gaps.len().max(1) as f64;
    let mean = gaps.iter().sum::<f64>() / count;
    let deviation = (gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / count).sqrt();
    let scale = if deviation > 0.0 { 1.0 / deviation } else { 0.0 };
    gaps.into_iter().map(|gap| (gap - mean) * scale).collect()
}

/// Computes the heads of a decomposed reward model: the principal components of `D = h⁺ − h⁻`, most variance first, each of length 1 and turned so that the mean
/// of D lies on its positive side.
///
/// # Arguments
/// * `differences` - D, `[N, H]`; it is centred first, as scikit-learn's PCA does.
/// * `count` - K, at least 1 and at most the lesser of N − 1 and H.
///
/// # Returns
/// The components, float64 `[K, H]`, and the share of the variance that each explains, `[K]`.
///
/// # Errors
/// [`Error::Param`] for a count that the data cannot give, [`Error::Degenerate`] if D does not vary.
pub fn reward_components(differences: &Tensor, count: i64) -> Result<(Tensor, Tensor)> {
    let size = differences.size();
    let [pairs, width] = size[..] else {
        return Err(Error::Shape { name: "differences", expected: vec![-1, -1], found: size });
    };
    if count < 1 || count > width.min(pairs - 1) {
        let expected = "at least 1, and at most the hidden width and one less than the pairs";
        return Err(Error::Param { loss: "drm", name: "components", value: count as f64, expected });
    }
    let differences = differences.detach().to_kind(Kind::Double);
    let mean = differences.mean_dim([0i64].as_slice(), false, Kind::Double);
    let centred = differences - &mean;
    let (variances, vectors) = (centred.tr().matmul(&centred) / (pairs - 1) as f64).linalg_eigh("L"); // ascending
    let total = variances.sum(Kind::Double).double_value(&[]);
    if total <= 0.0 || !total.is_finite() {
        let problem = "all pairs differ in the same way, or in one that is not finite";
        return Err(Error::Degenerate { input: "h(chosen) - h(rejected)", problem });
    }
    let components = vectors.tr().flip([0]).narrow(0, 0, count);
    let wrong = components.matmul(&mean).lt(0.0).unsqueeze(1);
    let components = components.where_self(&wrong.logical_not(), &-&components);
    Ok((components.contiguous(), variances.flip([0]).narrow(0, 0, count).clamp_min(0.0) / total))
}

/// Computes what each head counts for one user from a few labelled pairs, `[K]`: the softmax of the accuracies of all heads and their negatives, a head's weight less that
/// of its negative.
///
/// # Arguments
/// * `gaps` - score of chosen less that of rejected under each head, `[N, K]`; a gap of 0 counts half right.
/// * `temperature` - of the softmax, above 0: near 0 the best head alone counts, far above 1 none does.
///
/// # Errors
/// [`Error::Shape`] without a pair, [`Error::Param`] for a temperature that is not above 0.
pub fn head_weights(gaps: &Tensor, temperature: f64) -> Result<Tensor> {
    positive("drm", [("temperature", temperature)])?;
    let size = gaps.size();
    if size.len() != 2 || size[0] == 0 {
        return Err(Error::Shape { name: "gaps", expected: vec![-1, -1], found: size });
    }
    let right = (gaps.detach().to_kind(Kind::Double).sign() + 1.0) / 2.0;
    let accuracies = right.mean_dim([0i64].as_slice(), false, Kind::Double); // [K]
    let both = Tensor::stack(&[&accuracies, &(1.0 - &accuracies)], 0); // [2, K]
    let shares = (both / temperature).view([-1]).softmax(0, Kind::Double).view([2, -1]);
    Ok(shares.get(0) - shares.get(1))
}
