//! Epilogues: the work on each output tile of a bf16 product while the tile is in L1 (bias, activation, rounding,
//! masking, the store to its destination).

use crate::gemm::layout::OUTPUT_TILE;

/// The sums of an output tile.
#[repr(align(64))]
pub(crate) struct TileSums(pub(crate) [[f32; OUTPUT_TILE]; OUTPUT_TILE]);

/// An output tile whose sums are complete.
pub(crate) struct OutputTile<'a> {
    /// First row of the tile in the computed block.
    pub(crate) row: usize,
    /// First column of the tile in the computed block.
    pub(crate) col: usize,
    /// Rows of the tile inside the block; further rows are padding.
    pub(crate) rows: usize,
    /// Columns of the tile inside the block; further columns are padding.
    pub(crate) cols: usize,
    pub(crate) sums: &'a TileSums,
}

impl<'a> OutputTile<'a> {
    /// The tile at (`row`, `col`) of a block of `rows` x `cols`.
    pub(crate) fn at((row, col): (usize, usize), (rows, cols): (usize, usize), sums: &'a TileSums) -> Self {
        Self { row, col, rows: OUTPUT_TILE.min(rows - row), cols: OUTPUT_TILE.min(cols - col), sums }
    }
}

/// The work on an output tile, cut into parts. The AMX pipeline interleaves the parts with the tile products of a later
/// output tile.
pub(crate) trait Epilogue {
    /// Parts of the work on a tile.
    const PARTS: usize;

    /// Does part `part`; a tile gets the parts `0..PARTS` in order. Implementations are `#[inline(always)]`, to be
    /// compiled with the target features of the calling product.
    ///
    /// # Safety
    /// * The CPU has AVX-512 F, BW, CD, DQ, VL and BF16, and the caller is compiled for them.
    /// * The destination of the tile's rows and columns is writable, and no other thread accesses it.
    unsafe fn part(&mut self, tile: &OutputTile<'_>, part: usize);
}
