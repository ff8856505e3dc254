//! Tickets: one bit for each weight of a base model, in a safetensors file that names the model it belongs to.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use tamt_kernels::masks::BitMask;
use tamt_model::{Masks, Model};

use crate::error::{Error, Result};
use crate::prune::Scope;
use crate::tensor_file::{self, Tensor};

/// Name of a ticket inside a directory.
pub const TICKET_FILE: &str = "ticket.safetensors";

const SUFFIX: &str = ".bitmask";

/// The origin of a ticket, its metadata.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// Directory or hub id of the base model, as a user gave it.
    pub base_model: String,
    /// SHA-256 of the base model's weights file, in hexadecimal.
    pub base_sha256: String,
    /// The method's name: `magnitude`, `tamt-kd`.
    pub method: String,
    /// The minimised objective of a method that trains: `mlm`, `kd`, `mlm+kd`.
    pub objective: Option<String>,
    /// The requested sparsity.
    pub sparsity: f64,
    /// The weights that are ranked together.
    pub scope: Scope,
    /// The run's seed.
    pub seed: u64,
    /// Optimiser steps.
    pub steps: u64,
    /// SHA-256 of the corpus files in order, for a method that trains.
    pub corpus_sha256: Option<String>,
    /// Version of `tamt` that wrote the file.
    pub tool_version: String,
}

/// A subnetwork of a base model.
#[derive(Clone, Debug, PartialEq)]
pub struct Ticket {
    /// Masks by the checkpoint's own tensor names, in the order of the file.
    pub matrices: Vec<(String, BitMask)>,
    /// The origin.
    pub provenance: Provenance,
}

/// How strictly a ticket must belong to a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BaseCheck<'a> {
    /// The weights must have this SHA-256, in hexadecimal.
    Sha256(&'a str),
    /// Names and shapes must fit; the weights may differ.
    NamesAndShapes,
}

impl Ticket {
    /// The ticket of `masks` over `model`.
    pub fn new(model: &Model, masks: &Masks, provenance: Provenance) -> Self {
        let matrices =
            masks.iter().map(|(id, mask)| (model.params.spec(id).checkpoint_name.clone(), mask.clone())).collect();
        Self { matrices, provenance }
    }

    /// The ticket file that a user's path names: the path itself, or the ticket inside a directory.
    pub fn locate(path: &Path) -> PathBuf {
        if path.is_dir() { path.join(TICKET_FILE) } else { path.to_owned() }
    }

    /// Reads a ticket from a file, or from a directory with a ticket.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read, [`Error::Damaged`] if it is no ticket.
    pub fn read(path: &Path) -> Result<Self> {
        let path = &Self::locate(path);
        let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
        Self::parse(&bytes).map_err(|reason| Error::Damaged { path: path.clone(), reason })
    }

