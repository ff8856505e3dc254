//! Gradients of whole models against finite differences, and what dropout and the MLM head's activation mean.

use tamt_kernels::Precision;
use tamt_kernels::masks::BitMask;
use tamt_model::{
    Activations, Batch, Config, DropoutPlan, GradKind, Grads, HiddenGrads, Masks, MlmGrads, Model, ParamId, Parts,
    Pass, Save, TaskKind, Trainable, Workspace,
};

const VOCABULARY: u32 = 40;
const POSITIONS: [u32; 7] = [1, 2, 5, 8, 9, 11, 12];
const LABELS: [u32; 7] = [7, 21, 39, 8, 8, 30, 11];

fn config(family: &str, others: &str) -> Config {
    let text = format!(
        r#"{{"model_type": "{family}", "vocab_size": {VOCABULARY}, "hidden_size": 16, "num_hidden_layers": 2,
            "num_attention_heads": 2, "intermediate_size": 24, "max_position_embeddings": 14, "type_vocab_size": 2,
            "initializer_range": 0.3{others}}}"#
    );
    Config::from_json(&text).unwrap()
}

/// A model whose biases and `LayerNorm`s are not those of a new one.
fn model(config: Config) -> Model {
    let mut model = Model::random(config, Parts { pooler: false, mlm_head: true, task: None }, 3);
    for id in model.params.ids() {
        model.params.get_mut(id).iter_mut().enumerate().for_each(|(i, v)| *v += 0.03 * (i % 7) as f32 - 0.09);
    }
    model
}

fn batch(config: &Config) -> Batch {
    let mut batch = Batch::default();
    for length in [8, 5] {
        batch.push(&(0..length).map(|i| 5 + i * 11 % (VOCABULARY - 5)).collect::<Vec<u32>>());
    }
    batch.locate(config);
    batch
}

/// Masks that keep two thirds of the elements.
fn masks(model: &Model) -> Masks {
    let mut masks = Masks::default();
    for (n, id) in model.prunable().into_iter().enumerate() {
        let [rows, cols] = model.params.matrix_shape(id);
        let mut mask = BitMask::zeros(rows, cols);
        (0..rows * cols).for_each(|i| mask.set(i / cols, i % cols, (i * 7919 + 31 * n) % 1009 % 3 > 0));
        masks.set(id, mask);
    }
    masks
}

/// The mean MLM loss, and the gradients of all weights.
fn loss(model: &Model, pass: Pass<'_>, gradients: bool) -> (f64, Grads) {
    let batch = batch(&model.config);
    let all: Vec<Trainable> = model.params.ids().map(|id| Trainable { id, kind: GradKind::Weight }).collect();
    let mut grads = Grads::new(model, &all);
    let (mut activations, mut workspace) = (Activations::new(Save::All), Workspace::new(Precision::F32));
    let mut d = HiddenGrads::default();
    grads.begin();
    model.forward(&batch, pass, &mut activations, &mut workspace);
    d.begin(&activations);
    let top = activations.last_hidden();
    let hidden = d.hidden_mut(model.layers.len(), top.len());
    let back = MlmGrads { scale: 1.0 / LABELS.len() as f32, hidden, grads: &mut grads };
    let sums = model.mlm_loss(top, &POSITIONS, &LABELS, gradients.then_some(back), &mut workspace).unwrap();
    if gradients {
        model.backward(&batch, pass, &activations, &d, &mut grads, &mut workspace);
    }
    grads.finish();
    (sums.loss_sum / LABELS.len() as f64, grads)
}

/// Expects that the loss changes along `direction` as its gradient says.
fn assert_slope(model: &Model, pass: Pass<'_>, id: ParamId, gradient: &[f32], direction: &[f32]) {
    let length = direction.iter().map(|&d| f64::from(d).powi(2)).sum::<f64>().sqrt();
    let expected = direction.iter().zip(gradient).map(|(&d, &g)| f64::from(d) * f64::from(g)).sum::<f64>() / length;
    let at = |distance: f64| {
        let mut moved = model.clone();
        let step = (distance / length) as f32;
        moved.params.get_mut(id).iter_mut().zip(direction).for_each(|(w, d)| *w += step * d);
        loss(&moved, pass, false).0
    };
    let distance = 0.01;
    let slope = (at(distance) - at(-distance)) / (2.0 * distance);
    // Losses carry 1e-7 of rounding.
    let tolerance = 0.01 * expected.abs() + 1e-4;
    let name = &model.params.spec(id).name;
    assert!((slope - expected).abs() <= tolerance, "{name}: the loss has slope {slope}, the gradient says {expected}");
}

