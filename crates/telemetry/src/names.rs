//! Every name that traces and metrics are known by.
//!
//! Names of OpenTelemetry's semantic conventions (RPC, GenAI) where they fit, `joust.*` for the rest; metrics for Prometheus are these with
//! `_` for `.`, the unit and `_total` behind (<https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/>).

/// Spans: one a record and stage, one a step, one a call and side.
pub mod span {
    /// A prompt is put on the queue; the root of a preference's trace.
    pub const PROMPT: &str = "joust.prompt";
    /// A prompt is answered, from the lease to the commit.
    pub const ROLLOUT: &str = "joust.rollout";
    /// A rollout is judged, from the lease to the commit.
    pub const JUDGE: &str = "joust.judge";
    /// The outcome of a prompt is put for the learner.
    pub const PAIR: &str = "joust.pair";
    /// A step trains; a trace of its own, with links to the pairs.
    pub const STEP: &str = "joust.step";
    /// A call is served; exported under the name of its method.
    pub const RPC_SERVER: &str = "rpc";
    /// A call is made, repeats included; exported under the name of its method.
    pub const RPC_CLIENT: &str = "rpc.client";
}

/// Attributes of spans, and the labels of metrics among them.
pub mod attribute {
    /// The run's name. A label.
    pub const RUN: &str = "run";
    /// What became of a record or a judgement. A label.
    pub const OUTCOME: &str = "outcome";
    /// The topic. A label.
    pub const QUEUE: &str = "queue";
    /// The called method, `package.Service/Method`. A label.
    pub const RPC_METHOD: &str = "rpc.method";
    /// How a call ended, a gRPC code such as `OK` or `NOT_FOUND`. A label.
    pub const RPC_STATUS: &str = "rpc.response.status_code";
    /// The wire's name, always `grpc`.
    pub const RPC_SYSTEM: &str = "rpc.system.name";
    /// Place of a prompt in the run's stream.
    pub const POSITION: &str = "joust.position";
    /// Number of a step, from 0.
    pub const STEP: &str = "joust.step";
    /// Version of the model that answered or trains.
    pub const POLICY_VERSION: &str = "joust.policy_version";
    /// Preference examples of an outcome.
    pub const EXAMPLES: &str = "joust.examples";
    /// What a generative model was asked for.
    pub const GEN_AI_OPERATION: &str = "gen_ai.operation.name";
    /// Tokens of the prompt.
    pub const INPUT_TOKENS: &str = "gen_ai.usage.input_tokens";
    /// Tokens of all completions.
    pub const OUTPUT_TOKENS: &str = "gen_ai.usage.output_tokens";
    /// The prompt's text; only where content is captured.
    pub const INPUT_MESSAGES: &str = "gen_ai.input.messages";
    /// The completions' texts; only where content is captured.
    pub const OUTPUT_MESSAGES: &str = "gen_ai.output.messages";
}

/// Metrics.
pub mod metric {
    /// Counter: prompts put; run.
    pub const PROMPTS: &str = "joust.prompts";
    /// Counter: completions sampled; run.
    pub const COMPLETIONS: &str = "joust.completions";
    /// Counter: tokens sampled; run.
    pub const TOKENS: &str = "joust.tokens";
    /// Counter: judgements; run, outcome.
    pub const JUDGEMENTS: &str = "joust.judgements";
    /// Counter: outcomes put, `put` for one with examples, else the reason of the drop; run, outcome.
    pub const PAIRS: &str = "joust.pairs";
    /// Counter: steps trained; run.
    pub const STEPS: &str = "joust.steps";
    /// Histogram, seconds: how long a step took from its assignment to its report; run.
    pub const STEP_DURATION: &str = "joust.step.duration";
    /// Gauge: records that wait; run, queue.
    pub const QUEUE_DEPTH: &str = "joust.queue.depth";
    /// Histogram, seconds: calls served; method, code.
    pub const RPC_SERVER_DURATION: &str = "rpc.server.call.duration";
    /// Histogram, seconds: calls made, repeats included; method, code.
    pub const RPC_CLIENT_DURATION: &str = "rpc.client.call.duration";
}
