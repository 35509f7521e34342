//! One step on examples: prepare, loss and gradients by micro-batch, update, metrics under TRL's names.

use std::{collections::BTreeMap, time::Instant};

use joust_core::{Answer, Example, ExampleSource, Player};
use joust_losses::{GradientLoss, ListLoss, PairLoss, SingleLoss};
use joust_model::{Device, Llama, SequenceBatch};
use joust_pairs::Keep;
use tch::{Kind, Tensor};

use crate::{
    Error, Master, Ranks, Reasons, Result, Update,
    background::Background,
    coupling::{Coupled, couple},
    diagnose::mismatch,
    gradient, list,
    masks::{Masked, Traces},
    pair,
    reducer::Reducer,
    single,
    sums::{Sums, Totals},
};

/// What is minimised, by what it reads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Objective {
    /// A loss on pairs of answers.
    Pair(PairLoss),
    /// A loss on the ranked answers of a prompt.
    List(ListLoss),
    /// A policy gradient on the tokens of answers.
    Gradient(GradientLoss),
    /// A loss on answers that are compared with nothing but the step's average.
    Single(SingleLoss),
}

/// An example with what is computed once before its first epoch.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// The example.
    pub example: Example,
    /// What is known of each of its answers.
    pub known: Vec<Known>,
    /// Answers to another prompt of the step, for KTO; else empty.
    pub foreign: Vec<Foreign>,
    /// Tokens of the reason's prompt and of the reason, where one is trained on.
    pub reason: Option<(Vec<u32>, Vec<u32>)>,
    /// What the reference computes at each token beside its log-prob, for losses that weigh tokens.
    pub traces: Option<Traces>,
}

impl Prepared {
    /// Starts from what every loss reads.
    pub fn new(example: Example, known: Vec<Known>) -> Self {
        Self { example, known, foreign: Vec::new(), reason: None, traces: None }
    }
}

/// An answer to another prompt, as an answer to this one.
#[derive(Debug, Clone, PartialEq)]
pub struct Foreign {
    /// Its tokens.
    pub token_ids: Vec<u32>,
    /// log π_ref of them after this example's prompt, in nats.
    pub reference: f32,
}

/// What is computed of an answer before its first epoch, one number a token.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Known {
    /// log π_ref in nats, under the reference that the manifest names; empty where the policy is held to nothing.
    pub reference: Vec<f32>,
    /// Advantages, for policy gradients; no unit.
    pub advantages: Vec<f32>,
    /// The critic's value of the state before each token, for PPO.
    pub values: Vec<f32>,
    /// What the critic should have said.
    pub returns: Vec<f32>,
}

/// Metrics of a step by TRL's name.
pub type StepMetrics = BTreeMap<String, f64>;

/// Trains a policy on examples against a fixed reference.
#[derive(Debug)]
pub struct Trainer {
    /// The policy's weights and optimizer.
    pub master: Master,
    /// The critic's, for objectives that have one: a decoder with a scalar head.
    pub critic: Option<Master>,
    /// Small heads beside the policy, for losses that have such: [`crate::heads()`].
    pub heads: Option<Master>,
    /// Which share of a step's pairs is trained; `None` trains all.
    pub keep: Option<Keep>,
    /// Whether pairs are weighed by how probable the policy finds both answers now (WPO, <https://arxiv.org/abs/2406.11827>).
    pub wpo: bool,
    /// How the judge's reasons are trained on; `None` leaves them alone.
    pub reasons: Option<Reasons>,
    /// Whether a step whose loss or gradient is not finite is left out, and counted, instead of ending training.
    pub skip_not_finite: bool,
    /// Seconds of the last step by phase, under the name of each.
    pub phases: StepMetrics,
    /// The device's matrix rate in operations a second, once it was measured.
    pub(crate) rate: Option<f64>,
    /// A shard on its way to the disk, with the updates that it holds.
    pub(crate) background: Option<(Background, Vec<u64>)>,
    pub(crate) objective: Objective,
    pub(crate) device: Device,
}

