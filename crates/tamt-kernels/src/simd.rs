//! The vector operations of the matrix product's register tile, one type per instruction set.

use std::marker::PhantomData;

/// A vector of floats. Loads and stores are unaligned.
///
/// # Safety
/// Every method needs the instruction set of its type; pointers must be valid for [`Simd::LANES`] floats (one for
/// `splat`). Methods are `#[inline(always)]` so that they are compiled with the caller's target features.
#[allow(unsafe_code)]
pub(crate) trait Simd: Copy {
    const LANES: usize;
    unsafe fn load(p: *const f32) -> Self;
    unsafe fn store(self, p: *mut f32);
    unsafe fn splat(p: *const f32) -> Self;
    unsafe fn zero() -> Self;
    unsafe fn add(self, other: Self) -> Self;
    /// `self * b + c`
    unsafe fn mul_add(self, b: Self, c: Self) -> Self;
}

/// Words of two bf16 taken apart into the floats that they stand for.
///
/// # Safety
/// As [`Simd`].
#[allow(unsafe_code)]
pub(crate) trait Halves: Simd {
    /// The lower halves.
    unsafe fn low(self) -> Self;
    /// The upper halves.
    unsafe fn high(self) -> Self;
}

/// How words of two bf16 in vectors `S` are multiplied.
///
/// # Safety
/// As [`Simd`].
#[allow(unsafe_code)]
pub(crate) trait PairProduct<S>: Copy {
    /// The sum of both products of the words of `a` and `b`, and `c`.
    unsafe fn mul_add(a: S, b: S, c: S) -> S;
}

/// Without instructions for bf16: each half by itself.
#[derive(Clone, Copy)]
pub(crate) struct TakenApart;

#[allow(unsafe_code)]
impl<S: Halves> PairProduct<S> for TakenApart {
    #[inline(always)]
    unsafe fn mul_add(a: S, b: S, c: S) -> S {
        // SAFETY: the caller's.
        unsafe { a.low().mul_add(b.low(), a.high().mul_add(b.high(), c)) }
    }
}

/// Vectors of words of two bf16 as operands, of floats as sums.
#[derive(Clone, Copy)]
pub(crate) struct Pairs<S, P = TakenApart>(S, PhantomData<P>);

#[allow(unsafe_code)]
impl<S: Simd, P: PairProduct<S>> Simd for Pairs<S, P> {
    const LANES: usize = S::LANES;

    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY of all: the caller's.
        Self(unsafe { S::load(p) }, PhantomData)
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        unsafe { self.0.store(p) }
    }

    #[inline(always)]
    unsafe fn splat(p: *const f32) -> Self {
        Self(unsafe { S::splat(p) }, PhantomData)
    }

    #[inline(always)]
    unsafe fn zero() -> Self {
        Self(unsafe { S::zero() }, PhantomData)
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Self(unsafe { self.0.add(other.0) }, PhantomData)
    }

    #[inline(always)]
    unsafe fn mul_add(self, b: Self, c: Self) -> Self {
        Self(unsafe { P::mul_add(self.0, b.0, c.0) }, PhantomData)
    }
}

/// Four floats, in whatever vectors the target guarantees.
#[derive(Clone, Copy)]
pub(crate) struct Portable([f32; 4]);

