//! Products whose squares are finished by the vector units while the tile registers work on the next ones.
//!
//! A square of sums is left in the nearest cache, and what becomes of it (a bias, an activation, its place in the output or in panels)
//! is done in small parts between a later square's steps of the depth: the two kinds of instructions have units of their own.

use crate::gemm::bf16::amx::{AmxConfigured, first_step, next_step, step, store_sums, zero_sums};
use crate::gemm::bf16::operands::{FETCHED, Operands};
use crate::gemm::epilogue::{Epilogue, OutputTile, TileSums};
use crate::gemm::layout::{OUTPUT_TILE, TILE};
use crate::gemm::panels::Panels;

/// Squares that are worked on in turns, one below the other.
const CHUNK: usize = 4;

/// Tiles of the depth that they are multiplied by in a turn: of a right panel 24 KB, which stay in the nearest cache beside the sums,
/// while the left one passes it by.
const DEPTH_TILES: usize = 12;

/// The product of rows `first_row..` of a left operand and columns `first_col..` of a right one, each square given to `finish`.
///
/// # Safety
/// [`super::allowed`] was true, the operands have the same depth and precision, and what `finish` asks for.
#[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma,bmi2,popcnt")]
#[allow(unsafe_code)]
pub(crate) unsafe fn squares<F: Epilogue>(
    _tiles: &AmxConfigured,
    (first_row, rows): (usize, usize),
    (first_col, cols): (usize, usize),
    lhs: Panels<'_>,
    rhs: Panels<'_>,
    finish: &mut F,
) {
    let (depth, precision) = (rhs.depth(), rhs.precision());
    let mut places = [const { TileSums([[0.0; OUTPUT_TILE]; OUTPUT_TILE]) }; CHUNK];
    let places = places.as_mut_ptr();
    // where the sums that are in the registers are to be, and their square if it is done with them
    let mut before = (places, None);
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
                        // SAFETY: the caller's; panels hold what they were asked for.
                        unsafe {
                            let operands = Operands {
                                left: left.as_ptr(),
                                // where there is no second panel or no second tile of columns, the first ones are multiplied again
                                lower: if left_rows > TILE { TILE * words } else { 0 },
                                right: right.as_ptr(),
                                aside: if width > TILE { TILE } else { 0 },
                                width,
                                next: right.as_ptr().wrapping_add(right.len() + row / OUTPUT_TILE * tiles * FETCHED),
                            };
                            // few places stay in the nearest cache
                            let place = places.add(if is_first && is_last { index % 2 } else { index });
                            let mut tiles = turn_tiles.clone();
                            let (out, sums) = (before.0.cast(), place.cast());
                            match (tiles.next(), is_first) {
                                (Some(tile), true) => first_step(&operands, tile, out),
                                (Some(tile), false) => next_step(&operands, tile, out, sums),
                                (None, _) => {
                                    store_sums(out, OUTPUT_TILE);
                                    zero_sums();
                                }
                            }
                            let done = before.1.map(|at| OutputTile::at(at, (rows, cols), &*before.0));
                            let (mut steps, mut parts) = (0, 0);
                            for tile in tiles {
                                step(&operands, tile);
                                let Some(square) = &done else { continue };
                                while parts * (turn_tiles.len() - 1) < steps * F::PARTS {
                                    finish.part(square, parts);
                                    parts += 1;
                                }
                                steps += 1;
                            }
                            if let Some(square) = &done {
                                (parts..F::PARTS).for_each(|part| finish.part(square, part));
                            }
                            before = (place, is_last.then_some((row, col)));
                        }
                    }
                }
            }
        }
    }
    let (place, Some(at)) = before else { return };
    // SAFETY: the caller's.
    unsafe {
        store_sums(place.cast(), OUTPUT_TILE);
        let square = OutputTile::at(at, (rows, cols), &*place);
        (0..F::PARTS).for_each(|part| finish.part(&square, part));
    }
}
