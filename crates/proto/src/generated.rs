//! What `tests/generate.rs` makes from `proto/`; the files under `gen/` are never edited.

/// The encoded `FileDescriptorSet` of all services, for server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!("gen/joust.binpb");

/// Records that several services share.
pub mod common {
    /// Version 1.
    #[allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated from commented proto files")]
    pub mod v1 {
        include!("gen/joust.common.v1.rs");
    }
}

/// Runs and membership.
pub mod coordinator {
    /// Version 1.
    #[allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated from commented proto files")]
    pub mod v1 {
        include!("gen/joust.coordinator.v1.rs");
    }
}

/// Judgements.
pub mod judge {
    /// Version 1.
    #[allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated from commented proto files")]
    pub mod v1 {
        include!("gen/joust.judge.v1.rs");
    }
}

/// Training and weights.
pub mod learner {
    /// Version 1.
    #[allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated from commented proto files")]
    pub mod v1 {
        include!("gen/joust.learner.v1.rs");
    }
}

/// Answers.
pub mod rollout {
    /// Version 1.
    #[allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated from commented proto files")]
    pub mod v1 {
        include!("gen/joust.rollout.v1.rs");
    }
}
