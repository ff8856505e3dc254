//! Packing of the operands of a matrix product into panels, masked on the way.

use std::ops::Range;

use crate::bits::{BitMask, select_row};
#[cfg(target_arch = "x86_64")]
use crate::dispatch::{Isa, isa};
use crate::parallel::with_buffer;

/// An operand before packing. `lane` counts rows of `A` or columns of `B`; `depth` is the index that is summed over.
#[derive(Clone, Copy)]
pub(crate) struct Operand<'a> {
    pub(crate) data: &'a [f32],
    /// Elements from one row of `data` to the next.
    pub(crate) stride: usize,
    pub(crate) order: Order,
    /// Mask of `data`, whose rows it shares; `data` then is the whole matrix.
    pub(crate) mask: Option<&'a BitMask>,
}

/// What a row of an operand's data is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// One lane, contiguous in depth.
    LaneRows,
    /// One step of the depth, contiguous in lanes.
    DepthRows,
}

impl<'a> Operand<'a> {
    pub(crate) fn new(data: &'a [f32], stride: usize, order: Order) -> Self {
        Self { data, stride, order, mask: None }
    }

    /// Packs panels of `width` lanes: `out` is `[panels][depth][width]`, padded with zeros to whole panels. With a mask,
    /// `lanes` and `depth` begin at multiples of 8.
    pub(crate) fn pack(&self, lanes: Range<usize>, depth: Range<usize>, width: usize, out: &mut [f32]) {
        let steps = depth.len();
        debug_assert_eq!(out.len(), lanes.len().div_ceil(width) * width * steps, "whole panels");
        if steps == 0 {
            return;
        }
        for (panel, out) in out.chunks_exact_mut(width * steps).enumerate() {
            let first = lanes.start + panel * width;
            let lanes = first..lanes.end.min(first + width);
            match self.order {
                Order::DepthRows => self.pack_depth_rows(lanes, depth.clone(), width, out),
                Order::LaneRows => self.pack_lane_rows(lanes, depth.clone(), width, out),
            }
        }
    }

    fn pack_depth_rows(&self, lanes: Range<usize>, depth: Range<usize>, width: usize, out: &mut [f32]) {
        let count = lanes.len();
        if self.mask.is_none() && count == width {
            let rows = &self.data[depth.start * self.stride + lanes.start..];
            // the widths of the register tiles: a copy of known size is a few moves, not a call
            match width {
                4 => return copy_rows::<4>(rows, self.stride, out),
                8 => return copy_rows::<8>(rows, self.stride, out),
                16 => return copy_rows::<16>(rows, self.stride, out),
                24 => return copy_rows::<24>(rows, self.stride, out),
                32 => return copy_rows::<32>(rows, self.stride, out),
                48 => return copy_rows::<48>(rows, self.stride, out),
                _ => {}
            }
        }
        for (k, out) in depth.zip(out.chunks_exact_mut(width)) {
            let row = &self.data[k * self.stride + lanes.start..][..count];
            match self.mask {
                None => out[..count].copy_from_slice(row),
                Some(mask) => select_row(&mask.row(k)[lanes.start / 8..], row, &mut out[..count]),
            }
            out[count..].fill(0.0);
        }
    }

    fn pack_lane_rows(&self, lanes: Range<usize>, depth: Range<usize>, width: usize, out: &mut [f32]) {
        let steps = depth.len();
        let Some(mask) = self.mask else {
            let rows = &self.data[lanes.start * self.stride + depth.start..];
            return transpose(rows, self.stride, lanes.len(), steps, out, width);
        };
        with_buffer(lanes.len() * steps, |masked| {
            for (lane, masked) in lanes.clone().zip(masked.chunks_exact_mut(steps)) {
                let row = &self.data[lane * self.stride + depth.start..][..steps];
                select_row(&mask.row(lane)[depth.start / 8..], row, masked);
            }
            transpose(masked, steps, lanes.len(), steps, out, width);
        });
    }
}

/// Row `k` of `out` becomes the first `W` elements of row `k` of `x`.
fn copy_rows<const W: usize>(x: &[f32], stride: usize, out: &mut [f32]) {
    for (k, out) in out.as_chunks_mut::<W>().0.iter_mut().enumerate() {
        *out = *x[k * stride..].first_chunk().expect("the input holds the rows");
    }
}

/// `out[j * width + i] = x[i * stride + j]` for `i < rows`, `j < cols`; zero for `rows <= i < width`.
fn transpose(x: &[f32], stride: usize, rows: usize, cols: usize, out: &mut [f32], width: usize) {
    assert!(rows <= width && out.len() >= cols * width, "the output holds the panel");
    assert!(rows == 0 || x.len() >= (rows - 1) * stride + cols, "the input holds the rows");
    // whole 8 x 8 squares first, then what is left below and to the right of them
    let (square_rows, square_cols) = transpose_squares(x, stride, rows, cols, out, width);
    for i in 0..rows {
        for j in if i < square_rows { square_cols } else { 0 }..cols {
            out[j * width + i] = x[i * stride + j];
        }
    }
    if rows < width {
        for row in out.chunks_exact_mut(width).take(cols) {
            row[rows..].fill(0.0);
        }
    }
}

