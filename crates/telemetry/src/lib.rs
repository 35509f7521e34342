//! Logs, the metrics of a run (JSONL, TensorBoard) and its archive of completions and judgements.
