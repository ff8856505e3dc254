//! Saved activations of a sub-layer `y = LayerNorm(s)`, `s = residual + dropout(x)`.

use std::ops::Range;

use tamt_kernels::ops::layer_norm::SavedStatistics;

use crate::rows::RowCursor;

/// `s` `[T, hidden]`, and the mean and `rstd = 1 / sqrt(variance + eps)` of each row, `[T]`.
#[derive(Clone, Debug, Default)]
pub(crate) struct SavedNorm {
    pub(crate) sum: Vec<f32>,
    pub(crate) mean: Vec<f32>,
    pub(crate) rstd: Vec<f32>,
}

/// Some tokens of [`SavedNorm`], to read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NormView<'a> {
    pub(crate) sum: &'a [f32],
    pub(crate) mean: &'a [f32],
    pub(crate) rstd: &'a [f32],
}

/// The rest of [`SavedNorm`], to write.
pub(crate) struct NormCursor<'a> {
    sum: RowCursor<'a>,
    mean: RowCursor<'a>,
    rstd: RowCursor<'a>,
}

impl SavedNorm {
    pub(crate) fn resize(&mut self, tokens: usize, hidden: usize) {
        self.sum.resize(tokens * hidden, 0.0);
        self.mean.resize(tokens, 0.0);
        self.rstd.resize(tokens, 0.0);
    }

    pub(crate) fn cursor(&mut self, hidden: usize) -> NormCursor<'_> {
        NormCursor {
            sum: RowCursor::new(&mut self.sum, hidden),
            mean: RowCursor::new(&mut self.mean, 1),
            rstd: RowCursor::new(&mut self.rstd, 1),
        }
    }

    pub(crate) fn all(&self) -> NormView<'_> {
        NormView { sum: &self.sum, mean: &self.mean, rstd: &self.rstd }
    }

    pub(crate) fn tokens(&self, tokens: &Range<usize>, hidden: usize) -> NormView<'_> {
        NormView {
            sum: &self.sum[tokens.start * hidden..tokens.end * hidden],
            mean: &self.mean[tokens.clone()],
            rstd: &self.rstd[tokens.clone()],
        }
    }
}

impl<'a> NormCursor<'a> {
    /// The slots of the next `tokens` tokens; empty if nothing is saved.
    pub(crate) fn take(&mut self, tokens: usize) -> SavedStatistics<'a> {
        SavedStatistics { sum: Some(self.sum.take(tokens)), mean: self.mean.take(tokens), rstd: self.rstd.take(tokens) }
    }
}
