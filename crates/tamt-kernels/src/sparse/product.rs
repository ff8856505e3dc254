//! Forward products and input gradients: a sparse matrix times activations in token panels.
//!
//! A job computes one panel of tokens and some rows of the matrix. For each block of columns, whose activations fit the
//! L1 cache, the job passes through all its rows (see [`product_kernel`](super::product_kernel)).
//!
//! Every output is a sum in ascending order of the columns, with the same partial sums as in the dense product. The
//! dropped terms are zeros and add no rounding error: in f32, both products give the same bits.

use rayon::prelude::*;
use std::ops::Range;

#[cfg(target_arch = "x86_64")]
use crate::base::{Isa, isa};
use crate::base::{Portable, Shared, Simd, Write, is_inside_parallel_job, with_parts};
use crate::gemm::Init;
#[cfg(target_arch = "x86_64")]
use crate::sparse::bf16;
use crate::sparse::csr::{Csr, EntryValues};
use crate::sparse::product_kernel::BlockProduct;
use crate::sparse::token_panels::{TokenPanelsPart, TokenPanelsView, panel_tokens};
use crate::sparse::transpose::{StridedPtr, StridedPtrMut, transpose};
use crate::sparse::weight::SparseWeight;

/// `y = x (W ∘ B)ᵀ + b`: `x` `[T, cols]`, `bias` `[rows]`, `y` `[T, rows]` (`torch.nn.Linear`).
///
/// # Panics
/// If the shapes do not match, or the weight is prepared for
/// [`PreparedFor::InputGradient`](super::PreparedFor::InputGradient).
pub fn forward(x: TokenPanelsView<'_>, w: &SparseWeight, bias: Option<&[f32]>, y: &mut [f32]) {
    multiply(x, w.forward(), bias_init(bias, w), Output::Rows(y));
}

/// [`forward`] into panels, for a following product. The values of padding tokens are finite if all operands are.
///
/// # Panics
/// As [`forward`].
pub fn forward_to_panels(x: TokenPanelsView<'_>, w: &SparseWeight, bias: Option<&[f32]>, y: &mut TokenPanelsPart<'_>) {
    multiply(x, w.forward(), bias_init(bias, w), Output::Panels(y));
}

fn bias_init<'a>(bias: Option<&'a [f32]>, w: &SparseWeight) -> Init<'a> {
    assert!(bias.is_none_or(|bias| bias.len() == w.rows()), "a bias per output feature");
    bias.map_or(Init::Zero, Init::Bias)
}

/// `dx (+)= dy (W ∘ B)`: `dy` `[T, rows]`, `dx` `[T, cols]`.
///
/// # Panics
/// If the shapes do not match, or the weight is prepared for [`PreparedFor::Forward`](super::PreparedFor::Forward).
pub fn backward_input(dy: TokenPanelsView<'_>, w: &SparseWeight, dx: &mut [f32], mode: Write) {
    let init = if mode == Write::Add { Init::Accumulate } else { Init::Zero };
    multiply(dy, w.transposed(), init, Output::Rows(dx));
}

/// [`backward_input`] into panels. The values of padding tokens are zero.
///
/// # Panics
/// As [`backward_input`].
pub fn backward_input_to_panels(dy: TokenPanelsView<'_>, w: &SparseWeight, dx: &mut TokenPanelsPart<'_>) {
    multiply(dy, w.transposed(), Init::Zero, Output::Panels(dx));
}

/// Number of jobs of a product, if its shape permits: enough to balance the load of many cores.
pub(crate) const JOBS: usize = 24;

/// Minimum of the rows of a job, which amortise reading the activations.
const MIN_ROWS: usize = 64;

/// Maximum of the rows of a job. Their sums stay in the L2 cache.
const MAX_ROWS: usize = 384;

/// [`MAX_ROWS`] for products in f32 of a matrix with `cols` columns. Up to 1024 columns the activations of a panel stay
/// in the L2 cache too, and more jobs can read them again at little cost.
fn max_rows_f32(cols: usize) -> usize {
    if cols <= 1024 { 128 } else { MAX_ROWS }
}