/// Transposes the 8 x 8 squares of the input where there are instructions for it; returns the rows and columns done.
#[cfg(target_arch = "x86_64")]
fn transpose_squares(
    x: &[f32],
    stride: usize,
    rows: usize,
    cols: usize,
    out: &mut [f32],
    width: usize,
) -> (usize, usize) {
    if isa() < Isa::Avx2 {
        return (0, 0);
    }
    let done = (rows / 8 * 8, cols / 8 * 8);
    // SAFETY: AVX is there; `transpose` checked that both buffers hold the rows and columns.
    #[allow(unsafe_code)]
    unsafe {
        transpose_squares_avx(x.as_ptr(), stride, done, out.as_mut_ptr(), width);
    }
    done
}

/// # Safety
/// Needs AVX; `x` holds `rows` rows and `cols` columns, `out` the transpose; both are multiples of 8.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx")]
#[allow(unsafe_code)]
unsafe fn transpose_squares_avx(
    x: *const f32,
    stride: usize,
    (rows, cols): (usize, usize),
    out: *mut f32,
    width: usize,
) {
    for i in (0..rows).step_by(8) {
        for j in (0..cols).step_by(8) {
            // SAFETY: the caller's.
            unsafe { transpose_eight(x.add(i * stride + j), stride, out.add(j * width + i), width) };
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn transpose_squares(_: &[f32], _: usize, _: usize, _: usize, _: &mut [f32], _: usize) -> (usize, usize) {
    (0, 0)
}

/// Transposes 8 x 8 floats.
///
/// # Safety
/// Needs AVX; eight rows of eight floats must be readable at `x` and writable at `out`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx")]
#[inline]
#[allow(unsafe_code)]
unsafe fn transpose_eight(x: *const f32, stride: usize, out: *mut f32, width: usize) {
    use std::arch::x86_64::{
        _mm256_loadu_ps, _mm256_permute2f128_ps, _mm256_shuffle_ps, _mm256_storeu_ps, _mm256_unpackhi_ps,
        _mm256_unpacklo_ps,
    };
    // SAFETY: the caller's.
    let row = |i: usize| unsafe { _mm256_loadu_ps(x.add(i * stride)) };
    let quad = |i: usize| {
        let (r0, r1, r2, r3) = (row(i), row(i + 1), row(i + 2), row(i + 3));
        let (a, b) = (_mm256_unpacklo_ps(r0, r1), _mm256_unpackhi_ps(r0, r1));
        let (c, d) = (_mm256_unpacklo_ps(r2, r3), _mm256_unpackhi_ps(r2, r3));
        [
            _mm256_shuffle_ps::<0x44>(a, c),
            _mm256_shuffle_ps::<0xee>(a, c),
            _mm256_shuffle_ps::<0x44>(b, d),
            _mm256_shuffle_ps::<0xee>(b, d),
        ]
    };
    let (top, bottom) = (quad(0), quad(4));
    for j in 0..4 {
        // SAFETY: the caller's.
        unsafe {
            _mm256_storeu_ps(out.add(j * width), _mm256_permute2f128_ps::<0x20>(top[j], bottom[j]));
            _mm256_storeu_ps(out.add((j + 4) * width), _mm256_permute2f128_ps::<0x31>(top[j], bottom[j]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{random, random_mask};

    #[test]
    fn panels_hold_every_element_and_pad_with_zeros() {
        for (lanes, depth, width) in [(1, 1, 4), (20, 37, 8), (48, 16, 48), (50, 9, 24), (7, 65, 8), (3, 5, 48)] {
            for order in [Order::LaneRows, Order::DepthRows] {
                let (rows, cols) =
                    if order == Order::LaneRows { (lanes + 8, depth + 8) } else { (depth + 8, lanes + 8) };
                let data = random(rows * cols, 1);
                let mask = random_mask(rows, cols, 0.5);
                for mask in [None, Some(&mask)] {
                    let operand = Operand { data: &data, stride: cols, order, mask };
                    let mut out = vec![9.0; lanes.div_ceil(width) * width * depth];
                    operand.pack(8..8 + lanes, 8..8 + depth, width, &mut out);
                    for (at, &value) in out.iter().enumerate() {
                        let lane = at / (width * depth) * width + at % width;
                        let (r, c) = match order {
                            Order::LaneRows => (8 + lane, 8 + at / width % depth),
                            Order::DepthRows => (8 + at / width % depth, 8 + lane),
                        };
                        let kept = lane < lanes && mask.is_none_or(|m| m.get(r, c));
                        assert_eq!(value, if kept { data[r * cols + c] } else { 0.0 }, "{order:?} {at}");
                    }
                }
            }
        }
    }
}
