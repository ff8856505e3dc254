//! Span questions: `SQuAD` 1.1 and 2.0 (Rajpurkar et al. 2016, 2018).
//!
//! A [`Dataset`] holds contexts and questions. [`Windows`] cuts long contexts into overlapping windows, each with its
//! question in front, and gives the tokens of the answer in each window. [`predict`] finds answer texts from a model's
//! logits per window, and [`evaluate`] scores them like the official scripts.
//!
//! Byte ranges from the tokenizer map tokens to text, so a predicted text is an exact substring of its context.

mod dataset;
mod evaluate;
mod json;
mod predict;
mod windows;

pub use dataset::{Answer, Dataset, Question};
pub use evaluate::{BestThresholds, SpanScores, SubsetScores, evaluate};
pub use predict::{Candidate, PredictOptions, Prediction, WindowLogits, nbest_json, predict, predictions_json};
pub use windows::{Window, WindowOptions, Windows};
