//! Log lines to standard error, plain or JSON.

use tracing_subscriber::{EnvFilter, Layer, Registry, fmt::MakeWriter};

use crate::{Error, Result};

/// Variables that hold the filter, the first that is set wins.
const VARIABLES: [&str; 2] = ["JOUST_LOG", "RUST_LOG"];
/// Filter when none is set: what a user should know, and nothing that merely happens.
const DEFAULT: &str = "warn";

/// Form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Plain,
    /// One JSON object a line.
    Json,
}

/// Reads the filter from the environment that `lookup` shows; an empty variable counts as unset.
pub(crate) fn filter(lookup: impl Fn(&str) -> Option<String>) -> Result<EnvFilter> {
    let set = |variable| lookup(variable).filter(|value| !value.is_empty()).map(|value| (variable, value));
    let (variable, value) = VARIABLES.into_iter().find_map(set).unwrap_or((VARIABLES[0], DEFAULT.to_owned()));
    EnvFilter::builder().parse(&value).map_err(|error| Error::LogFilter { variable, value, reason: error.to_string() })
}

/// Builds the layer that writes the lines.
pub(crate) fn lines<W>(
    format: LogFormat,
    filter: EnvFilter,
    ansi: bool,
    writer: W,
) -> Box<dyn Layer<Registry> + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer().with_ansi(ansi).with_writer(writer);
    match format {
        LogFormat::Plain => lines.with_filter(filter).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_filter(filter).boxed(),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, Write},
        sync::Arc,
    };

    use parking_lot::Mutex;
    use tracing::subscriber::with_default;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(format: LogFormat, level: &str) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let filter = filter(|name| (name == "JOUST_LOG").then(|| level.to_owned())).expect("parses");
        let lines_of = super::lines(format, filter, false, move || writer.clone());
        with_default(tracing_subscriber::registry().with(lines_of), || {
            tracing::info!(step = 3, "published");
            tracing::warn!(step = 4, "recovered");
        });
        String::from_utf8(lines.0.lock().clone()).expect("text")
    }

    #[test]
    fn lines_are_plain_or_json_and_filtered() {
        let plain = written(LogFormat::Plain, "warn");
        assert!(plain.ends_with("recovered step=4\n") && !plain.contains("published"), "{plain}");
        let json = written(LogFormat::Json, "info");
        let lines: Vec<serde_json::Value> =
            json.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!((&lines[0]["message"], &lines[0]["step"]), (&"published".into(), &3.into()));
    }

    #[test]
    fn the_first_set_variable_holds_the_filter() {
        let shown = |joust: &'static str, rust: &'static str| {
            filter(|name| Some(if name == "JOUST_LOG" { joust } else { rust }.to_owned())).expect("parses").to_string()
        };
        assert_eq!(shown("debug", "error"), "debug");
        assert_eq!(shown("", "error"), "error");
        assert_eq!(shown("", ""), "warn");
    }

    #[test]
    fn a_filter_that_does_not_parse_is_named() {
        let error = filter(|name| (name == "RUST_LOG").then(|| "joust=loud".to_owned())).expect_err("refused");
        assert!(error.to_string().starts_with("RUST_LOG=\"joust=loud\" is not a log filter"), "{error}");
    }
}
