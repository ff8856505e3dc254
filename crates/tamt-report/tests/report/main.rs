//! Reports of studies that are made by code.

mod browser;
mod cells;
mod order;
mod sections;
mod study;
