//! The one place that knows which instructions the CPU has.
//!
//! A kernel is written once, as plain Rust, inside the macro `kernel!`, which compiles it for every instruction set and picks
//! one at run time. The matrix product picks by hand, because its register tiles differ.
//!
//! The environment variable `TAMT_CPU` (`portable`, `avx2`, `avx512`, `avx512-bf16`) caps the choice, for tests and benchmarks;
//! `avx512-dpbf16` is the last with AVX-512-BF16's products even where the arithmetic of f32 is faster. It is read once. Results
//! differ between instruction sets in the last bits (fused multiply-add rounds once), never between numbers of threads.

use std::sync::OnceLock;

use crate::precision::Precision;

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
    bf16: Bf16,
    /// Whether [`Bf16::Pairs`] is chosen where it is slow.
    pairs: bool,
}

fn caps() -> Caps {
    let (isa, bf16, pairs) = match std::env::var("TAMT_CPU").as_deref() {
        Ok("portable") => (Isa::Portable, Bf16::Floats, false),
        Ok("avx2") => (Isa::Avx2, Bf16::Floats, false),
        Ok("avx512") => (Isa::Avx512, Bf16::Floats, false),
        Ok("avx512-bf16") => (Isa::Avx512, Bf16::Pairs, false),
        Ok("avx512-dpbf16") => (Isa::Avx512, Bf16::Pairs, true),
        _ => (Isa::Avx512, Bf16::Amx, false),
    };
    Caps { isa, bf16, pairs }
}

/// What multiplies operands in bf16, slowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bf16 {
    /// Arithmetic of f32.
    Floats,
    /// AVX-512-BF16: sums of two products.
    Pairs,
    /// AMX, and AVX-512-BF16 to round: 16 x 16 sums of 32 products.
    Amx,
}

/// What multiplies operands in bf16: the best that the CPU has, the operating system gives and `TAMT_CPU` allows.
#[must_use]
#[inline]
pub fn bf16() -> Bf16 {
    static BF16: OnceLock<Bf16> = OnceLock::new();
    *BF16.get_or_init(|| {
        let caps = caps();
        if !has_bf16() {
            Bf16::Floats
        } else if caps.bf16 == Bf16::Amx && has_amx() {
            Bf16::Amx
        } else if caps.pairs || !is_intel() {
            Bf16::Pairs
        } else {
            // On AMD's processors products of pairs do twice the work of f32, on Intel's half of it: there AMX is meant for bf16.
            Bf16::Floats
        }
    })
}

/// Whether there are instructions for bf16, fast or slow.
pub(crate) fn has_bf16() -> bool {
    isa() == Isa::Avx512 && caps().bf16 > Bf16::Floats && has_pairs()
}

#[cfg(target_arch = "x86_64")]
fn has_pairs() -> bool {
    is_x86_feature_detected!("avx512bf16")
}

#[cfg(target_arch = "x86_64")]
fn has_amx() -> bool {
    crate::tiles::amx::allowed()
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

/// The processor's own name, where it tells one, and what computes products in a precision: what measurements of time
/// hold for.
#[must_use]
pub fn processor(precision: Precision) -> String {
    let name = brand().unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let products = match (precision, bf16()) {
        (Precision::F32, _) => format!("f32 by {:?}", isa()),
        (Precision::Bf16, Bf16::Floats) => format!("rounded to bf16, by {:?}", isa()),
        (Precision::Bf16, Bf16::Pairs) => "bf16 by AVX-512-BF16".to_owned(),
        (Precision::Bf16, Bf16::Amx) => "bf16 by AMX".to_owned(),
    };
    format!("{name}, {products}").to_lowercase()
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
fn brand() -> Option<String> {
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
fn brand() -> Option<String> {
    None
}

/// Has elements brought into the caches ahead of their use, where the processor can be told so.
#[inline]
pub(crate) fn fetch<T>(values: &[T]) {
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

/// Compiles a function for every [`Isa`] and calls the variant for [`isa`].
///
/// `fn name<FMA>(args) -> R { body }`: in the body `FMA` is a constant, true where a fused multiply-add is one
/// instruction; pass it to [`crate::math::fma`]. What the body calls must be `#[inline(always)]`, or it is compiled for
/// the baseline only.
macro_rules! kernel {
    (
        $(#[$meta:meta])*
        $vis:vis fn $name:ident<$fma:ident>($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block
    ) => {
        $(#[$meta])*
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            #[allow(clippy::extra_unused_type_parameters)]
            fn body<const $fma: bool>($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma,bmi2,popcnt")]
                fn avx512($($arg: $ty),*) $(-> $ret)? {
                    body::<true>($($arg),*)
                }
                #[target_feature(enable = "avx2,fma,bmi2,popcnt")]
                fn avx2($($arg: $ty),*) $(-> $ret)? {
                    body::<true>($($arg),*)
                }
                // SAFETY: `isa` names an instruction set only if the CPU has it; BMI2 and POPCNT come with AVX2.
                #[allow(unsafe_code)]
                match $crate::dispatch::isa() {
                    $crate::dispatch::Isa::Avx512 => unsafe { avx512($($arg),*) },
                    $crate::dispatch::Isa::Avx2 => unsafe { avx2($($arg),*) },
                    $crate::dispatch::Isa::Portable => body::<false>($($arg),*),
                }
            }
            #[cfg(not(target_arch = "x86_64"))]
            body::<{ cfg!(target_arch = "aarch64") }>($($arg),*)
        }
    };
}
pub(crate) use kernel;
