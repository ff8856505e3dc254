//! Rounding of vectors to bf16.

use std::arch::x86_64::{__m512, __m512bh, __m512i, _mm512_cvtne2ps_pbh, _mm512_permutexvar_epi16, _mm512_set_epi16};
use std::mem::transmute;

/// `low` and `high` in bf16: the elements of `low`, then those of `high`.
///
/// # Safety
/// The CPU has AVX-512-BF16, and the caller is compiled for it.
#[inline(always)]
pub(crate) unsafe fn round_pair(low: __m512, high: __m512) -> __m512i {
    // SAFETY: AVX-512-BF16 by the `# Safety` contract; both types of the transmutation are 64 bytes, and any bits are
    // valid.
    unsafe { transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low)) }
}

/// Interleaves the halves: element i of the lower half becomes element 2 i, element i of the upper half 2 i + 1.
///
/// # Safety
/// The CPU has AVX-512 BW, and the caller is compiled for it.
#[inline(always)]
pub(crate) unsafe fn interleaved(x: __m512i) -> __m512i {
    // SAFETY: AVX-512 BW by the `# Safety` contract.
    unsafe {
        #[rustfmt::skip]
        let order = _mm512_set_epi16(
            31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0,
        );
        _mm512_permutexvar_epi16(order, x)
    }
}
