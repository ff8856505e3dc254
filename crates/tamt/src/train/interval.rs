//! Means over the steps between two logged lines.

use crate::metrics;
use crate::train::task::StepResult;

/// Sums since the last logged line. A checkpoint holds the sums, so that a resumed run logs the same means.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Interval {
    steps: u64,
    loss: f64,
    norm: f64,
    /// Sums of [`StepLoss::parts`](crate::objective::StepLoss::parts), of which each step of a run has the same ones.
    parts: Vec<f64>,
}

impl Interval {
    pub(super) fn add(&mut self, step: &StepResult) {
        // A damaged checkpoint may hold any number.
        self.steps = self.steps.saturating_add(1);
        self.loss += step.loss.total;
        self.norm += step.grad_norm;
        let parts = step.loss.parts();
        self.parts.resize(parts.len(), 0.0);
        self.parts.iter_mut().zip(parts).for_each(|(sum, part)| *sum += part.1);
    }

    /// The means by name, after which the sums are zero. `parts` are those of the last step.
    pub(super) fn take(&mut self, parts: &[(&'static str, f64)]) -> Vec<(&'static str, f64)> {
        let Self { steps, loss, norm, parts: sums } = std::mem::take(self);
        let n = steps.max(1) as f64;
        let mut means = vec![(metrics::LOSS, loss / n), (metrics::GRAD_NORM, norm / n)];
        means.extend(parts.iter().zip(sums).map(|((name, _), sum)| (*name, sum / n)));
        means
    }

    /// The sums as words of a checkpoint: the number of steps, then the bits of each sum.
    pub(super) fn to_words(&self) -> Vec<u64> {
        let sums = [self.loss, self.norm].into_iter().chain(self.parts.iter().copied());
        std::iter::once(self.steps).chain(sums.map(f64::to_bits)).collect()
    }

    /// The inverse of [`Interval::to_words`]; `None` of fewer than three words.
    pub(super) fn from_words(words: &[u64]) -> Option<Self> {
        let [steps, loss, norm, parts @ ..] = words else { return None };
        let parts = parts.iter().map(|&bits| f64::from_bits(bits)).collect();
        Some(Self { steps: *steps, loss: f64::from_bits(*loss), norm: f64::from_bits(*norm), parts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::StepLoss;

    #[test]
    fn an_interval_survives_a_checkpoint() {
        let step = |kd, grad_norm| {
            let loss = StepLoss { total: 0.1 + 0.2, task: Some(0.3), mlm: None, kd, tokens: 7 };
            StepResult { loss, grad_norm }
        };
        for kd in [None, Some(1.0 / 3.0)] {
            let mut interval = Interval::default();
            interval.add(&step(kd, 1.5));
            interval.add(&step(kd, 0.7));
            let mut read = Interval::from_words(&interval.to_words()).unwrap();
            assert_eq!(read, interval);
            let parts = step(kd, 0.0).loss.parts();
            assert_eq!(read.take(&parts), interval.take(&parts));
            assert_eq!(interval, Interval::default());
        }
        assert_eq!(Interval::from_words(&[1, 2]), None);
    }
}
