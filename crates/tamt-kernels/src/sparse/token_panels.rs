//! Token panels: the layout of activations that sparse products read and write.
//!
//! ```text
//! x [T, cols]           panels [panels][cols][panel tokens]
//! t0: a0 b0 c0          a0 a1 a2 .. a63 | b0 b1 b2 .. b63 | c0 c1 c2 .. c63     panel 0
//! t1: a1 b1 c1          a64 ..                                                 panel 1
//! ```
//!
//! One column's activations of a panel are consecutive, so that a weight is multiplied with whole vectors of tokens.

use rayon::prelude::*;

use crate::base::{AlignedBuffer, Isa, isa};
use crate::sparse::transpose::{StridedPtr, StridedPtrMut, transpose};

/// Tokens of a panel: the sums of one output feature fill 4 registers with AVX-512, and 8 elsewhere.
#[inline]
pub(crate) fn panel_tokens() -> usize {
    match isa() {
        Isa::Avx512 | Isa::Avx2 => 64,
        Isa::Portable => 32,
    }
}

/// Columns of a packing job.
const PACK_COLUMNS: usize = 256;

/// Activations `[T, cols]` in the layout `[panels][cols][panel tokens]`, for one or several groups of tokens. Zeros pad
/// the last panel of each group. Panels begin at cache lines. The buffer is reused from packing to packing, and only
/// ever grows.
#[derive(Clone, Debug, Default)]
pub struct TokenPanels {
    buffer: AlignedBuffer,
    /// Tokens of each group.
    pub(super) groups: Vec<usize>,
    /// Features of each token.
    pub(super) cols: usize,
}

/// One group of [`TokenPanels`], to be written.
#[derive(Debug)]
pub struct TokenPanelsPart<'a> {
    panels: &'a mut [f32],
    tokens: usize,
    cols: usize,
}

/// One group of [`TokenPanels`], the left operand of products.
#[derive(Clone, Copy, Debug)]
pub struct TokenPanelsView<'a> {
    panels: &'a [f32],
    tokens: usize,
    cols: usize,
}

fn panel_count(tokens: usize) -> usize {
    tokens.div_ceil(panel_tokens())
}

impl TokenPanels {
    /// Length of the panels of one group, padding included.
    pub fn len(tokens: usize, cols: usize) -> usize {
        panel_count(tokens) * panel_tokens() * cols
    }

    /// Starts new activations, and returns one part of unspecified content per group. `groups` are the numbers of
    /// tokens.
    pub fn parts(&mut self, cols: usize, groups: impl Iterator<Item = usize>) -> Vec<TokenPanelsPart<'_>> {
        self.groups.clear();
        self.groups.extend(groups);
        self.cols = cols;
        let mut rest = self.buffer.get(self.groups.iter().map(|&tokens| Self::len(tokens, cols)).sum());
        let part = |&tokens: &usize| {
            let (panels, others) = std::mem::take(&mut rest).split_at_mut(Self::len(tokens, cols));
            rest = others;
            TokenPanelsPart { panels, tokens, cols }
        };
        self.groups.iter().map(part).collect()
    }

    /// [`TokenPanels::parts`] for one group.
    pub fn one_part(&mut self, cols: usize, tokens: usize) -> TokenPanelsPart<'_> {
        self.parts(cols, std::iter::once(tokens)).pop().expect("one part")
    }

    /// Replaces the content by `x` `[T, cols]` as one group.
    ///
    /// # Panics
    /// If `x` does not consist of whole rows.
    pub fn pack(&mut self, x: &[f32], cols: usize) -> TokenPanelsView<'_> {
        assert!(if cols == 0 { x.is_empty() } else { x.len().is_multiple_of(cols) }, "activations of whole rows");
        let tokens = x.len().checked_div(cols).unwrap_or(0);
        self.one_part(cols, tokens).pack(x);
        self.view()
    }

    /// The activations of the only group.
    ///
    /// # Panics
    /// If there is not exactly one group.
    pub fn view(&self) -> TokenPanelsView<'_> {
        assert_eq!(self.groups.len(), 1, "a single group of tokens");
        self.group(0)
    }

    /// The activations of one group.
    pub fn group(&self, index: usize) -> TokenPanelsView<'_> {
        let len = |tokens| Self::len(tokens, self.cols);
        let first: usize = self.groups[..index].iter().map(|&tokens| len(tokens)).sum();
        let tokens = self.groups[index];
        TokenPanelsView { panels: &self.buffer.as_slice()[first..first + len(tokens)], tokens, cols: self.cols }
    }

    /// Number of panels.
    pub(super) fn count(&self) -> usize {
        self.groups.iter().map(|&tokens| panel_count(tokens)).sum()
    }

    /// One panel, `[cols][panel tokens]`.
    pub(super) fn panel(&self, index: usize) -> &[f32] {
        let size = panel_tokens() * self.cols;
        &self.buffer.as_slice()[index * size..][..size]
    }
}

