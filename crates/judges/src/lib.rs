//! Judges: one trait, rule, oracle and reward-model backends; a judgement has a status.
