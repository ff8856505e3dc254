//! Fuzz targets over the readers of tamt. [docs/reliability.md](../../docs/reliability.md) says how to run them.
//!
//! `readers` has a function for each target, which a test of the workspace calls as well.

mod readers;

/// Gives an input to a target.
///
/// # Panics
/// If no target has this name, or a reader breaks a property.
pub fn run(target: &str, input: &[u8]) {
    let (_, read) = readers::TARGETS.iter().find(|(name, _)| *name == target).expect("the target exists");
    read(input);
}
