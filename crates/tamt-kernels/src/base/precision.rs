use serde::{Deserialize, Serialize};

use crate::base::cpu::{Bf16Unit, bf16, brand, has_bf16, isa};

/// The processor's own name, where it tells one, and what computes products in a precision: what measurements of time
/// hold for.
#[must_use]
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

/// The precision that the operands of products are rounded to: of dense ones, and where there are fast instructions for it of
/// attention's and of sparse ones. Sums are in f32 whatever it is, and so is everything that is no product: softmax, normalisation,
/// losses, optimisers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// Single precision: nothing is rounded.
    #[default]
    F32,
    /// bfloat16, eight bits of significand: twice as fast or more where the processor has fast instructions for it, as fast as
    /// f32 elsewhere, and in less memory.
    Bf16,
}

impl Precision {
    /// The better one on this processor: [`Precision::Bf16`] where it has instructions for it.
    #[must_use]
    pub fn native() -> Self {
        if has_bf16() { Self::Bf16 } else { Self::F32 }
    }

    /// Whether panels hold operands in bf16, two in a word and sixteen words in a tile's row, for AMX or AVX-512-BF16. Where nothing
    /// multiplies them faster than floats, they are floats that were rounded.
    #[inline]
    pub(crate) fn packs_bf16(self) -> bool {
        self == Self::Bf16 && bf16() > Bf16Unit::F32
    }

    /// Whether sparse products are of bf16 too: where AVX-512-BF16 multiplies twice as fast as AVX-512. Beside tile registers it does
    /// not.
    #[inline]
    pub(crate) fn sparse_in_bf16(self) -> bool {
        self == Self::Bf16 && bf16() == Bf16Unit::Avx512
    }

    /// The precision of the arithmetic, for operands that it does not pay to round: f32 where nothing multiplies bf16 faster.
    #[must_use]
    pub fn effective(self) -> Self {
        if self.packs_bf16() { Self::Bf16 } else { Self::F32 }
    }
}
