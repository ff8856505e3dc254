//! Reports of studies that are made by code.

mod alike;
mod browser;
mod cells;
mod chosen;
mod order;
mod reading;
mod runs_csv;
mod sections;
mod study;
