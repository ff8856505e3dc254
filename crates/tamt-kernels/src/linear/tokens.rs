//! Operands of weight gradients, packed by jobs that have some of the tokens each.
//!
//! `dW = dyᵀ x` sums over tokens. A job that makes rows of `dy` (and has those of `x` at hand) leaves them as the product reads
//! them while they are still in its core's caches; in bf16 that is half of what rows in f32 would be.

use std::ops::Range;

use half::bf16;
use rayon::prelude::*;

use super::{WeightGrad, Write, add_elements, bf16_weight_product, weight_product};
use crate::dispatch::kernel;
use crate::pack::{Operand, Order, Panels, Side, end_of_writes_past_caches};
use crate::parallel::{Buffer, Shared, reduction_chunk};
use crate::precision::Precision;
use crate::product::{Rhs, TILE, job_rows};

/// Which factor of a weight gradient an operand is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Factor {
    /// `dy`
    OutputGradient,
    /// `x`
    Input,
}

impl Factor {
    fn side(self) -> Side {
        match self {
            Self::OutputGradient => Side::Left,
            Self::Input => Side::Right,
        }
    }
}

/// `dy` or `x` of a weight gradient, `[T, width]`, packed a group of tokens at a time.
///
/// Groups begin where a word of panels (a token, by tiles 32) begins: what a group lacks to whole words is zero.
#[derive(Clone, Debug, Default)]
pub struct PackedTokens {
    panels: Buffer,
    width: usize,
    /// Tokens with the padding of all groups.
    steps: usize,
    precision: Precision,
    /// Of an output gradient by tiles the sums over some rows each: `[blocks of rows][sums_width]`.
    sums: Buffer,
    blocks: usize,
}

/// Columns of sums of so many, whole squares.
fn sums_width(width: usize) -> usize {
    width.next_multiple_of(2 * TILE)
}

/// Rows that are packed together: whole words in every precision.
const ROWS_AT_ONCE: usize = 2 * TILE;

/// A group's part of [`PackedTokens`].
#[derive(Debug)]
pub struct TokensPart<'a> {
    panels: SharedPanels<'a>,
    first: usize,
    tokens: usize,
    /// Sums over the rows of each of the group's blocks, if any are wanted.
    sums: Option<Shared<'a, f32>>,
}

impl PackedTokens {
    /// Begins an operand of groups with so many tokens each, and gives their parts, of unspecified content.
    pub fn parts(
        &mut self,
        factor: Factor,
        width: usize,
        groups: impl Iterator<Item = usize> + Clone,
        precision: Precision,
    ) -> Vec<TokensPart<'_>> {
        let padded = |tokens| precision.words(tokens) * precision.steps_in_word();
        (self.width, self.precision) = (width, precision);
        self.steps = groups.clone().map(padded).sum();
        let (side, depth) = (factor.side(), self.steps);
        let buffer = self.panels.get(Panels::len_in(precision, side, width, depth));
        let panels = SharedPanels { panels: Shared::new(buffer), side, lanes: width, depth, precision };
        let is_summed = factor == Factor::OutputGradient && precision.by_tiles();
        let blocks = |tokens: usize| if is_summed { tokens.div_ceil(job_rows(precision)) } else { 0 };
        self.blocks = groups.clone().map(blocks).sum();
        let sums = self.sums.get(self.blocks * sums_width(width));
        sums.fill(0.0);
        let (sums, mut first, mut first_sum) = (Shared::new(sums), 0, 0);
        let part = |tokens| {
            let own = first_sum..first_sum + blocks(tokens) * sums_width(width);
            first_sum = own.end;
            // SAFETY: each group has sums of its own.
            #[allow(unsafe_code)]
            let sums = is_summed.then(|| Shared::new(unsafe { sums.part(own) }));
            let part = TokensPart { panels, first, tokens, sums };
            first += padded(tokens);
            part
        };
        groups.map(part).collect()
    }

    fn panels(&self, factor: Factor) -> Panels<'_> {
        Panels::of(self.precision, factor.side(), self.width, self.steps, self.panels.as_slice())
    }
}

impl TokensPart<'_> {
    /// Packs all rows `[tokens, width]` of the group, once: sums over them are added up on the way.
    pub fn pack(&mut self, x: &[f32]) {
        let width = self.panels.lanes;
        assert_eq!(x.len(), self.tokens * width, "rows of the group's tokens");
        // SAFETY: the part is borrowed as a whole.
        #[allow(unsafe_code)]
        unsafe {
            self.pack_block(0, 0, x, width);
        }
    }

    /// Packs a block whose first row is the group's row `row`, and whose `cols` columns begin with `col`; both begin panels and
    /// words, and end so too or where the group ends.
    ///
    /// # Safety
    /// No other block that overlaps this one is being packed.
    #[allow(unsafe_code)]
    pub(super) unsafe fn pack_block(&self, row: usize, col: usize, block: &[f32], cols: usize) {
        assert!(
            row + block.len().checked_div(cols).unwrap_or(0) <= self.tokens && col + cols <= self.panels.lanes,
            "a block of the group"
        );
        // a few rows at a time for all panels, as memory likes to be read
        for (i, some) in block.chunks((ROWS_AT_ONCE * cols).max(1)).enumerate() {
            if self.sums.is_some() {
                // SAFETY: as below.
                let sums = unsafe { self.sums_of(row, col..col + cols) };
                some.chunks_exact(cols.max(1)).for_each(|row| add_elements(sums, row));
            }
            let precision = self.panels.precision;
            let operand = Operand { precision, past_caches: true, ..Operand::new(some, cols, Order::DepthRows) };
            let first = self.first + row + i * ROWS_AT_ONCE;
            // SAFETY: groups are disjoint, blocks of one by the caller's promise.
            unsafe { self.panels.pack(&operand, col..col + cols, first..first + some.len() / cols) };
        }
        end_of_writes_past_caches();
    }

    /// Sums over rows of columns, of the block of rows that a row of the group is in.
    ///
    /// # Safety
    /// Sums are wanted, and nobody else has these.
    #[allow(unsafe_code, clippy::mut_from_ref)]
    #[inline(always)]
    pub(super) unsafe fn sums_of(&self, row: usize, columns: Range<usize>) -> &mut [f32] {
        let SharedPanels { lanes, precision, .. } = self.panels;
        let first = row / job_rows(precision) * sums_width(lanes);
        // SAFETY: the caller's.
        unsafe { self.sums.expect("sums are wanted").part(first + columns.start..first + columns.end) }
    }

    /// [`SharedPanels::line`] of a token of the group.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(super) fn line(&self, lane: usize, token: usize) -> *mut f32 {
        self.panels.line(lane, self.first + token)
    }
}

