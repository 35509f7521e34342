//! Sequences packed for training: the states that predict completion tokens, and sums by sequence.

use joust_torch::{Limits, RowMap, Spread, logprobs_with_spread};
use tch::{Kind, Tensor};

use crate::{Llama, Packing, matrix::SHAPES, sequence_logprobs};

/// Prompts with completions.
#[derive(Debug)]
pub struct SequenceBatch {
    packing: Packing,
    /// From packed tokens to the N that predict a completion token.
    predicting: RowMap,
    /// The predicted ids, `[N]`, int64.
    targets: Tensor,
    /// Sequence of each predicted token, `[N]`, int64.
    owners: Tensor,
    /// Completion tokens of each sequence.
    lengths: Vec<usize>,
}

impl SequenceBatch {
    /// Packs (prompt ids, completion ids) pairs; every prompt and completion holds at least one id. A prompt that neighbours share is computed once.
    pub fn new(sequences: &[(&[u32], &[u32])], device: tch::Device) -> Self {
        let (packing, predicting) = Packing::new(sequences, device);
        let predicting: Vec<(usize, usize)> = predicting.into_iter().enumerate().collect();
        let targets: Vec<i64> = sequences.iter().flat_map(|(_, c)| c.iter().map(|id| i64::from(*id))).collect();
        let owner = |(index, (_, completion)): (i64, &(&[u32], &[u32]))| std::iter::repeat_n(index, completion.len());
        let owners: Vec<i64> = (0i64..).zip(sequences).flat_map(owner).collect();
        let tensor = |values: &[i64]| Tensor::from_slice(values).to_device(device);
        Self {
            predicting: RowMap::new(predicting.len(), packing.tokens(), &predicting, device),
            packing,
            targets: tensor(&targets),
            owners: tensor(&owners),
            lengths: sequences.iter().map(|(_, completion)| completion.len()).collect(),
        }
    }

    /// Returns the tokens that the model computes.
    pub fn computed(&self) -> usize {
        self.packing.tokens()
    }

    /// Returns the predicted ids, `[N]`, int64.
    pub fn targets(&self) -> &Tensor {
        &self.targets
    }

    /// Returns B.
    pub fn len(&self) -> usize {
        self.lengths.len()
    }

    /// Returns whether there is no sequence.
    pub fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// Returns the completion tokens of each sequence.
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// Computes the last hidden states that predict each completion token, `[N, H]`, sequences one after the other.
    pub fn hidden_rows(&self, model: &Llama) -> Tensor {
        self.pick(&model.hidden_packed(&self.packing, &mut |_| {}))
    }

    /// Takes what predicts completion tokens, `[N, C]`, out of packed tokens.
    fn pick(&self, states: &Tensor) -> Tensor {
        self.predicting.sum(states).expect(SHAPES)
    }

    /// As [`Self::hidden_rows`], with the residual stream after every layer, `[N, L, H]`.
    pub fn layer_rows(&self, model: &Llama) -> (Tensor, Tensor) {
        let mut layers = Vec::new();
        let last =
            model.hidden_packed(&self.packing, &mut |stream| layers.push(self.pick(&stream.sum().squeeze_dim(0))));
        (self.pick(&last), Tensor::stack(&layers, 1))
    }

    /// Computes log π(token) in nats of every completion token from [`Self::hidden_rows`], float32 `[N]`.
    pub fn logprobs_of(&self, model: &Llama, rows: &Tensor) -> Tensor {
        sequence_logprobs(model, rows, &self.targets)
    }

    /// As [`Self::logprobs_of`], from the model on.
    pub fn token_logprobs(&self, model: &Llama) -> Tensor {
        self.logprobs_of(model, &self.hidden_rows(model))
    }

    /// As [`Self::logprobs_of`], with what is told of each whole distribution and its `k` most probable tokens.
    pub fn logprobs_with_spread(&self, model: &Llama, rows: &Tensor, k: i64) -> (Tensor, Spread) {
        logprobs_with_spread(
            [rows, model.head_weight(), &self.targets],
            k.min(model.head_weight().size()[0]),
            Limits::default(),
        )
        .expect(SHAPES)
    }

    /// Sums the last hidden states that predict each completion token by sequence, float32 `[B, H]`.
    pub fn hidden_sums(&self, model: &Llama) -> Tensor {
        let rows = self.hidden_rows(model).to_kind(Kind::Float);
        Tensor::zeros([self.len() as i64, rows.size()[1]], (Kind::Float, rows.device())).index_add(
            0,
            &self.owners,
            &rows,
        )
    }

