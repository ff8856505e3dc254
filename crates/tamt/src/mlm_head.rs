//! The weights of an MLM head apart from their model: a head trained beside a ticket, or the base model's.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};
use tamt_files::kind::file_kind;
use tamt_model::Model;

use crate::error::{Error, Result};
use crate::tensor_file::{self, Tensor};

/// Name of the head's file beside a ticket.
pub const HEAD_FILE: &str = "mlm_head.safetensors";

/// The five tensors of an MLM head; the decoder matrix is the model's word embeddings.
#[derive(Clone, Debug)]
pub struct HeadWeights {
    tensors: Vec<Vec<f32>>,
}

impl HeadWeights {
    /// A copy of the model's head.
    ///
    /// # Errors
    /// If the model has no head.
    pub fn of(model: &Model) -> Result<Self> {
        let head = model.decoding_head()?;
        Ok(Self { tensors: head.params().map(|id| model.params.get(id).to_vec()).into() })
    }

    /// Exchanges these weights with the model's.
    ///
    /// # Panics
    /// If the model has no head.
    pub fn swap(&mut self, model: &mut Model) {
        let head = model.mlm_head.expect("the weights were taken from a model with a head");
        for (id, values) in head.params().into_iter().zip(&mut self.tensors) {
            model.params.get_mut(id).swap_with_slice(values);
        }
    }

    /// Writes the model's head into `directory`, under the checkpoint's names.
    ///
    /// # Errors
    /// If the model has no head or the file cannot be written.
    pub fn write(model: &Model, directory: &Path) -> Result<()> {
        let head = model.decoding_head()?;
        let values = head.params().map(|id| (model.params.spec(id), model.params.get(id)));
        let tensors =
            values.each_ref().map(|(spec, values)| Tensor::f32(spec.checkpoint_name.as_str(), &spec.shape, values));
        let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
        tensor_file::write(&directory.join(HEAD_FILE), &tensors, &metadata)
    }

    /// Reads a head written by [`HeadWeights::write`] for a model of the same shape.
    ///
    /// # Errors
    /// If the model has no head, or the file is missing or does not fit.
    pub fn read(model: &Model, path: &Path) -> Result<Self> {
        let head = model.decoding_head()?;
        let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
        if let Some(found) = other_content(&bytes) {
            return Err(Error::NotAHead { path: path.to_owned(), found });
        }
        let damaged = |reason: String| Error::Damaged { path: path.to_owned(), reason };
        let file = SafeTensors::deserialize(&bytes).map_err(|e| damaged(e.to_string()))?;
        let read = |id| {
            let spec = model.params.spec(id);
            let tensor = file.tensor(&spec.checkpoint_name).map_err(|e| damaged(e.to_string()))?;
            if tensor.dtype() != Dtype::F32 || tensor.shape() != spec.shape {
                let (found, name) = (tensor.shape(), &spec.checkpoint_name);
                return Err(damaged(format!("{name} is {:?} {found:?} and not F32 {:?}", tensor.dtype(), spec.shape)));
            }
            Ok(tensor.data().as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect())
        };
        Ok(Self { tensors: head.params().into_iter().map(read).collect::<Result<_>>()? })
    }
}

/// What a file is that is no MLM head; `None` for a head, damaged or not.
fn other_content(bytes: &[u8]) -> Option<String> {
    if bytes.is_empty() {
        return Some("an empty file".to_owned());
    }
    if let Some(found) = file_kind(bytes) {
        return Some(found.to_owned());
    }
    let (_, header) = SafeTensors::read_metadata(bytes).ok()?;
    let names = header.offset_keys();
    let has = |part: &str| names.iter().any(|name| name.contains(part));
    match names.first() {
        None => Some("a safetensors file without tensors".to_owned()),
        Some(_) if has(".bitmask") => Some("a ticket".to_owned()),
        Some(first) if !has("cls.") && !has("lm_head.") => {
            Some(format!("a safetensors file with tensors such as {first}"))
        }
        Some(_) => None,
    }
}
