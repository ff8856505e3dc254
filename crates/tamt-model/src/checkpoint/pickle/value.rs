//! Values of a pickle.

use crate::checkpoint::convert::{Dtype, Float};

/// Maximum length of the name of a tensor or storage, in bytes. The reader copies a name at each use, and a pickle can use
/// one name a million times.
pub(super) const MAX_NAME: usize = 1024;
/// Maximum number of dimensions of a tensor, for the same reason.
pub(super) const MAX_RANK: usize = 16;

/// Index of a value in the vector of all values.
pub(super) type Id = usize;

/// A value. Containers refer to their elements by index.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// A value without meaning for a state dict: `None`, a float, bytes.
    Opaque,
    Int(i64),
    /// An integer of more than 64 bits, in little-endian two's complement.
    Long(Vec<u8>),
    Str(String),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Callable(Callable),
    StorageType(Element),
    Storage(Storage),
    Tensor(TensorView),
}

/// The functions that a state dict calls.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Callable {
    OrderedDict,
    RebuildTensor,
    RebuildTensorV2,
    RebuildParameter,
}

/// An element type and its size in bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Element {
    pub(crate) dtype: Dtype,
    pub(crate) size: usize,
}

/// A contiguous sequence of elements outside the pickle.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Storage {
    pub(crate) key: String,
    pub(crate) element: Element,
    /// Length in elements.
    pub(crate) len: usize,
}

/// A strided view of a storage. Offset, shape and strides are not checked against the storage.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TensorView {
    pub(crate) storage: Storage,
    /// Index of the first element in the storage.
    pub(crate) offset: usize,
    pub(crate) shape: Vec<usize>,
    pub(crate) strides: Vec<usize>,
}

/// The classes of storages that `torch.save` writes.
pub(crate) const STORAGE_CLASSES: [&str; 10] = [
    "FloatStorage",
    "HalfStorage",
    "BFloat16Storage",
    "DoubleStorage",
    "LongStorage",
    "IntStorage",
    "ShortStorage",
    "CharStorage",
    "ByteStorage",
    "BoolStorage",
];

/// The element type of the storage class `torch.<name>`.
pub(crate) fn storage_type(name: &str) -> Option<Element> {
    let (dtype, size) = match name {
        "FloatStorage" => (Dtype::Float(Float::F32), 4),
        "HalfStorage" => (Dtype::Float(Float::F16), 2),
        "BFloat16Storage" => (Dtype::Float(Float::BF16), 2),
        "DoubleStorage" => (Dtype::Float(Float::F64), 8),
        "LongStorage" => (Dtype::Other("I64"), 8),
        "IntStorage" => (Dtype::Other("I32"), 4),
        "ShortStorage" => (Dtype::Other("I16"), 2),
        "CharStorage" => (Dtype::Other("I8"), 1),
        "ByteStorage" => (Dtype::Other("U8"), 1),
        "BoolStorage" => (Dtype::Other("BOOL"), 1),
        _ => return None,
    };
    Some(Element { dtype, size })
}