    /// Parses the bytes of a ticket file.
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| e.to_string())?;
        let file = SafeTensors::deserialize(bytes).map_err(|e| e.to_string())?;
        let metadata = header.metadata().clone().unwrap_or_default();
        let shapes: HashMap<String, [usize; 2]> = match metadata.get("shapes") {
            Some(json) => serde_json::from_str(json).map_err(|e| format!("its shapes cannot be read: {e}"))?,
            None => HashMap::new(),
        };
        let mut matrices = Vec::new();
        for name in header.offset_keys() {
            let tensor = file.tensor(&name).map_err(|e| e.to_string())?;
            let matrix = name.strip_suffix(SUFFIX).ok_or_else(|| format!("{name} is no {SUFFIX} tensor"))?;
            let (Dtype::U8, &[rows, stride]) = (tensor.dtype(), tensor.shape()) else {
                return Err(format!("{name} is {:?} {:?} and not a matrix of U8", tensor.dtype(), tensor.shape()));
            };
            let cols = match shapes.get(matrix) {
                Some(&[r, c]) if r == rows && c.div_ceil(8) == stride => c,
                Some(shape) => return Err(format!("{name} is {rows} x {stride} bytes, which does not hold {shape:?}")),
                None => stride.checked_mul(8).ok_or_else(|| format!("{name} is too large"))?,
            };
            let mask = BitMask::from_bytes(rows, cols, tensor.data().to_vec())
                .ok_or_else(|| format!("{name} has bits set beyond its {cols} columns"))?;
            matrices.push((matrix.to_owned(), mask));
        }
        if matrices.is_empty() {
            return Err("it holds no masks".to_owned());
        }
        Ok(Self { matrices, provenance: Provenance::from_metadata(&metadata)? })
    }

    /// Writes the ticket by atomic rename.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let shapes: BTreeMap<&str, [usize; 2]> =
            self.matrices.iter().map(|(name, m)| (name.as_str(), [m.rows(), m.cols()])).collect();
        let mut metadata = self.provenance.to_metadata();
        metadata.insert("format".to_owned(), "tamt-ticket".to_owned());
        metadata.insert("shapes".to_owned(), serde_json::to_string(&shapes).expect("names and numbers are JSON"));
        let tensors: Vec<Tensor<'_>> = self
            .matrices
            .iter()
            .map(|(name, m)| Tensor::u8(format!("{name}{SUFFIX}"), &[m.rows(), m.row_bytes()], m.as_bytes()))
            .collect();
        tensor_file::write(path, &tensors, &metadata)
    }

    /// The ticket's masks over `model`. A model with a task head may lack the pooler; its mask is then left out.
    ///
    /// # Errors
    /// [`Error::OtherBase`] if the base model's digest differs, [`Error::TicketMismatch`] if a name or a shape does.
    pub fn masks(&self, model: &Model, check: BaseCheck<'_>) -> Result<Masks> {
        if let BaseCheck::Sha256(model_sha256) = check
            && self.provenance.base_sha256 != model_sha256
        {
            return Err(Error::OtherBase {
                base_model: self.provenance.base_model.clone(),
                ticket_sha256: self.provenance.base_sha256.clone(),
                model_sha256: model_sha256.to_owned(),
            });
        }
        let prunable: HashMap<&str, _> =
            model.prunable().into_iter().map(|id| (model.params.spec(id).checkpoint_name.as_str(), id)).collect();
        let mut masks = Masks::default();
        for (name, mask) in &self.matrices {
            // Some tasks have no use for the pooler, and their models lack it.
            if model.task_head.is_some() && model.pooler.is_none() && name.ends_with("pooler.dense.weight") {
                continue;
            }
            let id = *prunable.get(name.as_str()).ok_or_else(|| Error::TicketMismatch {
                name: name.clone(),
                reason: "the model has no such matrix to prune".to_owned(),
            })?;
            let [rows, cols] = model.params.matrix_shape(id);
            let fitting = (mask.rows() == rows && mask.row_bytes() == cols.div_ceil(8))
                .then(|| BitMask::from_bytes(rows, cols, mask.as_bytes().to_vec()))
                .flatten();
            let fitting = fitting.ok_or_else(|| Error::TicketMismatch {
                name: name.clone(),
                reason: format!(
                    "it is {} x {} in the ticket and {rows} x {cols} in the model",
                    mask.rows(),
                    mask.cols()
                ),
            })?;
            masks.set(id, fitting);
        }
        Ok(masks)
    }
}

impl Provenance {
    fn to_metadata(&self) -> BTreeMap<String, String> {
        let serde_json::Value::Object(fields) = serde_json::to_value(self).expect("plain fields are JSON") else {
            unreachable!("a struct is an object")
        };
        let text = |value: serde_json::Value| match value {
            serde_json::Value::Null => None,
            serde_json::Value::String(s) => Some(s),
            other => Some(other.to_string()),
        };
        fields.into_iter().filter_map(|(key, value)| Some((key, text(value)?))).collect()
    }

