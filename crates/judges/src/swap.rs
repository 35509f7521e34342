//! Asking in both orders: what is the preference, what is the position.

/// Both orders of one comparison, pooled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pooled {
    /// Log-odds that candidate A is preferred, position removed.
    pub logit: f64,
    /// Log-odds that the judge adds to the one shown first.
    pub position_gap: f64,
}

/// Pools the two orders by the mean of the log-odds, which removes an additive position bias exactly.
///
/// Averaging probabilities instead shrinks towards 1/2: with d = 0.5 and a bias of 1 it gives 0.598, where σ(0.5) = 0.622.
///
/// # Arguments
/// * `first_ab` - log-odds that the first shown wins, A shown first.
/// * `first_ba` - log-odds that the first shown wins, B shown first.
pub fn pool_orders(first_ab: f64, first_ba: f64) -> Pooled {
    Pooled { logit: (first_ab - first_ba) / 2.0, position_gap: (first_ab + first_ba) / 2.0 }
}
