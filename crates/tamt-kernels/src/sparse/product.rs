//! The product of activations in panels with a sparse matrix.
//!
//! A job takes one panel of tokens and some rows of the matrix. For a block of columns at a time, whose activations then
//! lie in the nearest cache, it goes through the rows: a row's sums for all tokens of the panel stay in registers, and a
//! non-zero costs one broadcast and one fused multiply-add for each vector of them.
//!
//! Every element is a sum in order of the depth, broken at the same steps as the dense product's: without rounding in
//! the dropped terms (they are zeros), both products give the same bits.

use rayon::prelude::*;

use crate::base::buffer::with_buffer;
use crate::base::cpu::{Isa, isa};
use crate::base::parallel::{Shared, is_inside_parallel_job};
use crate::base::simd::Portable;
use crate::gemm::block::Init;
#[cfg(target_arch = "x86_64")]
use crate::sparse::bf16;
use crate::sparse::block_rows::BlockRows;
use crate::sparse::csr::{Csr, Elements};
use crate::sparse::token_panels::{TokenPanelsPart, TokenPanelsView, panel_tokens};
use crate::sparse::transpose::{Source, Target, transpose};

/// Jobs that a product is cut into, where its shape allows: enough for many cores and an even end.
pub(crate) const JOBS: usize = 24;

/// Rows of a job, at least: they pay for reading the activations.
const LEAST_ROWS: usize = 64;

/// Rows of a job, at most, so that their sums stay in a near cache: fewer while a panel of activations stays there too
/// and is cheap to read again.
fn most_rows(cols: usize) -> usize {
    if cols <= 1024 { 128 } else { MOST_ROWS }
}

/// The same where activations are rounded for each job.
const MOST_ROWS: usize = 384;

