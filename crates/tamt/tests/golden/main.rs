//! The engine and the methods against numbers from PyTorch and transformers: the files in `tests/golden` always, and
//! a larger set beside the repository (or in `TAMT_SHARED`) where it is present.

// How closely numbers agree, and what was skipped, is worth seeing.
#![allow(clippy::print_stdout)]

mod files;
mod mask_bits;
mod mask_training;
mod model;
mod numerics;
mod text;
mod tune;
