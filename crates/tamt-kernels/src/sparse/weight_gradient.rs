//! The gradient of surviving weights: one sum over tokens per survivor.
//!
//! A job computes a tile of the matrix, some rows of a few blocks of columns, and passes through the token panels in
//! order (see [`weight_gradient_kernel`](super::weight_gradient_kernel)). The activations of a block stay in the L1
//! cache.

use rayon::prelude::*;
use std::ops::Range;

#[cfg(target_arch = "x86_64")]
use crate::base::{Isa, isa};
use crate::base::{Portable, Shared, Write, add_elements, kernel, rows_per_job, sum_of, with_parts};
#[cfg(target_arch = "x86_64")]
use crate::sparse::bf16;
use crate::sparse::csr::{Csr, EntryValues};
use crate::sparse::product::JOBS;
use crate::sparse::token_panels::{TokenPanels, panel_tokens};
use crate::sparse::weight::SparseWeight;
use crate::sparse::weight_gradient_kernel::{BlockGradient, REDUCE_WIDTH};

/// Layout of the gradient of the survivors of a matrix `[rows, cols]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GradLayout {
    /// `[rows, cols]`, zero for dropped weights.
    Dense,
    /// One value per survivor, in the mask's order. Dropped weights take no memory, neither in the gradient nor in an
    /// optimiser's moments.
    Survivors,
}

/// Maximum of the rows of a tile: a panel of the tile's activations and the tile's sums stay in the L2 cache. Larger
/// tiles read the activations less often.
const TILE_ROWS: usize = 768;

/// Maximum of the columns of a tile.
const TILE_COLUMNS: usize = 768;

/// Maximum of the column blocks of a tile.
const MAX_TILE_BLOCKS: usize = 4;

/// Minimum of the panels of a job.
const MIN_PANELS: usize = 4;

/// `dW ∘ B (+)= (dyᵀ x) ∘ B`: `dy` `[T, rows]`, `x` `[T, cols]`.
///
/// # Panics
/// If the shapes do not match, or the weight is not prepared for
/// [`PreparedFor::Training`](super::PreparedFor::Training).
pub fn backward_weight(
    dy: &TokenPanels,
    x: &TokenPanels,
    w: &SparseWeight,
    layout: GradLayout,
    dw: &mut [f32],
    mode: Write,
) {
    backward_weight_and_bias(dy, x, w, layout, (dw, mode), None);
}

/// [`backward_weight`], and [`bias_gradient`] into `db`, in one pass over `dy`. Each gradient has its own [`Write`]
/// mode.
///
/// # Panics
/// As [`backward_weight`] and [`bias_gradient`].
pub fn backward_weight_and_bias(
    dy: &TokenPanels,
    x: &TokenPanels,
    w: &SparseWeight,
    layout: GradLayout,
    (dw, mode): (&mut [f32], Write),
    db: Option<(&mut [f32], Write)>,
) {
    assert!(db.as_ref().is_none_or(|(db, _)| db.len() == dy.cols), "a bias per output feature");
    let a = w.for_weight_gradient();
    let (rows, cols) = (a.rows, a.cols);
    assert_eq!((dy.cols, x.cols), (rows, cols), "activations of the matrix's shape");
    assert_eq!(dy.groups, x.groups, "factors of the same groups of tokens");
    let len = if layout == GradLayout::Dense { rows * cols } else { w.survivors() };
    assert_eq!(dw.len(), len, "weight gradient of the declared shape");
    if rows == 0 || cols == 0 {
        return db.into_iter().for_each(|(db, mode)| bias_gradient(dy, db, mode));
    }
    let tiling = Tiling::new(a, x.count());
    let (slots, biases) = (slots_before(a, a.blocks() * rows), if db.is_some() { rows } else { 0 });
    with_parts([tiling.chunks * slots, tiling.chunks * biases], |[sums, bias_sums]| {
        let out = PartialSums { sums: Shared::new(sums), slots, bias_sums: Shared::new(bias_sums), biases };
        (0..tiling.jobs()).into_par_iter().for_each(|job| sum_tile(dy, x, a, &tiling.tile(a, job), &out));
        write_gradient(sums, slots, w, layout, (dw, mode));
        if let Some((db, mode)) = db {
            if mode == Write::Store {
                db.fill(0.0);
            }
            bias_sums.chunks_exact(rows).for_each(|sums| add_elements(db, sums));
        }
    });
}

/// The partition of a weight gradient into jobs: tiles of the matrix and, if there are few tiles, chunks of the tokens.
/// The sums of the chunks are added in order.
struct Tiling {
    tile_rows: usize,
    tile_blocks: usize,
    /// Tiles per column of tiles.
    down: usize,
    /// Tiles per row of tiles.
    across: usize,
    /// Token panels of all groups.
    panels: usize,
    chunk_panels: usize,
    chunks: usize,
}

