//! Masks and pruned checkpoints for `PyTorch`.

use std::fs;
use std::path::Path;

use tamt_kernels::masks::BitMask;

use crate::checkpoint::Checkpoint;
use crate::checkpoint::convert::Dtype;
use crate::checkpoint::torch_file::{Elements, TorchTensor, write_torch};
use crate::config::{Config, Family};
use crate::error::{Result, write_error};
use crate::model::{Model, default_checkpoint_name};
use crate::params::Masks;
use crate::rewrite::{Copied, config_of, copy};

/// Writes masks as the reference does: a dictionary of a boolean tensor `[rows, cols]` for each matrix, true = kept. A name
/// is that of the matrix in `transformers`, with the prefix of a model with a head and the suffix `_mask`. `masks` has
/// canonical names.
///
/// # Errors
/// [`Error::Write`](crate::Error::Write).
pub fn write_masks(path: &Path, family: Family, masks: &[(&str, &BitMask)]) -> Result<()> {
    let tensors: Vec<TorchTensor<'_>> = masks
        .iter()
        .map(|&(name, mask)| TorchTensor {
            name: format!("{}_mask", default_checkpoint_name(family, name)),
            shape: vec![mask.rows(), mask.cols()],
            dtype: Dtype::Other("BOOL"),
            elements: Elements::Mask(mask),
        })
        .collect();
    write_torch(path, &tensors)
}

/// Writes the checkpoint in the directory `source`, which `model` was read from, to the directory `target`, as
/// `pytorch_model.bin`, as `torch.nn.utils.prune` has it: in place of the weight of a masked matrix stand
/// `weight_orig`, the dense weights, and `weight_mask`, a 1 for each kept and a 0 for each dropped weight, in the type of
/// the weights. All other tensors stay as they are. Returns the configuration of the copy, which
/// [`write_config`](crate::write::write_config) writes when all other files are there.
///
/// # Errors
/// If the checkpoint is malformed, has a tensor that `PyTorch` files cannot hold, or a file cannot be written.
pub fn write_pruned(source: &Path, model: &Model, masks: &Masks, target: &Path) -> Result<Config> {
    let checkpoint = Checkpoint::open(source)?;
    let names: Vec<String> = checkpoint.names().map(str::to_owned).collect();
    let copied = names.iter().map(|name| copy(&checkpoint, name, None, None)).collect::<Result<Vec<_>>>()?;
    let mut tensors = Vec::with_capacity(copied.len());
    for (name, copied) in names.iter().zip(&copied) {
        let mask = model.params.find(name).and_then(|id| masks.get(id));
        let Some(mask) = mask else {
            tensors.push(tensor(copied, copied.name.clone(), Elements::Bytes(&copied.bytes)));
            continue;
        };
        tensors.push(tensor(copied, format!("{}_orig", copied.name), Elements::Bytes(&copied.bytes)));
        tensors.push(tensor(copied, format!("{}_mask", copied.name), Elements::Mask(mask)));
    }
    fs::create_dir_all(target).map_err(write_error(target))?;
    write_torch(&target.join("pytorch_model.bin"), &tensors)?;
    Ok(config_of(model, &copied))
}

fn tensor<'a>(copied: &Copied<'_>, name: String, elements: Elements<'a>) -> TorchTensor<'a> {
    TorchTensor { name, shape: copied.shape.clone(), dtype: copied.dtype, elements }
}
