//! The memory estimate of `--dry-run`.

use joust_config::{
    RunFile,
    run::{LossName, Optimizer, Select},
};

use joust_model::ModelConfig;
use joust_torch::Limits;

use super::roles::{averaged, keeps_past};
use crate::model::LanguageModel;

/// When memory is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum While {
    /// From the first step to the last.
    Always,
    /// While a micro-batch is on its way through the model and back.
    Training,
    /// While the weights are updated.
    Updating,
    /// While a new policy is made ready for sampling.
    Publishing,
    /// While prompts are answered.
    Sampling,
}

/// What libtorch takes for itself in each process: its threads, kernels and kept buffers (measured with `tiny` on a CPU).
const LIBRARIES: u64 = 100 << 20;

/// What takes memory.
struct Kind {
    name: String,
    bytes: u64,
    held: While,
    /// Whether each rank of the learner has it.
    of_ranks: bool,
}

/// The run by its numbers.
struct Sizes<'a> {
    run: &'a RunFile,
    config: &'a ModelConfig,
    /// Of the whole model.
    parameters: u64,
    /// Of what is trained: an adapter, or everything.
    trained: u64,
    /// Bytes of a number in the model's kind.
    element: u64,
    /// Mean tokens of a prompt.
    prompt: u64,
}

impl Sizes<'_> {
    fn ranks(&self) -> u64 {
        u64::from(self.run.learner.ranks)
    }

    /// Rows that only the update reads are shared by the ranks.
    fn own(&self) -> u64 {
        self.trained / self.ranks()
    }

    /// Answers of a prompt that are trained.
    fn answers(&self) -> u64 {
        match self.run.pairing.select {
            Select::Single | Select::List => u64::from(self.run.sampling.judged()),
            _ => 2,
        }
    }

    fn longest(&self) -> u64 {
        u64::from(self.run.sampling.max_new_tokens)
    }

    /// Tokens that a micro-batch computes: a prompt once, with its answers, and for SPO with their shortened versions.
    fn tokens(&self) -> u64 {
        let shorter = match self.run.loss.params.get("degrees") {
            // Whole again, then shorter by up to half.
            Some(degrees) => 2 * self.longest() * (4 + 3 * *degrees as u64) / 4,
            None => 0,
        };
        u64::from(self.run.learner.micro_batch) * (self.prompt + self.answers() * self.longest() + shorter)
    }

    /// Bytes that are kept of a micro-batch for its backward pass.
    fn activations(&self) -> u64 {
        let (hidden, layers) = (self.config.hidden_size as u64, self.config.num_hidden_layers as u64);
        let layer = 8 * hidden + 3 * self.config.intermediate_size as u64;
        let token = match self.run.learner.activation_checkpointing {
            true => 2 * layers * hidden + layer,
            false => layers * layer,
        };
        self.tokens() * token * self.element
    }

    /// Bytes of the logits of a micro-batch: those that are kept, and the slices under way in both directions.
    fn logits(&self) -> u64 {
        let Limits { slice, kept } = Limits::default();
        let tokens = u64::from(self.run.learner.micro_batch) * self.answers() * self.longest();
        let all = tokens * self.config.vocab_size as u64;
        all.min(kept as u64) * self.element + all.min(slice as u64) * (2 * self.element + 8)
    }

    /// Bytes of the gradient of the widest matrix before it is added to the others, in float32.
    fn widest(&self) -> u64 {
        let adapted = self.trained < self.parameters;
        let elements = if adapted { 0 } else { (self.config.vocab_size * self.config.hidden_size) as u64 };
        elements * 4
    }

    /// Bytes of an embedding that is the head as well: those who sample have it packed, beside the rows that they look up.
    fn packed_head(&self) -> u64 {
        let elements = (self.config.vocab_size * self.config.hidden_size) as u64;
        if self.config.tie_word_embeddings { elements * self.element } else { 0 }
    }

    /// Returns whether all gradients of a step are held while its micro-batches are computed. Those of a single one take the place of its
    /// activations.
    fn adds_up(&self) -> bool {
        self.run.learner.prompts_per_step > self.run.learner.micro_batch
    }

    /// Bytes an updated number has beside itself.
    fn remembered(&self) -> u64 {
        match self.run.learner.optim.optimizer {
            Optimizer::Adamw => 8,
            Optimizer::Rmsprop => 4,
            Optimizer::Adafactor => 0, // rows and columns
        }
    }

    /// Bytes of the KV cache of a step's answers.
    fn cache(&self) -> u64 {
        let rows = u64::from(self.run.learner.prompts_per_step) * u64::from(self.run.sampling.num_generations);
        let heads = (self.config.num_key_value_heads * self.config.head_dim) as u64;
        rows * (self.prompt + self.longest()) * 2 * self.config.num_hidden_layers as u64 * heads * self.element
    }

    /// Lists what the learner holds, on each rank.
    fn training(&self, reference: &str) -> Vec<Kind> {
        use While::{Always, Training, Updating};
        let (own, remembered, element) = (self.own(), self.remembered(), self.element);
        let critic = self.parameters / self.ranks();
        let mut kinds = vec![
            ("float32 masters".to_owned(), 4 * own, Always),
            ("the optimizer's memory".to_owned(), remembered * own, Always),
            ("compute copy".to_owned(), element * self.trained, Always),
            (format!("{reference}, for training"), element * self.parameters, Always),
            ("libtorch's own".to_owned(), LIBRARIES, Always),
        ];
        if averaged(self.run) {
            kinds.push(("averaged policy, for training".to_owned(), 4 * own, Always));
        }
        if keeps_past(self.run) {
            kinds.push(("past policy, for training".to_owned(), 8 * own, Always));
        }
        if matches!(self.run.loss.name, LossName::Ppo | LossName::Dro) {
            let bytes = (8 + remembered) * critic + element * self.parameters;
            kinds.push(("critic with its moments and gradients".to_owned(), bytes, Always));
        }
        kinds.push(("gradients".to_owned(), 4 * own, if self.adds_up() { Training } else { Updating }));
        kinds.push(("activations of a micro-batch".to_owned(), self.activations(), Training));
        kinds.push(("logits of a micro-batch".to_owned(), self.logits(), Training));
        kinds.push(("the vocabulary's gradient on its way".to_owned(), self.widest(), Training));
        if matches!(self.run.loss.name, LossName::Mapo | LossName::SparsePo) {
            let all = self.run.loss.name == LossName::SparsePo;
            let layers = if all { self.config.num_hidden_layers as u64 } else { 0 };
            let step = self.answers() * u64::from(self.run.learner.prompts_per_step) * self.longest();
            let bytes = step * (layers + 1) * self.config.hidden_size as u64 * element;
            kinds.push(("the reference's states at a step's tokens".to_owned(), bytes, Training));
        }
        kinds.into_iter().map(|(name, bytes, held)| Kind { name, bytes, held, of_ranks: true }).collect()
    }

    /// Lists what sampling holds, once.
    fn sampling(&self, reference: &str) -> Vec<Kind> {
        use While::{Always, Publishing, Sampling};
        let (adapted, head) = (self.trained < self.parameters, self.packed_head());
        let policy = self.element * self.trained + if adapted { 0 } else { head };
        let mut kinds = vec![
            ("policy snapshot, for sampling".to_owned(), policy, Always),
            (format!("{reference}, for sampling"), self.element * self.parameters + head, Always),
        ];
        if self.ranks() > 1 {
            kinds.push(("libtorch's own, for sampling".to_owned(), LIBRARIES, Always));
        }
        if averaged(self.run) {
            kinds.push(("averaged policy, for sampling".to_owned(), policy, Always));
        }
        if keeps_past(self.run) {
            kinds.push(("past policy, for sampling".to_owned(), policy, Always));
        }
        // Copied, then laid out, while the one before is still there.
        kinds.push(("the next policy snapshot".to_owned(), 2 * policy, Publishing));
        // A run that waits for nobody answers while it trains and publishes.
        let held = if self.run.pipeline.max_staleness > 0 { Always } else { Sampling };
        kinds.push(("KV cache".to_owned(), self.cache(), held));
        kinds.into_iter().map(|(name, bytes, held)| Kind { name, bytes, held, of_ranks: false }).collect()
    }
}

