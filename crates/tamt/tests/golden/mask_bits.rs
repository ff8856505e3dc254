//! Every mask bit of 40 mask trainings against a reference in f64 (`tests/golden/mask_bits.py`), after every step.

use serde::Deserialize;
use tamt::magnitude::magnitude;
use tamt::mask_training::MaskTraining;
use tamt::objective::{KdSettings, Objective, ObjectiveSettings};
use tamt::prune::{Scope, Sparsity, pruned_matrices};
use tamt::scores::{ScoreSettings, Scores};
use tamt::text::TextBatch;
use tamt::train::{Learner, OptimizerSettings, Schedule, Shape};
use tamt::{Compute, Kernel};
use tamt_kernels::Precision;
use tamt_model::{Batch, Config, Masks, Model, ParamId, Parts};

use crate::files::{Tensors, folders};

const SEQUENCES: usize = 4;
const LENGTH: usize = 16;
const RETHRESHOLD_EVERY: u64 = 10;
const LEARNING_RATE: f64 = 2e-3;

/// A run of `mask_bits.json`.
#[derive(Deserialize)]
struct Run {
    objective: String,
    seed: u64,
    sparsity: f64,
    changed: usize,
    digests: Vec<String>,
    config: serde_json::Value,
}

/// `count` numbers of `SplitMix64`.
fn mixed(seed: u64, count: usize) -> impl Iterator<Item = u64> {
    (1..=count as u64).map(move |i| {
        let z = seed.wrapping_add(i.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    })
}

/// 64 bits of FNV-1a.
fn digest(bytes: &[u8]) -> u64 {
    let add = |hash: u64, &byte: &u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, add)
}

impl Run {
    fn model(&self) -> Model {
        let config = Config::from_json(&self.config.to_string()).unwrap();
        let mut model = Model::random(config, Parts { pooler: false, mlm_head: true, task: None }, 0);
        for id in model.params.ids() {
            let spec = model.params.spec(id);
            let is_matrix = spec.shape.len() == 2;
            let name = spec.checkpoint_name.clone();
            let is_norm = name.to_lowercase().replace('_', "").ends_with("layernorm.weight");
            let values = model.params.get_mut(id);
            let numbers = mixed(digest(format!("{} {name}", self.seed).as_bytes()), values.len());
            for (value, number) in values.iter_mut().zip(numbers) {
                let unit = 2.0 * ((number >> 40) as f32 / 16_777_216.0) - 1.0;
                *value = if is_matrix { unit * 0.35 } else { f32::from(u8::from(is_norm)) + 0.1 * unit };
            }
        }
        model
    }

    /// The text of a step: clean for distillation, corrupted with its labels for masked language modelling.
    fn batch(&self, model: &Model, step: u64) -> TextBatch {
        let count = SEQUENCES * LENGTH;
        let draws: Vec<u64> = mixed(digest(format!("{} step {step}", self.seed).as_bytes()), 3 * count).collect();
        let (first, last) = if self.config["model_type"] == "bert" { (2, 3) } else { (0, 2) };
        let token = |draw: u64| 5 + ((draw >> 33) % (model.config.vocab_size as u64 - 5)) as u32;
        let mut batch = TextBatch { tokens: Batch::default(), ..TextBatch::default() };
        for sequence in 0..SEQUENCES {
            let ids = (0..LENGTH).map(|i| {
                let at = sequence * LENGTH + i;
                if i == 0 || i == LENGTH - 1 {
                    return if i == 0 { first } else { last };
                }
                let (clean, fate) = (token(draws[at]), draws[2 * count + at] >> 40);
                if self.objective == "kd" || (fate % 100 >= 15 && i != 1) {
                    return clean;
                }
                batch.masked.positions.push(at as u32);
                batch.masked.labels.push(clean);
                match fate / 100 % 10 {
                    0..8 => 4,
                    8 => token(draws[count + at]),
                    _ => clean,
                }
            });
            let ids: Vec<u32> = ids.collect();
            batch.tokens.push(&ids);
        }
        batch.tokens.locate(&model.config);
        batch
    }
}

