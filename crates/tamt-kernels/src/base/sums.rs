//! Elementwise addition, and reduction of partial results in a fixed order.

use half::bf16;
use rayon::prelude::*;

use crate::base::dispatch::kernel;
use crate::base::values::Number;

/// Whether a kernel overwrites its output or adds to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// The result replaces the output.
    Store,
    /// The result is added to the output.
    Add,
}

kernel! {
    /// `x += summand`
    pub(crate) fn add_elements<FMA>(x: &mut [f32], summand: &[f32]) {
        for (x, summand) in x.iter_mut().zip(summand) {
            *x += summand;
        }
    }

    /// `x += summand`
    pub(crate) fn add_bf16<FMA>(x: &mut [f32], summand: &[bf16]) {
        for (x, summand) in x.iter_mut().zip(summand) {
            *x += summand.get();
        }
    }
}

/// `out (+)= Σ_c partials[c]`, in ascending order of `c`; `partials` is `[chunks, out.len()]`.
pub(crate) fn add_partials(partials: &[f32], out: &mut [f32], mode: Write) {
    let cols = out.len().max(1);
    let size = 512;
    out.par_chunks_mut(size).enumerate().for_each(|(job, out)| {
        if mode == Write::Store {
            out.fill(0.0);
        }
        for partial in partials.chunks_exact(cols) {
            add_elements(out, &partial[job * size..][..out.len()]);
        }
    });
}
