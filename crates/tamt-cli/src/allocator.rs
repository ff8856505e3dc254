//! A global allocator whose large blocks begin at a cache line.
//!
//! The large blocks of glibc's allocator begin sixteen bytes after a cache line, so that every 64-byte vector in them
//! lies in two lines. Steps of training then take 6 % longer.

use std::alloc::{GlobalAlloc, Layout, System};

/// The system's allocator, but for blocks of 4 KiB or more, which begin at a cache line.
///
/// A large block is a system block with room for a shift. The `usize` in front of the block holds the shift in bytes:
///
/// ```text
/// system block   |... shift - 8 bytes ...| shift: usize | block: layout.size() bytes |
///                ^ multiple of 8                        ^ multiple of 64
/// ```
#[derive(Debug)]
pub struct LineAllocator;

/// Bytes of a cache line.
const LINE: usize = 64;

/// Bytes of the smallest block that is aligned to a line.
const LARGE: usize = 4096;

/// Bytes of the shift in front of a block.
const SHIFT: usize = size_of::<usize>();

impl LineAllocator {
    /// The layout of the system block behind a large block; `None` if the system's block is used as it is.
    fn with_room(layout: Layout) -> Option<Layout> {
        if layout.size() < LARGE || layout.align() > LINE {
            return None;
        }
        Layout::from_size_align(layout.size().saturating_add(LINE), layout.align().max(SHIFT)).ok()
    }
}

/// The large block inside a system block. Null stays null.
///
/// # Safety
/// `system` is null, or is aligned to [`SHIFT`] and points to [`LINE`] bytes more than the large block has, all of them
/// owned by the caller.
#[allow(unsafe_code)]
unsafe fn shifted(system: *mut u8) -> *mut u8 {
    if system.is_null() {
        return system;
    }
    let shift = LINE - system.addr() % LINE;
    // SAFETY: `shift` is in `SHIFT..=LINE`, since `system` is a multiple of `SHIFT`: the block and the `SHIFT` bytes in
    // front of it lie in the system block (guaranteed by the caller), and `block - SHIFT` is aligned for a `usize`.
    unsafe {
        let block = system.add(shift);
        block.sub(SHIFT).cast::<usize>().write(shift);
        block
    }
}

// SAFETY: each block is the system's block, or lies in a system block with `LINE` bytes of room (`with_room`).
// `dealloc` computes the same `with_room` from the same layout as `alloc` (the caller guarantees the layout), and so
// returns the system block under the layout of its allocation. No function here unwinds.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for LineAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match Self::with_room(layout) {
            // SAFETY: `roomy.size()` is at least `LARGE` (`with_room`), so not zero. The block is null or has `LINE`
            // bytes of room and the alignment `SHIFT` or more, as `with_room` asked of the system.
            Some(roomy) => unsafe { shifted(System.alloc(roomy)) },
            // SAFETY: the size of `layout` is not zero: the caller of `alloc` guarantees it.
            None => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        match Self::with_room(layout) {
            // SAFETY: as in `alloc`. The shift lies in front of the block, whose bytes stay zero; of fresh pages, only
            // the first one is touched.
            Some(roomy) => unsafe { shifted(System.alloc_zeroed(roomy)) },
            // SAFETY: the size of `layout` is not zero: the caller of `alloc_zeroed` guarantees it.
            None => unsafe { System.alloc_zeroed(layout) },
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match Self::with_room(layout) {
            // SAFETY: `block` came from `shifted` in `alloc` or `alloc_zeroed` with the same `layout` (the caller of
            // `dealloc` guarantees both), so that its shift stands in front of it, and `roomy` is the layout of the
            // system block at `block - shift`.
            Some(roomy) => unsafe {
                let shift = block.sub(SHIFT).cast::<usize>().read();
                System.dealloc(block.sub(shift), roomy);
            },
            // SAFETY: `block` is the system's own, with this `layout`: the caller of `dealloc` guarantees the layout.
            None => unsafe { System.dealloc(block, layout) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The command's allocator is that of the unit tests, too, whose vectors it makes.
    #[global_allocator]
    static ALLOCATOR: LineAllocator = LineAllocator;

    #[test]
    fn large_blocks_begin_a_line_and_keep_their_content_as_they_grow() {
        for len in [0usize, 1, LARGE - 1, LARGE, LARGE + 1, 1 << 20] {
            let zeros = vec![0u8; len];
            assert!(len < LARGE || zeros.as_ptr().addr().is_multiple_of(LINE), "{len} bytes");
            assert!(zeros.iter().all(|byte| *byte == 0));
            let mut growing: Vec<u8> = (0..len).map(|i| i as u8).collect();
            growing.reserve_exact(3 * len + LARGE);
            assert!(growing.as_ptr().addr().is_multiple_of(LINE));
            assert!(growing.iter().enumerate().all(|(i, byte)| *byte == i as u8));
            growing.truncate(len / 2);
            growing.shrink_to_fit();
            assert!(growing.iter().enumerate().all(|(i, byte)| *byte == i as u8));
        }
    }
}
