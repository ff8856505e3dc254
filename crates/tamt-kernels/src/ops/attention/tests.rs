use crate::base::parallel::tests::same_for_any_pool;
use crate::base::rng::Purpose;
use crate::base::{Precision, Scratch, Stream};
use crate::ops::attention::backward::{QkvGradients, backward};
use crate::ops::attention::forward::forward;
use crate::ops::attention::score_mse::score_mse;
use crate::ops::attention::shape::{AttentionShape, Qkv};
use crate::ops::dropout::Dropout;
use crate::reference::{assert_close, assert_gradient, random, to_f64, unless_miri};

/// The dropout factors of all probabilities, `[sequence][head][query][key]`.
fn factors(shape: &AttentionShape<'_>, dropout: Option<Dropout>) -> Vec<f64> {
    let mut all = Vec::new();
    for index in 0..shape.head_count() {
        let head = shape.head(index, Precision::F32);
        let mut ones = vec![1.0; head.len * head.len];
        if let Some(d) = dropout {
            crate::ops::dropout::apply(&mut ones, Dropout { stream: d.stream.fork(head.index), ..d });
        }
        all.extend(to_f64(&ones));
    }
    all
}

/// Every score `q kᵀ / sqrt(d)`, with the index of its sequence and head, its query token and its key token.
fn each_score(shape: &AttentionShape<'_>, q: &[f64], k: &[f64], mut f: impl FnMut(usize, usize, usize, f64)) {
    let (d, w) = (shape.head_dim, shape.width());
    for index in 0..shape.head_count() {
        let head = shape.head(index, Precision::F32);
        for i in head.first_token..head.first_token + head.len {
            for j in head.first_token..head.first_token + head.len {
                let dot: f64 = (0..d).map(|c| q[i * w + head.column() + c] * k[j * w + head.column() + c]).sum();
                f(index, i, j, dot / (d as f64).sqrt());
            }
        }
    }
}

fn naive(shape: &AttentionShape<'_>, q: &[f64], k: &[f64], v: &[f64], factors: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let (d, w) = (shape.head_dim, shape.width());
    let mut sums = vec![0.0; shape.tokens() * shape.heads];
    each_score(shape, q, k, |index, i, _, s| sums[i * shape.heads + index % shape.heads] += s.exp());
    let mut ctx = vec![0.0; q.len()];
    let mut factor = factors.iter();
    each_score(shape, q, k, |index, i, j, s| {
        let head = index % shape.heads;
        let p = s.exp() / sums[i * shape.heads + head] * factor.next().expect("a factor per score");
        for c in head * d..(head + 1) * d {
            ctx[i * w + c] += p * v[j * w + c];
        }
    });
    (ctx, sums.iter().map(|s| s.ln()).collect())
}

/// Tolerances for operands with 24 and 8 bits of significand.
const PRECISIONS: [(Precision, f64); 2] = [(Precision::F32, 2e-6), (Precision::Bf16, 2e-2)];

fn dropout() -> Dropout {
    Dropout { p: 0.25, stream: Stream::new(4, Purpose::DROPOUT, 8), first: 0 }
}

#[test]
fn the_forward_pass_matches_the_formula() {
    let cases: &[(&[usize], usize, usize)] = unless_miri(
        &[
            (&[0, 1], 1, 1),
            (&[0, 0, 7, 7, 10], 2, 8),
            (&[0, 63, 128], 3, 32),
            (&[0, 65, 66], 2, 64),
            (&[0, 383], 1, 20),
            (&[0, 128, 320], 2, 32),
            (&[0, 0], 2, 16),
        ],
        &[(&[0, 1], 1, 1), (&[0, 0, 2, 2, 3], 2, 3), (&[0, 9], 1, 5), (&[0, 0], 2, 16)],
    );
    for &(bounds, heads, head_dim) in cases {
        let shape = AttentionShape { bounds, heads, head_dim, first_sequence: 0 };
        let n = shape.tokens() * shape.width();
        let [q, k, v] = [1, 2, 3].map(|seed| random(n, seed));
        for dropout in [None, Some(dropout())] {
            let expected = naive(&shape, &to_f64(&q), &to_f64(&k), &to_f64(&v), &factors(&shape, dropout));
            for (precision, tolerance) in PRECISIONS {
                let (ctx, lse) = same_for_any_pool(|| {
                    let (mut ctx, mut lse) = (vec![9.0; n], vec![9.0; shape.tokens() * heads]);
                    forward(Qkv::new(&q, &k, &v), &shape, dropout, &mut ctx, Some(&mut lse), &Scratch::new(precision));
                    (ctx, lse)
                });
                assert_close(&ctx, &expected.0, tolerance);
                assert_close(&lse, &expected.1, tolerance);
            }
        }
    }
}

