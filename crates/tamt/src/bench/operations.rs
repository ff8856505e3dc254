//! Single operations at the shapes of a step.

use std::hint::black_box;

use tamt_kernels::masks::{BitMask, GradEpilogue, Key, Weight, smallest_k};
use tamt_kernels::ops::attention::{AttentionShape, Qkv, QkvGradients};
use tamt_kernels::ops::dropout::Dropout;
use tamt_kernels::ops::optim::AdamW;
use tamt_kernels::ops::{activation, attention, cross_entropy, layer_norm};
use tamt_kernels::rng::{Purpose, Stream};
use tamt_kernels::sparse::{GradLayout, PreparedFor, SparseWeight, TokenPanels};
use tamt_kernels::{Scratch, Write, linear, sparse};

use crate::bench::timing::{BenchSettings, Timing, seconds};
use crate::compute::Kernel;
use crate::prune::Sparsity;

/// The least number of runs of an operation, and the least time of all runs together.
const RUNS: usize = 5;
const SECONDS: f64 = 0.05;

/// Share of tokens that the MLM head predicts.
const MASKED: f64 = 0.15;

pub(super) fn all(settings: &BenchSettings, progress: &mut dyn FnMut(&str)) -> Vec<Timing> {
    let config = &settings.config;
    let (tokens, hidden, ffn) = (settings.batch_size * settings.length, config.hidden_size, config.intermediate_size);
    let mut timings = Vec::new();
    let mut shapes = vec![[hidden, hidden], [ffn, hidden], [hidden, ffn]];
    shapes.dedup();
    for [rows, cols] in shapes {
        progress(&format!("linear {rows} x {cols}"));
        linear_layer(settings, tokens, rows, cols, &mut timings);
    }
    progress("other operations");
    decoder(settings, &mut timings);
    attention(settings, &mut timings);
    elementwise(settings, &mut timings);
    timings
}

/// The times of `f`, after one untimed run.
fn time(mut f: impl FnMut()) -> Vec<f64> {
    f();
    let mut times = Vec::new();
    while times.len() < RUNS || times.iter().sum::<f64>() < SECONDS {
        times.push(seconds(&mut f));
    }
    times
}

fn random(n: usize, seed: u64) -> Vec<f32> {
    let stream = Stream::new(seed, Purpose::INIT, 0);
    (0..n as u64).map(|i| stream.uniform_at(i) - 0.5).collect()
}

/// The products of a linear layer: dense under the mask of the first sparsity, sparse under the mask of each.
fn linear_layer(settings: &BenchSettings, tokens: usize, rows: usize, cols: usize, timings: &mut Vec<Timing>) {
    let (x, dy, w, bias) =
        (random(tokens * cols, 1), random(tokens * rows, 2), random(rows * cols, 3), random(rows, 4));
    let (mut y, mut dx, mut dw) = (vec![0.0; tokens * rows], vec![0.0; tokens * cols], vec![0.0; rows * cols]);
    let mut scratch = Scratch::new(settings.precision);
    let flop = Some(2.0 * tokens as f64 * (rows * cols) as f64);
    let mut add = |what: &str, kernel, sparsity: Sparsity, seconds| {
        let (name, sparsity) = (format!("linear {rows} x {cols}, {what}"), Some(sparsity.share()));
        timings.push(Timing { name, kernel: Some(kernel), sparsity, flop, seconds });
    };
    for (level, &sparsity) in settings.sparsities.iter().enumerate() {
        let mut mask = BitMask::ones(rows, cols);
        mask.keep_above(&w, smallest_k(&[&w], sparsity.zeros(w.len()), Key::Magnitude), Key::Magnitude);
        let weight = Weight { values: (&w).into(), rows, cols, mask: Some(&mask) };
        if level == 0 {
            let forward = time(|| linear::forward(&x, weight, Some(&bias), &mut y, &mut scratch));
            add("forward", Kernel::Dense, sparsity, forward);
            let input = time(|| linear::backward_input(&dy, weight, &mut dx, Write::Store, &mut scratch));
            add("input gradient", Kernel::Dense, sparsity, input);
            let score = GradEpilogue::Score((&w).into());
            let gradient =
                time(|| linear::backward_weight(&dy, &x, rows, cols, score, &mut dw, Write::Store, &mut scratch));
            add("weight gradient", Kernel::Dense, sparsity, gradient);
        }
        let sparse = SparseWeight::new(weight, PreparedFor::Training, settings.precision);
        let (mut packed_x, mut packed_dy) = (TokenPanels::default(), TokenPanels::default());
        let forward = time(|| sparse::forward(packed_x.pack(&x, cols), &sparse, Some(&bias), &mut y));
        add("forward", Kernel::Sparse, sparsity, forward);
        let input = time(|| sparse::backward_input(packed_dy.pack(&dy, rows), &sparse, &mut dx, Write::Store));
        add("input gradient", Kernel::Sparse, sparsity, input);
        let survivors = &mut dw[..sparse.survivors()];
        let gradient = time(|| {
            let _ = packed_x.pack(&x, cols);
            sparse::backward_weight(&packed_dy, &packed_x, &sparse, GradLayout::Survivors, survivors, Write::Store);
        });
        add("weight gradient", Kernel::Sparse, sparsity, gradient);
    }
}

