//! Distillation from a fine-tuned dense teacher, beside the labels.

use tamt_kernels::ops::distance;
use tamt_kernels::ops::task_loss::{Distributions, soft_cross_entropy};
use tamt_model::{Activations, Batch, HiddenGrads, Model, Pass, Save, Workspace};

use crate::compute::Compute;
use crate::error::{Error, Result};
use crate::tune::inputs::Targets;
use crate::tune::settings::DistillSettings;

/// A dense model, fine-tuned on the same task, whose outputs and hidden states are targets of the training.
#[derive(Debug)]
pub(crate) struct Teacher<'m> {
    model: &'m Model,
    settings: DistillSettings,
    activations: Activations,
    logits: Vec<f32>,
    /// Separate from the student's workspace, which holds saved activations of the student's head.
    workspace: Workspace,
}

/// Checks that `teacher` can teach `student`: the same family and vocabulary, as many positions, and with a hidden
/// weight above 0 the same width and a multiple of the student's layers.
///
/// # Errors
/// [`Error::TeacherStates`] for the width and the layers, [`Error::Setting`] for all else.
pub fn check_teacher(teacher: &Model, student: &Model, settings: DistillSettings) -> Result<()> {
    let (ours, theirs) = (&student.config, &teacher.config);
    if settings.hidden_weight > 0.0 {
        if ours.hidden_size != theirs.hidden_size {
            let (theirs, ours) = (theirs.hidden_size, ours.hidden_size);
            let reason = format!("its hidden states are {theirs} wide and the model's {ours}");
            return Err(Error::TeacherStates { reason });
        }
        if !theirs.num_hidden_layers.is_multiple_of(ours.num_hidden_layers) {
            let (theirs, ours) = (theirs.num_hidden_layers, ours.num_hidden_layers);
            let reason = format!("its {theirs} layers are no multiple of the model's {ours}");
            return Err(Error::TeacherStates { reason });
        }
    }
    if theirs.family != ours.family || theirs.type_vocab_size < ours.type_vocab_size {
        return Err(Error::setting("teacher", "it is of another kind of encoder than the model"));
    }
    if theirs.vocab_size != ours.vocab_size {
        return Err(Error::setting("teacher", "it has another vocabulary than the model"));
    }
    if theirs.max_length() < ours.max_length() {
        return Err(Error::setting("teacher", "it has fewer positions than the model"));
    }
    Ok(())
}

impl<'m> Teacher<'m> {
    pub(super) fn new(model: &'m Model, student: &Model, settings: DistillSettings, compute: Compute) -> Result<Self> {
        check_teacher(model, student, settings)?;
        let activations = Activations::new(Save::Hidden);
        Ok(Self { model, settings, activations, logits: Vec::new(), workspace: compute.workspace() })
    }

