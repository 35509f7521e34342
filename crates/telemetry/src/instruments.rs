//! The instruments of all services, one function an event; they cost nothing where no metrics are exported.
//!
//! Labels are few and bounded (run, outcome, queue, method, code): never an id, a position or a text.

use std::{sync::LazyLock, time::Duration};

use opentelemetry::{
    KeyValue, global,
    metrics::{Counter, Gauge, Histogram},
};

use crate::names::{attribute, metric};

/// Upper ends of the buckets of calls, in seconds.
const CALL_S: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];
/// Upper ends of the buckets of steps, in seconds.
const STEP_S: [f64; 14] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0];

/// Made at the first use, which therefore comes after [`crate::init`] in a process that exports.
static INSTRUMENTS: LazyLock<Instruments> = LazyLock::new(Instruments::new);

struct Instruments {
    prompts: Counter<u64>,
    completions: Counter<u64>,
    tokens: Counter<u64>,
    judgements: Counter<u64>,
    pairs: Counter<u64>,
    steps: Counter<u64>,
    step_duration: Histogram<f64>,
    queue_depth: Gauge<u64>,
    server_duration: Histogram<f64>,
    client_duration: Histogram<f64>,
}

impl Instruments {
    fn new() -> Self {
        let meter = global::meter("joust");
        let counter = |name, unit, text| meter.u64_counter(name).with_unit(unit).with_description(text).build();
        let seconds = |name, ends: &[f64], text| {
            let histogram = meter.f64_histogram(name).with_unit("s").with_description(text);
            histogram.with_boundaries(ends.to_vec()).build()
        };
        Self {
            prompts: counter(metric::PROMPTS, "{prompt}", "Prompts put on the queue"),
            completions: counter(metric::COMPLETIONS, "{completion}", "Completions sampled"),
            tokens: counter(metric::TOKENS, "{token}", "Tokens sampled"),
            judgements: counter(metric::JUDGEMENTS, "{judgement}", "Judgements by what became of them"),
            pairs: counter(metric::PAIRS, "{outcome}", "Outcomes put for the learner, or why they hold no examples"),
            steps: counter(metric::STEPS, "{step}", "Steps trained"),
            step_duration: seconds(metric::STEP_DURATION, &STEP_S, "How long steps take"),
            queue_depth: meter.u64_gauge(metric::QUEUE_DEPTH).with_description("Records that wait").build(),
            server_duration: seconds(metric::RPC_SERVER_DURATION, &CALL_S, "How long calls take to serve"),
            client_duration: seconds(metric::RPC_CLIENT_DURATION, &CALL_S, "How long calls take, repeats included"),
        }
    }
}

fn of_run(run: &str) -> KeyValue {
    KeyValue::new(attribute::RUN, run.to_owned())
}

/// Counts prompts that were put.
pub fn prompts_put(run: &str, prompts: u64) {
    INSTRUMENTS.prompts.add(prompts, &[of_run(run)]);
}

/// Counts completions and their tokens.
pub fn completions_sampled(run: &str, completions: u64, tokens: u64) {
    INSTRUMENTS.completions.add(completions, &[of_run(run)]);
    INSTRUMENTS.tokens.add(tokens, &[of_run(run)]);
}

/// Counts judgements that ended in the same way, for example `ok` or `failed`.
pub fn judged(run: &str, outcome: &'static str, judgements: u64) {
    INSTRUMENTS.judgements.add(judgements, &[of_run(run), KeyValue::new(attribute::OUTCOME, outcome)]);
}

/// Counts an outcome: `put` for one with examples, else the reason of the drop, one of few.
pub fn outcome_put(run: &str, outcome: impl Into<std::borrow::Cow<'static, str>>) {
    let outcome: std::borrow::Cow<'static, str> = outcome.into();
    INSTRUMENTS.pairs.add(1, &[of_run(run), KeyValue::new(attribute::OUTCOME, outcome)]);
}

/// Counts a step and how long it took.
pub fn step_trained(run: &str, took: Duration) {
    INSTRUMENTS.steps.add(1, &[of_run(run)]);
    INSTRUMENTS.step_duration.record(took.as_secs_f64(), &[of_run(run)]);
}

/// Says how many records of a topic wait.
pub fn queue_depth(run: &str, queue: &str, waiting: u64) {
    INSTRUMENTS.queue_depth.record(waiting, &[of_run(run), KeyValue::new(attribute::QUEUE, queue.to_owned())]);
}

/// Counts a call that was served, `package.Service/Method`, and how long it took until its response began.
pub fn call_served(method: &'static str, code: &'static str, took: Duration) {
    INSTRUMENTS.server_duration.record(took.as_secs_f64(), &call(method, code));
}

/// Counts a call that was made, and how long it took until its response began, repeats included.
pub fn call_made(method: &'static str, code: &'static str, took: Duration) {
    INSTRUMENTS.client_duration.record(took.as_secs_f64(), &call(method, code));
}

fn call(method: &'static str, code: &'static str) -> [KeyValue; 2] {
    [KeyValue::new(attribute::RPC_METHOD, method), KeyValue::new(attribute::RPC_STATUS, code)]
}
