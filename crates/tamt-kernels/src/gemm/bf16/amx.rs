//! Products of bf16 on the tile registers of AMX (Intel, from Sapphire Rapids on): 16 x 16 sums of 32 products each in one
//! instruction, sixteen times as many a cycle as by AVX-512.
//!
//! Stable Rust has no intrinsics for them, so the instructions are written out.
//!
//! Like AVX-512-BF16, the instructions take subnormal operands for zero.

use std::arch::asm;
use std::cell::Cell;
use std::marker::PhantomData;

use crate::gemm::bf16::operands::{FETCHED, Operands};
use crate::gemm::layout::{OUTPUT_TILE, TILE, TILE_WORDS};

/// The tile registers of this thread, set up for [`strip`] while this lives. Inside of another one it costs next to nothing.
pub(crate) struct AmxConfigured(PhantomData<*const ()>);

thread_local! {
    /// How many [`AmxConfigured`] are alive.
    static AMX_CONFIGURED: Cell<usize> = const { Cell::new(0) };
}

/// What `ldtilecfg` reads: palette 1, and of each register the bytes of a row and the rows.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl AmxConfigured {
    /// # Safety
    /// [`has_amx`] was true.
    #[allow(unsafe_code)]
    pub(crate) unsafe fn new() -> Self {
        let outer = AMX_CONFIGURED.get();
        AMX_CONFIGURED.set(outer + 1);
        if outer > 0 {
            return Self(PhantomData);
        }
        let mut c = Configuration { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        c.row_bytes[..8].fill(4 * TILE as u16);
        c.rows[..8].fill(TILE as u8);
        // SAFETY: the caller's; the configuration has the layout of the manual.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const c, options(nostack, readonly, preserves_flags)) };
        Self(PhantomData)
    }
}

impl Drop for AmxConfigured {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        AMX_CONFIGURED.set(AMX_CONFIGURED.get() - 1);
        if AMX_CONFIGURED.get() > 0 {
            return;
        }
        // SAFETY: there are tile registers; their content is needed no more.
        unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) };
    }
}

/// `out = A B` or, with `adds`, `out += A B` for 32 x 32 elements, `stride` floats from row to row.
///
/// # Safety
/// The tile registers are configured; all memory is there.
#[allow(unsafe_code)]
#[inline(always)]
pub(super) unsafe fn square(words: usize, operands: &Operands, out: *mut f32, stride: usize, adds: bool) {
    // SAFETY: the caller's.
    unsafe {
        if adds {
            load_sums(out, stride);
        } else {
            zero_sums();
        }
        (0..words / TILE).for_each(|tile| step(operands, tile));
        store_sums(out, stride);
    }
}

/// A step of 32 of a square's products. The left operand comes past the nearest cache, where the right one is to stay. Tiles 0 to 3 are
/// sums; what is to be done about each before its first product is given.
macro_rules! step {
    ($operands:ident, $tile:ident; $($zeroth:literal)*; $($first:literal)*; $($second:literal)*; $($third:literal)*; $($arguments:tt)*) => {{
        let Operands { left, lower, right, aside, width, next } = *$operands;
        let (left, right) = (left.add($tile * TILE_WORDS), right.add($tile * TILE * width));
        asm!(
            "tileloaddt1 tmm4, [{upper} + {row}]",
            "tileloadd tmm6, [{left} + {width}]",
            "tileloadd tmm7, [{right} + {width}]",
            $($zeroth,)*
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloaddt1 tmm5, [{lower} + {row}]",
            $($first,)*
            "tdpbf16ps tmm1, tmm4, tmm7",
            $($second,)*
            "tdpbf16ps tmm2, tmm5, tmm6",
            $($third,)*
            "tdpbf16ps tmm3, tmm5, tmm7",
            "prefetcht1 [{next}]",
            "prefetcht1 [{next} + 64]",
            "prefetcht1 [{next} + 128]",
            "prefetcht1 [{next} + 192]",
            upper = in(reg) left, lower = in(reg) left.add(lower), left = in(reg) right, right = in(reg) right.add(aside),
            row = in(reg) 4 * TILE, width = in(reg) 4 * width, next = in(reg) next.wrapping_add($tile * FETCHED),
            $($arguments)*
        );
    }};
}

/// Adds the products of a step of 32 to a square's sums.
///
/// # Safety
/// The tile registers are configured, and the operands have the tile.
#[inline(always)]
#[allow(unsafe_code)]
pub(crate) unsafe fn step(operands: &Operands, tile: usize) {
    // SAFETY: the caller's.
    unsafe { step!(operands, tile; ; ; ; ; options(nostack, readonly, preserves_flags)) }
}

