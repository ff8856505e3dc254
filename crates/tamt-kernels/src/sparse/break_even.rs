//! The density up to which sparse products are used rather than dense ones.

use crate::base::{Bf16Unit, Isa, Precision, bf16, isa};

/// The density up to which sparse products in `precision` are used where the choice is free.
///
/// It is a constant of the instructions in use, not a measurement: the kernel decides the last bits of a result, and
/// machines of one kind must choose alike.
pub fn break_even(precision: Precision) -> f32 {
    of(precision, bf16(), isa())
}

/// Each is near the density at which both products are equally fast (`docs/engineering-log.md`, "Break-even"), except
/// that of AVX-512-BF16, for which 0.35 to 0.53 was measured: the study of `docs/results.md`, whose bits are to be
/// repeated, ran with sparse products at a density of 0.6.
fn of(precision: Precision, unit: Bf16Unit, isa: Isa) -> f32 {
    match (precision, unit, isa) {
        (Precision::Bf16, Bf16Unit::Amx, _) => 0.06,
        (_, _, Isa::Avx512) => 0.65,
        (_, _, Isa::Avx2) => 0.75,
        (_, _, Isa::Portable) => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_faster_the_dense_product_the_lower_is_the_density() {
        let densities = [
            of(Precision::Bf16, Bf16Unit::Amx, Isa::Avx512),
            of(Precision::Bf16, Bf16Unit::Avx512, Isa::Avx512),
            of(Precision::F32, Bf16Unit::F32, Isa::Avx2),
            of(Precision::F32, Bf16Unit::F32, Isa::Portable),
        ];
        assert!(densities.is_sorted());
    }

    #[test]
    fn the_unit_for_bf16_decides_nothing_in_f32() {
        for unit in [Bf16Unit::F32, Bf16Unit::Avx512, Bf16Unit::Amx] {
            assert_eq!(of(Precision::F32, unit, Isa::Avx512), of(Precision::F32, Bf16Unit::F32, Isa::Avx512));
        }
    }

    #[test]
    fn rounded_operands_in_f32_arithmetic_break_even_where_f32_does() {
        for isa in [Isa::Portable, Isa::Avx2, Isa::Avx512] {
            assert_eq!(of(Precision::Bf16, Bf16Unit::F32, isa), of(Precision::F32, Bf16Unit::F32, isa));
        }
    }
}
