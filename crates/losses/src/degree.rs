//! DPO beside a head that tells how much of an answer is left: self-supervised preference optimization.
//!
//! Li et al., "Self-supervised Preference Optimization: Enhance Your Language Model with Preference Degree Awareness", <https://arxiv.org/abs/2409.17791>. It is
//! known from its abstract; which tokens are taken away, and the constants, are ours.

use tch::{Kind, Tensor};

use crate::{
    Error, LossOutput, PairLogps, Result,
    error::{check, not_negative, positive},
};

/// Computes the cross-entropy in nats of telling from each answer's last hidden state how much was taken away from it, `[M]`.
///
/// # Arguments
/// * `states` - last hidden states of the last tokens, `[M, H]`; carry the gradient.
/// * `weight`, `bias` - of the linear head, `[D+1, H]` and `[D+1]`, float32 or float64; carry the gradient.
/// * `degrees` - int64 `[M]` in 0..=D, 0 for whole answers.
///
/// # Errors
/// [`Error::Shape`] for a head or degrees that do not fit the states.
pub fn degree_losses(states: &Tensor, [weight, bias]: [&Tensor; 2], degrees: &Tensor) -> Result<Tensor> {
    let size = states.size();
    let [count, width] = size[..] else {
        return Err(Error::Shape { name: "states", expected: vec![-1, -1], found: size });
    };
    let classes = bias.size().first().copied().unwrap_or(-1);
    let expected =
        [("weight", weight, vec![classes, width]), ("bias", bias, vec![classes]), ("degrees", degrees, vec![count])];
    for (name, tensor, expected) in expected {
        if tensor.size() != expected {
            return Err(Error::Shape { name, expected, found: tensor.size() });
        }
    }
    let logits = states.to_kind(weight.kind()).matmul(&weight.tr()) + bias; // [M, D+1]
    let told = logits.log_softmax(1, weight.kind()).gather(1, &degrees.unsqueeze(1), false);
    Ok(-told.squeeze_dim(1))
}

/// Computes SPO, [`crate::dpo_loss`] plus `λ·½(d⁺ + d⁻)` with d the mean of [`degree_losses`] over the versions of an answer.
///
/// # Arguments
/// * `inputs` - with degree terms `½(d⁺ + d⁻)`, which do not read the label.
/// * `beta` - as of [`crate::dpo_loss`].
/// * `lambda` - weight of the head's loss, at least 0; 0.1 is ours.
/// * `degrees` - D, the shortened versions of an answer, a whole number of at least 1, read by whoever makes them.
///
/// # Returns and errors
/// As [`crate::dpo_loss`]; [`Error::Missing`] without degree terms.
pub fn spo_loss(inputs: &PairLogps, beta: f64, lambda: f64, degrees: f64) -> Result<LossOutput> {
    positive("spo", [("beta", beta)])?;
    not_negative("spo", [("lambda", lambda)])?;
    check("spo", [("degrees", degrees)], "a whole number of at least 1", |d| d >= 1.0 && d.fract() == 0.0)?;
    let h = inputs.log_ratios("spo")?;
    let told = lambda * inputs.degree_terms("spo")?.to_kind(h[0].kind());
    let per_pair = inputs.mix(|w, l| -(beta * (&h[w] - &h[l])).log_sigmoid() + &told);
    Ok(LossOutput::new(per_pair, &h, beta))
}

/// The degree head as it starts, by name: it finds every degree as likely.
///
/// # Arguments
/// * `degrees` - D.
/// * `width` - H of the policy.
pub fn first_degree_head(degrees: i64, width: i64) -> Vec<(String, Tensor)> {
    let options = (Kind::Float, tch::Device::Cpu);
    vec![
        ("degree.weight".into(), Tensor::zeros([degrees + 1, width], options)),
        ("degree.bias".into(), Tensor::zeros([degrees + 1], options)),
    ]
}
