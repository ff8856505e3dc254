//! Statistics of scores and losses, defined as in `scipy.stats`.

pub mod paired;
pub mod rank;
pub mod summary;
