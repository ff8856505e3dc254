//! Activations of a few elements, as part of another kernel.

use super::{Activation, gelu_both_of, gelu_of, gelu_tanh_back_of, gelu_tanh_of, relu_back_of, relu_of, tanh_back_of};
use crate::math::tanh;

impl Activation {
    /// `y = f(u)` of a few elements, compiled for the instructions of the caller.
    #[inline(always)]
    pub(crate) fn of<const FMA: bool, const N: usize>(self, u: &[f32; N], y: &mut [f32; N]) {
        match self {
            Self::Gelu => each(u, y, gelu_of::<FMA>),
            Self::GeluTanh => each(u, y, gelu_tanh_of::<FMA>),
            Self::Relu => each(u, y, relu_of),
            Self::Tanh => each(u, y, tanh::<FMA>),
        }
    }

    /// As [`super::backward_with_output`], of a few elements.
    #[inline(always)]
    pub(crate) fn back<const FMA: bool, const N: usize>(self, u: &[f32; N], dy_to_du: &mut [f32; N], y: &mut [f32; N]) {
        match self {
            Self::Gelu => each_back(u, dy_to_du, y, gelu_both_of::<FMA>),
            Self::GeluTanh => {
                each_back(u, dy_to_du, y, |u, d| (gelu_tanh_back_of::<FMA>(u, d), gelu_tanh_of::<FMA>(u)));
            }
            Self::Relu => each_back(u, dy_to_du, y, |u, d| (relu_back_of(u, d), relu_of(u))),
            Self::Tanh => each_back(u, dy_to_du, y, |u, d| (tanh_back_of::<FMA>(u, d), tanh::<FMA>(u))),
        }
    }
}

#[inline(always)]
fn each<const N: usize>(u: &[f32; N], y: &mut [f32; N], f: impl Fn(f32) -> f32) {
    for (y, &u) in y.iter_mut().zip(u) {
        *y = f(u);
    }
}

#[inline(always)]
fn each_back<const N: usize>(u: &[f32; N], d: &mut [f32; N], y: &mut [f32; N], f: impl Fn(f32, f32) -> (f32, f32)) {
    for ((d, y), &u) in d.iter_mut().zip(y).zip(u) {
        (*d, *y) = f(u, *d);
    }
}
