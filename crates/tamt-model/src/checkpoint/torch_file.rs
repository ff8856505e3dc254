//! Writing of `PyTorch` files: a zip archive with a pickle, which describes tensors as views of storages, and the bytes of
//! the storages. `torch/serialization.py` is the reference; `torch.load(..., weights_only=True)` reads the files.

use std::io::{self, Write};
use std::path::Path;

use tamt_files::WriteSeek;
use tamt_kernels::masks::BitMask;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use crate::checkpoint::convert::Dtype;
use crate::checkpoint::pickle::value::{Element, STORAGE_CLASSES, storage_type};
use crate::error::{Error, Result};
use crate::write::atomic_write_seeking;

/// `PyTorch` aligns storages so that a file can be mapped into memory.
const ALIGNMENT: u16 = 64;

/// The folder of all members. `PyTorch` takes the name of the file; a fixed name makes equal contents equal files.
const ROOT: &str = "archive";

/// A tensor to write.
#[derive(Debug)]
pub(crate) struct TorchTensor<'a> {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) dtype: Dtype,
    pub(crate) elements: Elements<'a>,
}

/// The elements of a tensor.
#[derive(Debug)]
pub(crate) enum Elements<'a> {
    /// Little-endian, in row-major order.
    Bytes(&'a [u8]),
    /// A 1 where the mask keeps and a 0 where it drops, in the tensor's type.
    Mask(&'a BitMask),
}

/// Writes a dictionary of tensors by atomic rename. The bytes of the file are a function of the arguments.
///
/// # Errors
/// [`Error::Write`], or [`Error::Unsupported`] for an element type without a storage class in `PyTorch`.
pub(crate) fn write_torch(path: &Path, tensors: &[TorchTensor<'_>]) -> Result<()> {
    let pickle = pickle(path, tensors)?;
    atomic_write_seeking(path, |out| {
        let mut zip = ZipWriter::new(out);
        member(&mut zip, "data.pkl", pickle.len(), |zip| zip.write_all(&pickle))?;
        member(&mut zip, "byteorder", 6, |zip| zip.write_all(b"little"))?;
        for (key, tensor) in tensors.iter().enumerate() {
            member(&mut zip, &format!("data/{key}"), tensor.byte_len(), |zip| tensor.write(zip))?;
        }
        member(&mut zip, "version", 2, |zip| zip.write_all(b"3\n"))?;
        zip.finish().map_err(io::Error::other)?.flush()
    })
}

type Zip<'a, 'b> = ZipWriter<&'a mut (dyn WriteSeek + 'b)>;

fn member(
    zip: &mut Zip<'_, '_>,
    name: &str,
    len: usize,
    contents: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .large_file(u32::try_from(len).is_err())
        .with_alignment(ALIGNMENT);
    zip.start_file(format!("{ROOT}/{name}"), options).map_err(io::Error::other)?;
    contents(zip)
}

impl TorchTensor<'_> {
    fn len(&self) -> usize {
        self.shape.iter().product()
    }

    fn byte_len(&self) -> usize {
        match &self.elements {
            Elements::Bytes(bytes) => bytes.len(),
            Elements::Mask(mask) => mask.len() * self.storage_class().map_or(1, |(_, size)| size),
        }
    }

    /// The name of the class of the tensor's storage, and the size of an element in bytes.
    fn storage_class(&self) -> Option<(&'static str, usize)> {
        STORAGE_CLASSES.iter().find_map(|&name| {
            let Element { dtype, size } = storage_type(name)?;
            (dtype == self.dtype).then_some((name, size))
        })
    }

    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let mask = match self.elements {
            Elements::Bytes(bytes) => return out.write_all(bytes),
            Elements::Mask(mask) => mask,
        };
        let (zero, one) = match self.dtype {
            Dtype::Float(float) => (float.encode(&[0.0]), float.encode(&[1.0])),
            Dtype::Other(_) => (vec![0], vec![1]),
        };
        let mut row = Vec::with_capacity(mask.cols() * one.len());
        for r in 0..mask.rows() {
            row.clear();
            for c in 0..mask.cols() {
                row.extend_from_slice(if mask.get(r, c) { &one } else { &zero });
            }
            out.write_all(&row)?;
        }
        Ok(())
    }
}

