//! Packing of operands into panels. Packing applies the mask, so a masked matrix never exists in memory.

use half::bf16;
use rayon::prelude::*;
use std::ops::Range;

use crate::base::{Precision, Values, Word, kernel, round_in_place, widen, with_buffer};
use crate::gemm::layout::{Side, panel_offset};
use crate::gemm::operand::{Operand, Order, SourceRows};
use crate::gemm::panels::{Panels, SharedPanels};
use crate::gemm::transpose::transpose;
use crate::masks::{copy_masked_inline, copy_masked_row, mask_row};

/// Lanes of a packing job, a multiple of every panel width: 147 KB of a depth block in f32.
pub(crate) const PACK_LANES: usize = 96;

/// Lanes of a matrix in bf16 that are converted to f32 at a time before they are packed, rounded up to whole panels.
const LANES_TO_WIDEN: usize = 48;

/// Steps of the depth that are copied for all panels before the next steps.
const STEPS_AT_ONCE: usize = 16;

impl SharedPanels<'_> {
    /// Packs `operand` as the block of `lanes` and `steps`. Lanes begin with a panel and steps with a word (in bf16
    /// with a tile), and both end there too or at the end of the packed operand.
    ///
    /// # Safety
    /// No other thread reads or packs a block that overlaps this one.
    pub(crate) unsafe fn pack(&self, operand: &Operand<'_>, lanes: Range<usize>, steps: Range<usize>) {
        let Self { side, precision, .. } = *self;
        let (width, padded) = (side.width(precision), side.padded(self.lanes, precision));
        let mut from = steps.start;
        while from < steps.end {
            let begin = from / precision.depth_block() * precision.depth_block();
            let end = self.depth.min(begin + precision.depth_block());
            let to = end.min(steps.end);
            for first in lanes.clone().step_by(width) {
                let in_operand = first - lanes.start..(first + width).min(lanes.end) - lanes.start;
                let panel = panel_offset(padded, precision.words(begin), precision.words(end - begin), first);
                let panel_width = width.min(side.padded(lanes.end - first, precision));
                let at = panel + precision.words(from - begin) * panel_width;
                let len = Panels::len_in(precision, side, in_operand.len(), to - from);
                // SAFETY: the part is the block's steps `from..to` of one panel: the layout gives other blocks other
                // parts, and the `# Safety` contract excludes overlapping blocks.
                let out = unsafe { self.panels.part(at..at + len) };
                Panels::pack(side, operand, in_operand, from - steps.start..to - steps.start, out);
            }
            from = to;
        }
    }
}

