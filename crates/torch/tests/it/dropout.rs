//! Keyed masks: the draws are those of `joust_core::rng`'s Philox, and gradients pass where values do.

use joust_torch::{Mask, dropout};
use tch::{Device::Cpu, Kind, Tensor};

const MASK: Mask = Mask { seed: 0x1234_5678_9abc_def0, step: 3, micro_batch: 1, module: 9 };

/// One block of Philox 4x32-10, written as in the paper.
fn philox(mut c: [u32; 4], mut k: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let a = 0xD251_1F53_u64 * u64::from(c[0]);
        let b = 0xCD9E_8D57_u64 * u64::from(c[2]);
        c = [(b >> 32) as u32 ^ c[1] ^ k[0], b as u32, (a >> 32) as u32 ^ c[3] ^ k[1], a as u32];
        k = [k[0].wrapping_add(0x9E37_79B9), k[1].wrapping_add(0xBB67_AE85)];
    }
    c
}

fn kept(x: &Tensor) -> Vec<bool> {
    Vec::<f64>::try_from(x.to_kind(Kind::Double).view(-1)).expect("floats").iter().map(|x| *x != 0.0).collect()
}

#[test]
fn the_mask_is_philox_of_its_key() {
    let (p, n) = (0.3, 1000);
    let below = (p * 2f64.powi(32)) as u32;
    let drawn = |i: u32| {
        // Groups of 64 elements: 16 blocks side by side, one of their four words after the other.
        let (group, word, lane) = (i / 64, i % 64 / 16, i % 16);
        philox([group * 16 + lane, 3, 1, 9], [0x9abc_def0, 0x1234_5678])[word as usize] >= below
    };
    for kind in [Kind::Float, Kind::BFloat16, Kind::Double] {
        let x = Tensor::full([10, n / 10], 2.0, (kind, Cpu));
        let out = dropout(&x, p, MASK).unwrap();
        assert_eq!(kept(&out), (0..n as u32).map(drawn).collect::<Vec<_>>(), "{kind:?}");
        assert!((out.max().double_value(&[]) - 2.0 / 0.7).abs() < 0.02, "{kind:?}");
    }
}

#[test]
fn another_key_is_another_mask_and_the_mean_stays() {
    let x = Tensor::ones([400, 500], (Kind::Float, Cpu));
    let run = |mask| dropout(&x, 0.1, mask).unwrap();
    let whole = run(MASK);
    assert!((whole.mean(Kind::Double).double_value(&[]) - 1.0).abs() < 3e-3);
    for other in [
        Mask { seed: 1, ..MASK },
        Mask { step: 4, ..MASK },
        Mask { micro_batch: 0, ..MASK },
        Mask { module: 8, ..MASK },
    ] {
        // Two masks of 0.1 agree on 0.82 of the elements.
        let same = run(other).eq_tensor(&whole).to_kind(Kind::Double).mean(Kind::Double).double_value(&[]);
        assert!((same - 0.82).abs() < 0.01, "{other:?}: {same}");
    }
    tch::set_num_threads(1);
    assert_eq!(run(MASK), whole);
    assert_eq!(dropout(&x, 0.0, MASK).unwrap(), x);
}

#[test]
fn gradients_pass_the_same_mask() {
    let x = Tensor::randn([7, 33], (Kind::Float, Cpu)).set_requires_grad(true);
    let out = dropout(&x, 0.5, MASK).unwrap();
    (&out * 3.0).sum(Kind::Float).backward();
    assert_eq!(kept(&x.grad()), kept(&out));
    assert_eq!(x.grad().max().double_value(&[]), 6.0);
}
