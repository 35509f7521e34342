//! The command line.

mod cluster;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

pub use cluster::*;

use crate::device::Choice;

/// Aligns language models online: the policy answers, a judge compares, a learner updates.
#[derive(Debug, Parser)]
#[command(name = "joust", version)]
pub struct Args {
    /// How log lines are written to standard error (JOUST_LOG sets the level, default warn).
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Plain)]
    pub log_format: LogFormat,
    /// Where models are computed with: auto (a GPU where there is one), cpu, cuda or cuda:N; each of several learner ranks takes a GPU of its own.
    #[arg(long, global = true, default_value = "auto")]
    pub device: Choice,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Form of log lines.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Plain,
    /// One JSON object a line.
    Json,
}

impl From<LogFormat> for joust_telemetry::LogFormat {
    fn from(format: LogFormat) -> Self {
        match format {
            LogFormat::Plain => Self::Plain,
            LogFormat::Json => Self::Json,
        }
    }
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train a policy online as a run file says, all roles in this process; or submit, list, watch and steer the runs of a cluster.
    #[command(args_conflicts_with_subcommands = true)]
    Run(RunVerb),
    /// Start a cluster on this machine, Redis included.
    Up(UpArgs),
    /// End the cluster that `joust up` started.
    Down(DownArgs),
    /// Show the members and runs of a cluster.
    Status(StatusArgs),
    /// List, show or export the examples that the queue of a cluster's run holds.
    Pairs {
        /// What to do.
        #[command(subcommand)]
        command: PairsCommand,
    },
    /// Show the accounts of a run's queue, and what was tried too often.
    Queue {
        /// What to do.
        #[command(subcommand)]
        command: QueueCommand,
    },
    /// Make or adapt a base model by supervised fine-tuning.
    Sft(TrainArgs),
    /// Train a reward model on prompt/chosen/rejected (Bradley-Terry).
    TrainReward(TrainArgs),
    /// Turn the labelled pairs of many users into prompts that show what their user prefers (FSPO).
    FewShot(FewShotArgs),
    /// Answer prompts with a model.
    Sample(SampleArgs),
    /// Compare two models on prompts under a judge.
    Eval(EvalArgs),
    /// List the presets with their five choices, or show one as part of a run file.
    Presets(PresetsArgs),
    /// Play the losses on games whose equilibria are known, and show where they end.
    Games(GamesArgs),
    /// Check, explain or describe run files.
    Config(ConfigArgs),
    /// List, check or export the checkpoints of a run.
    Ckpt(CkptArgs),
    /// One rank of a run's learner; `joust run` starts it.
    #[command(hide = true)]
    Rank(RankArgs),
    /// Check this machine: libtorch, threads, disk, memory.
    Doctor(DoctorArgs),
}

/// Arguments of `joust presets`.
#[derive(Debug, clap::Args)]
pub struct PresetsArgs {
    /// The preset to show.
    pub name: Option<String>,
}

/// Arguments of `joust games`.
#[derive(Debug, clap::Args)]
pub struct GamesArgs {
    /// Draw the paths of the three-answer games into this SVG file.
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
}

/// Arguments of `joust ckpt`.
#[derive(Debug, clap::Args)]
pub struct CkptArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: CkptCommand,
}

/// What `joust ckpt` does.
#[derive(Debug, Subcommand)]
pub enum CkptCommand {
    /// List them, the newest first.
    Ls(CkptFolder),
    /// Read every byte and compare the hashes; a damaged one is an error.
    Verify(CkptFolder),
    /// Write the policy of one as a Hugging Face folder, or its adapter as a PEFT folder.
    Export {
        /// The run.
        #[command(flatten)]
        folder: CkptFolder,
        /// Steps done when it was written; the newest, if not given.
        #[arg(long)]
        step: Option<u64>,
        /// The folder to write.
        #[arg(long)]
        out: PathBuf,
        /// Merge the adapter of a LoRA run into its base.
        #[arg(long)]
        merge: bool,
    },
}

/// The run whose checkpoints are meant.
#[derive(Debug, clap::Args)]
pub struct CkptFolder {
    /// The run's output folder.
    pub run: PathBuf,
}

/// Arguments of `joust rank`.
#[derive(Debug, clap::Args)]
pub struct RankArgs {
    /// The run file.
    pub file: PathBuf,
    /// Override a key; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// Which rank this is, from 0.
    #[arg(long)]
    pub rank: usize,
    /// How many ranks there are.
    #[arg(long)]
    pub ranks: usize,
    /// Where they meet.
    #[arg(long)]
    pub store: std::net::SocketAddr,
    /// Steps of the run.
    #[arg(long)]
    pub steps: u64,
}

/// `joust run`: a run in this process, or what is done to the runs of a cluster.
#[derive(Debug, clap::Args)]
pub struct RunVerb {
    /// Of a cluster.
    #[command(subcommand)]
    pub cluster: Option<ClusterRunCommand>,
    /// In this process.
    #[command(flatten)]
    pub here: RunArgs,
}

