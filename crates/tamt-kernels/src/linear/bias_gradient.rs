//! Bias gradients: `db = Σ_t dy[t]`.

use rayon::prelude::*;

use crate::base::{PARTIALS, Scratch, Word, Write, add_elements, add_partials, reduction_chunk};
use crate::gemm::{Side, TILE};
use crate::linear::packed_factor::{Factor, PackedFactor, sums_width};
use crate::linear::portions::row_count;

/// Smallest number of tokens that are summed into one partial result.
const CHUNK_TOKENS: usize = 32;

/// `db = Σ_t dy[t]`: `dy` `[T, n]`, `db` `[n]`. Sums over chunks of tokens, then over the chunks in order.
pub fn backward_bias(dy: &[f32], db: &mut [f32], mode: Write, scratch: &mut Scratch) {
    let cols = db.len();
    let tokens = row_count(dy.len(), cols, "output gradient");
    let partials = scratch.floats.get(PARTIALS * cols);
    let chunk = reduction_chunk(tokens, CHUNK_TOKENS);
    let used = tokens.div_ceil(chunk);
    partials.par_chunks_mut(cols.max(1)).zip(dy.par_chunks((chunk * cols).max(1))).for_each(|(sum, dy)| {
        sum.fill(0.0);
        for row in dy.chunks_exact(cols) {
            add_elements(sum, row);
        }
    });
    add_partials(&partials[..used * cols], db, mode);
}

/// `db = Σ_t dy[t]` of a packed output gradient, `db` `[width]`.
///
/// With panels of f32 words, a stored `db` has the bits of [`backward_bias`] of `dy` rounded to the precision. Panels of bf16
/// pairs come with sums of the unrounded `dy` over blocks of rows, and `db` is the sum over the blocks in order.
pub fn bias_gradient(dy: &PackedFactor, db: &mut [f32], mode: Write) {
    assert_eq!(db.len(), dy.width, "a bias per output feature");
    if dy.precision.packs_bf16() {
        if mode == Write::Store {
            db.fill(0.0);
        }
        let width = sums_width(dy.width);
        let sums = dy.sums.as_slice().chunks_exact(width.max(1)).take(dy.blocks);
        return sums.for_each(|sums| add_elements(db, &sums[..dy.width]));
    }
    let (panels, depth_block) = (dy.panels(Factor::OutputGradient), dy.precision.depth_block());
    let width = Side::Left.width(dy.precision);
    // the chunks of `backward_bias`, and therefore the same bits
    let chunk = reduction_chunk(dy.steps, CHUNK_TOKENS);
    db.par_chunks_mut(width).enumerate().for_each(|(panel, db)| {
        let (mut sums, mut partial) = ([0.0; TILE], [0.0; TILE]);
        for from in (0..dy.steps).step_by(depth_block) {
            let block = from..dy.steps.min(from + depth_block);
            let words = &panels.panels_at(panel * width, &block)[..width * block.len()];
            for (step, values) in block.zip(Word::floats(words).chunks_exact(width)) {
                if step % chunk == 0 {
                    add_elements(&mut sums, &std::mem::take(&mut partial));
                }
                add_elements(&mut partial[..width], values);
            }
        }
        add_elements(&mut sums, &partial);
        match mode {
            Write::Store => db.copy_from_slice(&sums[..db.len()]),
            Write::Add => add_elements(db, &sums[..db.len()]),
        }
    });
}