    fn from_metadata(metadata: &HashMap<String, String>) -> Result<Self, String> {
        fn number<T: std::str::FromStr + Default>(m: &HashMap<String, String>, key: &str) -> Result<T, String> {
            let Some(text) = m.get(key) else { return Ok(T::default()) };
            text.parse().map_err(|_| format!("its {key} is {text:?}"))
        }
        let text = |key: &str| metadata.get(key).cloned();
        let scope = match metadata.get("scope").map(String::as_str) {
            None | Some("local") => Scope::Local,
            Some("global") => Scope::Global,
            Some(other) => return Err(format!("its scope is {other:?}")),
        };
        Ok(Self {
            base_model: text("base_model").unwrap_or_default(),
            base_sha256: text("base_sha256").ok_or("it does not name its base model (no base_sha256)")?,
            method: text("method").unwrap_or_default(),
            objective: text("objective"),
            sparsity: number(metadata, "sparsity")?,
            scope,
            seed: number(metadata, "seed")?,
            steps: number(metadata, "steps")?,
            corpus_sha256: text("corpus_sha256"),
            tool_version: text("tool_version").unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::magnitude::magnitude;
    use crate::prune::{Sparsity, pruned_matrices};
    use crate::testing::tiny_model;

    fn ticket() -> (Model, Ticket) {
        let model = tiny_model();
        let ids = pruned_matrices(&model, None).unwrap();
        let masks = magnitude(&model, &ids, Sparsity::new(0.7).unwrap(), Scope::Local);
        let provenance = Provenance {
            base_model: "org/model \"quoted\"".to_owned(),
            base_sha256: "ab".repeat(32),
            method: "magnitude".to_owned(),
            sparsity: 0.7,
            seed: u64::MAX,
            steps: 12,
            corpus_sha256: Some("cd".repeat(32)),
            ..Provenance::default()
        };
        let ticket = Ticket::new(&model, &masks, provenance);
        (model, ticket)
    }

    fn bytes(ticket: &Ticket) -> Vec<u8> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(TICKET_FILE);
        ticket.write(&path).unwrap();
        std::fs::read(path).unwrap()
    }

    #[test]
    fn a_written_ticket_is_read_back_whole_and_equal_tickets_are_equal_files() {
        let (model, ticket) = ticket();
        let directory = tempfile::tempdir().unwrap();
        ticket.write(&directory.path().join(TICKET_FILE)).unwrap();
        let read = Ticket::read(directory.path()).unwrap();
        assert_eq!(read, ticket);
        assert_eq!(bytes(&read), bytes(&ticket));
        let masks = read.masks(&model, BaseCheck::Sha256(&"ab".repeat(32))).unwrap();
        assert_eq!(Ticket::new(&model, &masks, read.provenance.clone()), ticket);
    }

    #[test]
    fn a_ticket_of_another_base_is_refused_with_both_digests() {
        let (model, ticket) = ticket();
        let error = ticket.masks(&model, BaseCheck::Sha256(&"ef".repeat(32))).unwrap_err().to_string();
        assert!(error.contains(&"ab".repeat(32)) && error.contains(&"ef".repeat(32)), "{error}");
        assert!(ticket.masks(&model, BaseCheck::NamesAndShapes).is_ok());
    }

    #[test]
    fn other_names_and_shapes_are_refused_whatever_the_digest() {
        let (model, mut ticket) = ticket();
        ticket.matrices[0].1 = BitMask::ones(3, 5);
        let error = ticket.masks(&model, BaseCheck::NamesAndShapes).unwrap_err().to_string();
        assert!(error.contains("word_embeddings") && error.contains("3 x 5"), "{error}");
        ticket.matrices[0].0 = "nothing.of.the.kind".to_owned();
        let error = ticket.masks(&model, BaseCheck::NamesAndShapes).unwrap_err().to_string();
        assert!(error.contains("nothing.of.the.kind"), "{error}");
    }

    #[test]
    fn a_ticket_without_shapes_is_read_by_those_of_its_model() {
        let (model, ticket) = ticket();
        let tensors: Vec<Tensor<'_>> = ticket
            .matrices
            .iter()
            .map(|(n, m)| Tensor::u8(format!("{n}.bitmask"), &[m.rows(), m.row_bytes()], m.as_bytes()))
            .collect();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(TICKET_FILE);
        tensor_file::write(&path, &tensors, &ticket.provenance.to_metadata()).unwrap();
        let masks = Ticket::read(&path).unwrap().masks(&model, BaseCheck::NamesAndShapes).unwrap();
        assert_eq!(Ticket::new(&model, &masks, ticket.provenance.clone()), ticket);
    }

    proptest! {
        #[test]
        fn damaged_tickets_are_errors_and_never_panics(
            cut in 0.0..1.0_f64, flips in prop::collection::vec((0.0..1.0_f64, 0..8_u32), 0..6)
        ) {
            let (model, ticket) = ticket();
            let mut file = bytes(&ticket);
            for (at, bit) in flips {
                let at = (at * file.len() as f64) as usize;
                file[at] ^= 1 << bit;
            }
            file.truncate((cut * 1.2 * file.len() as f64) as usize);
            if let Ok(ticket) = Ticket::parse(&file) {
                let _ = ticket.masks(&model, BaseCheck::NamesAndShapes);
            }
        }

        #[test]
        fn random_bytes_are_no_ticket(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Ticket::parse(&bytes).is_err());
        }
    }
}
