//! The sparse and the dense kernel compute the same passes.

use tamt_kernels::Precision;
use tamt_kernels::Write;
use tamt_kernels::masks::BitMask;
use tamt_kernels::masks::gather;
use tamt_model::{
    Activations, Batch, Config, DropoutPlan, GradKind, Grads, HiddenGrads, KernelChoice, Masks, Model, ParamId, Parts,
    Pass, PreparedWeights, Save, Trainable, Workspace,
};

const CONFIG: &str = r#"{"model_type": "bert", "vocab_size": 50, "hidden_size": 72, "num_hidden_layers": 2,
    "num_attention_heads": 3, "intermediate_size": 200, "max_position_embeddings": 40, "type_vocab_size": 2}"#;

fn model() -> Model {
    let parts = Parts { pooler: true, mlm_head: false, task: None };
    let mut model = Model::random(Config::from_json(CONFIG).unwrap(), parts, 3);
    // Initial biases are zero: nonzero ones test the sums.
    for id in model.params.ids() {
        model.params.get_mut(id).iter_mut().enumerate().for_each(|(i, v)| *v = 5.0 * *v + 0.01 * ((i % 7) as f32));
    }
    model
}

/// Masks of all prunable matrices; matrix `n` has about `kept(n)` survivors in ten elements.
fn masks(model: &Model, kept: impl Fn(usize) -> usize) -> Masks {
    let mut masks = Masks::default();
    for (n, id) in model.prunable().into_iter().enumerate() {
        let [rows, cols] = model.params.matrix_shape(id);
        let mut mask = BitMask::zeros(rows, cols);
        for i in 0..rows * cols {
            mask.set(i / cols, i % cols, (i * 7919 + n * 31) % 1009 % 10 < kept(n));
        }
        masks.set(id, mask);
    }
    masks
}

fn batch(model: &Model) -> Batch {
    let mut batch = Batch::default();
    for length in [1, 40, 17, 33] {
        batch.push(&(0..length).map(|i| i * 13 % 50).collect::<Vec<u32>>());
    }
    batch.locate(&model.config);
    batch
}

/// Hidden states of a pass, and the gradients of a weighted sum of its last hidden states.
fn run(model: &Model, pass: Pass<'_>, grads: Grads) -> (Vec<Vec<f32>>, Grads) {
    run_in(Precision::F32, model, pass, grads)
}

fn run_in(precision: Precision, model: &Model, pass: Pass<'_>, mut grads: Grads) -> (Vec<Vec<f32>>, Grads) {
    let batch = batch(model);
    let (mut activations, mut workspace) = (Activations::new(Save::All), Workspace::new(precision));
    let mut d = HiddenGrads::default();
    grads.begin();
    model.forward(&batch, pass, &mut activations, &mut workspace);
    d.begin(&activations);
    let top = d.hidden_mut(model.layers.len(), activations.last_hidden().len());
    top.iter_mut().enumerate().for_each(|(i, d)| *d = if i % 3 == 0 { -0.5 } else { 0.25 });
    model.backward(&batch, pass, &activations, &d, &mut grads, &mut workspace);
    grads.finish();
    ((0..activations.hidden_count()).map(|l| activations.hidden(l).to_vec()).collect(), grads)
}

fn assert_close(a: &[f32], b: &[f32], what: &str) {
    assert_within(1e-5, a, b, what);
}

fn assert_within(tolerance: f32, a: &[f32], b: &[f32], what: &str) {
    let size = b.iter().fold(1e-3, |size: f32, v| size.max(v.abs()));
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(b) {
        assert!((a - b).abs() <= tolerance * size, "{what}: {a} and {b} of {size}");
    }
}

