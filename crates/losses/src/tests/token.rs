//! Policy gradients and advantages against the golden file, exact gradients, and their edges.

use serde_json::Value;
use tch::{Kind, Tensor};

use super::floats;
use crate::{
    Error, GradientOutput, Result, TokenLogps, gae, grpo_advantages, grpo_loss, nash_md_loss, ppo_loss, rewards_to_go,
    rloo_advantages, rloo_loss, token_rewards, value_loss, whiten,
};

fn golden() -> Value {
    serde_json::from_str(include_str!("../../testdata/tokens.json")).expect("valid JSON")
}

fn numbers(values: &Value) -> Vec<f64> {
    values.as_array().expect("a list").iter().map(|value| value.as_f64().expect("a number")).collect()
}

fn close(found: f64, wanted: f64, relative: f64, what: &str) {
    super::assert_close(what, found, wanted, relative, 1e-12_f64.max(relative * 1e-3));
}

type Loss<'a> = &'a dyn Fn(&TokenLogps<'_>) -> Result<GradientOutput>;

fn table(rows: &[Vec<f64>], kind: Kind) -> Tensor {
    let width = rows.iter().map(Vec::len).max().expect("rows") as i64;
    Tensor::from_slice(&rows.concat()).view([-1, width]).to_kind(kind)
}

/// Loss of each answer, and the gradient by token, for answers of equal length.
fn compute(loss: Loss<'_>, [new, old, reference]: [&[Vec<f64>]; 3], kind: Kind) -> (Vec<f64>, Vec<f64>) {
    let policy = table(new, kind).set_requires_grad(true);
    let (old, reference, mask) = (table(old, kind), table(reference, kind), policy.detach().ones_like());
    let inputs = TokenLogps::new(&policy, &mask).with_old(&old).with_reference(&reference);
    let output = loss(&inputs).expect("valid inputs");
    output.per_answer.sum(kind).backward();
    (floats(&output.per_answer), floats(&policy.grad().flatten(0, 1)))
}

/// Compares a loss on the golden tokens, divided by `divisor`, in both kinds.
fn matches(name: &str, divisor: f64, loss: Loss<'_>) {
    let golden = golden();
    let rows = ["new", "old", "ref"].map(|key| vec![numbers(&golden["token_inputs"][key])]);
    for (kind, tolerance) in [(Kind::Double, 1e-9), (Kind::Float, 1e-4)] {
        let (value, gradient) = compute(loss, [&rows[0], &rows[1], &rows[2]], kind);
        let expected = &golden["token"][name];
        close(value[0] / divisor, expected["loss"].as_f64().expect("a number"), tolerance, name);
        for (found, expected) in gradient.iter().zip(numbers(&expected["d_tok"])) {
            close(found / divisor, expected, tolerance, name);
        }
    }
}

fn spread(values: &[f64]) -> Tensor {
    Tensor::from_slice(values).unsqueeze(0)
}

/// Computes Nash-MD's loss with the importance ratio of the golden answer taken out, which its values do not have.
fn nash_md_without_ratio(inputs: &TokenLogps) -> Result<GradientOutput> {
    let golden = golden();
    let sum = |key: &str| numbers(&golden["token_inputs"][key]).iter().sum::<f64>();
    let ratio = (sum("new") - sum("old")).exp().min(2.0);
    assert!((ratio - 1.0).abs() > 1e-3, "the golden answer is one of another policy: {ratio}");
    let output = nash_md_loss(inputs, &Tensor::from_slice(&[0.73]), 0.1)?;
    Ok(GradientOutput { per_answer: output.per_answer / ratio, ..output })
}

#[test]
fn token_losses_match_the_golden_values() {
    matches("nash_to_go", 1.0, &nash_md_without_ratio);
    matches("ppo_pos", 4.0, &|inputs| ppo_loss(inputs, &spread(&[1.0; 4]), 0.2));
    matches("ppo_neg", 4.0, &|inputs| ppo_loss(inputs, &spread(&[-1.0; 4]), 0.2));
    matches("ppo_mixed", 4.0, &|inputs| ppo_loss(inputs, &spread(&[0.5, -0.5, 1.0, -2.0]), 0.2));
    matches("grpo_A1", 1.0, &|inputs| grpo_loss(inputs, &Tensor::from_slice(&[1.0]), 0.2, 0.04));
    matches("grpo_Am1", 1.0, &|inputs| grpo_loss(inputs, &Tensor::from_slice(&[-1.0]), 0.2, 0.04));
}

#[test]
fn the_first_token_is_charged_the_kl_of_the_whole_answer() {
    let golden = golden();
    let rows = ["new", "old", "ref"].map(|key| vec![numbers(&golden["token_inputs"][key])]);
    let loss: Loss<'_> = &nash_md_without_ratio;
    let (_, gradient) = compute(loss, [&rows[0], &rows[1], &rows[2]], Kind::Double);
    let whole = numbers(&golden["token"]["nash_seq"]["d_tok"]);
    close(gradient[0], whole[0], 1e-12, "the sum over all tokens");
    let own = numbers(&golden["token"]["nash_trl_per_token"]["d_tok"]);
    close(gradient[3], own[3], 1e-12, "the last token's own");
    assert!((gradient[0] - own[0]).abs() > 1e-3, "the biased form differs");
}

#[test]
fn sequence_ratios_match_the_golden_values() {
    let golden = golden();
    let list = |key: &str| numbers(&golden["list_inputs"][key]);
    let (policy, reference, scores) = (list("pi"), list("ref"), list("score"));
    let held: Vec<f64> = (0..4).map(|k| scores[k] - 0.05 * (policy[k] - reference[k])).collect();
    let advantages = Tensor::from_slice(&rloo_advantages(&held));
    let column = |values: &[f64]| values.iter().map(|value| vec![*value]).collect::<Vec<_>>();
    let rows = [column(&policy), column(&policy), column(&reference)];
    let loss: Loss<'_> = &|inputs| rloo_loss(inputs, &advantages, 0.2);
    let (value, gradient) = compute(loss, [&rows[0], &rows[1], &rows[2]], Kind::Double);
    close(value.iter().sum::<f64>() / 4.0, 0.0, 1e-12, "advantages sum to 0");
    for (found, expected) in gradient.iter().zip(numbers(&golden["listwise"]["rloo_onpolicy"]["d_pi"])) {
        close(found / 4.0, expected, 1e-9, "rloo_onpolicy");
    }
}

#[test]
fn what_lies_behind_an_answer_changes_nothing() {
    let losses: [Loss<'_>; 4] = [
        &|inputs| nash_md_loss(inputs, &Tensor::from_slice(&[0.9, 0.2]), 0.1),
        &|inputs| ppo_loss(inputs, &Tensor::from_slice(&[1.0, -2.0, 0.5, 1.0, 1.0, 1.0]).view([2, 3]), 0.2),
        &|inputs| grpo_loss(inputs, &Tensor::from_slice(&[1.0, -1.0]), 0.2, 0.1),
        &|inputs| rloo_loss(inputs, &Tensor::from_slice(&[1.0, -1.0]), 0.2),
    ];
    let (old, reference) = (Tensor::full([2, 3], -1.2, (Kind::Double, tch::Device::Cpu)), -1.5);
    let reference = old.full_like(reference);
    let mask = Tensor::from_slice(&[1.0, 1.0, 0.0, 1.0, 1.0, 1.0]).view([2, 3]);
    for loss in losses {
        let run = |behind: f64| {
            let policy =
                Tensor::from_slice(&[-1.0, -0.9, behind, -1.3, -1.4, -0.8]).view([2, 3]).set_requires_grad(true);
            let inputs = TokenLogps::new(&policy, &mask).with_old(&old).with_reference(&reference);
            let output = loss(&inputs).expect("valid inputs");
            output.per_answer.sum(Kind::Double).backward();
            (floats(&output.per_answer), floats(&output.clipped), floats(&policy.grad().flatten(0, 1)))
        };
        assert_eq!(run(0.0), run(f64::NAN));
        assert_eq!(run(0.0).2[2], 0.0);
    }
}

#[test]
fn nothing_overflows_far_from_old_and_reference() {
    for gap in [200.0, -200.0] {
        let policy = Tensor::from_slice(&[-250.0f32, -300.0]).view([1, 2]).set_requires_grad(true);
        let (old, mask) = (policy.detach() - gap, policy.detach().ones_like());
        let inputs = TokenLogps::new(&policy, &mask).with_old(&old).with_reference(&old);
        for advantage in [1.0f32, -1.0] {
            let one = Tensor::from_slice(&[advantage]);
            for output in [
                grpo_loss(&inputs, &one, 0.2, 0.04),
                rloo_loss(&inputs, &one, 0.2),
                ppo_loss(&inputs, &one.unsqueeze(1).expand([1, 2], false), 0.2),
                nash_md_loss(&inputs, &one.clamp(0.0, 1.0), 0.1),
            ] {
                output.expect("valid inputs").per_answer.sum(Kind::Float).backward();
            }
        }
        assert!(floats(&policy.grad().flatten(0, 1)).iter().all(|gradient| gradient.is_finite()));
    }
}

#[test]
fn inputs_that_do_not_fit_are_named() {
    let (policy, mask) = (Tensor::from_slice(&[-1.0, -2.0]).view([1, 2]), Tensor::from_slice(&[1.0, 1.0]).view([1, 2]));
    let (one, wide) = (Tensor::from_slice(&[1.0]), Tensor::from_slice(&[1.0, 1.0]));
    let inputs = TokenLogps::new(&policy, &mask);
    assert!(matches!(nash_md_loss(&inputs, &one, 0.1), Err(Error::Missing { setter: "with_reference", .. })));
    assert!(matches!(rloo_loss(&inputs, &one, 0.2), Err(Error::Missing { setter: "with_old", .. })));
    let held = inputs.with_reference(&policy);
    assert!(matches!(nash_md_loss(&held, &one, 0.1), Err(Error::Missing { setter: "with_old", .. })));
    assert!(matches!(rloo_loss(&inputs, &wide, 0.2), Err(Error::Shape { .. })));
    assert!(matches!(rloo_loss(&inputs, &one, 0.0), Err(Error::Param { name: "epsilon", .. })));
    assert!(matches!(rloo_loss(&TokenLogps::new(&one, &one), &one, 0.2), Err(Error::Shape { name: "policy", .. })));
    let half = mask.to_kind(Kind::BFloat16);
    assert!(matches!(rloo_loss(&TokenLogps::new(&policy, &half), &one, 0.2), Err(Error::Kind { name: "mask", .. })));
}

#[test]
fn group_advantages_match_the_golden_values() {
    for case in golden()["group_advantages"].as_array().expect("cases") {
        let scores = numbers(&case["scores"]);
        for (name, found) in [("rloo", rloo_advantages(&scores)), ("grpo_unbiased_std", grpo_advantages(&scores))] {
            for (found, expected) in found.iter().zip(numbers(&case[name])) {
                close(*found, expected, 1e-9, name);
            }
        }
    }
    assert_eq!(rloo_advantages(&[3.0]), [0.0]);
    assert_eq!(grpo_advantages(&[3.0]), [0.0]);
}

#[test]
fn generalised_advantages_match_the_golden_values() {
    let golden: Value = golden()["gae"].clone();
    let input = |key: &str| numbers(&golden["inputs"][key]);
    let (advantages, returns) = gae(&input("rewards"), &input("values"), 1.0, 0.95);
    for (name, found) in [("adv", advantages), ("returns", returns)] {
        for (found, expected) in found.iter().zip(numbers(&golden[name])) {
            close(*found, expected, 1e-9, name);
        }
    }
    assert_eq!(rewards_to_go(&[1.0, 2.0, 4.0], 0.5), [3.0, 4.0, 4.0]);
    assert_eq!(token_rewards(&[0.5, -1.0], 0.1, 3.0), [-0.05, 3.1]);
}

#[test]
fn the_value_loss_is_the_worse_of_two_squares() {
    let (old, returns) = ([0.5, 0.1, -0.3, 1.0], [0.9, -0.4, -0.35, 1.6]);
    let scalar = |v: f64, i: usize| {
        let bounded = v.clamp(old[i] - 0.2, old[i] + 0.2);
        0.5 * (v - returns[i]).powi(2).max((bounded - returns[i]).powi(2))
    };
    let table = |values: &[f64]| Tensor::from_slice(values).view([2, 2]);
    let mask = table(&[1.0, 1.0, 1.0, 0.0]);
    // Within the bound, clipped and then worse, clipped and then no matter; what is masked counts for nothing.
    for values in [[0.6, 0.15, -0.2, 9.0], [0.95, 0.4, -0.7, 9.0], [0.2, -0.2, 0.1, 9.0]] {
        let tensor = table(&values).set_requires_grad(true);
        let loss = value_loss(&tensor, [&table(&old), &table(&returns), &mask], 0.2).expect("valid");
        close(loss.double_value(&[0]), scalar(values[0], 0) + scalar(values[1], 1), 1e-12, "value");
        close(loss.double_value(&[1]), scalar(values[2], 2), 1e-12, "value");
        loss.sum(Kind::Double).backward();
        let gradient = floats(&tensor.grad().flatten(0, 1));
        for i in 0..3 {
            let slope = (scalar(values[i] + 1e-6, i) - scalar(values[i] - 1e-6, i)) / 2e-6;
            super::assert_close("slope", gradient[i], slope, 1e-6, 1e-8);
        }
        assert_eq!(gradient[3], 0.0);
    }
}

#[test]
fn whitened_values_have_mean_0_and_variance_1() {
    let white = whiten(&[1.0, 4.0, -2.0, 7.5, 0.25]);
    close(white.iter().sum::<f64>(), 0.0, 1e-12, "mean");
    close(white.iter().map(|value| value * value).sum::<f64>() / 4.0, 1.0, 1e-8, "variance");
    assert!(whiten(&[2.0, 2.0]).iter().all(|value| *value == 0.0));
}
