//! A symmetric game on a few answers, and how far a policy is from its equilibria.

/// Answers, who is preferred to whom, and the reference policy.
#[derive(Debug, Clone, PartialEq)]
pub struct Game {
    /// Name, for tables.
    pub name: &'static str,
    /// `P[i][j]`, the probability that answer i is preferred to answer j; `P[i][j] + P[j][i] = 1`.
    pub preference: Vec<Vec<f64>>,
    /// The reference policy μ, above 0 everywhere.
    pub reference: Vec<f64>,
}

fn log_sum_exp(values: &[f64]) -> f64 {
    let largest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    largest + values.iter().map(|value| (value - largest).exp()).sum::<f64>().ln()
}

/// Returns the softmax of logits.
pub(crate) fn softmax(logits: &[f64]) -> Vec<f64> {
    let normaliser = log_sum_exp(logits);
    logits.iter().map(|logit| (logit - normaliser).exp()).collect()
}

/// Returns half the sum of absolute differences.
pub(crate) fn total_variation(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum::<f64>() / 2.0
}

fn kl(policy: &[f64], reference: &[f64]) -> f64 {
    let term = |(p, q): (&f64, &f64)| if *p > 0.0 { p * (p / q).ln() } else { 0.0 };
    policy.iter().zip(reference).map(term).sum()
}

impl Game {
    /// The noisy cycle of three answers, intransitive and asymmetric.
    pub fn noisy_cycle() -> Self {
        let preference = vec![vec![0.5, 0.9, 0.2], vec![0.1, 0.5, 0.7], vec![0.8, 0.3, 0.5]];
        Self { name: "noisy_cycle", preference, reference: vec![0.6, 0.3, 0.1] }
    }

    /// Rock, paper, scissors with noise, where each answer beats the next with probability 0.9.
    pub fn cycle() -> Self {
        let preference = vec![vec![0.5, 0.9, 0.1], vec![0.1, 0.5, 0.9], vec![0.9, 0.1, 0.5]];
        Self { name: "cycle", preference, reference: vec![0.6, 0.3, 0.1] }
    }

    /// Four answers, all orders mixed.
    pub fn four() -> Self {
        let preference = vec![
            vec![0.5, 0.7, 0.4, 0.6],
            vec![0.3, 0.5, 0.8, 0.2],
            vec![0.6, 0.2, 0.5, 0.9],
            vec![0.4, 0.8, 0.1, 0.5],
        ];
        Self { name: "four", preference, reference: vec![0.4, 0.3, 0.2, 0.1] }
    }

    /// Returns the number of answers.
    pub fn answers(&self) -> usize {
        self.reference.len()
    }

    /// Returns the probability of each answer to be preferred to one of `policy`.
    pub fn win_rates(&self, policy: &[f64]) -> Vec<f64> {
        self.preference.iter().map(|row| row.iter().zip(policy).map(|(p, q)| p * q).sum()).collect()
    }

    /// Returns what the best response gains on a policy in the game regularised by `tau·KL(·‖μ)`; 0 iff it is the equilibrium.
    ///
    /// `max_π' P_τ(π' ≻ π) − ½`, reached by `π' ∝ μ·exp(Pπ/τ)` (<https://arxiv.org/abs/2312.00886>).
    pub fn exploitability(&self, policy: &[f64], tau: f64) -> f64 {
        let wins = self.win_rates(policy);
        let tilted: Vec<f64> = wins.iter().zip(&self.reference).map(|(win, mu)| mu.ln() + win / tau).collect();
        // The value of the best response is tau times the log-normaliser.
        tau * log_sum_exp(&tilted) + tau * kl(policy, &self.reference) - 0.5
    }

    /// Returns the duality gap of the game without a regulariser: `max_y P(y ≻ π) − min_y P(π ≻ y)`.
    pub fn duality_gap(&self, policy: &[f64]) -> f64 {
        let wins = self.win_rates(policy);
        let best = wins.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        best - (1.0 - best)
    }

    /// Mixes a policy with the reference: `π^{1−c}·μ^c`, normalised.
    pub fn mixture(&self, policy: &[f64], coef: f64) -> Vec<f64> {
        let logits: Vec<f64> =
            policy.iter().zip(&self.reference).map(|(p, mu)| (1.0 - coef) * p.ln() + coef * mu.ln()).collect();
        softmax(&logits)
    }
}
