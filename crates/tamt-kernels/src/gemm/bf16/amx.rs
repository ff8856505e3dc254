//! Tile products of bf16 by AMX (Intel, from Sapphire Rapids on). One instruction adds 32 products to each of 16 x 16
//! sums, sixteen times the throughput of AVX-512 in f32.
//!
//! Stable Rust has no intrinsics for AMX, hence inline assembly. Like AVX-512-BF16, AMX treats subnormal operands as
//! zero.
//!
//! Registers: `tmm0` to `tmm3` accumulate an output tile, `tmm4` and `tmm5` hold tiles of `A`, `tmm6` and `tmm7` tiles
//! of `B`:
//!
//! ```text
//!                 tmm6      tmm7      B: 16 words x 32 columns
//!     A  tmm4     tmm0      tmm1
//!        tmm5     tmm2      tmm3      C: 32 x 32
//! ```

use std::arch::asm;
use std::cell::Cell;
use std::marker::PhantomData;

use crate::gemm::bf16::operands::{FETCHED, Operands};
use crate::gemm::layout::{OUTPUT_TILE, TILE, TILE_WORDS};

/// The tile registers of this thread, configured as 16 x 16 words each while the value lives. Nested values cost a
/// counter.
pub(crate) struct AmxConfigured(PhantomData<*const ()>);

thread_local! {
    /// Living values of [`AmxConfigured`].
    static AMX_CONFIGURED: Cell<usize> = const { Cell::new(0) };
}

/// The operand of `ldtilecfg`: palette 1, and for each register the bytes of a row and the rows.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl AmxConfigured {
    /// Configures the registers, unless an outer value has done so.
    ///
    /// # Safety
    /// [`has_amx`](crate::base::cpu::has_amx) was true.
    pub(crate) unsafe fn new() -> Self {
        let outer = AMX_CONFIGURED.get();
        AMX_CONFIGURED.set(outer + 1);
        if outer > 0 {
            return Self(PhantomData);
        }
        let mut c = Configuration { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        c.row_bytes[..8].fill(4 * TILE as u16);
        c.rows[..8].fill(TILE as u8);
        // SAFETY: the CPU has AMX by the `# Safety` contract; `c` is 64 bytes in the layout of the instruction.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const c, options(nostack, readonly, preserves_flags)) };
        Self(PhantomData)
    }
}

impl Drop for AmxConfigured {
    fn drop(&mut self) {
        AMX_CONFIGURED.set(AMX_CONFIGURED.get() - 1);
        if AMX_CONFIGURED.get() > 0 {
            return;
        }
        // SAFETY: `new` configured the registers of this thread (the type is not `Send`), and no value that uses them
        // is left.
        unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) };
    }
}

/// `out = A B` or, with `adds`, `out += A B` for 32 x 32 elements, `stride` floats from row to row, over `words` of the
/// depth.
///
/// # Safety
/// * An [`AmxConfigured`] lives on this thread.
/// * The panels of `operands` hold `words / 16` tiles.
/// * `out` is valid for reads and writes of 32 rows of 32 floats.
#[inline(always)]
pub(super) unsafe fn output_tile(words: usize, operands: &Operands, out: *mut f32, stride: usize, adds: bool) {
    // SAFETY: the registers are configured, the panels hold the tiles, and `out` holds the output tile: `# Safety`.
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

/// Adds the products of one tile of the depth (32 steps) to the sums `tmm0` to `tmm3`. `$zeroth` to `$third` are
/// instructions for each sum before its first product. `tileloaddt1` loads `A` with a non-temporal hint, so that `B`
/// stays in L1.
macro_rules! step {
    ($operands:ident, $tile:ident; $($zeroth:literal)*; $($first:literal)*; $($second:literal)*; $($third:literal)*; $($arguments:tt)*) => {{
        let Operands { left, lower, right, second, width, next } = *$operands;
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
            upper = in(reg) left, lower = in(reg) left.add(lower), left = in(reg) right, right = in(reg) right.add(second),
            row = in(reg) 4 * TILE, width = in(reg) 4 * width, next = in(reg) next.wrapping_add($tile * FETCHED),
            $($arguments)*
        );
    }};
}

/// Adds the products of tile `tile` of the depth to the sums.
///
/// # Safety
/// * An [`AmxConfigured`] lives on this thread.
/// * The panels of `operands` hold `tile`.
#[inline(always)]
pub(crate) unsafe fn step(operands: &Operands, tile: usize) {
    // SAFETY: the registers are configured and the panels hold the tile: `# Safety`. Prefetches never fault.
    unsafe { step!(operands, tile; ; ; ; ; options(nostack, readonly, preserves_flags)) }
}

/// Writes the sums of the previous output tile to `before`, `[32, 32]`, and starts new sums with the products of
/// `tile`. Each register is stored while the products of the others proceed.
///
/// # Safety
/// As [`step()`], and `before` is valid for writes of 32 x 32 floats.
#[inline(always)]
pub(crate) unsafe fn first_step(operands: &Operands, tile: usize, before: *mut f32) {
    // SAFETY: as in `step`; the stores and loads of the sums stay within the 32 x 32 floats of the `# Safety` contract.
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

/// [`first_step`] that continues the sums at `sums`, `[32, 32]`, instead of starting with 0.
///
/// # Safety
/// As [`first_step`], and `sums` is valid for reads of 32 x 32 floats.
#[inline(always)]
pub(crate) unsafe fn next_step(operands: &Operands, tile: usize, before: *mut f32, sums: *const f32) {
    // SAFETY: as in `step`; the stores and loads of the sums stay within the 32 x 32 floats of the `# Safety` contract.
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

/// Sets the sums to 0.
///
/// # Safety
/// An [`AmxConfigured`] lives on this thread.
#[inline(always)]
pub(crate) unsafe fn zero_sums() {
    // SAFETY: the registers are configured: `# Safety`.
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

/// Loads the sums from `from`, `stride` floats from row to row.
///
/// # Safety
/// An [`AmxConfigured`] lives on this thread, and `from` is valid for reads of 32 rows of 32 floats.
#[inline(always)]
unsafe fn load_sums(from: *const f32, stride: usize) {
    // SAFETY: the registers are configured, and four loads of 16 rows of 16 floats lie in the rows at `from`: `#
    // Safety`.
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

/// Writes the sums to `out`, `stride` floats from row to row.
///
/// # Safety
/// An [`AmxConfigured`] lives on this thread, and `out` is valid for writes of 32 rows of 32 floats.
#[inline(always)]
pub(crate) unsafe fn store_sums(out: *mut f32, stride: usize) {
    // SAFETY: the registers are configured, and four stores of 16 rows of 16 floats lie in the rows at `out`: `#
    // Safety`.
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

/// Multiplies tiles in registers for `rounds` rounds; returns the number of multiplications of words.
///
/// # Safety
/// [`has_amx`](crate::base::cpu::has_amx) was true.
pub(crate) unsafe fn spin(rounds: usize) -> usize {
    let zeros = [0.0f32; TILE * TILE];
    // SAFETY: `has_amx` was true: `# Safety`. `_tiles` configures the registers; `zeros` holds a tile.
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
