//! Memory that begins with a cache line.
//!
//! The system's allocator (glibc's) begins large blocks sixteen bytes after one, and every vector of 64 bytes in them then lies in two
//! lines: steps take 6 % longer.

use std::alloc::{GlobalAlloc, Layout, System};

/// The system's allocator, whose blocks of [`LARGE`] bytes or more begin a cache line.
pub(crate) struct LineAllocator;

/// Bytes of a cache line.
const LINE: usize = 64;

/// Smaller blocks are as the system gives them.
const LARGE: usize = 4096;

impl LineAllocator {
    /// What is asked of the system for a block: room to move it up to a line, and to say how far it was moved. None if the
    /// block is left as it is.
    fn with_room(layout: Layout) -> Option<Layout> {
        if layout.size() < LARGE || layout.align() > LINE {
            return None;
        }
        Layout::from_size_align(layout.size().saturating_add(LINE), layout.align().max(MOVED)).ok()
    }
}

/// Bytes of the number that says how far a block was moved, which lies before it.
const MOVED: usize = size_of::<usize>();

/// Moves a block up to a line.
///
/// # Safety
/// `block` is null, or a block with [`LineAllocator::with_room`].
#[allow(unsafe_code)]
unsafe fn moved(block: *mut u8) -> *mut u8 {
    if block.is_null() {
        return block;
    }
    // SAFETY: a line's room was asked for; as the block begins with a multiple of eight, there are eight bytes or more before its new
    // beginning.
    unsafe {
        let by = LINE - block.addr() % LINE;
        let block = block.add(by);
        block.sub(MOVED).cast::<usize>().write(by);
        block
    }
}

// SAFETY: blocks are the system's, moved within the room that was asked for, and moved back before they are returned to it.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for LineAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's.
        match Self::with_room(layout) {
            Some(roomy) => unsafe { moved(System.alloc(roomy)) },
            None => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's. Pages of zeros stay untouched, but for the first one.
        match Self::with_room(layout) {
            Some(roomy) => unsafe { moved(System.alloc_zeroed(roomy)) },
            None => unsafe { System.alloc_zeroed(layout) },
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's; the block came from here.
        match Self::with_room(layout) {
            Some(roomy) => unsafe {
                let by = block.sub(MOVED).cast::<usize>().read();
                System.dealloc(block.sub(by), roomy);
            },
            None => unsafe { System.dealloc(block, layout) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tests' own memory comes from it too.
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
