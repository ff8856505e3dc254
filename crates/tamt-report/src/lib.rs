//! Reads the files of finished `tamt` runs and writes what goes into a paper: tables, figures and a page.
//!
//! A report takes these steps:
//!
//! 1. [`read`] finds the run directories and reads their results, or reads the runs of another report from its
//!    `runs.csv`. A run without a whole result is left out, with the reason.
//! 2. [`study::Study`] sorts scores, losses and tickets by what they are about.
//! 3. [`sections`] turns them into a [`document::Document`]: sentences, tables and [`figure`]s. Numbers come from the
//!    runs' files; means, deviations and tests over them from [`stats`].
//! 4. [`mod@write`] writes the document as a page, as Markdown, CSV, LaTeX and SVG.
//!
//! The crate knows no model and no format of tickets: a [`ticket::TicketReader`] reads masks.

pub mod aggregate;
pub mod document;
pub mod error;
pub mod figure;
mod flops;
pub mod names;
pub mod read;
pub mod report;
mod row;
pub mod run;
pub mod sections;
pub mod stats;
pub mod study;
pub mod ticket;
mod variants;
pub mod write;
