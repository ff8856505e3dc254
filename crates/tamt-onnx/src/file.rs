//! Writing of a model file, tensor after tensor.

use std::io::{self, Write};
use std::path::Path;

use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use tamt_model::Result;
use tamt_model::write::atomic_write;

use crate::proto::{EXTERNAL, GraphProto, ModelProto, OperatorSetId, StringEntry, TensorProto};
use crate::weights::Initializer;

/// The version of ONNX's operators. `LayerNormalization` is the newest of those used.
pub(crate) const OPSET: i64 = 17;
/// The version of the file format that belongs to the operators.
const IR_VERSION: i64 = 8;
/// Field of the graph in a model, and of an initializer in a graph.
const GRAPH: u32 = 7;
const INITIALIZER: u32 = 5;
/// Largest size of a protobuf message, in bytes.
pub(crate) const LARGEST_MESSAGE: usize = i32::MAX as usize;
/// External data starts at multiples of a page, so that it can be mapped into memory.
const PAGE: usize = 4096;
/// Tensors of fewer bytes stay in the model file.
const SMALL: usize = 1024;

/// Writes a model by atomic rename. Where the file would be larger than `largest` bytes, the tensors are in a second file,
/// whose name has the ending `.data`.
///
/// # Errors
/// [`Error::Write`](tamt_model::Error::Write).
pub(crate) fn write_model(
    path: &Path,
    graph: &GraphProto,
    initializers: &[Initializer<'_>],
    largest: usize,
) -> Result<()> {
    let data: usize = initializers.iter().map(Initializer::byte_len).sum();
    // A tensor has at most a hundred bytes beside its data and its name.
    let names: usize = initializers.iter().map(|tensor| tensor.name.len() + 100).sum();
    if graph.encoded_len() + data + names <= largest {
        return write_file(path, graph, initializers, None);
    }
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".data");
    let external = External { name: name.to_string_lossy().into_owned(), offsets: offsets(initializers) };
    atomic_write(&path.with_file_name(&name), |out| external.write(initializers, out))?;
    write_file(path, graph, initializers, Some(&external))
}

/// The second file.
struct External {
    name: String,
    /// The byte at which each tensor starts; `None` for one in the model file.
    offsets: Vec<Option<usize>>,
}

fn offsets(initializers: &[Initializer<'_>]) -> Vec<Option<usize>> {
    let mut end = 0usize;
    let next = |tensor: &Initializer<'_>| {
        let start = (tensor.byte_len() >= SMALL).then(|| end.next_multiple_of(PAGE))?;
        end = start + tensor.byte_len();
        Some(start)
    };
    initializers.iter().map(next).collect()
}

