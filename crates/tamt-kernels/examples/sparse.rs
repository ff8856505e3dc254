//! Times the sparse products of a linear layer against the dense ones, on 2,048 tokens, at 50 to 95 % sparsity.
//!
//! `cargo run --release -p tamt-kernels --example sparse [threads] [rows x cols ...]`. Dense and sparse run in turns; a figure is
//! the ratio of medians, with the packing of activations counted. GFLOP/s count what the dense product would compute, a
//! core. Times are CPU time where the system tells it: a busy machine disturbs it less.
#![allow(clippy::print_stdout)]

use std::hint::black_box;
use std::time::Instant;

use tamt_kernels::bits::BitMask;
use tamt_kernels::linear::{self, Scratch, Weight, WeightGrad, Write};
use tamt_kernels::rng::{Purpose, Stream};
use tamt_kernels::select::{Key, smallest_k};
use tamt_kernels::sparse::{self, GradLayout, Panels, PreparedFor, SparseWeight};

const TOKENS: usize = 2048;
const SPARSITIES: [f64; 5] = [0.5, 0.7, 0.8, 0.9, 0.95];
const SHAPES: [(usize, usize); 6] = [(384, 384), (1536, 384), (384, 1536), (768, 768), (3072, 768), (768, 3072)];

/// Rounds of measurement; each runs the dense product once, and the sparse one at every sparsity.
const ROUNDS: usize = 5;

fn random(n: usize, seed: u64) -> Vec<f32> {
    let stream = Stream::new(seed, Purpose::INIT, 0);
    (0..n as u64).map(|i| stream.normal_at(i)).collect()
}

/// CPU time of this process in seconds, if the system tells it.
fn cpu_seconds() -> Option<f64> {
    let nanoseconds = |task: std::fs::DirEntry| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<f64>().ok()
    };
    let tasks = std::fs::read_dir("/proc/self/task").ok()?;
    Some(tasks.flatten().filter_map(nanoseconds).sum::<f64>() * 1e-9).filter(|&seconds| seconds > 0.0)
}

