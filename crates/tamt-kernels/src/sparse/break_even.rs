//! The density below which sparse products are faster than dense products on this machine.

use std::panic::resume_unwind;
use std::thread;
use std::time::{Duration, Instant};

use crate::base::{Precision, Purpose, Scratch, Stream, Write, inside_parallel_job};
use crate::linear;
use crate::linear::forward::Projection;
use crate::linear::packed_weight::{PackedFor, PackedWeight, WeightOperand};
use crate::masks::{BitMask, Weight};
use crate::sparse::product::{backward_input, forward};
use crate::sparse::token_panels::TokenPanels;
use crate::sparse::weight::{PreparedFor, SparseWeight};

/// Rows and columns of the measured matrix.
const SIZE: usize = 768;

/// Tokens of the measured products: about one group of sequences of a pass.
const TOKENS: usize = 256;

/// Rounds of measurement. The fastest run counts, which excludes most of the noise of a busy machine.
const ROUNDS: usize = 16;

/// Measures the density up to which a sparse forward product and input gradient take no longer than the dense products
/// in `precision`. The times include the packing of activations, but not that of weights, which a pass packs once for
/// all groups of sequences. The measurement uses one thread and takes about 300 ms.
pub fn break_even(precision: Precision) -> f32 {
    let on_one_thread = || match rayon::ThreadPoolBuilder::new().num_threads(1).build() {
        Ok(pool) => pool.install(|| inside_parallel_job(|| measure(precision, time))),
        Err(_) => inside_parallel_job(|| measure(precision, time)),
    };
    // A thread of a pool that waits for another pool runs other jobs of its own pool meanwhile, and these may wait for this
    // measurement. A thread that waits for a plain thread runs no jobs.
    thread::scope(|scope| {
        let measuring = thread::Builder::new().spawn_scoped(scope, on_one_thread);
        measuring.map_or_else(|_| on_one_thread(), |thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

/// The time of a sparse product is linear in the number of survivors. The times at densities 1/4 and 1/2 determine the
/// line. `time` runs products and returns how long they took.
fn measure(precision: Precision, mut time: impl FnMut(&mut dyn FnMut()) -> Duration) -> f32 {
    let stream = Stream::new(0, Purpose::INIT, 0);
    let values: Vec<f32> = (0..SIZE * SIZE).map(|i| stream.uniform_at(i as u64) - 0.5).collect();
    let (x, mut y) = (values[..TOKENS * SIZE].to_vec(), vec![0.0; TOKENS * SIZE]);
    let masks = [1, 2].map(|every| {
        let mut mask = BitMask::zeros(SIZE, SIZE);
        for i in 0..SIZE * SIZE {
            mask.set(i / SIZE, i % SIZE, stream.u32_at(i as u64) % 4 < every);
        }
        mask
    });
    let weight = |mask| Weight { values: (&values).into(), rows: SIZE, cols: SIZE, mask: Some(mask) };
    let sparse = masks.each_ref().map(|mask| SparseWeight::new(weight(mask), PreparedFor::Training, precision));
    let dense = [PackedFor::Forward, PackedFor::InputGradient];
    let [ahead, back] = dense.map(|product| PackedWeight::new(weight(&masks[1]), product, precision));
    let (mut scratch, mut panels) = (Scratch::new(precision), TokenPanels::default());
    let mut fastest = [Duration::MAX; 3];
    // Alternating the products spreads the load of other processes over all of them. Round 0 is a warm-up.
    for round in 0..=ROUNDS {
        let dense = time(&mut || {
            let layer = Projection { weight: WeightOperand::Packed(&ahead), bias: None, output: (&mut y).into() };
            linear::forward_each(&x, [layer], &mut scratch);
            linear::backward_input_packed(&x, &back, &mut y, Write::Store, &mut scratch);
        });
        let [quarter, half] = sparse.each_ref().map(|sparse| {
            time(&mut || {
                forward(panels.pack(&x, SIZE), sparse, None, &mut y);
                backward_input(panels.pack(&x, SIZE), sparse, &mut y, Write::Store);
            })
        });
        if round > 0 {
            for (fastest, last) in fastest.iter_mut().zip([dense, quarter, half]) {
                *fastest = last.min(*fastest);
            }
        }
    }
    let [dense, quarter, half] = fastest.map(|time| time.as_secs_f64());
    crossing([quarter, half], dense)
}

/// The density in `[0, 1]` at which the line through the times at densities 1/4 and 1/2 reaches `time`.
fn crossing([quarter, half]: [f64; 2], time: f64) -> f32 {
    let slope = 4.0 * (half - quarter);
    if slope <= 0.0 {
        // The noise exceeds the cost of the survivors.
        return if quarter <= time { 0.5 } else { 0.25 };
    }
    (0.25 + (time - quarter) / slope).clamp(0.0, 1.0) as f32
}

fn time(products: &mut dyn FnMut()) -> Duration {
    let start = Instant::now();
    products();
    start.elapsed()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn a_thread_that_measures_runs_no_other_job_of_its_pool() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let has_run = AtomicBool::new(false);
        pool.scope(|scope| {
            scope.spawn(|_| has_run.store(true, Ordering::SeqCst));
            break_even(Precision::F32);
            assert!(!has_run.load(Ordering::SeqCst));
        });
    }

    #[test]
    fn the_break_even_density_lies_on_the_line_through_both_times() {
        let at = |density: f64| 1.0 + 8.0 * density;
        for density in [0.0, 0.1, 0.25, 0.4, 0.7, 1.0] {
            assert!((crossing([at(0.25), at(0.5)], at(density)) - density as f32).abs() < 1e-6);
        }
        assert_eq!(crossing([at(0.25), at(0.5)], 0.1), 0.0);
        assert_eq!(crossing([at(0.25), at(0.5)], 100.0), 1.0);
        assert_eq!(crossing([1.0, 0.9], 2.0), 0.5);
    }

    #[test]
    fn the_fastest_dense_product_is_compared_with_the_fastest_sparse_ones_at_a_quarter_and_at_a_half() {
        for precision in [Precision::F32, Precision::Bf16] {
            let mut calls = 0;
            let density = measure(precision, |products| {
                let (round, product) = (calls / 3, calls % 3);
                calls += 1;
                // Milliseconds: a warm-up, and rounds of which each is disturbed, by turns at other products.
                let times = match round {
                    0 => {
                        products();
                        [1; 3]
                    }
                    round if round % 2 == 1 => [8, 2, 4],
                    _ => [3, 5, 4],
                };
                Duration::from_millis(times[product])
            });
            assert_eq!(calls, 3 * (1 + ROUNDS));
            // The line through 2 at a quarter and 4 at a half reaches 3 midway.
            assert!((density - 0.375).abs() < 1e-6, "{density}");
        }
    }
}
