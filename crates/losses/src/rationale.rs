//! Training on the judge's reasons beside its preference.

use tch::Tensor;

use crate::{
    Result,
    error::{alike, positive},
};

/// Computes what a reason adds to the preference loss of its pair: `−γ·log π(r|x, y⁺, y⁻)/|r|` (Just et al.,
/// <https://arxiv.org/abs/2407.14477>: γ times the likelihood of the rationale; the mean over tokens keeps long reasons from ruling).
///
/// The authors' code takes `−log σ(γ·log π(r))` instead, a sum over tokens: with `log_sigmoid`. That is about γ·|log π| where the reason is
/// improbable, and flat where it is not.
///
/// # Arguments
/// * `logps` - log π(r|x, y⁺, y⁻) in nats, `[B]`, float32 or float64; carries the gradient.
/// * `tokens` - |r|, at least 1, `[B]`, of the same kind.
/// * `gamma` - above 0; 0.001 in the authors' README.
///
/// # Errors
/// [`crate::Error::Shape`], [`crate::Error::Kind`], [`crate::Error::Device`], [`crate::Error::Param`].
pub fn rationale_loss(logps: &Tensor, tokens: &Tensor, gamma: f64, log_sigmoid: bool) -> Result<Tensor> {
    alike([("logps", Some(logps)), ("tokens", Some(tokens))])?;
    positive("rationale", [("gamma", gamma)])?;
    if log_sigmoid {
        return Ok(-(gamma * logps).log_sigmoid());
    }
    Ok(-gamma * logps / tokens.detach().clamp_min(1.0))
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;

    const LOGPS: [f64; 3] = [-12.5, -0.25, -900.0];
    const TOKENS: [f64; 3] = [10.0, 1.0, 40.0];

    fn values(tensor: &Tensor) -> Vec<f64> {
        Vec::try_from(tensor.to_kind(Kind::Double)).expect("a vector")
    }

    #[test]
    fn both_forms_are_those_of_plain_arithmetic() {
        for log_sigmoid in [false, true] {
            let plain = |i: usize, logp: f64| match log_sigmoid {
                true => (-0.01 * logp).exp().ln_1p(),
                false => -0.01 * logp / TOKENS[i],
            };
            let logps = Tensor::from_slice(&LOGPS).set_requires_grad(true);
            let loss = rationale_loss(&logps, &Tensor::from_slice(&TOKENS), 0.01, log_sigmoid).expect("valid");
            loss.sum(Kind::Double).backward();
            let (found, slopes) = (values(&loss), values(&logps.grad()));
            for i in 0..3 {
                let slope = (plain(i, LOGPS[i] + 1e-4) - plain(i, LOGPS[i] - 1e-4)) / 2e-4;
                assert!((found[i] - plain(i, LOGPS[i])).abs() < 1e-12 * found[i].abs().max(1.0), "{found:?}");
                assert!((slopes[i] - slope).abs() < 1e-8, "{slopes:?}, expected {slope}");
            }
        }
    }

    #[test]
    fn improbable_reasons_cost_alike_in_both_forms_and_probable_ones_do_not() {
        let logps = Tensor::from_slice(&[-90_000.0f32, -1.0]);
        let ones = logps.ones_like();
        let [mean, legacy] =
            [false, true].map(|form| values(&rationale_loss(&logps, &ones, 0.01, form).expect("valid")));
        assert!((mean[0] - legacy[0]).abs() < 1e-3, "{mean:?} {legacy:?}");
        // log σ(γπ) ≈ ½γπ − log 2 near 0.
        assert!((legacy[1] - (0.5 * 0.01 + 2f64.ln())).abs() < 1e-4, "{legacy:?}");
        assert!(rationale_loss(&logps, &ones, 0.0, false).is_err());
    }
}
