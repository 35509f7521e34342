//! Trainer: prepare, log-probs, optimizer, schedules, checkpoints with their ledger.
