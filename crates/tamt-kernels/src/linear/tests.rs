//! Every product against the naive one in f64, finite differences, and other products with the same bits.

use half::bf16;
use proptest::prelude::*;

use crate::base::parallel::tests::same_for_any_pool;
use crate::base::values::round_to_bf16;
use crate::base::{Precision, Scratch, Values, Write, round, widen};
use crate::gemm::{DEEP, is_one_portion};
use crate::linear::bias_gradient::{backward_bias, bias_gradient};
use crate::linear::forward::{Projection, forward, forward_each};
use crate::linear::fused_tests::check_packed;
use crate::linear::input_gradient::{backward_input, backward_input_packed};
use crate::linear::packed_factor::{Factor, PackedFactor};
use crate::linear::packed_weight::{PackedFor, PackedWeight, WeightOperand};
use crate::linear::weight_gradient::{backward_weight, weight_gradient, weight_gradient_bf16};
use crate::masks::{BitMask, CompactWeight, GradEpilogue, RankedMask, Weight, gather};
use crate::reference::{
    assert_close, assert_gradient, naive_linear, random, random_mask, rounded, to_f64, unless_miri,
};

/// `out[i, j] = Σ_k a(i, k) b(k, j)` in f64.
fn sums(m: usize, n: usize, depth: usize, term: impl Fn(usize, usize, usize) -> f64) -> Vec<f64> {
    (0..m * n).map(|at| (0..depth).map(|k| term(at / n, at % n, k)).sum()).collect()
}

/// Checks every product in every precision. The operands are exact in the precision, so that only sums are rounded.
fn check_all(tokens: usize, rows: usize, cols: usize, mask: Option<&BitMask>) {
    for precision in [Precision::F32, Precision::Bf16] {
        let (case, scratch) = (&Case::new(precision, tokens, rows, cols, mask), &mut Scratch::new(precision));
        case.check_forward(scratch);
        case.check_input_gradient(scratch);
        case.check_weight_gradient(scratch);
        case.check_bias_gradient(scratch);
    }
}

/// Random operands of a layer.
struct Case<'a> {
    tokens: usize,
    rows: usize,
    cols: usize,
    mask: Option<&'a BitMask>,
    x: Vec<f32>,
    dy: Vec<f32>,
    w: Vec<f32>,
    bias: Vec<f32>,
    /// The weight without dropped elements, if there is a mask.
    compact: Option<CompactWeight>,
    tolerance: f64,
}

impl<'a> Case<'a> {
    fn new(precision: Precision, tokens: usize, rows: usize, cols: usize, mask: Option<&'a BitMask>) -> Self {
        let operand = |n, seed| random(n, seed).into_iter().map(|v| rounded(v, precision)).collect::<Vec<_>>();
        let (x, dy, w) = (operand(tokens * cols, 1), operand(tokens * rows, 2), operand(rows * cols, 3));
        let tolerance = 1e-6 * (10.0 + (tokens.max(rows).max(cols) as f64).sqrt());
        let compact = mask.map(|mask| CompactWeight::new(mask.clone(), &w));
        Self { tokens, rows, cols, mask, x, dy, w, bias: random(rows, 4), compact, tolerance }
    }

