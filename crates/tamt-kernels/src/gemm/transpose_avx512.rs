//! Transposition of 16 x 16 words of 32 bits in AVX-512 registers.

use std::arch::x86_64::*;

/// Sixteen rows of sixteen 32-bit words.
pub(crate) type Tile = [__m512i; 16];

/// Transposes 16 x 16 words: two rounds of shuffles within the 128-bit quarters of vectors, then two rounds of whole
/// quarters.
///
/// # Safety
/// The CPU has AVX-512 F, and the caller is compiled for it.
#[inline(always)]
pub(crate) unsafe fn transposed(rows: Tile) -> Tile {
    // SAFETY: the instructions need AVX-512 F alone, which the `# Safety` contract gives.
    unsafe {
        let mut quads = [_mm512_setzero_si512(); 16];
        for i in (0..16).step_by(4) {
            let [a, b, c, d] = [rows[i], rows[i + 1], rows[i + 2], rows[i + 3]];
            let (ab, cd) = (_mm512_unpacklo_epi32(a, b), _mm512_unpacklo_epi32(c, d));
            let (ab_high, cd_high) = (_mm512_unpackhi_epi32(a, b), _mm512_unpackhi_epi32(c, d));
            quads[i] = _mm512_unpacklo_epi64(ab, cd);
            quads[i + 1] = _mm512_unpackhi_epi64(ab, cd);
            quads[i + 2] = _mm512_unpacklo_epi64(ab_high, cd_high);
            quads[i + 3] = _mm512_unpackhi_epi64(ab_high, cd_high);
        }
        // quarter q of quads[4 i + j] is column 4 q + j of rows 4 i to 4 i + 3
        let mut columns = [_mm512_setzero_si512(); 16];
        for j in 0..4 {
            let [a, b, c, d] = [quads[j], quads[4 + j], quads[8 + j], quads[12 + j]];
            let (even_ab, odd_ab) = (_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0xdd>(a, b));
            let (even_cd, odd_cd) = (_mm512_shuffle_i32x4::<0x88>(c, d), _mm512_shuffle_i32x4::<0xdd>(c, d));
            columns[j] = _mm512_shuffle_i32x4::<0x88>(even_ab, even_cd);
            columns[4 + j] = _mm512_shuffle_i32x4::<0x88>(odd_ab, odd_cd);
            columns[8 + j] = _mm512_shuffle_i32x4::<0xdd>(even_ab, even_cd);
            columns[12 + j] = _mm512_shuffle_i32x4::<0xdd>(odd_ab, odd_cd);
        }
        columns
    }
}
