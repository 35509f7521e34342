//! W3C trace context in gRPC metadata (<https://www.w3.org/TR/trace-context/>, `traceparent` version 00).

use std::{fmt, future::Future};

use http::{HeaderMap, HeaderValue};

/// Name of the header.
const HEADER: &str = "traceparent";

tokio::task_local! {
    static CURRENT: TraceContext;
}

/// Which trace a piece of work belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    trace: u128,
    span: u64,
    flags: u8,
}

impl TraceContext {
    /// Begins a trace.
    pub fn new_root() -> Self {
        // Zero stands for "no trace"; 1 is as good as any other number.
        let trace = (u128::from(crate::retry::random()) << 64 | u128::from(crate::retry::random())).max(1);
        Self { trace, span: crate::retry::random().max(1), flags: 0 }
    }

    /// Returns a new span of the same trace.
    #[must_use]
    pub fn child(self) -> Self {
        Self { span: crate::retry::random().max(1), ..self }
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
            trace: u128::from_str_radix(trace, 16).ok()?,
            span: u64::from_str_radix(span, 16).ok()?,
            flags: u8::from_str_radix(flags, 16).ok()?,
        };
        (context.trace != 0 && context.span != 0).then_some(context)
    }

    /// Returns the trace id, 32 hexadecimal digits.
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace)
    }

    /// Returns the context that the running task works for: that of the call being served, or of [`TraceContext::scope`].
    pub fn current() -> Option<Self> {
        CURRENT.try_with(|context| *context).ok()
    }

    /// Runs `work` under this context; calls that it makes carry it on.
    pub async fn scope<F: Future>(self, work: F) -> F::Output {
        CURRENT.scope(self, work).await
    }

    /// Takes the context out of metadata.
    pub(crate) fn extract(headers: &HeaderMap) -> Option<Self> {
        headers.get(HEADER)?.to_str().ok().and_then(Self::parse)
    }

    /// Puts the context into metadata.
    pub(crate) fn inject(self, headers: &mut HeaderMap) {
        if let Ok(value) = HeaderValue::try_from(self.to_string()) {
            headers.insert(HEADER, value);
        }
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.span, self.flags)
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
}
