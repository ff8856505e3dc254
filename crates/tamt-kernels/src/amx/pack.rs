//! Panels of bf16 for the tile registers, rounded and masked on the way by AVX-512-BF16.
//!
//! A left panel is `[blocks of 32 steps][16 lanes][16 words]`, a right one `[words][32 lanes]`, the last one 16 lanes wide
//! if those suffice; a word is two steps of the depth. Lanes and words are padded with zeros.

use std::arch::x86_64::{
    __m512, __m512bh, __m512i, _mm512_cvtne2ps_pbh, _mm512_loadu_ps, _mm512_maskz_loadu_ps, _mm512_permutexvar_epi16,
    _mm512_set_epi16, _mm512_setzero_ps, _mm512_setzero_si512, _mm512_shuffle_i32x4, _mm512_storeu_si512,
    _mm512_stream_si512, _mm512_unpackhi_epi32, _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
};
use std::mem::transmute;
use std::ops::Range;

use super::SQUARE;
use crate::pack::{Operand, Order, Rows, Side};
use crate::product::AMX_TILE;

/// Steps of the depth in a block of tiles.
const STEPS: usize = 2 * AMX_TILE;

/// Packs panels of lanes and steps of an operand. With a mask, both begin at multiples of 8.
///
/// # Safety
/// The processor has AVX-512 F, BW and BF16.
#[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
#[allow(unsafe_code)]
pub(crate) unsafe fn pack(
    operand: &Operand<'_>,
    side: Side,
    lanes: Range<usize>,
    depth: Range<usize>,
    out: &mut [f32],
) {
    let padded = lanes.len().next_multiple_of(AMX_TILE);
    let words = depth.len().div_ceil(2).next_multiple_of(AMX_TILE);
    assert_eq!(out.len(), padded * words, "whole panels");
    if out.is_empty() {
        return;
    }
    let source = Source::new(operand, &lanes, &depth);
    // a left panel's rows are lanes, a right one's words
    let transpose = (operand.order == Order::LaneRows) == (side == Side::Right);
    let mut pack_tile = |lane: usize, block: usize| {
        // the panel that the lanes are in, its width, and where they begin in it
        let (panel, width, at) = match side {
            Side::Left => (lane, AMX_TILE, 0),
            Side::Right => {
                let panel = lane / SQUARE * SQUARE;
                (panel, SQUARE.min(padded - panel), lane - panel)
            }
        };
        let out = out[panel * words + block * AMX_TILE * width + at..].as_mut_ptr();
        // SAFETY: the instruction set is the caller's promise; `out` was measured.
        unsafe {
            let tile = source.tile(lane, block * STEPS);
            let tile = if transpose { transposed(tile) } else { tile };
            if operand.past_caches { stream(tile, out, width) } else { store(tile, out, width) }
        }
    };
    // along the rows of the data, as memory likes to be read
    let (tiles, blocks) = (padded / AMX_TILE, words / AMX_TILE);
    for i in 0..tiles * blocks {
        match operand.order {
            Order::LaneRows => pack_tile(i / blocks * AMX_TILE, i % blocks),
            Order::DepthRows => pack_tile(i % tiles * AMX_TILE, i / tiles),
        }
    }
}

/// The part of an operand that is packed.
struct Source<'a> {
    from: Rows<'a>,
    order: Order,
    rows: usize,
    cols: usize,
}

/// Sixteen words of sixteen lanes.
type Tile = [__m512i; AMX_TILE];

// What follows is compiled into `pack`, whose instructions it may use: a call would pass tiles through memory. Hence loops,
// and no closures that an adapter calls.
#[allow(unsafe_code)]
impl<'a> Source<'a> {
    /// Lanes and steps of an operand, neither of them empty.
    fn new(operand: &Operand<'a>, lanes: &Range<usize>, depth: &Range<usize>) -> Self {
        let (rows, cols) = if operand.order == Order::LaneRows { (lanes, depth) } else { (depth, lanes) };
        let from = operand.rows_from(rows.start, cols.start);
        assert!(from.data.len() >= (rows.len() - 1) * from.stride + cols.len(), "the operand holds the part");
        Self { from, order: operand.order, rows: rows.len(), cols: cols.len() }
    }

