//! Statistics against scipy 1.17.1 and numpy 2.4.6: `tests/fixtures/make_statistics.py` prints all expected numbers.

use proptest::prelude::*;
use tamt_report::stats::paired::{PairedT, holm, wilcoxon};
use tamt_report::stats::rank::{RankCorrelation, ranks, spearman};
use tamt_report::stats::summary::Summary;

#[track_caller]
fn close(found: f64, expected: f64) {
    assert!((found - expected).abs() <= 1e-10 * expected.abs().max(1.0), "{found} instead of {expected}");
}

const LOSSES: [f64; 12] = [1.2, 3.4, 2.2, 5.1, 4.8, 6.6, 3.4, 0.9, 7.2, 5.5, 2.9, 4.1];
const AVERAGES: [f64; 12] = [80.1, 71.2, 61.4, 60.3, 72.0, 52.1, 75.5, 82.2, 66.0, 60.3, 70.8, 58.9];

#[test]
fn mean_and_sample_deviation_are_those_of_numpy() {
    let summary = Summary::of(&[75.4, 74.1, 76.0, 75.2]).unwrap();
    close(summary.mean, 75.175);
    close(summary.deviation.unwrap(), 0.793_200_268_952_722_7);
}

#[test]
fn ranks_and_rank_correlation_are_those_of_scipy() {
    assert_eq!(ranks(&LOSSES), [2.0, 5.5, 3.0, 9.0, 8.0, 11.0, 5.5, 1.0, 12.0, 10.0, 4.0, 7.0]);
    close(spearman(&LOSSES, &AVERAGES).unwrap(), -0.670_175_438_596_491_3);
}

#[test]
fn the_bootstrap_interval_is_that_of_scipy_within_the_noise_of_resampling() {
    let (low, high) = RankCorrelation::of(&LOSSES, &AVERAGES).unwrap().interval.unwrap();
    // The bounds of 10,000 samples have standard errors of about 0.003 and 0.008, by repetition with other seeds.
    assert!((low - -0.936_262).abs() < 0.012, "{low}");
    assert!((high - -0.130_435).abs() < 0.03, "{high}");
}

#[test]
fn the_bootstrap_draws_the_same_random_numbers_in_every_report() {
    // The same generator and definitions in Python.
    let (low, high) = RankCorrelation::of(&LOSSES, &AVERAGES).unwrap().interval.unwrap();
    close(low, -0.942_028_985_507_246_3);
    close(high, -0.136_212_503_681_563_12);
}

#[test]
fn pairs_of_a_cluster_are_drawn_together() {
    let plain = RankCorrelation::of(&LOSSES, &AVERAGES).unwrap();
    let own: Vec<String> = (0..12).map(|pair| format!("cluster {pair}")).collect();
    assert_eq!(RankCorrelation::of_clusters(&LOSSES, &AVERAGES, &own), Some(plain));
    // Each pair twice is no more evidence than once.
    let twice = |values: &[f64]| [values, values].concat();
    let (losses, averages, clusters) = (twice(&LOSSES), twice(&AVERAGES), [own.clone(), own].concat());
    let together = RankCorrelation::of_clusters(&losses, &averages, &clusters).unwrap();
    assert_eq!((together.n, together.clusters), (24, 12));
    let (found, expected) = (together.interval.unwrap(), plain.interval.unwrap());
    close(found.0, expected.0);
    close(found.1, expected.1);
    let apart = RankCorrelation::of(&losses, &averages).unwrap().interval.unwrap();
    assert!(expected.0 < apart.0 && apart.1 < expected.1, "{apart:?}");
}

#[test]
fn fewer_than_six_clusters_have_no_interval() {
    let of = |n: usize| RankCorrelation::of(&LOSSES[..n], &AVERAGES[..n]).unwrap();
    assert!(of(5).interval.is_none() && of(6).interval.is_some());
    let five: Vec<usize> = (0..12).map(|pair| pair % 5).collect();
    let found = RankCorrelation::of_clusters(&LOSSES, &AVERAGES, &five).unwrap();
    assert_eq!((found.n, found.clusters, found.interval), (12, 5, None));
    assert_eq!(RankCorrelation::of_clusters(&LOSSES, &AVERAGES, &five[1..]), None);
}

