//! Prefetching, and the fence after non-temporal stores. Miri, which interprets neither, runs without them.

/// Prefetches elements into all cache levels. No effect on other targets than x86-64.
#[inline]
pub(crate) fn prefetch<T>(values: &[T]) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    for byte in (0..size_of_val(values)).step_by(64) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch never faults and reads nothing into the program, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(values.as_ptr().cast::<i8>().wrapping_add(byte)) };
    }
    #[cfg(any(not(target_arch = "x86_64"), miri))]
    let _ = values;
}

/// Makes the non-temporal stores of this thread visible before its later stores.
pub(crate) fn store_fence() {
    // SAFETY: SSE belongs to the baseline of x86-64.
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    unsafe {
        std::arch::x86_64::_mm_sfence();
    }
}
