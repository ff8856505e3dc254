//! Times the kernels at the shapes of one mask-training step: 6 layers x 384, FFN 1536, 12 heads, 16 x 128 tokens.
//!
//! `cargo run --release -p tamt-kernels --example profile [threads] [group] [part of a name]`. Prints the best of several runs, in
//! CPU time summed over threads where the system tells it (a busy machine disturbs it less), and wall-clock time.
#![allow(clippy::print_stdout)]

use std::time::Instant;

use tamt_kernels::activation::Activation;
use tamt_kernels::attention::Packed;
use tamt_kernels::bits::BitMask;
use tamt_kernels::dropout::Dropout;
use tamt_kernels::linear::{self, Scratch, Weight, WeightGrad, Write};
use tamt_kernels::optim::AdamW;
use tamt_kernels::rng::{Purpose, Stream};
use tamt_kernels::select::{Cut, Key};
use tamt_kernels::{activation, attention, cross_entropy, dropout, embedding, layer_norm, reduce, select};

/// CPU time of this process in seconds.
fn cpu_seconds() -> f64 {
    let nanoseconds = |task: std::fs::DirEntry| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<f64>().ok()
    };
    std::fs::read_dir("/proc/self/task")
        .map_or(0.0, |tasks| tasks.flatten().filter_map(nanoseconds).sum::<f64>() * 1e-9)
}

struct Bench {
    group: Option<String>,
    filter: Option<String>,
    threads: usize,
}

impl Bench {
    /// Runs a group of measurements if the filter names none or this one.
    fn group(&self, name: &str, f: impl FnOnce()) {
        if self.group.as_ref().is_none_or(|group| group == name) {
            f();
        }
    }

    fn time(&self, name: &str, flop: f64, mut f: impl FnMut()) {
        if self.filter.as_ref().is_some_and(|part| !name.contains(part)) {
            return;
        }
        f();
        let (mut wall, mut cpu) = (f64::MAX, f64::MAX);
        for _ in 0..4 {
            let (w, c) = (Instant::now(), cpu_seconds());
            let mut runs = 0.0;
            // the system's CPU clock ticks every few milliseconds
            while runs == 0.0 || w.elapsed().as_secs_f64() < 0.1 {
                f();
                runs += 1.0;
            }
            wall = wall.min(w.elapsed().as_secs_f64() / runs);
            cpu = cpu.min((cpu_seconds() - c) / runs);
        }
        print!("{name:<44} {:8.3} ms wall {:8.3} ms CPU", wall * 1e3, cpu * 1e3);
        if flop > 0.0 {
            print!("  {:6.1} GFLOP/s wall {:6.1} per core", flop * 1e-9 / wall, flop * 1e-9 / cpu);
        }
        println!();
    }
}

fn wave(n: usize, seed: f32) -> Vec<f32> {
    (0..n).map(|i| (i as f32 * 0.731 + seed).sin()).collect()
}

fn main() {
    let mut args = std::env::args().skip(1);
    let threads = args.next().and_then(|t| t.parse().ok()).unwrap_or(2);
    let bench = Bench { group: args.next(), filter: args.next(), threads };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool starts");
    pool.install(|| run(&bench));
}

fn run(b: &Bench) {
    println!("{} threads, {:?}", b.threads, tamt_kernels::dispatch::isa());
    let shapes = [(2048, 384, 384), (2048, 1536, 384), (2048, 384, 1536), (256, 30522, 384), (512, 768, 768)];
    for (tokens, rows, cols) in shapes {
        b.group("linear", || products(b, tokens, rows, cols));
    }
    for (sequences, length, heads, head_dim) in [(16, 128, 12, 32), (4, 512, 12, 64)] {
        b.group("attention", || attentions(b, sequences, length, heads, head_dim));
    }
    b.group("elementwise", || elementwise(b));
    b.group("masks", || masks(b));
}

fn products(b: &Bench, tokens: usize, rows: usize, cols: usize) {
    let mut scratch = Scratch::default();
    let (x, dy, w) = (wave(tokens * cols, 0.1), wave(tokens * rows, 0.2), wave(rows * cols, 0.3));
    let bias = wave(rows, 0.4);
    let (mut y, mut dx, mut dw) = (vec![0.0; tokens * rows], vec![0.0; tokens * cols], vec![0.0; rows * cols]);
    let mut mask = BitMask::zeros(rows, cols);
    mask.keep_above(&w, Cut::strict(0.3), Key::Value);
    let weight = Weight { values: &w, rows, cols, mask: Some(&mask) };
    let flop = 2.0 * (tokens * rows * cols) as f64;
    let name = |op: &str| format!("linear {op} {tokens}x{rows}x{cols}");
    b.time(&name("forward"), flop, || linear::forward(&x, weight, Some(&bias), &mut y, &mut scratch));
    b.time(&name("backward_input"), flop, || {
        linear::backward_input(&dy, weight, &mut dx, Write::Store, &mut scratch);
    });
    b.time(&name("backward_weight"), flop, || {
        linear::backward_weight(&dy, &x, rows, cols, WeightGrad::Score(&w), &mut dw, Write::Store);
    });
    b.time(&name("backward_bias"), 0.0, || {
        linear::backward_bias(&dy, &mut y[..rows], Write::Store, &mut scratch);
    });
}

