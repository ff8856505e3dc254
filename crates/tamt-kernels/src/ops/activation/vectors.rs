//! Activations of a few vectors, as part of another kernel, for results that are rounded to bf16.

use std::arch::x86_64::{__m512, _mm512_mul_ps};
use std::mem::transmute;

use crate::base::math::tanh;
use crate::ops::activation::functions::{
    Activation, gelu_tanh_back_of, gelu_tanh_of, relu_back_of, relu_of, tanh_back_of,
};
use crate::ops::activation::gelu_table::GeluTable;

/// What is computed at a time.
pub(crate) type Vectors = [__m512; 4];

/// The elements of [`Vectors`].
type Elements = [f32; 64];

#[allow(unsafe_code)]
impl Activation {
    /// `f(u)`, compiled for the instructions of the caller.
    ///
    /// # Safety
    /// The processor has AVX-512 F and DQ.
    #[inline(always)]
    pub(crate) unsafe fn of_vectors(self, u: Vectors) -> Vectors {
        match self {
            Self::Gelu => {
                let (table, mut y) = (GeluTable::get(), u);
                for y in &mut y {
                    // SAFETY: the caller's.
                    *y = unsafe { table.value(*y) };
                }
                y
            }
            Self::GeluTanh => each(u, gelu_tanh_of::<true>),
            Self::Relu => each(u, relu_of),
            Self::Tanh => each(u, tanh::<true>),
        }
    }

    /// `d f'(u)` and `f(u)`.
    ///
    /// # Safety
    /// As for [`Activation::of_vectors`].
    #[inline(always)]
    pub(crate) unsafe fn back_of_vectors(self, u: Vectors, d: Vectors) -> (Vectors, Vectors) {
        match self {
            Self::Gelu => {
                let (table, mut du, mut y) = (GeluTable::get(), d, u);
                for (du, y) in du.iter_mut().zip(&mut y) {
                    // SAFETY: the caller's.
                    unsafe {
                        let (value, slope) = table.value_and_slope(*y);
                        (*du, *y) = (_mm512_mul_ps(*du, slope), value);
                    }
                }
                (du, y)
            }
            Self::GeluTanh => each_back(u, d, |u, d| (gelu_tanh_back_of::<true>(u, d), gelu_tanh_of::<true>(u))),
            Self::Relu => each_back(u, d, |u, d| (relu_back_of(u, d), relu_of(u))),
            Self::Tanh => each_back(u, d, |u, d| (tanh_back_of::<true>(u, d), tanh::<true>(u))),
        }
    }
}

#[inline(always)]
#[allow(unsafe_code)]
fn each(u: Vectors, f: impl Fn(f32) -> f32) -> Vectors {
    // SAFETY: vectors are their elements.
    let mut elements = unsafe { transmute::<Vectors, Elements>(u) };
    for element in &mut elements {
        *element = f(*element);
    }
    // SAFETY: the same.
    unsafe { transmute::<Elements, Vectors>(elements) }
}

#[inline(always)]
#[allow(unsafe_code)]
fn each_back(u: Vectors, d: Vectors, f: impl Fn(f32, f32) -> (f32, f32)) -> (Vectors, Vectors) {
    // SAFETY: vectors are their elements.
    let (mut y, mut d) = unsafe { (transmute::<Vectors, Elements>(u), transmute::<Vectors, Elements>(d)) };
    for (d, u_to_y) in d.iter_mut().zip(&mut y) {
        (*d, *u_to_y) = f(*u_to_y, *d);
    }
    // SAFETY: the same.
    unsafe { (transmute::<Elements, Vectors>(d), transmute::<Elements, Vectors>(y)) }
}
