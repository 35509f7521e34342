//! Keyed randomness (R6): every draw is a pure function of what it is for, so nothing depends on arrival order.
//!
//! Philox 4x32-10, a counter-based generator. See "Parallel Random Numbers: As Easy as 1, 2, 3", Salmon et al.,
//! <https://doi.org/10.1145/2063384.2063405>.

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// What a draw is for; draws of different purposes never share a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Stream {
    /// Tokens of training rollouts.
    Train = 0,
    /// Tokens of evaluation answers.
    Eval = 1,
    /// Order of the data set.
    Shuffle = 2,
    /// Which example a replay draws.
    Replay = 3,
    /// What a synthetic judge adds.
    Judge = 4,
    /// Initial weights and other model noise.
    Init = 5,
    /// Labels drawn with the judge's probability.
    Label = 6,
    /// Which of two answers a judge is shown first.
    Order = 7,
}

/// Computes one Philox 4x32-10 block.
fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let a = u64::from(MULTIPLIERS[0]) * u64::from(counter[0]);
        let b = u64::from(MULTIPLIERS[1]) * u64::from(counter[2]);
        counter = [(b >> 32) as u32 ^ counter[1] ^ key[0], b as u32, (a >> 32) as u32 ^ counter[3] ^ key[1], a as u32];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

/// Returns 64 random bits for (seed, stream, position, sample, index).
pub fn bits(seed: u64, stream: Stream, position: u64, at: (u32, u32)) -> u64 {
    // The 12 bits of stream and the 52 of position share 64 bits of the counter; a run of 2^52 prompts does not exist.
    let place = (u64::from(stream as u32) << 52) | (position & ((1 << 52) - 1));
    let block = philox([at.1, at.0, place as u32, (place >> 32) as u32], [seed as u32, (seed >> 32) as u32]);
    u64::from(block[0]) << 32 | u64::from(block[1])
}

/// Returns a uniform in [0, 1) with 53 bits for (seed, stream, position, (sample, index)).
pub fn uniform(seed: u64, stream: Stream, position: u64, at: (u32, u32)) -> f64 {
    (bits(seed, stream, position, at) >> 11) as f64 / (1u64 << 53) as f64
}

/// Returns the permutation of `0..n` that (seed, stream, round) names (Fisher-Yates).
pub fn permutation(n: usize, seed: u64, stream: Stream, round: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        let draw = uniform(seed, stream, round, ((i >> 32) as u32, i as u32));
        order.swap(i, (draw * (i + 1) as f64) as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_the_published_vectors() {
        // Random123's kat_vectors, philox4x32 10.
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox([u32::MAX; 4], [u32::MAX; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
    }

    #[test]
    fn uniforms_are_uniform_and_keyed() {
        let mean: f64 = (0..10_000).map(|i| uniform(7, Stream::Train, 3, (1, i))).sum::<f64>() / 10_000.0;
        assert!((mean - 0.5).abs() < 0.01, "{mean}");
        assert_ne!(bits(7, Stream::Train, 3, (0, 0)), bits(7, Stream::Eval, 3, (0, 0)));
        assert_ne!(bits(7, Stream::Train, 3, (0, 1)), bits(7, Stream::Train, 3, (1, 0)));
    }

    #[test]
    fn permutations_hold_every_row_once() {
        let mut order = permutation(100, 1, Stream::Shuffle, 0);
        assert_ne!(order, permutation(100, 1, Stream::Shuffle, 1));
        order.sort_unstable();
        assert_eq!(order, (0..100).collect::<Vec<_>>());
    }
}
