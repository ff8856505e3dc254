//! The precision of products.

use serde::{Deserialize, Serialize};

use crate::base::cpu::{Bf16Unit, bf16, brand, has_bf16, isa};

/// The processor's brand name and the unit that computes products in `precision`, to label measurements of time.
pub fn processor(precision: Precision) -> String {
    let name = brand().unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let products = match (precision, bf16()) {
        (Precision::F32, _) => format!("f32 by {:?}", isa()),
        (Precision::Bf16, Bf16Unit::F32) => format!("rounded to bf16, by {:?}", isa()),
        (Precision::Bf16, Bf16Unit::Avx512) => "bf16 by AVX-512-BF16".to_owned(),
        (Precision::Bf16, Bf16Unit::Amx) => "bf16 by AMX".to_owned(),
    };
    format!("{name}, {products}").to_lowercase()
}

/// The precision that operands of products are rounded to. It applies to all dense products of linear layers and to the
/// weights of sparse ones, and to products of attention and the other operands of sparse products where the processor
/// has fast instructions for it. Sums, softmax, normalisation, losses and optimisers are always in f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// Single precision, without rounding.
    #[default]
    F32,
    /// bfloat16, with 8 bits of significand: at least twice as fast as f32 where the processor has fast instructions
    /// for it, as fast elsewhere, and in less memory.
    Bf16,
}

impl Precision {
    /// The default for this processor: [`Precision::Bf16`] where it has AVX-512-BF16, else [`Precision::F32`].
    pub fn native() -> Self {
        if has_bf16() { Self::Bf16 } else { Self::F32 }
    }

    /// Whether panels hold pairs of bf16 in tiles, for AMX or AVX-512-BF16. On processors without a fast unit for bf16,
    /// panels in [`Precision::Bf16`] hold rounded f32.
    #[inline]
    pub(crate) fn packs_bf16(self) -> bool {
        self == Self::Bf16 && bf16() > Bf16Unit::F32
    }

    /// Whether sparse products are computed in bf16: where AVX-512-BF16 has twice the throughput of f32, which no
    /// processor with AMX offers.
    #[inline]
    pub(crate) fn sparse_in_bf16(self) -> bool {
        self == Self::Bf16 && bf16() == Bf16Unit::Avx512
    }

    /// The precision of the arithmetic: f32 where the processor has no fast unit for bf16. For operands whose rounding
    /// alone saves nothing.
    #[must_use]
    pub fn effective(self) -> Self {
        if self.packs_bf16() { Self::Bf16 } else { Self::F32 }
    }
}
