//! A layer's matrices in the layout that their use asks for, and what a low-rank adapter adds to their products.

use joust_torch::{Mask, Packed, dropout};
use tch::{Kind, Tensor};

use crate::Result;

/// Why libtorch cannot refuse the layers' operations.
pub(crate) const SHAPES: &str = "shapes were checked when the model was built";

/// Multiplies the last dimension by a `[out, in]` matrix.
pub(crate) fn linear(x: &Tensor, matrix: &Tensor) -> Tensor {
    x.linear(matrix, None::<Tensor>)
}

/// A matrix in the layout that its use asks for.
#[derive(Debug)]
pub(crate) enum Matrix {
    Plain(Tensor),
    Packed(Packed),
}

impl Matrix {
    /// Packs the matrix if `packed` and the device gains by it; gradients pass only through plain ones.
    pub(crate) fn new(matrix: Tensor, packed: bool) -> Result<Self> {
        let blocks = if packed { Packed::new(&matrix)? } else { None };
        Ok(blocks.map_or(Self::Plain(matrix), Self::Packed))
    }

    /// Returns another handle on the same memory.
    pub(crate) fn share(&self) -> Self {
        match self {
            Self::Plain(matrix) => Self::Plain(matrix.shallow_clone()),
            Self::Packed(packed) => Self::Packed(packed.share()),
        }
    }

    fn is_packed(&self) -> bool {
        matches!(self, Self::Packed(_))
    }

    fn linear(&self, x: &Tensor) -> Tensor {
        match self {
            Self::Plain(matrix) => linear(x, matrix),
            Self::Packed(packed) => packed.linear(x, false).expect(SHAPES),
        }
    }

    /// Multiplies with the result in float32.
    pub(crate) fn wide(&self, x: &Tensor) -> Tensor {
        match self {
            Self::Plain(matrix) => linear(x, matrix).to_kind(Kind::Float),
            Self::Packed(packed) => packed.linear(x, true).expect(SHAPES),
        }
    }
}

/// A frozen or trained matrix, and the adapter that is added to it, if there is one.
#[derive(Debug)]
pub(crate) struct Projection {
    matrix: Matrix,
    adapter: Option<LowRank>,
}

/// `up · down(x)`, for all adapters of a stack of projections at once: `[out, R]` and `[R, in]`, with R the sum of their ranks.
#[derive(Debug)]
struct LowRank {
    down: Down,
    /// Each adapter's B, scaled, at the rows of its projection and the columns of its A.
    up: Matrix,
}

#[derive(Debug)]
enum Down {
    /// The A's stacked.
    Whole(Matrix),
    /// Each A behind a mask of its own.
    Dropped(f64, Vec<(Tensor, Mask)>),
}

/// The adapter of one projection of a stack.
#[derive(Debug)]
pub(crate) struct Part {
    /// `[r, in]`.
    pub(crate) a: Tensor,
    /// `[out, r]`, scaled by alpha / r.
    pub(crate) b: Tensor,
}

/// The adapters of a stack of projections, by the outputs of each from top to bottom; `None` where a projection has none.
#[derive(Debug)]
pub(crate) struct Stack {
    pub(crate) parts: Vec<(i64, Option<Part>)>,
    /// Probability and a mask for each adapter there is, where inputs are dropped.
    pub(crate) dropout: Option<(f64, Vec<Mask>)>,
}

impl Projection {
    pub(crate) fn plain(matrix: Matrix) -> Self {
        Self { matrix, adapter: None }
    }

    /// Returns a projection on the same matrix, with these adapters instead of its own.
    pub(crate) fn adapted(&self, stack: Stack) -> Result<Self> {
        let adapter = LowRank::new(stack, self.matrix.is_packed())?;
        Ok(Self { matrix: self.matrix.share(), adapter })
    }

    /// Returns a projection on the same matrix, without adapters.
    pub(crate) fn base(&self) -> Self {
        Self::plain(self.matrix.share())
    }

    /// Returns another handle on the same matrix and adapters.
    pub(crate) fn share(&self) -> Self {
        Self { matrix: self.matrix.share(), adapter: self.adapter.as_ref().map(LowRank::share) }
    }

    pub(crate) fn linear(&self, x: &Tensor) -> Tensor {
        let Some(LowRank { down, up }) = &self.adapter else { return self.matrix.linear(x) };
        let low = down.linear(x);
        match (&self.matrix, up) {
            (Matrix::Packed(matrix), Matrix::Packed(up)) => matrix.linear_with(x, (&low, up)).expect(SHAPES),
            (matrix, Matrix::Plain(up)) => add_product(&matrix.linear(x), &low, up),
            (matrix, up) => matrix.linear(x) + up.linear(&low),
        }
    }
}

/// Computes `sum + low · upᵀ` in one operation.
fn add_product(sum: &Tensor, low: &Tensor, up: &Tensor) -> Tensor {
    let flat = |x: &Tensor| x.view([-1, x.size().last().copied().unwrap_or_default()]);
    flat(sum).addmm(&flat(low), &up.tr()).view_as(sum)
}

impl LowRank {
    fn share(&self) -> Self {
        let down = match &self.down {
            Down::Whole(matrix) => Down::Whole(matrix.share()),
            Down::Dropped(probability, parts) => {
                Down::Dropped(*probability, parts.iter().map(|(a, mask)| (a.shallow_clone(), *mask)).collect())
            }
        };
        Self { down, up: self.up.share() }
    }

    fn new(stack: Stack, packed: bool) -> Result<Option<Self>> {
        let Stack { parts, dropout } = stack;
        let there = || parts.iter().filter_map(|(_, part)| part.as_ref());
        let Some(first) = there().next() else { return Ok(None) };
        let ranks: i64 = there().map(|part| part.a.size()[0]).sum();
        // A packed matrix has an even number of columns.
        let spare = if packed { ranks % 2 } else { 0 };
        let mut at = 0;
        let mut rows = Vec::with_capacity(parts.len());
        for (outputs, part) in &parts {
            rows.push(match part {
                None => Tensor::zeros([*outputs, ranks + spare], (first.b.kind(), first.b.device())),
                Some(part) => {
                    let rank = part.a.size()[0];
                    at += rank;
                    part.b.constant_pad_nd([at - rank, ranks + spare - at])
                }
            });
        }
        let up = Matrix::new(Tensor::cat(&rows, 0), packed)?;
        let down = match dropout {
            Some((probability, masks)) => {
                Down::Dropped(probability, there().map(|part| part.a.shallow_clone()).zip(masks).collect())
            }
            None => {
                let whole = Tensor::cat(&there().map(|part| &part.a).collect::<Vec<_>>(), 0);
                Down::Whole(Matrix::new(whole.constant_pad_nd([0, 0, 0, spare]), packed)?)
            }
        };
        Ok(Some(Self { down, up }))
    }
}

impl Down {
    fn linear(&self, x: &Tensor) -> Tensor {
        match self {
            Self::Whole(matrix) => matrix.linear(x),
            Self::Dropped(probability, parts) => {
                let part = |(a, mask): &(Tensor, Mask)| linear(&dropout(x, *probability, *mask).expect(SHAPES), a);
                Tensor::cat(&parts.iter().map(part).collect::<Vec<_>>(), -1)
            }
        }
    }
}