#[test]
fn the_paired_t_test_is_that_of_scipy() {
    type Expected = (f64, f64, (f64, f64));
    let cases: [(&[f64], Expected); 4] = [
        (
            &[0.8, 1.1, -0.2, 0.5, 0.9],
            (2.734_702_766_625_631_4, 0.052_189_422_592_217_635, (-0.009_463_642_714_880_649, 1.249_463_642_714_880_6)),
        ),
        (
            &[3.1, 2.2],
            (5.888_888_888_888_89, 0.107_083_756_810_343_85, (-3.067_792_131_278_612, 8.367_792_131_278_613)),
        ),
        (
            &[0.5, 0.5, -0.5, 1.0, 1.5, 0.0, 2.0],
            (2.199_706_725_320_299_3, 0.070_130_514_451_899_48, (-0.080_272_105_295_790_99, 1.508_843_533_867_219_5)),
        ),
        (
            &[0.3, -0.1, 0.7, 0.2, -0.4, 0.9, 1.1, 0.6, -0.05, 0.45, 0.8, 0.33],
            (3.132_146_273_661_178, 0.009_541_071_058_244_349, (0.119_659_912_234_444_67, 0.685_340_087_765_555_3)),
        ),
    ];
    for (differences, (t, p, interval)) in cases {
        let test = PairedT::of(differences).unwrap();
        assert_eq!(test.n, differences.len());
        close(test.t, t);
        close(test.p, p);
        close(test.interval.0, interval.0);
        close(test.interval.1, interval.1);
    }
}

#[test]
fn wilcoxons_test_is_exact_with_and_without_ties() {
    close(wilcoxon(&[0.8, 1.1, -0.2, 0.5, 0.9]).unwrap(), 0.125);
    close(wilcoxon(&[3.1, 2.2]).unwrap(), 0.5);
    close(wilcoxon(&[0.5, 0.5, -0.5, 1.0, 1.5, 0.0, 2.0]).unwrap(), 0.125);
    let twelve = [0.3, -0.1, 0.7, 0.2, -0.4, 0.9, 1.1, 0.6, -0.05, 0.45, 0.8, 0.33];
    close(wilcoxon(&twelve).unwrap(), 0.016_113_281_25);
}

#[test]
fn holms_correction_is_that_of_its_definition() {
    let adjusted = holm(&[0.01, 0.04, 0.03, 0.2]);
    [0.04, 0.09, 0.09, 0.2].iter().zip(adjusted).for_each(|(expected, found)| close(found, *expected));
}

#[test]
fn differences_without_spread_are_no_evidence() {
    assert_eq!(PairedT::of(&[0.0, 0.0, 0.0]), None);
    assert_eq!(PairedT::of(&[1.0]), None);
    assert!(!PairedT::of(&[1.0, 1.0]).unwrap().is_clear());
    assert_eq!(wilcoxon(&[0.0, 0.0]), None);
    assert_eq!(spearman(&[1.0, 1.0, 1.0], &[1.0, 2.0, 3.0]), None);
}

proptest! {
    #[test]
    fn rank_correlation_depends_on_order_alone(pairs in prop::collection::vec((-1e3..1e3, -1e3..1e3), 3..40)) {
        let (x, y): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
        let stretched: Vec<f64> = x.iter().map(|x| (x / 500.0).exp()).collect();
        if let (Some(a), Some(b)) = (spearman(&x, &y), spearman(&stretched, &y)) {
            prop_assert!((a - b).abs() < 1e-9 && a.abs() <= 1.0);
        }
    }

    #[test]
    fn both_tests_ignore_which_side_comes_first(differences in prop::collection::vec(-5.0..5.0, 2..30)) {
        let turned: Vec<f64> = differences.iter().map(|d: &f64| -d).collect();
        let (a, b) = (PairedT::of(&differences).unwrap(), PairedT::of(&turned).unwrap());
        prop_assert!((a.p - b.p).abs() < 1e-9 && (0.0..=1.0).contains(&a.p));
        let (a, b) = (wilcoxon(&differences).unwrap(), wilcoxon(&turned).unwrap());
        prop_assert!((a - b).abs() < 1e-9 && a > 0.0 && a <= 1.0);
    }
}