/// Adds an operation without a mask.
fn plain(timings: &mut Vec<Timing>, name: String, flop: Option<f64>, f: impl FnMut()) {
    timings.push(Timing { name, kernel: None, sparsity: None, flop, seconds: time(f) });
}

fn decoder(settings: &BenchSettings, timings: &mut Vec<Timing>) {
    let config = &settings.config;
    let (rows, cols) = (config.vocab_size, config.hidden_size);
    let positions = ((settings.batch_size * settings.length) as f64 * MASKED).ceil() as usize;
    let (x, w) = (random(positions * cols, 1), random(rows * cols, 2));
    let (mut logits, mut dx) = (vec![0.0; positions * rows], vec![0.0; x.len()]);
    let labels: Vec<u32> = (0..positions).map(|i| (i % rows) as u32).collect();
    let weight = Weight { values: (&w).into(), rows, cols, mask: None };
    let mut scratch = Scratch::new(settings.precision);
    let flop = Some(2.0 * positions as f64 * (rows * cols) as f64);
    let name = |what: &str| format!("decoder {positions} x {rows}, {what}");
    plain(timings, name("forward"), flop, || linear::forward(&x, weight, None, &mut logits, &mut scratch));
    plain(timings, name("cross-entropy"), None, || {
        black_box(cross_entropy::forward_backward(&mut logits, &labels, 0.1));
    });
    plain(timings, name("input gradient"), flop, || {
        linear::backward_input(&logits, weight, &mut dx, Write::Store, &mut scratch);
    });
}

fn attention(settings: &BenchSettings, timings: &mut Vec<Timing>) {
    let (heads, hidden) = (settings.config.num_attention_heads, settings.config.hidden_size);
    let (sequences, length) = (settings.batch_size, settings.length);
    let bounds: Vec<usize> = (0..=sequences).map(|i| i * length).collect();
    let shape = AttentionShape { bounds: &bounds, heads, head_dim: hidden / heads, first_sequence: 0 };
    let n = sequences * length * hidden;
    let [q, k, v, d_context] = [1, 2, 3, 4].map(|seed| random(n, seed));
    let [mut context, mut dq, mut dk, mut dv] = [(); 4].map(|()| vec![0.0; n]);
    let mut log_sum_exp = vec![0.0; sequences * length * heads];
    let p = settings.dropout;
    let dropout = (p > 0.0).then(|| Dropout { p, stream: Stream::new(1, Purpose::DROPOUT, 0), first: 0 });
    let scratch = Scratch::new(settings.precision);
    // Forward: scores and context. Backward: scores again, and the gradients of probabilities, V, Q and K.
    let flop = 4.0 * n as f64 * length as f64;
    plain(timings, "attention, forward".to_owned(), Some(flop), || {
        attention::forward(Qkv::new(&q, &k, &v), &shape, dropout, &mut context, Some(&mut log_sum_exp), &scratch);
    });
    let out = (&mut dq, &mut dk, &mut dv);
    plain(timings, "attention, backward".to_owned(), Some(2.5 * flop), || {
        let gradients = QkvGradients { dq: out.0, dk: out.1, dv: out.2 };
        let qkv = Qkv::new(&q, &k, &v);
        attention::backward(&d_context, qkv, &log_sum_exp, &shape, dropout, gradients, &scratch);
    });
}

fn elementwise(settings: &BenchSettings, timings: &mut Vec<Timing>) {
    let config = &settings.config;
    let (tokens, hidden, ffn) = (settings.batch_size * settings.length, config.hidden_size, config.intermediate_size);
    let (u, mut y) = (random(tokens * ffn, 1), vec![0.0; tokens * ffn]);
    let (f, name) = (config.hidden_act, format!("activation {tokens} x {ffn}"));
    plain(timings, format!("{name}, forward"), None, || activation::forward(f, &u, &mut y));
    plain(timings, format!("{name}, backward"), None, || activation::backward(f, &u, &mut y));

    let n = tokens * hidden;
    let (mut x, residual, gamma, beta) = (random(n, 1), random(n, 2), random(hidden, 3), random(hidden, 4));
    let (mut mean, mut rstd, mut out) = (vec![0.0; tokens], vec![0.0; tokens], vec![0.0; n]);
    let p = settings.dropout;
    let dropout = (p > 0.0).then(|| Dropout { p, stream: Stream::new(1, Purpose::DROPOUT, 0), first: 0 });
    plain(timings, format!("LayerNorm {tokens} x {hidden}, forward"), None, || {
        let statistics = layer_norm::SavedStatistics { sum: None, mean: &mut mean, rstd: &mut rstd };
        layer_norm::forward(&mut x, Some(&residual), dropout, &gamma, &beta, 1e-12, &mut out, Some(statistics));
    });
    let mut scratch = Scratch::default();
    plain(timings, format!("LayerNorm {tokens} x {hidden}, backward"), None, || {
        layer_norm::backward(&residual, &x, &mean, &rstd, &gamma, &mut out, None, &mut scratch);
    });

    let weights = config.num_hidden_layers * (4 * hidden * hidden + 2 * hidden * ffn) + config.vocab_size * hidden;
    let (mut w, g) = (random(weights, 1), random(weights, 2));
    let (mut m, mut v) = (vec![0.0; weights], vec![0.0; weights]);
    let adam = AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 };
    plain(timings, format!("AdamW, {weights} scores"), None, || adam.step(&mut w, &g, &mut m, &mut v, 1e-4, 1, 1.0));
}
