//! A function for each fuzz target: reads an input and checks the properties of what was read.
//!
//! A function returns whether the input was read in whole. It panics if a property does not hold. Readers that need a
//! directory get one in memory, where the system has `/dev/shm`.

pub(crate) mod files;
mod model;
mod npz;
mod packed;
mod run;
mod sentence;
mod squad;
mod table;
mod text;
mod ticket;
mod tokenizer;
pub(crate) mod training;
mod weights;

/// A fuzz target.
pub(crate) type Target = fn(&[u8]) -> bool;

/// All targets by name.
pub(crate) const TARGETS: [(&str, Target); 14] = [
    ("model", model::model),
    ("npz", npz::npz),
    ("packed", packed::packed),
    ("parquet", table::parquet),
    ("pytorch", weights::pytorch),
    ("run", run::run),
    ("safetensors", weights::safetensors),
    ("sentence", sentence::sentence),
    ("squad", squad::squad),
    ("table", table::table),
    ("text", text::text),
    ("ticket", ticket::ticket),
    ("tokenizer", tokenizer::tokenizer),
    ("training", training::training),
];
