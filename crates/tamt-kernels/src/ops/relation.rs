//! Relational distances: squared distances between the Gram matrices of a student's and a teacher's hidden states.

use rayon::prelude::*;

use crate::base::{Scratch, Shared, kernel, with_panels_and_floats};
use crate::gemm::{Init, LeftOperand, Operand, Order, OutputBlock, Panels, Side, multiply};

/// `Σ` [`gram_mse`] over the sequences `bounds[i]..bounds[i + 1]` of packed states `s` and `t` `[T, cols]`: the
/// relation between the tokens of a sequence. `weight` times the gradient is added to `ds` `[T, cols]`.
///
/// # Panics
/// If the shapes do not match.
pub fn token(
    s: &[f32],
    t: &[f32],
    bounds: &[usize],
    cols: usize,
    weight: f32,
    ds: Option<&mut [f32]>,
    scratch: &mut Scratch,
) -> f64 {
    assert!(bounds.is_sorted(), "bounds in order");
    let tokens = bounds.last().copied().unwrap_or(0);
    assert!(s.len() == tokens * cols && t.len() == s.len(), "states of [tokens, cols]");
    assert!(ds.as_ref().is_none_or(|ds| ds.len() == s.len()), "a gradient of the student's shape");
    let ds = ds.map(Shared::new);
    scratch.sums.clear();
    scratch.sums.resize(bounds.len().saturating_sub(1), 0.0);
    scratch.sums.par_iter_mut().zip(bounds.par_windows(2)).for_each(|(sum, bounds)| {
        let part = bounds[0] * cols..bounds[1] * cols;
        // SAFETY: sorted bounds make the sequences disjoint, and each sequence belongs to one job.
        let ds = ds.as_ref().map(|ds| unsafe { ds.part(part.clone()) });
        *sum = gram_distance(&s[part.clone()], &t[part], bounds[1] - bounds[0], cols, weight, ds);
    });
    scratch.sums.iter().sum()
}

/// `Σ_ij (G_s - G_t)²` with the Gram matrices `G_h = h hᵀ / sqrt(cols)` of states `s` and `t` `[rows, cols]`. `weight`
/// times the gradient is added to `ds` `[rows, cols]`: `4 (G_s - G_t) s / sqrt(cols)`.
///
/// With the first state of each sequence as rows, the result is the relation between the samples of a batch.
///
/// # Panics
/// If the shapes do not match.
pub fn gram_mse(s: &[f32], t: &[f32], rows: usize, cols: usize, weight: f32, ds: Option<&mut [f32]>) -> f64 {
    assert!(s.len() == rows * cols && t.len() == s.len(), "states of [rows, cols]");
    assert!(ds.as_ref().is_none_or(|ds| ds.len() == s.len()), "a gradient of the student's shape");
    gram_distance(s, t, rows, cols, weight, ds)
}

/// Rows of the Gram matrices that exist at the same time. The blocks of both matrices are scratch of one thread. Miri,
/// where inputs are small, still has several blocks.
const ROWS: usize = if cfg!(miri) { 8 } else { 128 };

/// [`gram_mse`] without the checks, on the calling thread.
fn gram_distance(s: &[f32], t: &[f32], rows: usize, cols: usize, weight: f32, mut ds: Option<&mut [f32]>) -> f64 {
    let scale = (1.0 / (cols as f64).sqrt()) as f32;
    let mut sum = 0.0;
    let block = ROWS.min(rows) * rows;
    let (transposed, plain) = (Panels::len(Side::Right, rows, cols), Panels::len(Side::Right, cols, rows));
    let words = [transposed, transposed, if ds.is_some() { plain } else { 0 }];
    with_panels_and_floats(words, [block, block], |[states, teachers, plain], [student, teacher]| {
        let [states, teachers] = [(s, states), (t, teachers)].map(|(x, panels)| {
            let lanes = Operand::new(x, cols, Order::LaneRows);
            Panels::pack(Side::Right, &lanes, 0..rows, 0..cols, panels)
        });
        let plain = ds
            .is_some()
            .then(|| Panels::pack(Side::Right, &Operand::new(s, cols, Order::DepthRows), 0..cols, 0..rows, plain));
        for first in (0..rows).step_by(ROWS) {
            let count = ROWS.min(rows - first);
            let (student, teacher) = (&mut student[..count * rows], &mut teacher[..count * rows]);
            for (x, panels, gram) in [(s, states, &mut *student), (t, teachers, &mut *teacher)] {
                let lhs = LeftOperand::Plain(Operand::new(&x[first * cols..], cols, Order::LaneRows));
                let block = OutputBlock { start: gram.as_mut_ptr(), stride: rows, rows: count, cols: rows };
                // SAFETY: the block covers `gram`, which has `count * rows` floats and is borrowed exclusively.
                unsafe { multiply(block, lhs, panels, 0, Init::Zero) };
            }
            sum += gram_difference(student, teacher, scale, 4.0 * weight);
            if let (Some(ds), Some(plain)) = (&mut ds, plain) {
                let ds = &mut ds[first * cols..(first + count) * cols];
                let lhs = LeftOperand::Plain(Operand::new(&*student, rows, Order::LaneRows));
                let block = OutputBlock { start: ds.as_mut_ptr(), stride: cols, rows: count, cols };
                // SAFETY: the block covers `ds`, which has `count * cols` floats and is borrowed exclusively.
                unsafe { multiply(block, lhs, plain, 0, Init::Accumulate) };
            }
        }
    });
    sum
}