fn attentions(b: &Bench, sequences: usize, length: usize, heads: usize, head_dim: usize) {
    let mut scratch = Scratch::default();
    let bounds: Vec<usize> = (0..=sequences).map(|i| i * length).collect();
    let shape = Packed { bounds: &bounds, heads, head_dim };
    let n = sequences * length * heads * head_dim;
    let [q, k, v, dctx] = [0.1, 0.2, 0.3, 0.4].map(|seed| wave(n, seed));
    let [mut ctx, mut dq, mut dk, mut dv] = [(); 4].map(|()| vec![0.0; n]);
    let mut lse = vec![0.0; sequences * length * heads];
    let flop = 4.0 * (n * length) as f64;
    for p in [0.0, 0.1] {
        let dropout = (p > 0.0).then(|| Dropout { p, stream: Stream::new(1, Purpose::DROPOUT, 0) });
        let name = |op: &str| format!("attention {op} {sequences}x{length}, {heads}x{head_dim}, p = {p}");
        b.time(&name("forward"), flop, || {
            attention::forward(&q, &k, &v, &shape, dropout, &mut ctx, &mut lse, &mut scratch);
        });
        b.time(&name("backward"), 2.5 * flop, || {
            attention::backward(
                &dctx,
                &q,
                &k,
                &v,
                &ctx,
                &lse,
                &shape,
                dropout,
                &mut dq,
                &mut dk,
                &mut dv,
                &mut scratch,
            );
        });
    }
}

fn elementwise(b: &Bench) {
    let mut scratch = Scratch::default();
    let (rows, cols) = (2048, 384);
    let n = rows * cols;
    let dropout = Dropout { p: 0.1, stream: Stream::new(1, Purpose::DROPOUT, 0) };
    let (mut u, mut y) = (wave(4 * n, 0.1), vec![0.0; 4 * n]);
    b.time("GELU forward 2048x1536", 0.0, || activation::forward(Activation::Gelu, &u, &mut y));
    b.time("GELU backward 2048x1536", 0.0, || activation::backward(Activation::Gelu, &u, &mut y));
    b.time("dropout 2048x1536", 0.0, || dropout::apply(&mut u, dropout));

    let (gamma, beta, residual) = (wave(cols, 0.2), wave(cols, 0.3), wave(n, 0.4));
    let (mut mean, mut rstd) = (vec![0.0; rows], vec![0.0; rows]);
    let (x, y) = (&mut u[..n], &mut y[..n]);
    b.time("LayerNorm forward 2048x384", 0.0, || {
        layer_norm::forward(x, Some(&residual), Some(dropout), &gamma, &beta, 1e-12, y, &mut mean, &mut rstd);
    });
    let (mut dgamma, mut dbeta) = (vec![0.0; cols], vec![0.0; cols]);
    b.time("LayerNorm backward 2048x384", 0.0, || {
        let grads = Some((&mut dgamma[..], &mut dbeta[..]));
        layer_norm::backward(&residual, x, &mean, &rstd, &gamma, y, grads, Write::Store, &mut scratch);
    });

    let vocabulary = 30_522;
    let ids: Vec<u32> = (0..rows as u32).map(|t| t * t % vocabulary).collect();
    let mut grad = vec![0.0; vocabulary as usize * cols];
    let weights = wave(grad.len(), 0.5);
    b.time("embedding backward 2048 of 30522x384", 0.0, || {
        let score = WeightGrad::Score(&weights);
        embedding::backward(&residual, &ids, cols, Some(0), score, &mut grad, Write::Store, &mut scratch);
    });

    let labels: Vec<u32> = (0..307).collect();
    let mut logits = wave(307 * vocabulary as usize, 0.6);
    b.time("cross-entropy forward 307x30522", 0.0, || {
        std::hint::black_box(cross_entropy::forward(&logits, &labels));
    });
    b.time("cross-entropy forward_backward 307x30522", 0.0, || {
        std::hint::black_box(cross_entropy::forward_backward(&mut logits, &labels, 0.1));
    });
}

fn masks(b: &Bench) {
    let n = 1536 * 15_000; // the prunable weights of the model: 23 M
    let (mut p, mut g) = (wave(n, 0.1), wave(n, 0.2));
    let (mut m, mut v) = (vec![0.0; n], vec![0.0; n]);
    let adam = AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 };
    b.time("AdamW 23 M", 0.0, || adam.step(&mut p, &g, &mut m, &mut v, 1e-4, 1, 1.0));
    b.time("sum of squares 23 M", 0.0, || {
        std::hint::black_box(reduce::sum_squares(&g));
    });
    b.time("scale 23 M", 0.0, || reduce::scale(&mut g, 1.0));
    let mut mask = BitMask::ones(15_000, 1536);
    b.time("keep_above 23 M", 0.0, || {
        std::hint::black_box(mask.keep_above(&p, Cut::strict(0.1), Key::Value));
    });
    b.time("copy_masked 23 M", 0.0, || mask.copy_masked(&p, &mut g));
    b.time("smallest_k of 23 M", 0.0, || {
        std::hint::black_box(select::smallest_k(&[&p], n as u64 / 2, Key::Magnitude));
    });
}
