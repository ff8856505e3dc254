//! Detection of the CPU's instructions, all of it.
//!
//! The macro `kernel!` compiles a kernel written in plain Rust for every instruction set and picks one at run time. The
//! matrix product dispatches by hand, because its register tiles differ.
//!
//! The environment variable `TAMT_CPU` (`portable`, `avx2`, `avx512`, `avx512-bf16`, `avx512-dpbf16`) caps the choice for
//! tests and benchmarks. `avx512-dpbf16` equals `avx512-bf16` but uses the products of AVX-512-BF16 even where f32
//! arithmetic is faster. [`check_cap`] refuses another value. Results of different instruction sets differ in the last
//! bits (a fused multiply-add rounds once); results of different numbers of threads never differ.

use std::sync::OnceLock;

/// An instruction set that kernels are compiled for, in ascending order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// The baseline of the target: SSE2 on `x86_64`, NEON on `aarch64`.
    Portable,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 F, BW, CD, DQ and VL, and all of [`Isa::Avx2`].
    Avx512,
}

/// The instruction set in use: the best of the CPU that `TAMT_CPU` allows.
#[inline]
pub fn isa() -> Isa {
    static ISA: OnceLock<Isa> = OnceLock::new();
    *ISA.get_or_init(|| detected().min(caps().isa))
}

/// Upper limits set by `TAMT_CPU`.
#[derive(Clone, Copy)]
struct Caps {
    isa: Isa,
    bf16: Bf16Unit,
    /// Whether [`Bf16Unit::Avx512`] is used even where it is slower than [`Bf16Unit::F32`].
    pairs: bool,
}

impl Caps {
    const NONE: Self = Self { isa: Isa::Avx512, bf16: Bf16Unit::Amx, pairs: false };

    /// The values of `TAMT_CPU`.
    const NAMED: [(&str, Self); 5] = [
        ("portable", Self { isa: Isa::Portable, bf16: Bf16Unit::F32, pairs: false }),
        ("avx2", Self { isa: Isa::Avx2, bf16: Bf16Unit::F32, pairs: false }),
        ("avx512", Self { isa: Isa::Avx512, bf16: Bf16Unit::F32, pairs: false }),
        ("avx512-bf16", Self { isa: Isa::Avx512, bf16: Bf16Unit::Avx512, pairs: false }),
        ("avx512-dpbf16", Self { isa: Isa::Avx512, bf16: Bf16Unit::Avx512, pairs: true }),
    ];

    /// The limits of a value of `TAMT_CPU`; an empty value sets none.
    fn named(value: &str) -> Option<Self> {
        let named = Self::NAMED.into_iter().find(|(name, _)| *name == value);
        named.map(|(_, caps)| caps).or_else(|| value.is_empty().then_some(Self::NONE))
    }
}

fn variable() -> String {
    std::env::var_os("TAMT_CPU").unwrap_or_default().to_string_lossy().into_owned()
}

fn caps() -> Caps {
    Caps::named(&variable()).unwrap_or(Caps::NONE)
}

/// Checks the value of `TAMT_CPU`, so that a mistyped one does not measure what it was to leave out.
///
/// # Errors
/// For an unknown value, with the known ones.
pub fn check_cap() -> Result<(), String> {
    let value = variable();
    let known = Caps::NAMED.map(|(name, _)| name).join(", ");
    Caps::named(&value).map(|_| ()).ok_or_else(|| format!("TAMT_CPU is {value:?}; known are {known}"))
}

/// The unit that multiplies operands in bf16, slowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bf16Unit {
    /// f32 arithmetic on rounded operands.
    F32,
    /// AVX-512-BF16: one instruction adds two products to each of 16 sums.
    Avx512,
    /// AMX: one instruction adds 32 products to each of 16 x 16 sums. AVX-512-BF16 rounds the operands.
    Amx,
}

/// The unit in use for operands in bf16: the fastest of the CPU that the operating system and `TAMT_CPU` allow.
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
            // AVX-512-BF16 has twice the throughput of f32 on AMD's processors and half of it on Intel's.
            Bf16Unit::F32
        }
    })
}

/// Whether the CPU has AVX-512-BF16 and `TAMT_CPU` allows its use.
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
    let avx2 = is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("popcnt");
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

/// Whether Intel made the processor.
#[cfg(target_arch = "x86_64")]
fn is_intel() -> bool {
    let vendor = std::arch::x86_64::__cpuid(0);
    [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes).as_flattened() == b"GenuineIntel"
}

#[cfg(not(target_arch = "x86_64"))]
fn is_intel() -> bool {
    false
}

/// The brand string of the processor, if CPUID has one.
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

/// Whether the CPU has AMX-BF16 and the operating system grants this process the tile registers. Requests the grant.
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

/// Requests the tile registers, 8 KB of state per thread, from Linux.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn has_amx_permission() -> bool {
    use std::arch::asm;

    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
    const XFEATURE_XTILE_DATA: u64 = 18;
    let mut result = ARCH_PRCTL;
    // SAFETY: `arch_prctl(ARCH_REQ_XCOMP_PERM, 18)` takes two numbers and accesses no memory of this process; the
    // clobbers RCX and R11 of a system call are declared.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cap_of_these_tests_is_a_known_one() {
        assert_eq!(check_cap(), Ok(()));
        assert!(Caps::named("").is_some_and(|caps| caps.bf16 == Bf16Unit::Amx));
        assert!(Caps::named("avx2").is_some_and(|caps| caps.isa == Isa::Avx2 && caps.bf16 == Bf16Unit::F32));
        assert!(Caps::named("avx512_bf16").is_none());
    }
}
