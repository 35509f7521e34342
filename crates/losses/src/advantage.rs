//! From rewards to advantages: pure functions on the numbers of a prompt or a step.

/// What a group's standard deviation is raised by before it divides, as in TRL.
const GROUP_EPSILON: f64 = 1e-4;
/// What a variance is raised by before its root divides, as in TRL.
const WHITEN_EPSILON: f64 = 1e-8;

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// Computes `A_k = R_k − mean of the others = K/(K−1)·(R_k − R̄)` (<https://arxiv.org/abs/2402.14740>); 0 for a single answer.
pub fn rloo_advantages(rewards: &[f64]) -> Vec<f64> {
    let (mean, k) = (mean(rewards), rewards.len() as f64);
    let scale = if rewards.len() < 2 { 0.0 } else { k / (k - 1.0) };
    rewards.iter().map(|reward| scale * (reward - mean)).collect()
}

/// Computes `A_k = (R_k − R̄)/(std + 1e-4)`, the standard deviation over K − 1 as in TRL and OpenRLHF
/// (<https://arxiv.org/abs/2402.03300>); all 0 where the rewards are equal.
pub fn grpo_advantages(rewards: &[f64]) -> Vec<f64> {
    let mean = mean(rewards);
    let squares: f64 = rewards.iter().map(|reward| (reward - mean).powi(2)).sum();
    let deviation = (squares / (rewards.len().max(2) - 1) as f64).sqrt();
    rewards.iter().map(|reward| (reward - mean) / (deviation + GROUP_EPSILON)).collect()
}

/// Computes the rewards of an answer's tokens: `−kl_coef·log_ratio` each, and the score on the last (TRL, OpenRLHF).
pub fn token_rewards(log_ratios: &[f64], kl_coef: f64, score: f64) -> Vec<f64> {
    let mut rewards: Vec<f64> = log_ratios.iter().map(|ratio| -kl_coef * ratio).collect();
    if let Some(last) = rewards.last_mut() {
        *last += score;
    }
    rewards
}

/// Computes `G_t = Σ_{u≥t} γ^{u−t}·r_u`.
pub fn rewards_to_go(rewards: &[f64], gamma: f64) -> Vec<f64> {
    gae(rewards, &vec![0.0; rewards.len()], gamma, 1.0).0
}

/// Computes generalised advantages and returns: `δ_t = r_t + γV_{t+1} − V_t`, `A_t = δ_t + γλA_{t+1}`, `R_t = A_t + V_t`, the value
/// behind the last token being 0 (<https://arxiv.org/abs/1506.02438>).
///
/// # Arguments
/// * `rewards`, `values` - one a token.
pub fn gae(rewards: &[f64], values: &[f64], gamma: f64, lambda: f64) -> (Vec<f64>, Vec<f64>) {
    let (mut advantage, mut next) = (0.0, 0.0);
    let mut advantages: Vec<f64> = rewards
        .iter()
        .zip(values)
        .rev()
        .map(|(reward, value)| {
            advantage = reward + gamma * next - value + gamma * lambda * advantage;
            next = *value;
            advantage
        })
        .collect();
    advantages.reverse();
    let returns = advantages.iter().zip(values).map(|(advantage, value)| advantage + value).collect();
    (advantages, returns)
}

/// Moves values to mean 0 and variance 1: `(x − x̄)/√(var + 1e-8)`, the variance over n − 1 as in TRL.
pub fn whiten(values: &[f64]) -> Vec<f64> {
    let mean = mean(values);
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let variance = squares / (values.len().max(2) - 1) as f64;
    values.iter().map(|value| (value - mean) / (variance + WHITEN_EPSILON).sqrt()).collect()
}
