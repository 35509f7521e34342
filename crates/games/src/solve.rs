//! Where a game or a method ends, computed without any of the code under test.

use crate::{Game, game::softmax};

const ITERATIONS: usize = 200_000;

/// Computes the equilibrium of the game regularised by `tau·KL(·‖μ)`: `π ∝ μ·exp(Pπ/τ)`, by damped iteration.
pub fn nash(game: &Game, tau: f64) -> Vec<f64> {
    let damping = (2.0 * tau * tau).min(0.2);
    let mut logits: Vec<f64> = game.reference.iter().map(|mu| mu.ln()).collect();
    for _ in 0..ITERATIONS {
        let wins = game.win_rates(&softmax(&logits));
        for ((logit, win), mu) in logits.iter_mut().zip(wins).zip(&game.reference) {
            *logit += damping * (mu.ln() + win / tau - *logit);
        }
    }
    softmax(&logits)
}

/// Computes where Nash-MD with a mixture stops: the policy whose mixture is the equilibrium at `τ/(1−c)`
/// (<https://arxiv.org/abs/2403.08635>, proposition 5.2).
pub fn nash_md_point(game: &Game, tau: f64, coef: f64) -> Vec<f64> {
    let mixture = nash(game, tau / (1.0 - coef));
    let logits: Vec<f64> =
        mixture.iter().zip(&game.reference).map(|(m, mu)| (m.ln() - coef * mu.ln()) / (1.0 - coef)).collect();
    softmax(&logits)
}

/// Computes where online DPO with soft labels stops: `Σ_j π_j·(P_kj − σ(β(h_k − h_j))) = 0` for every answer k.
pub fn dpo_point(game: &Game, beta: f64) -> Vec<f64> {
    let mut h = vec![0.0; game.answers()];
    for _ in 0..ITERATIONS {
        let logits: Vec<f64> = h.iter().zip(&game.reference).map(|(h, mu)| mu.ln() + h).collect();
        let policy = softmax(&logits);
        let pull = |k: usize| -> f64 {
            let term = |j: usize| {
                let implied = 1.0 / (1.0 + (beta * (h[j] - h[k])).exp());
                policy[j] * (game.preference[k][j] - implied)
            };
            (0..policy.len()).map(term).sum()
        };
        let pulls: Vec<f64> = (0..policy.len()).map(pull).collect();
        h.iter_mut().zip(pulls).for_each(|(h, pull)| *h += 0.5 * pull);
    }
    let logits: Vec<f64> = h.iter().zip(&game.reference).map(|(h, mu)| mu.ln() + h).collect();
    softmax(&logits)
}
