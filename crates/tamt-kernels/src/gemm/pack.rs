//! Packing of the operands of a matrix product into panels, masked on the way.

use half::bf16;
use rayon::prelude::*;
use std::ops::Range;

use crate::base::buffer::with_buffer;
use crate::base::dispatch::kernel;
use crate::base::precision::Precision;
use crate::base::values::{Values, round_in_place, widen};
use crate::gemm::layout::{Side, TILE};
use crate::gemm::operand::{Operand, Order, SourceRows};
use crate::gemm::panels::{Panels, SharedPanels};
use crate::gemm::transpose::transpose;
use crate::masks::bits::{copy_masked_inline, copy_masked_row, mask_row};

impl SharedPanels<'_> {
    /// The sixteen words in panels of tiles that begin with a lane, of a left operand, and a step of the depth: of a left one
    /// further steps of the lane, of a right one the same two steps of further lanes. There is a line.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(crate) fn line(&self, lane: usize, step: usize) -> *mut f32 {
        const STEPS: usize = 2 * crate::gemm::layout::BF16_BLOCK_WORDS;
        let words = |steps: usize| steps.div_ceil(2).next_multiple_of(TILE);
        let begin = step / STEPS * STEPS;
        let block = words(self.depth.min(begin + STEPS) - begin);
        let padded = self.lanes.next_multiple_of(TILE);
        let (width, word) = match self.side {
            Side::Left => (TILE, (step - begin) / 2 / TILE * TILE * TILE + lane % TILE * TILE),
            Side::Right => {
                let first = lane / (2 * TILE) * 2 * TILE;
                (2 * TILE, (step - begin) / 2 * (2 * TILE).min(padded - first) + lane - first)
            }
        };
        let line = begin / 2 * padded + lane / width * width * block + word;
        let _ = self.panels.pointer(line + TILE);
        self.panels.pointer(line)
    }

    /// Packs a block, all of `operand`, into its place. Lanes begin with a panel and steps with a word, and both end so or where
    /// the operand ends.
    ///
    /// # Safety
    /// No other block that overlaps this one is being packed.
    #[allow(unsafe_code)]
    pub(crate) unsafe fn pack(&self, operand: &Operand<'_>, lanes: Range<usize>, steps: Range<usize>) {
        let Self { side, precision, .. } = *self;
        let (width, padded) = (side.width(precision), side.padded(self.lanes, precision));
        let mut from = steps.start;
        while from < steps.end {
            let begin = from / precision.depth_block() * precision.depth_block();
            let end = self.depth.min(begin + precision.depth_block());
            let to = end.min(steps.end);
            let words = precision.words(end - begin);
            for first in lanes.clone().step_by(width) {
                let panel = width.min(side.padded(lanes.end - first, precision));
                let at = precision.words(begin) * padded + first * words + precision.words(from - begin) * panel;
                let some = first - lanes.start..(first + width).min(lanes.end) - lanes.start;
                let len = Panels::len_in(precision, side, some.len(), to - from);
                // SAFETY: the caller's.
                let out = unsafe { self.panels.part(at..at + len) };
                Panels::pack(side, operand, some, from - steps.start..to - steps.start, out);
            }
            from = to;
        }
    }
}

/// Lanes that one job packs, about; a multiple of every width.
pub(crate) const PACK_LANES: usize = 96;

impl<'a> Panels<'a> {
    /// Floats that `lanes` of `depth` steps take in f32.
    pub(crate) fn len(side: Side, lanes: usize, depth: usize) -> usize {
        Self::len_in(Precision::F32, side, lanes, depth)
    }

    /// Words that `lanes` of `depth` steps take.
    pub(crate) fn len_in(precision: Precision, side: Side, lanes: usize, depth: usize) -> usize {
        side.padded(lanes, precision) * precision.words(depth)
    }

    /// Panels that were packed into a buffer before, `lanes` of `depth` steps at its beginning.
    pub(crate) fn of(precision: Precision, side: Side, lanes: usize, depth: usize, data: &'a [f32]) -> Self {
        let padded = side.padded(lanes, precision);
        Self { data: &data[..padded * precision.words(depth)], side, padded, depth, precision }
    }

