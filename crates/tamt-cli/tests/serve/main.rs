//! `tamt serve` through the real binary and sockets: what each path takes and refuses, limits, load and the end.

#[allow(dead_code, reason = "the tests of the verbs use the rest")]
#[path = "../cli/common.rs"]
mod common;
#[allow(dead_code, reason = "the tests of the verbs use the rest")]
#[path = "../cli/task_files.rs"]
mod task_files;

mod client;
mod ending;
mod fixture;
mod limits;
mod load;
mod openai;
mod tei;
