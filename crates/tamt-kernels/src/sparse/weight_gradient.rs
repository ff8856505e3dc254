//! The gradient of surviving weights: for each of them one sum over tokens.
//!
//! A job takes one block of columns and some rows, and goes through the panels in order: the block's activations lie in
//! the nearest cache, a row of the output gradient in registers, and a survivor costs one fused multiply-add for each vector of the
//! panel and a quarter of a horizontal sum.

use std::ops::Range;

use rayon::prelude::*;

use super::csr::{Csr, Elements};
#[cfg(target_arch = "x86_64")]
use super::pairs;
use super::panels::{Panels, panel_tokens};
use super::product::{JOBS, load};
use super::weight::SparseWeight;
#[cfg(target_arch = "x86_64")]
use crate::dispatch::Isa;
use crate::dispatch::{isa, kernel};
use crate::linear::{Write, add_elements};
use crate::math::sum_of;
use crate::parallel::{Shared, rows_per_job, with_parts};
use crate::simd::{Portable, Simd};

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

/// Panels of a job, at least.
const JOB_PANELS: usize = 4;

/// `dW ∘ B (+)= (dyᵀ x) ∘ B`: `dy` `[T, rows]`, `x` `[T, cols]`.
///
/// # Panics
/// If the shapes do not match, or the weight was not prepared for [`PreparedFor::Training`](super::PreparedFor::Training).
pub fn backward_weight(dy: &Panels, x: &Panels, w: &SparseWeight, layout: GradLayout, dw: &mut [f32], mode: Write) {
    backward_weight_and_bias(dy, x, w, layout, (dw, mode), None);
}

