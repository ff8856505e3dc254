//! Sum of word, position and type embeddings.

use std::ops::Range;

use rayon::prelude::*;

use crate::bits::mask_row;
use crate::linear::{Scratch, WeightGrad, WeightRef, Write, add_elements};
use crate::parallel::{rows_per_job, with_buffer};

mod rows;
pub use rows::RowGrads;

/// Tokens from one to that whose word is fetched meanwhile: words lie far away and apart.
const FETCHED_AHEAD: usize = 4;

/// `out[t] = (W ∘ B)[ids[t]] + P[position_ids[t]] + S[type_ids[t]]`
///
/// `word` `[vocabulary, H]`, `position` `[_, H]`, `types` `[_, H]`, ids `[T]`, `out` `[T, H]`.
pub fn forward<'a>(
    word: impl Into<WeightRef<'a>>,
    ids: &[u32],
    position: &[f32],
    position_ids: &[u32],
    types: &[f32],
    type_ids: &[u32],
    out: &mut [f32],
) {
    let word = word.into();
    word.assert_valid();
    let (mask, cols) = (word.mask(), word.shape().1);
    assert_eq!(out.len(), ids.len() * cols, "an output row per token");
    assert!(position_ids.len() == ids.len() && type_ids.len() == ids.len(), "three ids per token");
    let row = |table: &[f32], id: u32, out: &mut [f32]| add_elements(out, &table[id as usize * cols..][..cols]);
    let job_rows = rows_per_job(cols);
    out.par_chunks_mut((job_rows * cols).max(1)).enumerate().for_each(|(job, out)| {
        for (i, out) in out.chunks_exact_mut(cols).enumerate() {
            let t = job * job_rows + i;
            if let Some(&later) = ids.get(t + FETCHED_AHEAD) {
                word.fetch_row(later as usize);
            }
            let id = ids[t] as usize;
            word.write_part(id, 0..cols, out);
            if let (WeightRef::Whole(_), Some(mask)) = (word, mask) {
                mask_row(mask.row(id), out);
            }
            row(position, position_ids[t], out);
            row(types, type_ids[t], out);
        }
    });
}

/// `grad[v] = epilogue(Σ_{t: ids[t] = v} d[t])`, summed in order of the tokens: `d` `[T, cols]`, `grad` `[V, cols]`.
///
/// Rows without a token are zeroed by [`Write::Store`] and left alone by [`Write::Add`]. `skip` is the id (padding)
/// whose row gets no gradient. Serves position and type tables as well.
pub fn backward(
    d: &[f32],
    ids: &[u32],
    cols: usize,
    skip: Option<u32>,
    epilogue: WeightGrad<'_>,
    grad: &mut [f32],
    mode: Write,
    scratch: &mut Scratch,
) {
    assert_eq!(d.len(), ids.len() * cols, "a gradient row per token");
    if cols == 0 {
        return;
    }
    let rows = grad.len() / cols;
    assert!(ids.iter().all(|&id| (id as usize) < rows), "ids are rows of the table");
    epilogue.assert_shape(rows, cols);
    let tokens = ByRow::new(d, ids, cols, skip, &mut scratch.order);
    // A job owns rows of the table and looks up their tokens. Frequent words are neighbours in most vocabularies, so
    // jobs are small.
    let job_rows = rows_per_job(cols).min(64);
    grad.par_chunks_mut(job_rows * cols).enumerate().for_each(|(job, grad)| {
        if mode == Write::Store {
            grad.fill(0.0);
        }
        let first = job * job_rows;
        tokens.for_each_sum(first..first + job_rows, |row, sum| {
            epilogue.apply(sum, row, 0, cols);
            add_elements(&mut grad[(row - first) * cols..][..cols], sum);
        });
    });
}

/// Tokens in the order of the rows that they look up.
struct ByRow<'a> {
    d: &'a [f32],
    ids: &'a [u32],
    cols: usize,
    order: &'a [u32],
}

impl<'a> ByRow<'a> {
    fn new(d: &'a [f32], ids: &'a [u32], cols: usize, skip: Option<u32>, order: &'a mut Vec<u32>) -> Self {
        order.clear();
        order.extend((0..ids.len() as u32).filter(|&t| Some(ids[t as usize]) != skip));
        order.sort_unstable_by_key(|&t| (ids[t as usize], t));
        Self { d, ids, cols, order }
    }

    /// Rows that have tokens, in order.
    fn rows(&self) -> impl Iterator<Item = u32> {
        let row_of = |&t: &u32| self.ids[t as usize];
        self.order.chunk_by(move |a, b| row_of(a) == row_of(b)).map(move |tokens| row_of(&tokens[0]))
    }

    /// Calls `f` with each of some rows that has tokens and the sum of their gradients, in order.
    fn for_each_sum(&self, rows: Range<usize>, mut f: impl FnMut(usize, &mut [f32])) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bits::BitMask;
    use crate::linear::Weight;
    use crate::parallel::tests::same_for_any_pool;
    use crate::reference::{assert_close, random, random_mask, to_f64};
    use crate::sparse::{CompactWeight, RankedMask, gather};

