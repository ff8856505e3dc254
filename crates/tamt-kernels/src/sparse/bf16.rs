//! Sparse products of bf16 by AVX-512-BF16: two survivors of a row in one product.
//!
//! A block's activations are rounded once for all rows of a job, which halves what the nearest cache has to hold of them. What lies in
//! panels stays in f32.

use half::bf16;
use std::arch::x86_64::{
    __m512, __m512bh, __m512i, _mm512_add_ps, _mm512_dpbf16_ps, _mm512_loadu_ps, _mm512_loadu_si512,
    _mm512_permutexvar_epi64, _mm512_set_epi64, _mm512_set1_epi32, _mm512_setzero_ps, _mm512_storeu_si512,
    _mm512_unpackhi_epi16, _mm512_unpacklo_epi16,
};
use std::mem::{MaybeUninit, transmute};

use crate::gemm::bf16::round::round_pair;
use crate::sparse::block_rows::BlockRows;
use crate::sparse::csr::PAIRS_COLUMNS;
use crate::sparse::panel_rows::PanelRows;

/// Tokens of a panel.
const WIDTH: usize = 64;

/// Tokens of a vector in bf16.
const LANES: usize = 32;

/// A block's activations, rounded: `[columns][panel tokens]`, the tokens of each vector in the order in which pairs of columns are read.
#[repr(align(64))]
struct RoundedBlock(MaybeUninit<[u16; PAIRS_COLUMNS * WIDTH]>);

impl RoundedBlock {
    fn new() -> Self {
        Self(MaybeUninit::uninit())
    }

    /// Rounds the first columns of a panel, as many as a block has; returns where they lie.
    #[target_feature(enable = "avx512bf16,avx512f,avx512bw")]
    #[allow(unsafe_code)]
    fn round(&mut self, activations: &[f32]) -> *const u16 {
        let out: *mut u16 = self.0.as_mut_ptr().cast();
        for (i, tokens) in activations.chunks_exact(LANES).take(PAIRS_COLUMNS * WIDTH / LANES).enumerate() {
            // SAFETY: the vectors of both.
            unsafe { _mm512_storeu_si512(out.add(i * LANES).cast(), round_tokens(tokens.as_ptr())) };
        }
        out
    }
}

/// 32 tokens in bf16: in each quarter of the vector four of the first sixteen and then four of the others, so that what
/// interleaves the halves of quarters gives tokens in order.
///
/// # Safety
/// So many floats, and AVX-512-BF16.
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn round_tokens(tokens: *const f32) -> __m512i {
    // SAFETY: the caller's.
    unsafe {
        let halves = round_pair(_mm512_loadu_ps(tokens), _mm512_loadu_ps(tokens.add(16)));
        _mm512_permutexvar_epi64(_mm512_set_epi64(7, 3, 6, 2, 5, 1, 4, 0), halves)
    }
}

/// What a block's entries add to some rows.
///
/// # Safety
/// The instructions; every entry's offset lies in the activations with a panel's tokens after it.
#[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma")]
#[allow(unsafe_code)]
pub(super) unsafe fn add(job: BlockRows<'_, '_>, values: &[bf16], tokens: usize) {
    let mut block = RoundedBlock::new();
    let columns = block.round(job.activations);
    // SAFETY: the caller's.
    unsafe {
        match tokens {
            0..=LANES => add_vectors::<1, 2>(job, values, columns),
            _ => add_vectors::<2, 4>(job, values, columns),
        }
    }
}

/// [`add`] for `HALVES` vectors of bf16, which have `NV` of sums.
///
/// # Safety
/// As for [`add`].
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn add_vectors<const HALVES: usize, const NV: usize>(
    job: BlockRows<'_, '_>,
    values: &[bf16],
    columns: *const u16,
) {
    assert!(job.ends_at() <= values.len(), "values of every row");
    let (offsets, values) = (job.offsets, values.as_ptr());
    // SAFETY: the caller's; the entries are there.
    unsafe {
        job.add::<__m512, NV>(WIDTH, |sums, from, to| {
            let (mut entry, mut others) = (from, [_mm512_setzero_ps(); NV]);
            while entry + 4 <= to {
                let [pair, next] = values.add(entry).cast::<[i32; 2]>().read_unaligned();
                multiply_add::<HALVES, NV>(sums, columns, offsets, [entry, entry + 1], pair);
                multiply_add::<HALVES, NV>(&mut others, columns, offsets, [entry + 2, entry + 3], next);
                entry += 4;
            }
            if entry + 2 <= to {
                let pair = values.add(entry).cast::<i32>().read_unaligned();
                multiply_add::<HALVES, NV>(sums, columns, offsets, [entry, entry + 1], pair);
                entry += 2;
            }
            if entry < to {
                let pair = i32::from((*values.add(entry)).to_bits());
                multiply_add::<HALVES, NV>(&mut others, columns, offsets, [entry; 2], pair);
            }
            for v in 0..NV {
                sums[v] = _mm512_add_ps(sums[v], others[v]);
            }
        });
    }
}

/// `sums += ` the products of two entries, whose values `pair` has.
///
/// # Safety
/// As for [`add`], and the entries are there.
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn multiply_add<const HALVES: usize, const NV: usize>(
    sums: &mut [__m512; NV],
    columns: *const u16,
    offsets: &[u16],
    entries: [usize; 2],
    pair: i32,
) {
    // SAFETY: the caller's.
    unsafe {
        let first = columns.add(usize::from(*offsets.get_unchecked(entries[0])));
        let second = columns.add(usize::from(*offsets.get_unchecked(entries[1])));
        let pair = transmute::<__m512i, __m512bh>(_mm512_set1_epi32(pair));
        for v in 0..HALVES {
            let a = _mm512_loadu_si512(first.add(v * LANES).cast());
            let b = _mm512_loadu_si512(second.add(v * LANES).cast());
            let low = transmute::<__m512i, __m512bh>(_mm512_unpacklo_epi16(a, b));
            let high = transmute::<__m512i, __m512bh>(_mm512_unpackhi_epi16(a, b));
            sums[2 * v] = _mm512_dpbf16_ps(sums[2 * v], low, pair);
            sums[2 * v + 1] = _mm512_dpbf16_ps(sums[2 * v + 1], high, pair);
        }
    }
}

/// What one panel of tokens contributes to the gradients of some rows of a block.
///
/// # Safety
/// As for [`add`].
#[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma")]
#[allow(unsafe_code)]
pub(super) unsafe fn add_gradients(job: PanelRows<'_, '_>) {
    let mut block = RoundedBlock::new();
    let columns = block.round(job.activations);
    // SAFETY: the caller's.
    unsafe {
        job.add::<__m512, [__m512i; 2]>(
            WIDTH,
            |gradient| [round_tokens(gradient), round_tokens(gradient.add(LANES))],
            |gradient, offset| {
                let mut sum = _mm512_setzero_ps();
                for (v, gradient) in gradient.iter().enumerate() {
                    let column = _mm512_loadu_si512(columns.add(offset + v * LANES).cast());
                    let [a, b] = [transmute::<__m512i, __m512bh>(*gradient), transmute::<__m512i, __m512bh>(column)];
                    sum = _mm512_dpbf16_ps(sum, a, b);
                }
                sum
            },
        );
    }
}
