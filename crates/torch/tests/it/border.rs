//! The C++ loops against plain tch formulas: values in each kind, gradients by finite differences in float64 and by tch's own
//! autograd in float32, and the same bits on each run.

use joust_torch::{
    Limits, RopeHeads, Sink, Step, adamw, add_rms_norm, clear_grad, compute_copy, divergence, logprobs,
    logprobs_with_spread, rms_norm, rope, square_sum, swiglu, version,
};
use tch::{Device::Cpu, Kind, Tensor};

const EPS: f64 = 1e-6;

fn random(shape: &[i64], kind: Kind) -> Tensor {
    Tensor::randn(shape, (Kind::Double, Cpu)).to_kind(kind)
}

fn distance(a: &Tensor, b: &Tensor) -> f64 {
    (a.to_kind(Kind::Double) - b.to_kind(Kind::Double)).abs().max().double_value(&[])
}

/// Checks the gradient of `f` along a random direction of each input, in float64.
fn check_gradient(inputs: &[Tensor], f: impl Fn(&[Tensor]) -> Tensor) {
    let leaves: Vec<Tensor> = inputs.iter().map(|x| x.copy().set_requires_grad(true)).collect();
    let out = f(&leaves);
    let weights = random(&out.size(), Kind::Double);
    (out * &weights).sum(Kind::Double).backward();
    for (i, leaf) in leaves.iter().enumerate() {
        let direction = random(&leaf.size(), Kind::Double);
        let value = |sign: f64| {
            let moved: Vec<Tensor> = inputs
                .iter()
                .enumerate()
                .map(|(j, x)| if i == j { x + &direction * (sign * 1e-5) } else { x.copy() })
                .collect();
            (f(&moved) * &weights).sum(Kind::Double).double_value(&[])
        };
        let expected = (value(1.0) - value(-1.0)) / 2e-5;
        let grad = if leaf.grad().defined() { leaf.grad() } else { leaf.zeros_like() };
        let got = (grad * direction).sum(Kind::Double).double_value(&[]);
        assert!((got - expected).abs() < 1e-6 * (1.0 + expected.abs()), "input {i}: {got} {expected}");
    }
}

/// Compares values and gradients of `fast` with `plain` in one kind.
fn check_against(
    inputs: &[Tensor],
    tolerance: f64,
    fast: impl Fn(&[Tensor]) -> Tensor,
    plain: impl Fn(&[Tensor]) -> Tensor,
) {
    let run = |f: &dyn Fn(&[Tensor]) -> Tensor| {
        let leaves: Vec<Tensor> = inputs.iter().map(|x| x.copy().set_requires_grad(true)).collect();
        let out = f(&leaves);
        let weights = (Tensor::arange(out.numel() as i64, (Kind::Float, Cpu)) * 0.37).sin().view_as(&out);
        (out.to_kind(Kind::Float) * weights).sum(Kind::Float).backward();
        (out.detach(), leaves.iter().map(Tensor::grad).collect::<Vec<_>>())
    };
    let (fast, plain) = (run(&fast), run(&plain));
    assert!(distance(&fast.0, &plain.0) <= tolerance, "values differ by {}", distance(&fast.0, &plain.0));
    for (i, (a, b)) in fast.1.iter().zip(&plain.1).enumerate() {
        let scale = 1.0 + b.abs().max().double_value(&[]);
        assert!(distance(a, b) <= tolerance * scale, "gradient of input {i} differs by {}", distance(a, b));
    }
}

/// float32, and bfloat16 with its 8 bits.
const KINDS: [(Kind, f64); 2] = [(Kind::Float, 2e-5), (Kind::BFloat16, 6e-2)];

fn plain_norm(x: &Tensor, weight: &Tensor) -> Tensor {
    let wide = x.to_kind(Kind::Float);
    let mean = wide.square().mean_dim(-1i64, true, Kind::Float);
    (wide * (mean + EPS).rsqrt()).to_kind(x.kind()) * weight
}

#[test]
fn rms_norm_is_the_plain_formula() {
    // 37 rows do not divide into the parts that the weight's gradient is summed in; 51 is no multiple of a vector.
    for (kind, tolerance) in KINDS {
        let inputs = [random(&[37, 51], kind), random(&[51], kind)];
        check_against(&inputs, tolerance, |x| rms_norm(&x[0], &x[1], EPS).unwrap(), |x| plain_norm(&x[0], &x[1]));
    }
    let inputs = [random(&[5, 7], Kind::Double), random(&[7], Kind::Double)];
    check_gradient(&inputs, |x| rms_norm(&x[0], &x[1], EPS).unwrap());
}

