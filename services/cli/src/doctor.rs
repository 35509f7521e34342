//! `joust doctor`: checks this machine, and a run file's inputs and a Redis where they are given.

use std::{path::Path, process::ExitCode, time::Duration};

use joust_config::{RunFile, load};
use joust_model::Dtype;
use joust_queue::{RedisConfig, Settings, open_redis};

use crate::{args::DoctorArgs, device, optim, run};

/// Runs the verb; exit code 2 if a check failed.
///
/// # Errors
/// None of its own: what is wrong is printed.
pub async fn run(args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let mut failures = 0;
    let mut check = |name: &str, result: anyhow::Result<String>| match result {
        Ok(found) => println!("ok    {name}: {found}"),
        Err(error) => {
            failures += 1;
            println!("FAIL  {name}: {error:#}");
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    check("cores", Ok(cores.to_string()));
    check("memory", memory());
    check("CUDA", Ok(device::report()));
    for dtype in [Dtype::Float32, Dtype::Bfloat16] {
        check(&format!("{} matrix rate", dtype.name()), Ok(format!("{:.0} GFLOP/s", matrix_rate(dtype))));
    }
    if let Some(config) = args.queue.redis() {
        check("redis", redis(&config).await);
    }
    if let Some(file) = &args.file {
        match load::<RunFile>(file, &[]) {
            Err(error) => check("run file", Err(error.into())),
            Ok(resolved) => {
                check("run file", Ok(format!("{}, settings {}", resolved.run.name, &resolved.hash[..16])));
                check("inputs", run::check_inputs(&resolved));
                check("output folder", output(&resolved.run.output.dir));
            }
        }
    }
    Ok(if failures == 0 { ExitCode::SUCCESS } else { ExitCode::from(crate::BAD_INPUT) })
}

/// Asks a server whether it keeps what it is given.
async fn redis(config: &RedisConfig) -> anyhow::Result<String> {
    let config = RedisConfig { patience: Duration::from_secs(3), ..config.clone() };
    open_redis(&config, Settings::default(), None).await?;
    let note = if config.allow_unsafe { "answers, and may lose what it is given" } else { "keeps what it is given" };
    Ok(format!("{} {note}", config.server()))
}

fn memory() -> anyhow::Result<String> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let available = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")).unwrap_or("unknown").trim();
    Ok(format!("{available} available"))
}

/// Measures 2048 x 2048 x 2048 on all cores, in GFLOP/s.
fn matrix_rate(dtype: Dtype) -> f64 {
    optim::set_threads(0);
    let n = 2048;
    let a = tch::Tensor::randn([n, n], (tch::Kind::Float, tch::Device::Cpu)).to_kind(dtype.kind());
    let _warm = a.matmul(&a);
    let began = std::time::Instant::now();
    let _product = a.matmul(&a);
    2.0 * (n * n * n) as f64 / began.elapsed().as_secs_f64() / 1e9
}

/// Writes and removes a file where the run would write.
fn output(dir: &Path) -> anyhow::Result<String> {
    let existing = dir.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("."));
    let probe = existing.join(".joust-doctor");
    std::fs::write(&probe, b"probe")?;
    std::fs::remove_file(&probe)?;
    let note = if dir.join("run.json").exists() { " (holds a run: --resume goes on with it)" } else { "" };
    Ok(format!("{} can be written{note}", dir.display()))
}