    /// Sixteen lanes and 32 steps: `[lane][word]` where rows are lanes, `[word][lane]` where they are steps.
    #[inline(always)]
    unsafe fn tile(&self, lane: usize, step: usize) -> Tile {
        let (row, rows, col, cols) = match self.order {
            Order::LaneRows => (lane, AMX_TILE, step, STEPS),
            Order::DepthRows => (step, STEPS, lane, AMX_TILE),
        };
        // SAFETY: the caller's instruction set.
        unsafe {
            match self.from.bits.is_none() && row + rows <= self.rows && col + cols <= self.cols {
                true => self.tile_at::<true>(row, col),
                false => self.tile_at::<false>(row, col),
            }
        }
    }

    #[inline(always)]
    unsafe fn tile_at<const WHOLE: bool>(&self, row: usize, col: usize) -> Tile {
        // SAFETY: as for `tile`.
        unsafe {
            let mut tile = [_mm512_setzero_si512(); AMX_TILE];
            for (i, words) in tile.iter_mut().enumerate() {
                *words = match self.order {
                    Order::LaneRows => {
                        let row = row + i;
                        rounded(self.load::<WHOLE>(row, col), self.load::<WHOLE>(row, col + AMX_TILE))
                    }
                    Order::DepthRows => {
                        let row = row + 2 * i;
                        interleaved(rounded(self.load::<WHOLE>(row, col), self.load::<WHOLE>(row + 1, col)))
                    }
                };
            }
            tile
        }
    }

    /// Sixteen elements of a row from a column on, a multiple of 8; zeros where the mask drops them or where there is no
    /// element. `WHOLE`: all are there, and no mask.
    #[inline(always)]
    unsafe fn load<const WHOLE: bool>(&self, row: usize, col: usize) -> __m512 {
        // SAFETY of all: the caller's instruction set; only elements of the row are read.
        let start = self.from.data.as_ptr().wrapping_add(row * self.from.stride + col);
        if WHOLE {
            return unsafe { _mm512_loadu_ps(start) };
        }
        if row >= self.rows || col >= self.cols {
            return unsafe { _mm512_setzero_ps() };
        }
        let mut kept = u16::MAX >> (16 - (self.cols - col).min(16));
        if let Some((bits, stride)) = self.from.bits {
            let at = row * stride + col / 8;
            // of a row's last byte there may be no next one; its bits are beyond the columns
            kept &= match bits.get(at..at + 2) {
                Some(two) => u16::from_le_bytes([two[0], two[1]]),
                None => u16::from(bits[at]),
            };
        }
        unsafe { _mm512_maskz_loadu_ps(kept, start) }
    }
}

/// Both vectors in bf16, one after the other.
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn rounded(low: __m512, high: __m512) -> __m512i {
    // SAFETY: the caller has AVX-512-BF16; the types are 64 bytes each.
    unsafe { transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low)) }
}

/// The lower half's element i to place 2 i, the upper one's to 2 i + 1.
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn interleaved(x: __m512i) -> __m512i {
    // SAFETY: the caller has AVX-512 BW.
    unsafe {
        #[rustfmt::skip]
        let order = _mm512_set_epi16(
            31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0,
        );
        _mm512_permutexvar_epi16(order, x)
    }
}

/// # Safety
/// Sixteen rows of sixteen words, `stride` apart, are writable at `out`.
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn store(tile: Tile, out: *mut f32, stride: usize) {
    for (i, row) in tile.into_iter().enumerate() {
        // SAFETY: the caller's.
        unsafe { _mm512_storeu_si512(out.add(i * stride).cast(), row) };
    }
}

/// # Safety
/// As for [`store`], and `out` and `stride` of whole cache lines.
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn stream(tile: Tile, out: *mut f32, stride: usize) {
    for (i, row) in tile.into_iter().enumerate() {
        // SAFETY: the caller's.
        unsafe { _mm512_stream_si512(out.add(i * stride).cast(), row) };
    }
}

/// Transposes 16 x 16 words: pairs of rows, then of pairs, within quarters of a vector, then the quarters.
///
/// # Safety
/// AVX-512.
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn transposed(rows: Tile) -> Tile {
    // SAFETY: the caller's.
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
        // quads[4 i + j]: in quarter q, column 4 q + j of rows 4 i to 4 i + 3
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
