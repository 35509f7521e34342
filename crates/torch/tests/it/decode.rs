//! Packed matrices, attention of one token and draws, against plain formulas.

use joust_torch::{Error, Packed, Past, attend_one, draw};
use tch::{Device::Cpu, Kind, Tensor};

fn random(shape: &[i64], kind: Kind) -> Tensor {
    Tensor::randn(shape, (Kind::Float, Cpu)).to_kind(kind)
}

fn distance(a: &Tensor, b: &Tensor) -> f64 {
    (a.to_kind(Kind::Double) - b.to_kind(Kind::Double)).abs().max().double_value(&[])
}

#[test]
fn packed_products_are_plain_products() {
    // Rows take every path of the remainder; 70 outputs do not fill the last block.
    for rows in [1, 2, 3, 7, 8, 15, 17] {
        let (x, matrix) = (random(&[rows, 1, 96], Kind::BFloat16), random(&[70, 96], Kind::BFloat16));
        let Some(packed) = Packed::new(&matrix).unwrap() else { return }; // this CPU has no AVX512-BF16
        let exact = x.to_kind(Kind::Double).linear(&matrix.to_kind(Kind::Double), None::<Tensor>);
        let wide = packed.linear(&x, true).unwrap();
        assert_eq!((wide.size(), wide.kind()), (vec![rows, 1, 70], Kind::Float));
        assert!(distance(&wide, &exact) < 1e-4, "{rows} rows differ by {}", distance(&wide, &exact));
        assert_eq!(packed.linear(&x, false).unwrap(), wide.to_kind(Kind::BFloat16));
    }
}

#[test]
fn a_second_product_is_added_before_rounding() {
    for rows in [1, 2, 5, 8, 13] {
        let kind = Kind::BFloat16;
        let (x, matrix) = (random(&[rows, 1, 96], kind), random(&[70, 96], kind));
        let (low, up) = (random(&[rows, 1, 6], kind), random(&[70, 6], kind) * 1e-3);
        let Some(packed) = Packed::new(&matrix).unwrap() else { return }; // this CPU has no AVX512-BF16
        let more = Packed::new(&up).unwrap().unwrap();
        let double = |x: &Tensor| x.to_kind(Kind::Double);
        let exact =
            double(&x).linear(&double(&matrix), None::<Tensor>) + double(&low).linear(&double(&up), None::<Tensor>);
        let found = packed.share().linear_with(&x, (&low, &more)).unwrap();
        assert_eq!(found.kind(), kind);
        // Half a unit in the last place of the sum, and the rounding of float32.
        let error = (double(&found) - &exact).abs() - exact.abs() / 256.0;
        assert!(error.max().double_value(&[]) < 1e-4, "{rows} rows");
    }
    let (matrix, other) = (random(&[70, 8], Kind::BFloat16), random(&[30, 8], Kind::BFloat16));
    if let (Some(packed), Some(other)) = (Packed::new(&matrix).unwrap(), Packed::new(&other).unwrap()) {
        let x = random(&[2, 8], Kind::BFloat16);
        let error = packed.linear_with(&x, (&x, &other)).expect_err("30 outputs are not 70");
        assert!(error.to_string().contains("two products of one shape"), "{error}");
    }
}

#[test]
fn what_cannot_be_packed_is_left_alone() {
    assert!(Packed::new(&random(&[4, 6], Kind::Float)).unwrap().is_none());
    assert!(Packed::new(&random(&[4, 7], Kind::BFloat16)).unwrap().is_none());
    if let Some(packed) = Packed::new(&random(&[4, 6], Kind::BFloat16)).unwrap() {
        let error = packed.linear(&random(&[2, 8], Kind::BFloat16), false).expect_err("refused");
        assert!(error.to_string().contains("expected bfloat16 rows of width 6"), "{error}");
    }
}

/// Turns `[B, heads, D]` by angles `[B, D/2]`, in float32.
fn turn(x: &Tensor, angles: &Tensor) -> Tensor {
    let half = x.size()[2] / 2;
    let (a, b) = (x.narrow(2, 0, half), x.narrow(2, half, half));
    let (cos, sin) = (angles.cos().unsqueeze(1), angles.sin().unsqueeze(1));
    Tensor::cat(&[&a * &cos - &b * &sin, b * cos + a * sin], 2)
}

