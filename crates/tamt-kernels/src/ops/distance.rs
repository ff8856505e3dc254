//! Distances between the hidden states of a student and a teacher.

use rayon::prelude::*;

use crate::base::{CHUNK, PARTIALS, fma, kernel, reduction_chunk, sum_by};

/// Lower bound of norms, as in `torch.nn.functional.cosine_similarity`.
const EPS: f32 = 1e-8;

/// `Σ_rows 1 - cos(s, t)`, and `ds += weight * gradient` of the sum: `s`, `t`, `ds` `[T, cols]`
/// (`torch.nn.CosineEmbeddingLoss`).
///
/// With `c = s·t / (|s| |t|)`: `d(1 - c)/ds = c s / |s|² - t / (|s| |t|)`.
///
/// # Panics
/// If the shapes differ, or `s` does not consist of whole rows.
pub fn cosine(s: &[f32], t: &[f32], cols: usize, weight: f32, ds: Option<&mut [f32]>) -> f64 {
    assert_eq!(s.len(), t.len(), "student and teacher of the same shape");
    if s.is_empty() {
        return 0.0;
    }
    assert!(s.len().is_multiple_of(cols), "whole rows of {cols}");
    let chunk = reduction_chunk(s.len() / cols, 16) * cols;
    sum_chunks(s, t, ds, chunk, |s, t, ds| cosine_rows(s, t, cols, weight, ds))
}

/// `Σ part(s, t, ds)` over chunks of `chunk` elements; `ds` is empty in each chunk if no gradient is computed.
fn sum_chunks(
    s: &[f32],
    t: &[f32],
    ds: Option<&mut [f32]>,
    chunk: usize,
    part: impl Fn(&[f32], &[f32], &mut [f32]) -> f64 + Sync,
) -> f64 {
    let mut partials = [0.0; PARTIALS];
    let states = s.par_chunks(chunk).zip(t.par_chunks(chunk)).zip(&mut partials);
    if let Some(ds) = ds {
        assert_eq!(ds.len(), s.len(), "a gradient of the student's shape");
        states.zip(ds.par_chunks_mut(chunk)).for_each(|(((s, t), sum), ds)| *sum = part(s, t, ds));
    } else {
        states.for_each(|((s, t), sum)| *sum = part(s, t, &mut []));
    }
    partials.iter().sum()
}

kernel! {
    /// [`cosine`] of some rows. No gradient is computed for an empty `ds`.
    fn cosine_rows<FMA>(s: &[f32], t: &[f32], cols: usize, weight: f32, ds: &mut [f32]) -> f64 {
        let mut sum = 0.0;
        for (i, (s, t)) in s.chunks_exact(cols).zip(t.chunks_exact(cols)).enumerate() {
            let norm_s = sum_by([s], |[s]| s * s).sqrt();
            let norm_t = sum_by([t], |[t]| t * t).sqrt().max(EPS);
            let inverse = 1.0 / (norm_s.max(EPS) * norm_t);
            let cosine = sum_by([s, t], |[s, t]| s * t) * inverse;
            sum += 1.0 - f64::from(cosine);
            if !ds.is_empty() {
                // A norm below EPS counts as the constant EPS and has no gradient.
                let along = if norm_s > EPS { weight * cosine / (norm_s * norm_s) } else { 0.0 };
                let across = -weight * inverse;
                for (ds, (&s, &t)) in ds[i * cols..][..cols].iter_mut().zip(s.iter().zip(t)) {
                    *ds = fma::<FMA>(along, s, fma::<FMA>(across, t, *ds));
                }
            }
        }
        sum
    }
}

/// `Σ (s - t)²`, and `ds += weight * 2 (s - t)` (`torch.nn.MSELoss` with `reduction="sum"`).
///
/// # Panics
/// If the lengths differ.
pub fn mse(s: &[f32], t: &[f32], weight: f32, ds: Option<&mut [f32]>) -> f64 {
    assert_eq!(s.len(), t.len(), "student and teacher of the same shape");
    sum_chunks(s, t, ds, reduction_chunk(s.len(), CHUNK), |s, t, ds| {
        add_difference(s, t, 2.0 * weight, ds);
        squared_distance(s, t)
    })
}

