//! Sequences laid end to end: no padding is computed, and a prompt that neighbours share is computed once.
//!
//! Only attention sees whole sequences, side by side. See "Efficient Sequence Packing without Cross-contamination", Krell et al.,
//! <https://arxiv.org/abs/2107.02027>.

use joust_torch::RowMap;
use tch::Tensor;

use crate::matrix::SHAPES;

/// Sequences as one row of N tokens, and where each token stands in the table `[B, T]` that attention reads.
#[derive(Debug)]
pub struct Packing {
    /// `[N]`, int64.
    ids: Tensor,
    /// B.
    sequences: i64,
    /// T, the longest sequence.
    width: i64,
    /// From `[N, C]` to `[B·T, C]`.
    spread: RowMap,
    /// From `[B·T, C]` to `[N, C]`.
    collect: RowMap,
}

impl Packing {
    /// Packs (prompt ids, completion ids); prompts of neighbours that are equal are there once. The last token of a completion is left out: no state
    /// after it is read.
    ///
    /// # Returns
    /// The packing, and for each completion token, sequence after sequence, the packed token whose state predicts it.
    pub fn new(sequences: &[(&[u32], &[u32])], device: tch::Device) -> (Self, Vec<usize>) {
        let width = sequences.iter().map(|(p, c)| (p.len() + c.len()).saturating_sub(1)).max().unwrap_or(1).max(1);
        let (mut ids, mut homes, mut places, mut predicting) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut prompt_at = 0;
        for (index, (prompt, completion)) in sequences.iter().enumerate() {
            let first = index * width;
            if index == 0 || sequences[index - 1].0 != *prompt {
                prompt_at = ids.len();
                ids.extend(prompt.iter().map(|id| i64::from(*id)));
                homes.extend(first..first + prompt.len());
            }
            places.extend((0..prompt.len()).map(|t| (first + t, prompt_at + t)));
            let own = &completion[..completion.len().saturating_sub(1)];
            let (at, slot) = (ids.len(), first + prompt.len());
            ids.extend(own.iter().map(|id| i64::from(*id)));
            homes.extend(slot..slot + own.len());
            places.extend((0..own.len()).map(|t| (slot + t, at + t)));
            predicting.extend((!completion.is_empty()).then(|| prompt_at + prompt.len() - 1));
            predicting.extend(at..at + own.len());
        }
        let (tokens, slots) = (ids.len(), sequences.len() * width);
        let homes: Vec<(usize, usize)> = homes.into_iter().enumerate().collect();
        let packing = Self {
            ids: Tensor::from_slice(&ids).to_device(device),
            sequences: sequences.len() as i64,
            width: width as i64,
            spread: RowMap::new(slots, tokens, &places, device),
            collect: RowMap::new(tokens, slots, &homes, device),
        };
        (packing, predicting)
    }

    /// Returns another handle on the same tokens.
    pub(crate) fn share(&self) -> Self {
        Self {
            ids: self.ids.shallow_clone(),
            sequences: self.sequences,
            width: self.width,
            spread: self.spread.share(),
            collect: self.collect.share(),
        }
    }

    /// Returns the ids, `[N]`, int64.
    pub fn ids(&self) -> &Tensor {
        &self.ids
    }

    /// Returns T.
    pub(crate) fn width(&self) -> i64 {
        self.width
    }

    /// Returns N.
    pub fn tokens(&self) -> usize {
        self.ids.numel()
    }

    /// Lays `[1, N, C]` out by sequence, `[B, T, C]`, with 0 behind each.
    pub(crate) fn spread(&self, x: &Tensor) -> Tensor {
        self.spread.sum(&x.squeeze_dim(0)).expect(SHAPES).view([self.sequences, self.width, -1])
    }

    /// Takes `[1, N, C]` out of `[B, T, C]`.
    pub(crate) fn collect(&self, x: &Tensor) -> Tensor {
        self.collect.sum(&x.view([self.sequences * self.width, -1])).expect(SHAPES).unsqueeze(0)
    }
}
