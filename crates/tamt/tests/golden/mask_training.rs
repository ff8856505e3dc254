//! Mask training step by step, and the distillation losses beside the default one.

use tamt::magnitude::magnitude;
use tamt::mask_training::MaskTraining;
use tamt::objective::{Distance, KdSettings, Objective, ObjectiveSettings, Relation, Representation, Span};
use tamt::prune::{Scope, Sparsity, pruned_matrices};
use tamt::scores::{ScoreSettings, Scores};
use tamt::text::TextBatch;
use tamt::train::{Learner, OptimizerSettings, Schedule, Shape};
use tamt::{Compute, Kernel};
use tamt_kernels::Precision;
use tamt_model::Model;

use crate::files::{Golden, Tensors, assert_close, for_each};
use crate::model::{by_checkpoint_name, labels_of};

/// Runs a test on every golden file with the dense and with the sparse kernel.
fn for_each_kernel(test: impl Fn(&Golden, Kernel)) {
    for_each(|golden| [Kernel::Dense, Kernel::Sparse].into_iter().for_each(|kernel| test(golden, kernel)));
}

/// A learner that trains the masks of every prunable matrix, from the magnitude mask.
fn learner(
    model: &mut Model,
    sparsity: f64,
    with_head: bool,
    optimizer: OptimizerSettings,
    kernel: Kernel,
) -> Learner<'_> {
    let ids = pruned_matrices(model, None).unwrap();
    let sparsity = Sparsity::new(sparsity).unwrap();
    let masks = magnitude(model, &ids, sparsity, Scope::Local);
    let scores = Scores::new(model, &ids, &masks, ScoreSettings::default(), sparsity, Scope::Local, 0);
    let head = if with_head { model.mlm_head.unwrap().params().to_vec() } else { Vec::new() };
    Learner::of_scores(model, masks, scores, &head, optimizer, Compute { kernel, precision: Precision::F32 })
}

/// How far a run may be from PyTorch's.
struct Tolerance {
    /// Largest difference of a score, as a share of the matrix's largest score
    score: f64,
    /// Mean difference of a matrix's scores
    mean: f64,
    /// Relative difference of a loss after the first re-setting of thresholds
    loss: f64,
    /// Mask bits in a thousand that differ at the end
    bits: usize,
}

impl Tolerance {
    fn of(golden: &Golden, what: &str, file: &Tensors) -> Self {
        let redrawn = !file.names("margin").is_empty();
        match what {
            "train_kd" => Self { score: 1e-5, mean: 5e-8, loss: 1e-5, bits: 0 },
            // AdamW's eps is 1e-8, BertAdam's 1e-6: a gradient of 1e-8 is rounding in part, and decides a step.
            _ if redrawn || what == "train_mlm_kd" => Self { score: 3e-4, mean: 5e-8, loss: 1e-5, bits: 0 },
            // The larger set's MLM runs were not redrawn, and in RoBERTa's a score comes within 1e-8 of its threshold:
            // rounding decides its mask bit, and the rest of the run bends a little. PyTorch, recomputing them, differs
            // from itself as much.
            _ if golden.kind == "roberta" => Self { score: 5e-2, mean: 2e-4, loss: 1e-2, bits: 2 },
            // In BERT's run no bit differs at the end, and scores of gradients near eps do.
            _ => Self { score: 5e-2, mean: 1e-5, loss: 1e-5, bits: 0 },
        }
    }
}

fn reproduces(golden: &Golden, what: &str, mlm: bool, kd: bool, kernel: Kernel) {
    let Some(file) = golden.file(what) else { return };
    let allowed = Tolerance::of(golden, what, &file);
    let losses = file.floats("losses");
    let steps = losses.len() as u64;
    let rethreshold_every = steps.div_ceil(3);
    let optimizer = if mlm { OptimizerSettings::adamw(2e-3) } else { OptimizerSettings::bert_adam(2e-3) };
    let mut model = golden.model();
    let mut learner = learner(&mut model, 0.7, mlm, optimizer, kernel);
    let settings =
        ObjectiveSettings { mlm, kd: kd.then(KdSettings::default), mlm_probability: 0.15, dropout: Some(0.0) };
    let mut training = MaskTraining { objective: Objective::new(settings, 0, Precision::F32), rethreshold_every };
    let schedule = Schedule { shape: Shape::Linear, warmup_steps: 0, horizon: 100 };

    for step in 0..steps {
        let tokens = file.batch(learner.model, &format!("step.{step}.input_ids"));
        let mut batch = TextBatch { tokens, ..TextBatch::default() };
        if mlm {
            (batch.masked.positions, batch.masked.labels) = labels_of(&file, &format!("step.{step}.labels"));
        }
        let learning_rate = optimizer.learning_rate * schedule.factor(step);
        let loss = training.step(&mut learner, &mut batch, step, learning_rate).unwrap().loss;
        let expected = losses[step as usize];
        let error = (loss.total - expected).abs() / expected;
        let tolerance = if step < rethreshold_every { 1e-5 } else { allowed.loss };
        assert!(error <= tolerance, "{what} step {step}: {} and {expected}", loss.total);
        if step == 0 {
            for module in file.names("first_grad.") {
                let id = by_checkpoint_name(learner.model, &format!("{module}.weight"));
                let expected = file.floats(&format!("first_grad.{module}"));
                assert_close(&module, &learner.grads.get(id, &learner.model.params).unwrap(), &expected, 2e-5);
            }
        }
    }

    println!("  {what}, {kernel:?}");
    check_scores_and_masks(&file, &learner, what, &allowed);
}

