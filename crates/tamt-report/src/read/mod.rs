//! Reading of run directories, and of the tables of runs that reports have.

pub mod directories;
mod plain;
pub mod runs;
pub mod runs_csv;
mod settings;
mod study_run;
