//! The macro that compiles a kernel for every instruction set.

/// Compiles functions for every [`Isa`](crate::Isa); a call runs the variant of [`isa`](crate::base::cpu::isa).
///
/// In `fn name<FMA>(args) -> R { body }`, `FMA` is a constant, true where a fused multiply-add is one instruction, for
/// [`fma`](crate::base::math::fma). Functions that the body calls must be `#[inline(always)]`; others are compiled for
/// the baseline only.
macro_rules! kernel {
    ($(
        $(#[$meta:meta])*
        $vis:vis fn $name:ident<$fma:ident>($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block
    )+) => {$(
        $(#[$meta])*
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            #[allow(clippy::extra_unused_type_parameters)]
            fn body<const $fma: bool>($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            {
                /// # Safety
                /// The CPU has the instructions of [`Isa::Avx512`](crate::Isa), BMI2 and POPCNT.
                #[target_feature(enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma,bmi2,popcnt")]
                fn avx512($($arg: $ty),*) $(-> $ret)? {
                    body::<true>($($arg),*)
                }
                /// # Safety
                /// The CPU has the instructions of [`Isa::Avx2`](crate::Isa), BMI2 and POPCNT.
                #[target_feature(enable = "avx2,fma,bmi2,popcnt")]
                fn avx2($($arg: $ty),*) $(-> $ret)? {
                    body::<true>($($arg),*)
                }
                match $crate::base::cpu::isa() {
                    // SAFETY: `isa` returned `Avx512` after CPUID confirmed it, with BMI2 and POPCNT.
                    $crate::base::cpu::Isa::Avx512 => unsafe { avx512($($arg),*) },
                    // SAFETY: `isa` returned `Avx2` after CPUID confirmed it, with BMI2 and POPCNT.
                    $crate::base::cpu::Isa::Avx2 => unsafe { avx2($($arg),*) },
                    $crate::base::cpu::Isa::Portable => body::<false>($($arg),*),
                }
            }
            #[cfg(not(target_arch = "x86_64"))]
            body::<{ cfg!(target_arch = "aarch64") }>($($arg),*)
        }
    )+};
}

pub(crate) use kernel;
