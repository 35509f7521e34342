//! Coordinator: puts prompts on the queue within the staleness bound.
