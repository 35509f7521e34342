//! What a template may use. Templates come with models of strangers, so each use has a bound.

use std::cell::Cell;

use super::error::{Fault, Result};

/// Largest template source: the longest public ones have 60 KiB.
pub(crate) const MAX_SOURCE_BYTES: usize = 1 << 20;
/// Largest rendered text and largest single text: 4 M tokens, beyond every context.
pub(crate) const MAX_TEXT_BYTES: usize = 16 << 20;
/// Sum of what is allocated while rendering: a megabyte of messages copied 200 times.
pub(crate) const MAX_ALLOCATED_BYTES: u64 = 256 << 20;
/// Evaluated nodes and handled 64-byte pieces: 1 000 messages take about 1 M.
pub(crate) const MAX_STEPS: u64 = 20_000_000;
/// Nested evaluations; Python stops macros that call themselves about 300 calls deep.
pub(crate) const MAX_DEPTH: u32 = 2_500;
/// Nested brackets, operators and blocks of the source; Python's parser stops at 200 brackets.
pub(crate) const MAX_NESTING: u32 = 200;
/// Nested lists and dicts that a template builds; JSON readers stop at 128.
pub(crate) const MAX_VALUE_DEPTH: u32 = 500;
/// Longest `range`, as Jinja2's sandbox.
pub(crate) const MAX_RANGE: u64 = 100_000;
/// Largest integer: Python prints none above 4 300 digits.
pub(crate) const MAX_INTEGER_BITS: u64 = 1 << 16;
/// Stack of the thread that renders: twice what `MAX_DEPTH` nested evaluations take in a build for tests.
pub(crate) const STACK_BYTES: usize = 64 << 20;

/// Counts what a rendering uses.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    steps: Cell<u64>,
    bytes: Cell<u64>,
}

impl Meter {
    /// Counts steps.
    pub(crate) fn step(&self, count: u64) -> Result<()> {
        let steps = self.steps.get().saturating_add(count);
        self.steps.set(steps);
        if steps > MAX_STEPS { Err(Fault::bound("steps", MAX_STEPS)) } else { Ok(()) }
    }

    /// Counts the reading of a text.
    pub(crate) fn read(&self, bytes: usize) -> Result<()> {
        self.step(1 + bytes as u64 / 64)
    }

    /// Counts the allocation of a text.
    pub(crate) fn text(&self, bytes: usize) -> Result<()> {
        if bytes > MAX_TEXT_BYTES {
            return Err(Fault::bound("bytes of one text", MAX_TEXT_BYTES as u64));
        }
        self.allocate(bytes as u64)
    }

    /// Counts the allocation of a list's places.
    pub(crate) fn places(&self, count: usize) -> Result<()> {
        self.allocate((count as u64).saturating_mul(48))
    }

    fn allocate(&self, count: u64) -> Result<()> {
        let bytes = self.bytes.get().saturating_add(count);
        self.bytes.set(bytes);
        if bytes > MAX_ALLOCATED_BYTES {
            return Err(Fault::bound("allocated bytes", MAX_ALLOCATED_BYTES));
        }
        self.step(1 + count / 64)
    }
}
