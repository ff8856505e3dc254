//! Losses of task heads: `MSELoss`, `CrossEntropyLoss` over answer spans, and `KLDivLoss` of `torch.nn`.
//!
//! A head has a few outputs per sequence or two per token. The losses are therefore sequential and summed in f64.

/// `Σ (o - t)²` over outputs and targets `[N]`. The gradient times `scale` replaces the outputs: `2 scale (o - t)`.
///
/// # Panics
/// If the lengths differ.
pub fn squared_error(outputs: &mut [f32], targets: &[f32], scale: f32) -> f64 {
    assert_eq!(outputs.len(), targets.len(), "a target per output");
    let mut sum = 0.0;
    for (output, target) in outputs.iter_mut().zip(targets) {
        let difference = f64::from(*output) - f64::from(*target);
        sum += difference * difference;
        *output = (2.0 * f64::from(scale) * difference) as f32;
    }
    sum
}

/// The softmax distributions among the logits of a head.
#[derive(Clone, Copy, Debug)]
pub enum Distributions<'a> {
    /// One distribution per row of `[N, classes]`.
    Rows {
        /// Logits of a row.
        classes: usize,
    },
    /// Two distributions per sequence, of logits `[T, 2]`: the start logits of its tokens, and their end logits.
    Spans {
        /// First token of each sequence, and `T`: `[sequences + 1]`.
        bounds: &'a [usize],
    },
}

/// `count` logits from index `first` on, `stride` apart.
#[derive(Clone, Copy)]
struct Distribution {
    first: usize,
    stride: usize,
    count: usize,
}

impl Distribution {
    fn indices(self) -> impl Iterator<Item = usize> + Clone {
        (0..self.count).map(move |i| self.first + i * self.stride)
    }

    /// `log Σ exp(logits / temperature)`
    fn log_sum(self, logits: &[f32], temperature: f64) -> f64 {
        let scaled = self.indices().map(|i| f64::from(logits[i]) / temperature);
        let max = scaled.clone().fold(f64::NEG_INFINITY, f64::max);
        max + scaled.map(|v| (v - max).exp()).sum::<f64>().ln()
    }
}

impl Distributions<'_> {
    fn for_each(self, len: usize, mut f: impl FnMut(Distribution)) {
        match self {
            Self::Rows { classes } => {
                assert!(classes > 0 && len.is_multiple_of(classes), "whole rows of {classes}");
                (0..len).step_by(classes).for_each(|first| f(Distribution { first, stride: 1, count: classes }));
            }
            Self::Spans { bounds } => {
                assert_eq!(bounds.last().copied().unwrap_or(0) * 2, len, "two logits per token");
                for sequence in bounds.windows(2) {
                    for column in 0..2 {
                        f(Distribution {
                            first: 2 * sequence[0] + column,
                            stride: 2,
                            count: sequence[1] - sequence[0],
                        });
                    }
                }
            }
        }
    }

    /// Number of distributions among `len` logits.
    pub fn count(self, len: usize) -> usize {
        let mut count = 0;
        self.for_each(len, |_| count += 1);
        count
    }
}

/// `Σ -log softmax(start)[s] - log softmax(end)[e]` over the answers `(s, e)` of sequences, counted in tokens from the
/// sequence's first token: `logits` `[T, 2]`, `bounds` `[sequences + 1]`. The gradient times `scale` replaces the
/// logits. Twice the loss of `BertForQuestionAnswering`, which averages the two terms.
///
/// # Panics
/// If the shapes do not match, or an answer lies outside its sequence.
pub fn span_cross_entropy(logits: &mut [f32], bounds: &[usize], answers: &[(u32, u32)], scale: f32) -> f64 {
    assert_eq!(answers.len() + 1, bounds.len().max(1), "an answer per sequence");
    let mut labels = answers.iter().flat_map(|&(start, end)| [start, end]);
    let mut sum = 0.0;
    Distributions::Spans { bounds }.for_each(logits.len(), |distribution| {
        let label = labels.next().map_or(0, |label| label as usize);
        assert!(label < distribution.count, "an answer lies in its sequence");
        let log_sum = distribution.log_sum(logits, 1.0);
        let chosen = distribution.first + label * distribution.stride;
        sum += log_sum - f64::from(logits[chosen]);
        for i in distribution.indices() {
            let probability = (f64::from(logits[i]) - log_sum).exp();
            logits[i] = (f64::from(scale) * (probability - f64::from(u8::from(i == chosen)))) as f32;
        }
    });
    sum
}

