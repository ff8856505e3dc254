//! Measurement of the processor's peak of multiply-adds.

use std::hint::black_box;
use std::time::{Duration, Instant};

#[cfg(target_arch = "x86_64")]
use crate::base::{Isa, isa};
use crate::base::{Portable, Precision, Simd};

/// Iterations of the loop in a run of a few milliseconds.
const ROUNDS: usize = 200_000;

/// Time of the measurement.
const DURATION: Duration = Duration::from_millis(500);

/// Measures the peak in floating-point operations per second: a loop of fused multiply-adds on registers in
/// `precision`, on all threads of the current pool at once. No product is faster. Takes half a second.
pub fn measure_peak_flops(precision: Precision) -> f64 {
    let run = || -> f64 {
        let started = Instant::now();
        let words: usize = rayon::broadcast(|_| busy(precision)).into_iter().sum();
        2.0 * (words * precision.steps_in_word()) as f64 / started.elapsed().as_secs_f64()
    };
    // the best run: in the first runs threads may still share a processor
    let (started, mut best) = (Instant::now(), 0.0f64);
    while started.elapsed() < DURATION {
        best = best.max(run());
    }
    best
}

/// Multiplies and adds words for a few milliseconds; returns the number of multiplications.
#[cfg_attr(not(target_arch = "x86_64"), allow(unused_variables))]
fn busy(precision: Precision) -> usize {
    // SAFETY: the CPU has the instruction set that `isa` returns, and AVX-512-BF16 or AMX where `packs_bf16` is true.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        match isa() {
            Isa::Avx512 if precision.packs_bf16() => return crate::gemm::bf16::unit::spin(ROUNDS),
            Isa::Avx512 => return x86::avx512(),
            Isa::Avx2 => return x86::avx2(),
            Isa::Portable => {}
        }
        spin::<Portable>()
    }
}

/// [`spin`] for each instruction set.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{__m256, __m512};

    use super::spin;

    macro_rules! spin {
        ($name:ident, $features:literal, $vector:ty) => {
            /// # Safety
            /// The CPU has the instruction set.
            #[target_feature(enable = $features)]
            pub(super) unsafe fn $name() -> usize {
                // SAFETY: the target features are those of the vector type.
                unsafe { spin::<$vector>() }
            }
        };
    }
    spin!(avx512, "avx512f", __m512);
    spin!(avx2, "avx2,fma", __m256);
}

/// Independent sums: enough to hide the latency of fused multiply-adds on two units, and few enough for the registers.
pub(crate) const SUMS: usize = 10;

/// Multiplies and adds vectors in registers; returns the number of multiplications.
///
/// # Safety
/// The CPU has the instruction set of `S`.
#[inline(always)]
unsafe fn spin<S: Simd>() -> usize {
    // SAFETY: the CPU has the instructions by the `# Safety` contract; `words` and `out` hold sixteen floats, a whole
    // vector.
    unsafe {
        // 0.0078 as f32 and as a pair of bf16: sums never overflow
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
            assert!(flops.is_finite() && flops >= 1e8, "{flops:e}");
        }
    }
}