/// Arguments of `joust run` in this process.
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// The run file.
    pub file: Option<PathBuf>,
    /// Override a key, for example `--set loss.beta=0.2`; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// Go on with the run in the output folder.
    #[arg(long)]
    pub resume: bool,
    /// Print the resolved run and its memory estimate, and stop.
    #[arg(long)]
    pub dry_run: bool,
    /// Where records wait.
    #[command(flatten)]
    pub queue: QueueArgs,
}

/// The queue of a run: a file in its output folder, or a Redis.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct QueueArgs {
    /// Keep the queue on a Redis: `redis://[user@]host:port[/database]`, or `rediss://` for TLS; without it in the output folder.
    #[arg(long, value_name = "URL", env = "JOUST_REDIS", hide_env_values = true)]
    pub redis: Option<String>,
    /// File with the password of the Redis.
    #[arg(long, value_name = "FILE", requires = "redis")]
    pub redis_password_file: Option<PathBuf>,
    /// PEM file of the authority that signed the certificate of the Redis.
    #[arg(long, value_name = "FILE", requires = "redis")]
    pub redis_ca: Option<PathBuf>,
    /// Use a Redis also where it evicts or does not persist.
    #[arg(long, requires = "redis")]
    pub redis_allow_unsafe: bool,
}

/// Arguments of `joust sft` and `joust train-reward`.
#[derive(Debug, clap::Args)]
pub struct TrainArgs {
    /// The file that describes the training.
    pub file: PathBuf,
    /// Override a key; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
}

/// Arguments of `joust few-shot`.
#[derive(Debug, clap::Args)]
pub struct FewShotArgs {
    /// JSONL or Parquet with `user`, `prompt`, `chosen` and `rejected`.
    pub pairs: PathBuf,
    /// The file to write: JSONL that `joust sft`, `joust train-reward` and `joust run` read.
    #[arg(long)]
    pub out: PathBuf,
    /// Pairs of the same user that come before each prompt.
    #[arg(long, short = 'n', default_value_t = 4)]
    pub shots: u32,
    /// Seed of which pairs are shown.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

/// Arguments of `joust sample`.
#[derive(Debug, clap::Args)]
pub struct SampleArgs {
    /// The model folder.
    pub model: PathBuf,
    /// Text to continue; may be repeated.
    #[arg(long, required_unless_present_any = ["prompt_ids", "prompts"])]
    pub prompt: Vec<String>,
    /// Ids to continue, for example `1,2,3`.
    #[arg(long, value_delimiter = ',', conflicts_with_all = ["prompt", "prompts"])]
    pub prompt_ids: Vec<u32>,
    /// A prompt file (JSONL or Parquet).
    #[arg(long, conflicts_with = "prompt")]
    pub prompts: Option<PathBuf>,
    /// At most this many prompts of the file.
    #[arg(long, default_value_t = usize::MAX, hide_default_value = true)]
    pub limit: usize,
    /// Answers per prompt.
    #[arg(long, short = 'n', default_value_t = 1)]
    pub samples: u32,
    /// Keep the best of each prompt's answers under the training judge of this run file (best of n).
    #[arg(long, value_name = "RUN", conflicts_with = "prompt_ids")]
    pub best: Option<PathBuf>,
    /// Softmax temperature; 0 takes the most probable token.
    #[arg(long, default_value_t = 1.0)]
    pub temperature: f64,
    /// Mass of most probable tokens that is kept.
    #[arg(long, default_value_t = 1.0)]
    pub top_p: f64,
    /// Number of most probable tokens that are kept; 0 keeps all.
    #[arg(long, default_value_t = 0)]
    pub top_k: u32,
    /// Longest answer in tokens.
    #[arg(long, default_value_t = 64)]
    pub max_new_tokens: u32,
    /// Seed of the draws.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// One JSON object a completion, with `prompt`, `completion`, `token_ids` and `logprobs`; `joust sft` reads it.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `joust eval`.
#[derive(Debug, clap::Args)]
pub struct EvalArgs {
    /// The model folder that is asked about.
    pub model: PathBuf,
    /// The model folder that it is compared with.
    #[arg(long)]
    pub against: PathBuf,
    /// A run file: its judge, sampling and held-out prompts are used.
    #[arg(long)]
    pub run: PathBuf,
    /// Override a key of the run file; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// Prompts to use instead of the run file's held-out ones.
    #[arg(long)]
    pub prompts: Option<PathBuf>,
    /// At most this many prompts.
    #[arg(long, default_value_t = usize::MAX, hide_default_value = true)]
    pub limit: usize,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `joust config`.
#[derive(Debug, clap::Args)]
pub struct ConfigArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ConfigCommand,
}

/// What `joust config` can do.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Check a run file.
    Check(FileArgs),
    /// Print every effective value and where it comes from.
    Explain(FileArgs),
    /// Print the JSON Schema of run files.
    Schema,
}

/// A run file with overrides.
#[derive(Debug, clap::Args)]
pub struct FileArgs {
    /// The run file.
    pub file: PathBuf,
    /// Override a key; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
}

/// Arguments of `joust doctor`.
#[derive(Debug, clap::Args)]
pub struct DoctorArgs {
    /// A run file whose model, prompts and output folder are checked too.
    pub file: Option<PathBuf>,
    /// A Redis that is checked too.
    #[command(flatten)]
    pub queue: QueueArgs,
}
