//! Activations in token panels, the layout that sparse products read.

use rayon::prelude::*;

use super::transpose::{Source, Target, transpose};
use crate::dispatch::{Isa, isa};
use crate::parallel::Buffer;

/// Tokens of a panel: as many as the accumulators of one output feature can hold in registers.
#[inline]
pub(super) fn panel_tokens() -> usize {
    match isa() {
        Isa::Avx512 | Isa::Avx2 => 64,
        Isa::Portable => 32,
    }
}

/// Columns that one job packs.
const PACK_COLUMNS: usize = 256;

/// Activations `[T, cols]`, rearranged to `[panels][cols][panel tokens]` on cache lines; the last panel is padded with
/// zeros. One serves any number of products and of packings, and grows only when it has to.
#[derive(Debug, Default)]
pub struct Panels {
    buffer: Buffer,
    tokens: usize,
    cols: usize,
}

impl Panels {
    /// Packs `x` `[T, cols]` in place of what was there.
    ///
    /// # Panics
    /// If `x` does not consist of whole rows.
    #[allow(unsafe_code)]
    pub fn pack(&mut self, x: &[f32], cols: usize) {
        assert!(if cols == 0 { x.is_empty() } else { x.len().is_multiple_of(cols) }, "activations of whole rows");
        self.tokens = x.len().checked_div(cols).unwrap_or(0);
        self.cols = cols;
        let (tokens, width) = (self.tokens, panel_tokens());
        let panels = self.buffer.get(tokens.div_ceil(width) * width * cols);
        panels.par_chunks_mut((width * cols).max(1)).enumerate().for_each(|(panel, out)| {
            let first = panel * width;
            let count = width.min(tokens - first);
            out.par_chunks_mut(PACK_COLUMNS * width).enumerate().for_each(|(job, out)| {
                let columns = out.len() / width;
                let from = &x[first * cols + job * PACK_COLUMNS..];
                assert!(from.len() >= (count - 1) * cols + columns, "the rows lie in the activations");
                let from = Source { start: from.as_ptr(), stride: cols };
                let to = Target { start: out.as_mut_ptr(), stride: width };
                // SAFETY: the rows were checked; `out` holds `columns` rows of `width`, and `count` is no more.
                unsafe { transpose(from, count, columns, to) };
                if count < width {
                    out.chunks_exact_mut(width).for_each(|column| column[count..].fill(0.0));
                }
            });
        });
    }

    /// Tokens that were packed.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Features of each.
    #[must_use]
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Number of panels.
    pub(super) fn count(&self) -> usize {
        self.tokens.div_ceil(panel_tokens())
    }

    /// One panel, `[cols][panel tokens]`.
    pub(super) fn panel(&self, index: usize) -> &[f32] {
        let size = panel_tokens() * self.cols;
        &self.buffer.as_slice()[index * size..][..size]
    }

    /// Tokens of one panel that are not padding.
    pub(super) fn tokens_of(&self, index: usize) -> usize {
        panel_tokens().min(self.tokens - index * panel_tokens())
    }
}
