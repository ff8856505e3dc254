//! The arrays of numpy's `.npz`: a zip archive of `.npy` files, stored or deflated.
//!
//! numpy's `lib/_format_impl.py` describes the format of a member: a magic string, a version, the length of a header, the
//! header (a Python dictionary of three entries), and the elements.

use std::io::{Cursor, Read};
use std::path::PathBuf;

use memmap2::Mmap;
use zip::ZipArchive;

use crate::checkpoint::convert::{Dtype, Float};
use crate::checkpoint::tensor::{Problem, Tensor};
use crate::checkpoint::weights_file::map;
use crate::error::Result;

const MAGIC: &[u8] = b"\x93NUMPY";
/// Maximum length of a header. numpy itself refuses to parse longer ones than 10,000 bytes.
const MAX_HEADER: usize = 10_000;

/// A mapped archive.
#[derive(Debug)]
pub(super) struct Npz {
    pub(super) path: PathBuf,
    pub(super) bytes: Mmap,
}

impl Npz {
    /// Maps an archive and reads the headers of its arrays. The `start` of a tensor is relative to its member.
    pub(super) fn open(path: PathBuf) -> Result<(Self, Vec<Tensor>)> {
        let npz = Self { bytes: map(&path)?, path };
        let tensors = npz.tensors().map_err(|problem| problem.in_file(&npz.path))?;
        Ok((npz, tensors))
    }

    fn tensors(&self) -> Result<Vec<Tensor>, Problem> {
        let mut archive = ZipArchive::new(Cursor::new(&self.bytes[..])).map_err(zip_problem)?;
        let mut tensors = Vec::with_capacity(archive.len());
        for index in 0..archive.len() {
            let mut member = archive.by_index(index).map_err(zip_problem)?;
            let name = member.name().map_err(zip_problem)?.into_owned();
            let Some(name) = name.strip_suffix(".npy") else {
                return Err(Problem::Unsupported(format!("its member `{name}` is no array of numpy")));
            };
            tensors.push(header(name, &mut member)?);
        }
        Ok(tensors)
    }

    /// The bytes of all elements of an array in row-major order. The memory is that of the array's shape.
    pub(super) fn elements(&self, tensor: &Tensor) -> Result<Vec<u8>> {
        self.member(tensor).map_err(|problem| problem.in_file(&self.path))
    }

    fn member(&self, tensor: &Tensor) -> Result<Vec<u8>, Problem> {
        let mut archive = ZipArchive::new(Cursor::new(&self.bytes[..])).map_err(zip_problem)?;
        let mut member = archive.by_name(&format!("{}.npy", tensor.name)).map_err(zip_problem)?;
        let too_large = || Problem::Malformed(format!("its array `{}` is too large", tensor.name));
        let len = tensor.byte_len().and_then(|len| len.checked_add(tensor.start + 1)).ok_or_else(too_large)? - 1;
        let mut bytes = Vec::new();
        // The vector grows as the archive yields bytes, so a false shape cannot claim memory. The archive compares its
        // checksum when it yields no more, so one byte more is asked for.
        (&mut member).take(len as u64 + 1).read_to_end(&mut bytes).map_err(zip_problem)?;
        if bytes.len() != len {
            let problem = format!("its array `{}` has another length than its shape {:?}", tensor.name, tensor.shape);
            return Err(Problem::Malformed(problem));
        }
        if tensor.strides.is_some() {
            return Ok(tensor.row_major(&bytes).into_owned());
        }
        bytes.drain(..tensor.start);
        Ok(bytes)
    }
}

/// The description of an array from the start of its member.
fn header(name: &str, member: &mut impl Read) -> Result<Tensor, Problem> {
    let malformed = || Problem::Malformed(format!("its member `{name}.npy` is no array of numpy"));
    let mut start = [0; 10];
    member.read_exact(&mut start).map_err(|_| malformed())?;
    if !start.starts_with(MAGIC) {
        return Err(malformed());
    }
    let [.., major, _, a, b] = start;
    // Since version 2 the length has four bytes.
    let (len, before) = if major == 1 {
        (usize::from(u16::from_le_bytes([a, b])), 10)
    } else {
        let mut rest = [0; 2];
        member.read_exact(&mut rest).map_err(|_| malformed())?;
        (u32::from_le_bytes([a, b, rest[0], rest[1]]) as usize, 12)
    };
    if len > MAX_HEADER {
        return Err(malformed());
    }
    let mut text = vec![0; len];
    member.read_exact(&mut text).map_err(|_| malformed())?;
    let text = String::from_utf8(text).map_err(|_| malformed())?;
    let Description { dtype, element_size, fortran, shape } = describe(name, &text)?;
    // The first index of a matrix in Fortran order runs fastest.
    let strides = (fortran && shape.len() > 1).then(|| {
        let before = |dim: usize| shape[..dim].iter().fold(1usize, |n, &len| n.wrapping_mul(len));
        (0..shape.len()).map(before).collect()
    });
    Ok(Tensor { name: name.to_owned(), dtype, element_size, shape, start: before + len, strides })
}

