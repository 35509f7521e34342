//! How far a run is, on a terminal as one line that is redrawn, elsewhere as a line now and then.

use std::{
    collections::VecDeque,
    io::{IsTerminal, Write},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle};

use joust_telemetry::screen::{Screen, activate, colors};

/// Plain lines of a run, beside those of [`LINE_EVERY`].
const LINES: u64 = 20;
/// Longest silence between two plain lines while steps go on.
const LINE_EVERY: Duration = Duration::from_secs(60);
/// Steps whose pace the time left is computed from: long enough to smooth, short enough to follow a run that slows down.
const PACE_STEPS: usize = 20;

/// What a run is like after a step.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ProgressSnapshot {
    /// Steps done.
    pub step: u64,
    /// Steps of the run.
    pub steps: u64,
    /// Mean score of the answers, in the judge's unit.
    pub reward: Option<f64>,
    /// Win rate of the last evaluation, in [0, 1].
    pub win_rate: Option<f64>,
    /// KL divergence from the reference in nats.
    pub kl: Option<f64>,
    /// Sampled tokens a second.
    pub tokens_per_s: Option<f64>,
    /// Policy versions between sampling and learning.
    pub staleness: Option<f64>,
}

/// The progress of one run on standard error.
pub struct Progress {
    steps: u64,
    pace: Pace,
    place: Place,
}

/// Where it is shown.
enum Place {
    /// Redrawn on a terminal.
    Bar(ProgressBar),
    /// Line by line.
    Plain(Plain),
}

impl Progress {
    /// Shows a run of `steps` steps on standard error; colours only on a terminal and without `NO_COLOR`.
    pub fn new(steps: u64) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        // Without cursor movements a bar would be nothing at all.
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        if is_terminal && !dumb {
            Self::on_bar(steps, ProgressDrawTarget::stderr(), colors(true))
        } else {
            Self::line_by_line(steps, Box::new(Screen))
        }
    }

    fn on_bar(steps: u64, target: ProgressDrawTarget, colors: bool) -> Self {
        let template = if colors { "{bar:20.cyan/dim} {wide_msg}" } else { "{bar:20} {wide_msg}" };
        let style = ProgressStyle::with_template(template).expect("the template is one of two that tests draw");
        let bar = ProgressBar::with_draw_target(Some(steps), target)
            .with_style(style.progress_chars("━╸─"))
            .with_finish(ProgressFinish::Abandon);
        activate(&bar);
        Self { steps, pace: Pace::new(Instant::now()), place: Place::Bar(bar) }
    }

    fn line_by_line(steps: u64, out: Box<dyn Write + Send>) -> Self {
        let now = Instant::now();
        let every = steps.div_ceil(LINES).max(1);
        Self { steps, pace: Pace::new(now), place: Place::Plain(Plain { out, every, shown: None, last: now }) }
    }

    /// Shows the state after a step.
    pub fn step(&mut self, snapshot: &ProgressSnapshot) {
        let now = Instant::now();
        self.steps = snapshot.steps;
        self.pace.step(snapshot.step, now);
        let line = render(snapshot, self.pace.left(snapshot.steps));
        match &mut self.place {
            Place::Bar(bar) => {
                bar.set_length(snapshot.steps);
                bar.set_position(snapshot.step);
                bar.set_message(line);
                // Each of these may be left undrawn, as too soon after the last.
                bar.force_draw();
            }
            Place::Plain(plain) => plain.step(snapshot, line, now),
        }
    }

    /// Prints a line of its own, above the progress line where there is one.
    pub fn note(&mut self, text: &str) {
        match &mut self.place {
            Place::Bar(bar) => bar.println(text),
            Place::Plain(plain) => plain.write(text),
        }
    }

    /// Ends the progress: the line stays as it stands, and a last plain line is written if it was not yet.
    pub fn finish(&mut self) {
        match &mut self.place {
            Place::Bar(bar) => bar.abandon(),
            Place::Plain(plain) => plain.finish(),
        }
    }
}

/// Line by line output.
struct Plain {
    out: Box<dyn Write + Send>,
    every: u64,
    /// The last line, while it is not written.
    shown: Option<String>,
    last: Instant,
}

impl Plain {
    fn step(&mut self, snapshot: &ProgressSnapshot, line: String, now: Instant) {
        let due = snapshot.step.is_multiple_of(self.every) || snapshot.step == snapshot.steps || snapshot.step == 1;
        if due || now.duration_since(self.last) >= LINE_EVERY {
            self.write(&line);
            self.last = now;
            self.shown = None;
        } else {
            self.shown = Some(line);
        }
    }

    fn finish(&mut self) {
        if let Some(line) = self.shown.take() {
            self.write(&line);
        }
    }

    fn write(&mut self, line: &str) {
        // A closed standard error must not stop a run.
        let _ = self.out.write_all(format!("{line}\n").as_bytes());
    }
}

/// When the last steps ended.
struct Pace(VecDeque<(Instant, Option<u64>)>);

impl Pace {
    fn new(start: Instant) -> Self {
        Self(VecDeque::from([(start, None)]))
    }

    fn step(&mut self, step: u64, now: Instant) {
        // The start is the end of the step before the first one shown, which after a resume is not step 0.
        if let Some((_, start @ None)) = self.0.front_mut() {
            *start = Some(step.saturating_sub(1));
        }
        self.0.push_back((now, Some(step)));
        if self.0.len() > PACE_STEPS + 1 {
            self.0.pop_front();
        }
    }

    /// Returns the time to the end at the pace of the last steps; `None` before there is one.
    fn left(&self, steps: u64) -> Option<Duration> {
        let (&(from, first), &(to, last)) = (self.0.front()?, self.0.back()?);
        let (first, last) = (first?, last?);
        let done = last.checked_sub(first).filter(|done| *done > 0)?;
        let ratio = steps.saturating_sub(last) as f64 / done as f64;
        Duration::try_from_secs_f64(to.duration_since(from).as_secs_f64() * ratio).ok()
    }
}

fn render(snapshot: &ProgressSnapshot, left: Option<Duration>) -> String {
    let mut line = format!("step {}/{}", snapshot.step, snapshot.steps);
    let mut add = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            line += &format!("  {name} {value}");
        }
    };
    add("reward", snapshot.reward.map(|value| format!("{value:.3}")));
    add("win rate", snapshot.win_rate.map(|value| format!("{value:.2}")));
    add("KL", snapshot.kl.map(|value| format!("{value:.3}")));
    add("tokens/s", snapshot.tokens_per_s.map(|value| format!("{value:.0}")));
    add("staleness", snapshot.staleness.map(|value| format!("{value:.1}")));
    add("left", left.map(clock));
    line
}

/// Writes a duration as `1h02m`, `3m07s` or `12s`.
fn clock(left: Duration) -> String {
    let seconds = left.as_secs_f64().round() as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds:02}s"),
        (hours, minutes, _) => format!("{hours}h{minutes:02}m"),
    }
}

#[cfg(test)]
mod tests;
