//! The two families of encoders.

/// A family of encoders. The families share the architecture, but differ in tensor names, position ids and MLM head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// BERT.
    Bert,
    /// `RoBERTa`, and the models of the same design: `XLM-RoBERTa` and `CamemBERT`.
    Roberta,
}

impl Family {
    /// The prefix of the encoder's tensor names in a checkpoint with a head, without the dot.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Bert => "bert",
            Self::Roberta => "roberta",
        }
    }
}