/// Writes the sums of another square to `before`, `[32, 32]`, and begins new ones with a step's products: each register is stored
/// while the products of others go on.
///
/// # Safety
/// As for [`step`], and `before` is writable.
#[inline(always)]
#[allow(unsafe_code)]
pub(crate) unsafe fn first_step(operands: &Operands, tile: usize, before: *mut f32) {
    // SAFETY: the caller's.
    unsafe {
        step!(
            operands, tile;
            "tilestored [{before} + {full}], tmm0" "tilezero tmm0";
            "tilestored [{before} + {full} + 64], tmm1" "tilezero tmm1";
            "tilestored [{before} + {full} + 2048], tmm2" "tilezero tmm2";
            "tilestored [{before} + {full} + 2112], tmm3" "tilezero tmm3";
            before = in(reg) before, full = in(reg) 4 * OUTPUT_TILE, options(nostack, preserves_flags)
        );
    }
}

/// [`first_step`] of sums that were begun before: they are read from `sums`, `[32, 32]`.
///
/// # Safety
/// As for [`first_step`], and `sums` is readable.
#[inline(always)]
#[allow(unsafe_code)]
pub(crate) unsafe fn next_step(operands: &Operands, tile: usize, before: *mut f32, sums: *const f32) {
    // SAFETY: the caller's.
    unsafe {
        step!(
            operands, tile;
            "tilestored [{before} + {full}], tmm0" "tileloadd tmm0, [{sums} + {full}]";
            "tilestored [{before} + {full} + 64], tmm1" "tileloadd tmm1, [{sums} + {full} + 64]";
            "tilestored [{before} + {full} + 2048], tmm2" "tileloadd tmm2, [{sums} + {full} + 2048]";
            "tilestored [{before} + {full} + 2112], tmm3" "tileloadd tmm3, [{sums} + {full} + 2112]";
            before = in(reg) before, sums = in(reg) sums, full = in(reg) 4 * OUTPUT_TILE, options(nostack, preserves_flags)
        );
    }
}

/// Clears the sums of a square.
///
/// # Safety
/// The tile registers are configured.
#[allow(unsafe_code)]
#[inline(always)]
pub(crate) unsafe fn zero_sums() {
    // SAFETY: the caller's.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            options(nostack, nomem, preserves_flags)
        );
    }
}

/// Reads the sums of a square, `stride` floats from row to row.
///
/// # Safety
/// As for [`store_sums`].
#[allow(unsafe_code)]
#[inline(always)]
unsafe fn load_sums(from: *const f32, stride: usize) {
    // SAFETY: the caller's.
    unsafe {
        asm!(
            "tileloadd tmm0, [{from} + {step}]",
            "tileloadd tmm1, [{from} + {step} + 64]",
            "tileloadd tmm2, [{low} + {step}]",
            "tileloadd tmm3, [{low} + {step} + 64]",
            from = in(reg) from, low = in(reg) from.add(TILE * stride), step = in(reg) 4 * stride,
            options(nostack, readonly, preserves_flags)
        );
    }
}

/// Writes the sums of a square, `stride` floats from row to row.
///
/// # Safety
/// The tile registers are configured, and the memory is there.
#[allow(unsafe_code)]
#[inline(always)]
pub(crate) unsafe fn store_sums(out: *mut f32, stride: usize) {
    // SAFETY: the caller's.
    unsafe {
        asm!(
            "tilestored [{out} + {step}], tmm0",
            "tilestored [{out} + {step} + 64], tmm1",
            "tilestored [{low} + {step}], tmm2",
            "tilestored [{low} + {step} + 64], tmm3",
            out = in(reg) out, low = in(reg) out.add(TILE * stride), step = in(reg) 4 * stride,
            options(nostack, preserves_flags)
        );
    }
}

/// Squares of the tile registers multiplied for a while, on nothing but them; returns the multiplications of words.
///
/// # Safety
/// [`has_amx`] was true.
#[allow(unsafe_code)]
pub(crate) unsafe fn spin(rounds: usize) -> usize {
    let zeros = [0.0f32; TILE * TILE];
    // SAFETY: the caller's.
    unsafe {
        let _tiles = AmxConfigured::new();
        asm!(
            "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
            "tileloadd tmm4, [{zeros} + {row}]", "tileloadd tmm5, [{zeros} + {row}]",
            "tileloadd tmm6, [{zeros} + {row}]", "tileloadd tmm7, [{zeros} + {row}]",
            "2:",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "dec {rounds}",
            "jnz 2b",
            zeros = in(reg) zeros.as_ptr(), row = in(reg) 4 * TILE, rounds = inout(reg) rounds.max(1) => _,
            options(nostack, readonly)
        );
    }
    rounds.max(1) * 4 * TILE * TILE * TILE
}
