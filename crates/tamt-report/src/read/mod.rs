//! Reading of run directories.

pub mod directories;
mod plain;
pub mod runs;
mod settings;
mod study_run;