/// Panels that several jobs write, each a block.
#[derive(Clone, Copy, Debug)]
pub(super) struct SharedPanels<'a> {
    pub(super) panels: Shared<'a, f32>,
    pub(super) side: Side,
    pub(super) lanes: usize,
    pub(super) depth: usize,
    pub(super) precision: Precision,
}

impl SharedPanels<'_> {
    /// The sixteen words in panels of tiles that begin with a lane, of a left operand, and a step of the depth: of a left one
    /// further steps of the lane, of a right one the same two steps of further lanes. There is a line.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(super) fn line(&self, lane: usize, step: usize) -> *mut f32 {
        const STEPS: usize = 2 * crate::tiles::BLOCK_WORDS;
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
    pub(super) unsafe fn pack(&self, operand: &Operand<'_>, lanes: Range<usize>, steps: Range<usize>) {
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

/// `dW = epilogue(dyᵀ x)`, `dw` `[rows, cols]`: `dy` was packed in rows of `rows`, `x` of `cols`, by the same groups.
pub fn weight_gradient(dy: &PackedTokens, x: &PackedTokens, epilogue: WeightGrad<'_>, dw: &mut [f32], mode: Write) {
    assert_factors(dy, x, epilogue, dw.len());
    let rhs = &mut Rhs::Packed(x.panels(Factor::Input));
    weight_product(x.width, 0..dy.width, dy.panels(Factor::OutputGradient), rhs, epilogue, dw, mode);
}

/// [`weight_gradient`], rounded.
pub fn weight_gradient_bf16(
    dy: &PackedTokens,
    x: &PackedTokens,
    epilogue: WeightGrad<'_>,
    dw: &mut [bf16],
    mode: Write,
) {
    assert_factors(dy, x, epilogue, dw.len());
    let rhs = &mut Rhs::Packed(x.panels(Factor::Input));
    bf16_weight_product((dy.width, x.width), dy.panels(Factor::OutputGradient), rhs, epilogue, dw, mode);
}

fn assert_factors(dy: &PackedTokens, x: &PackedTokens, epilogue: WeightGrad<'_>, len: usize) {
    assert_eq!((dy.steps, dy.precision), (x.steps, x.precision), "factors of the same tokens");
    epilogue.assert_shape(dy.width, x.width);
    assert_eq!(len, epilogue.len(dy.width, x.width), "weight gradient of the declared shape");
}

/// `db = Σ_t dy[t]`, of `dy` as it was packed (and rounded) or, by tiles, as it was before: `db` `[width]`.
pub fn bias_gradient(dy: &PackedTokens, db: &mut [f32], mode: Write) {
    assert_eq!(db.len(), dy.width, "a bias per output feature");
    if dy.precision.by_tiles() {
        if mode == Write::Store {
            db.fill(0.0);
        }
        let width = sums_width(dy.width);
        let sums = dy.sums.as_slice().chunks_exact(width.max(1)).take(dy.blocks);
        return sums.for_each(|sums| add_elements(db, &sums[..dy.width]));
    }
    let (panels, precision) = (dy.panels(Factor::OutputGradient), dy.precision);
    let width = Side::Left.width(precision);
    db.par_chunks_mut(width).enumerate().for_each(|(panel, db)| {
        // floats by the chunks of `backward_bias`, whose bits these are then
        let chunk = reduction_chunk(dy.steps, 32);
        let (mut sums, mut partial) = ([0.0; TILE], [0.0; TILE]);
        for from in (0..dy.steps).step_by(precision.depth_block()) {
            let block = from..dy.steps.min(from + precision.depth_block());
            let words = precision.words(block.len());
            let panel = &panels.panels_at(panel * width, &block)[..width * words];
            match precision.steps_in_word() {
                1 => {
                    for (step, values) in block.zip(panel.chunks_exact(width)) {
                        if step % chunk == 0 {
                            add_elements(&mut sums, &std::mem::take(&mut partial));
                        }
                        add_elements(&mut partial[..width], values);
                    }
                }
                _ => panel.chunks_exact(width).for_each(|words| add_pairs(words, &mut sums[..width])),
            }
        }
        add_elements(&mut sums, &partial);
        match mode {
            Write::Store => db.copy_from_slice(&sums[..db.len()]),
            Write::Add => add_elements(db, &sums[..db.len()]),
        }
    });
}

/// Both steps of a word.
#[inline(always)]
fn both_steps(word: f32) -> f32 {
    let bits = word.to_bits();
    f32::from_bits(bits << 16) + f32::from_bits(bits & 0xffff_0000)
}

kernel! {
    fn add_pairs<FMA>(words: &[f32], sums: &mut [f32]) {
        for (sum, &word) in sums.iter_mut().zip(words) {
            *sum += both_steps(word);
        }
    }
}
