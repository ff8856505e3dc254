//! Digests of what a ticket masks. Unlike the digest of a weights file, such a digest does not change when a head is
//! added, a prefix is stripped from the names, or the file is split into shards.

use rayon::prelude::*;
use tamt_files::digest::sha256_hex;
use tamt_model::{Model, ParamId};

/// Canonical name of the pooler's matrix. Some models of the same encoder lack the pooler, so it has its own digest.
pub(crate) const POOLER: &str = "pooler.dense.weight";

/// The digests of the matrices that a ticket masks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MatrixDigests {
    /// Digest of all matrices but the pooler.
    pub(crate) pruned: String,
    /// Digest of the pooler, where it is among the matrices.
    pub(crate) pooler: Option<String>,
}

impl MatrixDigests {
    /// The digests of the matrices `ids` of a model.
    ///
    /// The digest of a matrix is `SHA-256(rows ‖ cols ‖ values)`: 64-bit integers and row-major f32, little-endian. The
    /// digest of several is that of the lines `<digest of the matrix>  <canonical name>\n`, sorted by name.
    pub(crate) fn of(model: &Model, ids: &[ParamId]) -> Self {
        let mut digests: Vec<(&str, String)> = ids.par_iter().map(|&id| (name(model, id), digest(model, id))).collect();
        digests.sort_unstable();
        let lines: Vec<String> =
            digests.iter().filter(|(name, _)| *name != POOLER).map(|(name, hex)| format!("{hex}  {name}\n")).collect();
        let pooler = digests.into_iter().find(|(name, _)| *name == POOLER).map(|(_, hex)| hex);
        Self { pruned: sha256_hex(lines.iter().map(String::as_bytes)), pooler }
    }
}

fn name(model: &Model, id: ParamId) -> &str {
    &model.params.spec(id).name
}

fn digest(model: &Model, id: ParamId) -> String {
    let [rows, cols] = model.params.matrix_shape(id).map(|n| (n as u64).to_le_bytes());
    let values = model.params.get(id);
    sha256_hex([&rows[..], &cols[..], bytemuck::cast_slice(&values)])
}
