//! The one place that knows which instructions the CPU has.
//!
//! A kernel is written once, as plain Rust, inside the macro `kernel!`, which compiles it for every instruction set and picks
//! one at run time. The matrix product picks by hand, because its register tiles differ.
//!
//! The environment variable `TAMT_CPU` (`portable`, `avx2`, `avx512`, `avx512-bf16`) caps the choice, for tests and benchmarks;
//! `avx512-dpbf16` is the last with AVX-512-BF16's products even where the arithmetic of f32 is faster. It is read once. Results
//! differ between instruction sets in the last bits (fused multiply-add rounds once), never between numbers of threads.

use std::sync::OnceLock;

/// An instruction set that kernels are compiled for, poorest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// What the target guarantees: SSE2 on `x86_64`, NEON on `aarch64`.
    Portable,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 F, BW, CD, DQ and VL, and all of [`Isa::Avx2`].
    Avx512,
}

/// The instruction set in use: the best that the CPU has and `TAMT_CPU` allows.
#[must_use]
#[inline]
pub fn isa() -> Isa {
    static ISA: OnceLock<Isa> = OnceLock::new();
    *ISA.get_or_init(|| detected().min(caps().isa))
}

/// What `TAMT_CPU` says.
struct Caps {
    isa: Isa,
    bf16: Bf16Unit,
    /// Whether [`Bf16Unit::Avx512`] is chosen where it is slow.
    pairs: bool,
}

fn caps() -> Caps {
    let (isa, bf16, pairs) = match std::env::var("TAMT_CPU").as_deref() {
        Ok("portable") => (Isa::Portable, Bf16Unit::F32, false),
        Ok("avx2") => (Isa::Avx2, Bf16Unit::F32, false),
        Ok("avx512") => (Isa::Avx512, Bf16Unit::F32, false),
        Ok("avx512-bf16") => (Isa::Avx512, Bf16Unit::Avx512, false),
        Ok("avx512-dpbf16") => (Isa::Avx512, Bf16Unit::Avx512, true),
        _ => (Isa::Avx512, Bf16Unit::Amx, false),
    };
    Caps { isa, bf16, pairs }
}

/// What multiplies operands in bf16, slowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bf16Unit {
    /// Arithmetic of f32.
    F32,
    /// AVX-512-BF16: sums of two products.
    Avx512,
    /// AMX, and AVX-512-BF16 to round: 16 x 16 sums of 32 products.
    Amx,
}

/// What multiplies operands in bf16: the best that the CPU has, the operating system gives and `TAMT_CPU` allows.
#[must_use]
#[inline]
pub fn bf16() -> Bf16Unit {
    static BF16: OnceLock<Bf16Unit> = OnceLock::new();
    *BF16.get_or_init(|| {
        let caps = caps();
        if !has_bf16() {
            Bf16Unit::F32
        } else if caps.bf16 == Bf16Unit::Amx && has_amx() {
            Bf16Unit::Amx
        } else if caps.pairs || !is_intel() {
            Bf16Unit::Avx512
        } else {
            // On AMD's processors products of pairs do twice the work of f32, on Intel's half of it: there AMX is meant for bf16.
            Bf16Unit::F32
        }
    })
}

/// Whether there are instructions for bf16, fast or slow.
pub(crate) fn has_bf16() -> bool {
    isa() == Isa::Avx512 && caps().bf16 > Bf16Unit::F32 && has_pairs()
}

#[cfg(target_arch = "x86_64")]
fn has_pairs() -> bool {
    is_x86_feature_detected!("avx512bf16")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_pairs() -> bool {
    false
}

#[cfg(not(target_arch = "x86_64"))]
fn has_amx() -> bool {
    false
}

#[cfg(target_arch = "x86_64")]
fn detected() -> Isa {
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512cd")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    match (avx2, avx512) {
        (true, true) => Isa::Avx512,
        (true, false) => Isa::Avx2,
        _ => Isa::Portable,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn detected() -> Isa {
    Isa::Portable
}

/// Whether the processor is Intel's.
#[cfg(target_arch = "x86_64")]
fn is_intel() -> bool {
    let vendor = std::arch::x86_64::__cpuid(0);
    [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes).as_flattened() == b"GenuineIntel"
}

#[cfg(not(target_arch = "x86_64"))]
fn is_intel() -> bool {
    false
}

#[cfg(target_arch = "x86_64")]
pub(crate) fn brand() -> Option<String> {
    use std::arch::x86_64::__cpuid;

    const FIRST: u32 = 0x8000_0002;
    if __cpuid(0x8000_0000).eax < FIRST + 2 {
        return None;
    }
    let leaves = (FIRST..FIRST + 3).map(__cpuid);
    let bytes: Vec<u8> = leaves.flat_map(|l| [l.eax, l.ebx, l.ecx, l.edx]).flat_map(u32::to_le_bytes).collect();
    let name: Vec<&str> = std::str::from_utf8(&bytes).ok()?.trim_matches('\0').split_whitespace().collect();
    (!name.is_empty()).then(|| name.join(" "))
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn brand() -> Option<String> {
    None
}

/// Whether the processor has tile products of bf16 and the operating system lets this process use them, for which it asks.
#[cfg(target_arch = "x86_64")]
pub(crate) fn has_amx() -> bool {
    has_amx_instructions() && has_amx_permission()
}

#[cfg(target_arch = "x86_64")]
fn has_amx_instructions() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    // leaf 7: AMX-BF16 and AMX-TILE
    const NEEDED: u32 = 1 << 22 | 1 << 24;
    __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & NEEDED == NEEDED
}

/// Linux hands out the tile registers, 8 KB of state for each thread, to processes that ask.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[allow(unsafe_code)]
fn has_amx_permission() -> bool {
    use std::arch::asm;

    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
    const XFEATURE_XTILE_DATA: u64 = 18;
    let mut result = ARCH_PRCTL;
    // SAFETY: the call takes two numbers and touches no memory of ours; the kernel overwrites RCX and R11.
    unsafe {
        asm!(
            "syscall", inlateout("rax") result, in("rdi") ARCH_REQ_XCOMP_PERM, in("rsi") XFEATURE_XTILE_DATA,
            lateout("rcx") _, lateout("r11") _, options(nostack)
        );
    }
    result == 0
}

#[cfg(all(target_arch = "x86_64", not(target_os = "linux")))]
fn has_amx_permission() -> bool {
    false
}