/// `t² Σ KL(softmax(teacher / t) || softmax(student / t))` over the `distributions`. `weight` times the gradient is
/// added to `d`. The factor `t²` makes the size of the gradient independent of the temperature `t` (Hinton et al.
/// 2015).
///
/// # Panics
/// If the shapes do not match.
pub fn soft_cross_entropy(
    student: &[f32],
    teacher: &[f32],
    distributions: Distributions<'_>,
    temperature: f32,
    weight: f32,
    d: &mut [f32],
) -> f64 {
    assert!(student.len() == teacher.len() && d.len() == student.len(), "student and teacher of the same shape");
    let t = f64::from(temperature);
    let mut sum = 0.0;
    distributions.for_each(student.len(), |distribution| {
        let (log_s, log_t) = (distribution.log_sum(student, t), distribution.log_sum(teacher, t));
        for i in distribution.indices() {
            let (s, t_i) = (f64::from(student[i]) / t - log_s, f64::from(teacher[i]) / t - log_t);
            let (p_s, p_t) = (s.exp(), t_i.exp());
            // A teacher's NaN passes, so that the loss shows it.
            if p_t != 0.0 {
                sum += p_t * (t_i - s);
            }
            d[i] += (f64::from(weight) * t * (p_s - p_t)) as f32;
        }
    });
    t * t * sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{assert_gradient, random, to_f64};

    #[test]
    fn squared_errors_and_their_gradient() {
        let mut outputs = [1.0, 3.0];
        assert_eq!(squared_error(&mut outputs, &[0.5, 4.0], 0.5), 1.25);
        assert_eq!(outputs, [0.5, -1.0]);
    }

    fn naive_spans(logits: &[f64], bounds: &[usize], answers: &[(u32, u32)]) -> f64 {
        let mut sum = 0.0;
        for (sequence, &(start, end)) in bounds.windows(2).zip(answers) {
            for (column, label) in [(0, start), (1, end)] {
                let of = |t: usize| logits[2 * (sequence[0] + t) + column];
                let total: f64 = (0..sequence[1] - sequence[0]).map(|t| of(t).exp()).sum();
                sum += total.ln() - of(label as usize);
            }
        }
        sum
    }

    #[test]
    fn the_loss_of_spans_and_its_gradient_match_the_formula() {
        let (bounds, answers) = ([0, 1, 8, 71], [(0, 0), (2, 6), (62, 0)]);
        let logits: Vec<f32> = random(142, 1).iter().map(|v| 3.0 * v).collect();
        let mut gradient = logits.clone();
        let loss = span_cross_entropy(&mut gradient, &bounds, &answers, 0.5);
        assert!((loss - naive_spans(&to_f64(&logits), &bounds, &answers)).abs() < 1e-6);
        assert_gradient(&to_f64(&logits), &gradient, 1e-5, |x| 0.5 * naive_spans(x, &bounds, &answers));
        assert_eq!(span_cross_entropy(&mut [], &[], &[], 1.0), 0.0);
    }

    fn naive_divergence(student: &[f64], teacher: &[f64], t: f64) -> f64 {
        let softmax = |x: &[f64]| {
            let exps: Vec<f64> = x.iter().map(|v| (v / t).exp()).collect();
            let total: f64 = exps.iter().sum();
            exps.into_iter().map(|e| e / total).collect::<Vec<_>>()
        };
        let (s, q) = (softmax(student), softmax(teacher));
        t * t * q.iter().zip(s).map(|(q, s)| q * (q / s).ln()).sum::<f64>()
    }

    #[test]
    fn the_soft_loss_and_its_gradient_match_the_formula() {
        let (student, teacher) = (random(5 * 3, 1), random(5 * 3, 2));
        let naive = |student: &[f64]| -> f64 {
            let teacher = to_f64(&teacher);
            student.chunks(3).zip(teacher.chunks(3)).map(|(s, q)| naive_divergence(s, q, 2.0)).sum()
        };
        let mut d = vec![1.0; 15];
        let loss = soft_cross_entropy(&student, &teacher, Distributions::Rows { classes: 3 }, 2.0, 0.25, &mut d);
        assert!((loss - naive(&to_f64(&student))).abs() < 1e-6, "{loss}");
        let gradient: Vec<f32> = d.iter().map(|d| d - 1.0).collect();
        assert_gradient(&to_f64(&student), &gradient, 1e-4, |x| 0.25 * naive(x));
        let same = soft_cross_entropy(&student, &student, Distributions::Rows { classes: 3 }, 2.0, 0.25, &mut d);
        assert!(same.abs() < 1e-12);
    }

    #[test]
    fn soft_spans_compare_starts_with_starts_and_ends_with_ends() {
        let bounds = [0, 2, 5];
        let (student, teacher) = (random(10, 1), random(10, 2));
        let column = |x: &[f32], from: usize, to: usize, c: usize| -> Vec<f64> {
            (from..to).map(|t| f64::from(x[2 * t + c])).collect()
        };
        let mut expected = 0.0;
        for sequence in bounds.windows(2) {
            for c in 0..2 {
                let of = |x: &[f32]| column(x, sequence[0], sequence[1], c);
                expected += naive_divergence(&of(&student), &of(&teacher), 1.0);
            }
        }
        let distributions = Distributions::Spans { bounds: &bounds };
        let loss = soft_cross_entropy(&student, &teacher, distributions, 1.0, 1.0, &mut [0.0; 10]);
        assert!((loss - expected).abs() < 1e-6);
        assert_eq!(distributions.count(10), 4);
    }
}
