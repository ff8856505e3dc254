//! Metrics: scores of predictions.
//!
//! Each metric equals scikit-learn, scipy or the official script of the benchmark on the same predictions;
//! `tests/fixtures/make_metrics.py` makes the expected numbers of the tests.
//!
//! ```
//! use tamt_data::metrics::{Metric, matthews_correlation, score};
//! use tamt_data::tasks::Label;
//!
//! # fn main() -> tamt_data::Result<()> {
//! assert_eq!(matthews_correlation(&[1, 0, 1, 0], &[1, 0, 1, 0]), 1.0);
//! let (predictions, gold) = ([1, 0, 1, 1].map(Label::Class), [1, 0, 0, 1].map(Label::Class));
//! let scores = score(&[Metric::Accuracy, Metric::F1], &predictions, &gold)?;
//! assert_eq!((scores.get(Metric::Accuracy), scores.get(Metric::F1)), (Some(0.75), Some(0.8)));
//! # Ok(())
//! # }
//! ```

mod answers;
mod classification;
mod correlation;
mod metric;

pub use answers::{exact_match, normalize_answer, token_f1};
pub use classification::{accuracy, f1, f1_macro, matthews_correlation};
pub use correlation::{pearson, spearman};
pub use metric::{Metric, Scores, score};
