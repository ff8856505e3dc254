//! Shared helpers of the tests: random inputs, comparisons, and formulas and finite differences in f64.

use crate::base::rng::Purpose;
use crate::base::{Precision, Stream, bf16_bits};
use crate::masks::BitMask;

/// `natively`, or `in_miri` under Miri, which takes a thousand times as long. Shapes for Miri have the fewest elements
/// that still give several jobs, blocks and remainders.
pub(crate) const fn unless_miri<T: Copy>(natively: T, in_miri: T) -> T {
    if cfg!(miri) { in_miri } else { natively }
}

/// Uniform numbers between 0 and 1 for Miri, which takes as long for [`Stream`] as for the kernels.
fn hashed(i: u64, seed: u64) -> f32 {
    let bits = (i as u32).wrapping_mul(2_654_435_761).wrapping_add((seed as u32).wrapping_mul(0x9e37_79b9));
    ((bits ^ bits >> 15).wrapping_mul(0x2c1b_3c6d) >> 8) as f32 / 16_777_216.0
}

/// Standard normal numbers; in Miri, uniform numbers between -2 and 2.
pub(crate) fn random(n: usize, seed: u64) -> Vec<f32> {
    if cfg!(miri) {
        return (0..n as u64).map(|i| 4.0 * hashed(i, seed) - 2.0).collect();
    }
    let stream = Stream::new(seed, Purpose::INIT, 0);
    (0..n as u64).map(|i| stream.normal_at(i)).collect()
}

/// A mask that keeps each element with probability `kept`.
pub(crate) fn random_mask(rows: usize, cols: usize, kept: f32) -> BitMask {
    let stream = Stream::new(99, Purpose::MASK_INIT, 0);
    let mut mask = BitMask::zeros(rows, cols);
    for i in 0..rows * cols {
        let number = if cfg!(miri) { hashed(i as u64, 99) } else { stream.uniform_at(i as u64) };
        mask.set(i / cols, i % cols, number < kept);
    }
    mask
}

/// `x` in f64.
pub(crate) fn to_f64(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&v| f64::from(v)).collect()
}

/// `x` in the precision.
pub(crate) fn rounded(x: f32, precision: Precision) -> f32 {
    match precision {
        Precision::F32 => x,
        Precision::Bf16 => f32::from_bits(bf16_bits(x) << 16),
    }
}

/// `y = x (W ∘ B)ᵀ + b` in f64.
pub(crate) fn naive_linear(x: &[f64], w: &[f64], mask: Option<&BitMask>, bias: &[f64], cols: usize) -> Vec<f64> {
    let rows = bias.len();
    let mut y = Vec::new();
    for x in x.chunks_exact(cols) {
        for n in 0..rows {
            let kept = |c: usize| mask.is_none_or(|m| m.get(n, c));
            y.push(bias[n] + (0..cols).filter(|&c| kept(c)).map(|c| x[c] * w[n * cols + c]).sum::<f64>());
        }
    }
    y
}

/// Asserts `|actual - expected| <= tolerance * max(|expected|, rms(expected), 1)` for every element.
pub(crate) fn assert_close(actual: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(actual.len(), expected.len());
    let size = (expected.iter().map(|v| v * v).sum::<f64>() / expected.len().max(1) as f64).sqrt();
    for (i, (&a, &e)) in actual.iter().zip(expected).enumerate() {
        let error = (f64::from(a) - e).abs();
        assert!(error <= tolerance * e.abs().max(size).max(1.0), "element {i}: {a} is not {e}");
    }
}

/// Asserts that `gradient` is the gradient of `loss` at `x`, by central differences in f64.
pub(crate) fn assert_gradient(x: &[f64], gradient: &[f32], tolerance: f64, loss: impl Fn(&[f64]) -> f64) {
    let step = 1e-5;
    let mut x = x.to_vec();
    let mut expected = Vec::with_capacity(x.len());
    for i in 0..x.len() {
        let middle = x[i];
        x[i] = middle + step;
        let above = loss(&x);
        x[i] = middle - step;
        let below = loss(&x);
        x[i] = middle;
        expected.push((above - below) / (2.0 * step));
    }
    assert_close(gradient, &expected, tolerance);
}