    /// Packs lanes and steps of an operand on this thread into a buffer of [`Panels::len_in`] words. With a mask, `lanes`
    /// and `depth` begin at multiples of 8.
    pub(crate) fn pack(
        side: Side,
        operand: &Operand<'_>,
        lanes: Range<usize>,
        depth: Range<usize>,
        out: &'a mut [f32],
    ) -> Self {
        let precision = operand.precision;
        let padded = side.padded(lanes.len(), precision);
        assert_eq!(out.len(), padded * precision.words(depth.len()), "a buffer of the panels' size");
        for (block, out) in out.chunks_mut((padded * precision.block_words()).max(1)).enumerate() {
            let from = depth.start + block * precision.depth_block();
            operand.pack(side, lanes.clone(), from..depth.end.min(from + precision.depth_block()), out);
        }
        Self { data: out, side, padded, depth: depth.len(), precision }
    }

    /// [`Panels::pack`] on the current pool.
    pub(crate) fn pack_parallel(
        side: Side,
        operand: &Operand<'_>,
        lanes: Range<usize>,
        depth: usize,
        out: &'a mut [f32],
    ) -> Self {
        let precision = operand.precision;
        let padded = side.padded(lanes.len(), precision);
        assert_eq!(out.len(), padded * precision.words(depth), "a buffer of the panels' size");
        out.par_chunks_mut((padded * precision.block_words()).max(1)).enumerate().for_each(|(block, out)| {
            let from = block * precision.depth_block();
            let steps = from..depth.min(from + precision.depth_block());
            let words = precision.words(steps.len());
            out.par_chunks_mut((PACK_LANES * words).max(1)).enumerate().for_each(|(job, out)| {
                let first = lanes.start + job * PACK_LANES;
                operand.pack(side, first..lanes.end.min(first + PACK_LANES), steps.clone(), out);
            });
        });
        Self { data: out, side, padded, depth, precision }
    }

    /// What the elements were rounded to.
    pub(crate) fn precision(&self) -> Precision {
        self.precision
    }

    /// Steps of the depth.
    pub(crate) fn depth(&self) -> usize {
        self.depth
    }

    /// The panels from lane `lane` on, for the steps `block`; `lane` begins a panel, `block` is a depth block.
    #[inline]
    pub(crate) fn panels_at(&self, lane: usize, block: &Range<usize>) -> &'a [f32] {
        debug_assert!(lane.is_multiple_of(self.side.width(self.precision)), "a panel begins here");
        let [start, end, len] = [block.start, block.end, block.len()].map(|steps| self.precision.words(steps));
        &self.data[start * self.padded + lane * len..end * self.padded]
    }
}

impl<'a> Operand<'a> {
    pub(crate) fn new(data: impl Into<Values<'a>>, stride: usize, order: Order) -> Self {
        Self { data: data.into(), stride, order, mask: None, precision: Precision::F32, non_temporal: false }
    }

    /// Packs panels: `out` is `[panels][words of the depth][width]`, padded with zeros.
    fn pack(&self, side: Side, lanes: Range<usize>, depth: Range<usize>, out: &mut [f32]) {
        #[cfg(target_arch = "x86_64")]
        if self.precision.packs_bf16() {
            // SAFETY: where tiles are chosen there is AVX-512-BF16.
            #[allow(unsafe_code)]
            return unsafe { crate::gemm::bf16::pack::pack(self, side, lanes, depth, out) };
        }
        if self.precision == Precision::Bf16 {
            return self.pack_rounded(side, lanes, depth, out);
        }
        let data = match self.data {
            Values::F32(data) => data,
            Values::Bf16(data) => return self.pack_widened(data, side, lanes, depth, out),
        };
        let steps = depth.len();
        debug_assert_eq!(out.len(), side.padded(lanes.len(), self.precision) * steps, "whole panels");
        debug_assert!(self.mask.is_none() || side == Side::Right, "left panels do not begin at whole bytes of a mask");
        if self.order == Order::DepthRows {
            return self.pack_depth_rows(data, side, lanes, depth, out);
        }
        let whole = side.width(self.precision);
        for first in (0..lanes.len()).step_by(whole) {
            let lanes = lanes.start + first..lanes.end.min(lanes.start + first + whole);
            let width = side.padded(lanes.len(), self.precision);
            self.pack_lane_rows(data, lanes, depth.clone(), width, &mut out[first * steps..][..width * steps]);
        }
    }

    /// Packs floats and rounds them.
    fn pack_rounded(&self, side: Side, lanes: Range<usize>, depth: Range<usize>, out: &mut [f32]) {
        Operand { precision: Precision::F32, ..*self }.pack(side, lanes, depth, out);
        if let Values::F32(_) = self.data {
            round_in_place(out);
        }
    }

