//! Losses of reward models on scored pairs and on rated answers.

use tch::Tensor;

use crate::{Error, Result, error::not_negative};

/// What a pair's margin does; margins are in the unit of the scores, and at least 0 where they scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Margin {
    /// Chosen must lead by it: `−log σ(s⁺ − s⁻ − m)` (Llama 2, <https://arxiv.org/abs/2307.09288>).
    Subtract,
    /// It multiplies the pair's loss: `m·(−log σ(s⁺ − s⁻))` (HelpSteer2-Preference, <https://arxiv.org/abs/2410.01257>).
    Scale,
}

/// Computes the Bradley-Terry loss of a reward model, `−log σ(s⁺ − s⁻) + c·(s⁺ + s⁻)²` (Stiennon et al.,
/// <https://arxiv.org/abs/2009.01325>, Eq. 1; the second term centres the scores, <https://arxiv.org/abs/2312.09244>).
///
/// # Arguments
/// * `chosen`, `rejected` - scores, float32 or float64 `[B]`; carry the gradient.
/// * `margins` - of each pair, `[B]`, and what they do.
/// * `center` - c, at least 0; 0.01 is usual.
///
/// # Returns
/// The loss of each pair, `[B]`; the caller reduces.
///
/// # Errors
/// [`Error::Shape`] for scores or margins that do not fit, [`Error::Param`] for a negative `center`.
pub fn bradley_terry_loss(
    chosen: &Tensor,
    rejected: &Tensor,
    margins: Option<(&Tensor, Margin)>,
    center: f64,
) -> Result<Tensor> {
    not_negative("bradley_terry", [("center", center)])?;
    let expected = chosen.size();
    for (name, tensor) in [("rejected", Some(rejected)), ("margins", margins.map(|(margins, _)| margins))] {
        if let Some(tensor) = tensor.filter(|tensor| tensor.size() != expected) {
            return Err(Error::Shape { name, expected, found: tensor.size() });
        }
    }
    let lead = chosen - rejected;
    let loss = match margins {
        None => -lead.log_sigmoid(),
        Some((margins, Margin::Subtract)) => -(lead - margins.to_kind(chosen.kind())).log_sigmoid(),
        Some((margins, Margin::Scale)) => -lead.log_sigmoid() * margins.to_kind(chosen.kind()),
    };
    Ok(if center > 0.0 { loss + center * (chosen + rejected).square() } else { loss })
}

/// Computes the regression of a model that rates several attributes: `Σ_a [known]·(o_a − l_a)²/#known` (HelpSteer,
/// <https://arxiv.org/abs/2311.09528>, as in NeMo-Aligner).
///
/// # Arguments
/// * `ratings` - outputs, `[B, A]`; carry the gradient.
/// * `labels` - `[B, A]`; NaN where an attribute was not rated.
///
/// # Returns
/// The loss of each answer, `[B]`; 0 where nothing was rated.
///
/// # Errors
/// [`Error::Shape`] for labels that do not fit.
pub fn attribute_loss(ratings: &Tensor, labels: &Tensor) -> Result<Tensor> {
    if ratings.size() != labels.size() {
        return Err(Error::Shape { name: "labels", expected: ratings.size(), found: labels.size() });
    }
    let known = labels.isnan().logical_not();
    let labels = labels.to_kind(ratings.kind()).masked_fill(&known.logical_not(), 0.0);
    let squares = (ratings - labels).square() * known.to_kind(ratings.kind());
    let sum = |values: &Tensor| values.sum_dim_intlist(1i64, false, ratings.kind());
    Ok(sum(&squares) / sum(&known.to_kind(ratings.kind())).clamp_min(1.0))
}
