//! Forward, gradients of every weight, magnitude masks.

use tamt::magnitude::magnitude;
use tamt::prune::{Scope, Sparsity, pruned_matrices};
use tamt_kernels::{Precision, linear};
use tamt_model::{
    Activations, Batch, GradKind, Grads, HiddenGrads, KernelChoice, Masks, MlmGrads, Model, ParamId, Pass,
    PreparedWeights, Save, Trainable, Workspace,
};

use crate::files::{Golden, Tensors, assert_close, assert_close_above, for_each};

#[test]
fn hidden_states_and_logits_are_those_of_transformers() {
    for_each(|golden: &Golden| {
        let (model, Some(file)) = (golden.model(), golden.file("forward")) else { return };
        let batch = file.batch(&model, "input_ids");
        let activations = states(&model, &batch, Pass::default(), &file, Precision::F32, 1e-5);
        // The head is only ever run at masked positions, so its logits are read off its losses: every token as label.
        let logits = file.floats("logits");
        let vocab = model.config.vocab_size;
        for row in [0, batch.tokens() - 1] {
            let golden = &logits[row * vocab..][..vocab];
            let log_z = golden.iter().map(|l| l.exp()).sum::<f64>().ln();
            for label in [0, vocab / 2, vocab - 1] {
                let hidden = activations.last_hidden();
                let outcome =
                    model.mlm_loss(hidden, &[row as u32], &[label as u32], None, &mut Workspace::default()).unwrap();
                let expected = log_z - golden[label];
                assert!((outcome.loss_sum - expected).abs() < 2e-5, "{} and {expected}", outcome.loss_sum);
            }
        }
    });
}

/// The hidden states of a batch, each of which must be that of the file.
fn states(
    model: &Model,
    batch: &Batch,
    pass: Pass<'_>,
    file: &Tensors,
    precision: Precision,
    tolerance: f64,
) -> Activations {
    let mut activations = Activations::new(Save::Hidden);
    model.forward(batch, pass, &mut activations, &mut Workspace::new(precision));
    for l in 0..activations.hidden_count() {
        let name = format!("hidden.{l}");
        assert_close(&name, activations.hidden(l), &file.floats(&name), tolerance);
    }
    activations
}

#[test]
fn gradients_of_every_weight_are_those_of_autograd() {
    for_each(|golden: &Golden| {
        let (model, Some(file)) = (golden.model(), golden.file("mlm_grad")) else { return };
        let batch = file.batch(&model, "input_ids");
        let (positions, labels) = labels_of(&file, "labels");
        let trainable: Vec<Trainable> = model.params.ids().map(|id| Trainable { id, kind: GradKind::Weight }).collect();
        let mut grads = Grads::new(&model, &trainable);
        let loss = mlm_backward(&model, &batch, &positions, &labels, &mut grads, (Pass::default(), Precision::F32));
        assert_close("loss", &[loss as f32], &file.floats("loss"), 1e-5);
        for name in file.names("grad.") {
            let id = by_checkpoint_name(&model, &name);
            // The gradient of a key bias is zero in exact arithmetic: it shifts all scores of a query alike.
            let expected = file.floats(&format!("grad.{name}"));
            assert_close_above(&name, &grads.get(id, &model.params).unwrap(), &expected, 2e-5, 1e-3);
        }
    });
}

#[test]
fn magnitude_masks_are_those_of_the_reference() {
    for_each(|golden: &Golden| {
        let (model, Some(file)) = (golden.model(), golden.file("magnitude")) else { return };
        let ids = pruned_matrices(&model, None).unwrap();
        for share in ["0.3", "0.7", "0.9"] {
            let sparsity = Sparsity::new(share.parse().unwrap()).unwrap();
            let masks = magnitude(&model, &ids, sparsity, Scope::Local);
            let names = file.names(&format!("{share}."));
            assert_eq!(names.len(), masks.iter().count());
            for module in names {
                let mask = masks.get(by_checkpoint_name(&model, &format!("{module}.weight"))).unwrap();
                let expected = file.floats(&format!("{share}.{module}"));
                let ours = (0..mask.len()).map(|i| f64::from(u8::from(mask.get(i / mask.cols(), i % mask.cols()))));
                assert!(ours.eq(expected), "{share} {module}");
                assert_eq!((mask.len() - mask.count_ones()) as u64, sparsity.zeros(mask.len()));
            }
        }
    });
}

