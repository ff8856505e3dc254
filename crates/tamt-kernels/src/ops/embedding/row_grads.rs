//! The gradient of an embedding table as a list of its non-zero rows.

use rayon::prelude::*;
use std::ops::Range;

use crate::base::{Scratch, Shared, Write};
use crate::masks::{GradEpilogue, gather_row};
use crate::ops::embedding::by_row::ByRow;

/// Rows of a job.
const JOB_ROWS: usize = 16;

/// The gradient of a table `[V, cols]`: the values of the rows that have tokens. All other rows are zero (`sparse=True`
/// of `torch.nn.Embedding`).
#[derive(Clone, Debug, Default)]
pub struct RowGrads {
    /// The rows that have a gradient, ascending.
    rows: Vec<u32>,
    /// End of each row's values in `values`.
    ends: Vec<usize>,
    /// For each row of the table, 1 + its index in `rows`, or 0.
    positions: Vec<u32>,
    values: Vec<f32>,
}

impl RowGrads {
    /// The zero gradient of a table with `rows` rows.
    pub fn new(rows: usize) -> Self {
        Self { positions: vec![0; rows], ..Self::default() }
    }

    /// Rows of the table.
    pub fn table_rows(&self) -> usize {
        self.positions.len()
    }

    /// Sets the gradient to zero.
    pub fn clear(&mut self) {
        for &row in &self.rows {
            self.positions[row as usize] = 0;
        }
        self.rows.clear();
        self.ends.clear();
        self.values.clear();
    }

    /// The values of all rows that have a gradient, in the order of the rows.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The rows that have a gradient, ascending.
    pub fn rows(&self) -> impl Iterator<Item = usize> {
        self.rows.iter().map(|&row| row as usize)
    }

    /// The values of a row, or `None` if its gradient is zero.
    pub fn get(&self, row: usize) -> Option<&[f32]> {
        let position = self.positions[row].checked_sub(1)? as usize;
        Some(&self.values[values_range(&self.ends, position)])
    }

    /// The rows that have a gradient and their values, ascending.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (usize, &mut [f32])> {
        let (mut rest, mut done) = (self.values.as_mut_slice(), 0);
        self.rows.iter().zip(&self.ends).map(move |(&row, &end)| {
            let (values, tail) = std::mem::take(&mut rest).split_at_mut(end - done);
            (rest, done) = (tail, end);
            (row as usize, values)
        })
    }

    /// `grad[v] = epilogue(Σ_{t: ids[t] = v} d[t])`, summed in the order of the tokens: `d` `[T, cols]`. The row of the
    /// id `skip` gets no gradient (`padding_idx`).
    ///
    /// # Panics
    /// If the shapes do not match, or an id is outside the table.
    pub fn backward(
        &mut self,
        d: &[f32],
        ids: &[u32],
        cols: usize,
        skip: Option<u32>,
        epilogue: GradEpilogue<'_>,
        scratch: &mut Scratch,
    ) {
        assert_eq!(d.len(), ids.len() * cols, "a gradient row per token");
        assert!(ids.iter().all(|&id| (id as usize) < self.table_rows()), "ids are rows of the table");
        epilogue.assert_shape(self.table_rows(), cols);
        self.clear();
        let tokens = ByRow::new(d, ids, cols, skip, &mut scratch.order);
        self.rows.extend(tokens.rows());
        let mut end = 0;
        for (i, &row) in self.rows.iter().enumerate() {
            self.positions[row as usize] = i as u32 + 1;
            end += match epilogue {
                GradEpilogue::Survivors(mask) => mask.of_row(row as usize).len(),
                _ => cols,
            };
            self.ends.push(end);
        }
        self.values.resize(end, 0.0);
        let values = Shared::new(&mut self.values);
        let (rows, positions, ends) = (&self.rows, &self.positions, &self.ends);
        rows.par_chunks(JOB_ROWS).for_each(|rows| {
            let (first, last) = (rows[0] as usize, rows[rows.len() - 1] as usize);
            tokens.for_each_sum(first..last + 1, |row, sum| {
                // SAFETY: `ends` gives rows disjoint ranges, and each row belongs to one job.
                let values = unsafe { values.part(values_range(ends, positions[row] as usize - 1)) };
                if let GradEpilogue::Survivors(mask) = epilogue {
                    gather_row(mask.mask().row(row), sum, values, Write::Store);
                } else {
                    epilogue.apply(sum, row, 0, cols);
                    values.copy_from_slice(sum);
                }
            });
        });
    }
}

/// The range of row `position`'s values.
fn values_range(ends: &[usize], position: usize) -> Range<usize> {
    position.checked_sub(1).map_or(0, |previous| ends[previous])..ends[position]
}