    /// Packs in f32 what is kept in bf16: widened and masked first, some lanes at a time, which the nearer caches hold.
    fn pack_widened(&self, data: &[bf16], side: Side, lanes: Range<usize>, depth: Range<usize>, out: &mut [f32]) {
        let some = LANES_TO_WIDEN.next_multiple_of(side.width(self.precision));
        for first in (0..lanes.len()).step_by(some) {
            let lanes = lanes.start + first..lanes.end.min(lanes.start + first + some);
            let out = &mut out[first * depth.len()..][..side.padded(lanes.len(), self.precision) * depth.len()];
            let (rows, cols) = if self.order == Order::LaneRows { (&lanes, &depth) } else { (&depth, &lanes) };
            with_buffer(rows.len() * cols.len(), |floats| {
                for (row, floats) in rows.clone().zip(floats.chunks_exact_mut(cols.len().max(1))) {
                    widen(&data[row * self.stride + cols.start..][..cols.len()], floats);
                    if let Some(mask) = self.mask {
                        mask_row(&mask.row(row)[cols.start / 8..], floats);
                    }
                }
                let floats = Operand { data: Values::F32(floats), stride: cols.len(), mask: None, ..*self };
                floats.pack(side, 0..lanes.len(), 0..depth.len(), out);
            });
        }
    }

    fn pack_depth_rows(&self, data: &[f32], side: Side, lanes: Range<usize>, depth: Range<usize>, out: &mut [f32]) {
        let (steps, width) = (depth.len(), side.width(self.precision));
        let (whole, rest) = (lanes.len() / width * width, lanes.len() % width);
        // SourceRows are read a few at a time over all panels: panel by panel, each would take a few floats of every row's
        // cache line, and the next panel would prefetch the lines again.
        for done in (0..steps).step_by(STEPS_AT_ONCE) {
            let portion = done..steps.min(done + STEPS_AT_ONCE);
            let from = self.rows_from(data, depth.start + done, lanes.start);
            copy_panels(from, whole, width, steps, portion.clone(), out);
            if rest == 0 {
                continue;
            }
            let narrow = side.padded(rest, self.precision);
            let out = &mut out[whole * steps..][portion.start * narrow..portion.end * narrow];
            for (k, out) in out.chunks_exact_mut(narrow).enumerate() {
                let row = &from.data[k * from.stride + whole..][..rest];
                match from.bits {
                    None => out[..rest].copy_from_slice(row),
                    Some((bits, stride)) => copy_masked_row(&bits[k * stride + whole / 8..], row, &mut out[..rest]),
                }
                out[rest..].fill(0.0);
            }
        }
    }

    /// The data from an element on; with a mask, `col` is a multiple of 8.
    pub(crate) fn rows_from<'b, T>(&self, data: &'b [T], row: usize, col: usize) -> SourceRows<'b, T>
    where
        'a: 'b,
    {
        let bits = self.mask.map(|mask| {
            assert!(col.is_multiple_of(8), "a part that begins with a byte of the mask");
            (&mask.as_bytes()[row * mask.row_bytes() + col / 8..], mask.row_bytes())
        });
        SourceRows { data: &data[row * self.stride + col..], stride: self.stride, bits }
    }

    fn pack_lane_rows(&self, data: &[f32], lanes: Range<usize>, depth: Range<usize>, width: usize, out: &mut [f32]) {
        let steps = depth.len();
        let Some(mask) = self.mask else {
            let rows = &data[lanes.start * self.stride + depth.start..];
            return transpose(rows, self.stride, lanes.len(), steps, out, width);
        };
        with_buffer(lanes.len() * steps, |masked| {
            for (lane, masked) in lanes.clone().zip(masked.chunks_exact_mut(steps)) {
                let row = &data[lane * self.stride + depth.start..][..steps];
                copy_masked_row(&mask.row(lane)[depth.start / 8..], row, masked);
            }
            transpose(masked, steps, lanes.len(), steps, out, width);
        });
    }
}

/// Lanes of a matrix in bf16 that are widened before they are packed, about.
const LANES_TO_WIDEN: usize = 48;

/// Steps of the depth that are packed for all panels before the next ones.
const STEPS_AT_ONCE: usize = 16;

