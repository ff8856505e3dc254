//! Loops over the bits of one mask row: counting and masking.
//!
//! A slice of mask bytes covers a whole row, or a part of a row that begins at a byte.

use crate::base::kernel;

/// Eight elements masked by the bits of `byte`: `w[i]` if bit `i` is set, else +0.
#[inline(always)]
fn select_eight(byte: u8, w: &[f32; 8]) -> [f32; 8] {
    let byte = u32::from(byte);
    std::array::from_fn(|bit| f32::from_bits(w[bit].to_bits() & 0u32.wrapping_sub(byte >> bit & 1)))
}

/// `out = w ∘ bits`, inlined into the body of a [`kernel!`].
#[inline(always)]
pub(crate) fn copy_masked_inline(bits: &[u8], w: &[f32], out: &mut [f32]) {
    let whole = w.len() / 8;
    let (out, out_rest) = out.as_chunks_mut::<8>();
    let (w, w_rest) = w.as_chunks::<8>();
    for ((out, w), &byte) in out.iter_mut().zip(w).zip(bits) {
        *out = select_eight(byte, w);
    }
    for (bit, (out, &w)) in out_rest.iter_mut().zip(w_rest).enumerate() {
        *out = if bits[whole] >> bit & 1 == 1 { w } else { 0.0 };
    }
}

/// The first 32 bits of `bytes`, the first in the lowest bit, padded with zeros.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn first_bits(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes.first_chunk().copied().unwrap_or_else(|| {
        let mut all = [0; 4];
        all[..bytes.len()].copy_from_slice(bytes);
        all
    }))
}

kernel! {
    /// Number of set bits, counted on the calling thread.
    pub(crate) fn count_bits<FMA>(bytes: &[u8]) -> usize {
        let (words, rest) = bytes.as_chunks::<8>();
        let whole: u32 = words.iter().map(|word| u64::from_le_bytes(*word).count_ones()).sum();
        (whole + rest.iter().map(|byte| byte.count_ones()).sum::<u32>()) as usize
    }

    /// `out = w ∘ bits`.
    pub(crate) fn copy_masked_row<FMA>(bits: &[u8], w: &[f32], out: &mut [f32]) {
        copy_masked_inline(bits, w, out);
    }

    /// `w = w ∘ bits`.
    pub(crate) fn mask_row<FMA>(bits: &[u8], w: &mut [f32]) {
        let whole = w.len() / 8;
        let (w, rest) = w.as_chunks_mut::<8>();
        for (w, &byte) in w.iter_mut().zip(bits) {
            *w = select_eight(byte, w);
        }
        for (bit, w) in rest.iter_mut().enumerate() {
            *w = if bits[whole] >> bit & 1 == 1 { *w } else { 0.0 };
        }
    }
}
