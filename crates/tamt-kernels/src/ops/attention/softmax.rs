//! Softmax over rows of scores, forward and backward.

use std::f32::consts::{LN_2, LOG2_E};

use crate::base::{LANES, exp2, fma, kernel, max_of, sum_by, sum_lanes};

/// Scores beyond this size are shifted by their largest before they are scaled: the rounding of the largest score's
/// product would exceed what `exp2` takes.
const LARGE: f32 = 1e6;

kernel! {
    /// `x = softmax(scale x)` for one row per element of `sums`; rows have `len` elements and begin `stride` apart.
    /// `maxima` receives `max(scale x)`, `sums` receives `Σ exp(scale x - max)`.
    pub(crate) fn softmax<FMA>(x: &mut [f32], stride: usize, len: usize, scale: f32, maxima: &mut [f32], sums: &mut [f32]) {
        for ((row, largest), total) in x.chunks_exact_mut(stride).zip(maxima).zip(sums) {
            let row = &mut row[..len];
            let top = max_of(row);
            let max = scale * LOG2_E * top;
            let is_large = max.abs() > LARGE;
            if is_large {
                row.iter_mut().for_each(|v| *v -= top);
            }
            let shift = if is_large { 0.0 } else { max };
            let mut lanes = [0.0; LANES];
            let (chunks, rest) = row.as_chunks_mut::<LANES>();
            for chunk in chunks {
                for (v, lane) in chunk.iter_mut().zip(&mut lanes) {
                    *v = exp2::<FMA>(fma::<FMA>(*v, scale * LOG2_E, -shift));
                    *lane += *v;
                }
            }
            let mut sum = sum_lanes(lanes);
            for v in rest {
                *v = exp2::<FMA>(fma::<FMA>(*v, scale * LOG2_E, -shift));
                sum += *v;
            }
            let inverse = 1.0 / sum;
            for v in row.iter_mut() {
                *v *= inverse;
            }
            (*largest, *total) = (max * LN_2, sum);
        }
    }
}

/// `P = exp(scale S - lse)` in place of `S`, then `dS = P ∘ (dP - rowsum(P ∘ dP)) scale` in place of `dP`. One row per
/// element of `lse`; rows have `len` elements and begin `stride` apart.
///
/// With dropout `factors` `m`, `dP ∘ m` takes the role of `dP`, and `P ∘ m` replaces `m`.
#[inline(always)]
fn score_gradient_rows<const FMA: bool>(
    p: &mut [f32],
    dp: &mut [f32],
    mut factors: Option<&mut [f32]>,
    stride: usize,
    len: usize,
    scale: f32,
    lse: &[f32],
) {
    for (i, lse) in lse.iter().enumerate() {
        let at = i * stride..i * stride + len;
        let (p, dp) = (&mut p[at.clone()], &mut dp[at.clone()]);
        for p in p.iter_mut() {
            *p = exp2::<FMA>(fma::<FMA>(*p, scale * LOG2_E, -lse * LOG2_E));
        }
        if let Some(factors) = &mut factors {
            for ((factor, dp), p) in factors[at].iter_mut().zip(dp.iter_mut()).zip(&*p) {
                *dp *= *factor;
                *factor *= p;
            }
        }
        let mean = sum_by([&*p, &*dp], |[p, dp]| p * dp);
        for (dp, p) in dp.iter_mut().zip(p) {
            *dp = *p * (*dp - mean) * scale;
        }
    }
}

kernel! {
    /// [`score_gradient_rows`] without dropout.
    pub(crate) fn score_gradients<FMA>(p: &mut [f32], dp: &mut [f32], stride: usize, len: usize, scale: f32, lse: &[f32]) {
        score_gradient_rows::<FMA>(p, dp, None, stride, len, scale, lse);
    }

    /// [`score_gradient_rows`] with dropout.
    pub(crate) fn score_gradients_dropped<FMA>(
        p: &mut [f32],
        dp: &mut [f32],
        factors: &mut [f32],
        stride: usize,
        len: usize,
        scale: f32,
        lse: &[f32],
    ) {
        score_gradient_rows::<FMA>(p, dp, Some(factors), stride, len, scale, lse);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_of_any_finite_size_give_the_largest_its_share() {
        for size in [1.0_f32, 1e5, 8.1e9, 1e30] {
            for len in [4, 37] {
                let mut row: Vec<f32> = (0..len).map(|i| size * (0.3 - 0.017 * i as f32)).collect();
                row[2] = size;
                let exact: Vec<f64> = row.iter().map(|&v| (0.25 * (f64::from(v) - f64::from(size))).exp()).collect();
                let sum: f64 = exact.iter().sum();
                softmax(&mut row, len, len, 0.25, &mut [0.0], &mut [0.0]);
                for (p, exact) in row.iter().zip(&exact) {
                    assert!((f64::from(*p) - exact / sum).abs() < 1e-3, "{size}: {row:?}");
                }
            }
        }
    }
}
