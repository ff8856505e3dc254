//! The density up to which sparse products are taken for faster than dense ones.

use crate::base::{Bf16Unit, Isa, Precision, bf16, isa};

/// The break-even density: up to it, sparse products in `precision` are taken for faster than dense ones.
///
/// It is a constant of the instructions in use, not a measurement: the kernel decides the last bits of a result, and
/// machines of one kind must choose alike.
pub fn break_even(precision: Precision) -> f32 {
    of(precision, bf16(), isa())
}

/// `docs/engineering-log.md` ("Break-even") has the measurements, from 0.44 to 0.53 with AVX-512-BF16. Its constant is
/// higher because the study of `docs/results.md`, whose bits are to be repeated, ran with sparse products at 0.6.
fn of(precision: Precision, unit: Bf16Unit, isa: Isa) -> f32 {
    match (precision, unit, isa) {
        (Precision::Bf16, Bf16Unit::Amx, _) => 0.06,
        (Precision::Bf16, Bf16Unit::Avx512, _) | (_, _, Isa::Avx512) => 0.65,
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
