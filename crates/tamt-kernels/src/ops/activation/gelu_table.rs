//! GELU for results that are rounded to bf16: piecewise cubics, in a third of the instructions of the f32 version.
//!
//! ```text
//! f(u)  = max(u, 0) + g(|u|)                        g(t) = -t Φ(-t)
//! f'(u) = h(|u|) for u < 0, 1 - h(|u|) for u >= 0    h(t) = Φ(-t) - t φ(t)
//! ```
//!
//! `g` and `h` are cubics on each of 32 pieces of `[0, 6)`. Two registers hold one coefficient of all pieces; one
//! permutation looks up the coefficient by the index of the piece.

use std::arch::x86_64::*;
use std::f64::consts::PI;
use std::sync::OnceLock;

use crate::base::normal_cdf;

/// Number of pieces. Piece `i` is centred at `i * WIDTH`.
const PIECES: usize = 32;

/// Width of a piece.
const WIDTH: f32 = 0.1875;

/// Upper bound of the argument, the centre of the last piece: `|g|` is below 2e-8 and `|h|` below 1.1e-7 there, and
/// both count as constant from there on.
pub(crate) const END: f32 = WIDTH * (PIECES as f32 - 1.0);

/// The coefficients of one cubic per piece, `[power][piece]`.
#[repr(align(64))]
struct Cubics([[f32; PIECES]; 4]);

/// The cubics of GELU and its derivative.
pub(crate) struct GeluTable {
    /// `g`
    tail: Cubics,
    /// `h`
    slope: Cubics,
}

impl GeluTable {
    /// The table, which the first call computes.
    pub(crate) fn get() -> &'static Self {
        static TABLE: OnceLock<GeluTable> = OnceLock::new();
        TABLE.get_or_init(|| {
            let cdf = |t: f64| f64::from(normal_cdf::<false>(-t as f32));
            let density = |t: f64| (-0.5 * t * t).exp() / (2.0 * PI).sqrt();
            Self { tail: Cubics::of(|t| -t * cdf(t)), slope: Cubics::of(|t| cdf(t) - t * density(t)) }
        })
    }

    /// `f(u)`
    ///
    /// # Safety
    /// The processor must have AVX-512F and AVX-512DQ.
    #[inline(always)]
    pub(crate) unsafe fn value(&self, u: __m512) -> __m512 {
        // SAFETY: AVX-512F and DQ are present: this function's contract.
        unsafe {
            let (t, piece) = piece_of(u);
            self.value_at(u, t, piece)
        }
    }

    /// `f(u)`, given [`piece_of`] `u`.
    ///
    /// # Safety
    /// The processor must have AVX-512F and AVX-512DQ.
    #[inline(always)]
    unsafe fn value_at(&self, u: __m512, t: __m512, piece: __m512i) -> __m512 {
        // The maximum is its second operand if one operand is NaN, so that NaN propagates.
        // SAFETY: AVX-512F is present: this function's contract.
        unsafe { _mm512_add_ps(_mm512_max_ps(_mm512_setzero_ps(), u), self.tail.at(t, piece)) }
    }

    /// `f(u)` and `f'(u)`
    ///
    /// # Safety
    /// The processor must have AVX-512F and AVX-512DQ.
    #[inline(always)]
    pub(crate) unsafe fn value_and_slope(&self, u: __m512) -> (__m512, __m512) {
        // SAFETY: AVX-512F and DQ are present: this function's contract.
        unsafe {
            let (t, piece) = piece_of(u);
            let below = self.slope.at(t, piece);
            let is_above = !_mm512_cmp_ps_mask::<_CMP_LT_OQ>(u, _mm512_setzero_ps());
            (self.value_at(u, t, piece), _mm512_mask_sub_ps(below, is_above, _mm512_set1_ps(1.0), below))
        }
    }
}

/// `min(|u|, END)`, and the index of its piece in the low bits.
///
/// # Safety
/// The processor must have AVX-512F and AVX-512DQ.
#[inline(always)]
unsafe fn piece_of(u: __m512) -> (__m512, __m512i) {
    // 1.5 * 2^23: the sum has the nearest integer in its low bits.
    const ROUND: f32 = 12_582_912.0;
    // SAFETY: AVX-512F and DQ are present: this function's contract.
    unsafe {
        // The minimum is its second operand if one operand is NaN, so that NaN propagates.
        let t = _mm512_min_ps(_mm512_set1_ps(END), _mm512_abs_ps(u));
        (t, _mm512_castps_si512(_mm512_fmadd_ps(t, _mm512_set1_ps(1.0 / WIDTH), _mm512_set1_ps(ROUND))))
    }
}