    #[test]
    fn the_forward_pass_sums_three_rows() {
        for cols in [1, 7, 63, 65, 383] {
            let (w, p, s) = (random(11 * cols, 1), random(5 * cols, 2), random(2 * cols, 3));
            let mask = random_mask(11, cols, 0.5);
            let (ids, position_ids, type_ids) = ([3, 10, 0, 3], [0, 1, 4, 3], [0, 1, 1, 0]);
            for mask in [None, Some(&mask), Some(&BitMask::zeros(11, cols)), Some(&BitMask::ones(11, cols))] {
                let mut out = vec![0.0; 4 * cols];
                let word = Weight { values: (&w).into(), rows: 11, cols, mask };
                forward(word, &ids, &p, &position_ids, &s, &type_ids, &mut out);
                if let Some(mask) = mask {
                    let mut again = vec![9.0; 4 * cols];
                    let word = CompactWeight::new(mask.clone(), &w);
                    forward(&word, &ids, &p, &position_ids, &s, &type_ids, &mut again);
                    assert_eq!(again, out);
                }
                for t in 0..4 {
                    for c in 0..cols {
                        let (i, j, k) = (ids[t] as usize, position_ids[t] as usize, type_ids[t] as usize);
                        let kept = mask.is_none_or(|m| m.get(i, c));
                        let word = if kept { w[i * cols + c] } else { 0.0 };
                        assert_eq!(out[t * cols + c], word + p[j * cols + c] + s[k * cols + c]);
                    }
                }
            }
        }
    }

    #[test]
    fn the_backward_pass_is_the_transpose_of_the_lookup() {
        let rows = 150;
        for (tokens, cols) in [(0, 7), (1, 1), (40, 65), (300, 383)] {
            let d = random(tokens * cols, 1);
            let ids: Vec<u32> = (0..tokens as u32).map(|t| t * t % 150).collect();
            let (w, mask, old) = (random(rows * cols, 2), random_mask(rows, cols, 0.5), random(rows * cols, 3));
            for (skip, mode) in [(None, Write::Store), (Some(0), Write::Add)] {
                for epilogue in [WeightGrad::Dense, WeightGrad::Masked(&mask), WeightGrad::Score((&w).into())] {
                    let mut expected = if mode == Write::Add { to_f64(&old) } else { vec![0.0; rows * cols] };
                    for (t, &id) in ids.iter().enumerate().filter(|&(_, &id)| Some(id) != skip) {
                        for c in 0..cols {
                            let at = id as usize * cols + c;
                            let factor = match epilogue {
                                WeightGrad::Dense => 1.0,
                                WeightGrad::Masked(m) => f64::from(u8::from(m.get(id as usize, c))),
                                WeightGrad::Survivors(_) => unreachable!("for gradients of rows"),
                                WeightGrad::Score(_) => f64::from(w[at]),
                            };
                            expected[at] += factor * f64::from(d[t * cols + c]);
                        }
                    }
                    let grad = same_for_any_pool(|| {
                        let mut grad = old.clone();
                        backward(&d, &ids, cols, skip, epilogue, &mut grad, mode, &mut Scratch::default());
                        grad
                    });
                    assert_close(&grad, &expected, 1e-5);
                }
            }
            // a gradient of rows has the same bits in them, and zero elsewhere
            let (zeros, ones) = (BitMask::zeros(rows, cols), BitMask::ones(rows, cols));
            let [some, none, all] = [&mask, &zeros, &ones].map(|mask| RankedMask::new(mask.clone()));
            let mut of_rows = RowGrads::new(rows);
            for (skip, epilogue) in [
                (None, WeightGrad::Dense),
                (Some(0), WeightGrad::Score((&w).into())),
                (Some(4), WeightGrad::Masked(&mask)),
                (None, WeightGrad::Survivors(&some)),
                (None, WeightGrad::Survivors(&none)),
                (Some(1), WeightGrad::Survivors(&all)),
            ] {
                let (whole, kept) = match epilogue {
                    WeightGrad::Survivors(mask) => (WeightGrad::Dense, mask.mask()),
                    other => (other, &ones),
                };
                let mut dense = vec![0.0; rows * cols];
                backward(&d, &ids, cols, skip, whole, &mut dense, Write::Store, &mut Scratch::default());
                let mut expected = vec![9.0; kept.count_ones()];
                gather(kept, &dense, &mut expected, Write::Store);
                let found = same_for_any_pool(|| {
                    let mut of_rows = of_rows.clone();
                    of_rows.backward(&d, &ids, cols, skip, epilogue, &mut Scratch::default());
                    let values = |row| match of_rows.get(row) {
                        Some(values) => values.to_vec(),
                        None => vec![0.0; kept.count_ones_in(row..row + 1)],
                    };
                    (0..rows).flat_map(values).collect::<Vec<f32>>()
                });
                assert_eq!(found, expected);
                // what one step leaves does not show in the next one
                of_rows.backward(
                    &d[..tokens / 2 * cols],
                    &ids[..tokens / 2],
                    cols,
                    skip,
                    epilogue,
                    &mut Scratch::default(),
                );
            }
        }
    }
}
