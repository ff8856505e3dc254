//! Packing of bf16 panels by AVX-512-BF16, which rounds, and applies the mask.
//!
//! The unit of work is a tile of 16 lanes by 16 words, in 16 vectors. Whether a tile is transposed depends on the order
//! of the operand and the layout of the panel (see [`crate::gemm::layout`]).
//!
//! All functions below [`pack`] are inlined into it and compiled for its target features, because a call would pass
//! tiles through memory. Loops replace closures that an iterator adapter calls, for the same reason.

use half::bf16;
use std::arch::x86_64::*;
use std::ops::Range;

use crate::base::{Values, Word};
use crate::gemm::bf16::round::{interleaved, round_pair};
use crate::gemm::layout::{Side, TILE, line_in_panel, panel_offset, tile_panel, tile_words};
use crate::gemm::operand::{Operand, Order, SourceRows};
use crate::gemm::transpose_avx512::{Tile, transposed};
use crate::masks::first_bits;

/// Steps of the depth in a tile.
const STEPS: usize = 2 * TILE;

/// Packs lanes and steps of an operand as one depth block. With a mask, both begin at multiples of 8.
///
/// # Safety
/// The CPU has AVX-512 F, BW, DQ, VL and BF16.
#[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
pub(crate) unsafe fn pack(
    operand: &Operand<'_>,
    side: Side,
    lanes: Range<usize>,
    depth: Range<usize>,
    out: &mut [Word],
) {
    match operand.data {
        // SAFETY: the CPU has the instructions: `# Safety`.
        Values::F32(data) => unsafe { pack_from(data, operand, side, lanes, depth, out) },
        // SAFETY: as above.
        Values::Bf16(data) => unsafe { pack_from(data, operand, side, lanes, depth, out) },
    }
}

/// [`pack`] of an operand with the elements `data`.
///
/// # Safety
/// As [`pack`].
#[inline]
#[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn pack_from<T: Element>(
    data: &[T],
    operand: &Operand<'_>,
    side: Side,
    lanes: Range<usize>,
    depth: Range<usize>,
    out: &mut [Word],
) {
    let padded = lanes.len().next_multiple_of(TILE);
    let words = tile_words(depth.len());
    assert_eq!(out.len(), padded * words, "whole panels");
    if out.is_empty() {
        return;
    }
    let source = Source::new(data, operand, &lanes, &depth);
    // the lines of a panel of `A` are lanes, the lines of a panel of `B` are words
    let transpose = (operand.order == Order::LaneRows) == (side == Side::Right);
    let mut pack_tile = |lane: usize, block: usize| {
        let (panel, width) = tile_panel(side, padded, lane);
        let line = panel_offset(padded, 0, words, panel) + line_in_panel(side, width, lane - panel, block * TILE);
        let out = out[line..].as_mut_ptr();
        // SAFETY: the CPU has the instructions: `# Safety`. `out` holds whole panels, asserted above, and so the tile's
        // 16 lines of 16 words, `width` words apart; panels begin on cache lines.
        unsafe {
            let tile = source.tile(lane, block * STEPS);
            let tile = if transpose { transposed(tile) } else { tile };
            if operand.non_temporal { stream(tile, out, width) } else { store(tile, out, width) }
        }
    };
    // along the rows of the data, which are contiguous in memory
    let (tiles, blocks) = (padded / TILE, words / TILE);
    for i in 0..tiles * blocks {
        match operand.order {
            Order::LaneRows => pack_tile(i / blocks * TILE, i % blocks),
            Order::DepthRows => pack_tile(i % tiles * TILE, i / tiles),
        }
    }
}

/// The lanes and steps of an operand that are packed.
struct Source<'a, T> {
    from: SourceRows<'a, T>,
    order: Order,
    rows: usize,
    cols: usize,
}

/// Elements of a row between a tile and the prefetch.
const FETCHED_AHEAD: usize = 128;

/// Kind of a tile, a const parameter that selects the loads.
type Part = u8;

/// A tile inside an unmasked operand.
const WHOLE: Part = 0;

/// A tile inside a masked operand.
const MASKED: Part = 1;

/// A tile that exceeds the operand, masked or not.
const RAGGED: Part = 2;