#[test]
fn both_kernels_give_the_same_states_and_gradients() {
    let model = model();
    let all: Vec<Trainable> = model.params.ids().map(|id| Trainable { id, kind: GradKind::Weight }).collect();
    let dropout = DropoutPlan::new(0.1, 0.1, 5, 0);
    // Empty, full and mixed densities; the last choice takes some of the matrices.
    for (kept, up_to) in [(3, 1.0), (0, 1.0), (10, 1.0), (11, 0.5)] {
        let masks = masks(&model, |n| if kept == 11 { n % 11 } else { kept });
        let dense = Pass::new(Some(&masks), None).with_dropout(dropout);
        let (states, gradients) = run(&model, dense, Grads::new(&model, &all));

        let choice = KernelChoice::sparse_up_to(up_to);
        let sparse = PreparedWeights::for_training(&model, &masks, choice, Precision::F32);
        let pass = Pass::new(Some(&masks), Some(&sparse)).with_dropout(dropout);
        let (sparse_states, sparse_gradients) = run(&model, pass, Grads::new(&model, &all));
        assert_eq!(sparse_states, states);
        for id in model.params.ids() {
            let name = &model.params.spec(id).name;
            if name.ends_with("key.bias") {
                continue; // Zero but for rounding: the bias adds the same to all scores of a query.
            }
            assert_close(
                &sparse_gradients.get(id, &model.params).unwrap(),
                &gradients.get(id, &model.params).unwrap(),
                name,
            );
        }

        let survivors = Trainable::weights(&model, Some(&masks));
        let mut compact_model = model.clone();
        masks.iter().for_each(|(id, mask)| compact_model.params.compact(id, mask));
        let of_compact = PreparedWeights::for_training(&compact_model, &masks, choice, Precision::F32);
        for prepared in [None, Some(&of_compact)] {
            let of_compact = Pass::new(Some(&masks), prepared).with_dropout(dropout);
            let (of_compact, compact) = run(&compact_model, of_compact, Grads::new(&compact_model, &survivors));
            assert_eq!(of_compact, states, "weights without their zeros give the same states");
            for Trainable { id, kind } in &survivors {
                if model.params.spec(*id).name.ends_with("key.bias") {
                    continue;
                }
                let mut expected = gradients.get(*id, &model.params).unwrap();
                if *kind == GradKind::Survivors {
                    let mask = masks.get(*id).unwrap();
                    let whole = std::mem::replace(&mut expected, vec![0.0; mask.count_ones()]);
                    gather(mask, &whole, &mut expected, Write::Store);
                }
                assert_close(
                    &compact.get(*id, &compact_model.params).unwrap(),
                    &expected,
                    &model.params.spec(*id).name,
                );
            }
        }
    }
}

/// Saved activations are rounded beside products in bf16, with either kernel.
#[test]
fn either_kernel_beside_bf16_is_close_to_f32() {
    let model = model();
    let masks = masks(&model, |n| 1 + n % 4);
    let scores: Vec<Trainable> = masks.iter().map(|(id, _)| Trainable { id, kind: GradKind::Score }).collect();
    let survivors = Trainable::weights(&model, Some(&masks));
    let fixed = PreparedWeights::for_training(&model, &masks, KernelChoice::SPARSE, Precision::Bf16);
    let in_passes = PreparedWeights::for_mask_training(&model, &masks, KernelChoice::SPARSE, Precision::Bf16);
    let mut compact = model.clone();
    masks.iter().for_each(|(id, mask)| compact.params.compact(id, mask));
    for (model, trainable, sparse) in [(&compact, &survivors, &fixed), (&model, &scores, &in_passes)] {
        let result = |precision, prepared| {
            let grads = Grads::new(model, trainable).in_precision(model, precision);
            let (mut states, grads) = run_in(precision, model, Pass::new(Some(&masks), prepared), grads);
            let layer_matrices = trainable.iter().filter(|t| model.layer_of(t.id).is_some());
            states.extend(layer_matrices.map(|t| grads.get(t.id, &model.params).unwrap()));
            states
        };
        let expected = result(Precision::F32, None);
        for prepared in [None, Some(sparse)] {
            for (i, (values, expected)) in result(Precision::Bf16, prepared).iter().zip(&expected).enumerate() {
                assert_within(3e-2, values, expected, &format!("{}, {i}", prepared.is_some()));
            }
        }
    }
}

/// The dense kernel computes gradients of scores under every choice.
#[test]
fn score_gradients_are_the_same_numbers_with_either_kernel() {
    let model = model();
    let masks = masks(&model, |n| 1 + n % 4);
    let trainable: Vec<Trainable> = masks.iter().map(|(id, _)| Trainable { id, kind: GradKind::Score }).collect();
    let sparse = PreparedWeights::for_training(&model, &masks, KernelChoice::SPARSE, Precision::F32);
    let in_passes = PreparedWeights::for_mask_training(&model, &masks, KernelChoice::SPARSE, Precision::F32);
    let some_in_passes =
        PreparedWeights::for_mask_training(&model, &masks, KernelChoice::sparse_up_to(0.35), Precision::F32);
    assert!(model.layer_matrices().all(|id| in_passes.is_sparse(id) && in_passes.sparse(id).is_none()));
    let results = [None, Some(&sparse), Some(&in_passes), Some(&some_in_passes)].map(|sparse| {
        let (states, grads) = run(&model, Pass::new(Some(&masks), sparse), Grads::new(&model, &trainable));
        (states, trainable.iter().map(|t| grads.get(t.id, &model.params).unwrap()).collect::<Vec<_>>())
    });
    for result in &results[1..] {
        assert_eq!(result, &results[0]);
    }
}

