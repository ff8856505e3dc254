//! A reader of pickled state dicts that executes nothing.
//!
//! A pickle is a program for a stack machine. In Python the program may call any function. The reader knows the opcodes
//! and the few functions of a dictionary of tensors, and refuses all others by name. Python's `pickletools.py` describes
//! the opcodes; `PyTorch`'s `torch/_utils.py` and `torch/serialization.py` describe the functions.
//!
//! All values are in one vector and refer to each other by index, so aliases and cycles are cheap, and the reader never
//! recurses.

mod machine;
mod opcodes;
pub(super) mod value;

use crate::checkpoint::pickle::machine::Machine;
use crate::checkpoint::pickle::value::{Id, MAX_NAME, Storage, TensorView, Value};
use crate::checkpoint::tensor::Problem;

/// The values of a pickle.
#[derive(Debug)]
pub(super) struct Pickle {
    values: Vec<Value>,
    root: Id,
    /// Number of bytes from the first opcode to the last.
    pub(super) len: usize,
}

impl Pickle {
    /// Reads the pickle at the start of `bytes`.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Problem> {
        let mut machine = Machine::new(bytes);
        let root = machine.run()?;
        let (values, len) = machine.into_values();
        Ok(Self { values, root, len })
    }

    /// The tensors of a dictionary, by name. Entries of other types are ignored.
    pub(super) fn into_state_dict(self) -> Result<Vec<(String, TensorView)>, Problem> {
        let Value::Dict(entries) = &self.values[self.root] else {
            return Err(Problem::Unsupported("it holds something else than a state dict".to_owned()));
        };
        let mut keys = Vec::new();
        let mut tensors = Vec::new();
        for &(key, value) in entries {
            let Value::Str(key) = &self.values[key] else {
                continue;
            };
            if key.len() > MAX_NAME {
                return Err(Problem::Malformed(format!("a name in its dictionary has {} bytes", key.len())));
            }
            keys.push(key.as_str());
            if let Value::Tensor(tensor) = &self.values[value] {
                tensors.push((key.clone(), tensor.clone()));
            }
        }
        if tensors.is_empty() && !keys.is_empty() {
            keys.truncate(8);
            let problem = format!(
                "no entry of its dictionary is a tensor (keys: {}); save the model's state dict alone",
                keys.join(", ")
            );
            return Err(Problem::Unsupported(problem));
        }
        Ok(tensors)
    }

    /// Whether the pickle is an integer of more than 64 bits with these little-endian bytes.
    pub(super) fn is_long(&self, bytes: &[u8]) -> bool {
        matches!(&self.values[self.root], Value::Long(found) if found == bytes)
    }

    /// The pickle's value, if it is an integer.
    pub(super) fn as_int(&self) -> Option<i64> {
        match self.values[self.root] {
            Value::Int(value) => Some(value),
            _ => None,
        }
    }

    /// The boolean value of a key, if the pickle is a dictionary with this key.
    pub(super) fn flag(&self, key: &str) -> Option<bool> {
        let Value::Dict(entries) = &self.values[self.root] else {
            return None;
        };
        let (_, value) = entries.iter().find(|(k, _)| matches!(&self.values[*k], Value::Str(s) if s == key))?;
        match self.values[*value] {
            Value::Int(value) => Some(value != 0),
            _ => None,
        }
    }

    /// The elements, if the pickle is a list of strings.
    pub(super) fn strings(&self) -> Option<Vec<&str>> {
        let Value::List(items) = &self.values[self.root] else {
            return None;
        };
        let string = |&id: &Id| match &self.values[id] {
            Value::Str(s) => Some(s.as_str()),
            _ => None,
        };
        items.iter().map(string).collect()
    }

    /// All storages of the pickle.
    pub(super) fn storages(&self) -> impl Iterator<Item = &Storage> {
        self.values.iter().filter_map(|value| match value {
            Value::Storage(storage) => Some(storage),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::opcodes::MAX_STEPS;
    use super::value::MAX_RANK;
    use super::*;

    fn problem(bytes: &[u8]) -> String {
        match Pickle::read(bytes).and_then(Pickle::into_state_dict) {
            Ok(tensors) => panic!("read as {tensors:?}"),
            Err(Problem::Malformed(text) | Problem::Unsupported(text)) => text,
        }
    }

    #[test]
    fn calls_of_other_functions_are_refused_by_name() {
        // pickle.dumps of an object whose __reduce__ returns (os.system, ("id",))
        let text = problem(b"\x80\x02cposix\nsystem\nq\x00X\x02\x00\x00\x00idq\x01\x85q\x02Rq\x03.");
        assert!(text.contains("`posix.system`"), "{text}");
        // The same by STACK_GLOBAL, protocol 4.
        let text = problem(b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x02id\x85R.");
        assert!(text.contains("`posix.system`"), "{text}");
        // A name within an allowed module.
        let text = problem(b"\x80\x02ctorch.storage\n_load_from_bytes\n.");
        assert!(text.contains("`torch.storage._load_from_bytes`"), "{text}");
    }

    #[test]
    fn a_list_that_contains_itself_a_million_levels_deep_is_read() {
        let mut bytes = b"]q\x00".to_vec();
        for _ in 0..1_000_000 {
            bytes.extend(b"\x85");
        }
        bytes.extend(b"0h\x00h\x00a.");
        let text = problem(&bytes);
        assert!(text.contains("state dict"), "{text}");
    }

    #[test]
    fn endless_programs_are_stopped() {
        let text = problem(&vec![b'N'; MAX_STEPS + 1]);
        assert!(text.contains("steps"), "{text}");
    }

    #[test]
    fn integers_of_any_length_are_read() {
        let int = |bytes: &[u8]| Pickle::read(bytes).unwrap().as_int();
        assert_eq!(int(b"\x8a\x00."), Some(0));
        assert_eq!(int(b"\x8a\x01\xff."), Some(-1));
        assert_eq!(int(b"\x8a\x05\x00\x00\x00\x00\x01."), Some(1 << 32));
        assert_eq!(int(b"J\xfe\xff\xff\xff."), Some(-2));
        assert_eq!(int(b"\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00\x01."), None);
    }

    #[test]
    fn a_negative_size_is_malformed() {
        let text = problem(
            b"ctorch._utils\n_rebuild_tensor_v2\n((U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK\x04tQK\x00J\xff\xff\xff\xff\x85K\x01\x85\x89NtR.",
        );
        assert!(text.contains("RebuildTensorV2"), "{text}");
    }

    #[test]
    fn long_values_that_are_used_again_and_again_are_refused() {
        // One shape of 20 dimensions, then one name of 2000 bytes, as the key of a storage and of the dictionary.
        let storage = b"(U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK\x04tQK\x00";
        let tensor =
            |sizes: &[u8]| [b"ctorch._utils\n_rebuild_tensor_v2\n(", storage.as_slice(), sizes, b"\x89NtR"].concat();
        let sizes = |n| [b"(".as_slice(), &b"K\x01".repeat(n), b"t("].concat();
        let shaped = |n| [sizes(n), b"K\x01".repeat(n), b"t".to_vec()].concat();
        assert!(Pickle::read(&[tensor(&shaped(MAX_RANK)), b".".to_vec()].concat()).is_ok());
        assert!(problem(&[tensor(&shaped(20)), b".".to_vec()].concat()).contains("RebuildTensorV2"));

        let name = [b"T\xd0\x07\x00\x00".as_slice(), &[b'a'; 2000]].concat();
        let text = problem(&[b"(U\x07storagectorch\nFloatStorage\n", name.as_slice(), b"U\x03cpuK\x04tQ."].concat());
        assert!(text.contains("persistent id"), "{text}");
        let text = problem(&[b"}", name.as_slice(), &tensor(b"))"), b"s."].concat());
        assert!(text.contains("2000 bytes"), "{text}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(prop_oneof![
            prop::sample::select(b"().012NJKMXTUBCGt]laed}sucRbQqrhj\x80\x85\x86\x87\x88\x89\x8a\x8c\x93\x94\x00\x01\x02".as_slice()),
            any::<u8>(),
        ], 0..200)) {
            if let Ok(pickle) = Pickle::read(&bytes) {
                prop_assert!(pickle.len <= bytes.len());
                let _ = pickle.into_state_dict();
            }
        }
    }
}
