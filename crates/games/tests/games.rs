//! Each method reaches the point that theory gives it, through the real pairing, losses and optimizer.

use joust_core::{Answer, Example, ExampleSource, Finish, Player, RecordId, Target};
use joust_games::{Game, Row, Show, dpo_point, draw, nash, nash_md_point, show};
use joust_losses::GradientLoss;
use joust_train::{Known, Objective, Prepared};
use tch::{Kind, Tensor};

/// Points of the reference's tables, computed elsewhere.
const NASH: [f64; 3] = [0.614_437_362_830_579_4, 0.130_826_533_819_539_96, 0.254_736_103_349_880_67];
const NASH_MD: [(f64, [f64; 3]); 2] = [
    (0.125, [0.626_937_729_076_724_7, 0.119_284_834_697_026_32, 0.253_777_436_226_248_9]),
    (0.25, [0.641_303_484_237_116_5, 0.109_061_496_962_656_06, 0.249_635_018_800_227_32]),
];
const DPO: [f64; 3] = [0.323_917_630_575_654_15, 0.215_944_697_568_944_27, 0.460_137_671_855_401_5];
const FOUR: [f64; 4] =
    [0.458_827_565_299_150_5, 0.251_521_207_477_902_35, 0.204_863_400_906_978_08, 0.084_787_826_295_948_96];

fn close(found: &[f64], expected: &[f64], tolerance: f64) {
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < tolerance, "{found} {expected}");
    }
}

#[test]
fn the_solvers_agree_with_the_reference() {
    let game = Game::noisy_cycle();
    close(&nash(&game, 0.2), &NASH, 1e-9);
    close(&nash(&Game::four(), 0.3), &FOUR, 1e-9);
    close(&dpo_point(&game, 0.2), &DPO, 1e-9);
    for (coef, point) in NASH_MD {
        close(&nash_md_point(&game, 0.2, coef), &point, 1e-9);
        let mixture = game.mixture(&point, coef);
        assert!(game.exploitability(&mixture, 0.2 / (1.0 - coef)).abs() < 1e-12, "the mixture is the equilibrium");
    }
    assert!(game.exploitability(&NASH, 0.2).abs() < 1e-12);
    assert!(game.exploitability(&DPO, 0.2) > 1e-3, "DPO's point is no equilibrium");
    let even = [1.0 / 3.0; 3];
    assert!(Game::cycle().duality_gap(&even).abs() < 1e-12);
}

fn rows<'a>(show: &'a Show, labels: &'a str) -> impl Iterator<Item = &'a Row> {
    show.rows.iter().filter(move |row| row.labels == labels && !row.method.starts_with("sppo"))
}

#[test]
fn every_method_reaches_its_point() {
    let show = show().expect("it plays");
    for row in rows(&show, "exact") {
        assert!(row.distance() < if row.method == "dpo" { 5e-4 } else { 1e-5 }, "{row:?}");
        if ["ipo", "nash_md (0)"].contains(&row.method.as_str()) {
            assert!(row.gap < 1e-6, "{row:?}");
        }
        if row.method == "dpo" {
            assert!(row.gap > 1e-3, "{row:?}");
        }
    }
    for row in rows(&show, "drawn") {
        assert!(row.distance() < 0.03, "{row:?}");
        if ["ipo", "nash_md (0)"].contains(&row.method.as_str()) {
            assert!(row.gap < 1e-3, "{row:?}");
        }
    }
    assert_eq!(rows(&show, "exact").count() + rows(&show, "drawn").count(), 18);

    let sppo = show.rows.last().expect("rows");
    assert!(sppo.gap < 0.02, "the average of {} iterations: {sppo:?}", sppo.steps);
    let (_, path, _) = show.paths.last().expect("paths");
    let late = &path.policies[path.policies.len() / 2..];
    let smallest = late.iter().map(|policy| Game::cycle().duality_gap(policy)).fold(f64::INFINITY, f64::min);
    assert!(smallest > 0.1, "the last policies settle: {smallest}");

    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("games.svg");
    draw(&show, &file).expect("drawn");
    let svg = std::fs::read_to_string(&file).expect("readable");
    assert!(svg.starts_with("<svg") && show.paths.iter().all(|(name, ..)| svg.contains(name)));
    assert!(draw(&show, &folder.path().join("none/games.svg")).is_err());
}

/// One step of Nash-MD by mirror descent: `π ← mix·e^{η·P(· ≻ mix)}`, `mix ∝ π^{1−ητ}·ref^{ητ}` (NLHF, Eq. 5 and 6).
fn mirror_step(game: &Game, policy: &[f64], tau: f64, eta: f64) -> Vec<f64> {
    let mix = game.mixture(policy, eta * tau);
    let next: Vec<f64> = mix.iter().zip(game.win_rates(&mix)).map(|(p, rate)| p * (eta * rate).exp()).collect();
    let total: f64 = next.iter().sum();
    next.iter().map(|p| p / total).collect()
}

