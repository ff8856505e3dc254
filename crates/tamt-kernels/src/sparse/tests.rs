//! Comparison of all sparse products with formulas in f64 and with the dense products.

use half::bf16;
use proptest::prelude::*;

use crate::base::parallel::tests::same_for_any_pool;
use crate::base::{Precision, Scratch, Write};
use crate::linear;
use crate::masks::{BitMask, CompactWeight, GradEpilogue, Weight, gather};
use crate::reference::{
    assert_close, assert_gradient, naive_linear, random, random_mask, rounded, to_f64, unless_miri,
};
use crate::sparse::product::{backward_input, backward_input_to_panels, forward, forward_to_panels};
use crate::sparse::token_panels::{TokenPanels, TokenPanelsPart};
use crate::sparse::weight::{PreparedFor, SparseWeight};
use crate::sparse::weight_gradient::{GradLayout, backward_weight, backward_weight_and_bias, bias_gradient};

fn pack(x: &[f32], cols: usize) -> TokenPanels {
    let mut panels = TokenPanels::default();
    panels.pack(x, cols);
    panels
}

/// The rows of panels that `write` fills, padding checked to be finite.
fn unpacked(cols: usize, tokens: usize, write: impl FnOnce(&mut TokenPanelsPart<'_>)) -> Vec<f32> {
    let mut panels = TokenPanels::default();
    let mut part = panels.one_part(cols, tokens);
    part.values_mut().fill(f32::NAN);
    write(&mut part);
    assert!(part.view().values().iter().all(|v| v.is_finite()), "padding as well");
    let mut rows = vec![9.0; tokens * cols];
    part.view().unpack(&mut rows);
    rows
}

/// `dw[n, c] = Σ_t dy[t, n] x[t, c]` in f64, zero where dropped.
fn naive_weight_gradient(dy: &[f64], x: &[f64], mask: &BitMask) -> Vec<f64> {
    let (rows, cols) = (mask.rows(), mask.cols());
    let mut dw = vec![0.0; rows * cols];
    for (dy, x) in dy.chunks_exact(rows).zip(x.chunks_exact(cols)) {
        for n in 0..rows {
            for c in (0..cols).filter(|&c| mask.get(n, c)) {
                dw[n * cols + c] += dy[n] * x[c];
            }
        }
    }
    dw
}

/// The precisions of products; the portable path, which Miri runs, has one.
const PRECISIONS: &[Precision] = unless_miri(&[Precision::F32, Precision::Bf16], &[Precision::F32]);

fn survivors_of(dense: &[f64], mask: &BitMask) -> Vec<f64> {
    let cols = mask.cols();
    (0..dense.len()).filter(|&i| mask.get(i / cols, i % cols)).map(|i| dense[i]).collect()
}

/// `x` rounded as activations and gradients of sparse products in a precision.
fn as_read(x: &[f32], precision: Precision) -> Vec<f32> {
    let precision = if precision.sparse_in_bf16() { Precision::Bf16 } else { Precision::F32 };
    x.iter().map(|&v| rounded(v, precision)).collect()
}

/// Compares every product with the formula in f64 and with the dense product, in f32 bit by bit.
fn check_all(tokens: usize, mask: &BitMask, precision: Precision) {
    let (rows, cols) = (mask.rows(), mask.cols());
    let is_bf16 = precision.sparse_in_bf16();
    let (x, dy, w, bias) =
        (random(tokens * cols, 1), random(tokens * rows, 2), random(rows * cols, 3), random(rows, 4));
    let sparse = SparseWeight::new(
        Weight { values: (&w).into(), rows, cols, mask: Some(mask) },
        PreparedFor::Training,
        precision,
    );
    let of_compact = SparseWeight::new(&CompactWeight::new(mask.clone(), &w), PreparedFor::Training, precision);
    // Weights are rounded whatever the arithmetic.
    let w: Vec<f32> = w.iter().map(|&w| rounded(w, precision)).collect();
    let weight = Weight { values: (&w).into(), rows, cols, mask: Some(mask) };
    let tolerance = 1e-6 * (10.0 + (tokens.max(rows).max(cols) as f64).sqrt());
    let (packed_x, packed_dy) = (pack(&x, cols), pack(&dy, rows));
    let scratch = &mut Scratch::new(if is_bf16 { Precision::Bf16 } else { Precision::F32 });
    let assert_same = |got: &[f32], dense: &[f32]| match is_bf16 {
        true => assert_close(got, &to_f64(dense), tolerance),
        false => assert_eq!(got, dense),
    };
    let [x_read, dy_read] = [&x, &dy].map(|v| to_f64(&as_read(v, precision)));
    let w_read = to_f64(&w);

    for bias in [None, Some(bias.as_slice())] {
        let (mut y, mut dense) = (vec![9.0; tokens * rows], vec![9.0; tokens * rows]);
        forward(packed_x.view(), &sparse, bias, &mut y);
        let expected = naive_linear(&x_read, &w_read, Some(mask), &bias.map_or(vec![0.0; rows], to_f64), cols);
        assert_close(&y, &expected, tolerance);
        linear::forward(&x, weight, bias, &mut dense, scratch);
        assert_same(&y, &dense);
        let in_panels = unpacked(rows, tokens, |y| forward_to_panels(packed_x.view(), &sparse, bias, y));
        assert_same(&in_panels, &dense);
        forward(packed_x.view(), &of_compact, bias, &mut y);
        assert_same(&y, &dense);
    }

    let old = random(tokens * cols, 5);
    for mode in [Write::Store, Write::Add] {
        let mut expected = if mode == Write::Add { to_f64(&old) } else { vec![0.0; old.len()] };
        for (dx, dy) in expected.chunks_exact_mut(cols).zip(dy_read.chunks_exact(rows)) {
            for (c, dx) in dx.iter_mut().enumerate() {
                let kept = (0..rows).filter(|&n| mask.get(n, c));
                *dx += kept.map(|n| dy[n] * w_read[n * cols + c]).sum::<f64>();
            }
        }
        let (mut dx, mut dense) = (old.clone(), old.clone());
        backward_input(packed_dy.view(), &sparse, &mut dx, mode);
        assert_close(&dx, &expected, tolerance);
        linear::backward_input(&dy, weight, &mut dense, mode, scratch);
        assert_same(&dx, &dense);
        let mut dx = old.clone();
        backward_input(packed_dy.view(), &of_compact, &mut dx, mode);
        assert_same(&dx, &dense);
        if mode == Write::Store {
            let in_panels = unpacked(cols, tokens, |dx| backward_input_to_panels(packed_dy.view(), &sparse, dx));
            assert_same(&in_panels, &dense);
        }
    }

    let gradient = naive_weight_gradient(&dy_read, &x_read, mask);
    let old = random(rows * cols, 6);
    for mode in [Write::Store, Write::Add] {
        let mut expected = gradient.clone();
        if mode == Write::Add {
            expected.iter_mut().zip(&old).for_each(|(e, old)| *e += f64::from(*old));
        }
        let (mut dw, mut dense) = (old.clone(), old.clone());
        backward_weight(&packed_dy, &packed_x, &sparse, GradLayout::Dense, &mut dw, mode);
        assert_close(&dw, &expected, tolerance);
        linear::backward_weight(&dy, &x, rows, cols, GradEpilogue::Masked(mask), &mut dense, mode, scratch);
        assert_close(&dw, &to_f64(&dense), tolerance.max(1e-5));

        let mut survivors = vec![9.0; sparse.survivors()];
        gather(mask, &old, &mut survivors, Write::Store);
        backward_weight(&packed_dy, &packed_x, &sparse, GradLayout::Survivors, &mut survivors, mode);
        assert_close(&survivors, &survivors_of(&expected, mask), tolerance);
    }
}

#[test]
fn every_product_matches_the_naive_and_the_dense_one_for_odd_shapes_and_masks() {
    let shapes = unless_miri(
        &[
            (1, 1, 1),
            (7, 63, 65),
            (65, 7, 383),
            (383, 65, 7),
            (9, 383, 63),
            (0, 7, 9),
            (129, 8, 96),
            (5, 97, 801),
            (63, 801, 97),
            (300, 50, 64),
        ][..],
        &[(0, 2, 3), (3, 5, 17)],
    );
    for &(tokens, rows, cols) in shapes {
        let masks = [random_mask(rows, cols, 0.3), BitMask::zeros(rows, cols), BitMask::ones(rows, cols)];
        for mask in &masks[..unless_miri(3, 1)] {
            for &precision in PRECISIONS {
                check_all(tokens, mask, precision);
            }
        }
    }
}

#[test]
fn a_layer_without_inputs_or_outputs_has_nothing_to_multiply() {
    for (rows, cols) in [(0, 5), (0, 0), (3, 0)] {
        let weight = Weight { values: (&[]).into(), rows, cols, mask: None };
        let sparse = SparseWeight::new(weight, PreparedFor::Training, Precision::F32);
        let x = pack(&vec![1.0; 2 * cols], cols);
        let tokens = x.view().tokens();
        forward(x.view(), &sparse, None, &mut vec![0.0; tokens * rows]);
        if (rows, tokens) != (0, 2) {
            backward_weight(&pack(&[], rows), &x, &sparse, GradLayout::Dense, &mut [], Write::Store);
        }
    }
}

#[test]
fn gradients_match_finite_differences() {
    let (tokens, rows, cols) = (3, 5, 9);
    let (x, dy, w, bias) =
        (random(tokens * cols, 1), random(tokens * rows, 2), random(rows * cols, 3), random(rows, 4));
    let mask = random_mask(rows, cols, 0.5);
    let weight = Weight { values: (&w).into(), rows, cols, mask: Some(&mask) };
    let sparse = SparseWeight::new(weight, PreparedFor::Training, Precision::F32);
    let (packed_x, packed_dy) = (pack(&x, cols), pack(&dy, rows));
    let (mut dx, mut dw) = (vec![0.0; x.len()], vec![0.0; w.len()]);
    backward_input(packed_dy.view(), &sparse, &mut dx, Write::Store);
    backward_weight(&packed_dy, &packed_x, &sparse, GradLayout::Dense, &mut dw, Write::Store);
    let [x, w, bias] = [&x, &w, &bias].map(|v| to_f64(v));
    let loss = |x: &[f64], w: &[f64]| {
        naive_linear(x, w, Some(&mask), &bias, cols).iter().zip(&dy).map(|(y, d)| y * f64::from(*d)).sum::<f64>()
    };
    assert_gradient(&x, &dx, 1e-5, |x| loss(x, &w));
    assert_gradient(&w, &dw, 1e-5, |w| loss(&x, w));
}

#[test]
fn products_are_the_same_for_any_number_of_threads() {
    let (tokens, rows, cols) = unless_miri((700, 130, 383), (33, 65, 3));
    let (x, dy, w, bias) =
        (random(tokens * cols, 1), random(tokens * rows, 2), random(rows * cols, 3), random(rows, 4));
    let mask = random_mask(rows, cols, 0.3);
    let in_precision = |precision| {
        let weight = Weight { values: (&w).into(), rows, cols, mask: Some(&mask) };
        let sparse = SparseWeight::new(weight, PreparedFor::Training, precision);
        let (packed_x, packed_dy) = (pack(&x, cols), pack(&dy, rows));
        let (mut y, mut dx) = (vec![0.0; tokens * rows], vec![0.0; tokens * cols]);
        let mut dw = vec![0.0; sparse.survivors()];
        forward(packed_x.view(), &sparse, Some(&bias), &mut y);
        backward_input(packed_dy.view(), &sparse, &mut dx, Write::Store);
        backward_weight(&packed_dy, &packed_x, &sparse, GradLayout::Survivors, &mut dw, Write::Store);
        (y, dx, dw)
    };
    for &precision in PRECISIONS {
        same_for_any_pool(|| in_precision(precision));
    }
}

#[test]
fn a_token_gives_the_same_bits_alone_and_in_a_batch() {
    let (tokens, rows, cols) = unless_miri((300, 70, 383), (66, 3, 9));
    let (x, w) = (random(tokens * cols, 1), random(rows * cols, 3));
    let mask = random_mask(rows, cols, 0.3);
    for &precision in PRECISIONS {
        let sparse = SparseWeight::new(
            Weight { values: (&w).into(), rows, cols, mask: Some(&mask) },
            PreparedFor::Forward,
            precision,
        );
        let mut batch = vec![0.0; tokens * rows];
        forward(pack(&x, cols).view(), &sparse, None, &mut batch);
        for count in [1, 9, 17, 33, 65] {
            let first = tokens - count;
            let mut alone = vec![0.0; count * rows];
            forward(pack(&x[first * cols..], cols).view(), &sparse, None, &mut alone);
            assert_eq!(alone, batch[first * rows..]);
        }
    }
}

#[test]
fn groups_of_panels_give_the_naive_gradients_and_their_rows() {
    let (rows, cols) = unless_miri((65, 131), (3, 5));
    let mask = random_mask(rows, cols, 0.4);
    let w = random(rows * cols, 3);
    for &precision in PRECISIONS {
        let weight = SparseWeight::new(
            Weight { values: (&w).into(), rows, cols, mask: Some(&mask) },
            PreparedFor::Training,
            precision,
        );
        let all: &[&[usize]] =
            unless_miri(&[&[], &[0], &[1], &[7, 1, 0, 63], &[383, 65, 1, 128]], &[&[], &[0], &[2, 0, 33]]);
        for groups in all {
            let tokens: usize = groups.iter().sum();
            let (dy, x) = (random(tokens * rows, 1), random(tokens * cols, 2));
            let (mut gradient, mut input) = (TokenPanels::default(), TokenPanels::default());
            let parts = gradient.parts(rows, groups.iter().copied()).into_iter();
            let mut at = 0;
            for ((mut dy_part, mut x_part), tokens) in parts.zip(input.parts(cols, groups.iter().copied())).zip(*groups)
            {
                dy_part.pack(&dy[at * rows..(at + tokens) * rows]);
                let own = &x[at * cols..(at + tokens) * cols];
                x_part.pack(own);
                let mut rows_again = vec![9.0; own.len()];
                x_part.view().unpack(&mut rows_again);
                assert_eq!(rows_again, own);
                at += tokens;
            }
            let tolerance = 1e-6 * (10.0 + (tokens as f64).sqrt());
            let expected = survivors_of(
                &naive_weight_gradient(&to_f64(&as_read(&dy, precision)), &to_f64(&as_read(&x, precision)), &mask),
                &mask,
            );
            let dw = same_for_any_pool(|| {
                let mut dw = vec![9.0; weight.survivors()];
                backward_weight(&gradient, &input, &weight, GradLayout::Survivors, &mut dw, Write::Store);
                dw
            });
            assert_close(&dw, &expected, tolerance);
            let sums: Vec<f64> =
                (0..rows).map(|n| dy.iter().skip(n).step_by(rows).map(|v| f64::from(*v)).sum()).collect();
            let mut db = vec![9.0; rows];
            bias_gradient(&gradient, &mut db, Write::Store);
            assert_close(&db, &sums, tolerance);
            bias_gradient(&gradient, &mut db, Write::Add);
            let doubled: Vec<f64> = sums.iter().map(|v| 2.0 * v).collect();
            assert_close(&db, &doubled, 2.0 * tolerance);
            for (mode, sums) in [(Write::Store, &sums), (Write::Add, &doubled)] {
                let mut again = vec![9.0; dw.len()];
                let layout = GradLayout::Survivors;
                let dw_to = (again.as_mut_slice(), Write::Store);
                backward_weight_and_bias(&gradient, &input, &weight, layout, dw_to, Some((&mut db, mode)));
                assert_eq!(again, dw);
                assert_close(&db, sums, 2.0 * tolerance);
            }
        }
    }
}

#[test]
fn changed_values_and_masks_give_what_a_new_weight_gives() {
    let (tokens, rows, cols) = unless_miri((70, 65, 383), (3, 3, 9));
    let (x, dy) = (pack(&random(tokens * cols, 1), cols), pack(&random(tokens * rows, 2), rows));
    for &precision in PRECISIONS {
        let outputs = |w: &SparseWeight| {
            let (mut y, mut dx, mut dw) = (vec![0.0; tokens * rows], vec![0.0; tokens * cols], vec![0.0; rows * cols]);
            forward(x.view(), w, None, &mut y);
            backward_input(dy.view(), w, &mut dx, Write::Store);
            backward_weight(&dy, &x, w, GradLayout::Dense, &mut dw, Write::Store);
            (y, dx, dw)
        };
        let [first, second] = [3, 4].map(|seed| random(rows * cols, seed));
        let new = |values: &[f32], mask: &BitMask| {
            outputs(&SparseWeight::new(
                Weight { values: values.into(), rows, cols, mask: Some(mask) },
                PreparedFor::Training,
                precision,
            ))
        };
        let mask = random_mask(rows, cols, 0.3);
        let mut sparse = SparseWeight::new(
            Weight { values: (&first).into(), rows, cols, mask: Some(&mask) },
            PreparedFor::Training,
            precision,
        );
        sparse.set_values(&CompactWeight::new(mask.clone(), &second));
        assert_eq!(outputs(&sparse), new(&second, &mask));
        sparse.set_values(&CompactWeight::new(mask.clone(), &first));
        assert_eq!(outputs(&sparse), new(&first, &mask));
        sparse.set_values(Weight { values: (&second).into(), rows, cols, mask: None });
        assert_eq!(outputs(&sparse), new(&second, &mask));
        assert!(!sparse.set_mask(&mask, &second));
        let (mut halves, mut widened) = (vec![bf16::ZERO; second.len()], vec![0.0; second.len()]);
        crate::round(&second, &mut halves);
        crate::widen(&halves, &mut widened);
        sparse.set_values(Weight { values: halves.as_slice().into(), rows, cols, mask: None });
        assert_eq!(outputs(&sparse), new(&widened, &mask));
        for mask in [random_mask(rows, cols, 0.7), BitMask::zeros(rows, cols), random_mask(rows, cols, 0.1)] {
            assert!(sparse.set_mask(&mask, &first));
            assert_eq!(sparse.survivors(), mask.count_ones());
            assert_eq!(outputs(&sparse), new(&first, &mask));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    #[cfg_attr(miri, ignore = "the test of odd shapes has the same products")]
    fn every_product_matches_the_naive_and_the_dense_one(
        tokens in 0usize..150, rows in 1usize..70, cols in 1usize..210, kept in 0f32..1.0, in_bf16 in any::<bool>(),
    ) {
        let precision = if in_bf16 { Precision::Bf16 } else { Precision::F32 };
        check_all(tokens, &random_mask(rows, cols, kept), precision);
    }
}