    /// Averages token values `[N]` by sequence, `[B]`.
    pub fn means(&self, values: &Tensor) -> Tensor {
        let lengths: Vec<f32> = self.lengths.iter().map(|tokens| *tokens as f32).collect();
        self.sums(values) / Tensor::from_slice(&lengths).to_device(values.device())
    }

    /// Computes a critic's value of the state before each completion token, float32 `[N]`.
    pub fn token_values(&self, critic: &Llama) -> Tensor {
        critic.head(&self.hidden_rows(critic)).squeeze_dim(1).to_kind(Kind::Float)
    }

    /// Lays token values `[N]` out by sequence, `[B, W]` with 0 behind each; W is the longest completion. Differentiable.
    pub fn padded(&self, values: &Tensor) -> Tensor {
        let width = self.width();
        let flat = Tensor::zeros([self.len() as i64 * width], (values.kind(), values.device()));
        flat.index_copy(0, &self.slots(values.device()), values).view([-1, width])
    }

    /// Returns 1 for completion tokens and 0 for what [`Self::padded`] adds, float32 `[B, W]`.
    pub fn mask(&self) -> Tensor {
        self.padded(&self.targets.ones_like().to_kind(Kind::Float))
    }

    fn width(&self) -> i64 {
        self.lengths.iter().copied().max().unwrap_or(1) as i64
    }

    /// Returns where each token lies in the flat table of [`Self::padded`], `[N]`.
    fn slots(&self, device: tch::Device) -> Tensor {
        let width = self.width();
        let row = |(row, tokens): (i64, &usize)| (0..*tokens as i64).map(move |t| row * width + t);
        Tensor::from_slice(&(0i64..).zip(&self.lengths).flat_map(row).collect::<Vec<_>>()).to_device(device)
    }

    /// Sums token values `[N]` by sequence, `[B]`.
    pub fn sums(&self, values: &Tensor) -> Tensor {
        Tensor::zeros([self.len() as i64], (values.kind(), values.device())).index_add(0, &self.owners, values)
    }

    /// Computes log π(completion | prompt) in nats, float32 `[B]`.
    pub fn logps(&self, model: &Llama) -> Tensor {
        self.sums(&self.token_logprobs(model))
    }
}

/// Computes the scalar score of each sequence, float32 `[B]`; of a model with several labels the first.
pub fn sequence_scores(model: &Llama, sequences: &[Vec<u32>]) -> Tensor {
    sequence_ratings(model, sequences).select(1, 0)
}

/// Computes what a score head gives for each sequence, float32 `[B, labels]`.
pub fn sequence_ratings(model: &Llama, sequences: &[Vec<u32>]) -> Tensor {
    model.head(&sequence_states(model, sequences)).to_kind(Kind::Float)
}

/// Computes the last hidden state of each sequence where a score head reads it, `[B, H]` in the weights' kind.
///
/// That is the last token that is not the padding token of `config.json`, in the sequence itself too, and the last of all
/// where there is no padding token: as `transformers` reads it, whose batches cannot tell a text's token from what fills
/// a row. A sequence of padding alone is read at its first token.
pub fn sequence_states(model: &Llama, sequences: &[Vec<u32>]) -> Tensor {
    let device = model.device();
    let width = sequences.iter().map(Vec::len).max().unwrap_or(1);
    let mut ids = vec![0i64; sequences.len() * width];
    let mut read = Vec::with_capacity(sequences.len());
    for (index, sequence) in sequences.iter().enumerate() {
        ids[index * width..].iter_mut().zip(sequence).for_each(|(slot, id)| *slot = i64::from(*id));
        read.push((index * width + read_at(sequence, model.config().pad_token_id)) as i64);
    }
    let ids = Tensor::from_slice(&ids).to_device(device).view([sequences.len() as i64, width as i64]);
    let hidden = model.hidden(&ids);
    let size = hidden.size()[2];
    hidden.view([-1, size]).index_select(0, &Tensor::from_slice(&read).to_device(device))
}

/// Finds the last token that is not padding.
fn read_at(sequence: &[u32], pad_token_id: Option<i64>) -> usize {
    let is_text = |id: &u32| pad_token_id != Some(i64::from(*id));
    sequence.iter().rposition(is_text).unwrap_or_default()
}