/// One micro-batch of a step, with log-probs that carry the gradient.
pub(crate) struct Micro<'a> {
    pub(crate) batch: &'a [Prepared],
    pub(crate) sequences: &'a SequenceBatch,
    /// log π of every completion token, `[N]`, answer after answer.
    pub(crate) logprobs: &'a Tensor,
    pub(crate) totals: Totals,
    pub(crate) coupled: &'a Coupled,
    /// WPO's weight of each answer, `[B]`, where pairs are weighed so.
    pub(crate) aligned: Option<Tensor>,
    /// Cringe's terms of all tokens, `[N]`, where the loss reads them; carry the gradient.
    pub(crate) token_terms: Option<Tensor>,
    /// Masks and divergences of all tokens, where the loss reads them.
    pub(crate) masked: Option<Masked>,
    /// SPO's terms of each pair, where the loss reads them; carry the gradient.
    pub(crate) degree_terms: Option<Tensor>,
}

impl Micro<'_> {
    /// Moves one number an example to the device, `[examples]`.
    pub(crate) fn column(&self, values: impl Iterator<Item = f64>) -> Tensor {
        let values: Vec<f32> = values.map(|value| value as f32).collect();
        Tensor::from_slice(&values).to_device(self.logprobs.device())
    }

    /// Moves one number a token of every answer to the device, `[N]`.
    pub(crate) fn tokens<'b>(&'b self, values: impl Fn(&'b Known) -> &'b [f32]) -> Tensor {
        let values: Vec<f32> =
            self.batch.iter().flat_map(|p| &p.known).flat_map(|known| values(known).iter().copied()).collect();
        Tensor::from_slice(&values).to_device(self.logprobs.device())
    }

    /// Returns log π_ref of each token, `[N]`; `None` where the policy is held to nothing.
    pub(crate) fn reference(&self) -> Option<Tensor> {
        let known = self.batch.iter().flat_map(|prepared| &prepared.known);
        let held = known.clone().all(|known| !known.reference.is_empty());
        held.then(|| self.tokens(|known| &known.reference))
    }

    /// Adds `objective/kl`, log π − log π_ref of the answers that the policy gave, in nats: their mean estimates KL(π‖π_ref), which
    /// no other player's answers do. Without such answers or a reference there is nothing to add.
    pub(crate) fn record_kl(&self, sums: &mut Sums) {
        let own = |example: &Example, answer: &Answer| {
            answer.player == Player::Policy && example.source == ExampleSource::Online
        };
        let mask: Vec<bool> = self.examples().flat_map(|e| e.answers.iter().map(|answer| own(e, answer))).collect();
        let Some(reference) = self.reference().filter(|_| mask.contains(&true)) else { return };
        let ratios = self.sequences.sums(&(self.logprobs.detach() - reference));
        sums.add("objective/kl", &ratios.masked_select(&Tensor::from_slice(&mask).to_device(ratios.device())));
    }

    /// Returns the examples.
    pub(crate) fn examples(&self) -> impl Iterator<Item = &Example> {
        self.batch.iter().map(|prepared| &prepared.example)
    }
}

impl Objective {
    /// Says what an example lacks for this objective.
    fn problem(&self, example: &Example) -> Option<String> {
        if example.prompt_ids.is_empty() || example.answers.iter().any(|answer| answer.token_ids.is_empty()) {
            return Some("its prompt or an answer has no tokens".to_owned());
        }
        match self {
            Self::Pair(loss) => pair::problem(loss, example),
            Self::List(loss) => list::problem(loss, example),
            Self::Gradient(loss) => gradient::problem(loss, example),
            Self::Single(loss) => single::problem(loss, example),
        }
    }
}

impl Objective {
    /// Computes a micro-batch's share of the step's loss.
    fn loss(&self, micro: &Micro<'_>, sums: &mut Sums) -> Result<Tensor> {
        match self {
            Self::Pair(loss) => pair::loss(loss, micro, sums),
            Self::List(loss) => list::loss(loss, micro, sums),
            Self::Gradient(loss) => gradient::loss(loss, micro, sums),
            Self::Single(loss) => single::loss(loss, micro, sums),
        }
    }

