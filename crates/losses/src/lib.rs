//! Preference losses as pure functions on tensors.
