//! Elementary functions that vectorise: branch-free polynomials without calls into libm.
//!
//! All functions are `#[inline(always)]`, to be compiled for the instruction set of the calling
//! [`kernel!`](crate::base::dispatch::kernel).

/// `a b + c`, fused if `FMA` (on targets without FMA, `f32::mul_add` is a slow library call).
#[inline(always)]
pub(crate) fn fma<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// 1.5 * 2^23. `x + ROUND` is rounded to the nearest integer, which the low bits of the sum hold.
const ROUND: f32 = 12_582_912.0;

/// `eˣ` to 2 ulp; 0 below -87.3 (no denormals), infinity above 88.37, NaN for NaN.
///
/// `x = n ln 2 + r` with `|r| <= ln 2 / 2`, a degree-6 polynomial for `eʳ` (Cephes `expf`), and `2ⁿ` by its exponent
/// bits.
#[inline(always)]
pub(crate) fn exp<const FMA: bool>(x: f32) -> f32 {
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    const EXP: [f32; 6] = [0.5, 1.666_666_5e-1, 4.166_579_6e-2, 8.333_452e-3, 1.398_199_9e-3, 1.987_569_1e-4];
    let clamped = x.clamp(-87.3, 88.37);
    let shifted = fma::<FMA>(clamped, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = fma::<FMA>(n, -LN2_LOW, fma::<FMA>(n, -LN2_HIGH, clamped));
    let p = fma::<FMA>(polynomial::<FMA, 6>(r, EXP), r * r, r) + 1.0;
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

/// `a + x (b + x (c + ...))` for coefficients `[a, b, c, ...]`.
#[inline(always)]
fn polynomial<const FMA: bool, const N: usize>(x: f32, coefficients: [f32; N]) -> f32 {
    let mut sum = coefficients[N - 1];
    for i in (0..N - 1).rev() {
        sum = fma::<FMA>(sum, x, coefficients[i]);
    }
    sum
}

/// `2ˣ` to 1e-7 relative for `x` in [-126, 127], an arbitrary number elsewhere.
#[inline(always)]
fn exp2_in_range<const FMA: bool>(x: f32) -> f32 {
    const EXP2: [f32; 7] =
        [1.0, std::f32::consts::LN_2, 0.240_226_48, 0.055_503_324, 0.009_618_437, 0.001_339_887_5, 0.000_153_533_62];
    let shifted = x + ROUND;
    let fraction = polynomial::<FMA, 7>(x - (shifted - ROUND), EXP2);
    fraction * f32::from_bits(shifted.to_bits().wrapping_add(127) << 23)
}

/// `2ˣ` for `x` up to 127; less than 1e-37 for `x` below -126.
#[inline(always)]
pub(crate) fn exp2<const FMA: bool>(x: f32) -> f32 {
    // `max` would turn NaN into a number
    exp2_in_range::<FMA>(if x < -126.0 { -126.0 } else { x })
}

/// `Φ(x)`, the normal distribution function, to 2e-7; 0 below -6.
///
/// `Φ(-t) = 2^p(t)` with a polynomial `p(t) ≈ log2 Φ(-t)` for `t = |x|` up to 6. The formula needs no special case for
/// small `x` and is accurate to 4e-6 relative in the lower tail, where `(1 + erf) / 2` loses all digits. Both
/// polynomials are minimax fits.
#[inline(always)]
pub(crate) fn normal_cdf<const FMA: bool>(x: f32) -> f32 {
    const END: f32 = 6.0;
    const LOG2_CDF: [f32; 11] = [
        -0.999_999_9,
        -1.151_109_2,
        -0.459_181_2,
        -0.052_558_68,
        0.007_117_012_5,
        -0.000_136_667_66,
        -0.000_214_887_27,
        5.795_178e-5,
        -7.841_973e-6,
        5.718_734_4e-7,
        -1.780_460_2e-8,
    ];
    let t = x.abs();
    let tail = if t < END { exp2_in_range::<FMA>(polynomial::<FMA, 11>(t, LOG2_CDF)) } else { 0.0 };
    if x < 0.0 { tail } else { 1.0 - tail }
}

/// `tanh x` to 3e-7 relative: a polynomial near 0 (Cephes `tanhf`), `1 - 2 / (e²ˣ + 1)` elsewhere.
#[inline(always)]
pub(crate) fn tanh<const FMA: bool>(x: f32) -> f32 {
    const SMALL: [f32; 5] = [-3.333_328e-1, 1.333_144_2e-1, -5.373_971_5e-2, 2.063_908_8e-2, -5.704_988e-3];
    let (t, s) = (x.abs(), x * x);
    let small = fma::<FMA>(polynomial::<FMA, 5>(s, SMALL) * s, x, x);
    let big = (1.0 - 2.0 / (exp::<FMA>(2.0 * t) + 1.0)).copysign(x);
    if t < 0.625 { small } else { big }
}

/// Partial sums of a vectorised reduction. The number is fixed, so that every instruction set adds in the same order.
pub(crate) const LANES: usize = 32;

/// Joins lane `i` of the first half with lane `i` of the second half.
#[inline(always)]
fn fold<const N: usize, const HALF: usize>(lanes: [f32; N], join: impl Fn(f32, f32) -> f32) -> [f32; HALF] {
    std::array::from_fn(|i| join(lanes[i], lanes[i + HALF]))
}

/// Joins all lanes by halves: a tree of five levels.
#[inline(always)]
fn join_lanes(lanes: [f32; LANES], join: impl Fn(f32, f32) -> f32 + Copy) -> f32 {
    let sixteen: [f32; 16] = fold(lanes, join);
    let eight: [f32; 8] = fold(sixteen, join);
    let four: [f32; 4] = fold(eight, join);
    let [a, b] = fold(four, join);
    join(a, b)
}

/// Sum of the lanes, in the order of [`join_lanes`].
#[inline(always)]
pub(crate) fn sum_lanes(lanes: [f32; LANES]) -> f32 {
    join_lanes(lanes, |a, b| a + b)
}

/// `Σ x`, in the order of [`sum_by`].
#[inline(always)]
pub(crate) fn sum_of(x: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, v) in lanes.iter_mut().zip(chunk) {
            *lane += v;
        }
    }
    // `black_box` prevents the compiler from merging the loop and the tree into scalar code of two lanes
    sum_lanes(std::hint::black_box(lanes)) + rest.iter().sum::<f32>()
}

