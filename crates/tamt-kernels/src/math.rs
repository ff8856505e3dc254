//! Elementary functions that vectorise: branch-free polynomials, no calls into libm.
//!
//! All are `#[inline(always)]` and meant for the inside of a [`crate::dispatch::kernel!`].

/// `a b + c`, fused where that is one instruction (without FMA, `f32::mul_add` is a slow library call).
#[inline(always)]
pub(crate) fn fma<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// 1.5 * 2^23: adding it rounds to the nearest integer and leaves that integer in the low bits.
const ROUND: f32 = 12_582_912.0;

/// `eˣ` to 2 ulp; 0 below -87.3 (no denormals), infinity above 88.37, NaN for NaN.
///
/// `x = n ln 2 + r` with `|r| <= ln 2 / 2`, a degree-6 polynomial for `eʳ` (Cephes `expf`), and `2ⁿ` by its exponent bits.
#[inline(always)]
pub(crate) fn exp<const FMA: bool>(x: f32) -> f32 {
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let clamped = x.clamp(-87.3, 88.37);
    let shifted = fma::<FMA>(clamped, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = fma::<FMA>(n, -LN2_LOW, fma::<FMA>(n, -LN2_HIGH, clamped));
    let mut p = 1.987_569_1e-4;
    p = fma::<FMA>(p, r, 1.398_199_9e-3);
    p = fma::<FMA>(p, r, 8.333_452e-3);
    p = fma::<FMA>(p, r, 4.166_579_6e-2);
    p = fma::<FMA>(p, r, 1.666_666_5e-1);
    p = fma::<FMA>(p, r, 0.5);
    p = fma::<FMA>(p, r * r, r) + 1.0;
    // 2^n: n, here -126 to 127, goes from the low bits of `shifted` to the exponent field
    let y = p * f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    if x < -87.3 {
        0.0
    } else if x > 88.37 {
        f32::INFINITY
    } else {
        y
    }
}

/// The error function, to 1e-7 relative: two polynomials (N. Juffa's single-precision `erff`).
#[inline(always)]
pub(crate) fn erf<const FMA: bool>(x: f32) -> f32 {
    let t = x.abs();
    let s = x * x;
    let mut big = fma::<FMA>(-1.728_534_7e-5, t, 3.831_972e-4);
    let u = fma::<FMA>(-3.883_964_4e-3, t, 2.425_462_2e-2);
    big = fma::<FMA>(big, s, u);
    big = fma::<FMA>(big, t, -1.067_778_8e-1);
    big = fma::<FMA>(big, t, -6.348_468_7e-1);
    big = fma::<FMA>(big, t, -1.287_175_1e-1);
    big = fma::<FMA>(big, t, -t);
    let big = (1.0 - exp::<FMA>(big)).copysign(x);
    let mut small = -5.967_617e-4;
    small = fma::<FMA>(small, s, 4.991_194_2e-3);
    small = fma::<FMA>(small, s, -2.676_813_5e-2);
    small = fma::<FMA>(small, s, 1.128_199_25e-1);
    small = fma::<FMA>(small, s, -3.761_253_4e-1);
    small = fma::<FMA>(small, s, 1.283_791_7e-1);
    small = fma::<FMA>(small, x, x);
    if t > 0.927_734_4 { big } else { small }
}

/// `tanh x` to 3e-7 relative: a polynomial near 0 (Cephes `tanhf`), `1 - 2 / (e²ˣ + 1)` elsewhere.
#[inline(always)]
pub(crate) fn tanh<const FMA: bool>(x: f32) -> f32 {
    let t = x.abs();
    let s = x * x;
    let mut small = -5.704_988e-3;
    small = fma::<FMA>(small, s, 2.063_908_8e-2);
    small = fma::<FMA>(small, s, -5.373_971_5e-2);
    small = fma::<FMA>(small, s, 1.333_144_2e-1);
    small = fma::<FMA>(small, s, -3.333_328e-1);
    let small = fma::<FMA>(small * s, x, x);
    let big = (1.0 - 2.0 / (exp::<FMA>(2.0 * t) + 1.0)).copysign(x);
    if t < 0.625 { small } else { big }
}

/// Partial sums that a vectorised reduction keeps. Fixed, so that every instruction set adds in the same order.
pub(crate) const LANES: usize = 32;

/// The first half of the lanes plus the second.
#[inline(always)]
fn fold<const N: usize, const HALF: usize>(lanes: [f32; N]) -> [f32; HALF] {
    std::array::from_fn(|i| lanes[i] + lanes[i + HALF])
}

/// Adds up the lanes pairwise.
#[inline(always)]
fn sum_lanes(lanes: [f32; LANES]) -> f32 {
    let sixteen: [f32; 16] = fold(lanes);
    let eight: [f32; 8] = fold(sixteen);
    let four: [f32; 4] = fold(eight);
    let two: [f32; 2] = fold(four);
    two[0] + two[1]
}

/// `Σ term(elements)` over slices of the same length, side by side, in [`LANES`] partial sums.
#[inline(always)]
pub(crate) fn sum_by<const K: usize>(x: [&[f32]; K], term: impl Fn([f32; K]) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let parts = x.map(|x| x.as_chunks::<LANES>());
    let whole = parts[0].0.len();
    for chunk in 0..whole {
        let chunks = parts.map(|(chunks, _)| &chunks[chunk]);
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum += term(chunks.map(|chunk| chunk[lane]));
        }
    }
    // apart from the lanes: an index known only at run time would keep them out of registers
    let mut rest = 0.0;
    for i in 0..parts[0].1.len() {
        rest += term(parts.map(|(_, rest)| rest[i]));
    }
    sum_lanes(lanes) + rest
}

