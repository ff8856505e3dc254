//! Times mask-training steps (MLM) of a random BERT on random tokens, for `benches/mask_training.py`.
//!
//! Prints one JSON object: `{"step_seconds": [...], "peak_rss_bytes": n}`.

use std::error::Error;
use std::time::Instant;

use tamt::Kernel;
use tamt::find::Method;
use tamt::objective::{MaskedTokens, Objective, ObjectiveSettings};
use tamt::prune::{Scope, Sparsity, magnitude, pruned_matrices};
use tamt::scores::{ScoreSettings, Scores};
use tamt::train::{Learner, OptimizerSettings};
use tamt_kernels::rng::{Purpose, Stream};
use tamt_model::{Batch, Config, GradKind, Model, Parts, Pass, Trainable};

struct Shape {
    layers: usize,
    hidden: usize,
    heads: usize,
    ffn: usize,
    vocab: usize,
    batch: usize,
    length: usize,
    dropout: f32,
    sparsity: f64,
    kernel: Kernel,
    threads: usize,
    warmup: u64,
    steps: u64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let shape = parse(std::env::args().skip(1))?;
    rayon::ThreadPoolBuilder::new().num_threads(shape.threads).build_global()?;
    let json = format!(
        r#"{{"model_type": "bert", "vocab_size": {}, "hidden_size": {}, "num_hidden_layers": {}, "num_attention_heads": {},
            "intermediate_size": {}, "max_position_embeddings": 512, "type_vocab_size": 2}}"#,
        shape.vocab, shape.hidden, shape.layers, shape.heads, shape.ffn
    );
    let mut model = Model::random(Config::from_json(&json)?, Parts { pooler: false, mlm_head: true, task: None }, 1);
    let ids = pruned_matrices(&model, None)?;
    let sparsity = Sparsity::new(shape.sparsity)?;
    let masks = magnitude(&model, &ids, sparsity, Scope::Local);
    let scores = Scores::new(&model, &ids, &masks, ScoreSettings::default(), sparsity, Scope::Local, 1);
    let mut trainable: Vec<Trainable> = ids.iter().map(|&id| Trainable { id, kind: GradKind::Score }).collect();
    let head = model.mlm_head.expect("the model was made with a head");
    trainable.extend(head.params().map(|id| Trainable { id, kind: GradKind::Weight }));
    let mut learner = Learner::new(&mut model, Some(masks), Some(scores), &trainable, OptimizerSettings::adamw(5e-5))
        .with_kernel(shape.kernel.choose());
    learner.binarize(0);

    let settings = ObjectiveSettings { dropout: Some(shape.dropout), ..Method::TamtMlm.objective() };
    let mut objective = Objective::new(settings, 1);
    let (mut batch, mut masked) = (Batch::default(), MaskedTokens::default());
    let mut seconds = Vec::new();
    for step in 0..shape.warmup + shape.steps {
        random_batch(&shape, step, learner.model, &mut batch, &mut masked);
        let started = Instant::now();
        let Learner { model, masks, sparse, grads, .. } = &mut learner;
        let pass = Pass::new(masks.as_ref(), sparse.as_ref());
        objective.losses_and_gradients(model, pass, &batch, &masked, step, grads)?;
        learner.update(5e-5);
        learner.binarize(step + 1);
        if step >= shape.warmup {
            seconds.push(started.elapsed().as_secs_f64());
        }
    }
    let result = serde_json::json!({"step_seconds": seconds, "peak_rss_bytes": peak_rss_bytes()?});
    Ok(serde_json::to_writer(std::io::stdout(), &result)?)
}

fn random_batch(shape: &Shape, step: u64, model: &Model, batch: &mut Batch, masked: &mut MaskedTokens) {
    let stream = Stream::new(1, Purpose::CORRUPTION, step);
    batch.clear();
    masked.clear();
    for sequence in 0..shape.batch {
        for position in 0..shape.length {
            let at = (sequence * shape.length + position) as u64;
            batch.ids.push(stream.below_at(2 * at, shape.vocab as u32));
            if stream.uniform_at(2 * at + 1) < 0.15 {
                masked.positions.push(at as u32);
                masked.labels.push(stream.below_at(2 * at + 1, shape.vocab as u32));
            }
        }
        batch.close_sequence(0);
    }
    batch.locate(&model.config);
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Shape, Box<dyn Error>> {
    let mut shape = Shape {
        layers: 6,
        hidden: 384,
        heads: 12,
        ffn: 1536,
        vocab: 30522,
        batch: 16,
        length: 128,
        dropout: 0.1,
        sparsity: 0.7,
        kernel: Kernel::Auto,
        threads: 2,
        warmup: 1,
        steps: 5,
    };
    while let Some(flag) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{flag} needs a value"))?;
        match flag.as_str() {
            "--layers" => shape.layers = value.parse()?,
            "--hidden" => shape.hidden = value.parse()?,
            "--heads" => shape.heads = value.parse()?,
            "--ffn" => shape.ffn = value.parse()?,
            "--vocab" => shape.vocab = value.parse()?,
            "--batch" => shape.batch = value.parse()?,
            "--length" => shape.length = value.parse()?,
            "--dropout" => shape.dropout = value.parse()?,
            "--sparsity" => shape.sparsity = value.parse()?,
            "--kernel" => shape.kernel = serde_json::from_value(value.into())?,
            "--threads" => shape.threads = value.parse()?,
            "--warmup" => shape.warmup = value.parse()?,
            "--steps" => shape.steps = value.parse()?,
            "--precision" if value == "f32" => {}
            _ => return Err(format!("{flag} {value} is not understood").into()),
        }
    }
    Ok(shape)
}

/// The largest resident set of this process so far, in bytes (Linux; 0 elsewhere).
fn peak_rss_bytes() -> Result<u64, Box<dyn Error>> {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return Ok(0) };
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0 kB");
    Ok(1024 * line.trim().trim_end_matches(" kB").parse::<u64>()?)
}
