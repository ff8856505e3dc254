//! `LayerNorm(residual + dropout(x))`, the end of every sub-layer of a BERT-family encoder (`BertSelfOutput` and
//! `BertOutput` of transformers, `torch.nn.LayerNorm`).

use rayon::prelude::*;

use crate::base::{
    PARTIALS, Scratch, Shared, Write, add_elements, add_partials, fma, kernel, reduction_chunk, rows_per_job, sum_by,
    sum_of,
};
use crate::ops::dropout::{Dropout, apply_from};

/// Rows that pass through all steps of the forward pass together, so that they stay in the L1 cache.
const ROWS_AT_ONCE: usize = 8;

/// Outputs of the forward pass that the backward pass reads.
#[derive(Debug)]
pub struct SavedStatistics<'a> {
    /// `s` `[T, H]`. With `None`, `s` replaces `x`.
    pub sum: Option<&'a mut [f32]>,
    /// Mean of each row of `s`, `[T]`.
    pub mean: &'a mut [f32],
    /// `1 / sqrt(variance + eps)` of each row of `s`, `[T]`.
    pub rstd: &'a mut [f32],
}

/// `s = residual + dropout(x)`, `y = (s - mean) rstd gamma + beta`, with the mean and `rstd = 1 / sqrt(variance + eps)`
/// of each row.
///
/// `x` `[T, H]` serves as scratch: without [`SavedStatistics::sum`] `s` replaces `x`. `y` `[T, H]`; `gamma`, `beta`
/// `[H]`.
///
/// # Panics
/// If a buffer does not have its shape.
pub fn forward(
    x: &mut [f32],
    residual: Option<&[f32]>,
    dropout: Option<Dropout>,
    gamma: &[f32],
    beta: &[f32],
    eps: f32,
    y: &mut [f32],
    saved: Option<SavedStatistics<'_>>,
) {
    let cols = gamma.len();
    let rows = x.len().checked_div(cols).unwrap_or(0);
    assert_eq!(beta.len(), cols, "a shift per column");
    assert!(x.len() == rows * cols && y.len() == rows * cols, "input and output of whole rows");
    assert!(residual.is_none_or(|r| r.len() == rows * cols), "a residual of the input's shape");
    let (mut sum, mut statistics) = (None, None);
    if let Some(saved) = saved {
        assert!(saved.mean.len() == rows && saved.rstd.len() == rows, "a mean and a deviation per row");
        assert!(saved.sum.as_ref().is_none_or(|sum| sum.len() == rows * cols), "a sum of the input's shape");
        sum = saved.sum.map(Shared::new);
        statistics = Some((Shared::new(saved.mean), Shared::new(saved.rstd)));
    }
    let job_rows = rows_per_job(cols);
    let job = (job_rows * cols).max(1);
    x.par_chunks_mut(job).zip(y.par_chunks_mut(job)).enumerate().for_each(|(index, (x, y))| {
        let some = ROWS_AT_ONCE * cols;
        for (i, (x, y)) in x.chunks_mut(some).zip(y.chunks_mut(some)).enumerate() {
            let row = index * job_rows + i * ROWS_AT_ONCE;
            let (elements, rows) = (row * cols..row * cols + x.len(), row..row + x.len() / cols);
            if let Some(d) = dropout {
                apply_from(x, elements.start as u64, d);
            }
            // SAFETY: each element belongs to one chunk of `x`, and each chunk to one job.
            let sum = sum.as_ref().map(|sum| unsafe { sum.part(elements.clone()) });
            let s = add_residual(x, residual.map(|residual| &residual[elements]), sum);
            let (mut mean, mut rstd) = ([0.0; ROWS_AT_ONCE], [0.0; ROWS_AT_ONCE]);
            normalise(s, gamma, beta, eps, y, &mut mean, &mut rstd);
            let Some((all_means, all_rstds)) = &statistics else { continue };
            // SAFETY: each row belongs to one chunk of `x`, and each chunk to one job.
            unsafe {
                all_means.part(rows.clone()).copy_from_slice(&mean[..rows.len()]);
                all_rstds.part(rows.clone()).copy_from_slice(&rstd[..rows.len()]);
            }
        }
    });
}

