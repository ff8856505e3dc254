//! The vector operations of micro-kernels, one type per instruction set.

/// A vector of floats. Loads and stores are unaligned. Methods are `#[inline(always)]`, to be compiled with the target
/// features of the caller.
pub(crate) trait Simd: Copy {
    /// Floats of a vector.
    const LANES: usize;

    /// The floats `p[..LANES]`.
    ///
    /// # Safety
    /// The CPU has the instruction set of `Self`; `p` is valid for reads of `LANES` floats.
    unsafe fn load(p: *const f32) -> Self;

    /// Writes the vector to `p[..LANES]`.
    ///
    /// # Safety
    /// The CPU has the instruction set of `Self`; `p` is valid for writes of `LANES` floats.
    unsafe fn store(self, p: *mut f32);

    /// The float `*p` in all lanes.
    ///
    /// # Safety
    /// The CPU has the instruction set of `Self`; `p` is valid for reads of one float.
    unsafe fn splat(p: *const f32) -> Self;

    /// Zero in all lanes.
    ///
    /// # Safety
    /// The CPU has the instruction set of `Self`.
    unsafe fn zero() -> Self;

    /// `self + other`
    ///
    /// # Safety
    /// The CPU has the instruction set of `Self`.
    unsafe fn add(self, other: Self) -> Self;

    /// `self * b + c`
    ///
    /// # Safety
    /// The CPU has the instruction set of `Self`.
    unsafe fn mul_add(self, b: Self, c: Self) -> Self;
}

/// Four floats in vectors of the target's baseline.
#[derive(Clone, Copy)]
pub(crate) struct Portable([f32; 4]);

impl Simd for Portable {
    const LANES: usize = 4;

    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: the contract of `Simd::load` makes `p` valid for four floats; the access is unaligned.
        Self(unsafe { p.cast::<[f32; 4]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the contract of `Simd::store` makes `p` valid for four floats; the access is unaligned.
        unsafe { p.cast::<[f32; 4]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn splat(p: *const f32) -> Self {
        // SAFETY: the contract of `Simd::splat` makes `p` valid for one float.
        Self([unsafe { *p }; 4])
    }

    #[inline(always)]
    unsafe fn zero() -> Self {
        Self([0.0; 4])
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] + other.0[i]))
    }

    #[inline(always)]
    unsafe fn mul_add(self, b: Self, c: Self) -> Self {
        const FMA: bool = cfg!(target_arch = "aarch64");
        Self(std::array::from_fn(|i| crate::base::math::fma::<FMA>(self.0[i], b.0[i], c.0[i])))
    }
}

/// The vectors of AVX2 with FMA and of AVX-512 F.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::Simd;

    macro_rules! simd {
        ($vector:ty, $lanes:literal, $load:ident, $store:ident, |$p:ident| $splat:expr, $zero:ident, $add:ident, $fma:ident) => {
            impl Simd for $vector {
                const LANES: usize = $lanes;

                #[inline(always)]
                unsafe fn load(p: *const f32) -> Self {
                    // SAFETY: the contract of `Simd::load` gives the instruction set and `LANES` floats.
                    unsafe { $load(p) }
                }

                #[inline(always)]
                unsafe fn store(self, p: *mut f32) {
                    // SAFETY: the contract of `Simd::store` gives the instruction set and room for `LANES` floats.
                    unsafe { $store(p, self) }
                }

                #[inline(always)]
                unsafe fn splat($p: *const f32) -> Self {
                    // SAFETY: the contract of `Simd::splat` gives the instruction set and one float.
                    unsafe { $splat }
                }

                #[inline(always)]
                unsafe fn zero() -> Self {
                    // SAFETY: the contract of `Simd::zero` gives the instruction set.
                    unsafe { $zero() }
                }

                #[inline(always)]
                unsafe fn add(self, other: Self) -> Self {
                    // SAFETY: the contract of `Simd::add` gives the instruction set.
                    unsafe { $add(self, other) }
                }

                #[inline(always)]
                unsafe fn mul_add(self, b: Self, c: Self) -> Self {
                    // SAFETY: the contract of `Simd::mul_add` gives the instruction set.
                    unsafe { $fma(self, b, c) }
                }
            }
        };
    }
    simd! {
        __m256, 8, _mm256_loadu_ps, _mm256_storeu_ps, |p| _mm256_broadcast_ss(&*p), _mm256_setzero_ps, _mm256_add_ps,
        _mm256_fmadd_ps
    }
    simd! {
        __m512, 16, _mm512_loadu_ps, _mm512_storeu_ps, |p| _mm512_set1_ps(*p), _mm512_setzero_ps, _mm512_add_ps, _mm512_fmadd_ps
    }
}