    fn weight(&self) -> Weight<'_> {
        Weight { values: (&self.w).into(), rows: self.rows, cols: self.cols, mask: self.mask }
    }

    fn check_forward(&self, scratch: &mut Scratch) {
        let Self { tokens, rows, cols, mask, tolerance, .. } = *self;
        let (x, w, weight, bias) = (to_f64(&self.x), to_f64(&self.w), self.weight(), Some(&self.bias[..]));
        let mut y = vec![9.0; tokens * rows];
        forward(&self.x, weight, bias, &mut y, scratch);
        assert_close(&y, &naive_linear(&x, &w, mask, &to_f64(&self.bias), cols), tolerance);
        if let Some(compact) = &self.compact {
            let mut again = vec![9.0; y.len()];
            forward(&self.x, compact, bias, &mut again, scratch);
            assert_eq!(again, y, "a compact weight gives the same bits");
            let packed = PackedWeight::new(compact, PackedFor::Forward, scratch.precision());
            let layer = Projection { weight: WeightOperand::Packed(&packed), bias, output: (&mut again).into() };
            forward_each(&self.x, [layer], scratch);
            assert_eq!(again, y, "a packed compact weight gives the same bits");
        }
        check_packed(&self.x, weight, &self.bias, &y, scratch);
        check_in_bf16(&self.x, &self.dy, weight, scratch);
        forward(&self.x, weight, None, &mut y, scratch);
        assert_close(&y, &naive_linear(&x, &w, mask, &vec![0.0; rows], cols), tolerance);
    }

    fn check_input_gradient(&self, scratch: &mut Scratch) {
        let Self { tokens, rows, cols, mask, ref dy, ref w, tolerance, .. } = *self;
        let kept = |n: usize, c: usize| mask.is_none_or(|m| m.get(n, c));
        let mut expected = sums(tokens, cols, rows, |t, c, n| {
            if kept(n, c) { f64::from(dy[t * rows + n]) * f64::from(w[n * cols + c]) } else { 0.0 }
        });
        let mut dx = vec![9.0; tokens * cols];
        backward_input(dy, self.weight(), &mut dx, Write::Store, scratch);
        assert_close(&dx, &expected, tolerance);
        let packed = PackedWeight::new(self.weight(), PackedFor::InputGradient, scratch.precision());
        let mut again = vec![9.0; tokens * cols];
        backward_input_packed(dy, &packed, &mut again, Write::Store, scratch);
        assert_eq!(again, dx, "a packed weight gives the same bits");
        if let Some(compact) = &self.compact {
            backward_input(dy, compact, &mut again, Write::Store, scratch);
            assert_eq!(again, dx, "a compact weight gives the same bits");
        }
        backward_input(dy, self.weight(), &mut dx, Write::Add, scratch);
        expected.iter_mut().for_each(|v| *v *= 2.0);
        assert_close(&dx, &expected, tolerance);
    }

    fn check_weight_gradient(&self, scratch: &mut Scratch) {
        let Self { tokens, rows, cols, ref x, ref dy, ref w, tolerance, .. } = *self;
        let product = sums(rows, cols, tokens, |n, c, t| f64::from(dy[t * rows + n]) * f64::from(x[t * cols + c]));
        let all = BitMask::ones(rows, cols);
        let mask = self.mask.unwrap_or(&all);
        for epilogue in [GradEpilogue::Dense, GradEpilogue::Masked(mask), GradEpilogue::Score(w.into())] {
            let factor = |i: usize| match epilogue {
                GradEpilogue::Dense => 1.0,
                GradEpilogue::Masked(mask) => f64::from(u8::from(mask.get(i / cols, i % cols))),
                GradEpilogue::Survivors(_) => unreachable!("checked below"),
                GradEpilogue::Score(_) => f64::from(w[i]),
            };
            let expected: Vec<f64> = product.iter().enumerate().map(|(i, v)| v * factor(i)).collect();
            let mut dw = vec![9.0; rows * cols];
            backward_weight(dy, x, rows, cols, epilogue, &mut dw, Write::Store, scratch);
            assert_close(&dw, &expected, tolerance);
            let mut dw = random(rows * cols, 5);
            let expected: Vec<f64> = expected.iter().zip(&dw).map(|(e, old)| e + f64::from(*old)).collect();
            backward_weight(dy, x, rows, cols, epilogue, &mut dw, Write::Add, scratch);
            assert_close(&dw, &expected, tolerance);
        }

        let mut whole = vec![9.0; rows * cols];
        backward_weight(dy, x, rows, cols, GradEpilogue::Dense, &mut whole, Write::Store, scratch);
        let ranked = RankedMask::new(mask.clone());
        let [mut survivors, mut expected] = [(); 2].map(|()| vec![9.0; mask.count_ones()]);
        for mode in [Write::Store, Write::Add] {
            backward_weight(dy, x, rows, cols, GradEpilogue::Survivors(&ranked), &mut survivors, mode, scratch);
            gather(mask, &whole, &mut expected, mode);
            assert_eq!(survivors, expected);
        }
    }

    fn check_bias_gradient(&self, scratch: &mut Scratch) {
        let Self { tokens, rows, ref dy, ref bias, tolerance, .. } = *self;
        let expected = sums(1, rows, tokens, |_, n, t| f64::from(dy[t * rows + n]));
        let mut db = vec![9.0; rows];
        backward_bias(dy, &mut db, Write::Store, scratch);
        assert_close(&db, &expected, tolerance);
        let mut db = bias.clone();
        backward_bias(dy, &mut db, Write::Add, scratch);
        let expected: Vec<f64> = expected.iter().zip(bias).map(|(e, b)| e + f64::from(*b)).collect();
        assert_close(&db, &expected, tolerance);
    }
}