    /// Computes the loss of a whole step for any policy, for example a table of logits.
    ///
    /// # Arguments
    /// * `step` - prepared examples.
    /// * `logprobs` - log π of every completion token in nats, `[N]`, answer after answer; carries the gradient.
    ///
    /// # Returns
    /// The mean over the step, a float32 scalar that carries the gradient.
    ///
    /// # Errors
    /// [`Error::Example`] for an example that does not carry what the objective needs.
    pub fn loss_of(&self, step: &[Prepared], logprobs: &Tensor) -> Result<Tensor> {
        for Prepared { example, .. } in step {
            if let Some(problem) = self.problem(example) {
                return Err(Error::Example { id: example.id.to_string(), problem });
            }
        }
        let sequences = layout(step.iter().map(|prepared| &prepared.example), &Device::cpu());
        let alone = Ranks::default();
        let totals = Totals::of(&[step], &alone)?;
        let own = |_: &[Prepared]| Ok(Vec::<f64>::try_from(sequences.sums(&logprobs.detach()).to_kind(Kind::Double))?);
        let coupled = couple(self, &[step], (&own, &|_| Ok(Vec::new())), &alone)?;
        let micro = Micro {
            batch: step,
            sequences: &sequences,
            logprobs,
            totals,
            coupled: &coupled[0],
            aligned: None,
            token_terms: None,
            masked: None,
            degree_terms: None,
        };
        self.loss(&micro, &mut Sums::default())
    }
}

/// Lays out all answers, example after example.
pub(crate) fn layout<'a>(examples: impl Iterator<Item = &'a Example>, device: &Device) -> SequenceBatch {
    let sequences = |e: &'a Example| e.answers.iter().map(|a| (e.prompt_ids.as_slice(), a.token_ids.as_slice()));
    SequenceBatch::new(&examples.flat_map(sequences).collect::<Vec<_>>(), device.torch())
}

impl Trainer {
    /// Trains `master` with `objective`, taking the device's permit for each micro-batch.
    pub fn new(master: Master, objective: Objective, device: Device) -> Self {
        Self {
            master,
            critic: None,
            heads: None,
            keep: None,
            wpo: false,
            reasons: None,
            skip_not_finite: false,
            phases: StepMetrics::new(),
            rate: None,
            background: None,
            objective,
            device,
        }
    }

    /// Returns the ranks that train together.
    pub fn ranks(&self) -> &Ranks {
        self.master.ranks()
    }

    /// Lists the trained weights with the prefix of their names in a checkpoint.
    pub fn masters(&self) -> Vec<(&'static str, &Master)> {
        let others = [("critic.", &self.critic), ("heads.", &self.heads)];
        let others = others.into_iter().filter_map(|(prefix, master)| Some((prefix, master.as_ref()?)));
        std::iter::once(("", &self.master)).chain(others).collect()
    }

    /// As [`Self::masters`], to be written.
    pub fn masters_mut(&mut self) -> Vec<(&'static str, &mut Master)> {
        let others = [("critic.", &mut self.critic), ("heads.", &mut self.heads)];
        let others = others.into_iter().filter_map(|(prefix, master)| Some((prefix, master.as_mut()?)));
        std::iter::once(("", &mut self.master)).chain(others).collect()
    }