/// [`backward_weight`] and, if it is wanted, [`bias_gradient`], in one pass over the output gradients, each stored or added as it says.
///
/// # Panics
/// As both.
#[allow(unsafe_code)]
pub fn backward_weight_and_bias(
    dy: &Panels,
    x: &Panels,
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
pub fn bias_gradient(dy: &Panels, db: &mut [f32], mode: Write) {
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
            (Elements::Bf16(_), _) => pairs::add_gradients(job),
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

/// Survivors whose sums are formed together.
const GROUP: usize = 4;

pub(super) struct PanelRows<'a, 'b> {
    /// Output gradients, `[rows][panel tokens]`.
    gradients: &'a [f32],
    /// The panel, from the block's first column on.
    pub(super) activations: &'a [f32],
    starts: &'a [u32],
    offsets: &'a [u16],
    /// The sums of each row's entries, in the places that [`places_of`] gives them.
    sums: &'b mut [f32],
}

impl PanelRows<'_, '_> {
    /// # Safety
    /// The instruction set of `S`; `NV` vectors are a panel's tokens, and every entry's offset must lie in the activations with
    /// as many after it.
    #[inline(always)]
    #[allow(unsafe_code)]
    unsafe fn add_floats<S: SumLanes, const NV: usize>(self) {
        let activations = self.activations.as_ptr();
        // SAFETY: the caller's.
        unsafe {
            self.add(
                NV * S::LANES,
                |gradient| load::<S, NV>(gradient),
                |gradient, offset| {
                    let column = activations.add(offset);
                    let mut sum = S::zero();
                    for (v, gradient) in gradient.iter().enumerate() {
                        sum = S::load(column.add(v * S::LANES)).mul_add(*gradient, sum);
                    }
                    sum
                },
            );
        }
    }

    /// Adds to the sums of all entries: `load_row` has a row of output gradients, `width` tokens, in registers, and `dot` gives the lanes
    /// of its products with what lies at an offset.
    ///
    /// # Safety
    /// The instruction set of `S`.
    #[inline(always)]
    #[allow(unsafe_code)]
    pub(super) unsafe fn add<S: SumLanes, G>(
        self,
        width: usize,
        load_row: impl Fn(*const f32) -> G,
        dot: impl Fn(&G, usize) -> S,
    ) {
        let rows = self.starts.len() - 1;
        let (first, end) = (self.starts[0] as usize, self.starts[rows] as usize);
        let places = end - first + rows * (GROUP - 1);
        assert!(self.gradients.len() >= rows * width, "gradients of every row");
        assert!(end <= self.offsets.len() && self.sums.len() >= places, "entries of every row");
        let sums = self.sums.as_mut_ptr();
        // SAFETY: rows and entries are in bounds as asserted.
        unsafe {
            for row in 0..rows {
                let (mut entry, to) = (self.starts[row] as usize, self.starts[row + 1] as usize);
                let gradient = load_row(self.gradients.as_ptr().add(row * width));
                let dot = |entry: usize| dot(&gradient, usize::from(*self.offsets.get_unchecked(entry)));
                let mut out = sums.add(entry - first + row * (GROUP - 1));
                while entry + GROUP <= to {
                    S::add_sums([dot(entry), dot(entry + 1), dot(entry + 2), dot(entry + 3)], out);
                    entry += GROUP;
                    out = out.add(GROUP);
                }
                let zero = S::zero();
                match to - entry {
                    1 => S::add_sums([dot(entry), zero, zero, zero], out),
                    2 => S::add_sums([dot(entry), dot(entry + 1), zero, zero], out),
                    3 => S::add_sums([dot(entry), dot(entry + 1), dot(entry + 2), zero], out),
                    _ => {}
                }
            }
        }
    }
}

/// Horizontal sums, several at a time.
#[allow(unsafe_code)]
pub(super) trait SumLanes: Simd {
    /// `to[i] += ` the sum of the lanes of vector i.
    ///
    /// # Safety
    /// The instruction set of the type; `to` must be valid for four floats.
    unsafe fn add_sums(vectors: [Self; GROUP], to: *mut f32);
}

#[allow(unsafe_code)]
impl SumLanes for Portable {
    #[inline(always)]
    unsafe fn add_sums(vectors: [Self; GROUP], to: *mut f32) {
        let mut lanes = [[0.0; 4]; GROUP];
        for (i, vector) in vectors.into_iter().enumerate() {
            // SAFETY: an array of four floats.
            unsafe { vector.store(lanes[i].as_mut_ptr()) };
        }
        for (i, [a, b, c, d]) in lanes.into_iter().enumerate() {
            // SAFETY: the caller's.
            unsafe { *to.add(i) += (a + b) + (c + d) };
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m256, __m512, _mm_add_ps, _mm_loadu_ps, _mm_storeu_ps, _mm256_add_ps, _mm256_castps256_ps128,
        _mm256_extractf128_ps, _mm256_shuffle_ps, _mm256_unpackhi_ps, _mm256_unpacklo_ps, _mm512_castps512_ps256,
        _mm512_extractf32x8_ps,
    };

    use super::{GROUP, SumLanes};

    // SAFETY of both: the trait's contract gives the instruction set and the pointer.
    #[allow(unsafe_code)]
    impl SumLanes for __m256 {
        #[inline(always)]
        unsafe fn add_sums([a, b, c, d]: [Self; GROUP], to: *mut f32) {
            unsafe {
                // half the sums' summands side by side: a b a b, c d c d, then a b c d
                let ab = _mm256_add_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
                let cd = _mm256_add_ps(_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
                let halves = _mm256_add_ps(_mm256_shuffle_ps::<0x44>(ab, cd), _mm256_shuffle_ps::<0xee>(ab, cd));
                let sums = _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps::<1>(halves));
                _mm_storeu_ps(to, _mm_add_ps(_mm_loadu_ps(to), sums));
            }
        }
    }

    #[allow(unsafe_code)]
    impl SumLanes for __m512 {
        #[inline(always)]
        unsafe fn add_sums([a, b, c, d]: [Self; GROUP], to: *mut f32) {
            unsafe { __m256::add_sums([halves(a), halves(b), halves(c), halves(d)], to) };
        }
    }

    /// The sum of both halves. No closure: one that `map` takes would not be compiled for the instruction set, and each
    /// instruction be a call.
    #[inline(always)]
    #[allow(unsafe_code)]
    unsafe fn halves(v: __m512) -> __m256 {
        unsafe { _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v)) }
    }
}
