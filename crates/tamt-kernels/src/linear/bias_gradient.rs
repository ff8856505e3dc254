use rayon::prelude::*;

use crate::base::dispatch::kernel;
use crate::base::parallel::{PARTIALS, reduction_chunk};
use crate::base::scratch::Scratch;
use crate::base::sums::{Write, add_elements, add_partials};
use crate::gemm::layout::{Side, TILE};
use crate::linear::packed_factor::{Factor, PackedFactor, sums_width};
use crate::linear::portions::rows_of;

/// `db = Σ_t dy[t]`: `dy` `[T, n]`, `db` `[n]`. Sums over chunks of tokens, then over the chunks in order.
pub fn backward_bias(dy: &[f32], db: &mut [f32], mode: Write, scratch: &mut Scratch) {
    let cols = db.len();
    let tokens = rows_of(dy.len(), cols, "output gradient");
    let partials = scratch.floats.get(PARTIALS * cols);
    let chunk = reduction_chunk(tokens, 32);
    let used = tokens.div_ceil(chunk);
    partials.par_chunks_mut(cols.max(1)).zip(dy.par_chunks((chunk * cols).max(1))).for_each(|(sum, dy)| {
        sum.fill(0.0);
        for row in dy.chunks_exact(cols) {
            add_elements(sum, row);
        }
    });
    add_partials(&partials[..used * cols], db, mode);
}

/// `db = Σ_t dy[t]`, of `dy` as it was packed (and rounded) or, by tiles, as it was before: `db` `[width]`.
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
    let (panels, precision) = (dy.panels(Factor::OutputGradient), dy.precision);
    let width = Side::Left.width(precision);
    db.par_chunks_mut(width).enumerate().for_each(|(panel, db)| {
        // floats by the chunks of `backward_bias`, whose bits these are then
        let chunk = reduction_chunk(dy.steps, 32);
        let (mut sums, mut partial) = ([0.0; TILE], [0.0; TILE]);
        for from in (0..dy.steps).step_by(precision.depth_block()) {
            let block = from..dy.steps.min(from + precision.depth_block());
            let words = precision.words(block.len());
            let panel = &panels.panels_at(panel * width, &block)[..width * words];
            match precision.steps_in_word() {
                1 => {
                    for (step, values) in block.zip(panel.chunks_exact(width)) {
                        if step % chunk == 0 {
                            add_elements(&mut sums, &std::mem::take(&mut partial));
                        }
                        add_elements(&mut partial[..width], values);
                    }
                }
                _ => panel.chunks_exact(width).for_each(|words| add_pairs(words, &mut sums[..width])),
            }
        }
        add_elements(&mut sums, &partial);
        match mode {
            Write::Store => db.copy_from_slice(&sums[..db.len()]),
            Write::Add => add_elements(db, &sums[..db.len()]),
        }
    });
}

/// Both steps of a word.
#[inline(always)]
fn both_steps(word: f32) -> f32 {
    let bits = word.to_bits();
    f32::from_bits(bits << 16) + f32::from_bits(bits & 0xffff_0000)
}

kernel! {
    fn add_pairs<FMA>(words: &[f32], sums: &mut [f32]) {
        for (sum, &word) in sums.iter_mut().zip(words) {
            *sum += both_steps(word);
        }
    }
}