    /// Computes once what the objective needs of each example before its first epoch, in the given micro-batches.
    ///
    /// Statistics that couple examples are taken over all micro-batches together. Without a reference only losses that read none work.
    ///
    /// # Errors
    /// [`Error::Example`] for an example that does not carry what the objective needs.
    pub fn prepare<'r>(
        &self,
        reference: impl Into<Option<&'r Llama>>,
        micro_batches: Vec<Vec<Example>>,
    ) -> Result<Vec<Vec<Prepared>>> {
        let reference = reference.into();
        let _no_grad = tch::no_grad_guard();
        let mut prepared = self.ranks().agree(self.known(reference, micro_batches))?;
        match (&self.objective, reference) {
            (Objective::Gradient(loss), _) => gradient::advantages(loss, &mut prepared, self.ranks())?,
            (Objective::Single(SingleLoss::Kto { .. }), Some(reference)) => self.exchange(reference, &mut prepared)?,
            _ => {}
        }
        match (&self.objective, self.keep) {
            (Objective::Pair(_), Some(keep)) => self.retain(keep, prepared),
            _ => Ok(prepared),
        }
    }

    /// Computes what is known of each example for itself.
    fn known(&self, reference: Option<&Llama>, micro_batches: Vec<Vec<Example>>) -> Result<Vec<Vec<Prepared>>> {
        for example in micro_batches.iter().flatten() {
            if let Some(problem) = self.objective.problem(example) {
                return Err(Error::Example { id: example.id.to_string(), problem });
            }
        }
        let mut prepared = Vec::with_capacity(micro_batches.len());
        for examples in micro_batches.into_iter().filter(|examples| !examples.is_empty()) {
            let _permit = self.device.acquire();
            let sequences = layout(examples.iter(), &self.device);
            let (held_to, traces) = match reference {
                Some(reference) => self.held(reference, &sequences, &examples)?,
                None => Default::default(),
            };
            let mut traces = traces.into_iter();
            let values = match &self.critic {
                Some(critic) => Vec::<f32>::try_from(sequences.token_values(&critic.model()?))?,
                None => Vec::new(),
            };
            let mut at = 0;
            let mut known = |tokens: usize| {
                let own = at..at + tokens;
                at = own.end;
                let share = |all: &[f32]| all.get(own.clone()).map(<[f32]>::to_vec).unwrap_or_default();
                Known { reference: share(&held_to), values: share(&values), ..Known::default() }
            };
            let mut prepare = |example: Example| {
                let known = example.answers.iter().map(|answer| known(answer.token_ids.len())).collect();
                Prepared { traces: traces.next(), ..Prepared::new(example, known) }
            };
            prepared.push(examples.into_iter().map(&mut prepare).collect::<Vec<_>>());
        }
        self.encode_reasons(&mut prepared)?;
        Ok(prepared)
    }

    /// Updates the policy once; the loss is a mean over the whole step.
    ///
    /// # Errors
    /// [`Error::LossNotFinite`] naming the examples, or [`Error::GradientNotFinite`]; then nothing was updated.
    pub fn step(&mut self, micro_batches: &[Vec<Prepared>]) -> Result<StepMetrics> {
        let totals = Totals::of(micro_batches, self.ranks())?;
        if totals.examples == 0.0 {
            return Ok(StepMetrics::new());
        }
        let own = |batch: &[Prepared]| self.own_sums(&self.master.model()?, batch);
        let foreign = |batch: &[Prepared]| self.foreign_sums(&self.master.model()?, batch);
        let coupled = couple(&self.objective, micro_batches, (&own, &foreign), self.ranks())?;
        let mut sums = Sums::default();
        let began = Instant::now();
        let gathered = self.gather_gradients(micro_batches, &coupled, totals, &mut sums);
        let finite = self.finite(gathered);
        let finite = match self.ranks().agree(finite) {
            Ok(own) => self.ranks().gather(own)?.into_iter().all(|finite| finite),
            Err(error) => {
                self.masters_mut().into_iter().for_each(|(_, master)| master.forget());
                return Err(error);
            }
        };
        let gathered_s = began.elapsed().as_secs_f64();
        let update = if finite { self.update()? } else { None };
        self.phases = StepMetrics::from([
            ("time/forward_backward_s".into(), gathered_s),
            ("time/update_s".into(), began.elapsed().as_secs_f64() - gathered_s),
        ]);
        let Some(update) = update else {
            self.masters_mut().into_iter().for_each(|(_, master)| master.forget());
            return Ok(StepMetrics::from([("steps/skipped".into(), 1.0)]));
        };
        let mut metrics = sums.means(self.ranks())?;
        metrics.insert("grad_norm".into(), update.grad_norm);
        metrics.insert("learning_rate".into(), update.learning_rate);
        metrics.extend(update.moved.map(|moved| ("update_ratio".into(), moved)));
        let (unit, count) = match self.objective {
            Objective::Pair(_) => ("pairs", totals.examples),
            Objective::List(_) | Objective::Gradient(_) | Objective::Single(_) => ("answers", totals.answers),
        };
        metrics.insert(unit.into(), count);
        metrics.insert("num_tokens".into(), totals.tokens);
        Ok(metrics)
    }

    /// Returns false for what is left out because it is not finite.
    fn finite<T>(&self, done: Result<T>) -> Result<bool> {
        match done {
            Err(error @ (Error::LossNotFinite { .. } | Error::GradientNotFinite { .. })) if self.skip_not_finite => {
                tracing::warn!(%error, "the step is left out");
                Ok(false)
            }
            done => done.map(|_| true),
        }
    }

    /// Updates policy and critic from the gathered gradients; `None` where they are not finite and such steps are left out.
    fn update(&mut self) -> Result<Option<Update>> {
        self.settle();
        let device = self.device.clone();
        let _permit = device.acquire();
        let update = self.master.update();
        let Some(update) = self.kept(update)? else { return Ok(None) };
        let others = [self.critic.as_mut().map(Master::update), self.heads.as_mut().map(Master::update)];
        for other in others.into_iter().flatten() {
            self.kept(other)?;
        }
        Ok(Some(update))
    }

    fn kept(&self, done: Result<Update>) -> Result<Option<Update>> {
        match done {
            Ok(update) => Ok(Some(update)),
            Err(error) => self.finite::<()>(Err(error)).map(|_| None),
        }
    }

    /// Gathers the gradient of the step, over all ranks.
    fn gather_gradients(
        &mut self,
        micro_batches: &[Vec<Prepared>],
        coupled: &[Coupled],
        totals: Totals,
        sums: &mut Sums,
    ) -> Result<()> {
        let mut batches = micro_batches.iter().zip(coupled).filter(|(batch, _)| !batch.is_empty());
        let mut gathered = Ok(());
        for round in 0..totals.rounds {
            if let Some((batch, coupled)) = batches.next().filter(|_| gathered.is_ok()) {
                gathered = self.accumulate((batch, coupled), (round, totals), sums);
            }
            // Whatever happened here, the other ranks wait for these sums.
            for reducer in self.reducers() {
                match reducer.finish() {
                    Err(lost @ Error::Border(joust_torch::Error::Hook { .. })) => gathered = gathered.and(Err(lost)),
                    finished => finished?,
                }
            }
        }
        gathered
    }

    fn reducers(&self) -> impl Iterator<Item = &Reducer> {
        self.masters().into_iter().filter_map(|(_, master)| master.reducer.as_ref())
    }

    fn accumulate(
        &mut self,
        (batch, coupled): (&[Prepared], &Coupled),
        (at, totals): (usize, Totals),
        sums: &mut Sums,
    ) -> Result<()> {
        let _permit = self.device.acquire();
        let sequences = layout(batch.iter().map(|prepared| &prepared.example), &self.device);
        // Numbered over all ranks, so that no two share a mask.
        let number = (self.ranks().rank() as u32) << 16 | at as u32;
        let policy = self.master.training_model(number)?;
        let rows = sequences.hidden_rows(&policy);
        let (logprobs, spread) = match self.wpo {
            true => {
                let (logprobs, spread) = sequences.logprobs_with_spread(&policy, &rows, 1);
                (logprobs, Some(spread))
            }
            false => (sequences.logprobs_of(&policy, &rows), None),
        };
        mismatch(batch, &logprobs, sums);
        let token_terms = match self.objective {
            Objective::Pair(PairLoss::Cringe { k, .. }) => {
                Some(pair::cringe_terms(&policy, &sequences, &rows, k as i64))
            }
            _ => None,
        };
        let aligned = spread.map(|spread| sequences.means(&(logprobs.detach() - spread.log_squares)).exp());
        let masked = self.masked(&policy, &rows, batch)?;
        let degree_terms = self.degree_terms(&policy, batch, sums)?;
        let micro = Micro {
            batch,
            sequences: &sequences,
            logprobs: &logprobs,
            totals,
            coupled,
            aligned,
            token_terms,
            masked,
            degree_terms,
        };
        let loss = self.objective.loss(&micro, sums)?;
        let loss = match (&self.objective, &self.critic) {
            (Objective::Gradient(kind), Some(critic)) => {
                loss + gradient::critic_loss(kind, &micro, &sequences.token_values(&critic.model()?), sums)?
            }
            (Objective::Single(SingleLoss::Dro { beta }), Some(critic)) => {
                loss + single::critic_loss(*beta, &micro, &sequences.token_values(&critic.model()?), sums)?
            }
            _ => loss,
        };
        let value = loss.double_value(&[]);
        if !value.is_finite() {
            let examples = micro.examples().map(|example| example.id.to_string()).collect::<Vec<_>>().join(", ");
            return Err(Error::LossNotFinite { step: self.master.optimizer.updates, value, examples });
        }
        sums.add_part("loss", value);
        if self.reasons.is_none() {
            // Reasons follow with a backward pass of their own.
            self.reducers().for_each(Reducer::arm);
        }
        loss.backward();
        self.accumulate_reasons(batch, (number, totals), sums)
    }
}
