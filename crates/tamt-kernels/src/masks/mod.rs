//! Bit masks over weight matrices, the selection of the k smallest elements, and masked weights and gradients.
//!
//! * [`BitMask`]: the mask `B` of a matrix; [`RankedMask`] adds the range of survivors of each row.
//! * [`smallest_k`] finds the [`Cut`] between dropped and kept elements; [`BitMask::keep_above`] applies a cut.
//! * [`Weight`] is `W` with an optional mask; [`CompactWeight`] stores the survivors only; [`WeightRef`] is one of
//!   both.
//! * [`gather()`] copies survivors from a dense matrix to a list in mask order.
//! * [`GradEpilogue`] turns the gradient of `W ∘ B` into the gradient of the trained values.

pub(crate) mod bit_mask;
pub(crate) mod bits;
pub(crate) mod compact;
pub(crate) mod gather;
pub(crate) mod grad_epilogue;
pub(crate) mod ranked;
pub(crate) mod selection;
pub(crate) mod weight;

pub use bit_mask::BitMask;
pub use compact::{CompactWeight, Survivors};
pub use gather::gather;
pub use grad_epilogue::GradEpilogue;
pub use ranked::{RankedMask, RowRanges};
pub use selection::{Cut, Key, smallest_k};
pub use weight::{Weight, WeightRef};

#[cfg(target_arch = "x86_64")]
pub(crate) use bits::first_bits;
pub(crate) use bits::{copy_masked_inline, copy_masked_row, count_bits, mask_row};
pub(crate) use gather::gather_row;
