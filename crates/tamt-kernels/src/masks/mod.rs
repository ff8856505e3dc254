//! Bit masks over weight matrices, the selection that makes them, and the weights and gradients that they act on.

pub(crate) mod bit_mask;
pub(crate) mod bits;
pub(crate) mod compact;
pub(crate) mod gather;
pub(crate) mod grad_epilogue;
pub(crate) mod ranked;
pub(crate) mod selection;
pub(crate) mod weight;

pub use bit_mask::BitMask;
pub use compact::CompactWeight;
pub use gather::gather;
pub use grad_epilogue::GradEpilogue;
pub use ranked::{RankedMask, RowRanges};
pub use selection::{Cut, Key, smallest_k};
pub use weight::{Weight, WeightRef};
