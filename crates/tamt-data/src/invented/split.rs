//! The training, validation and test split of invented text.

use sha2::{Digest, Sha256};

/// A split of invented text. Different splits share a paragraph only by chance; the facts of the world are common to all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Split {
    /// For training.
    Train,
    /// For the choice of a model.
    Valid,
    /// For final results.
    Test,
}

impl Split {
    /// The first generated item whose text belongs to the split. The hash of a text determines its split: eight of ten
    /// texts belong to the training set, one to the validation set and one to the test set. So no text is in two splits.
    pub(super) fn first<T>(self, mut generate: impl FnMut() -> T, text: impl Fn(&T) -> String) -> T {
        loop {
            let item = generate();
            let split = match Sha256::digest(text(&item))[0] % 10 {
                0..8 => Self::Train,
                8 => Self::Valid,
                _ => Self::Test,
            };
            if split == self {
                return item;
            }
        }
    }
}