#[test]
fn sparse_weights_follow_weights_and_masks() {
    let mut model = model();
    let first = masks(&model, |_| 3);
    let choice = KernelChoice::sparse_up_to(0.45);
    let mut sparse = PreparedWeights::for_training(&model, &first, choice, Precision::F32);
    let mut in_passes = PreparedWeights::for_mask_training(&model, &first, choice, Precision::F32);
    for id in model.params.ids() {
        model.params.get_mut(id).iter_mut().for_each(|v| *v *= -1.5);
    }
    sparse.set_values(&model.params);
    let states = |masks: &Masks, sparse: Option<&PreparedWeights>| {
        run(&model, Pass::new(Some(masks), sparse), Grads::new(&model, &[])).0
    };
    assert_eq!(states(&first, Some(&sparse)), states(&first, None));

    // Some matrices become too dense for the sparse kernel, and then sparse enough again.
    let matrices: Vec<ParamId> = model.layer_matrices().collect();
    for kept in [6, 2] {
        let next = masks(&model, |n| if n % 2 == 0 { kept } else { 4 });
        sparse.set_masks(&model, &next);
        in_passes.set_masks(&model, &next);
        assert_eq!(states(&next, Some(&sparse)), states(&next, None));
        assert_eq!(states(&next, Some(&in_passes)), states(&next, None));
        for &id in &matrices {
            let is_sparse = choice.is_sparse(next.get(id).unwrap());
            assert_eq!([sparse.sparse(id).is_some(), in_passes.is_sparse(id)], [is_sparse; 2]);
        }
    }
}

#[test]
fn zeros_of_a_checkpoint_are_passed_over_in_inference() {
    let mut model = model();
    let masks = masks(&model, |n| if n == 2 { 9 } else { 3 });
    let choice = KernelChoice::sparse_up_to(0.45);
    let for_inference = |model: &Model| PreparedWeights::for_inference(model, None, choice, Precision::F32);
    let prepared = for_inference(&model);
    assert!(model.layer_matrices().all(|id| prepared.sparse(id).is_none() && prepared.dense(id).is_some()));
    for (id, mask) in masks.iter() {
        mask.mask_in_place(model.params.get_mut(id));
    }
    let sparse = for_inference(&model);
    for id in model.layer_matrices() {
        assert_eq!(sparse.sparse(id).is_some(), choice.is_sparse(masks.get(id).unwrap()));
    }
    let states = |sparse| run(&model, Pass::new(None, sparse), Grads::new(&model, &[])).0;
    assert_eq!(states(Some(&sparse)), states(None));
}

/// Sequences of up to 39 tokens, some of them empty, for several groups.
fn many_sequences() -> Vec<Vec<u32>> {
    (0..40).cycle().take(45).map(|length| (0..length).map(|i| (i * 13 + length) % 50).collect()).collect()
}

fn batch_of(model: &Model, sequences: &[Vec<u32>]) -> Batch {
    let mut batch = Batch::default();
    sequences.iter().for_each(|ids| batch.push(ids));
    batch.locate(&model.config);
    batch
}

