//! Reading answers that exist: their log-probs under a model.

use std::sync::Arc;

use joust_model::{Device, SequenceBatch};

use crate::{Error, Result, Snapshot};

/// Answers read together: logits are sliced, so only the hidden states grow with it.
const MAX_SEQUENCES: usize = 32;

/// Answers to read.
#[derive(Debug, Clone)]
pub struct ScoreRequest {
    /// Whose log-probs.
    pub model: Arc<Snapshot>,
    /// Prompts with answers, in tokens, at least one each.
    pub sequences: Vec<(Vec<u32>, Vec<u32>)>,
}

/// Computes log π of every answer, a sum over its tokens in nats at temperature 1, in the order of the request.
pub(crate) fn run(request: &ScoreRequest, device: &Device) -> Result<Vec<f32>> {
    check(request)?;
    let mut logps = Vec::with_capacity(request.sequences.len());
    for part in request.sequences.chunks(MAX_SEQUENCES) {
        let sequences: Vec<(&[u32], &[u32])> = part.iter().map(|(p, a)| (p.as_slice(), a.as_slice())).collect();
        let model = request.model.lock();
        let _permit = device.acquire();
        let sums = SequenceBatch::new(&sequences, device.torch()).logps(&model);
        logps.extend(Vec::<f32>::try_from(sums).map_err(|error| Error::Failed(error.to_string()))?);
    }
    Ok(logps)
}

fn check(request: &ScoreRequest) -> Result<()> {
    let config = request.model.config();
    for (index, (prompt, answer)) in request.sequences.iter().enumerate() {
        let tokens = prompt.len() + answer.len();
        let unknown = prompt.iter().chain(answer).find(|id| i64::from(**id) >= config.vocab_size);
        let problem = if prompt.is_empty() || answer.is_empty() {
            "its prompt or answer has no tokens".to_owned()
        } else if tokens as i64 > config.max_position_embeddings {
            format!("it has {tokens} tokens, the context holds {}", config.max_position_embeddings)
        } else if let Some(id) = unknown {
            format!("it holds token id {id}, the embedding has {} rows", config.vocab_size)
        } else {
            continue;
        };
        return Err(Error::Sequence { index, problem });
    }
    Ok(())
}
