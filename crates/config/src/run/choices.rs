//! The closed choices of a run file: every value that the design names, whether this build can run it or not.
//!
//! Which of them can run today is said in one place, [`crate::works`].

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A name for a point in the product of the five choices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// Online DPO with a judge's comparisons, as in <https://arxiv.org/abs/2402.04792>.
    OaifDpo,
    /// The same with the IPO loss.
    OaifIpo,
    /// The same with the reference-normalised hinge loss (SLiC).
    OaifSlic,
    /// Self-play preference optimization, <https://arxiv.org/abs/2405.00675>.
    Sppo,
    /// Nash learning against a mixture of policy and reference, <https://arxiv.org/abs/2312.00886>.
    NashMd,
    /// Nash learning against an averaged policy.
    NashEma,
    /// IPO on answers of the mixture, <https://arxiv.org/abs/2403.08635>.
    IpoMd,
    /// Exploratory preference optimization, <https://arxiv.org/abs/2405.21046>.
    Xpo,
    /// Best against worst of K scored answers, reference refreshed at iteration ends.
    IterativeDpo,
    /// Proximal policy optimization.
    Ppo,
    /// REINFORCE with a leave-one-out baseline.
    Rloo,
    /// Group relative policy optimization.
    Grpo,
    /// REINFORCE with a batch-normalised advantage.
    #[serde(rename = "reinforce++")]
    ReinforcePlusPlus,
}

impl Preset {
    /// Every preset, in the order of the documentation.
    pub const ALL: [Self; 13] = [
        Self::OaifDpo,
        Self::OaifIpo,
        Self::OaifSlic,
        Self::Sppo,
        Self::NashMd,
        Self::NashEma,
        Self::IpoMd,
        Self::Xpo,
        Self::IterativeDpo,
        Self::Ppo,
        Self::Rloo,
        Self::Grpo,
        Self::ReinforcePlusPlus,
    ];
}

/// Who answers a prompt: the schema of [`joust_core::Player`].
#[derive(JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(dead_code, reason = "only its schema is used; a test holds it to joust_core::Player")]
pub(crate) enum PlayerName {
    /// The current policy.
    Policy,
    /// The reference model.
    Reference,
    /// Per-token geometric mixture of policy and reference.
    Mixture,
    /// The averaged policy.
    Ema,
    /// The policy of one iteration before.
    Past,
    /// The policy, asked with `sampling.style` before the prompt; it is trained as if it had answered the plain prompt (counterfactual DPO).
    Styled,
    /// The policy, shown the best of the answers before its own and asked by `sampling.revision` for a better one; it is trained as if it had
    /// answered the plain prompt (PRS).
    Revised,
}

/// What the answers that reach the judge are chosen by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AnnotateBy {
    /// They stand best for all and are least alike (AEPO).
    #[default]
    Aepo,
    /// Their implicit rewards are closest: the policy has not decided between them.
    Margin,
}

/// What the judge is asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// A number for each answer.
    Score,
    /// The probability that the first of two answers is preferred.
    #[default]
    Compare,
    /// The K x K matrix of preference probabilities.
    Rank,
}

/// What becomes of a probability of preference.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Label {
    /// The winner is chosen, however narrowly.
    #[default]
    Hard,
    /// The loss is told the probability.
    Soft,
    /// The winner is drawn with the probability.
    Sampled,
}

/// Which answers are contrasted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Select {
    /// The strongest against the weakest; with two answers the pair.
    #[default]
    BestWorst,
    /// The strongest against a random other.
    MaxRandom,
    /// Every two answers.
    AllPairs,
    /// Every ordered pair whose probability exceeds a threshold (RS-DPO).
    Rejection,
    /// The best against the lowest of a random five.
    SweetSpot,
    /// The strongest against the weakest, the second against the last but one, and so on (OSP).
    Ranked,
    /// The two strongest.
    MaxMax,
    /// The strongest against the weakest first, against better and better answers later in the run (Curry-DPO).
    Curriculum,
    /// Answers with their win rate against the others.
    WinRate,
    /// The policy's answer against the opponent's.
    Opponent,
    /// The whole ranked list.
    List,
    /// Each answer alone, with its score.
    Single,
}

/// Which pairs are refused; with soft labels ties and identical answers stay, because their fixed points need them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    /// Pairs without a winner.
    Ties,
    /// Pairs of the same tokens.
    Identical,
    /// Answers that did not end in EOS.
    Truncated,
}

/// What an example's loss is multiplied by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Weight {
    /// The judge's probability of the preference: clear pairs count more (OPTune).
    ScoreGap,
    /// `staleness_decay` for each policy version since the answers.
    Staleness,
    /// How probable both answers are under the policy of now, by token and against its own spread (WPO).
    Wpo,
}

