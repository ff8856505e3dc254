//! Softmax cross-entropy over a vocabulary (`torch.nn.CrossEntropyLoss` with `reduction="sum"`).

use rayon::prelude::*;

use crate::base::{PARTIALS, exp, kernel, map_chunks, max_of, reduction_chunk, sum_by};

/// Loss and number of correct predictions, summed over the rows of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LossSums {
    /// `Σ -log softmax(logits)[label]`
    pub loss_sum: f64,
    /// Rows whose label has the largest logit. Of equal logits the first one counts as the largest.
    pub correct: usize,
}

impl std::ops::AddAssign for LossSums {
    fn add_assign(&mut self, other: Self) {
        self.loss_sum += other.loss_sum;
        self.correct += other.correct;
    }
}

/// The loss without its gradient: `logits` `[M, V]`, `labels` `[M]`.
///
/// # Panics
/// If the number of labels is not the number of rows, or a label is not below `V`.
pub fn forward(logits: &[f32], labels: &[u32]) -> LossSums {
    let classes = class_count(logits, labels);
    let partials = map_chunks(labels.len(), 1, |range| {
        let mut total = LossSums::default();
        for m in range {
            total += loss(&logits[m * classes..][..classes], labels[m]).0;
        }
        total
    });
    total(&partials)
}

/// The loss. The gradient times `scale` replaces the logits: `scale (softmax(logits) - onehot(label))`.
///
/// # Panics
/// As [`forward`].
pub fn forward_backward(logits: &mut [f32], labels: &[u32], scale: f32) -> LossSums {
    let classes = class_count(logits, labels);
    let chunk = reduction_chunk(labels.len(), 1);
    let mut partials = [LossSums::default(); PARTIALS];
    let jobs = logits.par_chunks_mut((chunk * classes).max(1)).zip(labels.par_chunks(chunk)).zip(&mut partials);
    jobs.for_each(|((logits, labels), total)| {
        for (logits, &label) in logits.chunks_exact_mut(classes).zip(labels) {
            let (sums, log_sum) = loss(logits, label);
            *total += sums;
            gradient(logits, log_sum, scale);
            logits[label as usize] -= scale;
        }
    });
    total(&partials)
}

fn class_count(logits: &[f32], labels: &[u32]) -> usize {
    if labels.is_empty() {
        assert!(logits.is_empty(), "a label per row");
        return 1;
    }
    let classes = logits.len() / labels.len();
    assert_eq!(logits.len(), classes * labels.len(), "a label per row");
    assert!(labels.iter().all(|&label| (label as usize) < classes), "labels are classes");
    classes
}

fn total(partials: &[LossSums]) -> LossSums {
    partials.iter().fold(LossSums::default(), |mut total, &partial| {
        total += partial;
        total
    })
}

/// The loss of one row, and `log Σ exp(logits)`.
fn loss(logits: &[f32], label: u32) -> (LossSums, f32) {
    let (max, sum) = exp_sum(logits);
    let chosen = logits[label as usize];
    let log_sum = f64::from(max) + f64::from(sum).ln();
    let correct = chosen == max && logits[..label as usize].iter().all(|&v| v != max);
    (LossSums { loss_sum: log_sum - f64::from(chosen), correct: usize::from(correct) }, log_sum as f32)
}

kernel! {
    /// The maximum, and `Σ exp(x - max)`.
    fn exp_sum<FMA>(x: &[f32]) -> (f32, f32) {
        let max = max_of(x);
        (max, sum_by([x], |[v]| exp::<FMA>(v - max)))
    }

    /// `x = scale softmax(x)`, with `log_sum = log Σ exp(x)`.
    fn gradient<FMA>(x: &mut [f32], log_sum: f32, scale: f32) {
        for v in x {
            *v = scale * exp::<FMA>(*v - log_sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::parallel::tests::same_for_any_pool;
    use crate::reference::{assert_gradient, random, to_f64};

    fn naive(logits: &[f64], labels: &[u32]) -> f64 {
        let classes = logits.len() / labels.len();
        let row = |(row, &label): (&[f64], &u32)| row.iter().map(|v| v.exp()).sum::<f64>().ln() - row[label as usize];
        logits.chunks_exact(classes).zip(labels).map(row).sum()
    }

    #[test]
    fn loss_and_gradient_match_the_formula() {
        for (rows, classes) in [(1, 1), (3, 2), (7, 63), (65, 383), (2, 3001)] {
            let logits: Vec<f32> = random(rows * classes, 1).iter().map(|v| 4.0 * v).collect();
            let labels: Vec<u32> = (0..rows as u32).map(|m| m * 7 % classes as u32).collect();
            let expected = naive(&to_f64(&logits), &labels);
            let only = same_for_any_pool(|| forward(&logits, &labels));
            let (both, gradient) = same_for_any_pool(|| {
                let mut logits = logits.clone();
                (forward_backward(&mut logits, &labels, 0.25), logits)
            });
            assert_eq!(only, both);
            assert!((only.loss_sum - expected).abs() < 1e-5 * (1.0 + expected), "{} != {expected}", only.loss_sum);
            let right = logits.chunks_exact(classes).zip(&labels).filter(|(row, label)| {
                row.iter().position(|v| *v == row.iter().copied().fold(f32::MIN, f32::max)) == Some(**label as usize)
            });
            assert_eq!(only.correct, right.count());
            if rows * classes < 1000 {
                assert_gradient(&to_f64(&logits), &gradient, 1e-5, |x| 0.25 * naive(x, &labels));
            }
        }
    }

    #[test]
    fn of_equal_logits_the_first_is_the_prediction() {
        assert_eq!(forward(&[1.0, 2.0, 2.0], &[1]).correct, 1);
        assert_eq!(forward(&[1.0, 2.0, 2.0], &[2]).correct, 0);
    }

    #[test]
    fn huge_logits_do_not_overflow() {
        let sums = forward(&[1e30, -1e30, 0.0, 1000.0, 0.0, 999.0], &[0, 0]);
        assert!((sums.loss_sum - (1.0 + (-1f64).exp()).ln()).abs() < 1e-6, "{}", sums.loss_sum);
    }

    #[test]
    fn a_bad_logit_shows_in_the_loss() {
        assert!(forward(&[0.0, f32::NAN, 1.0], &[0]).loss_sum.is_nan());
    }

    #[test]
    fn no_rows_cost_nothing() {
        assert_eq!(forward(&[], &[]), LossSums::default());
        assert_eq!(forward_backward(&mut [], &[], 1.0), LossSums::default());
    }
}
