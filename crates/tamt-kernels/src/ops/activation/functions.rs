//! Activation functions on whole tensors, in f32.

use rayon::prelude::*;

use crate::base::{CHUNK, exp, fma, kernel, normal_cdf, tanh};

/// An activation function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `u Φ(u)`, `Φ(u) = (1 + erf(u / sqrt 2)) / 2`: `gelu` of transformers, `torch.nn.GELU()`.
    Gelu,
    /// `u (1 + tanh(sqrt(2 / π) (u + 0.044715 u³))) / 2`: `gelu_new` and `gelu_pytorch_tanh` of transformers.
    GeluTanh,
    /// `max(u, 0)`
    Relu,
    /// `tanh u`
    Tanh,
}

/// `y = f(u)`
///
/// # Panics
/// If the lengths differ.
pub fn forward(kind: Activation, u: &[f32], y: &mut [f32]) {
    assert_eq!(u.len(), y.len(), "output of the input's length");
    let part = forward_part(kind);
    y.par_chunks_mut(CHUNK).zip(u.par_chunks(CHUNK)).for_each(|(y, u)| part(u, y));
}

/// `u = f(u)`, on the calling thread.
pub(crate) fn apply(kind: Activation, u: &mut [f32]) {
    let part = forward_part(kind);
    let mut input = [0.0; 512];
    for u in u.chunks_mut(input.len()) {
        let input = &mut input[..u.len()];
        input.copy_from_slice(u);
        part(input, u);
    }
}

/// The function of `(u, y)` that computes `y = f(u)` on the calling thread.
fn forward_part(kind: Activation) -> fn(&[f32], &mut [f32]) {
    match kind {
        Activation::Gelu => gelu,
        Activation::GeluTanh => gelu_tanh,
        Activation::Relu => relu,
        Activation::Tanh => tanh_all,
    }
}

/// `du = dy f'(u)` in place of `dy`. `u` is the input of the forward pass.
///
/// # Panics
/// If the lengths differ.
pub fn backward(kind: Activation, u: &[f32], dy_to_du: &mut [f32]) {
    assert_eq!(u.len(), dy_to_du.len(), "gradient of the input's length");
    let part = match kind {
        Activation::Gelu => gelu_backward,
        Activation::GeluTanh => gelu_tanh_backward,
        Activation::Relu => relu_backward,
        Activation::Tanh => tanh_backward,
    };
    dy_to_du.par_chunks_mut(CHUNK).zip(u.par_chunks(CHUNK)).for_each(|(d, u)| part(u, d));
}

/// [`backward`] and [`forward`] in one pass, with the same bits: `du` replaces `dy`, and `y = f(u)` is recomputed for a
/// layer that did not save its output.
///
/// # Panics
/// If the lengths differ.
pub fn backward_with_output(kind: Activation, u: &[f32], dy_to_du: &mut [f32], y: &mut [f32]) {
    assert!(u.len() == dy_to_du.len() && u.len() == y.len(), "gradient and output of the input's length");
    let part = backward_part(kind);
    let jobs = dy_to_du.par_chunks_mut(CHUNK).zip(y.par_chunks_mut(CHUNK)).zip(u.par_chunks(CHUNK));
    jobs.for_each(|((d, y), u)| part(u, d, y));
}

/// The function of `(u, dy, y)` that computes `du` in place of `dy` and `y = f(u)` on the calling thread.
pub(crate) fn backward_part(kind: Activation) -> fn(&[f32], &mut [f32], &mut [f32]) {
    match kind {
        Activation::Gelu => gelu_both,
        Activation::GeluTanh => |u, d, y| {
            gelu_tanh_backward(u, d);
            gelu_tanh(u, y);
        },
        Activation::Relu => |u, d, y| {
            relu_backward(u, d);
            relu(u, y);
        },
        Activation::Tanh => |u, d, y| {
            tanh_backward(u, d);
            tanh_all(u, y);
        },
    }
}

/// `f' = Φ(u) + u φ(u)`
#[inline(always)]
fn gelu_slope<const FMA: bool>(u: f32, cdf: f32) -> f32 {
    const FRAC_1_SQRT_2PI: f32 = 0.398_942_3;
    let density = FRAC_1_SQRT_2PI * exp::<FMA>(-0.5 * u * u);
    fma::<FMA>(u, density, cdf)
}

/// Compiles `fn name(u) = f` as a kernel `name(u, y)` that computes `y = f(u)`, and `fn name(u, d) = f` as a kernel
/// `name(u, d)` that replaces `d` by `f(u, d)`.
macro_rules! elementwise {
    ($(fn $name:ident<$fma:ident>($u:ident $(, $d:ident)?) = $value:expr;)+) => {
        kernel! {$(
            fn $name<$fma>(u: &[f32], y: &mut [f32]) {
                for (y, &$u) in y.iter_mut().zip(u) {
                    $(let $d = *y;)?
                    *y = $value;
                }
            }
        )+}
    };
}

