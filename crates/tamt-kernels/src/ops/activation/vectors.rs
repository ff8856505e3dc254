//! Activation functions of vectors in registers, for epilogues whose results are rounded to bf16.

use std::arch::x86_64::{__m512, _mm512_mul_ps};
use std::mem::transmute;

use crate::base::tanh;
use crate::ops::activation::functions::{
    Activation, gelu_tanh_back_of, gelu_tanh_of, relu_back_of, relu_of, tanh_back_of,
};
use crate::ops::activation::gelu_table::GeluTable;

/// The values that an epilogue processes at a time: one row pair of 32 columns.
pub(crate) type Vectors = [__m512; 4];

/// The elements of [`Vectors`], which have the same size and no padding.
type Elements = [f32; 64];

impl Activation {
    /// `f(u)`. Inlining compiles the function for the instruction sets of the calling kernel.
    ///
    /// # Safety
    /// The processor must have AVX-512F, AVX-512DQ and FMA.
    #[inline(always)]
    pub(crate) unsafe fn of_vectors(self, u: Vectors) -> Vectors {
        match self {
            Self::Gelu => {
                let (table, mut y) = (GeluTable::get(), u);
                for y in &mut y {
                    // SAFETY: AVX-512F and DQ are present: this function's contract.
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
    /// The processor must have AVX-512F, AVX-512DQ and FMA.
    #[inline(always)]
    pub(crate) unsafe fn back_of_vectors(self, u: Vectors, d: Vectors) -> (Vectors, Vectors) {
        match self {
            Self::Gelu => {
                let (table, mut du, mut y) = (GeluTable::get(), d, u);
                for (du, y) in du.iter_mut().zip(&mut y) {
                    // SAFETY: AVX-512F and DQ are present: this function's contract.
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

/// `f(u)` elementwise.
#[inline(always)]
fn each(u: Vectors, f: impl Fn(f32) -> f32) -> Vectors {
    // SAFETY: both types are 256 bytes of floats without padding, and every bit pattern is valid.
    let mut elements = unsafe { transmute::<Vectors, Elements>(u) };
    for element in &mut elements {
        *element = f(*element);
    }
    // SAFETY: both types are 256 bytes of floats without padding, and every bit pattern is valid.
    unsafe { transmute::<Elements, Vectors>(elements) }
}

/// `f(u, d)` elementwise: the gradient and the output.
#[inline(always)]
fn each_back(u: Vectors, d: Vectors, f: impl Fn(f32, f32) -> (f32, f32)) -> (Vectors, Vectors) {
    // SAFETY: both types are 256 bytes of floats without padding, and every bit pattern is valid.
    let (mut y, mut d) = unsafe { (transmute::<Vectors, Elements>(u), transmute::<Vectors, Elements>(d)) };
    for (d, u_to_y) in d.iter_mut().zip(&mut y) {
        (*d, *u_to_y) = f(*u_to_y, *d);
    }
    // SAFETY: both types are 256 bytes of floats without padding, and every bit pattern is valid.
    unsafe { (transmute::<Elements, Vectors>(d), transmute::<Elements, Vectors>(y)) }
}