kernel! {
    /// `Σ (scale (s - t))²`; `s` becomes `factor scale² (s - t)`.
    fn gram_difference<FMA>(s: &mut [f32], t: &[f32], scale: f32, factor: f32) -> f64 {
        let mut lanes = [0.0; 16];
        for (s, t) in s.chunks_mut(16).zip(t.chunks(16)) {
            for (lane, (s, t)) in lanes.iter_mut().zip(s.iter_mut().zip(t)) {
                let difference = (*s - t) * scale;
                *lane += f64::from(difference) * f64::from(difference);
                *s = factor * scale * difference;
            }
        }
        lanes.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::parallel::tests::same_for_any_pool;
    use crate::reference::{assert_close, assert_gradient, random, to_f64, unless_miri};

    fn naive(s: &[f64], t: &[f64], bounds: &[usize], cols: usize) -> f64 {
        let gram = |x: &[f64], i: usize, j: usize| {
            (0..cols).map(|c| x[i * cols + c] * x[j * cols + c]).sum::<f64>() / (cols as f64).sqrt()
        };
        let mut sum = 0.0;
        for b in bounds.windows(2) {
            for i in b[0]..b[1] {
                for j in b[0]..b[1] {
                    sum += (gram(s, i, j) - gram(t, i, j)).powi(2);
                }
            }
        }
        sum
    }

    #[test]
    fn the_token_relation_and_its_gradient_match_the_formula() {
        let cases: &[(&[usize], usize)] = unless_miri(
            &[(&[0, 1], 1), (&[0, 0, 5, 7], 7), (&[0, 0], 8), (&[0, 9, 12], 33)],
            &[(&[0, 1], 1), (&[0, 0, 3, 4], 5), (&[0, 0], 8)],
        );
        for &(bounds, cols) in cases {
            let n = bounds[bounds.len() - 1] * cols;
            let (s, t, old) = (random(n, 1), random(n, 2), random(n, 3));
            let (sum, mut ds) = same_for_any_pool(|| {
                let mut ds = old.clone();
                (token(&s, &t, bounds, cols, 0.1, Some(&mut ds), &mut Scratch::default()), ds)
            });
            assert_eq!(token(&s, &t, bounds, cols, 0.1, None, &mut Scratch::default()), sum);
            let expected = naive(&to_f64(&s), &to_f64(&t), bounds, cols);
            assert!((sum - expected).abs() <= 1e-5 * expected, "{sum} is not {expected}");
            for (ds, old) in ds.iter_mut().zip(&old) {
                *ds -= old;
            }
            let t = to_f64(&t);
            assert_gradient(&to_f64(&s), &ds, 1e-5, |s| 0.1 * naive(s, &t, bounds, cols));
        }
    }

    #[test]
    fn more_rows_than_a_block_give_the_same_formula() {
        let (rows, cols) = unless_miri((300, 40), (9, 3));
        let root = (cols as f64).sqrt();
        let (s, t) = (random(rows * cols, 1), random(rows * cols, 2));
        let mut ds = vec![0.0; rows * cols];
        let sum = gram_mse(&s, &t, rows, cols, 0.5, Some(&mut ds));
        let (s, t) = (to_f64(&s), to_f64(&t));
        let expected = naive(&s, &t, &[0, rows], cols);
        assert!((sum - expected).abs() <= 1e-5 * expected, "{sum} is not {expected}");
        let mut gradient = vec![0.0; rows * cols];
        for i in 0..rows {
            for j in 0..rows {
                let gram = |x: &[f64]| (0..cols).map(|c| x[i * cols + c] * x[j * cols + c]).sum::<f64>() / root;
                let difference = gram(&s) - gram(&t);
                for c in 0..cols {
                    gradient[i * cols + c] += 0.5 * 4.0 * difference * s[j * cols + c] / root;
                }
            }
        }
        assert_close(&ds, &gradient, 1e-5);
    }
}
