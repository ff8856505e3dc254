//! Writing of model directories for `transformers`, of safetensors files, and of files by atomic rename.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

use serde_json::{Map, Value, json};
use tamt_files::WriteSeek;

use crate::config::Config;
use crate::error::{Result, write_error};

/// Elements per conversion to bytes.
const BLOCK: usize = 1 << 12;

/// The elements of a tensor for [`write_safetensors`], in row-major order.
#[derive(Clone, Copy, Debug)]
pub enum TensorData<'a> {
    /// Single-precision numbers.
    F32(&'a [f32]),
    /// Bytes.
    U8(&'a [u8]),
    /// Elements of another type, little-endian.
    Raw {
        /// The name of the type in safetensors.
        dtype: &'a str,
        /// Size of an element in bytes, above 0.
        element_size: usize,
        /// All elements.
        bytes: &'a [u8],
    },
}

impl<'a> TensorData<'a> {
    fn dtype(self) -> &'a str {
        match self {
            Self::F32(_) => "F32",
            Self::U8(_) => "U8",
            Self::Raw { dtype, .. } => dtype,
        }
    }

    fn len(self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::U8(values) => values.len(),
            Self::Raw { element_size, bytes, .. } => bytes.len() / element_size,
        }
    }

    fn element_size(self) -> usize {
        match self {
            Self::F32(_) => 4,
            Self::U8(_) => 1,
            Self::Raw { element_size, .. } => element_size,
        }
    }

    fn write(self, out: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::F32(values) => {
                let mut block = [[0; 4]; BLOCK];
                for values in values.chunks(BLOCK) {
                    for (bytes, value) in block.iter_mut().zip(values) {
                        *bytes = value.to_le_bytes();
                    }
                    out.write_all(block[..values.len()].as_flattened())?;
                }
                Ok(())
            }
            Self::U8(bytes) | Self::Raw { bytes, .. } => out.write_all(bytes),
        }
    }
}

/// Writes `config.json` and `model.safetensors` (F32) to `dir`, and creates `dir` if necessary.
///
/// A tensor is its name in `transformers`, its shape, and its values in row-major order. The function writes `config.json`
/// last, so a directory with a `config.json` is complete.
///
/// # Errors
/// [`Error::Write`](crate::Error::Write).
///
/// # Panics
/// If two tensors have the same name, or a shape does not fit the number of values.
pub fn write_model(dir: &Path, config: &Config, tensors: &[(&str, &[usize], &[f32])]) -> Result<()> {
    fs::create_dir_all(dir).map_err(write_error(dir))?;
    let tensors: Vec<_> = tensors.iter().map(|&(name, shape, values)| (name, shape, TensorData::F32(values))).collect();
    // `transformers` refuses a file whose metadata does not name a framework.
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    write_safetensors(&dir.join("model.safetensors"), &metadata, &tensors)?;
    write_config(dir, config)
}

/// Writes the `config.json` of a model to `dir`, by [`atomic_write`]. It is the last file of a model: a directory with a
/// `config.json` is complete.
///
/// # Errors
/// [`Error::Write`](crate::Error::Write).
pub fn write_config(dir: &Path, config: &Config) -> Result<()> {
    atomic_write(&dir.join("config.json"), |out| out.write_all(config.to_json().as_bytes()))
}