/// A batch of several groups has the hidden states of each sequence alone, whatever is prepared and saved.
#[test]
fn groups_and_prepared_matrices_change_no_state() {
    let model = model();
    let masks = masks(&model, |n| 1 + n % 6);
    let sequences = many_sequences();
    for precision in [Precision::F32, Precision::Bf16] {
        let states = |batch: &Batch, pass, save, workspace: &mut Workspace| {
            let mut activations = Activations::new(save);
            model.forward(batch, pass, &mut activations, workspace);
            (0..activations.hidden_count()).map(|l| activations.hidden(l).to_vec()).collect::<Vec<_>>()
        };
        let mut workspace = Workspace::new(precision);
        let plain = Pass::new(Some(&masks), None);
        let mut alone = |save| {
            let mut all = vec![Vec::new(); model.layers.len() + 1];
            for ids in &sequences {
                let states = states(&batch_of(&model, std::slice::from_ref(ids)), plain, save, &mut workspace);
                all.iter_mut().zip(states).for_each(|(all, alone)| all.extend(alone));
            }
            all
        };
        let batch = batch_of(&model, &sequences);
        assert!(batch.tokens() > 700, "several groups");
        let prepared = PreparedWeights::for_inference(&model, Some(&masks), KernelChoice::DENSE, precision);
        let prepared = Pass::new(Some(&masks), Some(&prepared));
        // Where f32 arithmetic multiplies rounded operands, attention sees rounded Q, K and V only if they are saved rounded.
        let saves_round_alike = precision.effective() == precision;
        for save in [Save::All, Save::AllAndAttention, Save::HiddenAndAttention, Save::Hidden, Save::Hidden] {
            let expected = alone(if saves_round_alike { Save::All } else { save });
            for pass in [plain, prepared] {
                let states = states(&batch, pass, save, &mut Workspace::new(precision));
                assert!(states == expected, "{precision:?}, {save:?}");
            }
        }
        let expected = alone(if saves_round_alike { Save::All } else { Save::Hidden });
        for pass in [plain, prepared] {
            let mut activations = Activations::new(Save::Last);
            let mut workspace = Workspace::new(precision);
            for batch in [&batch_of(&model, &sequences[..2]), &batch] {
                model.forward(batch, pass, &mut activations, &mut workspace);
            }
            assert!(
                Some(activations.last_hidden()) == expected.last().map(Vec::as_slice),
                "{precision:?}, the last ones alone"
            );
        }
    }
}

/// The gradients of a batch of several groups are the sums of the gradients of each sequence alone.
#[test]
fn gradients_of_groups_add_up() {
    let model = model();
    let all: Vec<Trainable> = model.params.ids().map(|id| Trainable { id, kind: GradKind::Weight }).collect();
    let masks = masks(&model, |n| 2 + n % 6);
    let sparse = PreparedWeights::for_training(&model, &masks, KernelChoice::SPARSE, Precision::F32);
    for pass in [Pass::new(Some(&masks), None), Pass::new(Some(&masks), Some(&sparse))] {
        let gradients = |sequences: &[Vec<u32>]| {
            let batch = batch_of(&model, sequences);
            let (mut activations, mut workspace) = (Activations::new(Save::All), Workspace::default());
            let (mut d, mut grads) = (HiddenGrads::default(), Grads::new(&model, &all));
            grads.begin();
            model.forward(&batch, pass, &mut activations, &mut workspace);
            d.begin(&activations);
            let top = d.hidden_mut(model.layers.len(), activations.last_hidden().len());
            top.iter_mut().enumerate().for_each(|(i, d)| *d = if i % 72 % 3 == 0 { -0.5 } else { 0.25 });
            model.backward(&batch, pass, &activations, &d, &mut grads, &mut workspace);
            grads.finish();
            grads
        };
        let sequences = many_sequences();
        let together = gradients(&sequences);
        let alone: Vec<Grads> = sequences.iter().map(|ids| gradients(std::slice::from_ref(ids))).collect();
        for id in model.params.ids() {
            let (name, together) = (&model.params.spec(id).name, together.get(id, &model.params).unwrap());
            if name.ends_with("key.bias") {
                continue; // Zero but for rounding: the bias adds the same to all scores of a query.
            }
            let mut sums = vec![0.0f64; together.len()];
            for alone in &alone {
                sums.iter_mut().zip(alone.get(id, &model.params).unwrap()).for_each(|(sum, v)| *sum += f64::from(v));
            }
            let sums: Vec<f32> = sums.into_iter().map(|v| v as f32).collect();
            assert_close(&together, &sums, name);
        }
    }
}

/// Products in bf16 round their matrices, dense or sparse, so matrices stored in bf16 give the same bits.
#[test]
fn rounded_matrices_change_no_product_in_bf16() {
    let masks = masks(&model(), |n| 1 + n % 6);
    for choice in [None, Some(KernelChoice::DENSE), Some(KernelChoice::SPARSE)] {
        let mut model = model();
        let batch = batch(&model);
        let states = |model: &Model| {
            let (mut activations, mut workspace) = (Activations::new(Save::Hidden), Workspace::new(Precision::Bf16));
            let prepare = |choice| PreparedWeights::for_inference(model, Some(&masks), choice, Precision::Bf16);
            let prepared = choice.map(prepare);
            model.forward(&batch, Pass::new(Some(&masks), prepared.as_ref()), &mut activations, &mut workspace);
            activations.last_hidden().to_vec()
        };
        let expected = states(&model);
        let matrices: Vec<ParamId> = model.layer_matrices().collect();
        matrices.into_iter().for_each(|id| model.params.round(id));
        assert_eq!(states(&model), expected, "{choice:?}");
    }
}