impl External {
    fn write(&self, initializers: &[Initializer<'_>], out: &mut dyn Write) -> io::Result<()> {
        let mut at = 0;
        for (tensor, start) in initializers.iter().zip(&self.offsets) {
            let Some(start) = *start else { continue };
            out.write_all(&vec![0; start - at])?;
            out.write_all(&tensor.bytes())?;
            at = start + tensor.byte_len();
        }
        Ok(())
    }
}

/// Writes the message of a model without a copy of all tensors: a message is the concatenation of its fields, so the graph
/// is its encoding without initializers and then each initializer.
fn write_file(
    path: &Path,
    graph: &GraphProto,
    initializers: &[Initializer<'_>],
    external: Option<&External>,
) -> Result<()> {
    let model = ModelProto {
        ir_version: IR_VERSION,
        producer_name: "tamt".to_owned(),
        producer_version: env!("CARGO_PKG_VERSION").to_owned(),
        graph: None,
        opset_import: vec![OperatorSetId { domain: String::new(), version: OPSET }],
    };
    let offset = |index: usize| external.and_then(|external| Some((external.name.as_str(), external.offsets[index]?)));
    let heads: Vec<TensorProto> =
        initializers.iter().enumerate().map(|(i, tensor)| describe(tensor, offset(i))).collect();
    let field = |len: usize, field: u32| key_len(field) + encoded_len_varint(len as u64) + len;
    let lengths: Vec<usize> = heads
        .iter()
        .zip(initializers)
        .map(|(head, tensor)| {
            let data = head.data_location.is_none().then(|| field(tensor.byte_len(), RAW_DATA));
            head.encoded_len() + data.unwrap_or(0)
        })
        .collect();
    let graph_len = graph.encoded_len() + lengths.iter().map(|&len| field(len, INITIALIZER)).sum::<usize>();
    atomic_write(path, |out| {
        let mut buffer = model.encode_to_vec();
        begin(&mut buffer, GRAPH, graph_len);
        buffer.extend(graph.encode_to_vec());
        out.write_all(&buffer)?;
        for ((head, tensor), len) in heads.iter().zip(initializers).zip(lengths) {
            buffer.clear();
            begin(&mut buffer, INITIALIZER, len);
            buffer.extend(head.encode_to_vec());
            if head.data_location.is_none() {
                begin(&mut buffer, RAW_DATA, tensor.byte_len());
                buffer.extend(tensor.bytes());
            }
            out.write_all(&buffer)?;
        }
        Ok(())
    })
}

/// Field of the data in a tensor.
const RAW_DATA: u32 = 9;

/// Key and length of a field of bytes.
fn begin(buffer: &mut Vec<u8>, field: u32, len: usize) {
    encode_key(field, WireType::LengthDelimited, buffer);
    encode_varint(len as u64, buffer);
}

/// A tensor without its data.
fn describe(tensor: &Initializer<'_>, external: Option<(&str, usize)>) -> TensorProto {
    let entry = |key: &str, value: String| StringEntry { key: key.to_owned(), value };
    let external_data = external.map_or_else(Vec::new, |(file, offset)| {
        vec![
            entry("location", file.to_owned()),
            entry("offset", offset.to_string()),
            entry("length", tensor.byte_len().to_string()),
        ]
    });
    TensorProto {
        dims: tensor.dims.iter().map(|&dim| dim as i64).collect(),
        data_type: tensor.data_type() as i32,
        name: tensor.name.clone(),
        raw_data: None,
        external_data,
        data_location: external.map(|_| EXTERNAL),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::Values;

    fn tensors() -> Vec<Initializer<'static>> {
        let floats: Vec<f32> = (0..400).map(|i| i as f32).collect();
        let tensor =
            |name: &str, dims: &[usize], values| Initializer { name: name.to_owned(), dims: dims.to_vec(), values };
        vec![
            tensor("a", &[20, 20], Values::Floats(floats.clone().into())),
            tensor("scalar", &[], Values::Integers(vec![-7])),
            tensor("b", &[400], Values::Floats(floats.into())),
        ]
    }

    #[test]
    fn a_file_is_one_message_with_all_tensors() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.onnx");
        let graph = GraphProto { name: "g".to_owned(), ..GraphProto::default() };
        write_model(&path, &graph, &tensors(), LARGEST_MESSAGE).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let model = ModelProto::decode(&bytes[..]).unwrap();
        let graph = model.graph.clone().unwrap();
        assert_eq!((graph.name.as_str(), graph.initializer.len()), ("g", 3));
        for (read, tensor) in graph.initializer.iter().zip(tensors()) {
            assert_eq!(read.name, tensor.name);
            assert_eq!(read.raw_data.as_deref(), Some(&tensor.bytes()[..]));
            assert_eq!(read.dims.iter().map(|&dim| dim as usize).collect::<Vec<_>>(), tensor.dims);
        }
        // The encoding of the whole message in another order of fields has as many bytes.
        assert_eq!(model.encoded_len(), bytes.len());
    }

    #[test]
    fn tensors_of_a_model_that_is_too_large_are_in_a_second_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.onnx");
        write_model(&path, &GraphProto::default(), &tensors(), 2000).unwrap();
        let graph = ModelProto::decode(&std::fs::read(&path).unwrap()[..]).unwrap().graph.unwrap();
        let data = std::fs::read(dir.path().join("model.onnx.data")).unwrap();
        for (read, tensor) in graph.initializer.iter().zip(tensors()) {
            if tensor.byte_len() < SMALL {
                assert_eq!((read.data_location, read.raw_data.as_deref()), (None, Some(&tensor.bytes()[..])));
                continue;
            }
            let value = |key: &str| read.external_data.iter().find(|entry| entry.key == key).unwrap().value.clone();
            let (offset, length) =
                (value("offset").parse::<usize>().unwrap(), value("length").parse::<usize>().unwrap());
            assert_eq!((value("location").as_str(), read.data_location), ("model.onnx.data", Some(EXTERNAL)));
            assert_eq!(data[offset..offset + length], tensor.bytes());
        }
    }
}