impl TokenPanelsPart<'_> {
    /// Packs the group's rows `x` `[tokens, cols]`.
    ///
    /// # Panics
    /// If `x` does not have that shape.
    pub fn pack(&mut self, x: &[f32]) {
        let (tokens, cols, width) = (self.tokens, self.cols, panel_tokens());
        assert_eq!(x.len(), tokens * cols, "rows of the group's tokens");
        self.panels.par_chunks_mut((width * cols).max(1)).enumerate().for_each(|(panel, out)| {
            let first = panel * width;
            let count = width.min(tokens - first);
            out.par_chunks_mut(PACK_COLUMNS * width).enumerate().for_each(|(job, out)| {
                let columns = out.len() / width;
                let from = &x[first * cols + job * PACK_COLUMNS..];
                assert!(from.len() >= (count - 1) * cols + columns, "the rows lie in the activations");
                let from = StridedPtr { start: from.as_ptr(), stride: cols };
                let to = StridedPtrMut { start: out.as_mut_ptr(), stride: width };
                // SAFETY: `from` has `count` rows of `columns` floats: asserted above. `out` has `columns` rows of
                // `width >= count` floats and is borrowed exclusively.
                unsafe { transpose(from, count, columns, to) };
                if count < width {
                    out.chunks_exact_mut(width).for_each(|column| column[count..].fill(0.0));
                }
            });
        });
    }

    /// Tokens of the group.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Features of each token.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// All values in panel layout, padding included.
    pub fn values_mut(&mut self) -> &mut [f32] {
        self.panels
    }

    /// The packed activations.
    pub fn view(&self) -> TokenPanelsView<'_> {
        TokenPanelsView { panels: self.panels, tokens: self.tokens, cols: self.cols }
    }
}

impl<'a> TokenPanelsView<'a> {
    /// All values in panel layout, padding included.
    pub fn values(self) -> &'a [f32] {
        self.panels
    }

    /// Writes the activations to `rows` `[tokens, cols]`.
    ///
    /// # Panics
    /// If `rows` does not have that shape.
    pub fn unpack(self, rows: &mut [f32]) {
        assert_eq!(rows.len(), self.tokens * self.cols, "rows of the group's tokens");
        for (panel, rows) in rows.chunks_mut((panel_tokens() * self.cols).max(1)).enumerate() {
            let from = StridedPtr { start: self.panel(panel).as_ptr(), stride: panel_tokens() };
            let to = StridedPtrMut { start: rows.as_mut_ptr(), stride: self.cols };
            // SAFETY: a panel has `cols` rows of at least `tokens_of(panel)` floats; `rows` has `tokens_of(panel)` rows
            // of `cols` floats and is borrowed exclusively.
            unsafe { transpose(from, self.cols, self.tokens_of(panel), to) };
        }
    }

    /// Tokens of the group.
    pub fn tokens(self) -> usize {
        self.tokens
    }

    /// Features of each token.
    pub fn cols(self) -> usize {
        self.cols
    }

    /// Number of panels.
    pub(super) fn count(self) -> usize {
        panel_count(self.tokens)
    }

    /// One panel, `[cols][panel tokens]`.
    pub(super) fn panel(self, index: usize) -> &'a [f32] {
        let size = panel_tokens() * self.cols;
        &self.panels[index * size..][..size]
    }

    /// Tokens of one panel that are not padding.
    pub(super) fn tokens_of(self, index: usize) -> usize {
        panel_tokens().min(self.tokens - index * panel_tokens())
    }
}