/// What pairs of a step are ranked by when only a share of them is trained.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeepBy {
    /// The reference's log-prob a token of chosen minus rejected, highest first.
    #[default]
    Clarity,
    /// The implicit margin, smallest first: pairs that are not settled.
    Margin,
    /// The similarity of the answers' hidden states, lowest first: pairs that do not push the chosen answer down (CHES).
    Ches,
}

/// Which applied examples are trained again first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReplayOrder {
    /// Those applied last.
    #[default]
    Recent,
    /// Any, with equal probability.
    Uniform,
    /// Those with the smallest margin.
    Margin,
}

/// What the policy is held to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReferenceKind {
    /// The checkpoint that the run began with.
    #[default]
    Initial,
    /// The policy of the last iteration end.
    Previous,
    /// The averaged policy.
    Ema,
    /// Nothing.
    None,
}

/// What is minimised; `docs/algorithms.md` gives each formula.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LossName {
    /// Logistic loss on the implicit reward margin; with `label_smoothing` cDPO.
    #[default]
    Dpo,
    /// Squared distance of the summed log-ratio margin from 1/(2 beta).
    Ipo,
    /// The same on averages over tokens, as in TRL's offline trainer.
    IpoAvg,
    /// Hinge on the reference-normalised margin (SLiC-norm).
    Hinge,
    /// Reference-free hinge with a likelihood term (SLiC-HF).
    SlicHf,
    /// Unbiased under label noise.
    Robust,
    /// EXO on pairs.
    ExoPair,
    /// Noise-contrastive alignment on pairs.
    NcaPair,
    /// Binary classifier on pairs.
    BcoPair,
    /// Anchored, chosen up and rejected down.
    ApoZero,
    /// Anchored, both down.
    ApoDown,
    /// The discovered mixture of logistic and exponential loss.
    Discopop,
    /// DPO on averages over tokens.
    SigmoidNorm,
    /// Alignment via optimal transport, paired.
    Aot,
    /// Alignment via optimal transport, unpaired.
    AotUnpaired,
    /// DPO held by the Jensen-Shannon divergence.
    DpoJs,
    /// DPO held by an alpha-divergence.
    DpoAlpha,
    /// DPO in which tokens behind the shorter answer count less.
    LdDpo,
    /// The implicit margin regressed on the judge's.
    RewardGap,
    /// The same as a divergence of two probabilities.
    RewardGapKl,
    /// DPO with a length term.
    RDpo,
    /// DPO with a likelihood term.
    Rpo,
    /// Contrastive preference optimization.
    Cpo,
    /// Odds-ratio preference optimization.
    Orpo,
    /// DPO with an offset from the score gap.
    Odpo,
    /// DPO with a penalty on a falling chosen likelihood.
    Dpop,
    /// DPO with a shifted rejected term.
    DpoShift,
    /// Simple preference optimization.
    Simpo,
    /// SimPO with an alpha-shaped reward.
    Alphapo,
    /// DPO with learned masks on tokens, SparsePO.
    SparsePo,
    /// DPO with masks on tokens from the reference's activations, MaPO.
    Mapo,
    /// DPO beside a head that tells how much of an answer is left, SPO.
    Spo,
    /// Absolute log-likelihoods.
    Asft,
    /// Pairwise Cringe.
    Cringe,
    /// Kahneman-Tversky optimization.
    Kto,
    /// Binary classifier on single answers.
    BcoUnpaired,
    /// Self-play preference optimization on all K answers.
    SppoList,
    /// Plackett-Luce likelihood of the ranking.
    ListMle,
    /// Listwise LiPO-lambda.
    Lipo,
    /// Preference ranking optimization.
    Pro,
    /// Direct reward optimization with a critic, DRO-V.
    Dro,
    /// Rejection-sampling fine-tuning on the best answers.
    Raft,
    /// Probabilistic preference optimization on sets.
    Pmpo,
    /// Distributional dispreference optimization.
    D2o,
    /// Joint preference optimization.
    Dove,
    /// Best-of-n imitation.
    Bonbon,
    /// Self-play preference optimization.
    Sppo,
    /// Nash learning as a policy gradient.
    NashMd,
    /// Exploratory preference optimization.
    Xpo,
    /// Clipped policy gradient with a critic.
    Ppo,
    /// REINFORCE with a leave-one-out baseline.
    Rloo,
    /// Group relative policy optimization.
    Grpo,
    /// REINFORCE with a batch-normalised advantage.
    #[serde(rename = "reinforce++")]
    ReinforcePlusPlus,
}