#[allow(unsafe_code)]
impl Simd for Portable {
    const LANES: usize = 4;

    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: the caller's.
        Self(unsafe { p.cast::<[f32; 4]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the caller's.
        unsafe { p.cast::<[f32; 4]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn splat(p: *const f32) -> Self {
        // SAFETY: the caller's.
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
        Self(std::array::from_fn(|i| crate::math::fma::<FMA>(self.0[i], b.0[i], c.0[i])))
    }
}

#[allow(unsafe_code)]
impl Halves for Portable {
    #[inline(always)]
    unsafe fn low(self) -> Self {
        Self(self.0.map(|word| f32::from_bits(word.to_bits() << 16)))
    }

    #[inline(always)]
    unsafe fn high(self) -> Self {
        Self(self.0.map(|word| f32::from_bits(word.to_bits() & 0xffff_0000)))
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::Bf16Instructions;

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m256, __m512, __m512bh, _mm256_add_ps, _mm256_and_ps, _mm256_broadcast_ss, _mm256_castps_si256,
        _mm256_castsi256_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_epi32, _mm256_setzero_ps, _mm256_slli_epi32,
        _mm256_storeu_ps, _mm512_add_ps, _mm512_and_si512, _mm512_castps_si512, _mm512_castsi512_ps, _mm512_dpbf16_ps,
        _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_slli_epi32,
        _mm512_storeu_ps,
    };
    use std::mem::transmute;

    use super::{Halves, PairProduct, Simd};

    const HIGH: i32 = 0xffff_0000_u32 as i32;

    // SAFETY of both: the trait's contract gives the instruction set and the pointers.
    #[allow(unsafe_code)]
    impl Simd for __m256 {
        const LANES: usize = 8;

        #[inline(always)]
        unsafe fn load(p: *const f32) -> Self {
            unsafe { _mm256_loadu_ps(p) }
        }

        #[inline(always)]
        unsafe fn store(self, p: *mut f32) {
            unsafe { _mm256_storeu_ps(p, self) }
        }

        #[inline(always)]
        unsafe fn splat(p: *const f32) -> Self {
            unsafe { _mm256_broadcast_ss(&*p) }
        }

        #[inline(always)]
        unsafe fn zero() -> Self {
            unsafe { _mm256_setzero_ps() }
        }

        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            unsafe { _mm256_add_ps(self, other) }
        }

        #[inline(always)]
        unsafe fn mul_add(self, b: Self, c: Self) -> Self {
            unsafe { _mm256_fmadd_ps(self, b, c) }
        }
    }

    #[allow(unsafe_code)]
    impl Simd for __m512 {
        const LANES: usize = 16;

        #[inline(always)]
        unsafe fn load(p: *const f32) -> Self {
            unsafe { _mm512_loadu_ps(p) }
        }

        #[inline(always)]
        unsafe fn store(self, p: *mut f32) {
            unsafe { _mm512_storeu_ps(p, self) }
        }

        #[inline(always)]
        unsafe fn splat(p: *const f32) -> Self {
            unsafe { _mm512_set1_ps(*p) }
        }

        #[inline(always)]
        unsafe fn zero() -> Self {
            unsafe { _mm512_setzero_ps() }
        }

        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            unsafe { _mm512_add_ps(self, other) }
        }

        #[inline(always)]
        unsafe fn mul_add(self, b: Self, c: Self) -> Self {
            unsafe { _mm512_fmadd_ps(self, b, c) }
        }
    }

    #[allow(unsafe_code)]
    impl Halves for __m256 {
        #[inline(always)]
        unsafe fn low(self) -> Self {
            unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_castps_si256(self))) }
        }

        #[inline(always)]
        unsafe fn high(self) -> Self {
            unsafe { _mm256_and_ps(self, _mm256_castsi256_ps(_mm256_set1_epi32(HIGH))) }
        }
    }

    #[allow(unsafe_code)]
    impl Halves for __m512 {
        #[inline(always)]
        unsafe fn low(self) -> Self {
            unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_castps_si512(self))) }
        }

        #[inline(always)]
        unsafe fn high(self) -> Self {
            unsafe { _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(self), _mm512_set1_epi32(HIGH))) }
        }
    }

    /// By AVX-512-BF16: 32 products an instruction.
    #[derive(Clone, Copy)]
    pub(crate) struct Bf16Instructions;

    #[allow(unsafe_code)]
    impl PairProduct<__m512> for Bf16Instructions {
        #[inline(always)]
        unsafe fn mul_add(a: __m512, b: __m512, c: __m512) -> __m512 {
            // A vector of words and one of bf16 are the same 64 bytes.
            unsafe { _mm512_dpbf16_ps(c, transmute::<__m512, __m512bh>(a), transmute::<__m512, __m512bh>(b)) }
        }
    }
}