/// `Σ_i term([x[0][i], x[1][i], ...])` over slices of the same length, in [`LANES`] partial sums.
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
    // a separate sum: an index known only at run time would force the lanes out of registers
    let mut rest = 0.0;
    for i in 0..parts[0].1.len() {
        rest += term(parts.map(|(_, rest)| rest[i]));
    }
    sum_lanes(lanes) + rest
}

/// The largest element, negative infinity for an empty slice. NaN is ignored.
#[inline(always)]
pub(crate) fn max_of(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &v) in lanes.iter_mut().zip(chunk) {
            *lane = if v > *lane { v } else { *lane };
        }
    }
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    rest.iter().fold(join_lanes(lanes, larger), |max, &v| larger(max, v))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::base::dispatch::kernel;

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
                    1 => normal_cdf::<FMA>(x),
                    2 => exp2::<FMA>(x),
                    _ => tanh::<FMA>(x),
                };
            }
        }
    }

    /// The larger error; NaN, which `f64::max` drops, stays.
    pub(crate) fn larger(worst: f64, error: f64) -> f64 {
        if error > worst || error.is_nan() { error } else { worst }
    }

    fn worst(kind: u8, low: f32, high: f32, reference: fn(f64) -> f64) -> f64 {
        let n = 200_003;
        let x: Vec<f32> = (0..n).map(|i| low + (high - low) * i as f32 / (n - 1) as f32).collect();
        let mut y = vec![0.0; n];
        evaluate(kind, &x, &mut y);
        let errors = x.iter().zip(&y).map(|(&x, &y)| {
            let expected = reference(f64::from(x));
            (f64::from(y) - expected).abs() / expected.abs().max(1e-30)
        });
        errors.fold(0.0, larger)
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
    fn powers_of_two_are_accurate_over_their_range() {
        assert!(worst(2, -126.0, 126.9, f64::exp2) < 2e-7);
        let x = [f32::NEG_INFINITY, -1e9, 0.0, -3.0, f32::NAN];
        let mut y = [9.0; 5];
        evaluate(2, &x, &mut y);
        assert!(y[0] < 2e-38 && y[1] < 2e-38 && y[2] == 1.0 && y[3] == 0.125 && y[4].is_nan());
    }

    #[test]
    fn the_normal_distribution_is_accurate_over_its_range() {
        let cdf = |x: f64| 0.5 * (1.0 + erf_f64(x / 2f64.sqrt()));
        assert!(worst(1, -0.5, 6.0, cdf) < 3e-7);
        // further down the reference cancels
        assert!(worst(1, -3.0, -0.5, cdf) < 2e-6);
        let x = [f32::NEG_INFINITY, -6.0, -5.999, 7.0, f32::INFINITY, f32::NAN];
        let mut y = [9.0; 6];
        evaluate(1, &x, &mut y);
        assert_eq!([y[0], y[1], y[3], y[4]], [0.0, 0.0, 1.0, 1.0]);
        assert!(y[2] > 0.9e-9 && y[2] < 1.1e-9 && y[5] == 1.0);
    }

    #[test]
    fn tanh_is_accurate_over_its_range() {
        assert!(worst(3, -20.0, 20.0, f64::tanh) < 3e-7);
        assert!(worst(3, -1e-3, 1e-3, f64::tanh) < 3e-7);
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