kernel! {
    /// Steps `portion` of the panels of `width` lanes, `lanes` in all: `out` is `[panels][steps][width]`.
    fn copy_panels<FMA>(from: SourceRows<'_>, lanes: usize, width: usize, steps: usize, portion: Range<usize>, out: &mut [f32]) {
        // the widths of the register tiles: a copy of known size is a few moves
        match width {
            4 => copy_panels_of::<4>(from, lanes, steps, portion, out),
            6 => copy_panels_of::<6>(from, lanes, steps, portion, out),
            8 => copy_panels_of::<8>(from, lanes, steps, portion, out),
            16 => copy_panels_of::<16>(from, lanes, steps, portion, out),
            48 => copy_panels_of::<48>(from, lanes, steps, portion, out),
            _ => unreachable!("no register tile is {width} wide"),
        }
    }
}

#[inline(always)]
fn copy_panels_of<const W: usize>(
    from: SourceRows<'_>,
    lanes: usize,
    steps: usize,
    portion: Range<usize>,
    out: &mut [f32],
) {
    for lane in (0..lanes).step_by(W) {
        let out = &mut out[lane * steps..][portion.start * W..portion.end * W];
        for (k, out) in out.as_chunks_mut::<W>().0.iter_mut().enumerate() {
            let row: &[f32; W] = from.data[k * from.stride + lane..].first_chunk().expect("the matrix holds the rows");
            match from.bits {
                None => *out = *row,
                Some((bits, stride)) => copy_masked_inline(&bits[k * stride + lane / 8..], row, out),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::parallel::tests::same_for_any_pool;
    use crate::gemm::layout::DEPTH_BLOCK;
    use crate::reference::random;
    use crate::reference::random_mask;

    #[test]
    fn panels_hold_every_element_and_pad_with_zeros() {
        let shapes =
            [(1, 1), (20, 37), (48, 16), (50, 9), (7, 65), (3, 5), (63, 383), (300, 400), (5, 800), (0, 3), (3, 0)];
        for (lanes, depth) in shapes {
            for (side, order) in
                [Side::Left, Side::Right].into_iter().flat_map(|s| [(s, Order::LaneRows), (s, Order::DepthRows)])
            {
                let (rows, cols) =
                    if order == Order::LaneRows { (lanes + 8, depth + 8) } else { (depth + 8, lanes + 8) };
                let data = random(rows * cols, 1);
                let (mut halves, mut widened) = (vec![bf16::ZERO; data.len()], vec![0.0; data.len()]);
                crate::round(&data, &mut halves);
                widen(&halves, &mut widened);
                let mask = random_mask(rows, cols, 0.5);
                let sources = [(Values::from(&data), &data), (Values::from(halves.as_slice()), &widened)];
                let masks = [None, Some(&mask).filter(|_| side == Side::Right)];
                for ((source, data), mask) in sources.into_iter().flat_map(|source| masks.map(|mask| (source, mask))) {
                    let operand = Operand { mask, ..Operand::new(source, cols, order) };
                    let mut out = vec![9.0; Panels::len(side, lanes, depth)];
                    let panels = Panels::pack(side, &operand, 8..8 + lanes, 8..8 + depth, &mut out);
                    for lane in 0..side.padded(lanes, Precision::F32) {
                        let whole = side.width(Precision::F32);
                        let panel = lane / whole * whole;
                        let width = whole.min(side.padded(lanes, Precision::F32) - panel);
                        for step in 0..depth {
                            let from = step / DEPTH_BLOCK * DEPTH_BLOCK;
                            let block = from..depth.min(from + DEPTH_BLOCK);
                            let value = panels.panels_at(panel, &block)[(step - from) * width + lane - panel];
                            let (r, c) = match order {
                                Order::LaneRows => (8 + lane, 8 + step),
                                Order::DepthRows => (8 + step, 8 + lane),
                            };
                            let kept = lane < lanes && mask.is_none_or(|m| m.get(r, c));
                            let expected = if kept { data[r * cols + c] } else { 0.0 };
                            assert_eq!(value, expected, "{side:?} {order:?} {lanes}x{depth}: {lane}, {step}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn packing_is_the_same_on_any_number_of_threads() {
        let (lanes, depth) = (700, 801);
        let data = random(lanes * depth, 1);
        for (side, order) in [(Side::Left, Order::DepthRows), (Side::Right, Order::LaneRows)] {
            let stride = if order == Order::LaneRows { depth } else { lanes };
            let operand = Operand::new(&data, stride, order);
            let parallel = same_for_any_pool(|| {
                let mut out = vec![9.0; Panels::len(side, lanes, depth)];
                Panels::pack_parallel(side, &operand, 0..lanes, depth, &mut out);
                out
            });
            let mut alone = vec![9.0; parallel.len()];
            Panels::pack(side, &operand, 0..lanes, 0..depth, &mut alone);
            assert_eq!(parallel, alone);
        }
    }
}
