//! Tokens sorted by the table row that they look up.

use std::ops::Range;

use crate::base::{add_elements, with_buffer};

/// The gradients `d` `[T, cols]` of tokens, sorted by the tokens' ids, then by position.
pub(crate) struct ByRow<'a> {
    d: &'a [f32],
    ids: &'a [u32],
    cols: usize,
    order: &'a [u32],
}

impl<'a> ByRow<'a> {
    /// Sorts all tokens whose id is not `skip`; `order` is scratch.
    pub(crate) fn new(d: &'a [f32], ids: &'a [u32], cols: usize, skip: Option<u32>, order: &'a mut Vec<u32>) -> Self {
        order.clear();
        order.extend((0..ids.len() as u32).filter(|&t| Some(ids[t as usize]) != skip));
        order.sort_unstable_by_key(|&t| (ids[t as usize], t));
        Self { d, ids, cols, order }
    }

    /// The rows that have tokens, in ascending order.
    pub(crate) fn rows(&self) -> impl Iterator<Item = u32> {
        let row_of = |&t: &u32| self.ids[t as usize];
        self.order.chunk_by(move |a, b| row_of(a) == row_of(b)).map(move |tokens| row_of(&tokens[0]))
    }

    /// Calls `f(row, Σ_{t: ids[t] = row} d[t])` for the rows in `rows` that have tokens, in ascending order. Each sum
    /// adds the tokens in their order.
    pub(crate) fn for_each_sum(&self, rows: Range<usize>, mut f: impl FnMut(usize, &mut [f32])) {
        let row_of = |t: u32| self.ids[t as usize] as usize;
        let from = self.order.partition_point(|&t| row_of(t) < rows.start);
        let to = from + self.order[from..].partition_point(|&t| row_of(t) < rows.end);
        with_buffer(self.cols, |sum| {
            for tokens in self.order[from..to].chunk_by(|&a, &b| row_of(a) == row_of(b)) {
                sum.fill(0.0);
                for &t in tokens {
                    add_elements(sum, &self.d[t as usize * self.cols..][..self.cols]);
                }
                f(row_of(tokens[0]), sum);
            }
        });
    }
}