impl<'a> Panels<'a> {
    /// Packs lanes and steps of an operand on this thread into a buffer of [`Panels::len_in`] words. With a mask,
    /// `lanes` and `depth` begin at multiples of 8.
    pub(crate) fn pack(
        side: Side,
        operand: &Operand<'_>,
        lanes: Range<usize>,
        depth: Range<usize>,
        out: &'a mut [Word],
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

    /// [`Panels::pack`] on the current pool, of the steps `0..depth`.
    pub(crate) fn pack_parallel(
        side: Side,
        operand: &Operand<'_>,
        lanes: Range<usize>,
        depth: usize,
        out: &'a mut [Word],
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
}

impl Operand<'_> {
    /// Packs the panels of one depth block, or of some of its steps, into `out`, padded with zeros.
    fn pack(&self, side: Side, lanes: Range<usize>, depth: Range<usize>, out: &mut [Word]) {
        #[cfg(target_arch = "x86_64")]
        if self.precision.packs_bf16() {
            // SAFETY: `packs_bf16` is true only if `cpu::bf16` detected AVX-512-BF16.
            return unsafe { crate::gemm::bf16::pack::pack(self, side, lanes, depth, out) };
        }
        self.pack_floats(side, lanes, depth, Word::floats_mut(out));
    }

    /// [`Operand::pack`] into panels of f32, rounded to the operand's precision.
    fn pack_floats(&self, side: Side, lanes: Range<usize>, depth: Range<usize>, out: &mut [f32]) {
        if self.precision == Precision::Bf16 {
            Operand { precision: Precision::F32, ..*self }.pack_floats(side, lanes, depth, out);
            if let Values::F32(_) = self.data {
                round_in_place(out);
            }
            return;
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

    /// Packs elements in bf16 as f32. A few lanes at a time are widened and masked in a buffer that L2 holds.
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
                floats.pack_floats(side, 0..lanes.len(), 0..depth.len(), out);
            });
        }
    }

    /// Packs rows of `data` that are steps of the depth: each row is copied, cut into panels.
    fn pack_depth_rows(&self, data: &[f32], side: Side, lanes: Range<usize>, depth: Range<usize>, out: &mut [f32]) {
        let (steps, width) = (depth.len(), side.width(self.precision));
        let (whole, rest) = (lanes.len() / width * width, lanes.len() % width);
        // All panels take a few rows before the next rows follow. In the order of panels, each panel would use a few
        // floats of every row's cache line, and the next panel would fetch the lines again.
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

    /// Packs rows of `data` that are lanes into one panel: a transposition, after the mask.
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

kernel! {
    /// Copies the steps `portion` of `lanes` lanes into panels of `width`: `out` is `[panels][steps][width]`.
    fn copy_panels<FMA>(from: SourceRows<'_>, lanes: usize, width: usize, steps: usize, portion: Range<usize>, out: &mut [f32]) {
        // one variant per width of a register tile: a copy of constant size compiles to a few moves
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

/// [`copy_panels`] for panels of `W` lanes.
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
    use crate::reference::{random, random_mask, unless_miri};

    #[test]
    fn panels_hold_every_element_and_pad_with_zeros() {
        let shapes = unless_miri(
            &[(1, 1), (20, 37), (48, 16), (50, 9), (7, 65), (3, 5), (63, 383), (300, 400), (5, 800), (0, 3), (3, 0)][..],
            &[(1, 1), (9, 5), (3, 17), (0, 3), (3, 0)],
        );
        for &(lanes, depth) in shapes {
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
                    let mut out = vec![Word::default(); Panels::len(side, lanes, depth)];
                    Word::floats_mut(&mut out).fill(9.0);
                    let panels = Panels::pack(side, &operand, 8..8 + lanes, 8..8 + depth, &mut out);
                    for lane in 0..side.padded(lanes, Precision::F32) {
                        let whole = side.width(Precision::F32);
                        let panel = lane / whole * whole;
                        let width = whole.min(side.padded(lanes, Precision::F32) - panel);
                        for step in 0..depth {
                            let from = step / DEPTH_BLOCK * DEPTH_BLOCK;
                            let block = from..depth.min(from + DEPTH_BLOCK);
                            let value =
                                Word::floats(panels.panels_at(panel, &block))[(step - from) * width + lane - panel];
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
        let (lanes, depth) = unless_miri((700, 801), (97, 2));
        let data = random(lanes * depth, 1);
        for (side, order) in [(Side::Left, Order::DepthRows), (Side::Right, Order::LaneRows)] {
            let stride = if order == Order::LaneRows { depth } else { lanes };
            let operand = Operand::new(&data, stride, order);
            let parallel = same_for_any_pool(|| {
                let mut out = vec![Word::default(); Panels::len(side, lanes, depth)];
                Word::floats_mut(&mut out).fill(9.0);
                Panels::pack_parallel(side, &operand, 0..lanes, depth, &mut out);
                out
            });
            let mut alone = vec![Word::default(); parallel.len()];
            Word::floats_mut(&mut alone).fill(9.0);
            Panels::pack(side, &operand, 0..lanes, 0..depth, &mut alone);
            assert_eq!(parallel, alone);
        }
    }
}
