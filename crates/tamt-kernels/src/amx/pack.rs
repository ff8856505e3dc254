//! Panels of bf16 for the tile registers, rounded and masked on the way by AVX-512-BF16.
//!
//! A left panel is `[blocks of 32 steps][16 lanes][16 words]`, a right one `[words][32 lanes]`, the last one 16 lanes wide
//! if those suffice; a word is two steps of the depth. Lanes and words are padded with zeros.

use std::arch::x86_64::{
    __m512, __m512bh, __m512i, _mm512_cvtne2ps_pbh, _mm512_loadu_ps, _mm512_maskz_loadu_ps, _mm512_permutexvar_epi16,
    _mm512_set_epi16, _mm512_setzero_ps, _mm512_setzero_si512, _mm512_shuffle_i32x4, _mm512_storeu_si512,
    _mm512_unpackhi_epi32, _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
};
use std::mem::transmute;
use std::ops::Range;

use super::{SQUARE, TILE_ROWS, TILE_WORDS};
use crate::pack::{Operand, Order, Side};

/// Steps of the depth in a block of tiles.
const STEPS: usize = 2 * TILE_WORDS;

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
    let padded = lanes.len().next_multiple_of(TILE_ROWS);
    let words = depth.len().div_ceil(2).next_multiple_of(TILE_WORDS);
    assert_eq!(out.len(), padded * words, "whole panels");
    let source = Source::new(operand, &lanes, &depth);
    let mut pack_tile = |lane: usize, block: usize| {
        // the panel that the lanes are in, its width, and where they begin in it
        let (panel, width, at) = match side {
            Side::Left => (lane, TILE_ROWS, 0),
            Side::Right => {
                let panel = lane / SQUARE * SQUARE;
                (panel, SQUARE.min(padded - panel), lane - panel)
            }
        };
        let tile = out[panel * words + block * TILE_WORDS * width + at..].as_mut_ptr();
        // SAFETY: the instruction set is the caller's promise; `out` was measured.
        unsafe {
            match (operand.order, side) {
                (Order::LaneRows, Side::Left) => store(source.along_depth(lane, block), tile, width),
                (Order::LaneRows, Side::Right) => store(transposed(source.along_depth(lane, block)), tile, width),
                (Order::DepthRows, Side::Left) => store(transposed(source.across(lane, block)), tile, width),
                (Order::DepthRows, Side::Right) => store(source.across(lane, block), tile, width),
            }
        }
    };
    // along the rows of the data, as memory likes to be read
    let (tiles, blocks) = (padded / TILE_ROWS, words / TILE_WORDS);
    for i in 0..tiles * blocks {
        match operand.order {
            Order::LaneRows => pack_tile(i / blocks * TILE_ROWS, i % blocks),
            Order::DepthRows => pack_tile(i % tiles * TILE_ROWS, i / tiles),
        }
    }
}

/// The part of an operand that is packed: element (row, column) at `row * stride + column` of `data`.
struct Source<'a> {
    data: &'a [f32],
    stride: usize,
    rows: usize,
    cols: usize,
    /// The bits of the mask from the part's first element on, and the bytes of a row.
    bits: Option<(&'a [u8], usize)>,
}

/// Sixteen words of sixteen lanes.
type Tile = [__m512i; TILE_ROWS];

// What follows is compiled into `pack`, whose instructions it may use: a call would pass tiles through memory. Hence loops,
// and no closures that an adapter calls.
#[allow(unsafe_code)]
impl<'a> Source<'a> {
    fn new(operand: &Operand<'a>, lanes: &Range<usize>, depth: &Range<usize>) -> Self {
        let (rows, cols) = if operand.order == Order::LaneRows { (lanes, depth) } else { (depth, lanes) };
        let first = rows.start * operand.stride + cols.start;
        let empty = rows.is_empty() || cols.is_empty();
        assert!(
            empty || operand.data.len() >= first + (rows.len() - 1) * operand.stride + cols.len(),
            "the operand holds the part"
        );
        let bits = operand.mask.filter(|_| !empty).map(|mask| {
            assert!(cols.start.is_multiple_of(8), "a part that begins with a byte of the mask");
            (&mask.as_bytes()[rows.start * mask.row_bytes() + cols.start / 8..], mask.row_bytes())
        });
        let data = if empty { &[] } else { &operand.data[first..] };
        Self { data, stride: operand.stride, rows: rows.len(), cols: cols.len(), bits }
    }

    /// Sixteen elements of a row from a column on, a multiple of 8; zeros where the mask drops them or where there is no
    /// element. `WHOLE`: all are there, and no mask.
    #[inline(always)]
    unsafe fn load<const WHOLE: bool>(&self, row: usize, col: usize) -> __m512 {
        // SAFETY of all: the caller's instruction set; only elements of the row are read.
        let start = self.data.as_ptr().wrapping_add(row * self.stride + col);
        if WHOLE {
            return unsafe { _mm512_loadu_ps(start) };
        }
        if row >= self.rows || col >= self.cols {
            return unsafe { _mm512_setzero_ps() };
        }
        let mut kept = u16::MAX >> (16 - (self.cols - col).min(16));
        if let Some((bits, stride)) = self.bits {
            let at = row * stride + col / 8;
            // of a row's last byte there may be no next one; its bits are beyond the columns
            kept &= match bits.get(at..at + 2) {
                Some(two) => u16::from_le_bytes([two[0], two[1]]),
                None => u16::from(bits[at]),
            };
        }
        unsafe { _mm512_maskz_loadu_ps(kept, start) }
    }

    /// Whether [`Source::load`] may take this many rows and columns for whole.
    fn is_whole(&self, row: usize, rows: usize, col: usize, cols: usize) -> bool {
        self.bits.is_none() && row + rows <= self.rows && col + cols <= self.cols
    }

    /// Of sixteen rows that are lanes the words of a block: `[lane][word]`.
    #[inline(always)]
    unsafe fn along_depth(&self, lane: usize, block: usize) -> Tile {
        let step = block * STEPS;
        unsafe {
            match self.is_whole(lane, TILE_ROWS, step, STEPS) {
                true => self.rows_of_lanes::<true>(lane, step),
                false => self.rows_of_lanes::<false>(lane, step),
            }
        }
    }

    #[inline(always)]
    unsafe fn rows_of_lanes<const WHOLE: bool>(&self, lane: usize, step: usize) -> Tile {
        unsafe {
            let mut tile = [_mm512_setzero_si512(); TILE_ROWS];
            for (i, row) in tile.iter_mut().enumerate() {
                *row = rounded(self.load::<WHOLE>(lane + i, step), self.load::<WHOLE>(lane + i, step + TILE_ROWS));
            }
            tile
        }
    }

    /// Of 32 rows that are steps of the depth the words of sixteen lanes: `[word][lane]`.
    #[inline(always)]
    unsafe fn across(&self, lane: usize, block: usize) -> Tile {
        let step = block * STEPS;
        unsafe {
            match self.is_whole(step, STEPS, lane, TILE_ROWS) {
                true => self.rows_of_steps::<true>(lane, step),
                false => self.rows_of_steps::<false>(lane, step),
            }
        }
    }

    #[inline(always)]
    unsafe fn rows_of_steps<const WHOLE: bool>(&self, lane: usize, step: usize) -> Tile {
        unsafe {
            let mut tile = [_mm512_setzero_si512(); TILE_WORDS];
            for (i, words) in tile.iter_mut().enumerate() {
                let step = step + 2 * i;
                *words = interleaved(rounded(self.load::<WHOLE>(step, lane), self.load::<WHOLE>(step + 1, lane)));
            }
            tile
        }
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