/// Where a product goes.
pub(crate) enum Output<'a, 'b> {
    /// `[T, A.rows]`
    Rows(&'a mut [f32]),
    /// The same in panels; not with [`Init::Accumulate`].
    TokenPanels(&'a mut TokenPanelsPart<'b>),
}

/// `y (+)= x Aᵀ`: `x` `[T, A.cols]`, `y` `[T, A.rows]`.
#[allow(unsafe_code)]
pub(crate) fn product(x: TokenPanelsView<'_>, a: &Csr, start: Init<'_>, y: Output<'_, '_>) {
    let (rows, width) = (a.rows(), panel_tokens());
    assert_eq!(x.cols(), a.cols(), "activations of the matrix's width");
    let (y, in_panels) = match y {
        Output::Rows(y) => {
            assert_eq!(y.len(), x.tokens() * rows, "output of as many rows as the input");
            (Shared::new(y), false)
        }
        Output::TokenPanels(part) => {
            assert_eq!((part.tokens(), part.cols()), (x.tokens(), rows), "output of as many rows as the input");
            assert!(!matches!(start, Init::Accumulate), "an output that is overwritten");
            (Shared::new(part.values_mut()), true)
        }
    };
    if y.len() == 0 {
        return;
    }
    let panels = x.count();
    let most = if a.in_pairs() { MOST_ROWS } else { most_rows(a.cols()) };
    let job_rows = if is_inside_parallel_job() { most } else { (rows * panels).div_ceil(JOBS).clamp(LEAST_ROWS, most) };
    let job_rows = job_rows.min(rows).next_multiple_of(8);
    let groups = rows.div_ceil(job_rows);
    (0..panels * groups).into_par_iter().for_each(|index| {
        let (panel, first) = (index / groups, index % groups * job_rows);
        let job_rows = job_rows.min(rows - first);
        let tokens = x.tokens_of(panel);
        // a single sum that nothing is added to can grow where it will end
        let in_place = a.blocks() <= a.blocks_per_sum() && !matches!(start, Init::Accumulate);
        let buffers = usize::from(!in_panels) + usize::from(!in_place);
        with_buffer(buffers * job_rows * width, |sums| {
            let (totals, partials) = if in_panels {
                let at = (panel * rows + first) * width;
                // SAFETY: the job's rows of the panel are nobody else's.
                let totals = unsafe { y.part(at..at + job_rows * width) };
                if tokens < width {
                    totals.fill(0.0);
                }
                (totals, sums)
            } else {
                sums.split_at_mut(job_rows * width)
            };
            let out = y.pointer(if in_panels { 0 } else { panel * width * rows + first });
            if let Init::Accumulate = start {
                let from = Source { start: out, stride: rows };
                let to = Target { start: totals.as_mut_ptr(), stride: width };
                // SAFETY: the job's tokens and rows of the output are nobody else's; `totals` is this thread's.
                unsafe { transpose(from, tokens, job_rows, to) };
                if tokens < width {
                    totals.chunks_exact_mut(width).for_each(|row| row[tokens..].fill(0.0));
                }
            }
            let start = match start {
                Init::Bias(bias) => Init::Bias(&bias[first..first + job_rows]),
                other => other,
            };
            add_blocks(x.panel(panel), tokens, a, first, start, totals, partials);
            if !in_panels {
                let from = Source { start: totals.as_ptr(), stride: width };
                let to = Target { start: out, stride: rows };
                // SAFETY: as above.
                unsafe { transpose(from, job_rows, tokens, to) };
            }
        });
    });
}

/// Sums of some rows, from row `first` on, in panel layout `[rows][panel tokens]`.
#[allow(unsafe_code)]
fn add_blocks(
    panel: &[f32],
    tokens: usize,
    a: &Csr,
    first: usize,
    start: Init<'_>,
    totals: &mut [f32],
    partials: &mut [f32],
) {
    let width = panel_tokens();
    let rows = first..first + totals.len() / width;
    let (blocks, per_sum) = (a.blocks(), a.blocks_per_sum());
    for block in 0..blocks {
        let job = BlockRows {
            activations: &panel[(block * a.block_columns() * width).min(panel.len())..],
            starts: a.starts(block, rows.clone()),
            offsets: a.offsets(),
            begins: block % per_sum == 0,
            ends: block + 1 == blocks || (block + 1) % per_sum == 0,
            start: if block < per_sum { start } else { Init::Accumulate },
            totals,
            partials,
        };
        // SAFETY: offsets of a block lie within its activations (both are made for the same columns, and a panel is whole),
        // and only instruction sets that are there are named.
        unsafe {
            match (a.values(), isa()) {
                #[cfg(target_arch = "x86_64")]
                (Elements::Bf16(values), _) => bf16::add(job, values, tokens),
                #[cfg(not(target_arch = "x86_64"))]
                (Elements::Bf16(_), _) => unreachable!("products of pairs without instructions for them"),
                #[cfg(target_arch = "x86_64")]
                (Elements::F32(values), Isa::Avx512) => avx512(job, values, tokens),
                #[cfg(target_arch = "x86_64")]
                (Elements::F32(values), Isa::Avx2) => avx2(job, values, tokens),
                (Elements::F32(values), _) => portable(job, values, tokens),
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma")]
#[allow(unsafe_code)]
unsafe fn avx512(job: BlockRows<'_, '_>, values: &[f32], tokens: usize) {
    use std::arch::x86_64::__m512;
    // SAFETY: the caller's.
    unsafe {
        match tokens.div_ceil(16) {
            1 => job.add_floats::<__m512, 1>(values, 64),
            2 => job.add_floats::<__m512, 2>(values, 64),
            _ => job.add_floats::<__m512, 4>(values, 64),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
#[allow(unsafe_code)]
unsafe fn avx2(job: BlockRows<'_, '_>, values: &[f32], tokens: usize) {
    use std::arch::x86_64::__m256;
    // SAFETY: the caller's.
    unsafe {
        match tokens.div_ceil(8) {
            1 => job.add_floats::<__m256, 1>(values, 64),
            2 => job.add_floats::<__m256, 2>(values, 64),
            3 | 4 => job.add_floats::<__m256, 4>(values, 64),
            _ => job.add_floats::<__m256, 8>(values, 64),
        }
    }
}

#[allow(unsafe_code)]
unsafe fn portable(job: BlockRows<'_, '_>, values: &[f32], tokens: usize) {
    // SAFETY: the caller's.
    unsafe {
        match tokens.div_ceil(4) {
            1 => job.add_floats::<Portable, 1>(values, 32),
            2 => job.add_floats::<Portable, 2>(values, 32),
            3 | 4 => job.add_floats::<Portable, 4>(values, 32),
            _ => job.add_floats::<Portable, 8>(values, 32),
        }
    }
}
