use std::cell::RefCell;

/// A cache line of floats.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// A growable buffer of floats on a cache-line boundary: unaligned panels cost 20-25 % of a product.
#[derive(Clone, Debug, Default)]
pub(crate) struct AlignedBuffer {
    lines: Vec<Line>,
}

impl AlignedBuffer {
    /// `len` floats of unspecified content; grows when needed and never shrinks.
    #[allow(unsafe_code)]
    pub(crate) fn get(&mut self, len: usize) -> &mut [f32] {
        let lines = len.div_ceil(16);
        if self.lines.len() < lines {
            self.lines.resize(lines, Line([0.0; 16]));
        }
        // SAFETY: `Line` is sixteen floats without padding, and there are enough of them.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast::<f32>(), len) }
    }

    /// All floats that the buffer has grown to, as the last user left them.
    #[allow(unsafe_code)]
    pub(crate) fn as_slice(&self) -> &[f32] {
        // SAFETY: `Line` is sixteen floats without padding.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast::<f32>(), self.lines.len() * 16) }
    }
}

/// Runs `f` with `len` floats of unspecified content from a buffer that this thread keeps.
///
/// Nested calls (also through work stealing) get buffers of their own.
pub(crate) fn with_buffer<R>(len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    with_growing(|buffer| f(buffer.get(len)))
}

/// [`with_buffer`] whose length `f` chooses.
pub(crate) fn with_growing<R>(f: impl FnOnce(&mut AlignedBuffer) -> R) -> R {
    thread_local! {
        static BUFFERS: RefCell<Vec<AlignedBuffer>> = const { RefCell::new(Vec::new()) };
    }
    let mut buffer = BUFFERS.with_borrow_mut(Vec::pop).unwrap_or_default();
    let result = f(&mut buffer);
    BUFFERS.with_borrow_mut(|buffers| buffers.push(buffer));
    result
}

/// [`with_buffer`] in parts, each on a cache-line boundary.
pub(crate) fn with_parts<R, const N: usize>(lengths: [usize; N], f: impl FnOnce([&mut [f32]; N]) -> R) -> R {
    let padded = lengths.map(|len| len.next_multiple_of(16));
    with_buffer(padded.iter().sum(), |buffer| {
        let mut rest = buffer;
        f(std::array::from_fn(|part| {
            let (taken, tail) = std::mem::take(&mut rest).split_at_mut(padded[part]);
            rest = tail;
            &mut taken[..lengths[part]]
        }))
    })
}
