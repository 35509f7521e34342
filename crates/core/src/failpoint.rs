//! Named places at which a test can kill the process, to show that what was durable before is enough.
//!
//! `JOUST_FAILPOINT=name:n` aborts the process the n-th time (from 1) that it passes `name`. Unset, a pass costs one load.

use std::{
    collections::HashMap,
    sync::{Mutex, OnceLock},
};

struct Plan {
    name: String,
    at: u64,
    passes: Mutex<HashMap<&'static str, u64>>,
}

fn plan() -> Option<&'static Plan> {
    static PLAN: OnceLock<Option<Plan>> = OnceLock::new();
    let read = || {
        let text = std::env::var("JOUST_FAILPOINT").ok()?;
        let (name, at) = text.split_once(':')?;
        Some(Plan { name: name.to_owned(), at: at.parse().ok()?, passes: Mutex::default() })
    };
    PLAN.get_or_init(read).as_ref()
}

/// Aborts the process, without running destructors, if a test asked for it here.
pub fn pass(name: &'static str) {
    let Some(plan) = plan().filter(|plan| plan.name == name) else { return };
    let mut passes = plan.passes.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let count = passes.entry(name).or_default();
    *count += 1;
    if *count == plan.at {
        std::process::abort();
    }
}