/// The element type of an operand. Loads return 0 for elements that the mask drops and for elements beyond the operand.
trait Element: Copy {
    /// 32 steps of a lane from column `col` on, a multiple of 8, in bf16.
    ///
    /// # Safety
    /// As [`pack`], whose target features the caller has.
    unsafe fn steps<const PART: Part>(source: &Source<'_, Self>, lane: usize, col: usize) -> __m512i;

    /// Sixteen lanes of step `step`, then sixteen lanes of the next step, in bf16.
    ///
    /// # Safety
    /// As [`pack`], whose target features the caller has.
    unsafe fn two_steps<const PART: Part>(source: &Source<'_, Self>, step: usize, col: usize) -> __m512i;
}

impl Element for f32 {
    #[inline(always)]
    unsafe fn steps<const PART: Part>(source: &Source<'_, Self>, lane: usize, col: usize) -> __m512i {
        // SAFETY: the instructions by the `# Safety` contract of the trait.
        unsafe { round_pair(source.load::<PART>(lane, col), source.load::<PART>(lane, col + TILE)) }
    }

    #[inline(always)]
    unsafe fn two_steps<const PART: Part>(source: &Source<'_, Self>, step: usize, col: usize) -> __m512i {
        // SAFETY: the instructions by the `# Safety` contract of the trait.
        unsafe { round_pair(source.load::<PART>(step, col), source.load::<PART>(step + 1, col)) }
    }
}

impl Element for bf16 {
    #[inline(always)]
    unsafe fn steps<const PART: Part>(source: &Source<'_, Self>, lane: usize, col: usize) -> __m512i {
        let kept = source.kept::<PART, STEPS>(lane, col);
        // SAFETY: the instructions by the `# Safety` contract of the trait; `kept` masks the elements beyond the row.
        unsafe { _mm512_maskz_loadu_epi16(kept, source.at(lane, col).cast()) }
    }

    #[inline(always)]
    unsafe fn two_steps<const PART: Part>(source: &Source<'_, Self>, step: usize, col: usize) -> __m512i {
        // SAFETY: the instructions by the `# Safety` contract of the trait; `kept` masks the elements beyond the rows.
        unsafe {
            let kept = |step| source.kept::<PART, TILE>(step, col) as u16;
            let low = _mm256_maskz_loadu_epi16(kept(step), source.at(step, col).cast());
            let high = _mm256_maskz_loadu_epi16(kept(step + 1), source.at(step + 1, col).cast());
            _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
        }
    }
}

impl<'a, T: Element> Source<'a, T> {
    /// Lanes and steps of an operand with the elements `data`, neither range empty.
    fn new(data: &'a [T], operand: &Operand<'a>, lanes: &Range<usize>, depth: &Range<usize>) -> Self {
        let (rows, cols) = if operand.order == Order::LaneRows { (lanes, depth) } else { (depth, lanes) };
        let from = operand.rows_from(data, rows.start, cols.start);
        assert!(from.data.len() >= (rows.len() - 1) * from.stride + cols.len(), "the operand holds the part");
        Self { from, order: operand.order, rows: rows.len(), cols: cols.len() }
    }

    /// Sixteen lanes and 32 steps: `[lane][word]` if rows are lanes, `[word][lane]` if rows are steps.
    ///
    /// # Safety
    /// As [`pack`], whose target features the caller has.
    #[inline(always)]
    unsafe fn tile(&self, lane: usize, step: usize) -> Tile {
        let (row, rows, col, cols) = match self.order {
            Order::LaneRows => (lane, TILE, step, STEPS),
            Order::DepthRows => (step, STEPS, lane, TILE),
        };
        // SAFETY: the instructions by the `# Safety` contract; `PART` describes the tile, as `tile_at` requires.
        unsafe {
            match (row + rows <= self.rows && col + cols <= self.cols, self.from.bits) {
                (true, None) => self.tile_at::<WHOLE>(row, col),
                (true, Some(_)) => self.tile_at::<MASKED>(row, col),
                (false, _) => self.tile_at::<RAGGED>(row, col),
            }
        }
    }

    /// [`Source::tile`] from an element on.
    ///
    /// # Safety
    /// As [`Source::tile`], and the tile is of kind `PART`.
    #[inline(always)]
    unsafe fn tile_at<const PART: Part>(&self, row: usize, col: usize) -> Tile {
        // SAFETY: the instructions by the `# Safety` contract.
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

    /// Prefetches the elements of word or lane `i` of a later tile. Masked operands are weights, which come from
    /// memory, and a tile reads too little of each row for the hardware prefetcher.
    ///
    /// # Safety
    /// The CPU has SSE.
    #[inline(always)]
    unsafe fn prefetch(&self, row: usize, i: usize, col: usize) {
        // SAFETY: a prefetch never faults, whatever the address.
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

    /// Address of an element, which may lie beyond the operand.
    #[inline(always)]
    fn at(&self, row: usize, col: usize) -> *const T {
        self.from.data.as_ptr().wrapping_add(row * self.from.stride + col)
    }

    /// A lane mask of `N` elements of a row from column `col` on, a multiple of 8: 1 for elements inside the operand
    /// that its mask keeps, the first element in the lowest bit.
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
        // `first_bits` reads 0 beyond the mask's bytes, which cover all columns
        kept & first_bits(&bits[row * stride + col / 8..])
    }
}

impl Source<'_, f32> {
    /// Sixteen elements of a row.
    ///
    /// # Safety
    /// As [`pack`], whose target features the caller has.
    #[inline(always)]
    unsafe fn load<const PART: Part>(&self, row: usize, col: usize) -> __m512 {
        let kept = self.kept::<PART, TILE>(row, col) as u16;
        // SAFETY: the instructions by the `# Safety` contract; `kept` masks the elements beyond the row.
        unsafe { _mm512_maskz_loadu_ps(kept, self.at(row, col)) }
    }
}

/// Stores a tile, `stride` words from line to line.
///
/// # Safety
/// The CPU has AVX-512 F, and `out` is valid for writes of sixteen lines of sixteen words, `stride` apart.
#[inline(always)]
unsafe fn store(tile: Tile, out: *mut Word, stride: usize) {
    for (i, row) in tile.into_iter().enumerate() {
        // SAFETY: line `i < 16` of the `# Safety` contract.
        unsafe { _mm512_storeu_si512(out.add(i * stride).cast(), row) };
    }
}

/// [`store`] with a non-temporal hint.
///
/// # Safety
/// As [`store`], and `out` is aligned to 64 bytes and `stride` a multiple of 16.
#[inline(always)]
unsafe fn stream(tile: Tile, out: *mut Word, stride: usize) {
    for (i, row) in tile.into_iter().enumerate() {
        // SAFETY: line `i < 16` of the `# Safety` contract, on a cache line.
        unsafe { _mm512_stream_si512(out.add(i * stride).cast(), row) };
    }
}
