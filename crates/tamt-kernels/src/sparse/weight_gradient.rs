//! The gradient of surviving weights: for each of them one sum over tokens.
//!
//! A job takes one block of columns and some rows, and goes through the panels in order: the block's activations lie in
//! the nearest cache, a row of the output gradient in registers, and a survivor costs one fused multiply-add for each vector of the
//! panel and a quarter of a horizontal sum.

use rayon::prelude::*;
use std::ops::Range;

use crate::base::buffer::with_parts;
use crate::base::cpu::{Isa, isa};
use crate::base::dispatch::kernel;
use crate::base::math::sum_of;
use crate::base::parallel::{Shared, rows_per_job};
use crate::base::simd::Portable;
use crate::base::sums::{Write, add_elements};
#[cfg(target_arch = "x86_64")]
use crate::sparse::bf16;
use crate::sparse::csr::{Csr, Elements};
use crate::sparse::panel_rows::{GROUP, PanelRows};
use crate::sparse::product::JOBS;
use crate::sparse::token_panels::{TokenPanels, panel_tokens};
use crate::sparse::weight::SparseWeight;

/// How the gradient of the survivors of a matrix `[rows, cols]` is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GradLayout {
    /// `[rows, cols]`, zero where the mask drops.
    Dense,
    /// One value for each survivor, in the mask's order: dropped weights take no memory, in an optimiser's moments
    /// neither.
    Survivors,
}

/// Rows and columns of a job: few enough for a panel of their activations and their sums to stay in the second-level
/// cache, and enough to pay for reading those activations.
const JOB_ROWS: usize = 768;

const JOB_COLUMNS: usize = 768;

const MAX_TILE_BLOCKS: usize = 4;

/// TokenPanels of a job, at least.
const JOB_PANELS: usize = 4;

/// `dW ∘ B (+)= (dyᵀ x) ∘ B`: `dy` `[T, rows]`, `x` `[T, cols]`.
///
/// # Panics
/// If the shapes do not match, or the weight was not prepared for [`PreparedFor::Training`](super::PreparedFor::Training).
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

/// [`backward_weight`] and, if it is wanted, [`bias_gradient`], in one pass over the output gradients, each stored or added as it says.
///
/// # Panics
/// As both.
#[allow(unsafe_code)]
pub fn backward_weight_and_bias(
    dy: &TokenPanels,
    x: &TokenPanels,
    w: &SparseWeight,
    layout: GradLayout,
    (dw, mode): (&mut [f32], Write),
    db: Option<(&mut [f32], Write)>,
) {
    assert!(db.as_ref().is_none_or(|(db, _)| db.len() == dy.cols()), "a bias per output feature");
    let a = w.of_gradient();
    let (rows, cols) = (a.rows(), a.cols());
    assert_eq!((dy.cols(), x.cols()), (rows, cols), "activations of the matrix's shape");
    assert_eq!(dy.groups(), x.groups(), "factors of the same groups of tokens");
    let len = if layout == GradLayout::Dense { rows * cols } else { w.survivors() };
    assert_eq!(dw.len(), len, "weight gradient of the declared shape");
    if rows == 0 || cols == 0 {
        return db.into_iter().for_each(|(db, mode)| bias_gradient(dy, db, mode));
    }
    // tiles of the matrix; where they are few, the tokens are cut as well and the chunks' sums added in order
    let tile_rows = rows.div_ceil(rows.div_ceil(JOB_ROWS));
    let tile_blocks = (JOB_COLUMNS / a.block_columns()).min(MAX_TILE_BLOCKS);
    let (down, across) = (rows.div_ceil(tile_rows), a.blocks().div_ceil(tile_blocks));
    let wanted = JOBS.div_ceil(down * across);
    let panels = x.count().div_ceil(wanted).max(JOB_PANELS);
    let chunks = x.count().div_ceil(panels).max(1);
    let (width, places) = (panel_tokens(), places_before(a, a.blocks() * rows));
    let biases = if db.is_some() { rows } else { 0 };
    with_parts([chunks * places, chunks * biases], |[sums, bias_sums]| {
        let (shared, shared_biases) = (Shared::new(sums), Shared::new(bias_sums));
        (0..chunks * down * across).into_par_iter().for_each(|index| {
            let (chunk, tile) = (index / (down * across), index % (down * across));
            let (first_row, first_block) = (tile % down * tile_rows, tile / down * tile_blocks);
            let tile_rows = first_row..rows.min(first_row + tile_rows);
            let mut tile: [&mut [f32]; MAX_TILE_BLOCKS] = Default::default();
            let tile_blocks = first_block..a.blocks().min(first_block + tile_blocks);
            for (block, sums) in tile_blocks.clone().zip(&mut tile) {
                let part = places_of(a, block, tile_rows.clone());
                // SAFETY: these rows of this block belong to one job of each chunk.
                *sums = unsafe { shared.part(chunk * places + part.start..chunk * places + part.end) };
                sums.fill(0.0);
            }
            let own = if biases > 0 && first_block == 0 { tile_rows.clone() } else { 0..0 };
            // SAFETY: as above, of the first blocks.
            let bias_sums = unsafe { shared_biases.part(chunk * biases + own.start..chunk * biases + own.end) };
            bias_sums.fill(0.0);
            for panel in chunk * panels..x.count().min((chunk + 1) * panels) {
                // which leaves them near for what follows
                add_rows(&dy.panel(panel)[own.start * width..own.end * width], width, bias_sums);
                for (block, sums) in tile_blocks.clone().zip(&mut tile) {
                    add_panel(dy.panel(panel), x.panel(panel), a, block, tile_rows.clone(), sums);
                }
            }
        });
        write_out(sums, places, w, layout, dw, mode);
        if let Some((db, mode)) = db {
            if mode == Write::Store {
                db.fill(0.0);
            }
            bias_sums.chunks_exact(rows).for_each(|sums| add_elements(db, sums));
        }
    });
}

