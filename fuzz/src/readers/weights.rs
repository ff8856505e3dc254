//! Weights files.

use std::collections::BTreeMap;

use safetensors::{Dtype, SafeTensors};
use tamt_model::Checkpoint;
use tamt_model::write::{TensorData, write_safetensors};

use crate::readers::files;

/// The tensors of a checkpoint: shape and values.
type Tensors = Vec<(Vec<usize>, Vec<f32>)>;

/// A file of `PyTorch`: a pickle, or a zip archive with one.
pub(crate) fn pytorch(input: &[u8]) -> bool {
    let dir = files::one("pytorch_model.bin", input);
    Checkpoint::open(dir.path()).is_ok_and(|checkpoint| load(&checkpoint, input.len()))
}

/// A safetensors file. Its F32 tensors are those that the `safetensors` crate reads.
pub(crate) fn safetensors(input: &[u8]) -> bool {
    let dir = files::one("model.safetensors", input);
    let Ok(checkpoint) = Checkpoint::open(dir.path()) else { return false };
    if checkpoint.notes().is_empty() {
        let file = SafeTensors::deserialize(input).expect("the file was read");
        for name in checkpoint.names() {
            let Some(tensor) = checkpoint.original_name(name).and_then(|name| file.tensor(name).ok()) else { continue };
            let shape = checkpoint.shape(name).expect("the tensor exists");
            assert_eq!(shape, tensor.shape(), "{name}");
            if let (Dtype::F32, Some(values)) = (tensor.dtype(), values(&checkpoint, name)) {
                let bits: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                assert_eq!(bits, tensor.data(), "{name}");
            }
        }
    }
    load(&checkpoint, input.len())
}

/// Loads all tensors, writes them and reads them again. Whether all were loaded.
fn load(checkpoint: &Checkpoint, bytes: usize) -> bool {
    let mut tensors = Tensors::new();
    for name in checkpoint.names() {
        let Some(values) = values(checkpoint, name) else { continue };
        // A mask of `torch.nn.utils.prune` is a second tensor of the same shape. An element has two bytes or more.
        assert!(2 * values.len() <= bytes, "{name} has {} values in {bytes} bytes", values.len());
        assert!(values.iter().all(|value| value.is_finite()), "{name}");
        tensors.push((checkpoint.shape(name).expect("the tensor exists").to_vec(), values));
    }
    assert_eq!(checkpoint.sha256().len(), 64);
    let is_whole = tensors.len() == checkpoint.names().len();
    read_again(&tensors);
    is_whole
}

/// The values of a tensor, if it can be loaded.
fn values(checkpoint: &Checkpoint, name: &str) -> Option<Vec<f32>> {
    let shape = checkpoint.shape(name).expect("the tensor exists");
    // The check bounds the number of values by the size of the file.
    checkpoint.check(name, shape).ok()?;
    let mut values = vec![f32::NAN; shape.iter().product()];
    checkpoint.load_f32(name, shape, &mut values).ok()?;
    Some(values)
}

/// Writes tensors under other names and reads them again.
fn read_again(tensors: &Tensors) {
    let dir = files::empty();
    let names: Vec<String> = (0..tensors.len()).map(|i| format!("tensor{i:06}")).collect();
    let data = names.iter().zip(tensors);
    let data: Vec<_> = data.map(|(name, (shape, v))| (name.as_str(), shape.as_slice(), TensorData::F32(v))).collect();
    write_safetensors(&dir.path().join("model.safetensors"), &BTreeMap::new(), &data).expect("the file can be written");
    let checkpoint = Checkpoint::open(dir.path()).expect("a written file is read");
    assert_eq!(checkpoint.names().len(), tensors.len());
    for (name, (shape, expected)) in names.iter().zip(tensors) {
        assert_eq!(checkpoint.shape(name), Some(shape.as_slice()));
        let found = values(&checkpoint, name).expect("a written tensor is read");
        assert!(found.iter().zip(expected).all(|(a, b)| a.to_bits() == b.to_bits()), "{name}");
    }
}
