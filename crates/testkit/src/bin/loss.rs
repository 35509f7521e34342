//! Computes a step's loss from log-probs of tokens, for comparisons with other implementations.
//!
//! usage: `loss < QUESTION`, a JSON object: `{"loss": "dpo", "params": {..}, "examples": [{"policy": [[..], [..]], "reference": [[..], [..]],
//! "scores": [.., ..]}, ..]}` for a pair loss (chosen first), or `{"loss": "kto", "params": {..}, "baseline": .., "policy": [..],
//! "reference": [..], "labels": [..]}` for a loss on single answers, of sums, or `{"loss": "grpo", "params": {..}, "advantages": [..], "policy":
//! [[..], ..], "reference": [[..], ..], "old": [[..], ..]}` for a policy gradient on one group.
//! prints: `{"loss": .., "gradients": [..]}`, the mean over the step and its gradient in each log-prob of the policy, in order

use std::{collections::BTreeMap, error::Error, io};

use joust_core::{Answer, Example, ExampleSource, Finish, Player, RecordId, Target};
use joust_losses::{GradientLoss, PairLoss, SingleLogps, SingleLoss};
use joust_train::{Known, Objective, Prepared};
use serde_json::{Value, json};
use tch::{Kind, Tensor};

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().into_iter().flatten().filter_map(Value::as_f64).collect()
}

/// Builds the pair of an object of the question.
fn pair(number: usize, example: &Value) -> Prepared {
    let scores = numbers(&example["scores"]);
    let reference: Vec<Vec<f64>> = example["reference"].as_array().into_iter().flatten().map(numbers).collect();
    let answer = |(side, sums): (usize, &Vec<f64>)| Answer {
        player: Player::Policy,
        token_ids: vec![0; sums.len()],
        behavior_logprobs: Vec::new(),
        finish: Finish::Eos,
        score: scores.get(side).copied(),
    };
    let known = |sums: &Vec<f64>| Known { reference: sums.iter().map(|v| *v as f32).collect(), ..Known::default() };
    let example = Example {
        id: RecordId::derive(&[b"pair", &number.to_le_bytes()]),
        prompt_ids: vec![0],
        answers: reference.iter().enumerate().map(answer).collect(),
        target: Target::Pair { p: 1.0, win_rates: None },
        rationale: None,
        weight: 1.0,
        policy_version: 0,
        source: ExampleSource::Online,
        judge_hash: String::new(),
    };
    Prepared::new(example, reference.iter().map(known).collect())
}

/// Builds the group of a question: one answer a row, with its advantage.
fn group(question: &Value) -> Prepared {
    let rows = |key: &str| -> Vec<Vec<f32>> {
        let rows = question[key].as_array().into_iter().flatten();
        rows.map(|row| numbers(row).into_iter().map(|value| value as f32).collect()).collect()
    };
    let (reference, old) = (rows("reference"), rows("old"));
    let mut prepared = pair(0, &json!({ "reference": question["reference"] }));
    prepared.example.target = Target::Group { win_rates: vec![0.5; reference.len()] };
    prepared.example.answers.iter_mut().zip(old).for_each(|(answer, old)| answer.behavior_logprobs = old);
    for (known, advantage) in prepared.known.iter_mut().zip(numbers(&question["advantages"])) {
        known.advantages = vec![advantage as f32; known.reference.len()];
    }
    prepared
}

fn answer(question: &Value) -> Result<Value, Box<dyn Error>> {
    let name = question["loss"].as_str().ok_or("no loss")?;
    let params: BTreeMap<String, f64> = serde_json::from_value(question["params"].clone())?;
    let (policy, loss) = if question["advantages"].is_array() {
        let rows = question["policy"].as_array().into_iter().flatten();
        let policy = Tensor::from_slice(&rows.flat_map(numbers).collect::<Vec<_>>());
        let policy = policy.to_kind(Kind::Float).set_requires_grad(true);
        let loss = Objective::Gradient(GradientLoss::from_name(name, &params)?).loss_of(&[group(question)], &policy)?;
        (policy, loss)
    } else if let Some(examples) = question["examples"].as_array() {
        let step: Vec<Prepared> = examples.iter().enumerate().map(|(number, example)| pair(number, example)).collect();
        let sides = examples.iter().flat_map(|example| example["policy"].as_array().into_iter().flatten());
        let policy = Tensor::from_slice(&sides.flat_map(numbers).collect::<Vec<_>>());
        let policy = policy.to_kind(Kind::Float).set_requires_grad(true);
        let loss = Objective::Pair(PairLoss::from_name(name, &params)?).loss_of(&step, &policy)?;
        (policy, loss)
    } else {
        let [policy, reference, labels] =
            ["policy", "reference", "labels"].map(|key| Tensor::from_slice(&numbers(&question[key])));
        let policy = policy.set_requires_grad(true);
        let baseline = question["baseline"].as_f64().unwrap_or_default();
        let inputs = SingleLogps::new(&policy, &reference, &labels).with_baseline(baseline);
        let loss = SingleLoss::from_name(name, &params)?.compute(&inputs)?.per_answer.mean(Kind::Double);
        (policy, loss)
    };
    loss.backward();
    let gradients = Vec::<f64>::try_from(policy.grad().to_kind(Kind::Double))?;
    Ok(json!({ "loss": loss.double_value(&[]), "gradients": gradients }))
}

fn main() -> Result<(), Box<dyn Error>> {
    println!("{}", answer(&serde_json::from_reader(io::stdin())?)?);
    Ok(())
}