/// A weight in bf16 gives the bits of the same weight widened to f32.
fn check_in_bf16(x: &[f32], dy: &[f32], weight: Weight<'_>, scratch: &mut Scratch) {
    let Weight { values, rows, cols, .. } = weight;
    let (mut floats, mut halves) = (vec![0.0; values.len()], vec![bf16::ZERO; values.len()]);
    values.write_to(&mut floats);
    round(&floats, &mut halves);
    widen(&halves, &mut floats);
    let products = |values: Values<'_>, scratch: &mut Scratch| {
        let weight = Weight { values, ..weight };
        let [mut y, mut dx, mut ds] = [dy.len(), x.len(), values.len()].map(|len| vec![9.0; len]);
        forward(x, weight, None, &mut y, scratch);
        backward_input(dy, weight, &mut dx, Write::Store, scratch);
        backward_weight(dy, x, rows, cols, GradEpilogue::Score(values), &mut ds, Write::Store, scratch);
        [y, dx, ds]
    };
    assert_eq!(products(halves.as_slice().into(), scratch), products((&floats).into(), scratch));
}

/// Groups of tokens, some of them empty, pack the factors of weight gradients one group at a time.
#[test]
fn factors_that_groups_pack_give_the_naive_gradients() {
    let all: &[&[usize]] =
        unless_miri(&[&[], &[0], &[1], &[7, 1, 0, 63], &[383, 65, 1], &[300, 300, 1700]], &[&[], &[0], &[3, 1, 0, 33]]);
    for precision in [Precision::F32, Precision::Bf16] {
        for groups in all {
            check_factors(precision, groups);
        }
    }
}

fn check_factors(precision: Precision, groups: &[usize]) {
    let (rows, cols) = unless_miri((65, 131), (3, 9));
    let tokens = groups.iter().sum();
    let Case { dy, x, .. } = Case::new(precision, tokens, rows, cols, None);
    let (mut gradient, mut input) = (PackedFactor::default(), PackedFactor::default());
    let mut at = 0;
    let gradients = gradient.parts(Factor::OutputGradient, rows, groups.iter().copied(), precision);
    let inputs = input.parts(Factor::Input, cols, groups.iter().copied(), precision);
    for ((mut dy_part, mut x_part), tokens) in gradients.into_iter().zip(inputs).zip(groups) {
        dy_part.pack(&dy[at * rows..(at + tokens) * rows]);
        x_part.pack(&x[at * cols..(at + tokens) * cols]);
        at += tokens;
    }
    let tolerance = 1e-6 * (10.0 + (tokens as f64).sqrt());
    let expected = sums(rows, cols, tokens, |n, c, t| f64::from(dy[t * rows + n]) * f64::from(x[t * cols + c]));
    let dw = same_for_any_pool(|| {
        let mut dw = vec![9.0; rows * cols];
        weight_gradient(&gradient, &input, GradEpilogue::Dense, &mut dw, Write::Store);
        dw
    });
    assert_close(&dw, &expected, tolerance);
    // a gradient in bf16 is `dw` times the weights plus the old value, rounded
    let weights = random(rows * cols, 3);
    let mut scores = vec![bf16::ZERO; rows * cols];
    for mode in [Write::Store, Write::Add] {
        let before = scores.clone();
        weight_gradient_bf16(&gradient, &input, GradEpilogue::Score((&weights).into()), &mut scores, mode);
        for (i, score) in scores.iter().enumerate() {
            let expected = round_to_bf16(dw[i] * weights[i] + before[i].to_f32());
            assert!(score.to_f32() == expected.to_f32(), "{mode:?}, {i}: {score:?} and {expected:?}");
        }
    }
    let expected = sums(1, rows, tokens, |_, n, t| f64::from(dy[t * rows + n]));
    let mut db = vec![9.0; rows];
    bias_gradient(&gradient, &mut db, Write::Store);
    assert_close(&db, &expected, tolerance);
    bias_gradient(&gradient, &mut db, Write::Add);
    assert_close(&db, &expected.iter().map(|v| 2.0 * v).collect::<Vec<_>>(), 2.0 * tolerance);
}

#[test]
fn every_product_matches_the_naive_one_for_odd_shapes_and_masks() {
    let shapes = unless_miri(
        &[
            (1, 1, 1),
            (7, 63, 65),
            (65, 7, 383),
            (383, 65, 7),
            (9, 49, 257),
            (0, 7, 9),
            (260, 8, 48),
            (5, 96, 513),
            (300, 50, 64),
        ][..],
        &[(0, 2, 3), (2, 3, 17)],
    );
    for &(tokens, rows, cols) in shapes {
        let random = random_mask(rows, cols, 0.3);
        let (none, all) = (BitMask::zeros(rows, cols), BitMask::ones(rows, cols));
        let masks = [Some(&random), None, Some(&none), Some(&all)];
        for mask in masks.into_iter().take(unless_miri(4, 1)) {
            check_all(tokens, rows, cols, mask);
        }
    }
}

