//! Writing safetensors files whose bytes depend on their contents only, so that equal runs write equal tickets.
//!
//! The `safetensors` crate writes metadata in the random order of a hash map.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::Dtype;
use serde_json::{Map, Value, json};
use tamt_model::write::atomic_write;

use crate::error::Result;

/// A tensor to write.
#[derive(Debug)]
pub(crate) struct Tensor<'a> {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    data: &'a [u8],
}

impl<'a> Tensor<'a> {
    /// A tensor of bytes.
    pub(crate) fn u8(name: impl Into<String>, shape: &[usize], data: &'a [u8]) -> Self {
        Self { name: name.into(), dtype: Dtype::U8, shape: shape.to_vec(), data }
    }

    /// A tensor of floats.
    pub(crate) fn f32(name: impl Into<String>, shape: &[usize], data: &'a [f32]) -> Self {
        Self { name: name.into(), dtype: Dtype::F32, shape: shape.to_vec(), data: bytemuck::cast_slice(data) }
    }

    /// A tensor of integers.
    pub(crate) fn u64(name: impl Into<String>, shape: &[usize], data: &'a [u64]) -> Self {
        Self { name: name.into(), dtype: Dtype::U64, shape: shape.to_vec(), data: bytemuck::cast_slice(data) }
    }
}

/// Writes `tensors` in their order, with `metadata` in the order of its keys, by atomic rename.
///
/// # Errors
/// If the file cannot be written.
pub(crate) fn write(path: &Path, tensors: &[Tensor<'_>], metadata: &BTreeMap<String, String>) -> Result<()> {
    let mut header = Map::new();
    if !metadata.is_empty() {
        header.insert("__metadata__".to_owned(), json!(metadata));
    }
    // The widest types come first, so that every tensor is aligned.
    let mut ordered: Vec<&Tensor<'_>> = tensors.iter().collect();
    ordered.sort_by_key(|t| std::cmp::Reverse(t.dtype.bitsize()));
    let mut end = 0;
    for tensor in &ordered {
        let start = end;
        end += tensor.data.len();
        let entry = json!({"dtype": tensor.dtype.to_string(), "shape": tensor.shape, "data_offsets": [start, end]});
        header.insert(tensor.name.clone(), entry);
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    Ok(atomic_write(path, |file| {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        ordered.iter().try_for_each(|tensor| file.write_all(tensor.data))
    })?)
}
