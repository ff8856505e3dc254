use crate::gemm::layout::OUTPUT_TILE;

/// Sums of a square.
#[repr(align(64))]
pub(crate) struct TileSums(pub(crate) [[f32; OUTPUT_TILE]; OUTPUT_TILE]);

/// A square whose product is done.
pub(crate) struct OutputTile<'a> {
    /// Its first row and column in the block that is computed.
    pub(crate) row: usize,
    pub(crate) col: usize,
    /// Rows and columns that the block has there; the others are padding.
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) sums: &'a TileSums,
}

impl<'a> OutputTile<'a> {
    pub(crate) fn at((row, col): (usize, usize), (rows, cols): (usize, usize), sums: &'a TileSums) -> Self {
        Self { row, col, rows: OUTPUT_TILE.min(rows - row), cols: OUTPUT_TILE.min(cols - col), sums }
    }
}

/// What becomes of squares.
pub(crate) trait Epilogue {
    /// Parts of the work on a square, done in order.
    const PARTS: usize;

    /// Does a part. To be inlined, so that it is compiled for the instructions of [`squares`].
    ///
    /// # Safety
    /// The processor has the instructions of [`squares`]; the block is this thread's.
    #[allow(unsafe_code)]
    unsafe fn part(&mut self, square: &OutputTile<'_>, part: usize);
}