#[test]
fn gradients_of_whole_models_with_dropout_are_those_of_finite_differences() {
    for family in ["bert", "roberta"] {
        let model = model(config(family, r#", "hidden_act": "gelu_new""#));
        let masks = masks(&model);
        for masks in [None, Some(&masks)] {
            let pass = Pass::new(masks, None).with_dropout(DropoutPlan::new(0.2, 0.3, 7, 2));
            let (with, grads) = loss(&model, pass, true);
            assert!((with - loss(&model, Pass::new(masks, None), false).0).abs() > 1e-3, "dropout changes the loss");
            let mut steep = 0;
            for id in model.params.ids() {
                let gradient = grads.get(id, &model.params).unwrap();
                if model.params.spec(id).name.ends_with("key.bias") {
                    continue; // Zero but for rounding: the bias adds the same to all scores of a query.
                }
                assert_slope(&model, pass, id, &gradient, &gradient);
                // Another direction: one half of the elements against the other.
                let other: Vec<f32> =
                    gradient.iter().enumerate().map(|(i, &g)| if i % 3 == 0 { -g } else { g }).collect();
                assert_slope(&model, pass, id, &gradient, &other);
                steep += usize::from(gradient.iter().any(|g| g.abs() > 1e-3));
            }
            assert!(steep > 30, "{steep} tensors have a gradient to speak of");
        }
    }
}

/// The decoder is the unmasked table: a dropped embedding weight has the decoder's gradient, and none of the lookup.
#[test]
fn a_dropped_weight_of_tied_embeddings_has_the_gradient_of_the_decoder_alone() {
    for family in ["bert", "roberta"] {
        let model = model(config(family, ""));
        let word = model.embeddings.word;
        let mut masks = Masks::default();
        masks.set(word, self::masks(&model).get(word).unwrap().clone());
        let pass = Pass::new(Some(&masks), None).with_dropout(DropoutPlan::new(0.2, 0.2, 7, 2));
        let gradient = loss(&model, pass, true).1.get(word, &model.params).unwrap();
        let mask = masks.get(word).unwrap();
        let dropped = |i: usize| !mask.get(i / mask.cols(), i % mask.cols());
        let at_dropped: Vec<f32> =
            gradient.iter().enumerate().map(|(i, &g)| if dropped(i) { g } else { 0.0 }).collect();
        let nonzero = at_dropped.iter().filter(|g| **g != 0.0).count();
        assert_eq!(nonzero, mask.len() - mask.count_ones(), "every token is a possible prediction");
        assert_slope(&model, pass, word, &gradient, &at_dropped);

        // With all weights dropped, the lookup contributes nothing anywhere.
        let [rows, cols] = model.params.matrix_shape(word);
        masks.set(word, BitMask::zeros(rows, cols));
        let pass = Pass::new(Some(&masks), None);
        let gradient = loss(&model, pass, true).1.get(word, &model.params).unwrap();
        assert_slope(&model, pass, word, &gradient, &gradient);
    }
}

#[test]
fn the_mlm_head_of_roberta_uses_the_exact_gelu_and_that_of_bert_hidden_act() {
    for family in ["bert", "roberta"] {
        let hidden: Vec<f32> = (0..13 * 16).map(|i| ((i * 37 % 101) as f32 - 50.0) / 25.0).collect();
        let losses = ["gelu", "gelu_new", "relu"].map(|act| {
            let model = model(config(family, &format!(r#", "hidden_act": "{act}""#)));
            let (mut workspace, mut d) = (Workspace::default(), vec![0.0; hidden.len()]);
            let mut grads = Grads::new(&model, &[]);
            let back = MlmGrads { scale: 1.0, hidden: &mut d, grads: &mut grads };
            let loss = model.mlm_loss(&hidden, &POSITIONS, &LABELS, Some(back), &mut workspace).unwrap().loss_sum;
            (loss, d)
        });
        if family == "roberta" {
            assert!(losses.iter().all(|other| *other == losses[0]));
        } else {
            assert!(losses[0].0 != losses[1].0 && losses[0].0 != losses[2].0 && losses[0].1 != losses[1].1);
        }
    }
}

/// Scores of a sequence head in training step `step`.
fn logits(family: &str, rates: &str, flag: Option<f32>, step: u64) -> Vec<f32> {
    let parts = Parts { pooler: family == "bert", mlm_head: false, task: Some(TaskKind::Sequence { outputs: 3 }) };
    let model = Model::random(config(family, rates), parts, 3);
    let hidden: Vec<f32> = (0..13 * 16).map(|i| ((i * 37 % 101) as f32 - 50.0) / 25.0).collect();
    let pass = Pass::default().with_dropout(DropoutPlan::for_step(&model.config, flag, 5, step));
    let mut logits = Vec::new();
    model.task_forward(&hidden, &batch(&model.config), pass, &mut logits, &mut Workspace::default());
    logits
}

/// As in transformers: `classifier_dropout` if it is not null, else `hidden_dropout_prob`.
#[test]
fn a_head_has_its_own_dropout_rate_and_a_given_rate_overrides_both() {
    const NONE: &str = r#", "hidden_dropout_prob": 0.0"#;
    const HEAD_ALONE: &str = r#", "hidden_dropout_prob": 0.0, "classifier_dropout": 0.5"#;
    const BODY_ALONE: &str = r#", "hidden_dropout_prob": 0.5, "classifier_dropout": 0"#;
    const NULL: &str = r#", "hidden_dropout_prob": 0.5, "classifier_dropout": null"#;
    for family in ["bert", "roberta"] {
        let plain = logits(family, NONE, None, 0);
        assert_ne!(logits(family, HEAD_ALONE, None, 0), plain, "the head drops although the body does not");
        assert_ne!(
            logits(family, HEAD_ALONE, None, 0),
            logits(family, HEAD_ALONE, None, 1),
            "other elements each step"
        );
        assert_eq!(logits(family, BODY_ALONE, None, 0), plain);
        assert_eq!(logits(family, NULL, None, 0), logits(family, HEAD_ALONE, None, 0), "the same rate");
        assert_eq!(logits(family, HEAD_ALONE, Some(0.0), 0), plain);
        let rate = logits(family, NONE, Some(0.3), 0);
        assert_ne!(rate, plain);
        for rates in [HEAD_ALONE, BODY_ALONE, NULL] {
            assert_eq!(logits(family, rates, Some(0.3), 0), rate);
        }
    }
}
