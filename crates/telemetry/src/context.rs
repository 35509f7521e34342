//! W3C trace context as text (<https://www.w3.org/TR/trace-context/>, `traceparent` version 00): in gRPC metadata, beside the records of a queue.
//!
//! It is passed on where nothing is exported too, so that one process without an endpoint does not break the traces of the others.

use std::{fmt, future::Future};

use opentelemetry::{
    Context,
    trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState},
};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Name of the header that carries the context.
pub const TRACEPARENT: &str = "traceparent";

tokio::task_local! {
    static CURRENT: TraceContext;
}

/// Which span of which trace a piece of work belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    trace: TraceId,
    span: SpanId,
    flags: TraceFlags,
}

impl TraceContext {
    /// Begins a trace. It counts as sampled: that this process records nothing is no reason for the next one not to.
    pub fn new_root() -> Self {
        let ids = RandomIdGenerator::default();
        Self { trace: ids.new_trace_id(), span: ids.new_span_id(), flags: TraceFlags::SAMPLED }
    }

    /// Returns a new span of the same trace.
    #[must_use]
    pub fn child(self) -> Self {
        Self { span: RandomIdGenerator::default().new_span_id(), ..self }
    }

    /// Parses a `traceparent`; anything else than a valid one is none.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let lower = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        let shape = [(version, 2), (trace, 32), (span, 16), (flags, 2)]
            .iter()
            .all(|(part, len)| part.len() == *len && lower(part));
        // Later versions may append fields; version ff is never valid.
        if !shape || version == "ff" || (version == "00" && parts.next().is_some()) {
            return None;
        }
        let context = Self {
            trace: TraceId::from_hex(trace).ok()?,
            span: SpanId::from_hex(span).ok()?,
            flags: TraceFlags::new(u8::from_str_radix(flags, 16).ok()?),
        };
        (context.trace != TraceId::INVALID && context.span != SpanId::INVALID).then_some(context)
    }

    /// Returns the trace id, 32 hexadecimal digits.
    pub fn trace_id(&self) -> String {
        self.trace.to_string()
    }

    /// Returns the span id, 16 hexadecimal digits.
    pub fn span_id(&self) -> String {
        self.span.to_string()
    }

    /// Returns the context of a span that is recorded; none where nothing is exported.
    ///
    /// The span begins with this call at the latest, so that parents and names are given before.
    pub fn of(span: &Span) -> Option<Self> {
        let context = span.context();
        let context = context.span().span_context().clone();
        context.is_valid().then(|| Self {
            trace: context.trace_id(),
            span: context.span_id(),
            flags: context.trace_flags(),
        })
    }

    /// Returns the context that the running task works for: its span's, else that of [`TraceContext::scope`].
    pub fn current() -> Option<Self> {
        Self::of(&Span::current()).or_else(|| CURRENT.try_with(|context| *context).ok())
    }

    /// Runs `work` under this context; calls that it makes carry it on.
    pub async fn scope<F: Future>(self, work: F) -> F::Output {
        CURRENT.scope(self, work).await
    }

    /// Makes this the parent of `span`, which was made a moment ago.
    pub fn adopt(self, span: &Span) {
        // It fails only where there is nothing to hang the parent on: the span is not recorded.
        let _ = span.set_parent(Context::new().with_remote_span_context(self.remote()));
    }

    /// Links `span` to this one, which it followed from without being part of it.
    pub fn link(self, span: &Span) {
        span.add_link(self.remote());
    }

    fn remote(self) -> SpanContext {
        SpanContext::new(self.trace, self.span, self.flags, true, TraceState::NONE)
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace, self.span, self.flags)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_standard_round_trips() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let context = TraceContext::parse(text).expect("valid");
        assert_eq!((context.to_string().as_str(), context.trace_id().as_str()), (text, &text[3..35]));
        let child = context.child();
        assert!(child.trace_id() == context.trace_id() && child != context);
    }

    #[test]
    fn a_root_is_one_that_others_read() {
        let root = TraceContext::new_root();
        assert_eq!(TraceContext::parse(&root.to_string()), Some(root));
        assert_ne!(root.trace_id(), TraceContext::new_root().trace_id());
    }

    #[test]
    fn what_the_standard_forbids_is_none() {
        for bad in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
        ] {
            assert_eq!(TraceContext::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_span_that_nobody_records_has_no_context() {
        assert_eq!(TraceContext::of(&tracing::info_span!("alone")), None);
        assert_eq!(TraceContext::current(), None);
    }
}