/// Writes a safetensors file by [`atomic_write`]. The bytes of the file are a function of the arguments.
///
/// Tensors are sorted by element size, largest first, for alignment, and then by name, as in other implementations of the
/// format.
///
/// # Errors
/// [`Error::Write`](crate::Error::Write).
///
/// # Panics
/// If two tensors have the same name, a name is `__metadata__`, or a shape does not fit the number of values.
pub fn write_safetensors(
    path: &Path,
    metadata: &BTreeMap<String, String>,
    tensors: &[(&str, &[usize], TensorData<'_>)],
) -> Result<()> {
    let mut tensors = tensors.to_vec();
    tensors.sort_by(|(a, _, x), (b, _, y)| y.element_size().cmp(&x.element_size()).then_with(|| a.cmp(b)));
    let mut header = Map::new();
    if !metadata.is_empty() {
        header.insert("__metadata__".to_owned(), json!(metadata));
    }
    let mut start = 0;
    for &(name, shape, data) in &tensors {
        assert_eq!(shape.iter().product::<usize>(), data.len(), "values of {name} {shape:?}");
        let end = start + data.len() * data.element_size();
        let info = json!({"dtype": data.dtype(), "shape": shape, "data_offsets": [start, end]});
        assert!(name != "__metadata__" && header.insert(name.to_owned(), info).is_none(), "two tensors named {name}");
        start = end;
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    atomic_write(path, |out| {
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(&header)?;
        tensors.iter().try_for_each(|(_, _, data)| data.write(out))
    })
}

/// Writes a file by [`tamt_files::atomic_write`].
///
/// # Errors
/// [`Error::Write`](crate::Error::Write) with `path`; [`tamt_files::atomic_write`] says what it then holds.
pub fn atomic_write(path: &Path, contents: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    tamt_files::atomic_write(path, contents).map_err(write_error(path))
}

/// [`atomic_write`] for formats that go back in the file, such as zip.
///
/// # Errors
/// [`Error::Write`](crate::Error::Write) with `path`; [`tamt_files::atomic_write`] says what it then holds.
pub(crate) fn atomic_write_seeking(
    path: &Path,
    contents: impl FnOnce(&mut dyn WriteSeek) -> io::Result<()>,
) -> Result<()> {
    tamt_files::atomic_write_seeking(path, contents).map_err(write_error(path))
}

#[cfg(test)]
mod tests {
    use safetensors::SafeTensors;

    use super::*;
    use crate::error::Error;

    #[test]
    fn a_failed_write_names_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gone").join("x");
        assert!(matches!(atomic_write(&path, |_| Ok(())), Err(Error::Write { path: p, .. }) if p == path));
    }

    #[test]
    fn what_is_written_is_what_the_safetensors_crate_reads() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ticket.safetensors");
        let metadata = BTreeMap::from([("b".to_owned(), "2".to_owned()), ("a".to_owned(), "1 \"quoted\"".to_owned())]);
        let values: Vec<f32> = (0..BLOCK + 3).map(|i| i as f32 - 7.5).collect();
        let raw = TensorData::Raw { dtype: "BF16", element_size: 2, bytes: &[0, 1, 2, 3] };
        let tensors: [(&str, &[usize], TensorData<'_>); 5] = [
            ("half", &[2, 1], raw),
            ("mask", &[1, 3], TensorData::U8(&[1, 2, 255])),
            ("z", &[BLOCK + 3], TensorData::F32(&values)),
            ("a", &[], TensorData::F32(&[0.25])),
            ("none", &[0, 4], TensorData::F32(&[])),
        ];
        write_safetensors(&path, &metadata, &tensors).unwrap();

        let bytes = fs::read(&path).unwrap();
        let read = SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(read.len(), tensors.len());
        for (name, shape, data) in tensors {
            let tensor = read.tensor(name).unwrap();
            assert_eq!(tensor.shape(), shape);
            let expected = match data {
                TensorData::F32(values) => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
                TensorData::U8(bytes) | TensorData::Raw { bytes, .. } => bytes.to_vec(),
            };
            assert_eq!(tensor.data(), expected, "{name}");
        }
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        assert_eq!(header.metadata().as_ref().unwrap()["a"], "1 \"quoted\"");

        let mut reversed = tensors;
        reversed.reverse();
        let again = dir.path().join("again");
        write_safetensors(&again, &metadata, &reversed).unwrap();
        assert_eq!(fs::read(again).unwrap(), bytes);
    }
}
