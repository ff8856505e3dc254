//! The micro-kernels of sparse products in bf16, with AVX-512-BF16: one instruction multiplies two entries of a row.
//!
//! A job rounds a column block's activations once for all its rows, which halves their size in the L1 cache. Token
//! panels hold f32.

use half::bf16;
use std::arch::x86_64::*;
use std::mem::{MaybeUninit, transmute};

use crate::gemm::bf16::round::round_pair;
use crate::sparse::csr::BF16_BLOCK_COLUMNS;
use crate::sparse::product_kernel::BlockProduct;
use crate::sparse::weight_gradient_kernel::BlockGradient;

/// Tokens of a panel.
const WIDTH: usize = 64;

/// Tokens of a vector in bf16.
const LANES: usize = 32;

/// A column block's activations in bf16, `[columns][panel tokens]`. The 32 tokens of a vector are in the order of
/// [`round_tokens`].
#[repr(align(64))]
struct RoundedBlock(MaybeUninit<[u16; BF16_BLOCK_COLUMNS * WIDTH]>);

impl RoundedBlock {
    fn new() -> Self {
        Self(MaybeUninit::uninit())
    }

    /// Rounds the first columns of a panel, at most as many as a block has. Returns a pointer to the rounded columns.
    ///
    /// # Safety
    /// The CPU has AVX-512-BF16 and AVX-512 BW.
    #[target_feature(enable = "avx512bf16,avx512f,avx512bw")]
    fn round(&mut self, activations: &[f32]) -> *const u16 {
        let out: *mut u16 = self.0.as_mut_ptr().cast();
        for (i, tokens) in activations.chunks_exact(LANES).take(BF16_BLOCK_COLUMNS * WIDTH / LANES).enumerate() {
            // SAFETY: `tokens` has `LANES` floats; `take` limits `i` to the vectors of `self.0`. AVX-512-BF16 is
            // present: the target features of this function.
            unsafe { _mm512_storeu_si512(out.add(i * LANES).cast(), round_tokens(tokens.as_ptr())) };
        }
        out
    }
}

/// 32 tokens in bf16. Each 128-bit quarter holds four of tokens 0 to 15, then four of tokens 16 to 31: `unpacklo` and
/// `unpackhi` of two columns, which interleave the halves of each quarter, then yield the tokens in ascending order.
///
/// # Safety
/// The processor must have AVX-512-BF16. `tokens` must be readable for 32 floats.
#[inline(always)]
unsafe fn round_tokens(tokens: *const f32) -> __m512i {
    // SAFETY: `tokens` has 32 floats and AVX-512-BF16 is present: this function's contract.
    unsafe {
        let halves = round_pair(_mm512_loadu_ps(tokens), _mm512_loadu_ps(tokens.add(16)));
        _mm512_permutexvar_epi64(_mm512_set_epi64(7, 3, 6, 2, 5, 1, 4, 0), halves)
    }
}

/// [`BlockProduct::add_f32`] in bf16, for a panel with `tokens` tokens.
///
/// # Safety
/// The processor must have AVX-512-BF16. `activations` must have [`WIDTH`] floats at the offset of every entry.
#[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma")]
pub(super) unsafe fn add(job: BlockProduct<'_, '_>, values: &[bf16], tokens: usize) {
    let mut block = RoundedBlock::new();
    let columns = block.round(job.activations);
    // SAFETY: AVX-512-BF16 is present and the offsets lie in the block: this function's contract.
    unsafe {
        match tokens {
            0..=LANES => add_vectors::<1, 2>(job, values, columns),
            _ => add_vectors::<2, 4>(job, values, columns),
        }
    }
}

/// [`add`] for `HALVES` vectors of bf16 tokens, which have `NV = 2 HALVES` vectors of sums.
///
/// # Safety
/// As for [`add`]; `columns` points to the block of a [`RoundedBlock`].
#[inline(always)]
unsafe fn add_vectors<const HALVES: usize, const NV: usize>(
    job: BlockProduct<'_, '_>,
    values: &[bf16],
    columns: *const u16,
) {
    assert!(job.end() <= values.len(), "values of every row");
    let (offsets, values) = (job.offsets, values.as_ptr());
    // SAFETY: instruction set and offsets: this function's contract. `job.add` passes entries below `job.end()`, which
    // `offsets` (asserted in `add`) and `values` (asserted above) hold.
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

/// `sums += value[0] activations[0] + value[1] activations[1]` for two entries; `pair` holds both values.
///
/// # Safety
/// As for [`add_vectors`]; both entries must be below the length of `offsets`.
#[inline(always)]
unsafe fn multiply_add<const HALVES: usize, const NV: usize>(
    sums: &mut [__m512; NV],
    columns: *const u16,
    offsets: &[u16],
    entries: [usize; 2],
    pair: i32,
) {
    // SAFETY: the entries and their columns exist, and AVX-512-BF16 is present: this function's contract.
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

/// [`BlockGradient::add_f32`] in bf16.
///
/// # Safety
/// As for [`add`].
#[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma")]
pub(super) unsafe fn add_gradients(job: BlockGradient<'_, '_>) {
    let mut block = RoundedBlock::new();
    let columns = block.round(job.activations);
    // SAFETY: instruction set and offsets: this function's contract. `job.add` passes pointers to whole rows of
    // gradients.
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
