//! Mean and deviation.

/// Number, mean and sample deviation of values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// Number of values.
    pub n: usize,
    /// `sum(x) / n`.
    pub mean: f64,
    /// `sqrt(sum((x - mean)^2) / (n - 1))`; `None` for a single value.
    pub deviation: Option<f64>,
}

impl Summary {
    /// The summary of `values`; `None` if there are none.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        if values.is_empty() {
            return None;
        }
        let n = values.len() as f64;
        // The sum of equal values is rounded, and would make them deviate from their mean.
        let are_equal = values.iter().all(|value| *value == values[0]);
        let mean = if are_equal { values[0] } else { values.iter().sum::<f64>() / n };
        let squares: f64 = values.iter().map(|x| (x - mean).powi(2)).sum();
        let deviation = (values.len() > 1).then(|| (squares / (n - 1.0)).sqrt());
        Some(Self { n: values.len(), mean, deviation })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_value_has_no_deviation_and_no_value_no_summary() {
        assert_eq!(Summary::of(&[3.0]), Some(Summary { n: 1, mean: 3.0, deviation: None }));
        assert_eq!(Summary::of(&[]), None);
    }

    #[test]
    fn equal_values_do_not_deviate() {
        for n in 2..20 {
            assert_eq!(Summary::of(&vec![0.1; n]), Some(Summary { n, mean: 0.1, deviation: Some(0.0) }));
        }
    }
}