/// In bf16 an operand keeps eight bits: states and losses agree to a hundredth, gradients on the whole, with either kernel.
#[test]
fn in_bf16_states_losses_and_gradients_are_near_those_of_transformers() {
    for_each(|golden: &Golden| {
        let (model, Some(file)) = (golden.model(), golden.file("forward")) else { return };
        let masks = Masks::of_nonzero(&model);
        let sparse = PreparedWeights::for_training(&model, &masks, KernelChoice::SPARSE, Precision::Bf16);
        let passes = [Pass::default(), Pass::new(Some(&masks), Some(&sparse))];
        let batch = file.batch(&model, "input_ids");
        for pass in passes {
            states(&model, &batch, pass, &file, Precision::Bf16, 1e-2);
        }

        let Some(file) = golden.file("mlm_grad") else { return };
        let batch = file.batch(&model, "input_ids");
        let (positions, labels) = labels_of(&file, "labels");
        let trainable: Vec<Trainable> = model.params.ids().map(|id| Trainable { id, kind: GradKind::Weight }).collect();
        for pass in passes {
            let mut grads = Grads::new(&model, &trainable);
            let loss = mlm_backward(&model, &batch, &positions, &labels, &mut grads, (pass, Precision::Bf16));
            assert_close("loss", &[loss as f32], &file.floats("loss"), 1e-2);
            let (mut error, mut norm) = (0.0, 0.0);
            for name in file.names("grad.") {
                let ours = grads.get(by_checkpoint_name(&model, &name), &model.params).unwrap();
                for (ours, expected) in ours.iter().zip(file.floats(&format!("grad.{name}"))) {
                    error += (f64::from(*ours) - expected).powi(2);
                    norm += expected.powi(2);
                }
            }
            let error = (error / norm).sqrt();
            println!("  gradients: off by {error:.1e} of their norm");
            assert!((1e-5..1e-2).contains(&error), "gradients are off by {error:.1e} of their norm");
        }
    });
}

/// Runs forward and backward of the mean MLM loss without dropout.
fn mlm_backward(
    model: &Model,
    batch: &Batch,
    positions: &[u32],
    labels: &[u32],
    grads: &mut Grads,
    (pass, precision): (Pass<'_>, Precision),
) -> f64 {
    let mut activations = Activations::new(Save::All);
    let (mut workspace, mut d) = (Workspace::new(precision), HiddenGrads::default());
    grads.begin();
    model.forward(batch, pass, &mut activations, &mut workspace);
    d.begin(&activations);
    let top = activations.last_hidden();
    let scale = 1.0 / labels.len() as f32;
    let back = MlmGrads { scale, hidden: d.hidden_mut(model.layers.len(), top.len()), grads };
    let outcome = model.mlm_loss(top, positions, labels, Some(back), &mut workspace).unwrap();
    model.backward(batch, pass, &activations, &d, grads, &mut workspace);
    grads.finish();
    outcome.loss_sum / labels.len() as f64
}

/// Positions and labels of a `[batch, length]` label tensor in which -100 is nothing.
pub(crate) fn labels_of(file: &Tensors, name: &str) -> (Vec<u32>, Vec<u32>) {
    let (labels, _) = file.integers(name);
    labels.iter().enumerate().filter(|(_, l)| **l >= 0).map(|(i, &l)| (i as u32, l as u32)).unzip()
}

pub(crate) fn by_checkpoint_name(model: &Model, name: &str) -> ParamId {
    model.params.ids().find(|&id| model.params.spec(id).checkpoint_name == name).unwrap_or_else(|| panic!("no {name}"))
}

/// `W o B` acts as in the specification's worked example: forward, input gradient and straight-through score gradient.
#[test]
fn the_worked_example_of_a_masked_layer_holds() {
    let w = [0.3, -0.1, 0.05, 0.2];
    let mut mask = tamt_kernels::masks::BitMask::zeros(2, 2);
    mask.set(0, 0, true);
    mask.set(1, 1, true);
    let weight = tamt_kernels::masks::Weight { values: (&w).into(), rows: 2, cols: 2, mask: Some(&mask) };
    let (x, g) = ([1.0, 2.0], [1.0, -1.0]);
    let mut scratch = tamt_kernels::Scratch::default();
    let (mut y, mut dx, mut ds) = ([0.0; 2], [0.0; 2], [0.0; 4]);
    linear::forward(&x, weight, None, &mut y, &mut scratch);
    linear::backward_input(&g, weight, &mut dx, tamt_kernels::Write::Store, &mut scratch);
    linear::backward_weight(
        &g,
        &x,
        2,
        2,
        tamt_kernels::masks::GradEpilogue::Score((&w).into()),
        &mut ds,
        tamt_kernels::Write::Store,
        &mut scratch,
    );
    assert_close("y", &y, &[0.3, 0.4], 1e-6);
    assert_close("dx", &dx, &[0.3, -0.2], 1e-6);
    assert_close("ds", &ds, &[0.3, -0.2, -0.05, -0.4], 1e-6);
}