/// The largest element; negative infinity for none. NaN is ignored.
#[inline(always)]
pub(crate) fn max_of(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &v) in lanes.iter_mut().zip(chunk) {
            *lane = if v > *lane { v } else { *lane };
        }
    }
    let mut max = f32::NEG_INFINITY;
    for &v in lanes.iter().chain(rest) {
        max = if v > max { v } else { max };
    }
    max
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::dispatch::kernel;

    /// `erf x` in f64: the Maclaurin series, which converges for all `x` and is accurate to 1e-13 below 3.
    pub(crate) fn erf_f64(x: f64) -> f64 {
        if x.abs() > 5.9 {
            return x.signum();
        }
        // e^(-x²) Σ 2ⁿ x^(2n+1) / (2n+1)!! has positive terms only, so nothing cancels
        let (mut term, mut sum, mut n) = (x, x, 0.0);
        while term.abs() > 1e-18 * sum.abs() {
            n += 1.0;
            term *= 2.0 * x * x / (2.0 * n + 1.0);
            sum += term;
        }
        sum * (-x * x).exp() * 2.0 / std::f64::consts::PI.sqrt()
    }

    kernel! {
        fn evaluate<FMA>(kind: u8, x: &[f32], y: &mut [f32]) {
            for (y, &x) in y.iter_mut().zip(x) {
                *y = match kind {
                    0 => exp::<FMA>(x),
                    1 => erf::<FMA>(x),
                    _ => tanh::<FMA>(x),
                };
            }
        }
    }

    fn worst(kind: u8, low: f32, high: f32, reference: fn(f64) -> f64) -> f64 {
        let n = 200_003;
        let x: Vec<f32> = (0..n).map(|i| low + (high - low) * i as f32 / (n - 1) as f32).collect();
        let mut y = vec![0.0; n];
        evaluate(kind, &x, &mut y);
        x.iter().zip(&y).fold(0.0, |worst, (&x, &y)| {
            let expected = reference(f64::from(x));
            let error = (f64::from(y) - expected).abs() / expected.abs().max(1e-30);
            worst.max(error)
        })
    }

    #[test]
    fn exp_is_accurate_over_its_range() {
        assert!(worst(0, -87.2, 88.3, f64::exp) < 2.4e-7);
    }

    #[test]
    fn exp_saturates_and_keeps_nan() {
        let x = [f32::NEG_INFINITY, -1e4, 0.0, 1e4, f32::INFINITY, f32::NAN];
        let mut y = [9.0; 6];
        evaluate(0, &x, &mut y);
        assert_eq!(&y[..5], &[0.0, 0.0, 1.0, f32::INFINITY, f32::INFINITY]);
        assert!(y[5].is_nan());
    }

    #[test]
    fn erf_is_accurate_over_its_range() {
        assert!(worst(1, -6.0, 6.0, erf_f64) < 1.5e-7);
        assert!(worst(1, -1e-3, 1e-3, erf_f64) < 1.5e-7);
    }

    #[test]
    fn tanh_is_accurate_over_its_range() {
        assert!(worst(2, -20.0, 20.0, f64::tanh) < 3e-7);
        assert!(worst(2, -1e-3, 1e-3, f64::tanh) < 3e-7);
    }

    #[test]
    fn lane_sums_cover_every_length() {
        let x: Vec<f32> = (0..130).map(|i| i as f32).collect();
        for n in 0..130 {
            assert_eq!(sum_by([&x[..n]], |[v]| v), (n * n.max(1) - n) as f32 / 2.0);
        }
    }

    #[test]
    fn the_maximum_of_nothing_is_negative_infinity() {
        assert_eq!(max_of(&[]), f32::NEG_INFINITY);
        let mut x = vec![-3.0; 77];
        x[70] = -1.0;
        assert_eq!(max_of(&x), -1.0);
        x[5] = f32::NAN;
        assert_eq!(max_of(&x), -1.0);
    }
}
