use std::arch::x86_64::{__m512, __m512bh, __m512i, _mm512_cvtne2ps_pbh, _mm512_permutexvar_epi16, _mm512_set_epi16};
use std::mem::transmute;

/// Both vectors in bf16, one after the other.
#[inline(always)]
#[allow(unsafe_code)]
pub(crate) unsafe fn round_pair(low: __m512, high: __m512) -> __m512i {
    // SAFETY: the caller has AVX-512-BF16; the types are 64 bytes each.
    unsafe { transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low)) }
}

/// The lower half's element i to place 2 i, the upper one's to 2 i + 1.
#[inline(always)]
#[allow(unsafe_code)]
pub(crate) unsafe fn interleaved(x: __m512i) -> __m512i {
    // SAFETY: the caller has AVX-512 BW.
    unsafe {
        #[rustfmt::skip]
        let order = _mm512_set_epi16(
            31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0,
        );
        _mm512_permutexvar_epi16(order, x)
    }
}
