//! One call over gRPC, served or made: its span, the context that goes with it, and its count at the end.

use std::time::Instant;

use opentelemetry::Key;
use tracing::{Span, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::{
    TraceContext, instruments,
    names::{attribute, span},
};

/// The spans stand in log lines as those of the crate that serves and calls, so that one filter shows both.
const TARGET: &str = "joust_rpc";

/// A call on its way.
#[derive(Debug)]
pub struct Call {
    span: Span,
    context: TraceContext,
    method: &'static str,
    began: Instant,
    served: bool,
}

impl Call {
    /// Begins to serve a call of `method`, one of a known few, as `package.Service/Method`; `from` came with it.
    pub fn served(method: &'static str, from: Option<TraceContext>) -> Self {
        let span = info_span!(
            target: TARGET,
            parent: None,
            span::RPC_SERVER,
            otel.name = method,
            otel.kind = "server",
            method,
            trace_id = tracing::field::Empty
        );
        if let Some(from) = from {
            from.adopt(&span);
        }
        let call = Self::begin(span, from, (method, true));
        call.span.record("trace_id", call.context.trace_id());
        call
    }

    /// Begins to make a call of `method`, as part of what the running task works for.
    pub fn made(method: &'static str) -> Self {
        let from = TraceContext::current();
        let span = info_span!(target: TARGET, span::RPC_CLIENT, otel.name = method, otel.kind = "client", method);
        // A task that works under a context without a span has it as parent; a span has its own parent already.
        if let Some(from) = from.filter(|_| TraceContext::of(&Span::current()).is_none()) {
            from.adopt(&span);
        }
        Self::begin(span, from, (method, false))
    }

    fn begin(span: Span, from: Option<TraceContext>, (method, served): (&'static str, bool)) -> Self {
        span.set_attribute(Key::from_static_str(attribute::RPC_SYSTEM), "grpc");
        span.set_attribute(Key::from_static_str(attribute::RPC_METHOD), method);
        let carried = || from.map_or_else(TraceContext::new_root, TraceContext::child);
        let context = TraceContext::of(&span).unwrap_or_else(carried);
        Self { span, context, method, began: Instant::now(), served }
    }

    /// Returns its context: that of its span, or one that carries the caller's trace on where nothing is recorded.
    pub fn context(&self) -> TraceContext {
        self.context
    }

    /// Returns its span.
    pub fn span(&self) -> &Span {
        &self.span
    }

    /// Notes how it ended: a gRPC code such as `OK` or `NOT_FOUND`, and whether that is an error of this side.
    pub fn end(&self, code: &'static str, failed: bool) {
        self.span.set_attribute(Key::from_static_str(attribute::RPC_STATUS), code);
        if failed {
            self.span.set_status(opentelemetry::trace::Status::error(code));
        }
        let count = if self.served { instruments::call_served } else { instruments::call_made };
        count(self.method, code, self.began.elapsed());
    }
}