#[test]
fn the_added_norm_passes_both_gradients_on() {
    let both = |(sum, out): (Tensor, Tensor)| Tensor::cat(&[sum * 0.5, out], 0);
    for (kind, tolerance) in KINDS {
        let inputs = [random(&[4, 9, 32], kind), random(&[4, 9, 32], kind), random(&[32], kind)];
        check_against(
            &inputs,
            tolerance,
            |x| both(add_rms_norm(&x[0], &x[1], &x[2], EPS).unwrap()),
            |x| both((&x[0] + &x[1], plain_norm(&(&x[0] + &x[1]), &x[2]))),
        );
    }
    let inputs = [random(&[5, 7], Kind::Double), random(&[5, 7], Kind::Double), random(&[7], Kind::Double)];
    check_gradient(&inputs, |x| both(add_rms_norm(&x[0], &x[1], &x[2], EPS).unwrap()));
    check_gradient(&inputs, |x| add_rms_norm(&x[0], &x[1], &x[2], EPS).unwrap().0);
    check_gradient(&inputs, |x| add_rms_norm(&x[0], &x[1], &x[2], EPS).unwrap().1);
}

#[test]
fn swiglu_is_the_plain_formula() {
    for (kind, tolerance) in KINDS {
        let inputs = [random(&[3, 5, 38], kind) * 3.0];
        let plain = |x: &[Tensor]| {
            let parts = x[0].chunk(2, -1);
            parts[0].silu() * &parts[1]
        };
        check_against(&inputs, tolerance, |x| swiglu(&x[0]).unwrap(), plain);
    }
    check_gradient(&[random(&[6, 10], Kind::Double)], |x| swiglu(&x[0]).unwrap());
}

#[test]
fn swiglu_keeps_its_ends() {
    let gate = Tensor::from_slice(&[-1e30f32, -90.0, 0.0, 90.0, 1e30, f32::NAN]);
    let out = Vec::<f32>::try_from(swiglu(&Tensor::cat(&[&gate, &gate.ones_like()], 0)).unwrap()).unwrap();
    assert_eq!(out[2..5], [0.0, 90.0, 1e30]);
    assert!(out[0].abs() < 1e-5 && out[1].abs() < 1e-5 && out[5].is_nan(), "{out:?}");
}

fn tables(shape: &[i64], kind: Kind) -> (Tensor, Tensor) {
    let angles = random(shape, Kind::Double);
    let angles = Tensor::cat(&[&angles, &angles], -1);
    (angles.cos().to_kind(kind), angles.sin().to_kind(kind))
}

fn plain_rope(qkv: &Tensor, (cos, sin): &(Tensor, Tensor), heads: RopeHeads, dim: i64) -> [Tensor; 3] {
    let size = qkv.size();
    let parts = qkv.view([size[0], size[1], -1, dim]).transpose(1, 2);
    let turn = |x: Tensor| {
        let turned = Tensor::cat(&[&x.narrow(3, dim / 2, dim / 2).neg(), &x.narrow(3, 0, dim / 2)], 3);
        &x * cos + turned * sin
    };
    let groups = if heads.repeat { heads.heads / heads.kv_heads } else { 1 };
    let spread = |x: Tensor| x.repeat_interleave_self_int(groups, 1, None);
    let key = turn(parts.narrow(1, heads.heads, heads.kv_heads));
    let value = parts.narrow(1, heads.heads + heads.kv_heads, heads.kv_heads);
    [turn(parts.narrow(1, 0, heads.heads)), spread(key), spread(value)]
}

#[test]
fn rope_is_the_plain_formula() {
    let flat = |parts: [Tensor; 3]| Tensor::cat(&parts.map(|x| x.transpose(1, 2).reshape([-1])), 0);
    for repeat in [false, true] {
        let heads = RopeHeads { heads: 6, kv_heads: 2, repeat };
        for (shape, name) in [(vec![5, 4], "shared"), (vec![3, 1, 5, 4], "by row")] {
            for (kind, tolerance) in KINDS {
                let tables = tables(&shape, kind);
                let inputs = [random(&[3, 5, 80], kind)];
                let fast = |x: &[Tensor]| flat(rope(&x[0], &tables, heads).unwrap());
                check_against(&inputs, tolerance, fast, |x| flat(plain_rope(&x[0], &tables, heads, 8)));
            }
            let tables = tables(&shape, Kind::Double);
            check_gradient(&[random(&[3, 5, 80], Kind::Double)], |x| flat(rope(&x[0], &tables, heads).expect(name)));
        }
    }
}

