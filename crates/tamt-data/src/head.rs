//! Outputs of a task head: the kinds of head, and labels.

/// The kind of head that a task needs.
#[derive(Clone, Debug, PartialEq)]
pub enum Head {
    /// One logit per label, per sequence.
    Classification {
        /// The labels' spellings, in the order of the logits; a [`Label::Class`] is an index into them.
        labels: Vec<String>,
    },
    /// One number per sequence.
    Regression {
        /// The least and the greatest label. Predictions may lie outside; submissions are clamped to the range.
        range: Option<(f32, f32)>,
    },
    /// Two logits per token: start and end of an answer.
    Span {
        /// Whether some questions have no answer (`SQuAD` 2.0).
        unanswerable: bool,
    },
}

/// The label of an example, or a prediction of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Label {
    /// Index of a class among the task's labels.
    Class(u32),
    /// The number of a regression.
    Value(f32),
}
