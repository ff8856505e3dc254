//! The plans of the repository, expanded beside stand-ins for their models and data.

mod minilm;
mod paper;
mod stand_ins;