/// `db (+)= Σ_t dy[t]`: `db` `[cols]`.
///
/// # Panics
/// If there are not as many biases as columns.
pub fn bias_gradient(dy: &TokenPanels, db: &mut [f32], mode: Write) {
    assert_eq!(db.len(), dy.cols(), "a bias per output feature");
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
    /// `sums[i] += ` the sum of row i of `width` elements.
    fn add_rows<FMA>(rows: &[f32], width: usize, sums: &mut [f32]) {
        for (sum, row) in sums.iter_mut().zip(rows.chunks_exact(width)) {
            *sum += sum_of(row);
        }
    }
}

/// Adds the chunks' sums of each survivor in order, and writes them where the layout has them.
#[allow(unsafe_code)]
fn write_out(sums: &mut [f32], places: usize, w: &SparseWeight, layout: GradLayout, dw: &mut [f32], mode: Write) {
    let a = w.of_gradient();
    let cols = a.cols();
    let shift = panel_tokens().trailing_zeros();
    let job_rows = rows_per_job(cols);
    let chunks = sums.len() / places;
    let (dw, sums) = (Shared::new(dw), Shared::new(sums));
    (0..a.rows().div_ceil(job_rows)).into_par_iter().for_each(|job| {
        let rows = job * job_rows..a.rows().min((job + 1) * job_rows);
        for block in 0..a.blocks() {
            let part = places_of(a, block, rows.clone());
            // SAFETY: the places of these rows, in all chunks, and the rows of the gradient are this job's.
            let total = unsafe { sums.part(part.clone()) };
            for chunk in 1..chunks {
                // SAFETY: as above.
                let summand = unsafe { sums.part(chunk * places + part.start..chunk * places + part.end) };
                add_elements(total, summand);
            }
        }
        for row in rows {
            // SAFETY: as above.
            let out = unsafe {
                match layout {
                    GradLayout::Survivors => dw.part(w.survivors_of(row)),
                    GradLayout::Dense => dw.part(row * cols..(row + 1) * cols),
                }
            };
            if mode == Write::Store {
                out.fill(0.0);
            }
            let mut written = 0;
            for block in 0..a.blocks() {
                let entries = a.entries(block, row..row + 1);
                let first = places_of(a, block, row..row + 1).start;
                // SAFETY: as above.
                let sums = unsafe { sums.part(first..first + entries.len()) };
                match layout {
                    GradLayout::Survivors => {
                        add_elements(&mut out[written..written + sums.len()], sums);
                        written += sums.len();
                    }
                    GradLayout::Dense => {
                        let out = &mut out[block * a.block_columns()..];
                        for (sum, offset) in sums.iter().zip(&a.offsets()[entries]) {
                            out[usize::from(offset >> shift)] += sum;
                        }
                    }
                }
            }
        }
    });
}

/// Places of sums before those of row `index % rows` of block `index / rows`. Each row of each block has one for each of
/// its entries and [`GROUP`] - 1 more, so that sums can be formed in whole groups.
fn places_before(a: &Csr, index: usize) -> usize {
    a.entries_before(index) + index * (GROUP - 1)
}

/// The places of the sums of some rows of a block.
fn places_of(a: &Csr, block: usize, rows: Range<usize>) -> Range<usize> {
    let first = block * a.rows();
    places_before(a, first + rows.start)..places_before(a, first + rows.end)
}

/// Adds what one panel of tokens contributes to the sums of some rows of a block.
#[allow(unsafe_code)]
fn add_panel(dy: &[f32], x: &[f32], a: &Csr, block: usize, rows: Range<usize>, sums: &mut [f32]) {
    let width = panel_tokens();
    let job = PanelRows {
        gradients: &dy[rows.start * width..rows.end * width],
        activations: &x[block * a.block_columns() * width..],
        starts: a.starts(block, rows),
        offsets: a.offsets(),
        sums,
    };
    // SAFETY: offsets of a block lie within its activations (both are made for the same columns, and a panel is whole), and
    // only instruction sets that are there are named.
    unsafe {
        match (a.values(), isa()) {
            #[cfg(target_arch = "x86_64")]
            (Elements::Bf16(_), _) => bf16::add_gradients(job),
            #[cfg(not(target_arch = "x86_64"))]
            (Elements::Bf16(_), _) => unreachable!("products of pairs without instructions for them"),
            #[cfg(target_arch = "x86_64")]
            (_, Isa::Avx512) => avx512(job),
            #[cfg(target_arch = "x86_64")]
            (_, Isa::Avx2) => avx2(job),
            _ => job.add_floats::<Portable, 8>(),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma")]
#[allow(unsafe_code)]
unsafe fn avx512(job: PanelRows<'_, '_>) {
    // SAFETY: the caller's.
    unsafe { job.add_floats::<std::arch::x86_64::__m512, 4>() }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
#[allow(unsafe_code)]
unsafe fn avx2(job: PanelRows<'_, '_>) {
    // SAFETY: the caller's.
    unsafe { job.add_floats::<std::arch::x86_64::__m256, 8>() }
}
