//! The joust command and the workers of a cluster: parse, set up logs and threads, dispatch, and turn errors into messages and exit codes.

mod args;
mod ckpt;
pub mod cluster;
mod config_cmd;
mod device;
mod doctor;
mod eval;
mod evaluation;
mod export;
mod few_shot;
mod games;
mod learned;
mod model;
mod optim;
mod padding;
mod people;
mod presets;
mod rank;
pub mod remote;
mod reward;
mod run;
mod sample;
mod scorer;
mod sft;
mod stats;
pub mod up;

use std::process::ExitCode;

use clap::Parser;
use joust_telemetry::Telemetry;

use crate::args::{Args, Command};

/// Exit code for bad input: a file, a key or a value that the user can mend.
const BAD_INPUT: u8 = 2;

/// Exit code when nobody reads what is printed, as of a program that SIGPIPE ends.
const UNREAD: i32 = 141;

/// Exit code after a signal that asks for the end.
const INTERRUPTED: i32 = 130;

/// Ends quietly when a reader such as `head` has had enough, instead of with a panic.
fn end_unread() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let told = panic.payload_as_str().unwrap_or_default();
        if told.starts_with("failed printing to stdout") && told.contains("Broken pipe") {
            std::process::exit(UNREAD);
        }
        before(panic);
    }));
}

/// Runs the command that this process was started with.
pub fn main() -> ExitCode {
    end_unread();
    let args = Args::parse();
    let result = joust_telemetry::init(telemetry(&args)).map_err(anyhow::Error::from).and_then(|_guard| dispatch(args));
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {}", explained(&error));
            ExitCode::from(BAD_INPUT)
        }
    }
}

/// Says what this command tells about itself: it reads no deployment file, so the endpoint comes from OpenTelemetry's own variable.
fn telemetry(args: &Args) -> Telemetry {
    let endpoint = std::env::var("OTEL_EXPORTER_OTLP_ENDPOINT").ok().filter(|endpoint| !endpoint.is_empty());
    Telemetry {
        log_format: args.log_format.into(),
        service: "joust".into(),
        otlp_endpoint: endpoint,
        ..Telemetry::default()
    }
}

/// Joins an error with its causes, without those that it already quotes.
fn explained(error: &anyhow::Error) -> String {
    let add = |text: String, cause: String| if text.contains(&cause) { text } else { format!("{text}: {cause}") };
    error.chain().map(ToString::to_string).reduce(add).unwrap_or_default()
}

/// Waits for a signal and ends the process without its scratch folders.
async fn end_clean() {
    run::wait_for_signal().await;
    joust_core::scratch::remove_all();
    // Without libtorch's own end, which its threads at work would not survive.
    signal_hook::low_level::exit(INTERRUPTED);
}

fn dispatch(args: Args) -> anyhow::Result<ExitCode> {
    device::choose(args.device)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    match args.command {
        Command::Run(args) => match (args.cluster, args.here.file.clone()) {
            (Some(command), _) => runtime.block_on(remote::run(command)),
            (None, Some(file)) => runtime.block_on(run::run(&file, args.here)),
            (None, None) => anyhow::bail!(
                "joust run wants a run file, or what to do with the runs of a cluster; see joust run --help"
            ),
        },
        Command::Up(args) => runtime.block_on(up::up(args)),
        Command::Down(args) => runtime.block_on(up::down(args)),
        Command::Status(args) => runtime.block_on(remote::status(args)),
        Command::Pairs { command } => runtime.block_on(remote::pairs(command)),
        Command::Queue { command } => runtime.block_on(remote::queue(command)),
        Command::Ckpt(args) => ckpt::run(&args.command),
        Command::Rank(args) => rank::run(&args),
        Command::Sft(args) => {
            runtime.spawn(end_clean());
            sft::run(&args)
        }
        Command::TrainReward(args) => {
            runtime.spawn(end_clean());
            reward::run(&args)
        }
        Command::FewShot(args) => few_shot::run(&args),
        Command::Sample(args) => runtime.block_on(sample::run(args)),
        Command::Eval(args) => runtime.block_on(eval::run(args)),
        Command::Presets(args) => presets::run(&args),
        Command::Games(args) => games::run(&args),
        Command::Config(args) => config_cmd::run(&args),
        Command::Doctor(args) => runtime.block_on(doctor::run(&args)),
    }
}
