//! Paired tests of two samples, given the differences of the pairs.

use statrs::distribution::{ContinuousCDF, StudentsT};

use crate::stats::rank::ranks;
use crate::stats::summary::Summary;

/// The level below which a difference counts as more than noise.
pub const LEVEL: f64 = 0.05;

/// Student's t test of paired samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairedT {
    /// Number of pairs.
    pub n: usize,
    /// Mean difference.
    pub mean: f64,
    /// `mean / (deviation / sqrt(n))`.
    pub t: f64,
    /// Two-sided probability of a `t` at least as large, with `n - 1` degrees of freedom.
    pub p: f64,
    /// The 95 % confidence interval of the mean difference.
    pub interval: (f64, f64),
}

impl PairedT {
    /// The test of `differences`, equal to `scipy.stats.ttest_rel`; `None` below two pairs, and where all pairs are
    /// equal.
    #[must_use]
    pub fn of(differences: &[f64]) -> Option<Self> {
        let Summary { n, mean, deviation } = Summary::of(differences)?;
        let error = deviation? / (n as f64).sqrt();
        if error == 0.0 && mean == 0.0 {
            return None;
        }
        let t = mean / error;
        let student = StudentsT::new(0.0, 1.0, n as f64 - 1.0).ok()?;
        let p = if t.is_finite() { 2.0 * student.cdf(-t.abs()) } else { 0.0 };
        let half = student.inverse_cdf(0.975) * error;
        Some(Self { n, mean, t, p, interval: (mean - half, mean + half) })
    }

    /// Whether the difference is more than noise. Differences that do not vary come from scores on a coarse grid, and
    /// say nothing about noise.
    #[must_use]
    pub fn is_clear(&self) -> bool {
        self.t.is_finite() && self.p < LEVEL
    }
}

/// The two-sided p of Wilcoxon's signed-rank test, exact: over all `2^n` signs of the ranks. Differences of 0 are left
/// out; equal sizes share their mean rank. Without ties this is `scipy.stats.wilcoxon(.., method="exact")`, with ties
/// `method=scipy.stats.PermutationMethod()` over all signs. `None` without differences.
#[must_use]
pub fn wilcoxon(differences: &[f64]) -> Option<f64> {
    let kept: Vec<f64> = differences.iter().copied().filter(|d| *d != 0.0).collect();
    if kept.is_empty() {
        return None;
    }
    let sizes: Vec<f64> = kept.iter().map(|d| d.abs()).collect();
    // Mean ranks are multiples of a half.
    let doubled: Vec<usize> = ranks(&sizes).iter().map(|rank| (2.0 * rank).round() as usize).collect();
    let total: usize = doubled.iter().sum();
    // The probability of each sum of the ranks with a positive sign.
    let mut chance = vec![0.0; total + 1];
    chance[0] = 1.0;
    for &rank in &doubled {
        for sum in (0..=total).rev() {
            let shifted = if sum >= rank { chance[sum - rank] } else { 0.0 };
            chance[sum] = 0.5 * (chance[sum] + shifted);
        }
    }
    let positive: usize = doubled.iter().zip(&kept).filter(|(_, d)| **d > 0.0).map(|(rank, _)| rank).sum();
    let tail: f64 = chance[..=positive.min(total - positive)].iter().sum();
    Some((2.0 * tail).min(1.0))
}

/// Holm's correction for several tests: the adjusted p of each.
#[must_use]
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| p[a].total_cmp(&p[b]));
    let (mut adjusted, mut largest) = (vec![0.0; p.len()], 0.0_f64);
    for (at, &i) in order.iter().enumerate() {
        largest = largest.max((p.len() - at) as f64 * p[i]).min(1.0);
        adjusted[i] = largest;
    }
    adjusted
}