/// Destination of a product.
enum Output<'a, 'b> {
    /// `[T, A.rows]`
    Rows(&'a mut [f32]),
    /// `[T, A.rows]` in panels; not with [`Init::Accumulate`].
    Panels(&'a mut TokenPanelsPart<'b>),
}

/// `y (+)= x Aᵀ`: `x` `[T, A.cols]`, `y` `[T, A.rows]`.
fn multiply(x: TokenPanelsView<'_>, a: &Csr, init: Init<'_>, y: Output<'_, '_>) {
    let rows = a.rows;
    assert_eq!(x.cols(), a.cols, "activations of the matrix's width");
    let (y, to_panels) = match y {
        Output::Rows(y) => {
            assert_eq!(y.len(), x.tokens() * rows, "output of as many rows as the input");
            (Shared::new(y), false)
        }
        Output::Panels(part) => {
            assert_eq!((part.tokens(), part.cols()), (x.tokens(), rows), "output of as many rows as the input");
            assert!(!matches!(init, Init::Accumulate), "an output that is overwritten");
            (Shared::new(part.values_mut()), true)
        }
    };
    if y.len() == 0 {
        return;
    }
    let panels = x.count();
    let max = if a.is_bf16 { MAX_ROWS } else { max_rows_f32(a.cols) };
    let job_rows = if is_inside_parallel_job() { max } else { (rows * panels).div_ceil(JOBS).clamp(MIN_ROWS, max) };
    let job_rows = job_rows.min(rows).next_multiple_of(8);
    let row_jobs = rows.div_ceil(job_rows);
    let product = Product { x, a, init, y };
    (0..panels * row_jobs).into_par_iter().for_each(|index| {
        let (panel, first) = (index / row_jobs, index % row_jobs * job_rows);
        let rows = first..rows.min(first + job_rows);
        if to_panels { product.compute_panel(panel, rows) } else { product.compute_rows(panel, rows) }
    });
}

/// A product whose jobs are disjoint pairs of a panel and a range of matrix rows.
struct Product<'a> {
    x: TokenPanelsView<'a>,
    a: &'a Csr,
    init: Init<'a>,
    y: Shared<'a, f32>,
}

impl Product<'_> {
    /// Length of the buffer for incomplete sums: 0 if the job's `totals` can hold the only partial sum.
    fn partials_len(&self, totals: usize) -> usize {
        let in_place = self.a.blocks() <= self.a.blocks_per_sum() && !matches!(self.init, Init::Accumulate);
        if in_place { 0 } else { totals }
    }

    /// Computes `rows` for the tokens of a panel, in the panel of the output.
    fn compute_panel(&self, panel: usize, rows: Range<usize>) {
        let width = panel_tokens();
        let first = panel * self.a.rows;
        // SAFETY: each row of each panel belongs to one job.
        let totals = unsafe { self.y.part((first + rows.start) * width..(first + rows.end) * width) };
        if self.x.tokens_of(panel) < width {
            totals.fill(0.0);
        }
        with_parts([self.partials_len(totals.len())], |[partials]| self.add_blocks(panel, rows, totals, partials));
    }

    /// Computes `rows` for the tokens of a panel in a buffer, and transposes the result to the rows of the output.
    fn compute_rows(&self, panel: usize, rows: Range<usize>) {
        let (width, tokens) = (panel_tokens(), self.x.tokens_of(panel));
        let (count, size) = (rows.len(), rows.len() * width);
        let stride = self.a.rows;
        let out = self.y.pointer(panel * width * stride + rows.start);
        with_parts([size, self.partials_len(size)], |[totals, partials]| {
            if let Init::Accumulate = self.init {
                let from = StridedPtr { start: out, stride };
                let to = StridedPtrMut { start: totals.as_mut_ptr(), stride: width };
                // SAFETY: `y` `[T, stride]` has these tokens and rows, which belong to this job only; `totals` has
                // `count` rows of `width >= tokens` floats.
                unsafe { transpose(from, tokens, count, to) };
                if tokens < width {
                    totals.chunks_exact_mut(width).for_each(|row| row[tokens..].fill(0.0));
                }
            }
            self.add_blocks(panel, rows, totals, partials);
            let from = StridedPtr { start: totals.as_ptr(), stride: width };
            let to = StridedPtrMut { start: out, stride };
            // SAFETY: as above, in the other direction.
            unsafe { transpose(from, count, tokens, to) };
        });
    }

    /// The sums of some rows for one panel, `[rows][panel tokens]`.
    fn add_blocks(&self, panel: usize, rows: Range<usize>, totals: &mut [f32], partials: &mut [f32]) {
        let (a, tokens, panel) = (self.a, self.x.tokens_of(panel), self.x.panel(panel));
        let (blocks, per_sum) = (a.blocks(), a.blocks_per_sum());
        for block in 0..blocks {
            let job = BlockProduct {
                activations: &panel[(block * a.block_columns() * panel_tokens()).min(panel.len())..],
                row_starts: a.row_starts(block, rows.clone()),
                offsets: &a.offsets,
                begins: block % per_sum == 0,
                ends: block + 1 == blocks || (block + 1) % per_sum == 0,
                init: self.init.of(rows.clone(), block < per_sum),
                totals,
                partials,
            };
            // SAFETY: the instruction set is present: `isa()` returned it, and `Csr` has bf16 values only with
            // AVX-512-BF16. The activations have a whole panel at each offset: `Csr::set_structure` derives the offsets
            // of a block from its columns, and the panel has as many columns as the matrix.
            unsafe { add_block(job, &a.values, tokens) };
        }
    }
}

