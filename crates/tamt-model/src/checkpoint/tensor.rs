//! The location of a tensor in a weights file.

use std::path::Path;

use crate::checkpoint::convert::Dtype;
use crate::error::Error;

/// A tensor in a weights file.
#[derive(Debug)]
pub(super) struct Tensor {
    /// The tensor's name in the file.
    pub(super) name: String,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    /// Byte offset of the first element. The reader of the file checks that all elements lie within the file.
    pub(super) start: usize,
    /// Distance in elements between consecutive indices of each dimension; `None` for row-major order without gaps.
    pub(super) strides: Option<Vec<usize>>,
}

/// The reason why a file is refused.
#[derive(Debug, PartialEq)]
pub(super) enum Problem {
    Malformed(String),
    Unsupported(String),
}

impl Problem {
    /// The error of a problem in the file `path`.
    pub(super) fn in_file(self, path: &Path) -> Error {
        let path = path.to_owned();
        match self {
            Self::Malformed(problem) => Error::Malformed { path, problem },
            Self::Unsupported(problem) => Error::Unsupported { path, problem },
        }
    }
}
