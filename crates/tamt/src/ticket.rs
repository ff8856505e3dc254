//! Tickets: one bit for each weight of a base model, in a safetensors file that names the model it belongs to.
//!
//! A ticket names matrices as [`Spec::name`](tamt_model::Spec) does, without the prefix `bert.` or `roberta.` of models
//! with a head, and carries a digest of the matrices that it masks. A ticket of an encoder therefore fits the same encoder
//! with a head. Tickets of the first format have the names of their checkpoint, and the digest of its file only.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use tamt_files::kind::{PYTORCH, file_kind};
use tamt_kernels::masks::BitMask;
use tamt_model::{Family, Masks, Model, ParamId};

use crate::error::{Error, Result};
use crate::eval_conditions::EvalConditions;
use crate::matrix_digest::{MatrixDigests, POOLER};
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
    /// Digest of the masked matrices but the pooler; `None` in tickets of the first format.
    pub pruned_sha256: Option<String>,
    /// Digest of the pooler's matrix, where the search masked it.
    pub pooler_sha256: Option<String>,
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
    /// How the search measured the ticket's losses; `None` where it had no text to measure them on.
    pub evaluation: Option<EvalRecord>,
    /// The file that an imported ticket comes from.
    pub imported: Option<ImportRecord>,
    /// Version of `tamt` that wrote the file.
    pub tool_version: String,
}

/// The file of masks, or the checkpoint with zeros, that a ticket was made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImportRecord {
    /// Name of the file or directory, without its path.
    pub file: String,
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: String,
    /// What the file is, in words.
    pub form: String,
}

/// The text on which a ticket's losses were measured, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvalRecord {
    /// Block size and masked positions.
    #[serde(flatten)]
    pub conditions: EvalConditions,
    /// Tokens of the text, special tokens included.
    pub tokens: u64,
    /// SHA-256 of the text's files in order.
    pub corpus_sha256: String,
}

/// A subnetwork of a base model.
#[derive(Clone, Debug, PartialEq)]
pub struct Ticket {
    /// Masks by canonical names, in the order of the file.
    pub matrices: Vec<(String, BitMask)>,
    /// The origin.
    pub provenance: Provenance,
}

/// How strictly a ticket must belong to a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BaseCheck<'a> {
    /// The weights file must have this SHA-256, in hexadecimal, or the masked matrices must have the ticket's digest.
    Sha256(&'a str),
    /// Names and shapes must fit; the weights may differ.
    NamesAndShapes,
}

impl Ticket {
    /// The ticket of `masks` over `model`.
    pub fn new(model: &Model, masks: &Masks, provenance: Provenance) -> Self {
        let matrices = masks.iter().map(|(id, mask)| (model.params.spec(id).name.clone(), mask.clone())).collect();
        Self { matrices, provenance }
    }

    /// The ticket file that a user's path names: the path itself, or the ticket inside a directory.
    pub fn locate(path: &Path) -> PathBuf {
        if path.is_dir() { path.join(TICKET_FILE) } else { path.to_owned() }
    }

    /// Reads a ticket from a file, or from a directory with a ticket.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read, [`Error::NotATicket`] if it is of another kind, [`Error::Damaged`] if it
    /// is a broken ticket.
    pub fn read(path: &Path) -> Result<Self> {
        let file = Self::locate(path);
        if path.is_dir() && !file.exists() {
            let found = format!("a directory without {TICKET_FILE}");
            return Err(Error::NotATicket { path: path.to_owned(), found });
        }
        let bytes = std::fs::read(&file).map_err(Error::io("read", &file))?;
        match other_format(&bytes) {
            Some(found) => Err(Error::NotATicket { path: file, found }),
            None => Self::parse(&bytes).map_err(|reason| Error::Damaged { path: file, reason }),
        }
    }

