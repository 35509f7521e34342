//! Learner: assigns outcomes to steps, trains, checkpoints, publishes.
