//! The location of a tensor in a weights file.

use std::borrow::Cow;
use std::path::Path;

use crate::checkpoint::convert::{Dtype, for_each_offset};
use crate::error::Error;

/// A tensor in a weights file.
#[derive(Clone, Debug)]
pub(super) struct Tensor {
    /// The tensor's name in the file.
    pub(super) name: String,
    pub(super) dtype: Dtype,
    /// Size of an element in bytes; 0 for elements that are smaller than a byte.
    pub(super) element_size: usize,
    pub(super) shape: Vec<usize>,
    /// Byte offset of the first element. The reader of the file checks that all elements lie within the file.
    pub(super) start: usize,
    /// Distance in elements between consecutive indices of each dimension; `None` for row-major order without gaps.
    pub(super) strides: Option<Vec<usize>>,
}

impl Tensor {
    /// Size of all elements in bytes; `None` on overflow.
    pub(super) fn byte_len(&self) -> Option<usize> {
        self.shape.iter().try_fold(self.element_size, |n, &len| n.checked_mul(len))
    }

    /// The bytes of all elements in row-major order. `bytes` is the file.
    pub(super) fn row_major<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        let (size, len) = (self.element_size, self.byte_len().unwrap_or(0));
        let bytes = bytes.get(self.start..).unwrap_or_default();
        let Some(strides) = &self.strides else { return bytes.get(..len).unwrap_or_default().into() };
        let mut out = Vec::with_capacity(len);
        for_each_offset(&self.shape, strides, |offset| {
            out.extend_from_slice(bytes.get(offset * size..).and_then(|b| b.get(..size)).unwrap_or_default());
        });
        out.into()
    }
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
