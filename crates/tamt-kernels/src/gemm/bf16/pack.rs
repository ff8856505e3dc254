//! Panels of tiles in bf16, round_pair and masked on the way by AVX-512-BF16.
//!
//! A left panel is `[blocks of 32 steps][16 lanes][16 words]`, a right one `[words][32 lanes]`, the last one 16 lanes wide
//! if those suffice; a word is two steps of the depth. Lanes and words are padded with zeros.

use half::bf16;
use std::arch::x86_64::{
    __m512, __m512i, _MM_HINT_T0, _mm_prefetch, _mm256_maskz_loadu_epi16, _mm512_castsi256_si512, _mm512_inserti64x4,
    _mm512_maskz_loadu_epi16, _mm512_maskz_loadu_ps, _mm512_setzero_si512, _mm512_storeu_si512, _mm512_stream_si512,
};
use std::ops::Range;

use crate::base::values::Values;
use crate::gemm::bf16::round::{interleaved, round_pair};
use crate::gemm::layout::{OUTPUT_TILE, Side, TILE};
use crate::gemm::operand::{Operand, Order, SourceRows};
use crate::gemm::transpose_avx512::{Tile, transposed};
use crate::masks::bits::first_bits;

/// Steps of the depth in a block of tiles.
pub(crate) const STEPS: usize = 2 * TILE;

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
    match operand.data {
        // SAFETY: the caller's.
        Values::F32(data) => unsafe { pack_from(data, operand, side, lanes, depth, out) },
        Values::Bf16(data) => unsafe { pack_from(data, operand, side, lanes, depth, out) },
    }
}

/// [`pack`] of an operand with these elements.
///
/// # Safety
/// As for [`pack`].
#[inline]
#[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
#[allow(unsafe_code)]
unsafe fn pack_from<T: Element>(
    data: &[T],
    operand: &Operand<'_>,
    side: Side,
    lanes: Range<usize>,
    depth: Range<usize>,
    out: &mut [f32],
) {
    let padded = lanes.len().next_multiple_of(TILE);
    let words = depth.len().div_ceil(2).next_multiple_of(TILE);
    assert_eq!(out.len(), padded * words, "whole panels");
    if out.is_empty() {
        return;
    }
    let source = Source::new(data, operand, &lanes, &depth);
    // a left panel's rows are lanes, a right one's words
    let transpose = (operand.order == Order::LaneRows) == (side == Side::Right);
    let mut pack_tile = |lane: usize, block: usize| {
        // the panel that the lanes are in, its width, and where they begin in it
        let (panel, width, at) = match side {
            Side::Left => (lane, TILE, 0),
            Side::Right => {
                let panel = lane / OUTPUT_TILE * OUTPUT_TILE;
                (panel, OUTPUT_TILE.min(padded - panel), lane - panel)
            }
        };
        let out = out[panel * words + block * TILE * width + at..].as_mut_ptr();
        // SAFETY: the instruction set is the caller's promise; `out` was measured.
        unsafe {
            let tile = source.tile(lane, block * STEPS);
            let tile = if transpose { transposed(tile) } else { tile };
            if operand.non_temporal { stream(tile, out, width) } else { store(tile, out, width) }
        }
    };
    // along the rows of the data, as memory likes to be read
    let (tiles, blocks) = (padded / TILE, words / TILE);
    for i in 0..tiles * blocks {
        match operand.order {
            Order::LaneRows => pack_tile(i / blocks * TILE, i % blocks),
            Order::DepthRows => pack_tile(i % tiles * TILE, i / tiles),
        }
    }
}

/// The part of an operand that is packed.
struct Source<'a, T> {
    from: SourceRows<'a, T>,
    order: Order,
    rows: usize,
    cols: usize,
}

/// Elements of a row from those that a tile reads to those that are fetched meanwhile.
const FETCHED_AHEAD: usize = 128;

// What follows is compiled into `pack`, whose instructions it may use: a call would pass tiles through memory. Hence loops,
// and no closures that an adapter calls.

/// What is there of a tile's elements.
type Part = u8;

/// All of them.
const WHOLE: Part = 0;

/// All of them, of which a mask drops some.
const MASKED: Part = 1;

/// Some of them, of which a mask may drop some.
const RAGGED: Part = 2;