#[test]
fn mirror_descent_falls_to_the_equilibrium_as_fast_as_the_reference_says() {
    let (game, tau) = (Game::noisy_cycle(), 0.2);
    let kl = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * (a / b).ln()).sum::<f64>();
    let expected =
        [(1, 6.015_547_341_596_514e-2), (10, 3.667_782_719_040_688_6e-3), (1000, 3.634_108_385_056_815_5e-7)];
    let mut policy = vec![0.1, 0.2, 0.7];
    let mut steps = 0u32;
    for (wanted, divergence) in expected {
        while steps < wanted {
            policy = mirror_step(&game, &policy, tau, 2.0 / (tau * f64::from(steps + 2)));
            steps += 1;
        }
        let found = kl(&NASH, &policy);
        assert!((found - divergence).abs() < 1e-6 * divergence.max(1e-4), "{steps} steps: {found} {divergence}");
        assert!(found < 200.0 / f64::from(steps + 1), "the bound of theorem 1");
    }
    let third = 1.0 / 3.0;
    let dice = Game {
        preference: vec![
            vec![0.5, 5.0 / 9.0, 4.0 / 9.0],
            vec![4.0 / 9.0, 0.5, 5.0 / 9.0],
            vec![5.0 / 9.0, 4.0 / 9.0, 0.5],
        ],
        reference: vec![third; 3],
        ..Game::cycle()
    };
    close(&dice.mixture(&[0.6, 0.3, 0.1], 0.5), &[0.472_733_874_989_504_7, 0.334_273_328_701_672_4], 1e-12);
    close(&mirror_step(&dice, &[0.6, 0.3, 0.1], 0.1, 5.0), &[0.490_920_061_312_495_5, 0.308_819_594_188_932_1], 1e-12);
}

#[test]
fn mixing_logits_is_mixing_log_probs() {
    let softmax = |z: &[f64]| {
        let total: f64 = z.iter().map(|z| z.exp()).sum();
        z.iter().map(|z| z.exp() / total).collect::<Vec<_>>()
    };
    let (policy, reference, coef) = ([1.0, 0.0, -2.0], [-0.5, 0.7, 0.1], 0.125);
    let game = Game { reference: softmax(&reference), ..Game::cycle() };
    let logits: Vec<f64> = policy.iter().zip(reference).map(|(p, r)| (1.0 - coef) * p + coef * r).collect();
    let expected = [0.640_038_408_466_689, 0.309_986_326_295_505_4, 0.049_975_265_237_805_655];
    close(&softmax(&logits), &expected, 1e-12);
    close(&game.mixture(&softmax(&policy), coef), &expected, 1e-12);
}

/// Computes the gradient of Nash-MD's loss in the logits of `policy`, on every pair of answers, the first drawn from `sampler`
/// and the second from the mixture; `known` is the log-prob that the examples say the sampler gave.
fn nash_md_gradient(game: &Game, policy: &[f64], sampler: &[f64], known: &[f64]) -> Vec<f64> {
    let logits = Tensor::from_slice(&policy.iter().map(|p| p.ln()).collect::<Vec<_>>()).set_requires_grad(true);
    let opponent = game.mixture(policy, 0.25);
    let (mut step, mut tokens) = (Vec::new(), Vec::new());
    for (i, j) in (0..policy.len()).flat_map(|i| (0..policy.len()).map(move |j| (i, j))) {
        let answer = Answer {
            player: Player::Policy,
            token_ids: vec![i as u32],
            behavior_logprobs: vec![known[i].ln() as f32],
            finish: Finish::Eos,
            score: None,
        };
        let example = Example {
            id: RecordId::derive(&[&[i as u8, j as u8]]),
            prompt_ids: vec![0],
            answers: vec![answer],
            target: Target::Opponent { p: game.preference[i][j] },
            rationale: None,
            weight: sampler[i] * opponent[j],
            policy_version: 0,
            source: ExampleSource::Online,
            judge_hash: String::new(),
        };
        let reference = vec![game.reference[i].ln() as f32];
        step.push(Prepared::new(example, vec![Known { reference, ..Known::default() }]));
        tokens.push(i as i64);
    }
    let logprobs =
        logits.log_softmax(0, Kind::Double).index_select(0, &Tensor::from_slice(&tokens)).to_kind(Kind::Float);
    let objective = Objective::Gradient(GradientLoss::NashMd { beta: 0.2 });
    objective.loss_of(&step, &logprobs).expect("a loss").backward();
    Vec::try_from(logits.grad() * step.len() as f64).expect("numbers")
}

/// The importance ratio makes the estimate on answers of an older policy that of the current one; without it, it is biased.
#[test]
fn answers_of_an_older_policy_do_not_bias_nash_md() {
    let (game, policy, older) = (Game::noisy_cycle(), [0.5, 0.2, 0.3], [0.35, 0.3, 0.35]);
    let exact = nash_md_gradient(&game, &policy, &policy, &policy);
    let size = exact.iter().map(|g| g * g).sum::<f64>().sqrt();
    let bias = |found: Vec<f64>| {
        found.iter().zip(&exact).map(|(found, exact)| (found - exact).powi(2)).sum::<f64>().sqrt() / size
    };
    let with = bias(nash_md_gradient(&game, &policy, &older, &older));
    let without = bias(nash_md_gradient(&game, &policy, &older, &policy));
    println!(
        "bias of Nash-MD's gradient on answers of an older policy: {with:.1e} with the ratio, {without:.2} without"
    );
    assert!(with < 1e-5 && without > 0.1, "{with} {without}");
}
