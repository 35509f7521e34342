//! Log lines to standard error, plain or JSON.

use tracing::Subscriber;
use tracing_subscriber::{
    EnvFilter,
    fmt::{MakeWriter, SubscriberBuilder},
    util::SubscriberInitExt,
};

use crate::{
    Error, Result,
    screen::{Screen, active, colors},
};

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

/// Keeps the screen in order: when it goes, a progress line that is still drawn is left as it stands.
#[derive(Debug)]
#[must_use = "the guard lives as long as the process's work"]
pub struct Guard(());

impl Drop for Guard {
    fn drop(&mut self) {
        // An error message that is printed next would otherwise begin in the middle of the progress line.
        if let Some(bar) = active() {
            bar.abandon();
        }
    }
}

/// Sets up the logs of this process: lines to standard error, above the progress line if there is one.
///
/// `JOUST_LOG`, else `RUST_LOG`, holds the filter, such as `info` or `joust_queue=debug,warn`; without either it is `warn`.
///
/// # Errors
/// [`Error::LogFilter`] for a filter that does not parse, [`Error::LogsAlreadySetUp`] when called a second time.
pub fn init(format: LogFormat) -> Result<Guard> {
    let filter = filter(|name| std::env::var(name).ok())?;
    let ansi = colors(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    subscriber(format, filter, ansi, || Screen).try_init().map_err(|_| Error::LogsAlreadySetUp)?;
    Ok(Guard(()))
}

/// Reads the filter from the environment that `lookup` shows; an empty variable counts as unset.
fn filter(lookup: impl Fn(&str) -> Option<String>) -> Result<EnvFilter> {
    let set = |variable| lookup(variable).filter(|value| !value.is_empty()).map(|value| (variable, value));
    let (variable, value) = VARIABLES.into_iter().find_map(set).unwrap_or((VARIABLES[0], DEFAULT.to_owned()));
    EnvFilter::builder().parse(&value).map_err(|error| Error::LogFilter { variable, value, reason: error.to_string() })
}

fn subscriber<W>(format: LogFormat, filter: EnvFilter, ansi: bool, writer: W) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = SubscriberBuilder::default().with_env_filter(filter).with_ansi(ansi).with_writer(writer);
    match format {
        LogFormat::Plain => Box::new(lines.finish()),
        LogFormat::Json => Box::new(lines.json().flatten_event(true).finish()),
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
        with_default(subscriber(format, filter, false, move || writer.clone()), || {
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