impl Cubics {
    /// Cubics that interpolate `f` at four nodes of each piece.
    fn of(f: impl Fn(f64) -> f64) -> Self {
        let mut cubics = Self([[0.0; PIECES]; 4]);
        for piece in 0..PIECES {
            let (middle, half) = (f64::from(WIDTH) * piece as f64, f64::from(WIDTH) / 2.0);
            let nodes: [f64; 4] = std::array::from_fn(|i| match piece {
                // The first piece begins at 0, which is a node.
                0 => half * i as f64 / 3.0,
                _ => middle - half * (PI * (2 * i + 1) as f64 / 8.0).cos(),
            });
            for (power, coefficient) in interpolated(nodes, nodes.map(&f)).into_iter().enumerate() {
                cubics.0[power][piece] = coefficient as f32;
            }
        }
        cubics
    }

    /// The cubics of `piece` at `t`.
    ///
    /// # Safety
    /// The processor must have AVX-512F.
    #[inline(always)]
    unsafe fn at(&self, t: __m512, piece: __m512i) -> __m512 {
        // SAFETY: AVX-512F is present: this function's contract. Each table has `PIECES` = 32 floats, two vectors, at a
        // multiple of 64 bytes: `Cubics` is `align(64)`.
        unsafe {
            let mut sum = _mm512_setzero_ps();
            for table in self.0.iter().rev() {
                let halves = (_mm512_load_ps(table.as_ptr()), _mm512_load_ps(table.as_ptr().add(PIECES / 2)));
                sum = _mm512_fmadd_ps(sum, t, _mm512_permutex2var_ps(halves.0, piece, halves.1));
            }
            sum
        }
    }
}

/// The coefficients by power of the cubic through four points (Newton's divided differences, expanded).
fn interpolated(x: [f64; 4], mut y: [f64; 4]) -> [f64; 4] {
    for level in 1..4 {
        for i in (level..4).rev() {
            y[i] = (y[i] - y[i - 1]) / (x[i] - x[i - level]);
        }
    }
    let mut powers = [y[3], 0.0, 0.0, 0.0];
    for i in (0..3).rev() {
        // powers = powers * (x - x[i]) + y[i]
        for power in (0..4).rev() {
            let lower = if power == 0 { 0.0 } else { powers[power - 1] };
            powers[power] = lower - x[i] * powers[power];
        }
        powers[0] += y[i];
    }
    powers
}

#[cfg(test)]
mod tests {
    use std::arch::x86_64::{_mm512_loadu_ps, _mm512_storeu_ps};

    use super::*;
    use crate::base::cpu::Isa;
    use crate::base::cpu::isa;
    use crate::base::math::tests::erf_f64;

    /// Every bf16 number.
    #[test]
    fn results_are_right_to_more_digits_than_bf16_has() {
        if isa() < Isa::Avx512 {
            return;
        }
        let numbers: Vec<f32> = (0..=u16::MAX).map(|bits| f32::from_bits(u32::from(bits) << 16)).collect();
        let mut results = vec![(0.0, 0.0); numbers.len()];
        for (u, results) in numbers.chunks_exact(16).zip(results.chunks_exact_mut(16)) {
            let (mut value, mut slope, mut alone) = ([0.0f32; 16], [0.0f32; 16], [0.0f32; 16]);
            // SAFETY: AVX-512F and DQ are present: `isa()` returned Avx512. `u` has 16 floats.
            unsafe {
                let table = GeluTable::get();
                compiled(table, u, &mut value, &mut slope, &mut alone);
            }
            assert_eq!(value.map(f32::to_bits), alone.map(f32::to_bits));
            results.iter_mut().zip(value.into_iter().zip(slope)).for_each(|(out, result)| *out = result);
        }
        for (&u, (value, slope)) in numbers.iter().zip(results) {
            if u.is_nan() {
                assert!(value.is_nan());
                continue;
            }
            if u.is_infinite() {
                continue;
            }
            let u = f64::from(u);
            let cdf = 0.5 * (1.0 + erf_f64(u / 2f64.sqrt()));
            let density = (-0.5 * u * u).exp() / (2.0 * PI).sqrt();
            let (exact, exact_slope) = (u * cdf, cdf + u * density);
            // Rounding to bf16 has a relative error of up to 4e-3.
            let error = (f64::from(value) - exact).abs();
            assert!(error <= (2e-5 * u.abs()).min(1e-6) + 1e-44, "f({u}) = {value}, not {exact}");
            let error = (f64::from(slope) - exact_slope).abs();
            assert!(error <= 2e-6, "f'({u}) = {slope}, not {exact_slope}");
        }
    }

    /// # Safety
    /// `u` must have 16 floats.
    #[target_feature(enable = "avx512f,avx512dq")]
    unsafe fn compiled(
        table: &GeluTable,
        u: &[f32],
        value: &mut [f32; 16],
        slope: &mut [f32; 16],
        alone: &mut [f32; 16],
    ) {
        // SAFETY: the arrays have 16 floats, as has `u` by this function's contract.
        unsafe {
            let u = _mm512_loadu_ps(u.as_ptr());
            let both = table.value_and_slope(u);
            _mm512_storeu_ps(value.as_mut_ptr(), both.0);
            _mm512_storeu_ps(slope.as_mut_ptr(), both.1);
            _mm512_storeu_ps(alone.as_mut_ptr(), table.value(u));
        }
    }
}
