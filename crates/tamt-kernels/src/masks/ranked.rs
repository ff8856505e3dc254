//! A mask that knows where in its order each row's survivors lie.

use std::ops::Range;

use crate::masks::bit_mask::BitMask;
use crate::masks::bits::count_bits;

/// Where the elements of a matrix's rows lie that are kept in one slice: no two rows share a place.
#[derive(Clone, Copy, Debug)]
pub struct RowRanges<'a>(Starts<'a>);

#[derive(Clone, Copy, Debug)]
enum Starts<'a> {
    /// So many of each row.
    Each(usize),
    /// Those of a row from here on, to where the next row's begin.
    From(&'a [usize]),
}

impl RowRanges<'_> {
    /// Of a matrix with all elements of its columns.
    #[must_use]
    pub fn of_columns(cols: usize) -> Self {
        Self(Starts::Each(cols))
    }

    /// Those of a row.
    #[must_use]
    #[inline]
    pub fn of(self, row: usize) -> Range<usize> {
        match self.0 {
            Starts::Each(cols) => row * cols..(row + 1) * cols,
            Starts::From(starts) => starts[row]..starts[row + 1],
        }
    }
}

/// A mask with the number of survivors before each of its rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RankedMask {
    mask: BitMask,
    /// Of each row, and of all.
    row_starts: Vec<usize>,
}

impl RankedMask {
    /// Counts a mask's survivors.
    #[must_use]
    pub fn new(mask: BitMask) -> Self {
        let mut new = Self { mask, row_starts: Vec::new() };
        new.count();
        new
    }

    /// Takes another mask; allocates nothing where there is room.
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
    #[must_use]
    pub fn mask(&self) -> &BitMask {
        &self.mask
    }

    /// How many elements it keeps.
    #[must_use]
    pub fn survivors(&self) -> usize {
        self.row_starts.last().copied().unwrap_or(0)
    }

    /// Where the rows' survivors lie among all.
    #[must_use]
    pub fn row_ranges(&self) -> RowRanges<'_> {
        RowRanges(Starts::From(&self.row_starts))
    }

    /// Survivors of a row.
    pub(crate) fn of_row(&self, row: usize) -> Range<usize> {
        self.row_ranges().of(row)
    }

    /// Survivors of a row from column `col` on, a multiple of 8.
    pub(crate) fn of_row_from(&self, row: usize, col: usize) -> Range<usize> {
        let Range { start, end } = self.of_row(row);
        if col == 0 { start..end } else { start + count_bits(&self.mask.row(row)[..col / 8])..end }
    }
}
