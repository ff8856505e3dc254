use half::bf16;
use rayon::prelude::*;

use crate::base::dispatch::kernel;
use crate::base::values::Number;

/// What happens to the old content of an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// It is overwritten.
    Store,
    /// The result is added to it.
    Add,
}

kernel! {
    pub(crate) fn add_elements<FMA>(x: &mut [f32], summand: &[f32]) {
        for (x, summand) in x.iter_mut().zip(summand) {
            *x += summand;
        }
    }
}

kernel! {
    pub(crate) fn add_bf16<FMA>(x: &mut [f32], summand: &[bf16]) {
        for (x, summand) in x.iter_mut().zip(summand) {
            *x += summand.get();
        }
    }
}

/// `out (+)= Σ_c partials[c]`, in order; `partials` is `[chunks, out.len()]`.
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