#[test]
fn a_wrong_shape_is_an_error_and_not_a_crash() {
    let heads = RopeHeads { heads: 6, kv_heads: 2, repeat: false };
    let error = rope(&random(&[1, 5, 79], Kind::Float), &tables(&[5, 4], Kind::Float), heads).expect_err("refused");
    assert!(error.to_string().contains("expected qkv of width 80, got 79"), "{error}");
}

fn plain_logprobs(x: &[Tensor], targets: &Tensor) -> Tensor {
    let logits = x[0].linear(&x[1], None::<Tensor>).to_kind(Kind::Float);
    logits.log_softmax(-1, Kind::Float).gather(1, &targets.unsqueeze(1), false).squeeze_dim(1)
}

#[test]
fn logprobs_do_not_depend_on_what_is_kept() {
    let (n, vocab) = (7, 99);
    let targets = Tensor::from_slice(&[0i64, 15, 16, 17, 63, 98, 50]);
    // One slice; seven slices all kept; two kept and five computed again; none kept.
    let all = [(1 << 20, 1 << 20), (112, 1 << 20), (112, 230), (112, 0)].map(|(slice, kept)| Limits { slice, kept });
    for limits in all {
        for (kind, tolerance) in KINDS {
            let inputs = [random(&[n, 24], kind), random(&[vocab, 24], kind)];
            let fast = |x: &[Tensor]| logprobs(&x[0], &x[1], &targets, limits).unwrap();
            check_against(&inputs, tolerance, fast, |x| plain_logprobs(x, &targets));
        }
        let inputs = [random(&[n, 24], Kind::Double), random(&[vocab, 24], Kind::Double)];
        check_gradient(&inputs, |x| logprobs(&x[0], &x[1], &targets, limits).unwrap());
    }
}

#[test]
fn what_is_told_of_distributions_is_that_of_whole_logits() {
    let (n, vocab, k) = (7, 99, 20);
    let targets = Tensor::from_slice(&[0i64, 15, 16, 17, 63, 98, 50]);
    let slices = [1 << 20, 112].map(|slice| Limits { slice, kept: 230 });
    for (limits, (kind, tolerance)) in slices.into_iter().flat_map(|limits| KINDS.map(|kind| (limits, kind))) {
        let inputs = [random(&[n, 24], kind), random(&[vocab, 24], kind)].map(|x| x.set_requires_grad(true));
        let log_p = inputs[0].linear(&inputs[1], None::<Tensor>).to_kind(Kind::Double).log_softmax(1, Kind::Double);
        let entropy = -(log_p.exp() * &log_p).sum_dim_intlist(1i64, false, Kind::Double);
        let log_squares = log_p.exp().square().sum_dim_intlist(1i64, false, Kind::Double).log();
        let (top, _) = log_p.topk(k, 1, true, true);
        let (picked, spread) = logprobs_with_spread([&inputs[0], &inputs[1], &targets], k, limits).unwrap();
        let plain = logprobs(&inputs[0], &inputs[1], &targets, limits).unwrap();
        assert!(picked.equal(&plain) && picked.requires_grad());
        for (found, expected) in [(spread.entropy, entropy), (spread.log_squares, log_squares), (spread.top, top)] {
            assert!(!found.requires_grad());
            let off = (found.to_kind(Kind::Double) - expected).abs().max().double_value(&[]);
            assert!(off < tolerance, "{kind:?} {limits:?}: {off}");
        }
        // The gradient of log-probs is what it is without them.
        picked.sum(Kind::Float).backward();
        let own = inputs.each_ref().map(|x| x.grad().copy());
        inputs.iter().for_each(|x| drop(x.grad().zero_()));
        plain.sum(Kind::Float).backward();
        assert!(own.iter().zip(&inputs).all(|(own, x)| own.equal(&x.grad())));
    }
    let rows = random(&[1, 24], Kind::Float);
    let one = Tensor::from_slice(&[0i64]);
    let error = logprobs_with_spread([&rows, &random(&[5, 24], Kind::Float), &one], 6, Limits::default());
    assert!(error.expect_err("five tokens").to_string().contains("k of at most 5 tokens, got 6"));
}

