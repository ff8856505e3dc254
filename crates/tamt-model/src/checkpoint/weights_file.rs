//! One weights file, mapped into memory, and the index of its tensors.

use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use tamt_files::kind::{file_kind, is_lfs_pointer};

use crate::checkpoint::packed::Header;
use crate::checkpoint::tensor::{Problem, Tensor};
use crate::checkpoint::{pytorch, safetensors};
use crate::error::{Result, read_error};

/// A mapped file.
#[derive(Debug)]
pub(super) struct WeightsFile {
    pub(super) path: PathBuf,
    pub(super) bytes: Mmap,
    /// The metadata of a packed file.
    pub(super) packed: Option<Header>,
}

impl WeightsFile {
    /// Maps a file and reads the index of its tensors: safetensors by its ending, `PyTorch`'s format otherwise.
    pub(super) fn open(path: PathBuf) -> Result<(Self, Vec<Tensor>)> {
        let bytes = map(&path)?;
        let is_safetensors = path.extension().is_some_and(|e| e == "safetensors");
        let parsed = if bytes.is_empty() {
            Err(Problem::Malformed("it is empty".to_owned()))
        } else if let Some(kind) = file_kind(&bytes).filter(|_| is_safetensors || is_lfs_pointer(&bytes)) {
            Err(Problem::Unsupported(format!("it is {kind}")))
        } else if is_safetensors {
            safetensors::tensors(&bytes)
        } else {
            pytorch::tensors(&bytes).map(|tensors| (tensors, None))
        };
        let (tensors, packed) = parsed.map_err(|problem| problem.in_file(&path))?;
        Ok((Self { path, bytes, packed }, tensors))
    }
}

/// Maps a file into memory.
pub(super) fn map(path: &Path) -> Result<Mmap> {
    let failed = read_error(path);
    let file = File::open(path).map_err(&failed)?;
    if file.metadata().map_err(&failed)?.is_dir() {
        return Err(failed(std::io::ErrorKind::IsADirectory.into()));
    }
    // SAFETY: the mapped bytes do not change while the mapping exists. `write::atomic_write` replaces files by rename and
    // never modifies them; the documentation of `Checkpoint` requires the same of all other writers. This process only
    // reads the mapping.
    #[allow(unsafe_code)]
    unsafe { Mmap::map(&file) }.map_err(failed)
}
