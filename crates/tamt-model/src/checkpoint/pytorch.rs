//! The tensors of a `pytorch_model.bin`, in `PyTorch`'s zip format (since version 1.6) or in its old format.
//!
//! Both formats hold a pickle, which describes tensors as views of storages, and the uncompressed bytes of the storages.
//! `torch/serialization.py` is the reference.

use std::collections::HashMap;
use std::io::Cursor;
use std::ops::Range;

use zip::{CompressionMethod, ZipArchive};

use crate::checkpoint::pickle::Pickle;
use crate::checkpoint::pickle::value::TensorView;
use crate::checkpoint::tensor::{Problem, Tensor};

/// The first value of the old format: the integer 0x1950a86a20f9469cfc6c.
const LEGACY_MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
/// The supported version of the old format.
const LEGACY_VERSION: i64 = 1001;

/// The byte range of each storage in the file, by key.
type Storages = HashMap<String, Range<usize>>;

/// The tensors of a `PyTorch` checkpoint, from the bytes of the file.
pub(super) fn tensors(bytes: &[u8]) -> Result<Vec<Tensor>, Problem> {
    let (state_dict, storages) = if bytes.starts_with(b"PK") { read_zip(bytes)? } else { read_legacy(bytes)? };
    state_dict.into_iter().map(|(name, tensor)| locate(name, tensor, &storages)).collect()
}

/// The state dict and the storages of a file in the zip format.
fn read_zip(bytes: &[u8]) -> Result<(Vec<(String, TensorView)>, Storages), Problem> {
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(zip_problem)?;
    let mut members = HashMap::new();
    for index in 0..archive.len() {
        let (name, range) = member(&mut archive, index, bytes.len())?;
        members.insert(name, range);
    }
    let mut roots =
        members.keys().filter_map(|name| name.strip_suffix("data.pkl")).filter(|r| r.is_empty() || r.ends_with('/'));
    let root = match (roots.next(), roots.next()) {
        (Some(root), None) => root.to_owned(),
        (None, _) => {
            return Err(Problem::Unsupported("it is a zip archive without a data.pkl".to_owned()));
        }
        (Some(_), Some(_)) => {
            return Err(Problem::Malformed("it has more than one data.pkl".to_owned()));
        }
    };
    if let Some(order) = members.get(&format!("{root}byteorder"))
        && &bytes[order.clone()] != b"little"
    {
        return Err(Problem::Unsupported("it was saved on a big-endian machine; re-save it as safetensors".to_owned()));
    }
    let state_dict = Pickle::read(&bytes[members[&format!("{root}data.pkl")].clone()])?.into_state_dict()?;
    let data = format!("{root}data/");
    let storages = members.into_iter().filter_map(|(name, range)| Some((name.strip_prefix(&data)?.to_owned(), range)));
    Ok((state_dict, storages.collect()))
}

/// The name of a member of the archive, and its byte range in the file.
fn member(
    archive: &mut ZipArchive<Cursor<&[u8]>>,
    index: usize,
    file_len: usize,
) -> Result<(String, Range<usize>), Problem> {
    let file = archive.by_index_raw(index).map_err(zip_problem)?;
    let name = file.name().map_err(zip_problem)?.into_owned();
    if file.compression() != CompressionMethod::Stored || file.encrypted() {
        return Err(Problem::Unsupported(format!(
            "its member `{name}` is compressed or encrypted, which PyTorch never does"
        )));
    }
    let range = (|| {
        let start = usize::try_from(file.data_start()?).ok()?;
        let end = start.checked_add(usize::try_from(file.size()).ok()?)?;
        (end <= file_len).then_some(start..end)
    })();
    match range {
        Some(range) => Ok((name, range)),
        None => Err(Problem::Malformed(format!("its member `{name}` reaches beyond its end"))),
    }
}

fn zip_problem(error: impl std::fmt::Display) -> Problem {
    Problem::Malformed(format!("as a zip archive: {error}"))
}