kernel! {
    /// `Σ (s - t)²`, in 16 partial sums.
    fn squared_distance<FMA>(s: &[f32], t: &[f32]) -> f64 {
        let mut lanes = [0.0; 16];
        let ((s, s_rest), (t, t_rest)) = (s.as_chunks::<16>(), t.as_chunks::<16>());
        for (s, t) in s.iter().zip(t) {
            for (lane, (s, t)) in lanes.iter_mut().zip(s.iter().zip(t)) {
                let difference = f64::from(s - t);
                *lane += difference * difference;
            }
        }
        for (lane, (s, t)) in lanes.iter_mut().zip(s_rest.iter().zip(t_rest)) {
            let difference = f64::from(s - t);
            *lane += difference * difference;
        }
        lanes.iter().sum()
    }

    /// `ds += factor (s - t)`
    fn add_difference<FMA>(s: &[f32], t: &[f32], factor: f32, ds: &mut [f32]) {
        for (ds, (s, t)) in ds.iter_mut().zip(s.iter().zip(t)) {
            *ds = fma::<FMA>(factor, s - t, *ds);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::parallel::tests::same_for_any_pool;
    use crate::reference::{assert_gradient, random, to_f64};

    fn naive_cosine(s: &[f64], t: &[f64], cols: usize) -> f64 {
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let norm = |a: &[f64]| dot(a, a).sqrt().max(1e-8);
        s.chunks_exact(cols).zip(t.chunks_exact(cols)).map(|(s, t)| 1.0 - dot(s, t) / (norm(s) * norm(t))).sum()
    }

    #[test]
    fn the_cosine_distance_and_its_gradient_match_the_formula() {
        for (rows, cols) in [(0, 7), (1, 1), (7, 7), (3, 65), (70, 383)] {
            let (s, t, old) = (random(rows * cols, 1), random(rows * cols, 2), random(rows * cols, 3));
            let expected = naive_cosine(&to_f64(&s), &to_f64(&t), cols);
            let (sum, mut ds) = same_for_any_pool(|| {
                let mut ds = old.clone();
                (cosine(&s, &t, cols, 0.5, Some(&mut ds)), ds)
            });
            assert!((sum - expected).abs() < 1e-6 * (1 + rows) as f64, "{sum} {expected}");
            assert_eq!(cosine(&s, &t, cols, 0.5, None), sum);
            for (ds, old) in ds.iter_mut().zip(&old) {
                *ds -= old;
            }
            if rows * cols < 1000 && cols > 1 {
                let t = to_f64(&t);
                assert_gradient(&to_f64(&s), &ds, 1e-4, |s| 0.5 * naive_cosine(s, &t, cols));
            }
        }
    }

    #[test]
    fn zero_vectors_have_distance_one_and_a_finite_gradient() {
        let mut ds = [0.0; 4];
        assert_eq!(cosine(&[0.0; 4], &[1.0, 2.0, 0.0, 0.0], 2, 1.0, Some(&mut ds)), 2.0);
        assert!(ds.iter().all(|v| v.is_finite()));
    }

    #[test]
    fn equal_vectors_have_distance_zero() {
        let x = random(5 * 384, 1);
        assert!(cosine(&x, &x, 384, 1.0, None).abs() < 1e-6);
        assert_eq!(mse(&x, &x, 1.0, None), 0.0);
    }

    #[test]
    fn the_squared_distance_and_its_gradient_match_the_formula() {
        for n in [0, 1, 63, 65, 40_000] {
            let (s, t, old) = (random(n, 1), random(n, 2), random(n, 3));
            let expected: f64 = s.iter().zip(&t).map(|(s, t)| (f64::from(*s) - f64::from(*t)).powi(2)).sum();
            let (sum, ds) = same_for_any_pool(|| {
                let mut ds = old.clone();
                (mse(&s, &t, 0.5, Some(&mut ds)), ds)
            });
            assert!((sum - expected).abs() <= 1e-6 * expected, "{sum} {expected}");
            assert_eq!(mse(&s, &t, 0.5, None), sum);
            for i in 0..n {
                assert!((ds[i] - old[i] - (s[i] - t[i])).abs() < 1e-6);
            }
        }
    }
}
