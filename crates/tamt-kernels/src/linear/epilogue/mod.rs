//! Epilogues of the bf16 products of linear layers.

pub(crate) mod activated;
pub(crate) mod gradient;
pub(crate) mod rounded;
pub(crate) mod survivors;
