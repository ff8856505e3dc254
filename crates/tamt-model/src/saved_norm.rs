//! Saved activations of a sub-layer `y = LayerNorm(s)`, `s = residual + dropout(x)`.

use std::ops::Range;

use tamt_kernels::ops::layer_norm::SavedStatistics;

use crate::batch::{SequenceGroup, group_rows};

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

impl SavedNorm {
    pub(crate) fn resize(&mut self, tokens: usize, hidden: usize) {
        self.sum.resize(tokens * hidden, 0.0);
        self.mean.resize(tokens, 0.0);
        self.rstd.resize(tokens, 0.0);
    }

    /// The slots of each group; empty if nothing is saved.
    pub(crate) fn slots(
        &mut self,
        groups: &[SequenceGroup],
        hidden: usize,
    ) -> impl Iterator<Item = SavedStatistics<'_>> {
        let statistics = group_rows(groups, &mut self.mean, 1).zip(group_rows(groups, &mut self.rstd, 1));
        let slots = group_rows(groups, &mut self.sum, hidden).zip(statistics);
        slots.map(|(sum, (mean, rstd))| SavedStatistics { sum: Some(sum), mean, rstd })
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
