//! Samples one batch: prompts are read once, their answers decoded together, finished rows dropped from the caches.

use joust_core::{Finish, rng};
use joust_model::Device;
use tch::Tensor;

use crate::{
    Error, Result, SamplePrompt, SampleRequest, Sampled,
    sampler::draw,
    source::{Models, Prompts, Readers},
};

/// Rows are gathered anew when this share or less of them still runs: copying the cache costs about one decode step.
const COMPACT_AT: f64 = 0.75;

/// One answer being written.
struct Row {
    prompt: usize,
    position: u64,
    sample_index: u32,
    token_ids: Vec<u32>,
    logprobs: Vec<f32>,
    limit: usize,
    done: bool,
}

/// Checks what the model cannot take, before any work is done.
pub(crate) fn check(request: &SampleRequest) -> Result<()> {
    let config = request.source.config();
    for SamplePrompt { position, prompt_ids, .. } in &request.prompts {
        let (position, tokens) = (*position, prompt_ids.len());
        if tokens == 0 {
            return Err(Error::EmptyPrompt { position });
        }
        if tokens as i64 >= config.max_position_embeddings {
            return Err(Error::PromptTooLong { position, tokens, context: config.max_position_embeddings });
        }
        if let Some(id) = prompt_ids.iter().find(|id| i64::from(**id) >= config.vocab_size) {
            return Err(Error::TokenId { position, id: *id, vocab_size: config.vocab_size });
        }
    }
    Ok(())
}

/// Samples all answers of the request's prompts in `range`, giving each to `emit` as it ends.
pub(crate) fn run(
    request: &SampleRequest,
    range: std::ops::Range<usize>,
    device: &Device,
    emit: &mut dyn FnMut(Sampled) -> bool,
) -> Result<()> {
    let prompts = &request.prompts[range.clone()];
    let context = request.source.config().max_position_embeddings as usize;
    let models = request.source.lock();
    let mut rows = Vec::new();
    for (offset, prompt) in prompts.iter().enumerate() {
        let limit = request.params.max_new_tokens.min(context - prompt.prompt_ids.len());
        rows.extend(prompt.samples.clone().map(|sample_index| Row {
            prompt: range.start + offset,
            position: prompt.position,
            sample_index,
            token_ids: Vec::new(),
            logprobs: Vec::new(),
            limit,
            done: false,
        }));
    }
    let (mut readers, mut logits) = {
        let _permit = device.acquire();
        read_prompts(&models, request, prompts)
    };
    loop {
        let _permit = device.acquire();
        let ids = draw_tokens(request, &mut rows, &logits)?;
        let mut wanted = true;
        for row in rows.iter_mut().filter(|row| !row.done) {
            wanted &= finish(request, row, emit);
        }
        if !wanted || rows.iter().all(|row| row.done) {
            return Ok(());
        }
        let ids = compact(&mut rows, &mut readers, ids);
        logits = readers.decode(&ids);
    }
}

/// Reads each prompt once and spreads caches and logits over its answers.
fn read_prompts<'a>(
    models: &'a Models<'_>,
    request: &SampleRequest,
    prompts: &[SamplePrompt],
) -> (Readers<'a>, Tensor) {
    let model = &models.first;
    let device = model.device();
    let longest = prompts.iter().map(|p| p.prompt_ids.len()).max().unwrap_or(1);
    let padding: Vec<i64> = prompts.iter().map(|p| (longest - p.prompt_ids.len()) as i64).collect();
    let mut ids = vec![0i64; prompts.len() * longest];
    for (row, prompt) in ids.chunks_mut(longest).zip(prompts) {
        let start = longest - prompt.prompt_ids.len();
        row[start..].iter_mut().zip(&prompt.prompt_ids).for_each(|(slot, id)| *slot = i64::from(*id));
    }
    let room = (model.config().max_position_embeddings as usize).min(request.params.max_new_tokens);
    let answers = |(prompt, p): (i64, &SamplePrompt)| {
        p.samples.clone().map(move |sample| (prompt, request.source.mixes(sample))).collect::<Vec<_>>()
    };
    let prompts = Prompts {
        ids: &Tensor::from_slice(&ids).view([prompts.len() as i64, longest as i64]).to_device(device),
        padding: &Tensor::from_slice(&padding).to_device(device),
        capacity: (longest + room) as i64,
        answers: &(0i64..).zip(prompts).flat_map(answers).collect::<Vec<_>>(),
    };
    Readers::prefill(models, &prompts)
}

/// Draws the next token of every row; rows that are done draw too and are ignored.
fn draw_tokens(request: &SampleRequest, rows: &mut [Row], logits: &Tensor) -> Result<Tensor> {
    let uniforms: Vec<f64> = rows
        .iter()
        .map(|row| {
            rng::uniform(request.seed, request.stream, row.position, (row.sample_index, row.token_ids.len() as u32))
        })
        .collect();
    let (ids, logprobs) = draw(logits, &uniforms, &request.params);
    let tokens = Vec::<i64>::try_from(&ids).map_err(|error| Error::Failed(error.to_string()))?;
    let values = Vec::<f32>::try_from(&logprobs).map_err(|error| Error::Failed(error.to_string()))?;
    for ((row, token), logprob) in rows.iter_mut().zip(tokens).zip(values) {
        if row.done {
            continue;
        }
        if !logprob.is_finite() {
            return Err(Error::NotFinite { position: row.position });
        }
        row.token_ids.push(token as u32);
        row.logprobs.push(logprob);
    }
    Ok(ids)
}

/// Emits the row if its last token ended it; false when nobody listens any more.
fn finish(request: &SampleRequest, row: &mut Row, emit: &mut dyn FnMut(Sampled) -> bool) -> bool {
    let ended = row.token_ids.last().is_some_and(|id| request.params.eos_ids.contains(id));
    if !ended && row.token_ids.len() < row.limit {
        return true;
    }
    row.done = true;
    emit(Sampled {
        prompt: row.prompt,
        sample_index: row.sample_index,
        token_ids: std::mem::take(&mut row.token_ids),
        logprobs: std::mem::take(&mut row.logprobs),
        finish: if ended { Finish::Eos } else { Finish::Length },
        model: request.source.id().clone(),
    })
}

/// Drops finished rows when enough of them have ended, and returns the ids that the remaining rows read next.
fn compact(rows: &mut Vec<Row>, readers: &mut Readers<'_>, ids: Tensor) -> Tensor {
    let running = rows.iter().filter(|row| !row.done).count();
    if running as f64 > COMPACT_AT * rows.len() as f64 {
        return ids;
    }
    let kept: Vec<i64> = (0i64..).zip(rows.iter()).filter(|(_, row)| !row.done).map(|(i, _)| i).collect();
    readers.select(&kept);
    rows.retain(|row| !row.done);
    ids.index_select(0, &Tensor::from_slice(&kept).to_device(ids.device()))
}