#[test]
fn later_sequences_of_a_batch_drop_what_they_drop_in_the_whole() {
    let (heads, head_dim) = (3, 8);
    let bounds: [usize; 4] = unless_miri([0, 30, 101, 140], [0, 2, 11, 12]);
    let whole = AttentionShape { bounds: &bounds, heads, head_dim, first_sequence: 0 };
    let later = [1, 2, 3].map(|sequence| bounds[sequence] - bounds[1]);
    let later = AttentionShape { bounds: &later, heads, head_dim, first_sequence: 1 };
    let n = whole.tokens() * whole.width();
    let at = bounds[1] * whole.width();
    let [q, k, v, dctx] = [1, 2, 3, 4].map(|seed| random(n, seed));
    let run = |shape: &AttentionShape<'_>, from: usize| {
        let [q, k, v, dctx] = [&q, &k, &v, &dctx].map(|x| &x[from..]);
        let (mut ctx, mut lse) = (vec![9.0; q.len()], vec![9.0; shape.tokens() * heads]);
        let scratch = Scratch::default();
        forward(Qkv::new(q, k, v), shape, Some(dropout()), &mut ctx, Some(&mut lse), &scratch);
        let [mut dq, mut dk, mut dv] = [(); 3].map(|()| vec![9.0; q.len()]);
        let drop = Some(dropout());
        let grads = QkvGradients { dq: &mut dq, dk: &mut dk, dv: &mut dv };
        backward(dctx, Qkv::new(q, k, v), &lse, shape, drop, grads, &scratch);
        [ctx, dq, dk, dv]
    };
    for (whole, later) in run(&whole, 0).iter().zip(run(&later, at)) {
        assert_eq!(whole[at..], later);
    }
}

#[test]
fn large_scores_do_not_overflow() {
    let shape = AttentionShape { bounds: &[0, 3], heads: 1, head_dim: 4, first_sequence: 0 };
    let q = [30.0; 12];
    let k: Vec<f32> = (0..12).map(|i| if i < 4 { 30.0 } else { -30.0 }).collect();
    let (v, mut ctx, mut lse) = (random(12, 1), vec![0.0; 12], vec![0.0; 3]);
    forward(Qkv::new(&q, &k, &v), &shape, None, &mut ctx, Some(&mut lse), &Scratch::default());
    assert!(ctx.chunks_exact(4).all(|row| *row == v[..4]), "all attention on the first key");
    assert!(lse.iter().all(|&l| (l - 1800.0).abs() < 1e-3));
}

#[test]
fn gradients_match_finite_differences() {
    let cases: &[(&[usize], usize, usize)] = unless_miri(
        &[(&[0, 1], 1, 1), (&[0, 0, 3, 8], 2, 7), (&[0, 17], 1, 8), (&[0, 2, 5], 3, 4)],
        &[(&[0, 1], 1, 1), (&[0, 0, 3], 2, 2)],
    );
    for &(bounds, heads, head_dim) in cases {
        let shape = AttentionShape { bounds, heads, head_dim, first_sequence: 0 };
        let n = shape.tokens() * shape.width();
        let [q, k, v, dctx] = [1, 2, 3, 4].map(|seed| random(n, seed));
        for dropout in [None, Some(dropout())] {
            let scratch = &Scratch::default();
            let (mut ctx, mut lse) = (vec![0.0; n], vec![0.0; shape.tokens() * heads]);
            forward(Qkv::new(&q, &k, &v), &shape, dropout, &mut ctx, Some(&mut lse), scratch);
            let [mut dq, mut dk, mut dv] = [(); 3].map(|()| vec![9.0; n]);
            let grads = QkvGradients { dq: &mut dq, dk: &mut dk, dv: &mut dv };
            backward(&dctx, Qkv::new(&q, &k, &v), &lse, &shape, dropout, grads, scratch);
            let factors = factors(&shape, dropout);
            let [q, k, v, dctx] = [&q, &k, &v, &dctx].map(|x| to_f64(x));
            let loss = |q: &[f64], k: &[f64], v: &[f64]| {
                let (ctx, _) = naive(&shape, q, k, v, &factors);
                ctx.iter().zip(&dctx).map(|(c, d)| c * d).sum::<f64>()
            };
            assert_gradient(&q, &dq, 2e-5, |q| loss(q, &k, &v));
            assert_gradient(&k, &dk, 2e-5, |k| loss(&q, k, &v));
            assert_gradient(&v, &dv, 2e-5, |v| loss(&q, &k, v));
        }
    }
}