/// One job: a tile of the matrix and a chunk of the token panels.
struct Tile {
    rows: Range<usize>,
    blocks: Range<usize>,
    chunk: usize,
    panels: Range<usize>,
}

impl Tiling {
    fn new(a: &Csr, panels: usize) -> Self {
        let tile_rows = a.rows.div_ceil(a.rows.div_ceil(TILE_ROWS));
        let tile_blocks = (TILE_COLUMNS / a.block_columns()).min(MAX_TILE_BLOCKS);
        let (down, across) = (a.rows.div_ceil(tile_rows), a.blocks().div_ceil(tile_blocks));
        let chunk_panels = panels.div_ceil(JOBS.div_ceil(down * across)).max(MIN_PANELS);
        let chunks = panels.div_ceil(chunk_panels).max(1);
        Self { tile_rows, tile_blocks, down, across, panels, chunk_panels, chunks }
    }

    fn jobs(&self) -> usize {
        self.chunks * self.down * self.across
    }

    fn tile(&self, a: &Csr, job: usize) -> Tile {
        let (chunk, tile) = (job / (self.down * self.across), job % (self.down * self.across));
        let (row, block) = (tile % self.down * self.tile_rows, tile / self.down * self.tile_blocks);
        Tile {
            rows: row..a.rows.min(row + self.tile_rows),
            blocks: block..a.blocks().min(block + self.tile_blocks),
            chunk,
            panels: chunk * self.chunk_panels..self.panels.min((chunk + 1) * self.chunk_panels),
        }
    }
}

/// The sums of all chunks: `[chunks][slots]` and `[chunks][biases]`.
struct PartialSums<'a> {
    sums: Shared<'a, f32>,
    slots: usize,
    bias_sums: Shared<'a, f32>,
    biases: usize,
}

/// Computes the sums of a tile over its chunk of tokens. The tiles of the first blocks also compute the bias gradient.
fn sum_tile(dy: &TokenPanels, x: &TokenPanels, a: &Csr, tile: &Tile, out: &PartialSums<'_>) {
    let width = panel_tokens();
    let mut block_sums: [&mut [f32]; MAX_TILE_BLOCKS] = Default::default();
    for (block, sums) in tile.blocks.clone().zip(&mut block_sums) {
        let (first, slots) = (tile.chunk * out.slots, slots_of(a, block, tile.rows.clone()));
        // SAFETY: the rows of a block have disjoint slots, and each row and block belongs to one job per chunk.
        *sums = unsafe { out.sums.part(first + slots.start..first + slots.end) };
        sums.fill(0.0);
    }
    let biases = if out.biases > 0 && tile.blocks.start == 0 { tile.rows.clone() } else { 0..0 };
    let first = tile.chunk * out.biases;
    // SAFETY: each row of the first block belongs to one job per chunk.
    let bias_sums = unsafe { out.bias_sums.part(first + biases.start..first + biases.end) };
    bias_sums.fill(0.0);
    for panel in tile.panels.clone() {
        let (dy, x) = (dy.panel(panel), x.panel(panel));
        // This pass over `dy` also brings `dy` into the cache for the weight gradient.
        add_rows(&dy[biases.start * width..biases.end * width], width, bias_sums);
        for (block, sums) in tile.blocks.clone().zip(&mut block_sums) {
            add_panel(dy, x, a, block, tile.rows.clone(), sums);
        }
    }
}

/// `db (+)= Σ_t dy[t]`: `db` `[cols]`.
///
/// # Panics
/// If `db` does not have one element per column.
pub fn bias_gradient(dy: &TokenPanels, db: &mut [f32], mode: Write) {
    assert_eq!(db.len(), dy.cols, "a bias per output feature");
    let width = panel_tokens();
    let columns = rows_per_job(dy.count() * width).max(8);
    db.par_chunks_mut(columns).enumerate().for_each(|(job, db)| {
        if mode == Write::Store {
            db.fill(0.0);
        }
        for panel in 0..dy.count() {
            let panel = &dy.panel(panel)[job * columns * width..][..db.len() * width];
            add_rows(panel, width, db);
        }
    });
}

kernel! {
    /// `sums[i] += Σ rows[i]`, for rows of `width` elements.
    fn add_rows<FMA>(rows: &[f32], width: usize, sums: &mut [f32]) {
        for (sum, row) in sums.iter_mut().zip(rows.chunks_exact(width)) {
            *sum += sum_of(row);
        }
    }
}

