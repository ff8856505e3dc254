//! [`RankedMask`]: a mask with the range of each row's survivors in mask order.

use std::ops::Range;

use crate::masks::bit_mask::BitMask;
use crate::masks::bits::count_bits;

/// The range of each row of a matrix in a slice of all stored elements. The ranges of two rows are disjoint.
#[derive(Clone, Copy, Debug)]
pub struct RowRanges<'a>(Layout<'a>);

#[derive(Clone, Copy, Debug)]
enum Layout<'a> {
    /// Every row stores this many elements.
    Dense(usize),
    /// Row `r` is the range `starts[r]..starts[r + 1]`.
    Compact(&'a [usize]),
}

impl RowRanges<'_> {
    /// The rows of a dense matrix with `cols` columns.
    pub fn of_columns(cols: usize) -> Self {
        Self(Layout::Dense(cols))
    }

    /// The range of row `row`.
    #[inline]
    pub fn of(self, row: usize) -> Range<usize> {
        match self.0 {
            Layout::Dense(cols) => row * cols..(row + 1) * cols,
            Layout::Compact(starts) => starts[row]..starts[row + 1],
        }
    }
}

/// A mask with the number of survivors that precede each row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RankedMask {
    mask: BitMask,
    /// Survivors before each row, then the number of all survivors; empty for the default mask.
    row_starts: Vec<usize>,
}

impl RankedMask {
    /// Counts the survivors of `mask`.
    pub fn new(mask: BitMask) -> Self {
        let mut new = Self { mask, row_starts: Vec::new() };
        new.count();
        new
    }

    /// Replaces the mask. Reuses the allocations if their capacity suffices.
    pub(crate) fn set(&mut self, mask: &BitMask) {
        self.mask.clone_from(mask);
        self.count();
    }

    fn count(&mut self) {
        let Self { mask, row_starts } = self;
        let ends = (0..mask.rows()).scan(0, |end, row| {
            *end += mask.count_ones_in(row..row + 1);
            Some(*end)
        });
        row_starts.clear();
        row_starts.extend(std::iter::once(0).chain(ends));
    }

    /// The mask.
    pub fn mask(&self) -> &BitMask {
        &self.mask
    }

    /// Number of elements that the mask keeps.
    pub fn survivors(&self) -> usize {
        self.row_starts.last().copied().unwrap_or(0)
    }

    /// The range of each row in the list of all survivors.
    pub fn row_ranges(&self) -> RowRanges<'_> {
        RowRanges(Layout::Compact(&self.row_starts))
    }

    /// The range of a row in the list of all survivors.
    pub(crate) fn of_row(&self, row: usize) -> Range<usize> {
        self.row_ranges().of(row)
    }

    /// The range of the survivors of a row in columns `col..`; `col` is a multiple of 8.
    pub(crate) fn of_row_from(&self, row: usize, col: usize) -> Range<usize> {
        let Range { start, end } = self.of_row(row);
        if col == 0 { start..end } else { start + count_bits(&self.mask.row(row)[..col / 8])..end }
    }
}