#[test]
fn one_token_attends_to_what_lies_before_and_not_to_padding() {
    let (batch, heads, kv, dim, capacity, at) = (3, 6, 2, 8, 11, 7);
    for (kind, tolerance) in [(Kind::Float, 1e-5), (Kind::BFloat16, 3e-2)] {
        let qkv = random(&[batch, 1, (heads + 2 * kv) * dim], kind);
        let (keys, values) = (random(&[batch, capacity, kv, dim], kind), random(&[batch, capacity, kv, dim], kind));
        let padding = Tensor::from_slice(&[0i64, 4, 7]);
        let angles = random(&[batch, dim / 2], Kind::Float);
        let table = |x: Tensor| Tensor::cat(&[&x, &x], 1).view([batch, 1, 1, dim]).to_kind(kind);
        let tables = (table(angles.cos()), table(angles.sin()));

        let parts = qkv.to_kind(Kind::Float).view([batch, heads + 2 * kv, dim]);
        let (old_keys, old_values) = (keys.to_kind(Kind::Float).copy(), values.to_kind(Kind::Float).copy());
        old_keys.select(1, at).copy_(&turn(&parts.narrow(1, heads, kv), &angles));
        old_values.select(1, at).copy_(&parts.narrow(1, heads + kv, kv));
        let query = turn(&parts.narrow(1, 0, heads), &angles).unsqueeze(2); // [B, heads, 1, D]
        let spread =
            |x: &Tensor| x.narrow(1, 0, at + 1).transpose(1, 2).repeat_interleave_self_int(heads / kv, 1, None);
        let scores = query.matmul(&spread(&old_keys).transpose(2, 3)) / (dim as f64).sqrt();
        let hidden = Tensor::arange(at + 1, (Kind::Int64, Cpu)).unsqueeze(0).lt_tensor(&padding.unsqueeze(1));
        let scores = scores.masked_fill(&hidden.view([batch, 1, 1, at + 1]), f64::NEG_INFINITY);
        let expected = scores.softmax(-1, Kind::Float).matmul(&spread(&old_values)).view([batch, 1, heads * dim]);

        let past = Past { keys: &keys, values: &values, padding: Some(&padding), at };
        let got = attend_one(&qkv, &tables, past, heads).unwrap();
        assert!(distance(&got, &expected) < tolerance, "{kind:?} differs by {}", distance(&got, &expected));
        assert!(distance(&keys, &old_keys) < tolerance && distance(&values, &old_values) < tolerance);
    }
}

#[test]
fn a_full_past_is_refused() {
    let cache = random(&[2, 4, 1, 8], Kind::Float);
    let past = Past { keys: &cache, values: &cache, padding: None, at: 4 };
    let tables = (random(&[1, 8], Kind::Float), random(&[1, 8], Kind::Float));
    let error = attend_one(&random(&[2, 1, 24], Kind::Float), &tables, past, 1).expect_err("refused");
    assert!(error.to_string().contains("room for token 4"), "{error}");
}

#[test]
fn draws_cut_the_unit_interval_at_the_cumulated_softmax() {
    // Several blocks of the sums, the last one short, with far-off tokens of no mass at both ends.
    let vocab = 2500;
    let logits = random(&[1, vocab], Kind::Float) * 3.0;
    let _ = logits.narrow(1, 0, 5).fill_(-200.0);
    let _ = logits.narrow(1, vocab - 5, 5).fill_(f64::NEG_INFINITY);
    let n = 500;
    let uniforms: Vec<f64> = (0..n).map(|i| i as f64 / n as f64).chain([1.0 - 1e-16]).collect();
    for temperature in [1.0, 0.6] {
        let (ids, logprobs) = draw(&logits.repeat([n + 1, 1]), &uniforms, temperature).unwrap();
        let cdf = (&logits / temperature).softmax(1, Kind::Double).cumsum(1, Kind::Double).squeeze_dim(0);
        let cdf = Vec::<f64>::try_from(cdf).unwrap();
        let plain = Vec::<f64>::try_from(logits.log_softmax(1, Kind::Double).squeeze_dim(0)).unwrap();
        for ((id, logprob), u) in ids.iter().zip(&logprobs).zip(&uniforms) {
            let id = *id as usize;
            let below = if id == 0 { 0.0 } else { cdf[id - 1] };
            assert!(below - 1e-6 <= *u && *u <= cdf[id] + 1e-6, "{u} outside [{below}, {}]", cdf[id]);
            assert!((5..vocab as usize - 5).contains(&id), "token {id} has no mass");
            assert!((f64::from(*logprob) - plain[id]).abs() < 1e-5, "{logprob} {}", plain[id]);
        }
    }
}

#[test]
fn draws_from_logits_that_are_not_numbers_are_not_finite() {
    let logits = Tensor::from_slice(&[1.0f32, f32::NAN, 0.0]).unsqueeze(0);
    assert!(!draw(&logits, &[0.3], 1.0).unwrap().1[0].is_finite());
    assert!(matches!(draw(&logits, &[0.3, 0.4], 1.0), Err(Error::Rows { rows: 1, uniforms: 2 })));
}
