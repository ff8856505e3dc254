//! The purposes of sequences of random choices: the `site` argument of [`Draw::new`](crate::invented::Draw::new).

pub(super) const LEXICON: u32 = 0;
pub(super) const FACTS: u32 = 1;
/// The first of one site per split.
pub(super) const PARAGRAPH: u32 = 2;
/// The first of one site per task and split.
pub(super) const TASKS: u32 = 8;
/// The first of one site per split.
pub(super) const QUESTIONS: u32 = 32;