/// `s = x + residual`, in `sum` if present, else in place of `x`.
fn add_residual<'a>(x: &'a mut [f32], residual: Option<&[f32]>, sum: Option<&'a mut [f32]>) -> &'a [f32] {
    match (sum, residual) {
        (Some(sum), Some(residual)) => {
            add_to(x, residual, sum);
            sum
        }
        (Some(sum), None) => {
            sum.copy_from_slice(x);
            sum
        }
        (None, Some(residual)) => {
            add_elements(x, residual);
            x
        }
        (None, None) => x,
    }
}

/// `ds` `[T, H]`, and the gradients of `gamma` and `beta` `[H]`, stored or added as [`Write`] says.
///
/// With `n = (s - mean) rstd` and `g = dy gamma`: `ds = rstd (g - avg(g) - n avg(g n))`, `dgamma = Σ_t dy n`,
/// `dbeta = Σ_t dy`. The gradient of the residual is `ds`; that of `x` is `ds` through the same dropout. `dy`, `s`
/// `[T, H]`; `mean`, `rstd` `[T]` of [`SavedStatistics`].
///
/// # Panics
/// If a buffer does not have its shape.
pub fn backward(
    dy: &[f32],
    s: &[f32],
    mean: &[f32],
    rstd: &[f32],
    gamma: &[f32],
    ds: &mut [f32],
    grads: Option<(&mut [f32], &mut [f32], Write)>,
    scratch: &mut Scratch,
) {
    let (cols, rows) = (gamma.len(), mean.len());
    assert_eq!(rstd.len(), rows, "a deviation per row");
    assert!(dy.len() == rows * cols && s.len() == rows * cols && ds.len() == rows * cols, "buffers of a row per mean");
    let chunk = reduction_chunk(rows, 16);
    let job = (chunk * cols).max(1);
    let used = rows.div_ceil(chunk) * cols;
    let (dgamma, dbeta) = scratch.floats.get(2 * PARTIALS * cols).split_at_mut(PARTIALS * cols);
    let partials = dgamma.par_chunks_mut(cols.max(1)).zip(dbeta.par_chunks_mut(cols.max(1)));
    ds.par_chunks_mut(job).zip(partials).enumerate().for_each(|(index, (ds, (dgamma, dbeta)))| {
        let (first, row) = (index * job, index * chunk);
        let (dy, s) = (&dy[first..][..ds.len()], &s[first..][..ds.len()]);
        let n = ds.len() / cols;
        let (mean, rstd) = (&mean[row..][..n], &rstd[row..][..n]);
        input_gradient(dy, s, mean, rstd, gamma, ds);
        if grads.is_some() {
            dgamma.fill(0.0);
            dbeta.fill(0.0);
            parameter_gradients(dy, s, mean, rstd, dgamma, dbeta);
        }
    });
    if let Some((out_gamma, out_beta, mode)) = grads {
        assert!(out_gamma.len() == cols && out_beta.len() == cols, "gradients of the parameters' length");
        add_partials(&dgamma[..used], out_gamma, mode);
        add_partials(&dbeta[..used], out_beta, mode);
    }
}