/// The bits of all masks by name, eight in a byte.
fn packed(model: &Model, masks: &Masks) -> Vec<u8> {
    let mut matrices: Vec<(String, ParamId)> =
        masks.iter().map(|(id, _)| (model.params.spec(id).checkpoint_name.clone(), id)).collect();
    matrices.sort();
    let mut bits = Vec::new();
    for (_, id) in matrices {
        let mask = masks.get(id).unwrap();
        bits.extend((0..mask.len()).map(|i| mask.get(i / mask.cols(), i % mask.cols())));
    }
    bits.chunks(8).map(|bits| bits.iter().rev().fold(0, |byte, &bit| 2 * byte + u8::from(bit))).collect()
}

fn differing(a: &[u8], b: &[u8]) -> usize {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a ^ b).count_ones() as usize).sum()
}

/// Trains as the reference does. Returns the first step whose masks differ from the reference's, and the bits that
/// differ after the last one.
fn compare(run: &Run, kernel: Kernel, expected: &[u8]) -> (Option<u64>, usize) {
    let mut model = run.model();
    let ids = pruned_matrices(&model, None).unwrap();
    let sparsity = Sparsity::new(run.sparsity).unwrap();
    let masks = magnitude(&model, &ids, sparsity, Scope::Local);
    let start = packed(&model, &masks);
    assert_eq!(differing(&start, expected), run.changed, "the reference starts with the same masks");
    let scores = Scores::new(&model, &ids, &masks, ScoreSettings::default(), sparsity, Scope::Local, 0);
    let mlm = run.objective == "mlm";
    let head = if mlm { model.mlm_head.unwrap().params().to_vec() } else { Vec::new() };
    let optimizer =
        if mlm { OptimizerSettings::adamw(LEARNING_RATE) } else { OptimizerSettings::bert_adam(LEARNING_RATE) };
    let compute = Compute { kernel, precision: Precision::F32 };
    let mut learner = Learner::of_scores(&mut model, masks, scores, &head, optimizer, compute);
    let settings =
        ObjectiveSettings { mlm, kd: (!mlm).then(KdSettings::default), mlm_probability: 0.15, dropout: Some(0.0) };
    let objective = Objective::new(settings, 0, Precision::F32);
    let mut training = MaskTraining { objective, rethreshold_every: RETHRESHOLD_EVERY };
    let schedule = Schedule { shape: Shape::Linear, warmup_steps: 0, horizon: 100 };
    let mut first = None;
    for (step, expected) in (0..).zip(&run.digests) {
        let mut batch = run.batch(learner.model, step);
        training.step(&mut learner, &mut batch, step, LEARNING_RATE * schedule.factor(step)).unwrap();
        let bits = packed(learner.model, learner.mode.masks().unwrap());
        if first.is_none() && format!("{:016x}", digest(&bits)) != *expected {
            first = Some(step);
        }
    }
    (first, differing(&packed(learner.model, learner.mode.masks().unwrap()), expected))
}

/// The reference leaves out runs in which a score comes within 1e-8 of its threshold, where f32 cannot tell the two
/// apart; exactly equal scores are in.
#[test]
fn no_mask_bit_differs_from_f64_in_thirty_steps() {
    let folder = &folders()[0];
    let runs: Vec<Run> =
        serde_json::from_str(&std::fs::read_to_string(folder.join("mask_bits.json")).unwrap()).unwrap();
    let expected = Tensors::read(&folder.join("mask_bits.safetensors"));
    assert_eq!(runs.len(), 40, "20 models, and 2 objectives");
    let (mut wrong, mut changed) = (Vec::new(), 0);
    for (i, run) in runs.iter().enumerate() {
        assert_eq!(run.digests.len(), 30, "every step");
        changed += run.changed;
        let bits: Vec<u8> =
            expected.floats(&format!("{}.{}", i / 2, run.objective)).iter().map(|&byte| byte as u8).collect();
        // The kernels give the same bits in forward passes; one run of each objective and family has both.
        let kernels: &[Kernel] = if i < 4 { &[Kernel::Dense, Kernel::Sparse] } else { &[Kernel::Dense] };
        for &kernel in kernels {
            let (first, differ) = compare(run, kernel, &bits);
            if first.is_some() || differ > 0 {
                let seed = run.seed;
                wrong.push(format!("{}, seed {seed}, {kernel:?}: step {first:?}, {differ} at the end", run.objective));
            }
        }
    }
    println!("  {changed} bits change in {} runs", runs.len());
    assert!(wrong.is_empty(), "{wrong:#?}");
}