/// The state dict and the storages of a file in the old format.
fn read_legacy(bytes: &[u8]) -> Result<(Vec<(String, TensorView)>, Storages), Problem> {
    let mut at = 0;
    let mut next = || {
        let pickle = Pickle::read(&bytes[at..])?;
        at += pickle.len;
        Ok(pickle)
    };
    // An unreadable first value means that the file has another format.
    if !next().is_ok_and(|pickle| pickle.is_long(&LEGACY_MAGIC)) {
        return Err(Problem::Unsupported("it is no PyTorch checkpoint; re-save the model as safetensors".to_owned()));
    }
    let version = next()?;
    if version.as_int() != Some(LEGACY_VERSION) {
        return Err(Problem::Unsupported(format!(
            "its format is not version {LEGACY_VERSION}; re-save it as safetensors"
        )));
    }
    if next()?.flag("little_endian") != Some(true) {
        return Err(Problem::Unsupported("it was saved on a big-endian machine; re-save it as safetensors".to_owned()));
    }
    let state_dict = next()?;
    let keys = next()?;

    let lens: HashMap<&str, (usize, usize)> =
        state_dict.storages().map(|s| (s.key.as_str(), (s.len, s.element.size))).collect();
    let keys = keys.strings().ok_or_else(|| Problem::Malformed("it has no list of storages".to_owned()))?;
    let mut storages = Storages::new();
    for key in keys {
        let &(len, size) =
            lens.get(key).ok_or_else(|| Problem::Malformed(format!("no tensor uses its storage {key}")))?;
        // Each storage starts with its length in elements.
        let range = (|| {
            let (header, _) = bytes.get(at..)?.split_first_chunk()?;
            let start = at + header.len();
            let end = start.checked_add(len.checked_mul(size)?)?;
            (u64::from_le_bytes(*header) == len as u64 && end <= bytes.len()).then_some(start..end)
        })();
        let range =
            range.ok_or_else(|| Problem::Malformed(format!("its storage {key} is truncated or of another length")))?;
        at = range.end;
        storages.insert(key.to_owned(), range);
    }
    Ok((state_dict.into_state_dict()?, storages))
}

/// Locates a tensor in the file and checks that all its elements lie within its storage.
fn locate(name: String, tensor: TensorView, storages: &Storages) -> Result<Tensor, Problem> {
    let TensorView { storage, offset, shape, strides } = tensor;
    let Some(range) = storages.get(&storage.key) else {
        return Err(Problem::Malformed(format!("the storage {} of tensor `{name}` is missing", storage.key)));
    };
    let size = storage.element.size;
    let elements = (range.len() / size).min(storage.len);
    if end_of_view(offset, &shape, &strides).is_none_or(|end| end > elements) {
        return Err(Problem::Malformed(format!("tensor `{name}` reaches beyond its storage")));
    }
    let strides = (!is_row_major(&shape, &strides)).then_some(strides);
    // The offset of an empty tensor is arbitrary.
    let start = range.start + offset.min(elements) * size;
    Ok(Tensor { name, dtype: storage.element.dtype, element_size: size, shape, start, strides })
}

/// One more than the greatest element index of a view, or `None` on overflow. An empty view ends at 0.
fn end_of_view(offset: usize, shape: &[usize], strides: &[usize]) -> Option<usize> {
    if shape.contains(&0) {
        return Some(0);
    }
    // With a stride of 0, the number of elements may overflow although all indices are small.
    shape.iter().try_fold(1usize, |n, &len| n.checked_mul(len))?;
    shape
        .iter()
        .zip(strides)
        .try_fold(offset.checked_add(1)?, |end, (&len, &stride)| end.checked_add((len - 1).checked_mul(stride)?))
}

fn is_row_major(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1usize;
    for (&len, &stride) in shape.iter().zip(strides).rev() {
        if len != 1 && stride != expected {
            return false;
        }
        // Only the shape of an empty tensor can overflow here, and the strides of an empty tensor are irrelevant.
        expected = expected.wrapping_mul(len);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_end_where_their_last_element_does() {
        assert_eq!(end_of_view(0, &[2, 3], &[3, 1]), Some(6));
        assert_eq!(end_of_view(4, &[2, 3], &[1, 2]), Some(10));
        assert_eq!(end_of_view(7, &[], &[]), Some(8));
        assert_eq!(end_of_view(usize::MAX, &[0], &[1]), Some(0));
        assert_eq!(end_of_view(0, &[usize::MAX, 2], &[0, 0]), None);
        assert_eq!(end_of_view(1, &[2], &[usize::MAX]), None);
    }

    #[test]
    fn only_strides_of_dimensions_longer_than_one_matter() {
        assert!(is_row_major(&[1, 3], &[99, 1]));
        assert!(is_row_major(&[4, 6], &[6, 1]));
        assert!(!is_row_major(&[6, 4], &[1, 6]));
        assert!(!is_row_major(&[3], &[0]));
        assert!(is_row_major(&[], &[]));
    }
}
