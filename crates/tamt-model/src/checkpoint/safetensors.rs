//! The tensors of a safetensors file.

use safetensors::{Dtype as FileDtype, SafeTensors};

use crate::checkpoint::convert::{Dtype, Float};
use crate::checkpoint::packed::Header;
use crate::checkpoint::tensor::{Problem, Tensor};

/// The tensors of a safetensors file, in the order of their bytes, and the metadata of a packed file.
///
/// The `safetensors` crate checks that the header lies within the file, and that the tensors' ranges agree with their
/// shapes and cover the rest of the file without overlap.
pub(super) fn tensors(bytes: &[u8]) -> Result<(Vec<Tensor>, Option<Header>), Problem> {
    let (header, metadata) = SafeTensors::read_metadata(bytes).map_err(|e| Problem::Malformed(e.to_string()))?;
    // The file starts with the length of the header, in eight bytes.
    let data = header + 8;
    let mut tensors: Vec<Tensor> = Vec::from_iter(metadata.tensors().into_iter().map(|(name, info)| Tensor {
        name,
        dtype: dtype(info.dtype),
        element_size: info.dtype.bitsize() / 8,
        shape: info.shape.clone(),
        start: data + info.data_offsets.0,
        strides: None,
    }));
    // The crate's order is that of a hash map.
    tensors.sort_by(|a, b| (a.start, &a.name).cmp(&(b.start, &b.name)));
    Ok((tensors, Header::of(metadata.metadata().as_ref())?))
}

fn dtype(dtype: FileDtype) -> Dtype {
    match dtype {
        FileDtype::F16 => Dtype::Float(Float::F16),
        FileDtype::BF16 => Dtype::Float(Float::BF16),
        FileDtype::F32 => Dtype::Float(Float::F32),
        FileDtype::F64 => Dtype::Float(Float::F64),
        FileDtype::BOOL => Dtype::Other("BOOL"),
        FileDtype::U8 => Dtype::Other("U8"),
        FileDtype::I8 => Dtype::Other("I8"),
        FileDtype::U16 => Dtype::Other("U16"),
        FileDtype::I16 => Dtype::Other("I16"),
        FileDtype::U32 => Dtype::Other("U32"),
        FileDtype::I32 => Dtype::Other("I32"),
        FileDtype::U64 => Dtype::Other("U64"),
        FileDtype::I64 => Dtype::Other("I64"),
        FileDtype::F8_E5M2 => Dtype::Other("F8_E5M2"),
        FileDtype::F8_E4M3 => Dtype::Other("F8_E4M3"),
        FileDtype::F8_E8M0 => Dtype::Other("F8_E8M0"),
        FileDtype::F8_E5M2FNUZ => Dtype::Other("F8_E5M2FNUZ"),
        FileDtype::F8_E4M3FNUZ => Dtype::Other("F8_E4M3FNUZ"),
        FileDtype::C64 => Dtype::Other("C64"),
        _ => Dtype::Other("of an unknown type"),
    }
}
