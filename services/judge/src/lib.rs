//! Judge worker: leases rollouts, judges, pairs up, commits outcomes.
