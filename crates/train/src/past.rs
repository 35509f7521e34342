//! The policy as it was one publish ago.

use joust_model::Weights;
use tch::Kind;

/// The weights of the publish before the last one, for the player `past` (self-play against the iteration before, as in SPIN,
/// <https://arxiv.org/abs/2401.01335>).
#[derive(Debug)]
pub struct Past {
    /// The earlier weights, float32; the names are the masters'.
    pub weights: Weights,
    /// The weights of the last publish.
    published: Weights,
}

impl Past {
    /// Starts at the given weights: until the second publish the past is the beginning.
    pub fn new(weights: &Weights) -> Self {
        Self { weights: weights.snapshot(Kind::Float), published: weights.snapshot(Kind::Float) }
    }

    /// Moves on: what was published becomes the past.
    pub fn publish(&mut self, masters: &Weights) {
        self.weights = std::mem::replace(&mut self.published, masters.snapshot(Kind::Float));
    }

    /// Goes on from a checkpoint, which is written at a publish and holds the past of that moment.
    pub fn resume(&mut self, masters: &Weights) {
        self.published = masters.snapshot(Kind::Float);
    }
}