/// Compares the scores and masks at the end of a run.
fn check_scores_and_masks(file: &Tensors, learner: &Learner<'_>, what: &str, allowed: &Tolerance) {
    let (mut flipped, mut weights) = (0, 0);
    for module in file.names("score.") {
        let id = by_checkpoint_name(learner.model, &format!("{module}.weight"));
        let scores = learner.mode.scores().unwrap().of(learner.model, id).unwrap();
        let expected = file.floats(&format!("score.{module}"));
        assert_close(&module, scores, &expected, allowed.score);
        let mean =
            scores.iter().zip(&expected).map(|(&a, b)| (f64::from(a) - b).abs()).sum::<f64>() / expected.len() as f64;
        println!("  {module}: off by {mean:.1e} on the average");
        assert!(mean <= allowed.mean, "{module}: off by {mean:.1e} on the average");
        let mask = learner.mode.masks().unwrap().get(id).unwrap();
        let expected = file.floats(&format!("mask.{module}"));
        flipped += expected
            .iter()
            .enumerate()
            .filter(|&(i, &e)| mask.get(i / mask.cols(), i % mask.cols()) != (e > 0.5))
            .count();
        weights += mask.len();
    }
    println!("  {what}: {flipped} of {weights} mask bits differ");
    assert!(flipped * 1000 <= weights * allowed.bits, "{what}: {flipped} of {weights} mask bits differ");
}

#[test]
fn mask_training_on_mlm_is_that_of_pytorch() {
    for_each_kernel(|golden, kernel| reproduces(golden, "train_mlm", true, false, kernel));
}

#[test]
fn mask_training_on_distillation_is_that_of_pytorch() {
    for_each_kernel(|golden, kernel| reproduces(golden, "train_kd", false, true, kernel));
}

#[test]
fn mask_training_on_both_is_that_of_pytorch() {
    for_each_kernel(|golden, kernel| reproduces(golden, "train_mlm_kd", true, true, kernel));
}

#[test]
fn distillation_variants_are_those_of_autograd() {
    let none = KdSettings { representation: Representation::None, ..KdSettings::default() };
    let representations = [Representation::Full, Representation::Cls, Representation::LastLayer];
    let mut variants = vec![("attention".to_owned(), KdSettings { attention: true, ..none })];
    for (name, representation) in ["full", "cls", "last_layer"].into_iter().zip(representations) {
        for (suffix, distance) in [("mse", Distance::Mse), ("cosine", Distance::Cosine)] {
            let settings = KdSettings { representation, distance, ..none };
            variants.push((format!("representation.{name}.{suffix}"), settings));
        }
    }
    for (name, relation) in [("token", Relation::Token), ("sample", Relation::Sample)] {
        for (suffix, relation_span) in [("full", Span::Full), ("last_layer", Span::LastLayer)] {
            variants.push((format!("relation.{name}.{suffix}"), KdSettings { relation, relation_span, ..none }));
        }
    }
    for_each_kernel(|golden, kernel| {
        let Some(file) = golden.file("kd_variants") else { return };
        let mut model = golden.model();
        let mut learner = learner(&mut model, 0.5, false, OptimizerSettings::adamw(0.0), kernel);
        assert_eq!(file.names("loss.").len(), variants.len());
        for (name, kd) in &variants {
            let settings = ObjectiveSettings { mlm: false, kd: Some(*kd), mlm_probability: 0.15, dropout: Some(0.0) };
            let batch = TextBatch { tokens: file.batch(learner.model, "input_ids"), ..TextBatch::default() };
            let mut objective = Objective::new(settings, 0, Precision::F32);
            let loss = learner.losses_and_gradients(&mut objective, &batch, 0).unwrap();
            assert_close(name, &[loss.total as f32], &file.floats(&format!("loss.{name}")), 5e-5);
            for module in file.names(&format!("grad.{name}.")) {
                let id = by_checkpoint_name(learner.model, &format!("{module}.weight"));
                let expected = file.floats(&format!("grad.{name}.{module}"));
                assert_close(
                    &format!("{name} {module}"),
                    &learner.grads.get(id, &learner.model.params).unwrap(),
                    &expected,
                    5e-5,
                );
            }
        }
    });
}