/// Runs the micro-kernel for the precision of the values and the instruction set of the processor.
///
/// # Safety
/// `job.activations` must have a whole panel at the offset of every entry; bf16 values require AVX-512-BF16.
unsafe fn add_block(job: BlockProduct<'_, '_>, values: &EntryValues, tokens: usize) {
    // SAFETY: `isa()` returned the instruction sets of the f32 kernels; the rest is this function's contract.
    unsafe {
        match values {
            #[cfg(target_arch = "x86_64")]
            EntryValues::Bf16(values) => bf16::add(job, values, tokens),
            #[cfg(not(target_arch = "x86_64"))]
            EntryValues::Bf16(_) => unreachable!("bf16 values without AVX-512-BF16"),
            #[cfg(target_arch = "x86_64")]
            EntryValues::F32(values) if isa() == Isa::Avx512 => add_avx512(job, values, tokens),
            #[cfg(target_arch = "x86_64")]
            EntryValues::F32(values) if isa() == Isa::Avx2 => add_avx2(job, values, tokens),
            EntryValues::F32(values) => add_vectors::<Portable>(job, values, tokens, 32),
        }
    }
}

/// [`BlockProduct::add_f32`] for as many vectors as hold `tokens` tokens.
///
/// # Safety
/// The processor must have the instruction set of `S`. `job.activations` must have `width` floats at the offset of
/// every entry.
#[inline(always)]
unsafe fn add_vectors<S: Simd>(job: BlockProduct<'_, '_>, values: &[f32], tokens: usize, width: usize) {
    // SAFETY: instruction set and offsets: this function's contract.
    unsafe {
        match tokens.div_ceil(S::LANES) {
            1 => job.add_f32::<S, 1>(values, width),
            2 => job.add_f32::<S, 2>(values, width),
            3 | 4 => job.add_f32::<S, 4>(values, width),
            _ => job.add_f32::<S, 8>(values, width),
        }
    }
}

/// # Safety
/// The processor must have the target features. `job.activations` must have 64 floats at the offset of every entry.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma")]
unsafe fn add_avx512(job: BlockProduct<'_, '_>, values: &[f32], tokens: usize) {
    // SAFETY: instruction set and offsets: this function's contract.
    unsafe { add_vectors::<std::arch::x86_64::__m512>(job, values, tokens, 64) }
}

/// # Safety
/// As [`add_avx512`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn add_avx2(job: BlockProduct<'_, '_>, values: &[f32], tokens: usize) {
    // SAFETY: instruction set and offsets: this function's contract.
    unsafe { add_vectors::<std::arch::x86_64::__m256>(job, values, tokens, 64) }
}
