//! Metrics of classes. All functions take predicted and gold classes, as lists of the same length.

use std::collections::BTreeMap;

/// Correct predictions / all predictions; NaN for empty lists. Equal to scikit-learn's `accuracy_score`.
pub fn accuracy(predictions: &[u32], gold: &[u32]) -> f64 {
    let right = predictions.iter().zip(gold).filter(|(p, g)| p == g).count();
    right as f64 / gold.len() as f64
}

/// F1 of class 1: 2 TP / (2 TP + FP + FN), or 0 if class 1 occurs in neither list. Equal to scikit-learn's `f1_score`.
pub fn f1(predictions: &[u32], gold: &[u32]) -> f64 {
    f1_of(1, predictions, gold)
}

/// The mean F1 of all classes that occur in a list. Equal to scikit-learn's `f1_score(average="macro")`.
pub fn f1_macro(predictions: &[u32], gold: &[u32]) -> f64 {
    let mut classes = [predictions, gold].concat();
    classes.sort_unstable();
    classes.dedup();
    classes.iter().map(|&class| f1_of(class, predictions, gold)).sum::<f64>() / classes.len() as f64
}

fn f1_of(class: u32, predictions: &[u32], gold: &[u32]) -> f64 {
    let count = |labels: &[u32]| labels.iter().filter(|&&label| label == class).count();
    let both = predictions.iter().zip(gold).filter(|&(&p, &g)| p == class && g == class).count();
    match count(predictions) + count(gold) {
        0 => 0.0,
        either => 2.0 * both as f64 / either as f64,
    }
}

/// Matthews correlation coefficient for any number of classes (Gorodkin 2004), equal to scikit-learn's
/// `matthews_corrcoef`. With c correct ones of s predictions, `p[k]` predictions and `t[k]` examples of class k:
///
/// ```text
/// (c s - Σ p[k] t[k]) / sqrt((s² - Σ p[k]²) (s² - Σ t[k]²))
/// ```
///
/// The coefficient is 0 if a factor of the denominator is 0, that is, if all predictions or all examples have one class.
pub fn matthews_correlation(predictions: &[u32], gold: &[u32]) -> f64 {
    // (p[k], t[k]) for each class k.
    let mut counts: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
    let mut right = 0_u64;
    for (&p, &g) in predictions.iter().zip(gold) {
        counts.entry(p).or_default().0 += 1;
        counts.entry(g).or_default().1 += 1;
        right += u64::from(p == g);
    }
    // Counts are below 2^63, so the products are exact in i128.
    let s = predictions.len() as i128;
    let sum = |term: fn(i128, i128) -> i128| -> i128 {
        counts.values().map(|&(p, t)| term(i128::from(p), i128::from(t))).sum()
    };
    let covariance = i128::from(right) * s - sum(|p, t| p * t);
    let of_predictions = s * s - sum(|p, _| p * p);
    let of_gold = s * s - sum(|_, t| t * t);
    if of_predictions == 0 || of_gold == 0 {
        return 0.0;
    }
    covariance as f64 / (of_predictions as f64 * of_gold as f64).sqrt()
}