/// Operands of more than 2 Mi floats are packed in portions.
#[test]
#[cfg_attr(miri, ignore = "2 Mi floats take too long")]
fn products_of_large_operands_match_the_naive_one() {
    let (large, small) = (2900, 801);
    assert!(!is_one_portion(large, small));
    for (tokens, rows, cols) in [(large, 3, small), (3, large, small), (small, large, 3), (small, 3, large)] {
        let mask = random_mask(rows, cols, 0.3);
        check_all(tokens, rows, cols, Some(&mask));
    }
}

#[test]
fn layers_that_share_an_input_give_the_bits_of_single_layers() {
    let (tokens, cols) = unless_miri((131, 63), (2, 3));
    let x = random(tokens * cols, 1);
    let rows = unless_miri([1, 65, 383], [1, 9, 97]);
    let w = rows.map(|r| random(r * cols, r as u64));
    let (mask, bias) = (random_mask(rows[1], cols, 0.5), random(rows[1], 7));
    let weight = |i: usize| Weight { values: (&w[i]).into(), rows: rows[i], cols, mask: (i == 1).then_some(&mask) };
    let bias = |i: usize| (i == 1).then_some(&bias[..]);

    let scratch = &mut Scratch::default();
    let [mut a, mut b, mut c] = rows.map(|r| vec![9.0; tokens * r]);
    let layers = [(0, &mut a), (1, &mut b), (2, &mut c)];
    forward_each(
        &x,
        layers.map(|(i, y)| Projection {
            weight: WeightOperand::Plain(weight(i).into()),
            bias: bias(i),
            output: y.into(),
        }),
        scratch,
    );
    for (i, shared) in [a, b, c].iter().enumerate() {
        let mut single = vec![9.0; shared.len()];
        forward(&x, weight(i), bias(i), &mut single, &mut Scratch::default());
        assert_eq!(*shared, single);
    }
}

#[test]
fn gradients_match_finite_differences() {
    let (tokens, rows, cols) = (3, 5, 9);
    let (x, dy, w, bias) =
        (random(tokens * cols, 1), random(tokens * rows, 2), random(rows * cols, 3), random(rows, 4));
    let mask = random_mask(rows, cols, 0.5);
    let weight = Weight { values: (&w).into(), rows, cols, mask: Some(&mask) };
    let (mut dx, mut dw, mut db) = (vec![0.0; x.len()], vec![0.0; w.len()], vec![0.0; rows]);
    backward_input(&dy, weight, &mut dx, Write::Store, &mut Scratch::default());
    backward_weight(&dy, &x, rows, cols, GradEpilogue::Masked(&mask), &mut dw, Write::Store, &mut Scratch::default());
    backward_bias(&dy, &mut db, Write::Store, &mut Scratch::default());
    let [x, w, bias] = [&x, &w, &bias].map(|v| to_f64(v));
    let loss = |x: &[f64], w: &[f64], bias: &[f64]| {
        naive_linear(x, w, Some(&mask), bias, cols).iter().zip(&dy).map(|(y, d)| y * f64::from(*d)).sum::<f64>()
    };
    assert_gradient(&x, &dx, 1e-5, |x| loss(x, &w, &bias));
    assert_gradient(&w, &dw, 1e-5, |w| loss(&x, w, &bias));
    assert_gradient(&bias, &db, 1e-5, |bias| loss(&x, &w, bias));
}

/// The straight-through gradient of a score is `d loss / d B_ij` of a mask of real numbers.
#[test]
fn the_score_gradient_is_that_of_a_real_valued_mask() {
    let (tokens, rows, cols) = (3, 5, 9);
    let (x, dy, w) = (random(tokens * cols, 1), random(tokens * rows, 2), random(rows * cols, 3));
    let mut ds = vec![0.0; w.len()];
    backward_weight(
        &dy,
        &x,
        rows,
        cols,
        GradEpilogue::Score((&w).into()),
        &mut ds,
        Write::Store,
        &mut Scratch::default(),
    );
    let mask: Vec<f64> = (0..w.len()).map(|i| f64::from(u8::from(i % 3 == 0))).collect();
    assert_gradient(&mask, &ds, 1e-5, |mask| {
        let masked: Vec<f64> = mask.iter().zip(&w).map(|(b, w)| b * f64::from(*w)).collect();
        let y = naive_linear(&to_f64(&x), &masked, None, &vec![0.0; rows], cols);
        y.iter().zip(&dy).map(|(y, d)| y * f64::from(*d)).sum()
    });
}