/// Long sequences have several blocks of queries. The formulas are evaluated in f64.
#[test]
fn gradients_of_long_sequences_match_the_formulas() {
    let (bounds, head_dim) = unless_miri(([0, 300, 365, 493], 32), ([0, 9, 11, 12], 3));
    let shape = AttentionShape { bounds: &bounds, heads: 2, head_dim, first_sequence: 0 };
    let (n, d, w) = (shape.tokens() * shape.width(), head_dim, shape.width());
    let [q, k, v, dctx] = [1, 2, 3, 4].map(|seed| random(n, seed));
    for dropout in [None, Some(dropout())] {
        let computed = PRECISIONS.map(|(precision, _)| {
            same_for_any_pool(|| {
                let scratch = &Scratch::new(precision);
                let (mut ctx, mut lse) = (vec![0.0; n], vec![0.0; shape.tokens() * shape.heads]);
                forward(Qkv::new(&q, &k, &v), &shape, dropout, &mut ctx, Some(&mut lse), scratch);
                let [mut dq, mut dk, mut dv] = [(); 3].map(|()| vec![9.0; n]);
                let grads = QkvGradients { dq: &mut dq, dk: &mut dk, dv: &mut dv };
                backward(&dctx, Qkv::new(&q, &k, &v), &lse, &shape, dropout, grads, scratch);
                [dq, dk, dv]
            })
        });
        let factors = factors(&shape, dropout);
        let [q, k, v, dctx] = [&q, &k, &v, &dctx].map(|x| to_f64(x));
        let (ctx, lse) = naive(&shape, &q, &k, &v, &factors);
        let [mut eq, mut ek, mut ev] = [(); 3].map(|()| vec![0.0; n]);
        let mut factor = factors.iter();
        each_score(&shape, &q, &k, |index, i, j, s| {
            let head = index % shape.heads;
            let (p, m) = ((s - lse[i * shape.heads + head]).exp(), factor.next().expect("a factor per score"));
            let at = |t: usize, c: usize| t * w + head * d + c;
            let dp: f64 = (0..d).map(|c| dctx[at(i, c)] * v[at(j, c)]).sum();
            let mean: f64 = (0..d).map(|c| dctx[at(i, c)] * ctx[at(i, c)]).sum();
            let ds = p * (dp * m - mean) / (d as f64).sqrt();
            for c in 0..d {
                eq[at(i, c)] += ds * k[at(j, c)];
                ek[at(j, c)] += ds * q[at(i, c)];
                ev[at(j, c)] += p * m * dctx[at(i, c)];
            }
        });
        for ((_, tolerance), gradients) in PRECISIONS.iter().zip(computed) {
            for (gradient, expected) in gradients.iter().zip([&eq, &ek, &ev]) {
                assert_close(gradient, expected, 5.0 * tolerance);
            }
        }
    }
}

fn naive_score_mse(shape: &AttentionShape<'_>, q: &[f64], k: &[f64], tq: &[f64], tk: &[f64]) -> f64 {
    let masked = |s: f64| if s <= -100.0 { 0.0 } else { s };
    let mut teacher = Vec::new();
    each_score(shape, tq, tk, |_, _, _, s| teacher.push(masked(s)));
    let (mut sum, mut teacher) = (0.0, teacher.into_iter());
    each_score(shape, q, k, |_, _, _, s| sum += (masked(s) - teacher.next().expect("as many")).powi(2));
    sum
}

#[test]
fn the_score_distance_and_its_gradient_match_the_formula() {
    let cases: &[(&[usize], usize, usize)] = unless_miri(
        &[(&[0, 1], 1, 1), (&[0, 0, 3, 8], 2, 7), (&[0, 9], 1, 8)],
        &[(&[0, 1], 1, 1), (&[0, 0, 2, 3], 2, 3), (&[0, 9], 1, 1)],
    );
    for &(bounds, heads, head_dim) in cases {
        let shape = AttentionShape { bounds, heads, head_dim, first_sequence: 0 };
        let n = shape.tokens() * shape.width();
        // large enough for scores beyond -100
        let [q, k, tq, tk] = [1, 2, 3, 4].map(|seed| random(n, seed).iter().map(|v| 9.0 * v).collect::<Vec<_>>());
        let (sum, dq, dk) = same_for_any_pool(|| {
            let (mut dq, mut dk) = (vec![1.0; n], vec![2.0; n]);
            let grads = Some((&mut dq[..], &mut dk[..]));
            let sum = score_mse(&q, &k, &tq, &tk, &shape, 1e-4, grads, &mut Scratch::default());
            (sum, dq, dk)
        });
        assert_eq!(score_mse(&q, &k, &tq, &tk, &shape, 1e-4, None, &mut Scratch::default()), sum);
        let [q, k, tq, tk] = [&q, &k, &tq, &tk].map(|x| to_f64(x));
        let expected = naive_score_mse(&shape, &q, &k, &tq, &tk);
        assert!((sum - expected).abs() < 1e-5 * expected, "{sum} is not {expected}");
        let dq: Vec<f32> = dq.iter().map(|v| v - 1.0).collect();
        let dk: Vec<f32> = dk.iter().map(|v| v - 2.0).collect();
        assert_gradient(&q, &dq, 2e-5, |q| 1e-4 * naive_score_mse(&shape, q, &k, &tq, &tk));
        assert_gradient(&k, &dk, 2e-5, |k| 1e-4 * naive_score_mse(&shape, &q, k, &tq, &tk));
    }
}
