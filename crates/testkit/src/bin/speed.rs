//! Times sampling and a supervised step at the shape of `peers/hf_generate.py`, and the machine's matrix rate beside them.
//!
//! usage: `speed MODEL BATCH PROMPT_TOKENS NEW_TOKENS [bf16]`
//! prints: joust gen_tokens_per_s=.. mixture_cost=.. train_tokens_per_s=.. loss_percent=.. matmul_gflops=..; the cost is that of a token
//! drawn from a mixture, in (a policy token + a reference token), the percentage that of DPO's loss and gradient in the step

use std::{error::Error, path::Path, sync::Arc, time::Instant};

use joust_core::{ModelRef, rng::Stream};
use joust_engine::{Engine, SamplePrompt, SampleRequest, SamplingParams, Snapshot, Source};
use joust_losses::{PairLogps, dpo_loss};
use joust_model::{Device, Dtype, load};
use joust_train::{Master, OptimizerParams, Schedule, ScheduleKind, Settings, sft_step};
use tch::{Kind, Tensor};

/// Returns the median time in seconds of three runs after a warm-up.
fn median(mut run: impl FnMut() -> Result<(), Box<dyn Error>>) -> Result<f64, Box<dyn Error>> {
    run()?;
    let mut times = Vec::new();
    for _ in 0..3 {
        let start = Instant::now();
        run()?;
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times[1])
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, batch, prompt, new, rest @ ..] = arguments.as_slice() else {
        return Err("usage: speed MODEL BATCH PROMPT_TOKENS NEW_TOKENS [bf16]".into());
    };
    let (batch, prompt, new): (usize, usize, usize) = (batch.parse()?, prompt.parse()?, new.parse()?);
    let (config, weights) = load(Path::new(folder))?;
    let dtype = if rest.iter().any(|arg| arg == "bf16") { Dtype::Bfloat16 } else { Dtype::Float32 };
    let config = config.with_dtype(dtype);
    let device = Device::cpu();
    let engine = Engine::start(device.clone(), batch)?;
    let id = ModelRef { generation: 0, version: 0, hash: String::new() };
    let model = Arc::new(Snapshot::new(&config, &weights, id)?);
    let ids =
        |row: usize, n: usize| (0..n).map(|i| ((row * 7919 + i * 104_729) % 3990 + 10) as u32).collect::<Vec<_>>();
    let params = SamplingParams { temperature: 1.0, top_p: 1.0, top_k: 0, max_new_tokens: new, eos_ids: vec![] };
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let generate = |source: &Source| {
        median(|| {
            let prompts = (0..batch)
                .map(|row| SamplePrompt { position: row as u64, prompt_ids: ids(row, prompt), samples: 0..1 })
                .collect();
            let (params, source) = (params.clone(), source.clone());
            let request = SampleRequest { prompts, params, seed: 0, stream: Stream::Train, source };
            runtime.block_on(engine.submit(request).collect(batch))?;
            Ok(())
        })
    };
    let alone = generate(&Source::Model(model.clone()))?;
    // The reference answers as fast as the policy: its shape is the same.
    let reference = Arc::new(Snapshot::new(&config, &weights, model.id.clone())?);
    let mixed = generate(&Source::Mixture { policy: model, reference, coef: 0.125, mixed: vec![0] })?;
    let schedule = Schedule { kind: ScheduleKind::Constant, learning_rate: 1e-6, warmup_steps: 0, total_steps: 1 };
    let mut master = Master::new(
        &config,
        &weights,
        Settings { optimizer: OptimizerParams::default(), schedule, max_grad_norm: 1.0 },
    );
    let rows: Vec<Vec<u32>> = (0..batch).map(|row| ids(row, prompt + new)).collect();
    let train = median(|| {
        let pairs: Vec<(&[u32], &[u32])> = rows.iter().map(|row| row.split_at(1)).collect();
        sft_step(&mut master, &pairs, batch, &device)?;
        Ok(())
    })?;
    let sums = Tensor::full([batch as i64], -50.0, (Kind::Float, tch::Device::Cpu));
    let policy = sums.copy().set_requires_grad(true);
    let losses = 100;
    let loss = median(|| {
        for _ in 0..losses {
            let inputs = PairLogps::new(&policy, &policy).with_reference(&sums, &sums);
            dpo_loss(&inputs, 0.1, 0.0)?.per_pair.mean(Kind::Float).backward();
        }
        Ok(())
    })? / f64::from(losses);
    let n = 2048;
    let a = Tensor::randn([n, n], (Kind::Float, tch::Device::Cpu)).to_kind(dtype.kind());
    let matmul = median(|| {
        // Only its time is wanted.
        let _ = a.matmul(&a);
        Ok(())
    })?;
    println!(
        "joust gen_tokens_per_s={:.1} mixture_cost={:.2} train_tokens_per_s={:.1} loss_percent={:.4} matmul_gflops={:.1}",
        (batch * new) as f64 / alone,
        mixed / (2.0 * alone),
        (batch * (prompt + new)) as f64 / train,
        100.0 * loss / train,
        2.0 * (n * n * n) as f64 / matmul / 1e9
    );
    Ok(())
}