/// What an operand is made of. Elements of a part that its mask drops, or that are not there, are zeros.
#[allow(unsafe_code)]
trait Element: Copy {
    /// 32 steps of a lane, from column `col` on, a multiple of 8.
    ///
    /// # Safety
    /// As for [`pack`].
    unsafe fn steps<const PART: Part>(source: &Source<'_, Self>, lane: usize, col: usize) -> __m512i;

    /// Sixteen lanes of two steps, those of one behind those of the other.
    ///
    /// # Safety
    /// As for [`pack`].
    unsafe fn two_steps<const PART: Part>(source: &Source<'_, Self>, step: usize, col: usize) -> __m512i;
}

#[allow(unsafe_code)]
impl Element for f32 {
    #[inline(always)]
    unsafe fn steps<const PART: Part>(source: &Source<'_, Self>, lane: usize, col: usize) -> __m512i {
        // SAFETY: the caller's.
        unsafe { round_pair(source.load::<PART>(lane, col), source.load::<PART>(lane, col + TILE)) }
    }

    #[inline(always)]
    unsafe fn two_steps<const PART: Part>(source: &Source<'_, Self>, step: usize, col: usize) -> __m512i {
        // SAFETY: the caller's.
        unsafe { round_pair(source.load::<PART>(step, col), source.load::<PART>(step + 1, col)) }
    }
}

#[allow(unsafe_code)]
impl Element for bf16 {
    #[inline(always)]
    unsafe fn steps<const PART: Part>(source: &Source<'_, Self>, lane: usize, col: usize) -> __m512i {
        let kept = source.kept::<PART, STEPS>(lane, col);
        // SAFETY: the instructions are the caller's promise; only elements of the row are read.
        unsafe { _mm512_maskz_loadu_epi16(kept, source.at(lane, col).cast()) }
    }

    #[inline(always)]
    unsafe fn two_steps<const PART: Part>(source: &Source<'_, Self>, step: usize, col: usize) -> __m512i {
        // SAFETY: as above.
        unsafe {
            let kept = |step| source.kept::<PART, TILE>(step, col) as u16;
            let low = _mm256_maskz_loadu_epi16(kept(step), source.at(step, col).cast());
            let high = _mm256_maskz_loadu_epi16(kept(step + 1), source.at(step + 1, col).cast());
            _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
        }
    }
}

#[allow(unsafe_code)]
impl<'a, T: Element> Source<'a, T> {
    /// Lanes and steps of an operand with these elements, neither of them empty.
    fn new(data: &'a [T], operand: &Operand<'a>, lanes: &Range<usize>, depth: &Range<usize>) -> Self {
        let (rows, cols) = if operand.order == Order::LaneRows { (lanes, depth) } else { (depth, lanes) };
        let from = operand.rows_from(data, rows.start, cols.start);
        assert!(from.data.len() >= (rows.len() - 1) * from.stride + cols.len(), "the operand holds the part");
        Self { from, order: operand.order, rows: rows.len(), cols: cols.len() }
    }

    /// Sixteen lanes and 32 steps: `[lane][word]` where rows are lanes, `[word][lane]` where they are steps.
    #[inline(always)]
    unsafe fn tile(&self, lane: usize, step: usize) -> Tile {
        let (row, rows, col, cols) = match self.order {
            Order::LaneRows => (lane, TILE, step, STEPS),
            Order::DepthRows => (step, STEPS, lane, TILE),
        };
        // SAFETY: the caller's instruction set.
        unsafe {
            match (row + rows <= self.rows && col + cols <= self.cols, self.from.bits) {
                (true, None) => self.tile_at::<WHOLE>(row, col),
                (true, Some(_)) => self.tile_at::<MASKED>(row, col),
                (false, _) => self.tile_at::<RAGGED>(row, col),
            }
        }
    }

    #[inline(always)]
    unsafe fn tile_at<const PART: Part>(&self, row: usize, col: usize) -> Tile {
        // SAFETY: as for `tile`.
        unsafe {
            let mut tile = [_mm512_setzero_si512(); TILE];
            for (i, words) in tile.iter_mut().enumerate() {
                if PART == MASKED {
                    self.prefetch(row, i, col);
                }
                *words = match self.order {
                    Order::LaneRows => T::steps::<PART>(self, row + i, col),
                    Order::DepthRows => interleaved(T::two_steps::<PART>(self, row + 2 * i, col)),
                };
            }
            tile
        }
    }

    /// Fetches what one of the next tiles reads for word or lane `i`: masked operands are weights, which lie far away, and of each
    /// row a tile reads too little for the processor to see what comes next.
    #[inline(always)]
    unsafe fn prefetch(&self, row: usize, i: usize, col: usize) {
        // SAFETY: nothing is read but ahead of time.
        unsafe {
            let ahead = col + FETCHED_AHEAD;
            match self.order {
                Order::LaneRows => {
                    _mm_prefetch::<_MM_HINT_T0>(self.at(row + i, ahead).cast());
                    _mm_prefetch::<_MM_HINT_T0>(self.at(row + i, ahead + TILE).cast());
                }
                Order::DepthRows => {
                    _mm_prefetch::<_MM_HINT_T0>(self.at(row + 2 * i, ahead).cast());
                    _mm_prefetch::<_MM_HINT_T0>(self.at(row + 2 * i + 1, ahead).cast());
                }
            }
        }
    }

    /// Where an element lies, if it is there.
    #[inline(always)]
    fn at(&self, row: usize, col: usize) -> *const T {
        self.from.data.as_ptr().wrapping_add(row * self.from.stride + col)
    }

    /// Which of `N` elements of a row from a column on, a multiple of 8, are there and kept by the mask, the first in the lowest bit.
    #[inline(always)]
    fn kept<const PART: Part, const N: usize>(&self, row: usize, col: usize) -> u32 {
        match (PART, self.from.bits) {
            (WHOLE, _) => return u32::MAX,
            (MASKED, Some((bits, stride))) => {
                let bytes = &bits[row * stride + col / 8..][..N / 8];
                return bytes.iter().rev().fold(0, |kept, byte| kept << 8 | u32::from(*byte));
            }
            _ if row >= self.rows || col >= self.cols => return 0,
            _ => {}
        }
        let kept = u32::MAX >> (32 - (self.cols - col).min(N));
        let Some((bits, stride)) = self.from.bits else { return kept };
        // where the mask ends, bits beyond it are beyond the columns
        kept & first_bits(&bits[row * stride + col / 8..])
    }
}

#[allow(unsafe_code)]
impl Source<'_, f32> {
    /// Sixteen elements of a row.
    #[inline(always)]
    unsafe fn load<const PART: Part>(&self, row: usize, col: usize) -> __m512 {
        let kept = self.kept::<PART, TILE>(row, col) as u16;
        // SAFETY: the caller's instruction set; only elements of the row are read.
        unsafe { _mm512_maskz_loadu_ps(kept, self.at(row, col)) }
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