    /// `logits_weight * mean t² KL(teacher / t || student / t) + hidden_weight * mean (1 - cos)`, the first mean over
    /// outputs at temperature `t`, the second over hidden states; for regression, the squared difference of the outputs
    /// takes the place of the divergence. Adds the gradients to `d_logits` and `d`.
    pub(super) fn losses(
        &mut self,
        batch: &Batch,
        student: &Activations,
        logits: &[f32],
        targets: &Targets,
        d_logits: &mut [f32],
        d: &mut HiddenGrads,
    ) -> f64 {
        let pass = Pass::default();
        self.model.forward(batch, pass, &mut self.activations, &mut self.workspace);
        let top = self.activations.last_hidden();
        self.model.task_forward(top, batch, pass, &mut self.logits, &mut self.workspace);
        let DistillSettings { temperature, logits_weight, hidden_weight } = self.settings;
        let mut total = 0.0;
        if logits_weight > 0.0 {
            let groups = match targets {
                Targets::Spans(_) => Distributions::Spans { bounds: &batch.bounds },
                Targets::Classes(_) | Targets::Values(_) => {
                    Distributions::Rows { classes: logits.len() / batch.sequences().max(1) }
                }
            };
            let mean = 1.0 / groups.count(logits.len()).max(1) as f64;
            let weight = (f64::from(logits_weight) * mean) as f32;
            let loss = mean
                * match targets {
                    Targets::Values(_) => distance::mse(logits, &self.logits, weight, Some(d_logits)),
                    _ => soft_cross_entropy(logits, &self.logits, groups, temperature, weight, d_logits),
                };
            total += f64::from(logits_weight) * loss;
        }
        if hidden_weight > 0.0 {
            let layers = student.hidden_count() - 1;
            let stride = self.model.layers.len() / layers;
            let width = self.model.config.hidden_size;
            let share = 1.0 / (layers * batch.tokens().max(1)) as f64;
            for layer in 1..=layers {
                let (s, t) = (student.hidden(layer), self.activations.hidden(layer * stride));
                let weight = (f64::from(hidden_weight) * share) as f32;
                let sum = distance::cosine(s, t, width, weight, Some(d.hidden_mut(layer, s.len())));
                total += f64::from(hidden_weight) * share * sum;
            }
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use tamt_model::{Parts, TaskKind};

    use super::*;
    use crate::testing::tiny_model;

    const CLASSES: TaskKind = TaskKind::Sequence { outputs: 3 };

    /// A model of this many layers, 16 wide. Its weights are so large that each layer changes the states.
    fn model(layers: usize, task: TaskKind, seed: u64) -> Model {
        let mut config = tiny_model().config;
        config.num_hidden_layers = layers;
        config.initializer_range = 0.5;
        Model::random(config, Parts { pooler: true, mlm_head: false, task: Some(task) }, seed)
    }

    /// Hidden states and outputs.
    fn outputs(model: &Model, batch: &Batch) -> (Activations, Vec<f32>) {
        let (mut activations, mut workspace) = (Activations::new(Save::Hidden), Compute::default().workspace());
        let (pass, mut logits) = (Pass::default(), Vec::new());
        model.forward(batch, pass, &mut activations, &mut workspace);
        model.task_forward(activations.last_hidden(), batch, pass, &mut logits, &mut workspace);
        (activations, logits)
    }

    fn to_f64(values: &[f32]) -> Vec<f64> {
        values.iter().copied().map(f64::from).collect()
    }

    /// What a student of two layers gets from a teacher of four for three sequences of nine tokens.
    struct Lesson {
        student: Activations,
        teacher: Activations,
        student_logits: Vec<f64>,
        teacher_logits: Vec<f64>,
        loss: f64,
        /// What was added to the gradient of the student's logits.
        d_logits: Vec<f64>,
        /// What was added to the gradient of each hidden state, the embeddings first.
        d_hidden: Vec<Vec<f64>>,
    }

    impl Lesson {
        fn new(task: TaskKind, targets: &Targets, settings: DistillSettings) -> Self {
            let (of_student, of_teacher) = (model(2, task, 1), model(4, task, 2));
            let mut batch = Batch::default();
            batch.push(&[2, 17, 33, 3]);
            batch.push(&[2, 8, 3]);
            batch.push(&[5, 41]);
            batch.locate(&of_student.config);
            let (student, logits) = outputs(&of_student, &batch);
            let (teacher, teacher_logits) = outputs(&of_teacher, &batch);

            // Gradients of the labels' loss are there already.
            let (mut d_logits, mut d, len) = (vec![1.0; logits.len()], HiddenGrads::default(), 9 * 16);
            d.begin(&student);
            (0..=2).for_each(|state| d.hidden_mut(state, len).fill(1.0));
            let mut teaching = Teacher::new(&of_teacher, &of_student, settings, Compute::default()).unwrap();
            let loss = teaching.losses(&batch, &student, &logits, targets, &mut d_logits, &mut d);
            let added = |gradient: &[f32]| gradient.iter().map(|&d| f64::from(d) - 1.0).collect::<Vec<_>>();
            let d_hidden = (0..=2).map(|state| added(d.hidden_mut(state, len))).collect();
            let (student_logits, teacher_logits) = (to_f64(&logits), to_f64(&teacher_logits));
            Self { student, teacher, student_logits, teacher_logits, loss, d_logits: added(&d_logits), d_hidden }
        }

        #[track_caller]
        fn assert_loss(&self, expected: f64) {
            assert!((self.loss - expected).abs() < 1e-5 * expected.max(1.0), "{} {expected}", self.loss);
        }

        /// The loss and the gradient are those of `weight * mean t² KL(teacher / t || student / t)` over the softmax
        /// distributions of these logits.
        #[track_caller]
        fn assert_mean_divergence(&self, weight: f64, t: f64, distributions: &[Vec<usize>]) {
            let share = weight / distributions.len() as f64;
            let (mut loss, mut gradient) = (0.0, vec![0.0; self.d_logits.len()]);
            for chosen in distributions {
                let softmax = |logits: &[f64]| {
                    let exps: Vec<f64> = chosen.iter().map(|&i| (logits[i] / t).exp()).collect();
                    let total: f64 = exps.iter().sum();
                    exps.into_iter().map(|e| e / total).collect::<Vec<_>>()
                };
                let (student, teacher) = (softmax(&self.student_logits), softmax(&self.teacher_logits));
                for ((&i, p), q) in chosen.iter().zip(student).zip(teacher) {
                    loss += share * t * t * q * (q / p).ln();
                    gradient[i] += share * t * (p - q);
                }
            }
            self.assert_loss(loss);
            assert_close(&self.d_logits, &gradient);
            assert!(self.d_hidden.iter().flatten().all(|&d| d == 0.0));
        }
    }

    #[track_caller]
    fn assert_close(found: &[f64], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
            assert!((found - expected).abs() < 1e-6, "{i}: {found} {expected}");
        }
    }

    /// `1 - cos(s, t)`, and its gradient with respect to `s`.
    fn cosine_distance(s: &[f64], t: &[f64]) -> (f64, Vec<f64>) {
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let (norm_s, norm_t) = (dot(s, s).sqrt(), dot(t, t).sqrt());
        let cosine = dot(s, t) / (norm_s * norm_t);
        let gradient = s.iter().zip(t).map(|(s, t)| cosine * s / (norm_s * norm_s) - t / (norm_s * norm_t));
        (1.0 - cosine, gradient.collect())
    }

    #[test]
    fn each_layer_learns_the_states_of_the_teacher_s_layer_at_the_same_share_of_the_depth() {
        let settings = DistillSettings { temperature: 2.0, logits_weight: 0.0, hidden_weight: 0.75 };
        let lesson = Lesson::new(CLASSES, &Targets::Classes(vec![0, 1, 2]), settings);
        // The mean over two layers of nine tokens.
        let (share, mut loss) = (0.75 / 18.0, 0.0);
        for layer in [1, 2] {
            let (s, t) = (to_f64(lesson.student.hidden(layer)), to_f64(lesson.teacher.hidden(2 * layer)));
            let mut gradient = Vec::new();
            for (s, t) in s.chunks(16).zip(t.chunks(16)) {
                let (distance, d) = cosine_distance(s, t);
                loss += share * distance;
                gradient.extend(d.iter().map(|d| share * d));
            }
            assert_close(&lesson.d_hidden[layer], &gradient);
        }
        lesson.assert_loss(loss);
        assert!(lesson.d_hidden[0].iter().chain(&lesson.d_logits).all(|&d| d == 0.0));
    }

    #[test]
    fn scores_of_classes_learn_the_teacher_s_at_a_temperature() {
        let settings = DistillSettings { temperature: 2.0, logits_weight: 0.5, hidden_weight: 0.0 };
        let lesson = Lesson::new(CLASSES, &Targets::Classes(vec![0, 1, 2]), settings);
        let rows: Vec<Vec<usize>> = (0..3).map(|row| (3 * row..3 * row + 3).collect()).collect();
        lesson.assert_mean_divergence(0.5, 2.0, &rows);
    }

    #[test]
    fn scores_of_spans_learn_the_teacher_s_starts_and_ends_in_each_sequence() {
        let settings = DistillSettings { temperature: 2.0, logits_weight: 0.5, hidden_weight: 0.0 };
        let lesson = Lesson::new(TaskKind::Span, &Targets::Spans(vec![(0, 3), (1, 1), (0, 1)]), settings);
        let sequences = [0..4, 4..7, 7..9];
        let column =
            |c: usize| sequences.iter().map(move |tokens| tokens.clone().map(|t| 2 * t + c).collect::<Vec<usize>>());
        lesson.assert_mean_divergence(0.5, 2.0, &column(0).chain(column(1)).collect::<Vec<_>>());
    }

    #[test]
    fn values_learn_the_teacher_s_by_the_mean_squared_difference_whatever_the_temperature() {
        let settings = DistillSettings { temperature: 2.0, logits_weight: 0.5, hidden_weight: 0.0 };
        let targets = Targets::Values(vec![0.5, 1.0, 2.0]);
        let lesson = Lesson::new(TaskKind::Sequence { outputs: 1 }, &targets, settings);
        let differences = lesson.student_logits.iter().zip(&lesson.teacher_logits).map(|(s, t)| s - t);
        let differences: Vec<f64> = differences.collect();
        let share = 0.5 / 3.0;
        lesson.assert_loss(differences.iter().map(|d| share * d * d).sum());
        assert_close(&lesson.d_logits, &differences.iter().map(|d| share * 2.0 * d).collect::<Vec<_>>());
    }

    #[test]
    fn the_loss_is_the_sum_of_that_of_the_outputs_and_that_of_the_states() {
        let of = |logits_weight, hidden_weight| {
            let settings = DistillSettings { temperature: 2.0, logits_weight, hidden_weight };
            Lesson::new(CLASSES, &Targets::Classes(vec![0, 1, 2]), settings)
        };
        let (both, outputs, states) = (of(0.5, 0.75), of(0.5, 0.0), of(0.0, 0.75));
        assert!(outputs.loss > 0.0 && states.loss > 0.0);
        both.assert_loss(outputs.loss + states.loss);
        assert_eq!((both.d_logits, both.d_hidden), (outputs.d_logits, states.d_hidden));
    }
}
