//! Figures as SVG.

pub mod chart;
pub mod heat;
mod plot;
pub(crate) mod svg;
pub mod theme;
pub mod ticks;
