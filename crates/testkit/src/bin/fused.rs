//! Measures the memory that log-probs of a large vocabulary take forward and backward, beyond inputs, weights and their gradients.
//!
//! usage: `fused ROWS HIDDEN VOCABULARY fused|plain`, weights in bfloat16
//! prints: joust extra_mib=.. seconds=..

use std::{error::Error, fs, time::Instant};

use joust_torch::{Limits, logprobs};
use tch::{Device, Kind, Tensor};

/// Reads a line of the process's status, in KiB.
fn status(key: &str) -> Result<f64, Box<dyn Error>> {
    let text = fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix(key)).ok_or("no such line")?;
    Ok(line.trim_matches([':', '\t', ' ']).trim_end_matches(" kB").trim().parse()?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [rows, hidden, vocabulary, how] = arguments.as_slice() else {
        return Err("usage: fused ROWS HIDDEN VOCABULARY fused|plain".into());
    };
    let (rows, hidden, vocabulary): (i64, i64, i64) = (rows.parse()?, hidden.parse()?, vocabulary.parse()?);
    let draw = |shape: [i64; 2]| Tensor::randn(shape, (Kind::BFloat16, Device::Cpu)).set_requires_grad(true);
    let (x, weight) = (draw([rows, hidden]), draw([vocabulary, hidden]));
    let targets = Tensor::arange(rows, (Kind::Int64, Device::Cpu)).remainder(vocabulary);
    let before = status("VmRSS")?;
    let began = Instant::now();
    let found = match how.as_str() {
        "fused" => logprobs(&x, &weight, &targets, Limits::default())?,
        _ => {
            let all = x.linear(&weight, None::<Tensor>).to_kind(Kind::Float).log_softmax(1, Kind::Float);
            all.gather(1, &targets.unsqueeze(1), false).squeeze_dim(1)
        }
    };
    found.sum(Kind::Float).backward();
    let gradients = ((rows + vocabulary) * hidden * 2) as f64 / 1024.0;
    let extra = status("VmHWM")? - before - gradients;
    println!("joust extra_mib={:.1} seconds={:.2}", extra / 1024.0, began.elapsed().as_secs_f64());
    Ok(())
}
