//! How the rate of rollouts grows with workers whose engine sleeps, over a real Redis, into a sink: `cargo bench -p joust --bench growth`.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use joust_core::{
    ModelRef, ModelSet, Player, Prompt, PromptTask, Purpose, RecordId, Release, RunId, SCHEMA, Shutdown, encode,
};
use joust_data::Tokenizer;
use joust_engine::{ModelStore, Published, SamplingParams, Snapshot, sandbox::sleeping};
use joust_queue::{Consumer, Done, Item, Queue, RedisConfig, Settings, Topic, open_redis, sandbox::RedisServer};
use joust_rollout::{Config, Deps, UnderWay, run};
use joust_testkit::tiny_folder;

/// How long a batch takes.
const PAUSE: Duration = Duration::from_millis(200);
const BATCH: u64 = 16;
/// Batches of each worker.
const BATCHES: u64 = 15;
const WORKERS: [u64; 5] = [1, 2, 4, 8, 16];

struct Shared {
    queue: Arc<dyn Queue>,
    models: ModelStore,
    tokenizer: Arc<Tokenizer>,
}

fn task(run: &RunId, position: u64) -> Item {
    let id = RecordId::derive(&[run.as_str().as_bytes(), &position.to_le_bytes()]);
    let prompt = Prompt::Text("the small cat".into());
    let task = PromptTask { schema: SCHEMA, id, position, epoch: 0, row: position, purpose: Purpose::Train, prompt };
    Item { id, body: encode(&task), trace: None }
}

fn config(run: &RunId, worker: u64, steps: u64) -> Config {
    Config {
        run: run.clone(),
        worker: format!("rollout-{worker}"),
        players: vec![Player::Policy, Player::Policy],
        mixture_coef: 0.0,
        annotate: None,
        style: String::new(),
        revision: None,
        params: SamplingParams { temperature: 1.0, top_p: 1.0, top_k: 0, max_new_tokens: 64, eos_ids: vec![2] },
        seed: 0,
        batch: BATCH as usize,
        release: Release { prompts_per_step: BATCH, steps, max_staleness: steps, iteration_steps: 1 },
    }
}

/// Answers per second of so many workers, from the first to the last.
async fn rate(shared: &Shared, workers: u64) -> f64 {
    let run_id = RunId::new(format!("growth-{workers}")).expect("a name");
    let steps = workers * BATCHES;
    let prompts = (0..steps * BATCH).map(|position| task(&run_id, position)).collect();
    shared.queue.put(&Topic::prompts(&run_id), prompts).await.expect("there is room");
    let stop = Shutdown::default();
    let began = Instant::now();
    let each = (0..workers).map(|worker| {
        let (queue, models, tokenizer) = (shared.queue.clone(), shared.models.clone(), shared.tokenizer.clone());
        let deps = Deps {
            queue,
            engine: sleeping(PAUSE).expect("a thread"),
            models,
            tokenizer,
            under_way: UnderWay::default(),
        };
        tokio::spawn(run(config(&run_id, worker, steps), deps, stop.clone()))
    });
    let workers: Vec<_> = each.collect();
    let (topic, sink) = (Topic::rollouts(&run_id), Consumer::new("sink"));
    let mut left = steps * BATCH;
    while left > 0 {
        let taken = shared.queue.take(&topic, &sink, 256, Duration::from_secs(1)).await.expect("a queue");
        left -= taken.len() as u64;
        let done = taken.into_iter().map(|leased| (leased.lease, Done::Moved)).collect();
        shared.queue.commit(done, Vec::new()).await.expect("a queue");
    }
    let took = began.elapsed();
    stop.trigger();
    for worker in workers {
        worker.await.expect("no panic").expect("served");
    }
    (steps * BATCH) as f64 / took.as_secs_f64()
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let folder = tempfile::tempdir().expect("a folder");
    if !RedisServer::is_there_for("growth") {
        return;
    }
    let server = RedisServer::start(folder.path(), &[]).expect("redis-server starts");
    let queue = open_redis(&RedisConfig::new(server.url()), Settings::shared(), None).await.expect("a queue");
    let model = folder.path().join("model");
    tiny_folder(&model, 1);
    let (model_config, weights) = joust_model::load(&model).expect("a model");
    let id = ModelRef { generation: 1, version: 0, hash: "0".repeat(64) };
    let policy = Arc::new(Snapshot::owned(&model_config, &weights, id.clone()).expect("a model"));
    let set = ModelSet { policy: id.clone(), reference: id, ema: None, past: Vec::new() };
    let models = ModelStore::new(Published { set, policy: policy.clone(), reference: policy, ema: None, past: None });
    let shared = Shared { queue, models, tokenizer: Arc::new(Tokenizer::open(&model).expect("a tokenizer")) };
    let mut first = None;
    for workers in WORKERS {
        let rate = rate(&shared, workers).await;
        let one = *first.get_or_insert(rate);
        println!(
            "growth workers={workers} prompts_per_s={rate:.0} share_of_linear={:.2} (goal 0.90)",
            rate / (one * workers as f64)
        );
    }
}
