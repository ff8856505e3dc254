//! The operands of an output tile.

use crate::base::Word;

/// Words of the next panel of `B` that an output tile prefetches per tile of the depth.
pub(crate) const FETCHED: usize = 64;

/// The operands of an output tile in one depth block: two panels of `A` and one panel of `B`.
///
/// Where the output tile has at most 16 rows or columns, the second panel of `A` or the second tile of `B` does not
/// exist. Its offset is 0 then: the first one is multiplied twice, and the redundant sums are padding.
pub(crate) struct Operands {
    /// The first panel of `A`.
    pub(crate) left: *const Word,
    /// Words from the first panel of `A` to the second one, or 0.
    pub(crate) lower: usize,
    /// The panel of `B`.
    pub(crate) right: *const Word,
    /// Words from the first tile of a word of `B` to the second one, or 0.
    pub(crate) second: usize,
    /// Lanes of the panel of `B`.
    pub(crate) width: usize,
    /// Address of the prefetch, [`FETCHED`] words per tile of the depth. May exceed the operand.
    pub(crate) next: *const Word,
}
