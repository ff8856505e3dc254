//! The verbs, through the real binary, on a model of a few thousand weights.

mod common;

mod added_tokens;
mod bad_input;
mod bench;
mod cache;
mod checkpoints;
mod demo;
mod eval_encode_apply;
mod find;
mod import;
mod kernel;
mod labels;
mod memory;
mod messages;
mod pack;
mod peers;
mod predict;
mod pretrain;
mod recorded;
mod records;
mod report;
mod resume;
mod safety;
mod sentence_transformers;
mod signals;
mod study;
mod study_kills;
mod study_plans;
mod study_slurm;
mod suggestions;
mod task_files;
mod tickets;
mod tune;
mod tune_bad_input;
mod tune_resume;
