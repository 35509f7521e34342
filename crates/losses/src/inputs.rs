//! What pair losses read and what they return.

use tch::Tensor;

use crate::{
    Error, MaskedSums, Result,
    error::{float, like},
};

/// Summed log-probabilities of a batch of pairs, borrowed; only the policy's are always required.
///
/// Every tensor has shape `[B]` and kind float32 or float64; sums run over completion tokens, the EOS included iff it was
/// sampled, at temperature 1.
#[derive(Debug, Clone, Copy)]
pub struct PairLogps<'a> {
    policy_chosen: &'a Tensor,
    policy_rejected: &'a Tensor,
    reference: Option<[&'a Tensor; 2]>,
    tokens: Option<[&'a Tensor; 2]>,
    scores: Option<[&'a Tensor; 2]>,
    win_rates: Option<[&'a Tensor; 2]>,
    from_reference: Option<[&'a Tensor; 2]>,
    matched: Option<[&'a Tensor; 2]>,
    signs: Option<[&'a Tensor; 2]>,
    token_terms: Option<&'a Tensor>,
    degree_terms: Option<&'a Tensor>,
    tails: Option<[[&'a Tensor; 2]; 2]>,
    masked: Option<MaskedSums<'a>>,
    p: Option<&'a Tensor>,
    weight: Option<&'a Tensor>,
}

/// What a pair loss returns; the caller reduces.
#[derive(Debug)]
pub struct LossOutput {
    /// Loss of each pair times its weight, `[B]`; carries the gradient. The usual reduction is the mean over pairs.
    pub per_pair: Tensor,
    /// Implicit rewards of the chosen answers, `[B]`, detached.
    pub chosen_rewards: Tensor,
    /// Implicit rewards of the rejected answers, `[B]`, detached.
    pub rejected_rewards: Tensor,
}

impl<'a> PairLogps<'a> {
    /// Starts from log π(y⁺|x) and log π(y⁻|x) in nats, `[B]`; these two carry the gradient.
    pub fn new(policy_chosen: &'a Tensor, policy_rejected: &'a Tensor) -> Self {
        Self {
            policy_chosen,
            policy_rejected,
            reference: None,
            tokens: None,
            scores: None,
            win_rates: None,
            from_reference: None,
            matched: None,
            signs: None,
            token_terms: None,
            degree_terms: None,
            tails: None,
            masked: None,
            p: None,
            weight: None,
        }
    }

    /// Adds log π_ref(y⁺|x) and log π_ref(y⁻|x) in nats, `[B]`, without gradient.
    pub fn with_reference(self, ref_chosen: &'a Tensor, ref_rejected: &'a Tensor) -> Self {
        Self { reference: Some([ref_chosen, ref_rejected]), ..self }
    }

    /// Adds the lengths in completion tokens, `[B]`, any number kind.
    pub fn with_tokens(self, chosen_tokens: &'a Tensor, rejected_tokens: &'a Tensor) -> Self {
        Self { tokens: Some([chosen_tokens, rejected_tokens]), ..self }
    }

    /// Adds the judge's scores, `[B]`, any number kind; higher is better.
    pub fn with_scores(self, chosen: &'a Tensor, rejected: &'a Tensor) -> Self {
        Self { scores: Some([chosen, rejected]), ..self }
    }

    /// Adds the mean probabilities in [0, 1] to beat the prompt's answers, `[B]`, any number kind.
    pub fn with_win_rates(self, chosen: &'a Tensor, rejected: &'a Tensor) -> Self {
        Self { win_rates: Some([chosen, rejected]), ..self }
    }

    /// Adds 1 where the reference gave that answer and 0 where somebody else did, `[B]`; a pair may have none of the reference's.
    pub fn with_from_reference(self, chosen: &'a Tensor, rejected: &'a Tensor) -> Self {
        Self { from_reference: Some([chosen, rejected]), ..self }
    }

    /// Adds what stands at the rank of each answer in the step's other distribution, in nats, `[B]`: see [`crate::aot_loss`].
    pub fn with_matched(self, of_chosen: &'a Tensor, of_rejected: &'a Tensor) -> Self {
        Self { matched: Some([of_chosen, of_rejected]), ..self }
    }

    /// Adds 1 where a chosen answer is better than what it is matched with, −1 where it is worse and 0 where neither, and the same of what
    /// the rejected answers are matched with, `[B]`: see [`crate::dove_loss`].
    pub fn with_signs(self, of_chosen: &'a Tensor, of_rejected: &'a Tensor) -> Self {
        Self { signs: Some([of_chosen, of_rejected]), ..self }
    }

    /// Adds the mean of the rejected answer's token terms, `[B]`; carries the gradient: see [`crate::cringe_loss`].
    pub fn with_token_terms(self, terms: &'a Tensor) -> Self {
        Self { token_terms: Some(terms), ..self }
    }

    /// Adds how far the degree head is from telling how much was taken away from both answers, in nats, `[B]`; carries the gradient: see [`crate::spo_loss`].
    pub fn with_degree_terms(self, terms: &'a Tensor) -> Self {
        Self { degree_terms: Some(terms), ..self }
    }

    /// Adds the part of each sum that lies behind the shorter answer's length, of chosen and rejected, `[B]`; the policy's carry the
    /// gradient.
    pub fn with_tails(self, policy: [&'a Tensor; 2], reference: [&'a Tensor; 2]) -> Self {
        Self { tails: Some([policy, reference]), ..self }
    }

    /// Adds what masks leave of the answers' tokens, `[B]`: see [`crate::mapo_loss`].
    pub fn with_masked(self, sums: MaskedSums<'a>) -> Self {
        Self { masked: Some(sums), ..self }
    }

    /// Adds the probability in [0, 1] that chosen is the better answer, `[B]`; absent means 1, a hard label.
    pub fn with_p(self, p: &'a Tensor) -> Self {
        Self { p: Some(p), ..self }
    }

    /// Adds a factor on each pair's loss, `[B]`; absent means 1.
    pub fn with_weight(self, weight: &'a Tensor) -> Self {
        Self { weight: Some(weight), ..self }
    }

    /// Returns log π(y⁺|x) and log π(y⁻|x) after checking every tensor that is present.
    ///
    /// # Errors
    /// [`Error::NotAVector`], [`Error::Shape`], [`Error::Device`] or [`Error::Kind`] for a tensor that does not fit.
    pub(crate) fn policy(&self) -> Result<[&'a Tensor; 2]> {
        let expected = self.policy_chosen.size();
        if expected.len() != 1 {
            return Err(Error::NotAVector { found: expected });
        }
        let named = [
            ("policy_chosen", Some(self.policy_chosen)),
            ("policy_rejected", Some(self.policy_rejected)),
            ("ref_chosen", self.reference.map(|r| r[0])),
            ("ref_rejected", self.reference.map(|r| r[1])),
            ("chosen_tokens", self.tokens.map(|t| t[0])),
            ("rejected_tokens", self.tokens.map(|t| t[1])),
            ("chosen_scores", self.scores.map(|s| s[0])),
            ("rejected_scores", self.scores.map(|s| s[1])),
            ("chosen_win_rates", self.win_rates.map(|w| w[0])),
            ("rejected_win_rates", self.win_rates.map(|w| w[1])),
            ("chosen_from_reference", self.from_reference.map(|f| f[0])),
            ("rejected_from_reference", self.from_reference.map(|f| f[1])),
            ("matched_of_chosen", self.matched.map(|m| m[0])),
            ("matched_of_rejected", self.matched.map(|m| m[1])),
            ("sign_of_chosen", self.signs.map(|s| s[0])),
            ("sign_of_rejected", self.signs.map(|s| s[1])),
            ("token_terms", self.token_terms),
            ("degree_terms", self.degree_terms),
            ("policy_chosen_tail", self.tails.map(|[policy, _]| policy[0])),
            ("policy_rejected_tail", self.tails.map(|[policy, _]| policy[1])),
            ("ref_chosen_tail", self.tails.map(|[_, reference]| reference[0])),
            ("ref_rejected_tail", self.tails.map(|[_, reference]| reference[1])),
            ("p", self.p),
            ("weight", self.weight),
        ];
        for (index, (name, tensor)) in named.into_iter().enumerate() {
            let Some(tensor) = tensor else { continue };
            like(name, tensor, self.policy_chosen)?;
            // Lengths, scores, p and weight are cast; the four sums are not, because a bfloat16 sum has already lost the margin.
            if index < 4 {
                float(name, tensor)?;
            }
        }
        Ok([self.policy_chosen, self.policy_rejected])
    }

    /// Returns the log-ratios `hc = πc − refc` and `hr = πr − refr`, `[B]`.
    ///
    /// # Errors
    /// As [`Self::policy`], and [`Error::Missing`] without a reference.
    pub(crate) fn log_ratios(&self, loss: &'static str) -> Result<[Tensor; 2]> {
        let [policy_chosen, policy_rejected] = self.policy()?;
        let missing = Error::Missing { loss, input: "reference log-probabilities", setter: "with_reference" };
        let [ref_chosen, ref_rejected] = self.reference.ok_or(missing)?;
        Ok([policy_chosen - ref_chosen.detach(), policy_rejected - ref_rejected.detach()])
    }

    /// Returns both lengths, at least 1 each, in the kind of the log-probabilities, `[B]`.
    ///
    /// # Errors
    /// [`Error::Missing`] without lengths.
    pub(crate) fn lengths(&self, loss: &'static str) -> Result<[Tensor; 2]> {
        let missing = Error::Missing { loss, input: "lengths in tokens", setter: "with_tokens" };
        let [chosen, rejected] = self.tokens.ok_or(missing)?;
        let kind = self.policy_chosen.kind();
        Ok([chosen, rejected].map(|tokens| tokens.to_kind(kind).clamp_min(1.0)))
    }

    /// Returns log π(y|x)/|y| of both answers in nats a token, `[B]`.
    ///
    /// # Errors
    /// As [`Self::policy`] and [`Self::lengths`].
    pub(crate) fn mean_logps(&self, loss: &'static str) -> Result<[Tensor; 2]> {
        let [policy_chosen, policy_rejected] = self.policy()?;
        let [chosen_tokens, rejected_tokens] = self.lengths(loss)?;
        Ok([policy_chosen / chosen_tokens, policy_rejected / rejected_tokens])
    }

    /// Returns chosen minus rejected score, `[B]`, in the kind of the log-probabilities.
    ///
    /// # Errors
    /// [`Error::Missing`] without scores.
    pub(crate) fn score_gap(&self, loss: &'static str) -> Result<Tensor> {
        let missing = Error::Missing { loss, input: "the judge's scores", setter: "with_scores" };
        let [chosen, rejected] = self.scores.ok_or(missing)?;
        let kind = self.policy_chosen.kind();
        Ok(chosen.detach().to_kind(kind) - rejected.detach().to_kind(kind))
    }

    /// Returns what stands at the rank of each answer, without gradient, `[B]`.
    ///
    /// # Errors
    /// [`Error::Missing`] without it.
    pub(crate) fn matched(&self, loss: &'static str) -> Result<[Tensor; 2]> {
        let missing = Error::Missing { loss, input: "what the step matches answers with", setter: "with_matched" };
        Ok(self.matched.ok_or(missing)?.map(|values| values.detach().to_kind(self.policy_chosen.kind())))
    }

    /// Returns who is better of each answer and what it is matched with, `[B]`.
    ///
    /// # Errors
    /// [`Error::Missing`] without it.
    pub(crate) fn signs(&self, loss: &'static str) -> Result<[Tensor; 2]> {
        let missing = Error::Missing { loss, input: "who is better of matched answers", setter: "with_signs" };
        Ok(self.signs.ok_or(missing)?.map(|values| values.detach().to_kind(self.policy_chosen.kind())))
    }

    /// Returns the token terms of the rejected answers, `[B]`.
    ///
    /// # Errors
    /// [`Error::Missing`] without them.
    pub(crate) fn token_terms(&self, loss: &'static str) -> Result<&'a Tensor> {
        self.token_terms.ok_or(Error::Missing { loss, input: "the rejected tokens' terms", setter: "with_token_terms" })
    }

    /// Returns the degree head's loss on both answers, `[B]`.
    ///
    /// # Errors
    /// [`Error::Missing`] without it.
    pub(crate) fn degree_terms(&self, loss: &'static str) -> Result<&'a Tensor> {
        self.degree_terms.ok_or(Error::Missing { loss, input: "the degree head's loss", setter: "with_degree_terms" })
    }

    /// Returns what masks leave of both answers.
    ///
    /// # Errors
    /// [`Error::Missing`] without it.
    pub(crate) fn masked(&self, loss: &'static str) -> Result<MaskedSums<'a>> {
        self.masked.ok_or(Error::Missing { loss, input: "sums over masked tokens", setter: "with_masked" })
    }

    /// Returns the log-ratios of the tails, `[B]`.
    ///
    /// # Errors
    /// [`Error::Missing`] without tails.
    pub(crate) fn tail_ratios(&self, loss: &'static str) -> Result<[Tensor; 2]> {
        let missing = Error::Missing { loss, input: "sums behind the shorter answer", setter: "with_tails" };
        let [policy, reference] = self.tails.ok_or(missing)?;
        Ok([policy[0] - reference[0].detach(), policy[1] - reference[1].detach()])
    }

    /// Returns log π of the answers that the reference gave, `[B]`; 0 for a pair without one.
    ///
    /// # Errors
    /// As [`Self::policy`], and [`Error::Missing`] without the mask.
    pub(crate) fn policy_of_reference_answers(&self, loss: &'static str) -> Result<Tensor> {
        let [policy_chosen, policy_rejected] = self.policy()?;
        let missing = Error::Missing { loss, input: "who gave the answers", setter: "with_from_reference" };
        let masks = self.from_reference.ok_or(missing)?;
        let [chosen, rejected] = masks.map(|mask| mask.detach().to_kind(policy_chosen.kind()));
        Ok(chosen * policy_chosen + rejected * policy_rejected)
    }

    /// Returns the win rates of both answers in the kind of the log-probabilities, `[B]`; without them p and 1 − p, p being 1
    /// where labels are hard.
    pub(crate) fn win_rates(&self) -> [Tensor; 2] {
        let kind = self.policy_chosen.kind();
        if let Some(rates) = self.win_rates {
            return rates.map(|rate| rate.detach().to_kind(kind));
        }
        let p = self.p.map_or_else(|| self.policy_chosen.detach().ones_like(), |p| p.detach().to_kind(kind));
        let other = 1.0 - &p;
        [p, other]
    }

    /// Mixes `p·l(0, 1) + (1−p)·l(1, 0)` and applies the weights, `[B]`.
    ///
    /// `pair_loss` gets the indices of winner and loser: 0 is the chosen answer, 1 the rejected one. Without `p` only the first
    /// term is computed, so a hard label never multiplies the other one by zero.
    pub(crate) fn mix(&self, pair_loss: impl Fn(usize, usize) -> Tensor) -> Tensor {
        let mut loss = pair_loss(0, 1);
        if let Some(p) = self.p {
            let p = p.detach().to_kind(loss.kind());
            loss = &p * loss + (1.0 - &p) * pair_loss(1, 0);
        }
        self.weigh(loss)
    }

    /// Applies the weights, `[B]`.
    pub(crate) fn weigh(&self, loss: Tensor) -> Tensor {
        match self.weight {
            Some(weight) => weight.detach().to_kind(loss.kind()) * loss,
            None => loss,
        }
    }
}

impl LossOutput {
    /// Joins losses with the detached rewards `scale · values`.
    pub(crate) fn new(per_pair: Tensor, [chosen, rejected]: &[Tensor; 2], scale: f64) -> Self {
        Self { per_pair, chosen_rewards: scale * chosen.detach(), rejected_rewards: scale * rejected.detach() }
    }
}
