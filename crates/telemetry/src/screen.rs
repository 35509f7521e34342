//! The one place that writes to standard error, so that log lines and the progress line do not run into each other.

use std::io::{self, Write};

use indicatif::{ProgressBar, WeakProgressBar};
use parking_lot::Mutex;

/// The bar that is drawn now, if any; weak, so that its owner decides how long it lives.
static ACTIVE: Mutex<Option<WeakProgressBar>> = Mutex::new(None);

/// Makes `bar` the one that steps aside for other lines.
pub fn activate(bar: &ProgressBar) {
    *ACTIVE.lock() = Some(bar.downgrade());
}

/// Returns the bar that is drawn now.
pub fn active() -> Option<ProgressBar> {
    ACTIVE.lock().as_ref()?.upgrade().filter(|bar| !bar.is_finished())
}

/// Returns whether colours are wanted: standard error is a terminal and `NO_COLOR` is unset or empty (<https://no-color.org>).
pub fn colors(is_terminal: bool) -> bool {
    is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Standard error beside a progress line: what is written stands above it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Screen;

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match active() {
            Some(bar) => bar.suspend(|| io::stderr().write(bytes)),
            None => io::stderr().write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
