//! Rotary position embedding in Hugging Face's convention: the two halves of a head are rotated against each other.
//!
//! See "RoFormer: Enhanced Transformer with Rotary Position Embedding", Su et al., <https://arxiv.org/abs/2104.09864>.

use std::f64::consts::PI;

use tch::{Kind, Tensor};

use crate::{ModelConfig, RopeScaling};

/// Tables of cosines and sines by position.
#[derive(Debug)]
pub struct Rope {
    cos: Tensor, // [positions, D]
    sin: Tensor, // [positions, D]
}

/// Returns the angular frequency of each pair of a head, stretched as the config says.
fn frequencies(config: &ModelConfig) -> Vec<f64> {
    let dim = config.head_dim as f64;
    let plain = (0..config.head_dim / 2).map(|i| config.rope_theta.powf(-2.0 * i as f64 / dim));
    plain
        .map(|frequency| match config.rope_scaling {
            RopeScaling::Default => frequency,
            RopeScaling::Linear { factor } => frequency / factor,
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original } => {
                let wavelength = 2.0 * PI / frequency;
                if wavelength < original / high_freq_factor {
                    frequency
                } else if wavelength > original / low_freq_factor {
                    frequency / factor
                } else {
                    let smooth = (original / wavelength - low_freq_factor) / (high_freq_factor - low_freq_factor);
                    (1.0 - smooth) * frequency / factor + smooth * frequency
                }
            }
        })
        .collect()
}

impl Rope {
    /// Computes the tables for every position of the context, in the given kind.
    pub fn new(config: &ModelConfig, kind: Kind, device: tch::Device) -> Self {
        let inverse: Vec<f32> = frequencies(config).iter().map(|f| *f as f32).collect();
        let inverse = Tensor::from_slice(&inverse).to_device(device);
        let positions = Tensor::arange(config.max_position_embeddings, (Kind::Float, device));
        let angles = positions.unsqueeze(1) * inverse.unsqueeze(0); // [positions, D/2]
        let angles = Tensor::cat(&[&angles, &angles], 1);
        Self { cos: angles.cos().to_kind(kind), sin: angles.sin().to_kind(kind) }
    }

    /// Returns another handle on the same tables.
    pub(crate) fn share(&self) -> Self {
        Self { cos: self.cos.shallow_clone(), sin: self.sin.shallow_clone() }
    }

    /// Picks the rows for positions `[B, T]`, or `[T]` shared by the batch, shaped to multiply `[B, heads, T, D]`.
    pub fn at(&self, positions: &Tensor) -> (Tensor, Tensor) {
        let pick = |table: &Tensor| {
            let rows = table.index_select(0, &positions.flatten(0, -1));
            let mut shape = positions.size();
            shape.push(rows.size()[1]);
            let rows = rows.view(shape.as_slice());
            if shape.len() == 3 { rows.unsqueeze(1) } else { rows }
        };
        (pick(&self.cos), pick(&self.sin))
    }
}