#[test]
fn products_are_the_same_for_any_number_of_threads() {
    let (tokens, rows, cols) = unless_miri((700, 130, 383), (97, 2, 3));
    let (x, dy, w, bias) =
        (random(tokens * cols, 1), random(tokens * rows, 2), random(rows * cols, 3), random(rows, 4));
    let mask = random_mask(rows, cols, 0.5);
    let weight = Weight { values: (&w).into(), rows, cols, mask: Some(&mask) };
    let results = [Precision::F32, Precision::Bf16].map(|precision| {
        same_for_any_pool(|| {
            let scratch = &mut Scratch::new(precision);
            let (mut y, mut dx) = (vec![0.0; tokens * rows], vec![0.0; tokens * cols]);
            let (mut dw, mut db) = (vec![0.0; rows * cols], vec![0.0; rows]);
            forward(&x, weight, Some(&bias), &mut y, scratch);
            backward_input(&dy, weight, &mut dx, Write::Store, scratch);
            backward_weight(&dy, &x, rows, cols, GradEpilogue::Score((&w).into()), &mut dw, Write::Store, scratch);
            backward_bias(&dy, &mut db, Write::Store, scratch);
            (y, dx, dw, db)
        })
    });
    // rounding two factors to bf16 changes a product by up to 1/128, a sum of many products by a few standard
    // deviations of a fifth of 1/128
    let [exact, rounded] = results;
    for (exact, rounded) in [(&exact.0, &rounded.0), (&exact.1, &rounded.1), (&exact.2, &rounded.2)] {
        assert_ne!(exact, rounded);
        assert_close(rounded, &to_f64(exact), 2e-2);
    }
}

/// The input gradient of a decoder over a vocabulary sums over the vocabulary in chunks.
#[test]
fn gradients_through_a_vocabulary_match_the_formula() {
    let (tokens, rows, cols) = (unless_miri(260, 2), DEEP + unless_miri(777, 40), 3);
    let (dy, w, old) = (random(tokens * rows, 1), random(rows * cols, 2), random(tokens * cols, 3));
    let mask = random_mask(rows, cols, 0.5);
    let weight = Weight { values: (&w).into(), rows, cols, mask: Some(&mask) };
    let mut expected = sums(tokens, cols, rows, |t, c, n| {
        if mask.get(n, c) { f64::from(dy[t * rows + n]) * f64::from(w[n * cols + c]) } else { 0.0 }
    });
    expected.iter_mut().zip(&old).for_each(|(e, old)| *e += f64::from(*old));
    for (precision, tolerance) in [(Precision::F32, 1e-5), (Precision::Bf16, 2e-2)] {
        let dx = same_for_any_pool(|| {
            let mut dx = old.clone();
            backward_input(&dy, weight, &mut dx, Write::Add, &mut Scratch::new(precision));
            dx
        });
        assert_close(&dx, &expected, tolerance);
    }
}

/// The bits of a token's output do not depend on the other tokens of the batch.
#[test]
fn a_token_gives_the_same_bits_alone_and_in_a_batch() {
    let (tokens, rows, cols) = unless_miri((300, 70, 383), (9, 3, 17));
    let (x, w) = (random(tokens * cols, 1), random(rows * cols, 3));
    let weight = Weight { values: (&w).into(), rows, cols, mask: None };
    let mut batch = vec![0.0; tokens * rows];
    forward(&x, weight, None, &mut batch, &mut Scratch::default());
    for t in [0, 7, tokens / 2, tokens - 1] {
        let mut alone = vec![0.0; rows];
        forward(&x[t * cols..][..cols], weight, None, &mut alone, &mut Scratch::default());
        assert_eq!(alone, batch[t * rows..][..rows]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    #[cfg_attr(miri, ignore = "the test of odd shapes has the same products")]
    fn every_product_matches_the_naive_one(
        tokens in 0usize..40,
        rows in 1usize..70,
        cols in 1usize..70,
        kept in 0f32..1.0,
    ) {
        let mask = random_mask(rows, cols, kept);
        check_all(tokens, rows, cols, Some(&mask));
    }
}
