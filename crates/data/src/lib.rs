//! Tokenizers, chat templates and data files (JSONL, Parquet) read into valid records.
