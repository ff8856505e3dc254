//! Products by AMX with a software pipeline: the epilogue of one output tile runs on the vector units while the tile
//! registers multiply the next one.
//!
//! A buffer in L1 takes the sums of a finished output tile. The parts of its epilogue ([`Epilogue::part`]) are
//! interleaved with the tile products of the following output tile.

use std::ops::Range;

use crate::gemm::bf16::amx::{AmxConfigured, first_step, next_step, step, store_sums, zero_sums};
use crate::gemm::bf16::operands::{FETCHED, Operands};
use crate::gemm::epilogue::{Epilogue, OutputTile, TileSums};
use crate::gemm::layout::{OUTPUT_TILE, TILE};
use crate::gemm::panels::Panels;

/// Output tiles, one below the other, that take turns: each is multiplied by the same slice of `B`.
const CHUNK: usize = 4;

/// Tiles of the depth in a turn. The slice of `B` is 384 steps deep and has 24 KB, which stay in L1 together with the
/// sums, while `A` bypasses L1.
const DEPTH_TILES: usize = 12;

/// The product of rows `first_row..` of `lhs` and columns `first_col..` of `rhs`, an output tile at a time; `epilogue`
/// takes each.
///
/// # Safety
/// * The CPU has AMX-BF16 and AVX-512-BF16.
/// * `lhs` and `rhs` are bf16 panels of the same depth.
/// * The destination that `epilogue` writes for the block is writable, and no other thread accesses it.
#[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma,bmi2,popcnt")]
pub(crate) unsafe fn tile_product<F: Epilogue>(
    _registers: &AmxConfigured,
    (first_row, rows): (usize, usize),
    (first_col, cols): (usize, usize),
    lhs: Panels<'_>,
    rhs: Panels<'_>,
    epilogue: &mut F,
) {
    let (depth, precision) = (rhs.depth, rhs.precision);
    let mut buffers = [const { TileSums([[0.0; OUTPUT_TILE]; OUTPUT_TILE]) }; CHUNK];
    let buffers = buffers.as_mut_ptr();
    let mut pipeline = Pipeline { epilogue, block: (rows, cols), sums: buffers, finished: None };
    for col in (0..cols).step_by(OUTPUT_TILE) {
        let width = (cols - col).next_multiple_of(TILE).min(OUTPUT_TILE);
        for chunk in (0..rows).step_by(CHUNK * OUTPUT_TILE) {
            let chunk_rows = (chunk..rows.min(chunk + CHUNK * OUTPUT_TILE)).step_by(OUTPUT_TILE);
            // at least once, so that a product of depth 0 is zero
            for from in (0..depth.max(1)).step_by(precision.depth_block()) {
                let block = from..depth.min(from + precision.depth_block());
                let words = precision.words(block.len());
                let tiles = words / TILE;
                let right = &rhs.panels_at(first_col + col, &block)[..width * words];
                let turns = tiles.div_ceil(DEPTH_TILES).max(1);
                for turn in 0..turns {
                    let turn_tiles = turn * tiles / turns..(turn + 1) * tiles / turns;
                    let (is_first, is_last) = (from == 0 && turn == 0, block.end == depth && turn + 1 == turns);
                    for (index, row) in chunk_rows.clone().enumerate() {
                        let left_rows = (rows - row).min(OUTPUT_TILE).next_multiple_of(TILE);
                        let left = &lhs.panels_at(first_row + row, &block)[..left_rows * words];
                        let operands = Operands {
                            left: left.as_ptr(),
                            lower: if left_rows > TILE { TILE * words } else { 0 },
                            right: right.as_ptr(),
                            second: if width > TILE { TILE } else { 0 },
                            width,
                            next: right.as_ptr().wrapping_add(right.len() + row / OUTPUT_TILE * tiles * FETCHED),
                        };
                        // SAFETY: the slices of the panels hold `words`, of which the turn takes some tiles; `index <
                        // CHUNK`. The instructions and the destination are given by the `# Safety` contract.
                        unsafe {
                            // output tiles of a single turn need two buffers only: fewer lines of L1
                            let sums = buffers.add(if is_first && is_last { index % 2 } else { index });
                            let finished = is_last.then_some((row, col));
                            pipeline.advance(&operands, turn_tiles.clone(), sums, is_first, finished);
                        }
                    }
                }
            }
        }
    }
    // SAFETY: as above.
    unsafe { pipeline.drain() };
}

/// The output tile in the tile registers, and the epilogue of the block. Methods are inlined into [`tile_product`] and
/// compiled for its target features, which a closure in them would not inherit: hence loops.
struct Pipeline<'a, F> {
    epilogue: &'a mut F,
    /// Rows and columns of the block.
    block: (usize, usize),
    /// Buffer for the sums in the tile registers.
    sums: *mut TileSums,
    /// Row and column of the output tile in the tile registers, if its sums are complete.
    finished: Option<(usize, usize)>,
}

impl<F: Epilogue> Pipeline<'_, F> {
    /// Stores the sums in the registers, replaces them by the sums at `sums` (or zero, if `is_first`) plus the products
    /// of `tiles`, and meanwhile runs the epilogue of the stored output tile, if it was finished. `finished` is that of
    /// the new one.
    ///
    /// # Safety
    /// * An [`AmxConfigured`] lives on this thread, and the caller is compiled for the instructions of
    ///   [`Epilogue::part`].
    /// * The panels of `operands` hold `tiles`; `self.sums` and `sums` are valid for reads and writes.
    /// * The destination that the epilogue writes for the block is writable, and no other thread accesses it.
    #[inline(always)]
    unsafe fn advance(
        &mut self,
        operands: &Operands,
        turn_tiles: Range<usize>,
        sums: *mut TileSums,
        is_first: bool,
        finished: Option<(usize, usize)>,
    ) {
        // SAFETY: the `# Safety` contract covers those of the steps and of the epilogue. `step` writes no memory, so
        // the sums of the finished tile are not written while its epilogue reads them.
        unsafe {
            let mut tiles = turn_tiles.clone();
            let out = self.sums.cast();
            match (tiles.next(), is_first) {
                (Some(tile), true) => first_step(operands, tile, out),
                (Some(tile), false) => next_step(operands, tile, out, sums.cast()),
                (None, _) => {
                    store_sums(out, OUTPUT_TILE);
                    zero_sums();
                }
            }
            let done = self.finished.map(|at| OutputTile::at(at, self.block, &*self.sums));
            let (mut steps, mut parts) = (0, 0);
            for tile in tiles {
                step(operands, tile);
                let Some(done) = &done else { continue };
                while parts * (turn_tiles.len() - 1) < steps * F::PARTS {
                    self.epilogue.part(done, parts);
                    parts += 1;
                }
                steps += 1;
            }
            if let Some(done) = &done {
                for part in parts..F::PARTS {
                    self.epilogue.part(done, part);
                }
            }
            (self.sums, self.finished) = (sums, finished);
        }
    }

    /// Stores the sums in the registers and runs the epilogue of the last output tile.
    ///
    /// # Safety
    /// As [`Pipeline::advance`].
    #[inline(always)]
    unsafe fn drain(self) {
        let Some(at) = self.finished else { return };
        // SAFETY: as in `advance`.
        unsafe {
            store_sums(self.sums.cast(), OUTPUT_TILE);
            let tile = OutputTile::at(at, self.block, &*self.sums);
            for part in 0..F::PARTS {
                self.epilogue.part(&tile, part);
            }
        }
    }
}
