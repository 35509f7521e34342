//! Named places at which a test can kill the process, to show that what was durable before is enough.
//!
//! `JOUST_FAILPOINT=name:n` aborts the process the n-th time (from 1) that it passes `name`, and `name:n:panic` panics there.
//! Unset, a pass costs one load.

use std::{
    collections::HashMap,
    sync::{Mutex, OnceLock},
};

struct Plan {
    name: String,
    at: u64,
    panics: bool,
    passes: Mutex<HashMap<&'static str, u64>>,
}

fn plan() -> Option<&'static Plan> {
    static PLAN: OnceLock<Option<Plan>> = OnceLock::new();
    let read = || {
        let text = std::env::var("JOUST_FAILPOINT").ok()?;
        let (name, rest) = text.split_once(':')?;
        let (at, action) = rest.split_once(':').unwrap_or((rest, "abort"));
        let (at, panics) = (at.parse().ok()?, action == "panic");
        Some(Plan { name: name.to_owned(), at, panics, passes: Mutex::default() })
    };
    PLAN.get_or_init(read).as_ref()
}

/// Aborts the process, without running destructors, if a test asked for it here.
///
/// # Panics
/// If a test asked for that.
#[expect(clippy::panic, reason = "it panics where a test wants to see what a panic does")]
pub fn pass(name: &'static str) {
    let Some(plan) = plan().filter(|plan| plan.name == name) else { return };
    let mut passes = plan.passes.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let count = passes.entry(name).or_default();
    *count += 1;
    let due = *count == plan.at;
    drop(passes);
    match due {
        true if plan.panics => panic!("failpoint {name}"),
        true => std::process::abort(),
        false => {}
    }
}
