//! How fast this processor multiplies and adds at best.

use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::base::cpu::{Isa, isa};
use crate::base::precision::Precision;
use crate::base::simd::{Portable, Simd};

/// Rounds of the loop in a run: a few milliseconds.
const ROUNDS: usize = 200_000;

/// How long is measured.
const ENOUGH: Duration = Duration::from_millis(500);

/// Measures the floating-point operations a second of a loop of nothing but fused multiply-adds on registers, on all threads of
/// the current pool at once: what no product can exceed. Half a second.
#[must_use]
pub fn measure_peak_flops(precision: Precision) -> f64 {
    let run = || -> f64 {
        let started = Instant::now();
        let words: usize = rayon::broadcast(|_| busy(precision)).into_iter().sum();
        2.0 * (words * precision.steps_in_word()) as f64 / started.elapsed().as_secs_f64()
    };
    // until the system has given each thread a processor of its own
    let (started, mut best) = (Instant::now(), 0.0f64);
    while started.elapsed() < ENOUGH {
        best = best.max(run());
    }
    best
}

/// Multiplies and adds words for a while; returns how many.
#[allow(unsafe_code)]
#[cfg_attr(not(target_arch = "x86_64"), allow(unused_variables))]
fn busy(precision: Precision) -> usize {
    // SAFETY: only instruction sets that are there are named.
    unsafe {
        match isa() {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 if precision.packs_bf16() => crate::gemm::bf16::unit::spin(ROUNDS),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => x86::avx512(),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => x86::avx2(),
            _ => spin::<Portable>(),
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{__m256, __m512};

    use super::spin;

    macro_rules! spin {
        ($name:ident, $features:literal, $vector:ty) => {
            #[target_feature(enable = $features)]
            #[allow(unsafe_code)]
            pub(super) unsafe fn $name() -> usize {
                // SAFETY: the caller's.
                unsafe { spin::<$vector>() }
            }
        };
    }
    spin!(avx512, "avx512f", __m512);
    spin!(avx2, "avx2,fma", __m256);
}

/// Sums in flight: more than the units for fused multiply-adds take to finish one, and few enough for the registers.
pub(crate) const SUMS: usize = 10;

/// # Safety
/// The instruction set of `S`.
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn spin<S: Simd>() -> usize {
    // SAFETY: the caller's; each vector is one of the array's.
    unsafe {
        // bf16 or f32, small enough never to overflow
        let words = black_box([f32::from_bits(0x3c00_3c00); 16]);
        let (a, b) = (S::load(words.as_ptr()), S::load(words.as_ptr()));
        let mut sums = [S::zero(); SUMS];
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = a.mul_add(b, *sum);
            }
        }
        let mut out = [0.0; 16];
        for sum in sums {
            sum.store(out.as_mut_ptr());
            black_box(&out);
        }
    }
    ROUNDS * SUMS * S::LANES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_does_a_hundred_million_operations_a_second_at_least() {
        for precision in [Precision::F32, Precision::Bf16] {
            let flops = measure_peak_flops(precision);
            assert!((1e8..1e14).contains(&flops), "{flops:e}");
        }
    }
}
