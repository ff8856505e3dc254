//! Fine-tuning of a ticket step by step: masked weights stay zero, everything else trains.

use tamt::magnitude::magnitude;
use tamt::prune::{Scope, Sparsity, pruned_matrices};
use tamt::train::{Learner, OptimizerSettings, Schedule, Shape};
use tamt::{Compute, Kernel};
use tamt_kernels::Precision;
use tamt_kernels::ops::cross_entropy;
use tamt_model::{
    Activations, Batch, GradKind, HeadStart, HiddenGrads, Masks, Model, Save, TaskKind, Trainable, Workspace,
};

use crate::files::{Golden, Tensors, assert_close, assert_close_above, for_each};
use crate::model::by_checkpoint_name;

#[test]
fn fine_tuning_a_ticket_is_that_of_pytorch() {
    for_each(|golden| reproduces(golden, Kernel::Dense, every_weight));
}

/// Dropped weights have no gradients and moments at all, and either kernel computes those of the others.
#[test]
fn fine_tuning_the_survivors_alone_is_that_of_pytorch() {
    for_each(|golden| {
        for kernel in [Kernel::Dense, Kernel::Sparse] {
            reproduces(golden, kernel, |model, masks| Trainable::weights(model, Some(masks)));
        }
    });
}

fn every_weight(model: &Model, _: &Masks) -> Vec<Trainable> {
    model.params.ids().map(|id| Trainable { id, kind: GradKind::Weight }).collect()
}

fn reproduces(golden: &Golden, kernel: Kernel, trainable: fn(&Model, &Masks) -> Vec<Trainable>) {
    let Some(file) = golden.file("tune") else { return };
    let directory = golden.folder.join(golden.kind).join("classifier");
    let mut model = Model::load_for_task(&directory, TaskKind::Sequence { outputs: 3 }, HeadStart::Checkpoint).unwrap();
    let ids = pruned_matrices(&model, None).unwrap();
    let masks = magnitude(&model, &ids, Sparsity::new(0.7).unwrap(), Scope::Local);
    apply(&mut model, &masks);
    let trainable = trainable(&model, &masks);
    let optimizer = OptimizerSettings::adamw(5e-4);
    let compute = Compute { kernel, precision: Precision::F32 };
    let mut learner = Learner::of_masked_weights(&mut model, masks, &trainable, optimizer, compute);
    let schedule = Schedule { shape: Shape::Linear, warmup_steps: 0, horizon: 100 };
    let mut activations = Activations::new(Save::All);
    let (mut workspace, mut d, mut logits) = (Workspace::default(), HiddenGrads::default(), Vec::new());

    let losses = file.floats("losses");
    let mut batch = Batch::default();
    for (step, expected) in losses.iter().enumerate() {
        batch = typed_batch(&file, learner.model, step);
        let labels: Vec<u32> = file.integers(&format!("step.{step}.labels")).0.iter().map(|&l| l as u32).collect();
        let Learner { model, mode, grads, .. } = &mut learner;
        let pass = mode.pass();
        grads.begin();
        model.forward(&batch, pass, &mut activations, &mut workspace);
        d.begin(&activations);
        let top = activations.last_hidden();
        model.task_forward(top, &batch, pass, &mut logits, &mut workspace);
        let outcome = cross_entropy::forward_backward(&mut logits, &labels, 1.0 / labels.len() as f32);
        let loss = outcome.loss_sum / labels.len() as f64;
        assert!((loss - expected).abs() <= 1e-5 * expected, "step {step}: {loss} and {expected}");
        let d_top = d.hidden_mut(model.layers.len(), top.len());
        model.task_backward(&logits, top, pass, d_top, grads, &mut workspace);
        model.backward(&batch, pass, &activations, &d, grads, &mut workspace);
        grads.finish();
        learner.update(optimizer.learning_rate * schedule.factor(step as u64));
    }

    let pass = learner.mode.pass();
    learner.model.forward(&batch, pass, &mut activations, &mut workspace);
    learner.model.task_forward(activations.last_hidden(), &batch, pass, &mut logits, &mut workspace);
    assert_close("final_logits", &logits, &file.floats("final_logits"), 1e-4);
    for name in file.names("final.") {
        let values = learner.model.params.get(by_checkpoint_name(learner.model, &name));
        // The gradient of a key bias is zero but for rounding, which the optimiser magnifies.
        let floor = if name.ends_with("key.bias") { 1.0 } else { 1e-30 };
        assert_close_above(&name, &values, &file.floats(&format!("final.{name}")), 1e-4, floor);
    }
    for (id, mask) in learner.mode.masks().unwrap().iter() {
        let values = learner.model.params.get(id);
        let pruned = (0..mask.len()).filter(|i| !mask.get(i / mask.cols(), i % mask.cols()));
        assert!(pruned.into_iter().all(|i| values[i] == 0.0), "pruned weights stay exactly zero");
    }
}

fn apply(model: &mut Model, masks: &Masks) {
    for (id, mask) in masks.iter() {
        mask.mask_in_place(model.params.get_mut(id));
    }
}

/// The batch of a step with its segment ids.
fn typed_batch(file: &Tensors, model: &Model, step: usize) -> Batch {
    let mut batch = file.batch(model, &format!("step.{step}.input_ids"));
    let (types, _) = file.integers(&format!("step.{step}.token_type_ids"));
    batch.type_ids = types.iter().map(|&t| (t as u32).min(model.config.type_vocab_size as u32 - 1)).collect();
    batch
}
