/// Has elements brought into the caches ahead of their use, where the processor can be told so.
#[inline]
pub(crate) fn prefetch<T>(values: &[T]) {
    #[cfg(target_arch = "x86_64")]
    for byte in (0..size_of_val(values)).step_by(64) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint, of which nothing is read.
        #[allow(unsafe_code)]
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(values.as_ptr().cast::<i8>().wrapping_add(byte));
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = values;
}

/// Orders what was written past the caches before what is written from here on.
pub(crate) fn store_fence() {
    // SAFETY: SSE is there on every x86-64.
    #[cfg(target_arch = "x86_64")]
    #[allow(unsafe_code)]
    unsafe {
        std::arch::x86_64::_mm_sfence();
    }
}
