//! Growable buffers that begin on a cache line, and a pool of them per thread.

use std::cell::RefCell;

use crate::base::values::Word;

/// A type of four bytes for which every bit pattern is a value.
///
/// # Safety
/// The type has the size of an `f32`, at most its alignment, no padding and no invalid bit patterns.
pub(crate) unsafe trait FourBytes: Copy {}

// SAFETY: `f32` has four bytes and accepts every bit pattern.
unsafe impl FourBytes for f32 {}

// SAFETY: `Word` is a transparent `u32`.
unsafe impl FourBytes for Word {}

/// A cache line.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// A growable buffer of floats or panel words on a cache-line boundary: unaligned panels slow a product down by 20-25
/// %.
#[derive(Clone, Debug, Default)]
pub(crate) struct AlignedBuffer {
    lines: Vec<Line>,
}

impl AlignedBuffer {
    /// `len` elements of unspecified content. The buffer grows when needed and never shrinks.
    pub(crate) fn get<T: FourBytes>(&mut self, len: usize) -> &mut [T] {
        let lines = len.div_ceil(16);
        if self.lines.len() < lines {
            self.lines.resize(lines, Line([0.0; 16]));
        }
        // SAFETY: the vector holds `lines` lines of sixteen initialised floats, at least `len`, and every bit pattern
        // of four bytes is a `T` by the contract of `FourBytes`.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast::<T>(), len) }
    }

    /// All elements of the buffer, as the last user wrote them.
    pub(crate) fn as_slice<T: FourBytes>(&self) -> &[T] {
        // SAFETY: a line is sixteen initialised floats without padding, and every bit pattern of four bytes is a `T` by
        // the contract of `FourBytes`.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast::<T>(), self.lines.len() * 16) }
    }
}

/// Runs `f` with `len` elements of unspecified content from this thread's pool of buffers.
///
/// Nested calls (also through work stealing) get distinct buffers.
pub(crate) fn with_buffer<T: FourBytes, R>(len: usize, f: impl FnOnce(&mut [T]) -> R) -> R {
    thread_local! {
        static BUFFERS: RefCell<Vec<AlignedBuffer>> = const { RefCell::new(Vec::new()) };
    }
    let mut buffer = BUFFERS.with_borrow_mut(Vec::pop).unwrap_or_default();
    let result = f(buffer.get(len));
    BUFFERS.with_borrow_mut(|buffers| buffers.push(buffer));
    result
}

/// [`with_buffer`] split into parts that each begin on a cache line.
pub(crate) fn with_parts<R, const N: usize>(lengths: [usize; N], f: impl FnOnce([&mut [f32]; N]) -> R) -> R {
    with_panels_and_floats([], lengths, |[], floats| f(floats))
}

/// [`with_parts`], the first `P` of them for panels and the other `N` for floats.
pub(crate) fn with_panels_and_floats<R, const P: usize, const N: usize>(
    panels: [usize; P],
    floats: [usize; N],
    f: impl FnOnce([&mut [Word]; P], [&mut [f32]; N]) -> R,
) -> R {
    let padded = |len: &usize| len.next_multiple_of(16);
    with_buffer(panels.iter().chain(&floats).map(padded).sum(), |buffer: &mut [Word]| {
        let mut rest = buffer;
        let mut next = |len: usize| {
            let (taken, tail) = std::mem::take(&mut rest).split_at_mut(padded(&len));
            rest = tail;
            &mut taken[..len]
        };
        let panels = panels.map(&mut next);
        f(panels, floats.map(|len| Word::floats_mut(next(len))))
    })
}
