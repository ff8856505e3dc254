//! Correlations of predicted and gold numbers.

/// Pearson correlation coefficient of two lists of the same length:
///
/// ```text
/// Σ (x - mean x)(y - mean y) / (|x - mean x| |y - mean y|)
/// ```
///
/// The coefficient is NaN if a list is constant, holds NaN or has fewer than two values. Equal to scipy's `pearsonr`.
pub fn pearson(x: &[f64], y: &[f64]) -> f64 {
    let constant = |values: &[f64]| values.iter().all(|&v| v == values[0]);
    if x.len() < 2 || constant(x) || constant(y) {
        return f64::NAN;
    }
    let (x, y) = (centred(x), centred(y));
    let product: f64 = x.iter().zip(&y).map(|(x, y)| x * y).sum();
    // Rounding may exceed 1.
    (product / (norm(&x) * norm(&y))).clamp(-1.0, 1.0)
}

/// Spearman rank correlation coefficient: Pearson's coefficient of the ranks, where equal values share the mean of their
/// ranks. Equal to scipy's `spearmanr`.
pub fn spearman(x: &[f64], y: &[f64]) -> f64 {
    if x.iter().chain(y).any(|v| v.is_nan()) {
        return f64::NAN;
    }
    pearson(&ranks(x), &ranks(y))
}

fn centred(values: &[f64]) -> Vec<f64> {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    values.iter().map(|v| v - mean).collect()
}

fn norm(values: &[f64]) -> f64 {
    values.iter().map(|v| v * v).sum::<f64>().sqrt()
}

/// The rank of each value, from 1; equal values share the mean of their ranks.
fn ranks(values: &[f64]) -> Vec<f64> {
    // Adding 0 turns -0 into 0, so that `total_cmp` treats them as equal.
    let value = |i: usize| values[i] + 0.0;
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| value(a).total_cmp(&value(b)));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    for equals in order.chunk_by(|&a, &b| value(a) == value(b)) {
        let rank = start as f64 + (equals.len() as f64 + 1.0) / 2.0;
        for &i in equals {
            ranks[i] = rank;
        }
        start += equals.len();
    }
    ranks
}
