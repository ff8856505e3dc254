//! Activations in token panels, the layout that sparse products read.

use rayon::prelude::*;

use crate::base::buffer::AlignedBuffer;
use crate::base::cpu::{Isa, isa};
use crate::sparse::transpose::{Source, Target, transpose};

/// Tokens of a panel: as many as the accumulators of one output feature can hold in registers.
#[inline]
pub(crate) fn panel_tokens() -> usize {
    match isa() {
        Isa::Avx512 | Isa::Avx2 => 64,
        Isa::Portable => 32,
    }
}

/// Columns that one job packs.
const PACK_COLUMNS: usize = 256;

/// Activations `[T, cols]`, rearranged to `[panels][cols][panel tokens]` on cache lines, by one or several groups of tokens: the
/// last panel of each is padded with zeros. One serves any number of products and of packings, and grows only when it has to.
#[derive(Clone, Debug, Default)]
pub struct TokenPanels {
    buffer: AlignedBuffer,
    /// Tokens of each group.
    groups: Vec<usize>,
    cols: usize,
}

/// Where a group of [`TokenPanels`] is packed.
#[derive(Debug)]
pub struct TokenPanelsPart<'a> {
    panels: &'a mut [f32],
    tokens: usize,
    cols: usize,
}

/// A group of [`TokenPanels`], to multiply.
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
    /// Values that a group of so many tokens takes, padding included.
    #[must_use]
    pub fn len(tokens: usize, cols: usize) -> usize {
        panel_count(tokens) * panel_tokens() * cols
    }

    /// Begins activations of groups with so many tokens each, and gives their parts, of unspecified content.
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

    /// [`TokenPanels::parts`] of one group.
    pub fn one_part(&mut self, cols: usize, tokens: usize) -> TokenPanelsPart<'_> {
        self.parts(cols, std::iter::once(tokens)).pop().expect("one part")
    }

    /// Packs `x` `[T, cols]`, one group, in place of what was there.
    ///
    /// # Panics
    /// If `x` does not consist of whole rows.
    pub fn pack(&mut self, x: &[f32], cols: usize) -> TokenPanelsView<'_> {
        assert!(if cols == 0 { x.is_empty() } else { x.len().is_multiple_of(cols) }, "activations of whole rows");
        let tokens = x.len().checked_div(cols).unwrap_or(0);
        self.one_part(cols, tokens).pack(x);
        self.view()
    }

    /// The activations of a single group.
    ///
    /// # Panics
    /// If there are several.
    #[must_use]
    pub fn view(&self) -> TokenPanelsView<'_> {
        assert_eq!(self.groups.len(), 1, "a single group of tokens");
        self.group(0)
    }

    /// The activations of a group.
    #[must_use]
    pub fn group(&self, index: usize) -> TokenPanelsView<'_> {
        let len = |tokens| Self::len(tokens, self.cols);
        let first: usize = self.groups[..index].iter().map(|&tokens| len(tokens)).sum();
        let tokens = self.groups[index];
        TokenPanelsView { panels: &self.buffer.as_slice()[first..first + len(tokens)], tokens, cols: self.cols }
    }

    /// Tokens of each group.
    pub(super) fn groups(&self) -> &[usize] {
        &self.groups
    }

    /// Features of each token.
    pub(super) fn cols(&self) -> usize {
        self.cols
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
    /// Packs the group's rows `[tokens, cols]`.
    #[allow(unsafe_code)]
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

    /// Tokens of the group.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Features of each.
    #[must_use]
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// All values in the order of the panels, padding included, to change each by itself.
    pub fn values_mut(&mut self) -> &mut [f32] {
        self.panels
    }

    /// What was packed.
    #[must_use]
    pub fn view(&self) -> TokenPanelsView<'_> {
        TokenPanelsView { panels: self.panels, tokens: self.tokens, cols: self.cols }
    }
}

impl<'a> TokenPanelsView<'a> {
    /// All values in the order of the panels, padding included.
    #[must_use]
    pub fn values(self) -> &'a [f32] {
        self.panels
    }

    /// The rows `[tokens, cols]` again.
    #[allow(unsafe_code)]
    pub fn unpack(self, rows: &mut [f32]) {
        assert_eq!(rows.len(), self.tokens * self.cols, "rows of the group's tokens");
        for (panel, rows) in rows.chunks_mut((panel_tokens() * self.cols).max(1)).enumerate() {
            let from = Source { start: self.panel(panel).as_ptr(), stride: panel_tokens() };
            let to = Target { start: rows.as_mut_ptr(), stride: self.cols };
            // SAFETY: a panel has a row for each column, and `rows` one for each of its tokens.
            unsafe { transpose(from, self.cols, self.tokens_of(panel), to) };
        }
    }

    /// Tokens of the group.
    #[must_use]
    pub fn tokens(self) -> usize {
        self.tokens
    }

    /// Features of each.
    #[must_use]
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