#[test]
fn logprobs_stay_finite_for_far_logits() {
    let weight = Tensor::from_slice(&[3e4f32, -3e4, 0.0]).view([3, 1]).set_requires_grad(true);
    let rows = Tensor::from_slice(&[1.0f32, 1.0, -1.0]).view([3, 1]);
    let out = logprobs(&rows, &weight, &Tensor::from_slice(&[0i64, 1, 2]), Limits::default()).unwrap();
    assert_eq!(Vec::<f32>::try_from(out.detach()).unwrap(), [0.0, -6e4, -3e4]);
    out.sum(Kind::Float).backward();
    assert_eq!(Vec::<f32>::try_from(weight.grad().view(-1)).unwrap(), [-1.0, 2.0, -1.0]);
}

#[test]
fn divergences_do_not_depend_on_their_slices() {
    let (n, vocab) = (7, 99);
    for slice in [1 << 20, 3 * 99, 99, 1] {
        let plain = |x: &[Tensor], held: &[Tensor; 2]| {
            let log = |x: &Tensor, weight: &Tensor| x.linear(weight, None::<Tensor>).log_softmax(-1, Kind::Float);
            let q = log(&held[0], &held[1]);
            (q.exp() * (q - log(&x[0], &x[1]))).sum_dim_intlist(-1i64, false, Kind::Float)
        };
        for (kind, tolerance) in KINDS {
            // The reference may be narrower or wider than the policy.
            let held = [random(&[n, 16], kind), random(&[vocab, 16], kind)];
            let inputs = [random(&[n, 24], kind), random(&[vocab, 24], kind)];
            let fast = |x: &[Tensor]| divergence([&x[0], &x[1]], held.each_ref(), slice).unwrap();
            check_against(&inputs, tolerance * 2.0, fast, |x| plain(x, &held));
        }
        let held = [random(&[n, 16], Kind::Double), random(&[vocab, 16], Kind::Double)];
        let inputs = [random(&[n, 24], Kind::Double), random(&[vocab, 24], Kind::Double)];
        check_gradient(&inputs, |x| divergence([&x[0], &x[1]], held.each_ref(), slice).unwrap());
    }
}

#[test]
fn a_divergence_is_none_of_equal_models_finite_of_far_ones_and_refuses_two_vocabularies() {
    let (rows, weight) = (random(&[5, 8], Kind::Float), random(&[11, 8], Kind::Float));
    let own = divergence([&rows, &weight], [&rows, &weight], 1 << 20).unwrap();
    assert!(own.abs().max().double_value(&[]) < 1e-6, "{own}");
    let far = Tensor::from_slice(&[3e4f32, -3e4]).view([2, 1]).set_requires_grad(true);
    let (one, other) = (Tensor::ones([1, 1], (Kind::Float, Cpu)), Tensor::from_slice(&[-3e4f32, 3e4]).view([2, 1]));
    let out = divergence([&one, &far], [&one, &other], 1 << 20).unwrap();
    assert_eq!(out.double_value(&[0]), 6e4);
    out.sum(Kind::Float).backward();
    assert_eq!(Vec::<f32>::try_from(far.grad().view(-1)).unwrap(), [1.0, -1.0]);
    let error = divergence([&rows, &weight], [&rows, &weight.narrow(0, 0, 9)], 1 << 20).expect_err("refused");
    assert!(error.to_string().contains("expected one vocabulary, got 11 and 9 tokens"), "{error}");
}

#[test]
fn gradients_of_a_copy_reach_the_masters_and_add_up_in_float32() {
    let masters = [2, 3].map(|rows| random(&[rows, 4], Kind::Float).set_requires_grad(true));
    let copy = tch::no_grad(|| Tensor::cat(&masters, 0).to_kind(Kind::BFloat16));
    let mut expected = Tensor::zeros([5, 4], (Kind::Float, Cpu));
    for round in 0..3 {
        let whole = compute_copy(&copy, &[&masters[0], &masters[1]], None).unwrap();
        assert_eq!(whole, copy);
        let factor = random(&[5, 4], Kind::BFloat16) * (round + 1) as f64;
        expected += factor.to_kind(Kind::Float);
        (whole * factor).sum(Kind::Float).backward();
    }
    assert_eq!(masters[0].grad(), expected.narrow(0, 0, 2));
    assert_eq!(masters[1].grad(), expected.narrow(0, 2, 3));
    clear_grad(&masters[0]).unwrap();
    assert!(!masters[0].grad().defined());
}