kernel! {
    /// `out = x + summand`
    fn add_to<FMA>(x: &[f32], summand: &[f32], out: &mut [f32]) {
        for (out, (x, summand)) in out.iter_mut().zip(x.iter().zip(summand)) {
            *out = x + summand;
        }
    }

    /// `y = (s - mean) rstd gamma + beta`, with the `mean` and the `rstd` of each row of `s`.
    fn normalise<FMA>(
        s: &[f32], gamma: &[f32], beta: &[f32], eps: f32, y: &mut [f32], mean: &mut [f32], rstd: &mut [f32],
    ) {
        // One length for all rows lets the compiler drop the bounds checks and vectorise the whole loop.
        let cols = gamma.len();
        let beta = &beta[..cols];
        for (t, (s, y)) in s.chunks_exact(cols).zip(y.chunks_exact_mut(cols)).enumerate() {
            let m = sum_of(s) / cols as f32;
            let variance = sum_by([s], |[s]| (s - m) * (s - m)) / cols as f32;
            let r = 1.0 / (variance + eps).sqrt();
            for c in 0..cols {
                y[c] = fma::<FMA>((s[c] - m) * r, gamma[c], beta[c]);
            }
            mean[t] = m;
            rstd[t] = r;
        }
    }

    /// `ds = rstd (g - avg(g) - n avg(g n))` of each row.
    fn input_gradient<FMA>(dy: &[f32], s: &[f32], mean: &[f32], rstd: &[f32], gamma: &[f32], ds: &mut [f32]) {
        let cols = gamma.len();
        for (t, ds) in ds.chunks_exact_mut(cols).enumerate() {
            let (dy, s) = (&dy[t * cols..][..cols], &s[t * cols..][..cols]);
            let (m, r) = (mean[t], rstd[t]);
            let average = sum_by([dy, gamma], |[dy, gamma]| dy * gamma) / cols as f32;
            let correlation = sum_by([dy, gamma, s], |[dy, gamma, s]| dy * gamma * ((s - m) * r)) / cols as f32;
            for c in 0..cols {
                ds[c] = r * (dy[c] * gamma[c] - average - (s[c] - m) * r * correlation);
            }
        }
    }

    /// `dgamma += Σ_t dy n`, `dbeta += Σ_t dy`
    fn parameter_gradients<FMA>(
        dy: &[f32], s: &[f32], mean: &[f32], rstd: &[f32], dgamma: &mut [f32], dbeta: &mut [f32],
    ) {
        let cols = dgamma.len();
        let dbeta = &mut dbeta[..cols];
        for (t, (&m, &r)) in mean.iter().zip(rstd).enumerate() {
            let (dy, s) = (&dy[t * cols..][..cols], &s[t * cols..][..cols]);
            for c in 0..cols {
                dgamma[c] = fma::<FMA>(dy[c], (s[c] - m) * r, dgamma[c]);
                dbeta[c] += dy[c];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::parallel::tests::same_for_any_pool;
    use crate::base::rng::{Purpose, Stream};
    use crate::reference::{assert_close, assert_gradient, random, to_f64, unless_miri};

    const EPS: f32 = 1e-12;

    /// The formula, in f64.
    fn naive(s: &[f64], gamma: &[f64], beta: &[f64]) -> Vec<f64> {
        let h = gamma.len();
        let row = |s: &[f64]| {
            let mean = s.iter().sum::<f64>() / h as f64;
            let variance = s.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / h as f64;
            let rstd = 1.0 / (variance + f64::from(EPS)).sqrt();
            (0..h).map(|c| (s[c] - mean) * rstd * gamma[c] + beta[c]).collect::<Vec<_>>()
        };
        s.chunks_exact(h).flat_map(row).collect()
    }

    #[test]
    fn the_forward_pass_matches_the_formula() {
        let shapes =
            unless_miri(&[(0, 7), (3, 2), (1, 7), (7, 63), (3, 65), (100, 383)][..], &[(0, 7), (3, 2), (9, 60)]);
        for &(rows, cols) in shapes {
            let (x, residual) = (random(rows * cols, 1), random(rows * cols, 2));
            let (gamma, beta) = (random(cols, 3), random(cols, 4));
            let d = Dropout { p: 0.3, stream: Stream::new(1, Purpose::DROPOUT, 0), first: 0 };
            let mut s = x.clone();
            crate::ops::dropout::apply(&mut s, d);
            crate::ops::reduce::add(&mut s, &residual);
            let (sum, y) = same_for_any_pool(|| {
                let (mut x, mut y) = (x.clone(), vec![0.0; rows * cols]);
                let (mut mean, mut rstd) = (vec![0.0; rows], vec![0.0; rows]);
                let mut sum = vec![9.0; rows * cols];
                let saved = SavedStatistics { sum: Some(&mut sum), mean: &mut mean, rstd: &mut rstd };
                forward(&mut x.clone(), Some(&residual), Some(d), &gamma, &beta, EPS, &mut y, Some(saved));
                let mut again = vec![9.0; rows * cols];
                forward(&mut x, Some(&residual), Some(d), &gamma, &beta, EPS, &mut again, None);
                assert_eq!((&x, &y), (&sum, &again), "with and without a saved sum");
                (sum, y)
            });
            assert_eq!(sum, s);
            assert_close(&y, &naive(&to_f64(&s), &to_f64(&gamma), &to_f64(&beta)), 1e-5);
        }
    }

    #[test]
    fn a_constant_row_becomes_the_shift() {
        let (mut x, mut y) = (vec![3.0; 8], vec![9.0; 8]);
        let beta: Vec<f32> = random(8, 1);
        forward(&mut x, None, None, &[1.0; 8], &beta, 1e-5, &mut y, None);
        assert_eq!(y, beta);
    }

    #[test]
    fn gradients_match_finite_differences() {
        for (rows, cols) in [(3, 2), (2, 7), unless_miri((5, 65), (2, 9))] {
            let (s, dy) = (random(rows * cols, 1), random(rows * cols, 2));
            let (gamma, beta) = (random(cols, 3), random(cols, 4));
            let (mut y, mut mean, mut rstd) = (vec![0.0; rows * cols], vec![0.0; rows], vec![0.0; rows]);
            let saved = SavedStatistics { sum: None, mean: &mut mean, rstd: &mut rstd };
            forward(&mut s.clone(), None, None, &gamma, &beta, EPS, &mut y, Some(saved));
            let (mut ds, mut dgamma, mut dbeta) = (vec![0.0; rows * cols], random(cols, 5), random(cols, 6));
            let old = (dgamma.clone(), dbeta.clone());
            let grads = Some((&mut dgamma[..], &mut dbeta[..], Write::Add));
            backward(&dy, &s, &mean, &rstd, &gamma, &mut ds, grads, &mut Scratch::default());
            for c in 0..cols {
                dgamma[c] -= old.0[c];
                dbeta[c] -= old.1[c];
            }
            let (s, gamma, beta) = (to_f64(&s), to_f64(&gamma), to_f64(&beta));
            let loss = |y: Vec<f64>| y.iter().zip(&dy).map(|(y, d)| y * f64::from(*d)).sum::<f64>();
            assert_gradient(&s, &ds, 1e-3, |s| loss(naive(s, &gamma, &beta)));
            assert_gradient(&gamma, &dgamma, 1e-4, |gamma| loss(naive(&s, gamma, &beta)));
            assert_gradient(&beta, &dbeta, 1e-4, |beta| loss(naive(&s, &gamma, beta)));
        }
    }

    #[test]
    fn gradients_are_the_same_for_any_number_of_threads() {
        let (rows, cols) = unless_miri((500, 65), (17, 3));
        let (s, dy, gamma) = (random(rows * cols, 1), random(rows * cols, 2), random(cols, 3));
        let (mean, rstd) = (random(rows, 4), random(rows, 5));
        same_for_any_pool(|| {
            let (mut ds, mut dgamma, mut dbeta) = (vec![0.0; rows * cols], vec![7.0; cols], vec![7.0; cols]);
            let grads = Some((&mut dgamma[..], &mut dbeta[..], Write::Store));
            backward(&dy, &s, &mean, &rstd, &gamma, &mut ds, grads, &mut Scratch::default());
            (ds, dgamma, dbeta)
        });
    }
}