/// What a header says.
#[derive(Debug, PartialEq)]
struct Description {
    dtype: Dtype,
    element_size: usize,
    fortran: bool,
    shape: Vec<usize>,
}

/// Parses the text of a header, such as `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`.
fn describe(name: &str, text: &str) -> Result<Description, Problem> {
    let malformed = || Problem::Malformed(format!("the header of its array `{name}` is {text:?}"));
    let after = |key: &str| {
        let (_, rest) = text.split_once(&format!("'{key}'"))?;
        Some(rest.trim_start().strip_prefix(':')?.trim_start())
    };
    let descr = after("descr").ok_or_else(malformed)?;
    let Some(descr) = descr.strip_prefix('\'').and_then(|rest| rest.split_once('\'')).map(|(descr, _)| descr) else {
        return Err(Problem::Unsupported(format!("its array `{name}` has records as elements")));
    };
    let (dtype, element_size) = element(descr)
        .ok_or_else(|| Problem::Unsupported(format!("its array `{name}` has elements of numpy's type {descr:?}")))?;
    let fortran = match after("fortran_order").ok_or_else(malformed)? {
        rest if rest.starts_with("True") => true,
        rest if rest.starts_with("False") => false,
        _ => return Err(malformed()),
    };
    let sizes = after("shape").and_then(|rest| rest.strip_prefix('(')?.split_once(')')).ok_or_else(malformed)?.0;
    let sizes = sizes.split(',').map(str::trim).filter(|size| !size.is_empty());
    let shape = sizes.map(str::parse).collect::<Result<Vec<usize>, _>>().map_err(|_| malformed())?;
    Ok(Description { dtype, element_size, fortran, shape })
}

/// The type and the size of elements of numpy's type `descr`; `None` for big-endian and other types.
fn element(descr: &str) -> Option<(Dtype, usize)> {
    Some(match descr {
        "|b1" => (Dtype::Other("BOOL"), 1),
        "|u1" => (Dtype::Other("U8"), 1),
        "|i1" => (Dtype::Other("I8"), 1),
        "<u2" => (Dtype::Other("U16"), 2),
        "<i2" => (Dtype::Other("I16"), 2),
        "<u4" => (Dtype::Other("U32"), 4),
        "<i4" => (Dtype::Other("I32"), 4),
        "<u8" => (Dtype::Other("U64"), 8),
        "<i8" => (Dtype::Other("I64"), 8),
        "<f2" => (Dtype::Float(Float::F16), 2),
        "<f4" => (Dtype::Float(Float::F32), 4),
        "<f8" => (Dtype::Float(Float::F64), 8),
        _ => return None,
    })
}

fn zip_problem(error: impl std::fmt::Display) -> Problem {
    Problem::Malformed(format!("as a zip archive: {error}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_headers_that_numpy_writes_are_read() {
        // numpy.lib.format.header_data_from_array_1_0 of np.zeros((3, 4), 'f4'), np.zeros(5, bool), np.zeros((), 'i8')
        // and np.asfortranarray(np.zeros((2, 3), 'u1'))
        let cases = [
            (
                "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }",
                Dtype::Float(Float::F32),
                4,
                false,
                vec![3, 4],
            ),
            ("{'descr': '|b1', 'fortran_order': False, 'shape': (5,), }", Dtype::Other("BOOL"), 1, false, vec![5]),
            ("{'descr': '<i8', 'fortran_order': False, 'shape': (), }", Dtype::Other("I64"), 8, false, vec![]),
            ("{'descr': '|u1', 'fortran_order': True, 'shape': (2, 3), }", Dtype::Other("U8"), 1, true, vec![2, 3]),
        ];
        for (text, dtype, element_size, fortran, shape) in cases {
            assert_eq!(describe("a", text), Ok(Description { dtype, element_size, fortran, shape }), "{text}");
        }
    }

    #[test]
    fn other_headers_are_refused_with_the_reason() {
        let reason = |text| match describe("a", text) {
            Ok(read) => panic!("read as {read:?}"),
            Err(Problem::Malformed(text) | Problem::Unsupported(text)) => text,
        };
        assert!(reason("{'descr': '>f4', 'fortran_order': False, 'shape': (3,)}").contains("\">f4\""));
        assert!(reason("{'descr': '|O', 'fortran_order': False, 'shape': (3,)}").contains("\"|O\""));
        assert!(reason("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (3,)}").contains("records"));
        assert!(reason("{'descr': '<f4', 'fortran_order': False, 'shape': (-3,)}").contains("header"));
        assert!(reason("{'descr': '<f4', 'shape': (3,)}").contains("header"));
        assert!(reason("").contains("header"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), version in 1..4u8) {
            let _ = header("a", &mut &bytes[..]);
            let len = u16::try_from(bytes.len()).unwrap().to_le_bytes();
            let _ = header("a", &mut &[MAGIC, &[version, 0], &len, &bytes].concat()[..]);
            let _ = describe("a", &String::from_utf8_lossy(&bytes));
        }
    }
}
