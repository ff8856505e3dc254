//! Lookup of embeddings and the dense gradient of a table.

use rayon::prelude::*;

use crate::base::{Scratch, Write, add_elements, rows_per_job};
use crate::masks::{GradEpilogue, WeightRef, mask_row};
use crate::ops::embedding::by_row::ByRow;

/// Distance in tokens of the prefetch of word rows, which are scattered over a table larger than the caches.
const PREFETCH_AHEAD: usize = 4;

/// `out[t] = (W ∘ B)[ids[t]] + P[position_ids[t]] + S[type_ids[t]]`
///
/// `word` `W` `[vocabulary, H]` with its mask `B`, `position` `P` `[_, H]`, `types` `S` `[_, H]`, ids `[T]`, `out`
/// `[T, H]`.
///
/// # Panics
/// If the shapes do not match, or an id is outside its table.
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
    let add_row = |table: &[f32], id: u32, out: &mut [f32]| add_elements(out, &table[id as usize * cols..][..cols]);
    let job_rows = rows_per_job(cols);
    out.par_chunks_mut((job_rows * cols).max(1)).enumerate().for_each(|(job, out)| {
        for (i, out) in out.chunks_exact_mut(cols).enumerate() {
            let t = job * job_rows + i;
            if let Some(&later) = ids.get(t + PREFETCH_AHEAD) {
                word.prefetch_row(later as usize);
            }
            let id = ids[t] as usize;
            word.write_part(id, 0..cols, out);
            if let (WeightRef::Dense(_), Some(mask)) = (word, mask) {
                mask_row(mask.row(id), out);
            }
            add_row(position, position_ids[t], out);
            add_row(types, type_ids[t], out);
        }
    });
}

/// `grad[v] (+)= epilogue(Σ_{t: ids[t] = v} d[t])`, summed in the order of the tokens: `d` `[T, cols]`, `grad`
/// `[V, cols]`, for a word, position or type table (`torch.nn.Embedding`).
///
/// [`Write::Store`] zeroes the rows without a token. The row of the id `skip` gets no gradient (`padding_idx`).
///
/// # Panics
/// If the shapes do not match, or an id is outside the table.
pub fn backward(
    d: &[f32],
    ids: &[u32],
    cols: usize,
    skip: Option<u32>,
    epilogue: GradEpilogue<'_>,
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
    // A job owns rows of the table and looks up their tokens. Jobs are small because frequent words have neighbouring
    // ids in most vocabularies.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::parallel::tests::same_for_any_pool;
    use crate::masks::bit_mask::BitMask;
    use crate::masks::compact::CompactWeight;
    use crate::masks::gather::gather;
    use crate::masks::ranked::RankedMask;
    use crate::masks::weight::Weight;
    use crate::ops::embedding::row_grads::RowGrads;
    use crate::reference::{assert_close, random, random_mask, to_f64, unless_miri};

    #[test]
    fn the_forward_pass_sums_three_rows() {
        for cols in [1, 7, unless_miri(63, 8), unless_miri(65, 17), unless_miri(383, 150)] {
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
        let rows = unless_miri(150, 70);
        let shapes = unless_miri(&[(0, 7), (1, 1), (40, 65), (300, 383)][..], &[(0, 7), (1, 1), (36, 3)]);
        for &(tokens, cols) in shapes {
            let d = random(tokens * cols, 1);
            let ids: Vec<u32> = (0..tokens as u32).map(|t| t * t % rows as u32).collect();
            let (w, mask, old) = (random(rows * cols, 2), random_mask(rows, cols, 0.5), random(rows * cols, 3));
            for (skip, mode) in [(None, Write::Store), (Some(0), Write::Add)] {
                for epilogue in [GradEpilogue::Dense, GradEpilogue::Masked(&mask), GradEpilogue::Score((&w).into())] {
                    let mut expected = if mode == Write::Add { to_f64(&old) } else { vec![0.0; rows * cols] };
                    for (t, &id) in ids.iter().enumerate().filter(|&(_, &id)| Some(id) != skip) {
                        for c in 0..cols {
                            let at = id as usize * cols + c;
                            let factor = match epilogue {
                                GradEpilogue::Dense => 1.0,
                                GradEpilogue::Masked(m) => f64::from(u8::from(m.get(id as usize, c))),
                                GradEpilogue::Survivors(_) => unreachable!("for gradients of rows"),
                                GradEpilogue::Score(_) => f64::from(w[at]),
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
            // `RowGrads` has the same bits in its rows; all other rows are zero.
            let (zeros, ones) = (BitMask::zeros(rows, cols), BitMask::ones(rows, cols));
            let [some, none, all] = [&mask, &zeros, &ones].map(|mask| RankedMask::new(mask.clone()));
            let mut row_grads = RowGrads::new(rows);
            for (skip, epilogue) in [
                (None, GradEpilogue::Dense),
                (Some(0), GradEpilogue::Score((&w).into())),
                (Some(4), GradEpilogue::Masked(&mask)),
                (None, GradEpilogue::Survivors(&some)),
                (None, GradEpilogue::Survivors(&none)),
                (Some(1), GradEpilogue::Survivors(&all)),
            ] {
                let (whole, kept) = match epilogue {
                    GradEpilogue::Survivors(mask) => (GradEpilogue::Dense, mask.mask()),
                    other => (other, &ones),
                };
                let mut dense = vec![0.0; rows * cols];
                backward(&d, &ids, cols, skip, whole, &mut dense, Write::Store, &mut Scratch::default());
                let mut expected = vec![9.0; kept.count_ones()];
                gather(kept, &dense, &mut expected, Write::Store);
                let found = same_for_any_pool(|| {
                    let mut row_grads = row_grads.clone();
                    row_grads.backward(&d, &ids, cols, skip, epilogue, &mut Scratch::default());
                    let values = |row| match row_grads.get(row) {
                        Some(values) => values.to_vec(),
                        None => vec![0.0; kept.count_ones_in(row..row + 1)],
                    };
                    (0..rows).flat_map(values).collect::<Vec<f32>>()
                });
                assert_eq!(found, expected);
                // The values of one step do not leak into the next step.
                row_grads.backward(
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