    /// Parses the bytes of a ticket file.
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        if bytes.is_empty() {
            return Err("it is empty".to_owned());
        }
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| e.to_string())?;
        let file = SafeTensors::deserialize(bytes).map_err(|e| e.to_string())?;
        let metadata = header.metadata().clone().unwrap_or_default();
        let shapes: HashMap<String, [usize; 2]> = match metadata.get("shapes") {
            Some(json) => serde_json::from_str(json).map_err(|e| format!("its shapes cannot be read: {e}"))?,
            None => HashMap::new(),
        };
        let mut matrices: Vec<(String, BitMask)> = Vec::new();
        let mut names: HashSet<String> = HashSet::new();
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
            let matrix = canonical(matrix);
            if !names.insert(matrix.to_owned()) {
                return Err(format!("it holds the mask of {matrix} twice"));
            }
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

    /// The ticket's masks over `model`. The mask of a pooler that the model lacks is left out.
    ///
    /// # Errors
    /// [`Error::OtherBase`] if the base model has other weights, [`Error::TicketMismatch`] if a name or a shape differs.
    pub fn masks(&self, model: &Model, check: BaseCheck<'_>) -> Result<Masks> {
        let masks = self.fitting(model);
        match check {
            BaseCheck::Sha256(model_sha256) if self.provenance.base_sha256 != model_sha256 => match masks {
                Ok(masks) if self.binds(model, &masks) => Ok(masks),
                _ => Err(Error::OtherBase {
                    base_model: self.provenance.base_model.clone(),
                    ticket_sha256: self.provenance.base_sha256.clone(),
                    model_sha256: model_sha256.to_owned(),
                }),
            },
            _ => masks,
        }
    }

    /// The masks, where names and shapes fit.
    fn fitting(&self, model: &Model) -> Result<Masks> {
        let prunable: HashMap<&str, _> =
            model.prunable().into_iter().map(|id| (model.params.spec(id).name.as_str(), id)).collect();
        let mut masks = Masks::default();
        for (name, mask) in &self.matrices {
            let mismatch = |reason: String| Error::TicketMismatch { name: name.clone(), reason };
            // Neither a pre-training objective nor the tasks of every model use the pooler.
            if name == POOLER && model.pooler.is_none() {
                continue;
            }
            let id = *prunable
                .get(name.as_str())
                .ok_or_else(|| mismatch("the model has no such matrix to prune".to_owned()))?;
            let [rows, cols] = model.params.matrix_shape(id);
            // A ticket without shapes knows the bytes of a row alone.
            let is_as_wide = mask.cols() == cols || mask.cols() == cols.next_multiple_of(8);
            let fitting = (mask.rows() == rows && is_as_wide)
                .then(|| BitMask::from_bytes(rows, cols, mask.as_bytes().to_vec()))
                .flatten();
            let fitting = fitting.ok_or_else(|| {
                let (r, c) = (mask.rows(), mask.cols());
                mismatch(format!("it is {r} x {c} in the ticket and {rows} x {cols} in the model"))
            })?;
            masks.set(id, fitting);
        }
        Ok(masks)
    }

    /// Leaves the pooler dense. Returns whether the ticket masked it.
    pub fn unmask_pooler(&mut self) -> bool {
        let masked = self.matrices.len();
        self.matrices.retain(|(name, _)| name != POOLER);
        self.matrices.len() < masked
    }

    /// Whether the masked matrices of `model` have the ticket's digests. The pooler of a model with a task head may be
    /// new, so it does not count.
    fn binds(&self, model: &Model, masks: &Masks) -> bool {
        let Provenance { pruned_sha256: Some(pruned), pooler_sha256, .. } = &self.provenance else { return false };
        let ids: Vec<ParamId> = masks.iter().map(|(id, _)| id).collect();
        let digests = MatrixDigests::of(model, &ids);
        let pooler_fits = model.task_head.is_some() || digests.pooler.is_none() || digests.pooler == *pooler_sha256;
        digests.pruned == *pruned && pooler_fits
    }
}

/// The name of a matrix without the prefixes that it has in models with a head. A canonical name is its own canonical name.
fn canonical(mut name: &str) -> &str {
    let prefixes = [Family::Bert, Family::Roberta].map(Family::prefix);
    while let Some(rest) = prefixes.iter().find_map(|prefix| name.strip_prefix(prefix)?.strip_prefix('.')) {
        name = rest;
    }
    name
}

