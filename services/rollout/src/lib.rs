//! Rollout worker: leases prompts, samples answers, commits rollouts.