/// Seconds that one run takes, summed over threads: the mean over as many as the system's clock, which ticks every few
/// milliseconds, needs.
fn seconds(mut f: impl FnMut()) -> f64 {
    let (wall, cpu) = (Instant::now(), cpu_seconds());
    let mut runs = 0.0;
    while runs == 0.0 || wall.elapsed().as_secs_f64() < 0.04 {
        f();
        runs += 1.0;
    }
    match (cpu, cpu_seconds()) {
        (Some(before), Some(after)) => (after - before) / runs,
        _ => wall.elapsed().as_secs_f64() * rayon::current_num_threads() as f64 / runs,
    }
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Prints a line: the dense product's speed, and for each sparsity the sparse one's and the ratio.
fn compare(name: &str, flop: f64, mut dense: impl FnMut(), mut sparse: impl FnMut(usize)) {
    dense();
    let mut dense_times = Vec::new();
    let mut sparse_times = vec![Vec::new(); SPARSITIES.len()];
    for round in 0..=ROUNDS {
        let time = seconds(&mut dense);
        for (level, times) in sparse_times.iter_mut().enumerate() {
            let time = seconds(|| sparse(level));
            if round > 0 {
                times.push(time);
            }
        }
        if round > 0 {
            dense_times.push(time);
        }
    }
    let dense = median(&mut dense_times);
    print!("{name:<34} {:6.1}", flop * 1e-9 / dense);
    for times in &mut sparse_times {
        let sparse = median(times);
        print!("  {:6.1} {:5.2}x", flop * 1e-9 / sparse, dense / sparse);
    }
    println!();
}

fn shape(rows: usize, cols: usize) {
    let (x, dy, w, bias) =
        (random(TOKENS * cols, 1), random(TOKENS * rows, 2), random(rows * cols, 3), random(rows, 4));
    let masks = SPARSITIES.map(|sparsity| {
        let mut mask = BitMask::ones(rows, cols);
        let zeros = (sparsity * w.len() as f64) as u64;
        mask.keep_above(&w, smallest_k(&[&w], zeros, Key::Magnitude), Key::Magnitude);
        mask
    });
    let weight = |level: usize| Weight { values: &w, rows, cols, mask: Some(&masks[level]) };
    let mut sparse = [0, 1, 2, 3, 4].map(|level| SparseWeight::new(weight(level), PreparedFor::Training));
    let mut scratch = Scratch::default();
    let (mut packed_x, mut packed_dy) = (Panels::default(), Panels::default());
    let (mut y, mut dx, mut dw) = (vec![0.0; TOKENS * rows], vec![0.0; TOKENS * cols], vec![0.0; rows * cols]);
    let (mut y2, mut dx2, mut survivors) = (y.clone(), dx.clone(), dw.clone());
    let flop = 2.0 * (TOKENS * rows * cols) as f64;
    let name = |what: &str| format!("{rows} x {cols} {what}");

    compare(
        &name("forward"),
        flop,
        || linear::forward(&x, weight(1), Some(&bias), &mut y, &mut scratch),
        |level| {
            packed_x.pack(&x, cols);
            sparse::forward(&packed_x, &sparse[level], Some(&bias), &mut y2);
        },
    );
    compare(
        &name("input gradient"),
        flop,
        || linear::backward_input(&dy, weight(1), &mut dx, Write::Store, &mut scratch),
        |level| {
            packed_dy.pack(&dy, rows);
            sparse::backward_input(&packed_dy, &sparse[level], &mut dx2, Write::Store);
        },
    );
    compare(
        &name("weight gradient"),
        flop,
        || linear::backward_weight(&dy, &x, rows, cols, WeightGrad::Masked(&masks[1]), &mut dw, Write::Store),
        |level| {
            packed_x.pack(&x, cols);
            packed_dy.pack(&dy, rows);
            let out = &mut survivors[..sparse[level].survivors()];
            sparse::backward_weight(&packed_dy, &packed_x, &sparse[level], GradLayout::Survivors, out, Write::Store);
        },
    );

    print!("{:<34} ", name("upkeep, ms"));
    let pack = median(&mut [(); ROUNDS].map(|()| seconds(|| packed_x.pack(&x, cols))));
    print!("pack {:.2}; values, mask at 50-95 %:", pack * 1e3);
    for (level, sparse) in sparse.iter_mut().enumerate() {
        let values = median(&mut [(); ROUNDS].map(|()| seconds(|| sparse.set_values(&w))));
        // two masks with the same number of survivors, in turns
        let mut other = masks[level].clone();
        let dropped = (0..cols).find(|&c| !other.get(0, c)).expect("a dropped element");
        let kept = (0..cols).find(|&c| other.get(0, c)).expect("a kept element");
        other.set(0, dropped, true);
        other.set(0, kept, false);
        let mut flip = false;
        let mask = median(&mut [(); ROUNDS].map(|()| {
            seconds(|| {
                flip = !flip;
                black_box(sparse.set_mask(if flip { &other } else { &masks[level] }, &w));
            })
        }));
        print!("  {:.2} {:.2}", values * 1e3, mask * 1e3);
    }
    println!();
}

fn main() {
    let mut args = std::env::args().skip(1);
    let threads = args.next().and_then(|t| t.parse().ok()).unwrap_or(1);
    let mut shapes: Vec<(usize, usize)> = args
        .filter_map(|arg| {
            let (rows, cols) = arg.split_once('x')?;
            Some((rows.parse().ok()?, cols.parse().ok()?))
        })
        .collect();
    if shapes.is_empty() {
        shapes = SHAPES.to_vec();
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool starts");
    println!("{threads} threads, {:?}, {TOKENS} tokens", tamt_kernels::dispatch::isa());
    println!(
        "{:<34} {:>6}{}",
        "GFLOP/s of the dense product's work",
        "dense",
        SPARSITIES.map(|s| format!("{:>14.0} %", s * 100.0)).concat()
    );
    pool.install(|| shapes.into_iter().for_each(|(rows, cols)| shape(rows, cols)));
}
