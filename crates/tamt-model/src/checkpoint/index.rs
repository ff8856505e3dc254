//! The index of a checkpoint: tensors by canonical name, and names that stand for others.

use std::collections::{HashMap, HashSet};

use crate::checkpoint::names::{FAMILIES, TIED, WORD_EMBEDDINGS, canonical_name, wrapper_prefix};
use crate::checkpoint::weights_file::WeightsFile;
use crate::checkpoint::{Checkpoint, Entry, Located};
use crate::error::{Error, Result};

impl Checkpoint {
    /// Stores the tensors by canonical name.
    pub(super) fn index(&mut self, found: Vec<Located>) -> Result<()> {
        let names: Vec<&str> = found.iter().map(|found| found.tensor.name.as_str()).collect();
        let prefix = wrapper_prefix(&names).unwrap_or_default().to_owned();
        let has: HashSet<String> = names.iter().map(|&name| name.to_owned()).collect();
        if !prefix.is_empty() {
            self.notes.push(format!("{}: the prefix `{prefix}` of all names is ignored", self.path.display()));
        }
        let is_mask = |name: &str| name.strip_suffix("_mask").is_some_and(|stem| has.contains(&format!("{stem}_orig")));
        let (masks, found): (Vec<_>, Vec<_>) = found.into_iter().partition(|found| is_mask(&found.tensor.name));
        if !masks.is_empty() {
            let (path, count) = (self.path.display(), masks.len());
            self.notes.push(format!("{path}: {count} matrices are multiplied by their masks (torch.nn.utils.prune)"));
        }
        let mut masks: HashMap<String, Located> =
            masks.into_iter().map(|mask| (mask.tensor.name.clone(), mask)).collect();
        for tensor in found {
            let stem = tensor.tensor.name.strip_suffix("_orig");
            let mask = stem.and_then(|stem| masks.remove(&format!("{stem}_mask")));
            let name = if mask.is_some() { stem.unwrap_or_default() } else { &tensor.tensor.name };
            let name = name.strip_prefix(&prefix).unwrap_or(name).to_owned();
            self.insert(Entry { name, tensor, mask })?;
        }
        self.resolve_tied_names();
        self.add_tied_decoder()
    }

    /// Adds the decoder that a packed file stores as the word embeddings.
    fn add_tied_decoder(&mut self) -> Result<()> {
        let tied = |file: &WeightsFile| Some((file.path.clone(), file.packed.as_ref()?.tied_decoder.clone()?));
        for (path, decoder) in self.files.iter().filter_map(tied).collect::<Vec<_>>() {
            let name = canonical_name(&decoder).into_owned();
            let words = self.tensors.get(WORD_EMBEDDINGS).filter(|_| TIED.contains(&(WORD_EMBEDDINGS, name.as_str())));
            let Some(Entry { tensor, mask: None, .. }) = words else {
                let problem = format!("it has no word embeddings that `{decoder}` could be tied to");
                return Err(Error::Malformed { path, problem });
            };
            let tensor = tensor.clone();
            self.insert(Entry { name: decoder, tensor, mask: None })?;
            self.tied_decoder = Some(name);
        }
        Ok(())
    }

    fn insert(&mut self, entry: Entry) -> Result<()> {
        let name = canonical_name(&entry.name).into_owned();
        let path = self.files[entry.tensor.file].path.clone();
        let second = entry.tensor.tensor.name.clone();
        match self.tensors.insert(name.clone(), entry) {
            None => Ok(()),
            Some(first) => Err(Error::DuplicateTensor { path, name, first: first.tensor.tensor.name, second }),
        }
    }

    /// Gives a tensor that is stored only under its tied name its own name.
    fn resolve_tied_names(&mut self) {
        let encoder_prefix = self
            .original_name("embeddings.position_embeddings.weight")
            .map(|name| FAMILIES.into_iter().find(|prefix| name.starts_with(prefix)).unwrap_or_default());
        for (name, tied) in TIED {
            if self.contains(name) {
                continue;
            }
            let Some(mut entry) = self.tensors.remove(tied) else { continue };
            if name == WORD_EMBEDDINGS {
                self.words_as_decoder = Some(entry.tensor.tensor.name.clone());
                entry.name = format!("{}{name}", encoder_prefix.unwrap_or_default());
            } else {
                entry.name = name.to_owned();
            }
            self.tensors.insert(name.to_owned(), entry);
        }
    }
}