/// The pickle of the dictionary. `pickletools.dis` shows the same opcodes for a file of `torch.save`, which also remembers
/// values to use them again.
fn pickle(path: &Path, tensors: &[TorchTensor<'_>]) -> Result<Vec<u8>> {
    let mut out = b"\x80\x02}".to_vec(); // PROTO 2, EMPTY_DICT
    for (key, tensor) in tensors.iter().enumerate() {
        let Some((class, _)) = tensor.storage_class() else {
            let problem = format!("tensor `{}` is {}, which PyTorch's files do not hold", tensor.name, tensor.dtype);
            return Err(Error::Unsupported { path: path.to_owned(), problem });
        };
        string(&mut out, &tensor.name);
        out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n(("); // GLOBAL, MARK, MARK
        string(&mut out, "storage");
        out.extend(format!("ctorch\n{class}\n").bytes());
        string(&mut out, &key.to_string());
        string(&mut out, "cpu");
        integer(&mut out, tensor.len());
        out.extend(b"tQK\x00"); // TUPLE, BINPERSID, the offset in the storage
        integers(&mut out, &tensor.shape);
        integers(&mut out, &strides(&tensor.shape));
        out.extend(b"\x89ccollections\nOrderedDict\n)RtRs"); // no gradient, no hooks; SETITEM
    }
    out.push(b'.');
    Ok(out)
}

/// BINUNICODE.
fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'X');
    out.extend((text.len() as u32).to_le_bytes());
    out.extend(text.bytes());
}

/// A tuple.
fn integers(out: &mut Vec<u8>, values: &[usize]) {
    out.push(b'(');
    values.iter().for_each(|&value| integer(out, value));
    out.push(b't');
}

/// BININT, or LONG1 of eight bytes, where the highest bit is a sign.
fn integer(out: &mut Vec<u8>, value: usize) {
    match i32::try_from(value) {
        Ok(value) => {
            out.push(b'J');
            out.extend(value.to_le_bytes());
        }
        Err(_) => {
            out.extend([0x8a, 8]);
            out.extend((value as i64).to_le_bytes());
        }
    }
}

/// The strides of row-major order.
fn strides(shape: &[usize]) -> Vec<usize> {
    (0..shape.len()).map(|dim| shape[dim + 1..].iter().product()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::convert::Float;
    use crate::checkpoint::tensor_file::TensorFile;

    #[test]
    fn a_written_file_is_read_back_and_equal_contents_are_equal_files() {
        let dir = tempfile::tempdir().unwrap();
        let mut mask = BitMask::zeros(3, 11);
        [(0, 0), (0, 10), (2, 7)].iter().for_each(|&(r, c)| mask.set(r, c, true));
        let values: Vec<u8> = [1.5f32, -2.0, 0.0, 4.0, 5.0, 6.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        let tensor = |name: &str, shape: &[usize], dtype, elements| TorchTensor {
            name: name.to_owned(),
            shape: shape.to_vec(),
            dtype,
            elements,
        };
        let tensors = [
            tensor("bool", &[3, 11], Dtype::Other("BOOL"), Elements::Mask(&mask)),
            tensor("half", &[3, 11], Dtype::Float(Float::F16), Elements::Mask(&mask)),
            tensor("double", &[3, 11], Dtype::Float(Float::F64), Elements::Mask(&mask)),
            tensor("values", &[2, 3], Dtype::Float(Float::F32), Elements::Bytes(&values)),
            tensor("empty", &[0, 3], Dtype::Other("I64"), Elements::Bytes(&[])),
        ];
        let paths = ["a.pt", "b.pt"].map(|name| dir.path().join(name));
        paths.iter().for_each(|path| write_torch(path, &tensors).unwrap());
        let [a, b] = paths.each_ref().map(|path| std::fs::read(path).unwrap());
        assert_eq!(a, b);

        let file = TensorFile::open(&paths[0]).unwrap();
        assert_eq!(file.names().collect::<Vec<_>>(), ["bool", "half", "double", "values", "empty"]);
        for name in ["bool", "half", "double"] {
            assert_eq!(file.mask(name, [3, 11]).unwrap(), mask, "{name}");
        }
        assert_eq!(file.values("values", [2, 3]).unwrap(), [1.5, -2.0, 0.0, 4.0, 5.0, 6.0]);
        assert_eq!(file.shape("empty"), Some([0, 3].as_slice()));
    }

    #[test]
    fn integers_beyond_32_bits_are_read_back() {
        for value in [0, 1, 255, i32::MAX as usize, i32::MAX as usize + 1, 1 << 40] {
            let mut out = b"\x80\x02".to_vec();
            integer(&mut out, value);
            out.push(b'.');
            assert_eq!(crate::checkpoint::pickle::Pickle::read(&out).unwrap().as_int(), Some(value as i64));
        }
    }

    #[test]
    fn a_type_that_pytorch_has_no_storage_for_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (name, dtype, elements) = ("x".to_owned(), Dtype::Other("F8_E4M3"), Elements::Bytes(&[0]));
        let error = write_torch(&dir.path().join("x.pt"), &[TorchTensor { name, shape: vec![1], dtype, elements }]);
        assert!(matches!(error, Err(Error::Unsupported { problem, .. }) if problem.contains("`x` is F8_E4M3")));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