elementwise! {
    fn gelu<FMA>(u) = u * normal_cdf::<FMA>(u);
    fn gelu_backward<FMA>(u, d) = d * gelu_slope::<FMA>(u, normal_cdf::<FMA>(u));
    fn gelu_tanh<FMA>(u) = gelu_tanh_of::<FMA>(u);
    fn gelu_tanh_backward<FMA>(u, d) = gelu_tanh_back_of::<FMA>(u, d);
    fn relu<FMA>(u) = relu_of(u);
    fn relu_backward<FMA>(u, d) = relu_back_of(u, d);
    fn tanh_all<FMA>(u) = tanh::<FMA>(u);
    fn tanh_backward<FMA>(u, d) = tanh_back_of::<FMA>(u, d);
}

kernel! {
    fn gelu_both<FMA>(u: &[f32], d: &mut [f32], y: &mut [f32]) {
        for ((d, y), &u) in d.iter_mut().zip(y).zip(u) {
            let cdf = normal_cdf::<FMA>(u);
            *d *= gelu_slope::<FMA>(u, cdf);
            *y = u * cdf;
        }
    }
}

const SQRT_2_OVER_PI: f32 = 0.797_884_6;

const CUBIC: f32 = 0.044_715;

#[inline(always)]
fn gelu_tanh_inner<const FMA: bool>(u: f32) -> f32 {
    tanh::<FMA>(SQRT_2_OVER_PI * u * fma::<FMA>(CUBIC * u, u, 1.0))
}

#[inline(always)]
pub(crate) fn gelu_tanh_of<const FMA: bool>(u: f32) -> f32 {
    0.5 * u * (1.0 + gelu_tanh_inner::<FMA>(u))
}

/// With `t = tanh(v)`: `f' = (1 + t) / 2 + u (1 - t²) v' / 2`
#[inline(always)]
pub(crate) fn gelu_tanh_back_of<const FMA: bool>(u: f32, d: f32) -> f32 {
    let t = gelu_tanh_inner::<FMA>(u);
    let slope = SQRT_2_OVER_PI * fma::<FMA>(3.0 * CUBIC * u, u, 1.0);
    d * (0.5 * (1.0 + t) + 0.5 * u * (1.0 - t * t) * slope)
}

#[inline(always)]
pub(crate) fn relu_of(u: f32) -> f32 {
    // `max` would turn NaN into 0.
    if u < 0.0 { 0.0 } else { u }
}

#[inline(always)]
pub(crate) fn relu_back_of(u: f32, d: f32) -> f32 {
    if u > 0.0 { d } else { 0.0 }
}

#[inline(always)]
pub(crate) fn tanh_back_of<const FMA: bool>(u: f32, d: f32) -> f32 {
    let t = tanh::<FMA>(u);
    d * (1.0 - t * t)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::math::tests::erf_f64;

    const KINDS: [Activation; 4] = [Activation::Gelu, Activation::GeluTanh, Activation::Relu, Activation::Tanh];

    fn naive(kind: Activation, u: f64) -> f64 {
        match kind {
            Activation::Gelu => 0.5 * u * (1.0 + erf_f64(u / 2f64.sqrt())),
            Activation::GeluTanh => {
                0.5 * u * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (u + 0.044_715 * u.powi(3))).tanh())
            }
            Activation::Relu => u.max(0.0),
            Activation::Tanh => u.tanh(),
        }
    }

    fn inputs() -> Vec<f32> {
        // The offset keeps the kink of ReLU at 0 out of the finite differences.
        (0..CHUNK + 383).map(|i| (i as f32 - 8000.0) / 1000.0 + 0.0003).collect()
    }

    #[test]
    fn the_forward_pass_matches_the_formulas() {
        let u = inputs();
        let mut y = vec![0.0; u.len()];
        for kind in KINDS {
            forward(kind, &u, &mut y);
            for (&u, &y) in u.iter().zip(&y) {
                let expected = naive(kind, f64::from(u));
                assert!((f64::from(y) - expected).abs() < 3e-7 * (1.0 + expected.abs()), "{kind:?}({u}) = {y}");
            }
        }
    }

    #[test]
    fn the_backward_pass_matches_finite_differences() {
        let u = inputs();
        for kind in KINDS {
            let mut d = vec![2.0; u.len()];
            backward(kind, &u, &mut d);
            for (&u, &d) in u.iter().zip(&d) {
                let u = f64::from(u);
                let expected = 2.0 * (naive(kind, u + 1e-5) - naive(kind, u - 1e-5)) / 2e-5;
                assert!((f64::from(d) - expected).abs() < 2e-6, "{kind:?}'({u}) = {d}, not {expected}");
            }
        }
    }

    #[test]
    fn one_pass_gives_the_bits_of_two() {
        let u = inputs();
        for kind in KINDS {
            let (mut y, mut d) = (vec![0.0; u.len()], vec![2.0; u.len()]);
            forward(kind, &u, &mut y);
            backward(kind, &u, &mut d);
            let (y_again, d_again) = crate::base::parallel::tests::same_for_any_pool(|| {
                let (mut y, mut d) = (vec![9.0; u.len()], vec![2.0; u.len()]);
                backward_with_output(kind, &u, &mut d, &mut y);
                (y, d)
            });
            assert_eq!((y, d), (y_again, d_again), "{kind:?}");
        }
    }

    #[test]
    fn nan_stays_nan() {
        for kind in KINDS {
            let mut y = [0.0];
            forward(kind, &[f32::NAN], &mut y);
            assert!(y[0].is_nan(), "{kind:?}");
        }
    }
}
