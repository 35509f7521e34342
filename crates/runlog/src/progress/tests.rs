use std::{io, sync::Arc};

use indicatif::TermLike;
use parking_lot::Mutex;

use super::*;
use joust_telemetry::screen::active;

fn snapshot(step: u64, steps: u64) -> ProgressSnapshot {
    ProgressSnapshot {
        step,
        steps,
        reward: Some(0.5312),
        win_rate: None,
        kl: Some(1.25),
        tokens_per_s: Some(312.4),
        staleness: Some(1.0),
    }
}

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Columns of [`Terminal`].
const WIDTH: usize = 100;

/// A terminal: the lines that stay above, and the one that is redrawn.
#[derive(Debug, Clone, Default)]
struct Terminal(Arc<Mutex<(Vec<String>, String)>>);

impl TermLike for Terminal {
    fn width(&self) -> u16 {
        WIDTH as u16
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        assert_eq!(n, 0, "one line needs no movement");
        Ok(())
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.move_cursor_up(n)
    }

    fn move_cursor_right(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_left(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.write_str(&format!("{text}\n"))
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        let (above, line) = &mut *self.0.lock();
        for letter in text.chars() {
            // A line that is filled to the last column goes on below when the next letter comes.
            if letter == '\n' || line.chars().count() == WIDTH {
                above.push(std::mem::take(line));
            }
            if letter != '\n' {
                line.push(letter);
            }
        }
        Ok(())
    }

    fn clear_line(&self) -> io::Result<()> {
        self.0.lock().1.clear();
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn lines_come_now_and_then_and_at_the_end() {
    let written = Written::default();
    let mut progress = Progress::line_by_line(40, Box::new(written.clone()));
    for step in 1..=39 {
        progress.step(&snapshot(step, 40));
        if step == 20 {
            progress.note("evaluation: win_rate=0.7");
        }
    }
    progress.finish();
    progress.finish();
    let text = String::from_utf8(written.0.lock().clone()).expect("text");
    let steps: Vec<&str> = text.lines().map(|line| line.split("  ").next().expect("a word")).collect();
    let mut expected = vec!["step 1/40".to_owned()];
    expected.extend((1..20).map(|step| format!("step {}/40", 2 * step)));
    expected.insert(11, "evaluation: win_rate=0.7".into());
    expected.push("step 39/40".into());
    assert_eq!(steps, expected);
    assert!(!text.contains('\u{1b}'), "no escape codes: {text:?}");
}

#[test]
fn a_line_holds_what_is_known() {
    let line = render(&snapshot(12, 120), Some(Duration::from_secs(187)));
    assert_eq!(line, "step 12/120  reward 0.531  KL 1.250  tokens/s 312  staleness 1.0  left 3m07s");
    let bare = render(&ProgressSnapshot { step: 1, steps: 2, ..Default::default() }, None);
    assert_eq!(bare, "step 1/2");
    assert_eq!([59, 60, 3725].map(|s| clock(Duration::from_secs(s))), ["59s", "1m00s", "1h02m"]);
}

#[test]
fn time_left_follows_the_pace_of_this_process() {
    let start = Instant::now();
    let mut pace = Pace::new(start);
    assert_eq!(pace.left(100), None);
    // Resumed with 50 steps done; a step takes 2 s, later 4 s.
    pace.step(51, start + Duration::from_secs(2));
    assert_eq!(pace.left(100), Some(Duration::from_secs(98)));
    for step in 52..=71 {
        pace.step(step, start + Duration::from_secs(2 + 4 * (step - 51)));
    }
    assert_eq!(pace.left(100), Some(Duration::from_secs(29 * 4)));
    assert_eq!(pace.left(71), Some(Duration::ZERO));
}

#[test]
fn a_note_stands_above_the_bar() {
    let terminal = Terminal::default();
    let target = ProgressDrawTarget::term_like(Box::new(terminal.clone()));
    let mut progress = Progress::on_bar(4, target, false);
    progress.step(&snapshot(1, 4));
    progress.note("evaluation: win_rate=0.7");
    progress.step(&snapshot(2, 4));
    assert!(active().is_some(), "log lines step around it");
    progress.finish();
    assert!(active().is_none());
    let screen = terminal.0.lock();
    let notes: Vec<&str> = screen.0.iter().map(|line| line.trim_end()).filter(|line| !line.is_empty()).collect();
    assert_eq!(notes, ["evaluation: win_rate=0.7"]);
    assert!(screen.1.contains("step 2/4  reward 0.531"), "{:?}", screen.1);
    assert!(!screen.1.contains('\u{1b}'), "no colours: {:?}", screen.1);
}
