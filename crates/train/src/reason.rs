//! The judge's reasons, trained on beside the preference.

use joust_core::Rationale;
use joust_losses::rationale_loss;
use joust_model::SequenceBatch;
use tch::{Kind, Tensor};

use crate::{
    Error, Prepared, Result, Trainer,
    sums::{Sums, Totals},
};

/// Turns a reason into tokens: those of its prompt, and its own with an EOS.
pub type Encode = Box<dyn Fn(&Rationale) -> std::result::Result<(Vec<u32>, Vec<u32>), String> + Send>;

/// How reasons are trained on, see [`rationale_loss`].
pub struct Reasons {
    /// γ, above 0.
    pub gamma: f64,
    /// Whether the authors' form with log σ is taken.
    pub log_sigmoid: bool,
    /// Turns reasons into tokens.
    pub encode: Encode,
}

impl std::fmt::Debug for Reasons {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reasons")
            .field("gamma", &self.gamma)
            .field("log_sigmoid", &self.log_sigmoid)
            .finish_non_exhaustive()
    }
}

impl Trainer {
    /// Gives each example the tokens of its reason; one that does not fit the context is left out.
    pub(crate) fn encode_reasons(&self, step: &mut [Vec<Prepared>]) -> Result<()> {
        let Some(reasons) = &self.reasons else { return Ok(()) };
        let context = self.master.config.max_position_embeddings as usize;
        for prepared in step.iter_mut().flatten() {
            let Some(rationale) = &prepared.example.rationale else { continue };
            let refused = |problem| Error::Example { id: prepared.example.id.to_string(), problem };
            let (prompt, text) = (reasons.encode)(rationale).map_err(refused)?;
            let fits = !prompt.is_empty() && !text.is_empty() && prompt.len() + text.len() <= context;
            prepared.reason = fits.then_some((prompt, text));
        }
        Ok(())
    }

    /// Adds the gradient of a micro-batch's reasons: a mean over the pairs of the step, those without a reason counted as 0.
    pub(crate) fn accumulate_reasons(
        &self,
        batch: &[Prepared],
        (number, totals): (u32, Totals),
        sums: &mut Sums,
    ) -> Result<()> {
        let Some(reasons) = &self.reasons else { return Ok(()) };
        let found = || batch.iter().filter_map(|prepared| Some((prepared, prepared.reason.as_ref()?)));
        let sequences: Vec<(&[u32], &[u32])> = found().map(|(_, (p, r))| (p.as_slice(), r.as_slice())).collect();
        sums.add_part("rationales/trained", sequences.len() as f64);
        if sequences.is_empty() {
            return Ok(());
        }
        let column = |values: Vec<f32>| Tensor::from_slice(&values).to_device(self.device.torch());
        let tokens = column(sequences.iter().map(|(_, reason)| reason.len() as f32).collect());
        let weight = column(found().map(|(prepared, _)| prepared.example.weight as f32).collect());
        let logps = SequenceBatch::new(&sequences, self.device.torch()).logps(&self.master.training_model(number)?);
        let per_pair = rationale_loss(&logps, &tokens, reasons.gamma, reasons.log_sigmoid)? * weight;
        let loss = per_pair.sum(Kind::Float) / totals.examples;
        let value = loss.double_value(&[]);
        if !value.is_finite() {
            let examples = found().map(|(p, _)| p.example.id.to_string()).collect::<Vec<_>>().join(", ");
            return Err(Error::LossNotFinite { step: self.master.optimizer.updates, value, examples });
        }
        sums.add_part("loss", value);
        sums.add("rationales/nll", &(-logps.detach() / tokens));
        loss.backward();
        Ok(())
    }
}