#[test]
fn versions_tell_of_writes() {
    let tensor = Tensor::zeros([3], (Kind::Float, Cpu)).set_requires_grad(true);
    let before = version(&tensor);
    assert_eq!(before, version(&tensor.detach()));
    tensor.detach().copy_(&Tensor::ones([3], (Kind::Float, Cpu)));
    assert!(version(&tensor) > before);
}

#[test]
fn adamw_in_one_pass_is_the_plain_formula() {
    let n = 100_003; // several threads, and no multiple of a vector
    let start = random(&[n], Kind::Double);
    let mut states: Vec<[Tensor; 3]> = [Kind::Float, Kind::Double]
        .map(|kind| [start.to_kind(kind).copy(), Tensor::zeros([n], (kind, Cpu)), Tensor::zeros([n], (kind, Cpu))])
        .into();
    let copy = Tensor::zeros([n], (Kind::BFloat16, Cpu));
    for updates in 1..=4 {
        let gradient = random(&[n], Kind::Double);
        let step =
            Step { scale: 0.5, decay: 1e-3, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, learning_rate: 0.01, updates };
        for [weight, first, second] in &mut states {
            adamw(weight, &gradient.to_kind(weight.kind()), [first, second], Some(&copy), &step).unwrap();
        }
        adamw_copy_matches(&states[1][0], &copy);
    }
    for (fast, exact) in states[0].iter().zip(&states[1]) {
        assert!(distance(fast, exact) < 2e-6, "{}", distance(fast, exact));
    }
    let fused = Tensor::zeros([n], (Kind::BFloat16, Cpu));
    let step =
        Step { scale: 1.0, decay: 0.0, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, learning_rate: 0.01, updates: 5 };
    let [weight, first, second] = &states[0];
    adamw(weight, &random(&[n], Kind::Float), [first, second], Some(&fused), &step).unwrap();
    assert_eq!(fused, weight.to_kind(Kind::BFloat16));
}

/// The plain path writes the copy too.
fn adamw_copy_matches(weight: &Tensor, copy: &Tensor) {
    assert_eq!(*copy, weight.to_kind(Kind::BFloat16));
}

#[test]
fn squares_add_up() {
    let values = random(&[70_001], Kind::Float);
    let expected = values.to_kind(Kind::Double).square().sum(Kind::Double).double_value(&[]);
    assert!((square_sum(&values).unwrap() - expected).abs() < 1e-6 * expected);
}

#[test]
fn each_run_gives_the_same_bits() {
    let inputs =
        [random(&[300, 64], Kind::BFloat16), random(&[64], Kind::BFloat16), random(&[1000, 64], Kind::BFloat16)];
    let targets = Tensor::arange(300, (Kind::Int64, Cpu));
    let run = || {
        let leaves: Vec<Tensor> = inputs.iter().map(|x| x.copy().set_requires_grad(true)).collect();
        let rows = rms_norm(&leaves[0], &leaves[1], EPS).unwrap();
        let out = logprobs(&rows, &leaves[2], &targets, Limits { slice: 30_000, kept: 0 }).unwrap();
        out.sum(Kind::Float).backward();
        leaves.iter().map(Tensor::grad).collect::<Vec<_>>()
    };
    assert_eq!(run(), run());
}

#[test]
fn a_panic_in_a_sink_is_an_error_once_and_no_gradient_is_taken_for_another() {
    let master = Tensor::ones([3], (Kind::Float, Cpu)).set_requires_grad(true);
    let copy = master.detach();
    let sink = Sink::new(|id, _| {
        if id == 7 {
            std::panic::panic_any(format!("no memory for {id}"));
        }
    });
    let pass = |id: i64| {
        let stands = compute_copy(&copy, &[&master], Some((&sink, id))).expect("made");
        (&stands * 2.0).sum(Kind::Float).backward();
        sink.check()
    };
    pass(1).expect("nothing panicked");
    let error = pass(7).expect_err("a gradient is lost").to_string();
    assert!(error.contains("a gradient was lost") && error.contains("no memory for 7"), "{error}");
    sink.check().expect("it was given out once");
    pass(2).expect("the next pass is whole");
}
