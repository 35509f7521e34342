//! The spans of the stages that a preference passes: prompt, rollout, judge, pair, and the step that it ends in.
//!
//! A queue stands between two stages, so a span's parent comes as text beside the record, and its own context goes on beside the next one.

use opentelemetry::{Key, Value};
use tracing::{Span, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::{
    TraceContext,
    names::{attribute, span},
    setup::captures_content,
};

/// Most links of a step; the SDK's own limit.
const LINKS: usize = 128;

/// What one stage does with one record: its span, from here until it is dropped.
#[derive(Debug)]
pub struct Work {
    span: Span,
    from: Option<TraceContext>,
}

impl Work {
    /// A prompt is put: the root of its trace.
    pub fn prompt(run: &str, position: u64) -> Self {
        let span = info_span!(parent: None, span::PROMPT, otel.kind = "producer", run);
        Self { span, from: None }.with(attribute::POSITION, position as i64)
    }

    /// A prompt is answered; `trace` came with it.
    pub fn rollout(run: &str, trace: Option<&str>) -> Self {
        let span = info_span!(parent: None, span::ROLLOUT, otel.kind = "consumer", run);
        Self::after(span, trace).with(attribute::GEN_AI_OPERATION, "text_completion")
    }

    /// A rollout is judged; `trace` came with it.
    pub fn judge(run: &str, trace: Option<&str>) -> Self {
        Self::after(info_span!(parent: None, span::JUDGE, otel.kind = "consumer", run), trace)
    }

    /// The outcome of what was judged is put; a part of this work.
    #[must_use]
    pub fn pair(&self, outcome: &str) -> Self {
        let span = info_span!(parent: &self.span, span::PAIR, otel.kind = "producer", outcome);
        Self { span, from: self.from }
    }

    fn after(span: Span, trace: Option<&str>) -> Self {
        let from = trace.and_then(TraceContext::parse);
        if let Some(from) = from {
            from.adopt(&span);
        }
        Self { span, from }
    }

    /// Adds an attribute, under a name of [`attribute`].
    #[must_use]
    pub fn with(self, name: &'static str, value: impl Into<Value>) -> Self {
        self.set(name, value);
        self
    }

    /// Sets an attribute, under a name of [`attribute`].
    pub fn set(&self, name: &'static str, value: impl Into<Value>) {
        self.span.set_attribute(Key::from_static_str(name), value);
    }

    /// Sets an attribute that holds what users or models wrote, where the deployment says that it may be seen.
    pub fn set_content(&self, name: &'static str, text: impl FnOnce() -> String) {
        if captures_content() && !self.span.is_disabled() {
            self.set(name, text());
        }
    }

    /// Returns the span.
    pub fn span(&self) -> &Span {
        &self.span
    }

    /// Returns what goes beside the record that this work makes: its own context, or what it came with where nothing is exported here.
    pub fn traceparent(&self) -> Option<String> {
        TraceContext::of(&self.span).or(self.from).map(|context| context.to_string())
    }
}

/// Makes the span of a step, a trace of its own: it belongs to none of its prompts, and is linked to the pairs whose contexts `pairs` holds,
/// at most 128, evenly chosen.
pub fn step<'a>(run: &str, step: u64, pairs: impl IntoIterator<Item = &'a str>) -> Span {
    let span = info_span!(parent: None, span::STEP, otel.kind = "consumer", run);
    if span.is_disabled() {
        return span;
    }
    span.set_attribute(Key::from_static_str(attribute::STEP), step as i64);
    let pairs: Vec<TraceContext> = pairs.into_iter().filter_map(TraceContext::parse).collect();
    for index in 0..pairs.len().min(LINKS) {
        pairs[index * pairs.len() / pairs.len().min(LINKS)].link(&span);
    }
    span
}
