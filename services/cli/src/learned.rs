//! The libtorch side of judges that learn: a reward model with its optimizer, kept as one folder a version.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context, ensure};
use joust_config::judge::LearnedJudge;
use joust_core::{Prompt, scratch::write_atomically};
use joust_data::Tokenizer;
use joust_judges::{Lesson, Pupil, Scorer};
use joust_model::{Device, Dtype, Head, Llama, load, publish_edited};
use joust_train::{Master, OptimizerParams, RewardLoss, RewardPair, Schedule, ScheduleKind, Settings, reward_step};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::{
    model, padding,
    scorer::{Reading, Texts},
};

/// Pairs in one forward and backward pass of a lesson.
const MICRO_BATCH: usize = 8;
const COUNTS: &str = "lessons.json";

/// A reward model that is taught; each version is a folder of its own under `folder`, and the last one stays.
pub struct LearnedModel {
    texts: Texts,
    epochs: u32,
    /// Where tokenizer files come from.
    base: PathBuf,
    folder: PathBuf,
    state: Mutex<State>,
    version: AtomicU64,
    asked: AtomicU64,
}

struct State {
    master: Master,
    scoring: Llama,
}

/// What was learnt so far.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Counts {
    version: u64,
    asked: u64,
}

impl LearnedModel {
    /// Opens the last version under `folder`, or the model that the judge begins from. Moments of the optimizer begin anew.
    ///
    /// # Errors
    /// A folder that is not a whole model.
    pub fn open(config: &LearnedJudge, folder: PathBuf, device: &Device) -> anyhow::Result<Self> {
        let counts = read_counts(&folder)?;
        let own = folder.join(counts.version.to_string());
        let source = if counts.version > 0 { &own } else { &config.model };
        let (shape, weights) = load(source).with_context(|| format!("judge {}", config.name))?;
        let weights = weights.to_device(device.torch());
        ensure!(
            shape.labels.len() < 2,
            "judge {}: its model rates {}; a judge that learns has one score",
            config.name,
            shape.labels.join(", ")
        );
        let tokenizer = Tokenizer::open(source).with_context(|| format!("judge {}", config.name))?;
        tokenizer.check_embedding(shape.vocab_size as usize)?;
        let pad = padding::id(&tokenizer);
        let (shape, weights) = match shape.head {
            Head::Score => (shape.with_dtype(Dtype::Float32), weights),
            Head::CausalLm => model::scored(shape.with_dtype(Dtype::Float32), &weights, pad),
        };
        let shape = pad.into_iter().fold(shape, joust_model::ModelConfig::with_pad);
        let schedule = Schedule {
            kind: ScheduleKind::Constant,
            learning_rate: config.learning_rate,
            warmup_steps: 0,
            total_steps: u64::MAX,
        };
        let settings = Settings { optimizer: OptimizerParams::default(), schedule, max_grad_norm: 1.0 };
        let master = Master::new(&shape, &weights, settings);
        let scoring = Llama::for_sampling(&shape, &master.weights.snapshot(tch::Kind::Float))?;
        let texts = Texts {
            tokenizer: Arc::new(tokenizer),
            max_length: (config.max_length as usize).min(shape.max_position_embeddings as usize),
            batch_size: config.batch_size as usize,
            reading: Reading::Sum(vec![1.0]),
            device: device.clone(),
        };
        Ok(Self {
            texts,
            epochs: config.epochs,
            base: config.model.clone(),
            folder,
            state: Mutex::new(State { master, scoring }),
            version: AtomicU64::new(counts.version),
            asked: AtomicU64::new(counts.asked),
        })
    }

    fn pairs(&self, lessons: &[Lesson]) -> anyhow::Result<Vec<RewardPair>> {
        let encode =
            |lesson: &Lesson, answer: &str| self.texts.tokenizer.encode_answered(&lesson.prompt, &answer.into());
        let mut pairs = Vec::with_capacity(lessons.len());
        for lesson in lessons {
            let (chosen, rejected) = (encode(lesson, &lesson.chosen)?, encode(lesson, &lesson.rejected)?);
            if self.texts.fits(&chosen) && self.texts.fits(&rejected) {
                pairs.push(RewardPair { chosen, rejected, margin: 0.0 });
            }
        }
        Ok(pairs)
    }

    fn teach(&self, lessons: &[Lesson], asked: u64) -> anyhow::Result<()> {
        let pairs = self.pairs(lessons)?;
        let cut: Vec<Vec<&RewardPair>> = pairs.chunks(MICRO_BATCH).map(|part| part.iter().collect()).collect();
        let mut state = self.state.blocking_lock();
        let State { master, scoring } = &mut *state;
        // Kept first: what was paid for stays counted, whatever becomes of the lesson.
        self.asked.fetch_add(asked, Ordering::Relaxed);
        self.write_counts(self.version())?;
        if pairs.is_empty() {
            return Ok(());
        }
        let (mut loss, mut accuracy) = (0.0, 0.0);
        for _ in 0..self.epochs {
            (loss, accuracy, _) = reward_step(master, &cut, &RewardLoss::default(), &self.texts.device)?;
        }
        let taught = Llama::for_sampling(&master.config, &master.weights.snapshot(tch::Kind::Float))?;
        let before = self.version();
        let version = before + 1;
        let (folder, model) = (self.folder.join(version.to_string()), (&master.config, &master.weights));
        publish_edited(&folder, &self.base, model, |staging| padding::name_in(staging, &self.texts.tokenizer))?;
        self.write_counts(version)?;
        // From here on the lesson counts: nothing below may fail it.
        self.version.store(version, Ordering::Relaxed);
        *scoring = taught;
        let old = self.folder.join(before.to_string());
        if before > 0
            && let Err(error) = fs::remove_dir_all(&old)
        {
            tracing::warn!(folder = %old.display(), %error, "an older version of the reward model stays");
        }
        tracing::info!(
            version,
            asked = self.asked(),
            pairs = pairs.len(),
            loss,
            accuracy,
            "the reward model was taught"
        );
        Ok(())
    }

    fn write_counts(&self, version: u64) -> anyhow::Result<()> {
        let counts = Counts { version, asked: self.asked() };
        fs::create_dir_all(&self.folder)?;
        Ok(write_atomically(&self.folder.join(COUNTS), &serde_json::to_vec(&counts)?)?)
    }
}

impl Scorer for LearnedModel {
    fn score(&self, texts: Vec<(Prompt, String)>) -> Result<Vec<Option<f64>>, String> {
        self.texts.score(&self.state.blocking_lock().scoring, &texts)
    }
}

impl Pupil for LearnedModel {
    fn learn(&self, lessons: &[Lesson], asked: u64) -> Result<(), String> {
        self.teach(lessons, asked).map_err(|error| {
            let text = format!("{error:#}");
            tracing::error!(error = text, "a lesson failed; the reward model scores as before");
            text
        })
    }

    fn version(&self) -> u64 {
        self.version.load(Ordering::Relaxed)
    }

    fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }
}

fn read_counts(folder: &Path) -> anyhow::Result<Counts> {
    let path = folder.join(COUNTS);
    match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Counts::default()),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}
