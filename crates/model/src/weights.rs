//! A checkpoint's tensors by Hugging Face key.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use tch::{Kind, Tensor};

use crate::{Error, ModelConfig, Result};

/// Projections that read one input, within a layer: the name of the stack, and its parts from top to bottom.
pub(crate) const STACKS: [(&str, &[&str]); 2] = [
    ("self_attn.qkv_proj", &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
    ("mlp.gate_up_proj", &["mlp.gate_proj", "mlp.up_proj"]),
];

/// Tensors by Hugging Face key, in key order.
#[derive(Debug, Default)]
pub struct Weights(pub BTreeMap<String, Tensor>);

impl Weights {
    /// Draws fresh weights as transformers does: normal with standard deviation 0.02, norms at 1.
    pub fn random(config: &ModelConfig, seed: u64) -> Self {
        // libtorch's generator is the process's: two threads must not draw from it in turns.
        static GENERATOR: Mutex<()> = Mutex::new(());
        let _turn = GENERATOR.lock();
        tch::manual_seed(seed as i64);
        let draw = |(name, shape): (String, Vec<i64>)| {
            let options = (Kind::Float, tch::Device::Cpu);
            let tensor =
                if shape.len() == 1 { Tensor::ones(shape, options) } else { Tensor::randn(shape, options) * 0.02 };
            (name, tensor)
        };
        Self(config.tensors().into_iter().map(draw).collect())
    }

    /// Returns the keys under which [`crate::Llama`] looks for stacked projections, each with the keys of its parts from top to
    /// bottom.
    pub fn stacked_keys(config: &ModelConfig) -> Vec<(String, Vec<String>)> {
        let layer = |index: usize| {
            let name = move |part: &str| format!("model.layers.{index}.{part}.weight");
            STACKS.map(|(stack, parts)| (name(stack), parts.iter().map(|part| name(part)).collect()))
        };
        (0..config.num_hidden_layers).flat_map(layer).collect()
    }

    /// Returns the tensor with this key.
    ///
    /// # Errors
    /// [`Error::Tensor`] if there is none.
    pub fn get(&self, name: &str) -> Result<&Tensor> {
        self.0.get(name).ok_or_else(|| Error::Tensor {
            path: "weights".into(),
            name: name.to_owned(),
            problem: "it is missing".into(),
        })
    }

    /// Returns the weights in another kind; differentiable where the source requires gradients.
    pub fn to_kind(&self, kind: Kind) -> Self {
        Self(self.0.iter().map(|(name, tensor)| (name.clone(), tensor.to_kind(kind))).collect())
    }

    /// Returns the weights on a device; those that lie there already are shared.
    pub fn to_device(&self, device: tch::Device) -> Self {
        Self(self.0.iter().map(|(name, tensor)| (name.clone(), tensor.to_device(device))).collect())
    }

    /// Returns an independent copy in another kind, without gradients.
    pub fn snapshot(&self, kind: Kind) -> Self {
        let copy = |tensor: &Tensor| tensor.detach().to_kind(kind).copy();
        Self(self.0.iter().map(|(name, tensor)| (name.clone(), copy(tensor))).collect())
    }

    /// Returns BLAKE3 over keys, shapes, kinds and bytes, hexadecimal.
    ///
    /// # Errors
    /// [`Error::Torch`] if a tensor's bytes cannot be read.
    pub fn hash(&self) -> Result<String> {
        let mut hasher = blake3::Hasher::new();
        for (name, tensor) in &self.0 {
            hasher.update(name.as_bytes());
            hasher.update(format!("{:?}{:?}", tensor.size(), tensor.kind()).as_bytes());
            hasher.update(&bytes(tensor)?);
        }
        Ok(hasher.finalize().to_hex().to_string())
    }
}

/// Copies a tensor's elements as little-endian bytes in row-major order.
pub(crate) fn bytes(tensor: &Tensor) -> Result<Vec<u8>> {
    let tensor = tensor.detach().to_device(tch::Device::Cpu).contiguous();
    let mut buffer = vec![0u8; tensor.numel() * tensor.kind().elt_size_in_bytes()];
    tensor.f_copy_data_u8(&mut buffer, tensor.numel())?;
    Ok(buffer)
}
