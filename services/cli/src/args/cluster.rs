//! Arguments of the verbs that talk to a cluster, start one or end one.

use std::path::PathBuf;

use clap::Subcommand;

/// What is done to the runs of a cluster.
#[derive(Debug, Subcommand)]
pub enum ClusterRunCommand {
    /// Give a run file to the cluster.
    Submit(SubmitArgs),
    /// List the runs, newest first.
    Ls(At),
    /// Follow a run until it ends.
    Watch(OfRun),
    /// Release no more prompts; what is under way is finished.
    Pause(OfRun),
    /// Go on with a paused run.
    Resume(OfRun),
    /// End a run after its step, with its policy written.
    Stop(OfRun),
    /// Change settings of a run from its next step on.
    Set(SetArgs),
    /// Add prompts of a file to a run; each trains it once.
    Prompts(GiveArgs),
    /// Make a run that goes on from a checkpoint of another.
    Fork(ForkArgs),
    /// Show the keys in which two runs differ.
    Diff(DiffArgs),
}

/// Which cluster.
#[derive(Debug, Clone, clap::Args)]
pub struct ClusterArg {
    /// Folder of the cluster; without it `.joust` here or above.
    #[arg(long, value_name = "FOLDER", env = "JOUST_CLUSTER")]
    pub cluster: Option<PathBuf>,
}

impl ClusterArg {
    /// Returns the folder that is named.
    pub fn folder(&self) -> Option<&std::path::Path> {
        self.cluster.as_deref()
    }
}

/// Which cluster, and how it is printed.
#[derive(Debug, Clone, clap::Args)]
pub struct At {
    /// Which.
    #[command(flatten)]
    pub cluster: ClusterArg,
    /// Print one JSON object a line.
    #[arg(long)]
    pub json: bool,
}

/// A run of a cluster.
#[derive(Debug, clap::Args)]
pub struct OfRun {
    /// Name of the run.
    pub run: String,
    /// Where, and how it is printed.
    #[command(flatten)]
    pub at: At,
}

/// Arguments of `joust run submit`.
#[derive(Debug, clap::Args)]
pub struct SubmitArgs {
    /// The run file; what it names must lie below a root of the cluster.
    pub file: PathBuf,
    /// Override a key; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// Name of the run, instead of the file's.
    #[arg(long)]
    pub name: Option<String>,
    /// Train only the steps that a script calls for.
    #[arg(long)]
    pub by_hand: bool,
    /// Follow the run until it ends.
    #[arg(long)]
    pub watch: bool,
    /// Where, and how it is printed.
    #[command(flatten)]
    pub at: At,
}

/// Arguments of `joust run set`.
#[derive(Debug, clap::Args)]
pub struct SetArgs {
    /// Name of the run.
    pub run: String,
    /// The changes, for example learner.learning_rate=1e-5.
    #[arg(required = true, value_name = "KEY=VALUE")]
    pub changes: Vec<String>,
    /// Where, and how it is printed.
    #[command(flatten)]
    pub at: At,
}

/// Arguments of `joust run fork`.
#[derive(Debug, clap::Args)]
pub struct ForkArgs {
    /// Name of the run that has the checkpoint.
    pub run: String,
    /// Name of the new run.
    pub name: String,
    /// The checkpoint, for example checkpoint-20; the newest without it.
    #[arg(long)]
    pub checkpoint: Option<String>,
    /// Override a key in the new run; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// Where, and how it is printed.
    #[command(flatten)]
    pub at: At,
}

/// Arguments of `joust run diff`.
#[derive(Debug, clap::Args)]
pub struct DiffArgs {
    /// Name of a run.
    pub first: String,
    /// Name of another.
    pub second: String,
    /// Where, and how it is printed.
    #[command(flatten)]
    pub at: At,
}

/// A file that is given to a run.
#[derive(Debug, clap::Args)]
pub struct GiveArgs {
    /// Name of the run.
    pub run: String,
    /// JSONL or Parquet in the columns of the run's own files.
    pub file: PathBuf,
    /// Where, and how it is printed.
    #[command(flatten)]
    pub at: At,
}

/// What `joust pairs` does.
#[derive(Debug, Subcommand)]
pub enum PairsCommand {
    /// List the examples of steps since the last checkpoint, in the order of their application.
    Ls(OfRun),
    /// Show one whole.
    Show(OneOfRun),
    /// Write them as JSON lines.
    Export(ExportArgs),
    /// Add preferences of people to a run: rows with prompt, chosen and rejected.
    Add(GiveArgs),
}

/// An example of a run.
#[derive(Debug, clap::Args)]
pub struct OneOfRun {
    /// Name of the run.
    pub run: String,
    /// Id of the example, 32 hexadecimal digits.
    pub id: String,
    /// Where.
    #[command(flatten)]
    pub at: At,
}

/// Arguments of `joust pairs export`.
#[derive(Debug, clap::Args)]
pub struct ExportArgs {
    /// Name of the run.
    pub run: String,
    /// The file to write.
    #[arg(long)]
    pub out: PathBuf,
    /// Where.
    #[command(flatten)]
    pub at: At,
}

/// What `joust queue` does.
#[derive(Debug, Subcommand)]
pub enum QueueCommand {
    /// Show what became of all that was put.
    Stats(OfRun),
    /// List what was tried too often.
    Dead(OfRun),
    /// Give dead letters back to their topic.
    Requeue(RequeueArgs),
}

/// Arguments of `joust queue requeue`.
#[derive(Debug, clap::Args)]
pub struct RequeueArgs {
    /// Name of the run.
    pub run: String,
    /// Topic: prompts, rollouts, pairs or feedback.
    pub topic: String,
    /// Ids, 32 hexadecimal digits each.
    #[arg(required = true)]
    pub ids: Vec<String>,
    /// Where.
    #[command(flatten)]
    pub at: At,
}

/// Arguments of `joust status`.
#[derive(Debug, clap::Args)]
pub struct StatusArgs {
    /// Where, and how it is printed.
    #[command(flatten)]
    pub at: At,
}

/// Arguments of `joust up`.
#[derive(Debug, clap::Args)]
pub struct UpArgs {
    /// Folder of the cluster: certificates, tokens, queue, runs and logs.
    #[arg(long, default_value = ".joust")]
    pub folder: PathBuf,
    /// Folder below which submitted runs may read; may be repeated.
    #[arg(long = "root", value_name = "FOLDER", default_value = ".")]
    pub roots: Vec<PathBuf>,
    /// Rollout workers.
    #[arg(long, default_value_t = 1)]
    pub rollouts: u32,
    /// Judge workers.
    #[arg(long, default_value_t = 1)]
    pub judges: u32,
    /// Learners; each trains one run at a time.
    #[arg(long, default_value_t = 1)]
    pub learners: u32,
    /// Threads of tensor work of each worker; 0 takes as many as there are cores.
    #[arg(long, default_value_t = 0)]
    pub threads: u32,
    /// Go on in the background once all is there.
    #[arg(long)]
    pub detach: bool,
}

/// Arguments of `joust down`.
#[derive(Debug, clap::Args)]
pub struct DownArgs {
    /// Folder of the cluster.
    #[arg(long, default_value = ".joust")]
    pub folder: PathBuf,
}
