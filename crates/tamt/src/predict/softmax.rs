//! Probabilities of classes.

/// `exp(z_i - m) / sum_j exp(z_j - m)` with the greatest logit `m`, in f64.
pub(super) fn softmax(logits: &[f32]) -> Vec<f64> {
    let greatest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let mut values: Vec<f64> = logits.iter().map(|&logit| (f64::from(logit) - greatest).exp()).collect();
    let sum: f64 = values.iter().sum();
    values.iter_mut().for_each(|value| *value /= sum);
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_are_the_softmax_of_the_logits() {
        // torch.tensor([1.5, -0.25, 3.0, 3.0], dtype=torch.float64).softmax(0)
        let expected = [0.098647035350872, 0.017142284342616495, 0.4421053401532558, 0.4421053401532558];
        for (found, expected) in softmax(&[1.5, -0.25, 3.0, 3.0]).iter().zip(expected) {
            assert!((found - expected).abs() < 1e-15, "{found} {expected}");
        }
        assert_eq!(softmax(&[-1e30, 1e30]), [0.0, 1.0]);
    }
}