/// What a file is that is no ticket, by its first bytes and the names of its tensors; `None` for a ticket, damaged or not.
fn other_format(bytes: &[u8]) -> Option<String> {
    if let Some(found) = file_kind(bytes) {
        let advice = if found == PYTORCH { " (`tamt import` makes a ticket of masks of PyTorch)" } else { "" };
        return Some(format!("{found}{advice}"));
    }
    let (_, header) = SafeTensors::read_metadata(bytes).ok()?;
    let names = header.offset_keys();
    let is_packed = |metadata: &HashMap<String, String>| metadata.get("format").is_some_and(|f| f == "tamt-packed");
    if header.metadata().as_ref().is_some_and(is_packed) {
        return Some("a packed model (`tamt import` makes a ticket of its bits)".to_owned());
    }
    let first = names.first().filter(|_| !names.iter().any(|name| name.ends_with(SUFFIX)))?;
    Some(format!("a safetensors file with tensors such as {first} and no {SUFFIX} tensor"))
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
        fn json<T: serde::de::DeserializeOwned>(m: &HashMap<String, String>, key: &str) -> Result<Option<T>, String> {
            let parsed = m.get(key).map(|json| serde_json::from_str(json)).transpose();
            parsed.map_err(|e| format!("its {key} cannot be read: {e}"))
        }
        let sparsity: f64 = number(metadata, "sparsity")?;
        if !(0.0..=1.0).contains(&sparsity) {
            return Err(format!("its sparsity is {sparsity}, outside [0, 1]"));
        }
        let scope = match metadata.get("scope").map(String::as_str) {
            None | Some("local") => Scope::Local,
            Some("global") => Scope::Global,
            Some(other) => return Err(format!("its scope is {other:?}")),
        };
        Ok(Self {
            base_model: text("base_model").unwrap_or_default(),
            base_sha256: text("base_sha256").ok_or("it does not name its base model (no base_sha256)")?,
            pruned_sha256: text("pruned_sha256"),
            pooler_sha256: text("pooler_sha256"),
            method: text("method").unwrap_or_default(),
            objective: text("objective"),
            sparsity,
            scope,
            seed: number(metadata, "seed")?,
            steps: number(metadata, "steps")?,
            corpus_sha256: text("corpus_sha256"),
            evaluation: json(metadata, "evaluation")?,
            imported: json(metadata, "imported")?,
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
            evaluation: Some(EvalRecord {
                conditions: EvalConditions { block_size: 32, seed: u64::MAX, mlm_probability: 0.15 },
                tokens: 1234,
                corpus_sha256: "ef".repeat(32),
            }),
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
    fn a_ticket_belongs_to_every_file_that_holds_the_matrices_it_masks() {
        let (mut model, mut ticket) = ticket();
        let digests = MatrixDigests::of(&model, &model.prunable());
        ticket.provenance.pruned_sha256 = Some(digests.pruned);
        ticket.provenance.pooler_sha256 = digests.pooler;
        let file = "ef".repeat(32);
        let fits = |ticket: &Ticket, model: &Model| ticket.masks(model, BaseCheck::Sha256(&file)).is_ok();
        assert!(fits(&ticket, &model));
        // A ticket does not mask biases.
        let bias = model.layers[0].query.bias;
        model.params.get_mut(bias)[0] += 1.0;
        assert!(fits(&ticket, &model));
        for changed in [model.layers[1].output.weight, model.embeddings.word, model.pooler.unwrap().weight] {
            let before = model.params.get(changed)[0];
            model.params.get_mut(changed)[0] = before + 1.0;
            assert!(!fits(&ticket, &model));
            model.params.get_mut(changed)[0] = before;
        }
        assert!(fits(&ticket, &model));
    }

    #[test]
    fn names_with_the_prefix_of_a_model_with_a_head_are_read_as_those_of_the_encoder() {
        let (_, ticket) = ticket();
        for prefix in ["bert.", "roberta."] {
            let mut old = ticket.clone();
            old.matrices.iter_mut().for_each(|(name, _)| name.insert_str(0, prefix));
            assert_eq!(Ticket::parse(&bytes(&old)).unwrap(), ticket);
        }
    }

    #[test]
    fn a_name_with_two_prefixes_stays_the_same_when_the_ticket_is_written_again() {
        let (_, mut ticket) = ticket();
        ticket.matrices[0].0.insert_str(0, "bert.roberta.bert.");
        let read = Ticket::parse(&bytes(&ticket)).unwrap();
        assert_eq!(Ticket::parse(&bytes(&read)).unwrap(), read);
    }

    #[test]
    fn a_sparsity_that_is_no_share_is_refused() {
        let (_, ticket) = ticket();
        for sparsity in ["NaN", "inf", "-0.5", "1.5"] {
            let mut metadata: HashMap<_, _> = ticket.provenance.to_metadata().into_iter().collect();
            assert_eq!(Provenance::from_metadata(&metadata).unwrap(), ticket.provenance);
            metadata.insert("sparsity".to_owned(), sparsity.to_owned());
            let reason = Provenance::from_metadata(&metadata).unwrap_err();
            assert!(reason.contains("sparsity"), "{reason}");
        }
    }

    #[test]
    fn other_names_and_shapes_are_refused_whatever_the_digest() {
        let (model, mut ticket) = ticket();
        ticket.matrices[0].1 = BitMask::ones(3, 5);
        let error = ticket.masks(&model, BaseCheck::NamesAndShapes).unwrap_err().to_string();
        assert!(error.contains("word_embeddings") && error.contains("3 x 5"), "{error}");
        // As many bytes in a row, and fewer columns.
        let [rows, cols] = model.params.matrix_shape(model.prunable()[0]);
        ticket.matrices[0].1 = BitMask::ones(rows, cols - 1);
        let error = ticket.masks(&model, BaseCheck::NamesAndShapes).unwrap_err().to_string();
        assert!(error.contains(&format!("{rows} x {}", cols - 1)), "{error}");
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
            let _ = other_format(&file);
            if let Ok(ticket) = Ticket::parse(&file) {
                let _ = ticket.masks(&model, BaseCheck::NamesAndShapes);
            }
        }

        #[test]
        fn random_bytes_are_no_ticket(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = other_format(&bytes);
            prop_assert!(Ticket::parse(&bytes).is_err());
        }
    }
}
