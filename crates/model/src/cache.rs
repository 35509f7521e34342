//! The KV cache of a batch: one slot a row, all rows at the same length.
//!
//! Prompts are padded on the left, so that every row writes its next token at the same place.

use tch::Tensor;

/// Keys and values of one layer, `[B, capacity, kv heads, D]`: a token's heads lie together, as the projection gives them.
#[derive(Debug)]
pub(crate) struct LayerCache {
    pub(crate) keys: Tensor,
    pub(crate) values: Tensor,
}

/// Keys and values of all layers for a batch of rows.
#[derive(Debug)]
pub struct KvCache {
    pub(crate) layers: Vec<LayerCache>,
    pub(crate) length: i64,
    /// Additive mask `[B, 1, 1, capacity]`: 0 where a row may look, -inf on its left padding.
    pub(crate) mask: Option<Tensor>,
    /// Left padding of each row, `[B]`, int64.
    pub(crate) padding: Tensor,
}

impl KvCache {
    /// Returns how many tokens each row holds, its padding included.
    pub fn length(&self) -> i64 {
        self.length
    }

    /// Returns the rows named by `rows` (int64 `[n]`, repeats allowed) as a cache of their own.
    pub fn select(&self, rows: &Tensor) -> Self {
        let layers = self
            .layers
            .iter()
            .map(|layer| LayerCache {
                keys: layer.keys.index_select(0, rows),
                values: layer.values.index_select(0, rows),
            })
            .collect();
        Self {
            layers,
            length: self.length,
            mask: self.mask.as_ref().map(|mask| mask.index_select(0, rows)),
            padding: self.padding.index_select(0, rows),
        }
    }
}

impl LayerCache {
    /// Writes `[B, kv heads, T, D]` at `at` and returns views of all that is held, in the same order.
    pub(crate) fn append(&self, keys: &Tensor, values: &Tensor, at: i64) -> (Tensor, Tensor) {
        let new = keys.size()[2];
        self.keys.narrow(1, at, new).copy_(&keys.transpose(1, 2));
        self.values.narrow(1, at, new).copy_(&values.transpose(1, 2));
        let held = |cache: &Tensor| cache.narrow(1, 0, at + new).transpose(1, 2);
        (held(&self.keys), held(&self.values))
    }
}
