//! The gradient of a table of which a step reads few rows.

use rayon::prelude::*;
use std::ops::Range;

use crate::base::parallel::Shared;
use crate::base::scratch::Scratch;
use crate::base::sums::Write;
use crate::masks::gather::gather_row;
use crate::masks::grad_epilogue::GradEpilogue;
use crate::ops::embedding::by_row::ByRow;

/// Rows that a job sums.
const JOB_ROWS: usize = 16;

/// The gradient of a table `[V, cols]`, of the rows alone that have tokens; that of all others is zero.
#[derive(Clone, Debug, Default)]
pub struct RowGrads {
    /// The rows, in order.
    rows: Vec<u32>,
    /// Where the values of each end.
    ends: Vec<usize>,
    /// Of each row of the table, its number in `rows` and 1 more; 0 of others.
    numbers: Vec<u32>,
    values: Vec<f32>,
}

impl RowGrads {
    /// Zero for a table of so many rows.
    #[must_use]
    pub fn new(rows: usize) -> Self {
        Self { numbers: vec![0; rows], ..Self::default() }
    }

    /// Rows of the table.
    #[must_use]
    pub fn table_rows(&self) -> usize {
        self.numbers.len()
    }

    /// Makes it zero.
    pub fn clear(&mut self) {
        for &row in &self.rows {
            self.numbers[row as usize] = 0;
        }
        self.rows.clear();
        self.ends.clear();
        self.values.clear();
    }

    /// The values of all rows that have some.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The rows that have a gradient, in order.
    pub fn rows(&self) -> impl Iterator<Item = usize> {
        self.rows.iter().map(|&row| row as usize)
    }

    /// The gradient of a row, if it has one.
    #[must_use]
    pub fn get(&self, row: usize) -> Option<&[f32]> {
        let number = self.numbers[row].checked_sub(1)? as usize;
        Some(&self.values[values_of(&self.ends, number)])
    }

    /// Each row that has a gradient, with it, to change.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (usize, &mut [f32])> {
        let (mut rest, mut done) = (self.values.as_mut_slice(), 0);
        self.rows.iter().zip(&self.ends).map(move |(&row, &end)| {
            let (values, tail) = std::mem::take(&mut rest).split_at_mut(end - done);
            (rest, done) = (tail, end);
            (row as usize, values)
        })
    }

    /// `epilogue(Σ_{t: ids[t] = v} d[t])` of each row `v`, summed in order of the tokens: `d` `[T, cols]`. `skip` is the id
    /// (padding) whose row gets no gradient.
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
            self.numbers[row as usize] = i as u32 + 1;
            end += match epilogue {
                GradEpilogue::Survivors(mask) => mask.of_row(row as usize).len(),
                _ => cols,
            };
            self.ends.push(end);
        }
        self.values.resize(end, 0.0);
        let values = Shared::new(&mut self.values);
        let (rows, numbers, ends) = (&self.rows, &self.numbers, &self.ends);
        rows.par_chunks(JOB_ROWS).for_each(|rows| {
            let (first, last) = (rows[0] as usize, rows[rows.len() - 1] as usize);
            tokens.for_each_sum(first..last + 1, |row, sum| {
                let number = numbers[row] as usize - 1;
                // SAFETY: each row has values of its own, and each job rows.
                #[allow(unsafe_code)]
                let values = unsafe { values.part(values_of(ends, number)) };
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

/// Where the values of row `number` lie, of rows whose values end at `ends`.
fn values_of(ends: &[usize], number: usize) -> Range<usize> {
    number.checked_sub(1).map_or(0, |before| ends[before])..ends[number]
}