/// Adds the chunks' sums of each survivor in order, and writes the totals to `dw`.
fn write_gradient(
    sums: &mut [f32],
    slots: usize,
    w: &SparseWeight,
    layout: GradLayout,
    (dw, mode): (&mut [f32], Write),
) {
    let a = w.for_weight_gradient();
    let cols = a.cols;
    let job_rows = rows_per_job(cols);
    let chunks = sums.len() / slots;
    let (dw, sums) = (Shared::new(dw), Shared::new(sums));
    (0..a.rows.div_ceil(job_rows)).into_par_iter().for_each(|job| {
        let rows = job * job_rows..a.rows.min((job + 1) * job_rows);
        for block in 0..a.blocks() {
            let part = slots_of(a, block, rows.clone());
            // SAFETY: the rows of a block have disjoint slots in each chunk, and each row belongs to one job.
            let total = unsafe { sums.part(part.clone()) };
            for chunk in 1..chunks {
                // SAFETY: as above; the chunks are disjoint.
                let summand = unsafe { sums.part(chunk * slots + part.start..chunk * slots + part.end) };
                add_elements(total, summand);
            }
        }
        for row in rows {
            let range = match layout {
                GradLayout::Survivors => w.survivors_of(row),
                GradLayout::Dense => row * cols..(row + 1) * cols,
            };
            // SAFETY: rows have disjoint ranges, and each row belongs to one job.
            let out = unsafe { dw.part(range) };
            if mode == Write::Store {
                out.fill(0.0);
            }
            add_row(a, row, &sums, layout, out);
        }
    });
}

/// Adds the sums of one row's entries to the row's gradient. The calling job must own the row.
fn add_row(a: &Csr, row: usize, sums: &Shared<'_, f32>, layout: GradLayout, out: &mut [f32]) {
    let shift = panel_tokens().trailing_zeros();
    let mut written = 0;
    for block in 0..a.blocks() {
        let entries = a.entries(block, row..row + 1);
        let first = slots_of(a, block, row..row + 1).start;
        // SAFETY: the row's slots belong to the calling job, and no other part of them is alive.
        let sums = unsafe { sums.part(first..first + entries.len()) };
        match layout {
            GradLayout::Survivors => {
                add_elements(&mut out[written..written + sums.len()], sums);
                written += sums.len();
            }
            GradLayout::Dense => {
                let out = &mut out[block * a.block_columns()..];
                for (sum, offset) in sums.iter().zip(&a.offsets[entries]) {
                    out[usize::from(offset >> shift)] += sum;
                }
            }
        }
    }
}

/// Number of sum slots before row `index % rows` of block `index / rows`. Each row of a block has one slot per entry
/// and `REDUCE_WIDTH - 1` slots of padding, so that the micro-kernel always writes whole groups of sums.
fn slots_before(a: &Csr, index: usize) -> usize {
    a.entries_before(index) + index * (REDUCE_WIDTH - 1)
}

/// The sum slots of some rows of a block.
fn slots_of(a: &Csr, block: usize, rows: Range<usize>) -> Range<usize> {
    let first = block * a.rows;
    slots_before(a, first + rows.start)..slots_before(a, first + rows.end)
}

/// Adds the terms of one token panel to the sums of some rows of a block.
fn add_panel(dy: &[f32], x: &[f32], a: &Csr, block: usize, rows: Range<usize>, sums: &mut [f32]) {
    let width = panel_tokens();
    let job = BlockGradient {
        gradients: &dy[rows.start * width..rows.end * width],
        activations: &x[block * a.block_columns() * width..],
        row_starts: a.row_starts(block, rows),
        offsets: &a.offsets,
        sums,
    };
    // SAFETY: the instruction set is present: `isa()` returned it, and `Csr` has bf16 values only with AVX-512-BF16.
    // The activations have a whole panel at each offset: `Csr::set_structure` derives the offsets of a block from its
    // columns, and the panel has as many columns as the matrix.
    unsafe {
        match a.values {
            #[cfg(target_arch = "x86_64")]
            EntryValues::Bf16(_) => bf16::add_gradients(job),
            #[cfg(not(target_arch = "x86_64"))]
            EntryValues::Bf16(_) => unreachable!("bf16 values without AVX-512-BF16"),
            #[cfg(target_arch = "x86_64")]
            EntryValues::F32(_) if isa() == Isa::Avx512 => add_avx512(job),
            #[cfg(target_arch = "x86_64")]
            EntryValues::F32(_) if isa() == Isa::Avx2 => add_avx2(job),
            EntryValues::F32(_) => job.add_f32::<Portable, 8>(),
        }
    }
}

/// # Safety
/// The processor must have the target features. `job.activations` must have 64 floats at the offset of every entry.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma")]
unsafe fn add_avx512(job: BlockGradient<'_, '_>) {
    // SAFETY: instruction set and offsets: this function's contract.
    unsafe { job.add_f32::<std::arch::x86_64::__m512, 4>() }
}

/// # Safety
/// As [`add_avx512`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn add_avx2(job: BlockGradient<'_, '_>) {
    // SAFETY: instruction set and offsets: this function's contract.
    unsafe { job.add_f32::<std::arch::x86_64::__m256, 8>() }
}
