//! Sums, elementwise helpers, and gather and scatter of rows.

use half::bf16;
use rayon::prelude::*;

use crate::base::{CHUNK, Number, Shared, add_elements, kernel, map_chunks, rows_per_job};

/// `Σ x²`, accumulated in f64.
pub fn sum_squares(x: &[f32]) -> f64 {
    map_chunks(x.len(), CHUNK, |range| sum_squares_part(&x[range])).iter().sum()
}

/// [`sum_squares`] of bf16 numbers.
pub fn sum_squares_bf16(x: &[bf16]) -> f64 {
    map_chunks(x.len(), CHUNK, |range| sum_squares_bf16_part(&x[range])).iter().sum()
}

/// `dst += src`
///
/// # Panics
/// If the lengths differ.
pub fn add(dst: &mut [f32], src: &[f32]) {
    assert_eq!(dst.len(), src.len(), "operands of the same length");
    dst.par_chunks_mut(CHUNK).zip(src.par_chunks(CHUNK)).for_each(|(dst, src)| add_elements(dst, src));
}

/// `dst[i] = src[rows[i]]`: `src` `[n, cols]`, `dst` `[rows.len(), cols]` (`torch.index_select`).
///
/// # Panics
/// If `dst` does not have its shape, or a row is outside `src`.
pub fn gather_rows(src: &[f32], cols: usize, rows: &[u32], dst: &mut [f32]) {
    assert_eq!(dst.len(), rows.len() * cols, "a row for each index");
    let job = rows_per_job(cols);
    dst.par_chunks_mut((job * cols).max(1)).zip(rows.par_chunks(job)).for_each(|(dst, rows)| {
        for (dst, &row) in dst.chunks_exact_mut(cols).zip(rows) {
            dst.copy_from_slice(&src[row as usize * cols..][..cols]);
        }
    });
}

/// `dst[rows[i]] += src[i]`: `src` `[rows.len(), cols]`, `dst` `[n, cols]` (`torch.Tensor.index_add_`). Several values
/// for one row are added in order.
///
/// # Panics
/// If `src` does not have its shape, or a row is outside `dst`.
pub fn scatter_add_rows(src: &[f32], cols: usize, rows: &[u32], dst: &mut [f32]) {
    assert_eq!(src.len(), rows.len() * cols, "a row for each index");
    assert!(rows.iter().all(|&row| (row as usize + 1) * cols <= dst.len()), "rows of the destination");
    // A job owns columns, not rows: the values of a row that occurs several times are added in order.
    const COLUMNS: usize = 64;
    let dst = Shared::new(dst);
    (0..cols.div_ceil(COLUMNS)).into_par_iter().for_each(|job| {
        let part = job * COLUMNS..cols.min((job + 1) * COLUMNS);
        for (src, &row) in src.chunks_exact(cols).zip(rows) {
            let first = row as usize * cols;
            // SAFETY: each column belongs to one job, and the job holds one part at a time.
            let dst = unsafe { dst.part(first + part.start..first + part.end) };
            add_elements(dst, &src[part.clone()]);
        }
    });
}

kernel! {
    fn sum_squares_part<FMA>(x: &[f32]) -> f64 {
        sum_wide(x, |v| v * v)
    }

    fn sum_squares_bf16_part<FMA>(x: &[bf16]) -> f64 {
        sum_wide(x, |v| v * v)
    }
}

/// `Σ term(x)` in f64, in 16 partial sums.
#[inline(always)]
fn sum_wide<T: Number>(x: &[T], term: impl Fn(f64) -> f64) -> f64 {
    let mut lanes = [0.0; 16];
    let (chunks, rest) = x.as_chunks::<16>();
    for chunk in chunks {
        for (lane, &v) in lanes.iter_mut().zip(chunk) {
            *lane += term(f64::from(v.get()));
        }
    }
    for (lane, &v) in lanes.iter_mut().zip(rest) {
        *lane += term(f64::from(v.get()));
    }
    lanes.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::parallel::tests::same_for_any_pool;
    use crate::reference::unless_miri;

    fn wave(n: usize) -> Vec<f32> {
        (0..n).map(|i| (i as f32 * 0.37).sin() * 3.0).collect()
    }

    #[test]
    fn sums_match_a_plain_f64_loop_and_any_number_of_threads() {
        for n in [0, 1, 7, 63, 65, 383, unless_miri(200_001, 601)] {
            let x = wave(n);
            let found = same_for_any_pool(|| sum_squares(&x));
            let expected: f64 = x.iter().map(|&v| f64::from(v).powi(2)).sum();
            assert!((found - expected).abs() <= 1e-12 * expected, "{n}");
        }
    }

    #[test]
    fn sums_are_elementwise() {
        let mut x = wave(CHUNK + 3);
        let twice: Vec<f32> = x.iter().map(|x| 2.0 * x).collect();
        let y = x.clone();
        add(&mut x, &y);
        assert_eq!(x, twice);
    }

    #[test]
    fn rows_are_gathered_and_added() {
        for cols in [1, 7, 65, unless_miri(383, 9)] {
            let x = wave(5 * cols);
            let row = |r: usize| &x[r * cols..(r + 1) * cols];
            let mut picked = vec![9.0; 3 * cols];
            gather_rows(&x, cols, &[4, 0, 4], &mut picked);
            assert_eq!(picked, [row(4), row(0), row(4)].concat());
            let mut added = x.clone();
            scatter_add_rows(&picked, cols, &[1, 1, 3], &mut added);
            let expected: Vec<f32> = (0..cols).map(|c| row(1)[c] + row(4)[c] + row(0)[c]).collect();
            assert_eq!(added[cols..2 * cols], expected);
            assert_eq!(added[2 * cols..3 * cols], *row(2));
        }
    }
}
