//! Times what an adapter costs: publishing it, and what it adds to a token and to a training step.
//!
//! usage: `lora MODEL BATCH PROMPT_TOKENS NEW_TOKENS RANK` in bfloat16, an adapter of every projection
//! prints: joust publish_ms=.. whole_ms=.. gen_share=.. train_ratio=..; `whole_ms` publishes all weights, the others are an adapter's
//! sampled tokens per second over those of the base, and trained tokens per second over those of training all weights

use std::{error::Error, path::Path, sync::Arc, time::Instant};

use joust_core::{ModelRef, rng::Stream};
use joust_engine::{Engine, SamplePrompt, SampleRequest, SamplingParams, Snapshot, Source};
use joust_model::{Adapter, Device, Dtype, Llama, LoraConfig, load};
use joust_train::{Master, OptimizerParams, Schedule, ScheduleKind, Settings, sft_step};

/// Returns the median time in seconds of five runs after a warm-up.
fn median(mut run: impl FnMut() -> Result<(), Box<dyn Error>>) -> Result<f64, Box<dyn Error>> {
    run()?;
    let mut times = Vec::new();
    for _ in 0..5 {
        let start = Instant::now();
        run()?;
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times[2])
}

fn ids(row: usize, count: usize) -> Vec<u32> {
    (0..count).map(|i| ((row * 7919 + i * 104_729) % 3990 + 10) as u32).collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, batch, prompt, new, rank] = arguments.as_slice() else {
        return Err("usage: lora MODEL BATCH PROMPT_TOKENS NEW_TOKENS RANK".into());
    };
    let (batch, prompt, new): (usize, usize, usize) = (batch.parse()?, prompt.parse()?, new.parse()?);
    let (config, weights) = load(Path::new(folder))?;
    let (config, kind) = (config.with_dtype(Dtype::Bfloat16), tch::Kind::BFloat16);
    let lora = LoraConfig {
        rank: rank.parse()?,
        alpha: 16.0,
        dropout: 0.0,
        targets: vec!["all-linear".into()],
        rank_stabilized: false,
        exceptions: Default::default(),
    };
    let adapter = Adapter::fresh(&lora, &config, 0)?;
    let id = ModelRef { generation: 0, version: 0, hash: String::new() };
    let base = Arc::new(Snapshot::new(&config, &weights, id.clone())?);

    let schedule = Schedule { kind: ScheduleKind::Constant, learning_rate: 1e-6, warmup_steps: 0, total_steps: 1 };
    let settings = Settings { optimizer: OptimizerParams::default(), schedule, max_grad_norm: 1.0 };
    let frozen = Llama::new(&config, &weights.snapshot(kind))?;
    let mut adapters = Master::new(&config, &adapter.weights, settings).on_base(&frozen, lora.clone(), 0);
    let mut all = Master::new(&config, &weights, settings);
    // From masters to a snapshot that samplers can use, as the learner publishes.
    let publish = median(|| {
        let copy = Adapter { config: lora.clone(), weights: adapters.weights.snapshot(kind) };
        base.with_adapter(&copy, id.clone())?;
        Ok(())
    })?;
    let whole = median(|| {
        Snapshot::owned(&config, &all.weights.snapshot(kind), id.clone())?;
        Ok(())
    })?;

    let device = Device::cpu();
    let engine = Engine::start(device.clone(), batch)?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let generate = |model: &Arc<Snapshot>| {
        median(|| {
            let prompts = (0..batch)
                .map(|row| SamplePrompt { position: row as u64, prompt_ids: ids(row, prompt), samples: 0..1 })
                .collect();
            let params =
                SamplingParams { temperature: 1.0, top_p: 1.0, top_k: 0, max_new_tokens: new, eos_ids: vec![] };
            let source = Source::Model(model.clone());
            let request = SampleRequest { prompts, params, seed: 0, stream: Stream::Train, source };
            runtime.block_on(engine.submit(request).collect(batch))?;
            Ok(())
        })
    };
    let bare = generate(&base)?;
    let adapted = generate(&Arc::new(base.with_adapter(&adapter, id.clone())?))?;
    let rows: Vec<Vec<u32>> = (0..batch).map(|row| ids(row, prompt + new)).collect();
    let train = |master: &mut Master| {
        median(|| {
            let pairs: Vec<(&[u32], &[u32])> = rows.iter().map(|row| row.split_at(1)).collect();
            sft_step(master, &pairs, batch, &device)?;
            Ok(())
        })
    };
    let (few, every) = (train(&mut adapters)?, train(&mut all)?);
    println!(
        "joust publish_ms={:.1} whole_ms={:.1} gen_share={:.3} train_ratio={:.2}",
        publish * 1e3,
        whole * 1e3,
        bare / adapted,
        every / few
    );
    Ok(())
}