/// Adds up what is held at once, at its most; of each kind as often as there are processes with it.
fn most(kinds: &[Kind], times: impl Fn(&Kind) -> u64) -> u64 {
    let sum = |held| kinds.iter().filter(|kind| kind.held == held).map(|kind| times(kind) * kind.bytes).sum::<u64>();
    let busiest = [While::Training, While::Updating, While::Publishing, While::Sampling]
        .map(sum)
        .into_iter()
        .max()
        .unwrap_or_default();
    sum(While::Always) + busiest
}

/// Formats the bytes by kind, as comments below the resolved run file.
///
/// # Arguments
/// * `prompt` - mean tokens of a prompt; answers are taken to be as long as they may be.
pub fn estimate(run: &RunFile, model: &LanguageModel, prompt: u64) -> String {
    let adapter = model.adapter.as_ref();
    let parameters = model.config.parameters() as u64;
    let trained = adapter.map_or(parameters, |own| own.weights.0.values().map(|tensor| tensor.numel() as u64).sum());
    let element = model.config.dtype.kind().elt_size_in_bytes() as u64;
    let sizes = Sizes { run, config: &model.config, parameters, trained, element, prompt };
    let reference = if adapter.is_some() { "base of policy and reference" } else { "reference" };
    let mut kinds = sizes.training(reference);
    kinds.extend(sizes.sampling(reference));
    let line = |name: &str, bytes: u64| format!("# {name:<42} {:>10.1} MiB\n", bytes as f64 / f64::from(1 << 20));
    let mut text = format!("# memory estimate, {parameters} parameters");
    if adapter.is_some() {
        text += &format!(", {trained} trained in adapters");
    }
    text += "\n";
    for (held, heading) in [
        (While::Always, ""),
        (While::Training, "while a micro-batch is trained:"),
        (While::Updating, "while the weights are updated:"),
        (While::Publishing, "while a policy is published:"),
        (While::Sampling, "while prompts are answered:"),
    ] {
        let own: Vec<&Kind> = kinds.iter().filter(|kind| kind.held == held).collect();
        if !own.is_empty() && !heading.is_empty() {
            text += &format!("# {heading}\n");
        }
        own.iter().for_each(|kind| text += &line(&kind.name, kind.bytes));
    }
    if sizes.ranks() > 1 {
        text += &line("at most on each of the ranks", most(&kinds, |kind| u64::from(kind.of_ranks)));
    }
    text + &line("at most at once", most(&kinds, |kind| if kind.of_ranks { sizes.ranks() } else { 1 }))
}
