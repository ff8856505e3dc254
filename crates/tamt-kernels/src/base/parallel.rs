//! Work split over the current rayon pool, with results that do not depend on the number of threads.
//!
//! Every split depends on shapes only, and partial results are combined in the order of the chunks.

use rayon::prelude::*;
use std::cell::Cell;
use std::marker::PhantomData;
use std::ops::Range;

/// Elements of an elementwise job: small enough to balance the threads, large enough to hide the cost of a job. Miri,
/// where inputs are small, still divides them into jobs.
pub(crate) const CHUNK: usize = if cfg!(miri) { 512 } else { 16 * 1024 };

/// Upper limit of the partial results of a reduction.
pub(crate) const PARTIALS: usize = if cfg!(miri) { 4 } else { 64 };

/// Length of the chunks of a reduction over `n` items: at most [`PARTIALS`] chunks, each of at least `smallest` items.
pub(crate) fn reduction_chunk(n: usize, smallest: usize) -> usize {
    n.div_ceil(PARTIALS).max(smallest).max(1)
}

/// `f` of every chunk of `0..n`, in order; the other elements of the array are `T::default()`.
pub(crate) fn map_chunks<T, F>(n: usize, smallest: usize, f: F) -> [T; PARTIALS]
where
    T: Copy + Default + Send,
    F: Fn(Range<usize>) -> T + Sync,
{
    let size = reduction_chunk(n, smallest);
    let mut partials = [T::default(); PARTIALS];
    partials[..n.div_ceil(size)].par_iter_mut().enumerate().for_each(|(chunk, out)| {
        *out = f(chunk * size..n.min((chunk + 1) * size));
    });
    partials
}

/// Rows of a job of about [`CHUNK`] elements.
pub(crate) fn rows_per_job(cols: usize) -> usize {
    (CHUNK / cols.max(1)).max(1)
}

thread_local! {
    static INSIDE_PARALLEL_JOB: Cell<bool> = const { Cell::new(false) };
}

/// Runs `f` as one of many parallel jobs that occupy all threads. Products inside `f` are cut into jobs of the best
/// size for the caches instead of into more, smaller jobs for idle threads. The results have the same bits.
pub fn inside_parallel_job<R>(f: impl FnOnce() -> R) -> R {
    /// Restores the mark, after a panic too: the thread may serve on.
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            INSIDE_PARALLEL_JOB.set(self.0);
        }
    }
    let _restore = Restore(INSIDE_PARALLEL_JOB.replace(true));
    f()
}

/// Whether this thread runs inside [`inside_parallel_job`].
pub(crate) fn is_inside_parallel_job() -> bool {
    INSIDE_PARALLEL_JOB.get()
}

/// A buffer of which several jobs write disjoint parts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shared<'a, T> {
    start: *mut T,
    len: usize,
    lifetime: PhantomData<&'a mut [T]>,
}

// SAFETY: access to elements goes through `part`, whose callers guarantee disjoint parts, or through raw pointers.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

// SAFETY: a `Shared` stands for a `&mut [T]`, which is `Send` for `T: Send`.
unsafe impl<T: Send> Send for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub(crate) fn new(buffer: &'a mut [T]) -> Self {
        Self { start: buffer.as_mut_ptr(), len: buffer.len(), lifetime: PhantomData }
    }

    /// Number of elements.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// A part of the buffer.
    ///
    /// # Safety
    /// No other reference to an element of `range` is alive while the part is.
    ///
    /// # Panics
    /// If the range exceeds the buffer.
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn part(&self, range: Range<usize>) -> &'a mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "part lies in the buffer");
        // SAFETY: the assertion above checks the bounds; the `# Safety` contract excludes aliases.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }

    /// Pointer to element `index`, for strided writes.
    ///
    /// # Panics
    /// If `index` exceeds the length.
    pub(crate) fn pointer(&self, index: usize) -> *mut T {
        assert!(index <= self.len, "element lies in the buffer");
        // SAFETY: the assertion above checks that the pointer lies in the buffer or one past its end.
        unsafe { self.start.add(index) }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::base::buffer::{with_buffer, with_parts};
    use crate::reference::unless_miri;

    /// Runs `f` in pools of 1, 2 and 5 threads, in Miri 1, 2 and 3, and checks that the results are the same bits.
    pub(crate) fn same_for_any_pool<R: PartialEq + std::fmt::Debug + Send>(f: impl Fn() -> R + Sync) -> R {
        let most = unless_miri(5, 3);
        let mut results = [1, 2, most].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool starts");
            Some(pool.install(&f))
        });
        assert_eq!(results[0], results[1], "1 and 2 threads");
        assert_eq!(results[0], results[2], "1 and {most} threads");
        results[0].take().expect("was just set")
    }

    #[test]
    fn chunks_cover_everything_once() {
        for n in [0, 1, 63, 64, 65, 100_000] {
            let lengths = map_chunks(n, 10, |range| range.len());
            assert_eq!(lengths.iter().sum::<usize>(), n);
        }
    }

    #[test]
    fn a_panic_inside_a_parallel_job_ends_the_job() {
        let panicked = std::panic::catch_unwind(|| inside_parallel_job(|| panic!("a job")));
        assert!(panicked.is_err() && !is_inside_parallel_job());
        assert!(inside_parallel_job(|| inside_parallel_job(is_inside_parallel_job) && is_inside_parallel_job()));
    }

    #[test]
    fn nested_buffers_do_not_alias() {
        with_buffer(10, |outer| {
            outer.fill(1.0);
            with_buffer(20, |inner| inner.fill(2.0));
            assert!(outer.iter().all(|&v| v == 1.0));
        });
    }

    #[test]
    fn parts_are_aligned_and_apart() {
        with_parts([3, 0, 17], |[a, b, c]| {
            assert!([&*a, &*b, &*c].iter().all(|part| (part.as_ptr() as usize).is_multiple_of(64)));
            a.fill(1.0);
            c.fill(2.0);
            assert_eq!((a.len(), b.len(), c.len()), (3, 0, 17));
            assert!(a.iter().all(|&v| v == 1.0) && c.iter().all(|&v| v == 2.0));
        });
    }

    #[test]
    fn buffers_are_aligned() {
        with_buffer(3, |buffer: &mut [f32]| assert_eq!(buffer.as_ptr() as usize % 64, 0));
    }
}
