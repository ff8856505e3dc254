//! The inputs of the fuzz targets in `fuzz/`, given to the same functions: seeds, which code makes, and the files in
//! `fuzz/replay`.

#[path = "../../../../fuzz/src/readers/mod.rs"]
mod readers;

mod model_seeds;
mod packed_seeds;
mod pickle;
mod seeds;
mod text_seeds;

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use crate::readers::{TARGETS, Target};

/// Most bytes of the committed inputs.
const MOST_BYTES: u64 = 500_000;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

fn target(name: &str) -> Target {
    let (_, target) = TARGETS.iter().find(|(other, _)| *other == name).expect("the target exists");
    *target
}

/// The committed inputs of a target, in the order of their names.
fn inputs(target: &str) -> Vec<PathBuf> {
    let dir = fuzz().join("replay").join(target);
    let mut inputs: Vec<PathBuf> =
        fs::read_dir(&dir).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    inputs.sort();
    inputs
}

#[test]
fn every_seed_is_read_or_refused_as_it_should_be() {
    for seed in seeds::all() {
        let is_read = catch_unwind(|| target(seed.target)(&seed.bytes));
        assert_eq!(is_read.ok(), Some(seed.is_read), "{}: {}", seed.target, seed.name);
    }
}

#[test]
fn every_committed_input_keeps_the_properties_of_its_target() {
    for (name, target) in TARGETS {
        let inputs = inputs(name);
        assert!(!inputs.is_empty(), "{name} has no inputs");
        for path in inputs {
            let bytes = fs::read(&path).unwrap();
            assert!(catch_unwind(|| target(&bytes)).is_ok(), "{}", path.display());
        }
    }
}

#[test]
fn the_committed_inputs_are_small_and_each_belongs_to_a_target() {
    let names: BTreeSet<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    let folders = fs::read_dir(fuzz().join("replay")).unwrap().map(|entry| entry.unwrap().file_name());
    let folders: Vec<String> = folders.map(|name| name.into_string().unwrap()).collect();
    assert!(folders.iter().all(|folder| names.contains(folder.as_str())), "{folders:?}");
    let bytes: u64 = names.iter().flat_map(|name| inputs(name)).map(|path| path.metadata().unwrap().len()).sum();
    assert!(bytes <= MOST_BYTES, "{bytes} bytes");
    for name in names {
        assert!(fuzz().join("fuzz_targets").join(format!("{name}.rs")).is_file(), "{name}");
    }
}

#[test]
#[ignore = "writes fuzz/corpus, from which a fuzzer starts"]
fn seeds_are_written_for_the_fuzzer() {
    for seed in seeds::all() {
        let dir = fuzz().join("corpus").join(seed.target);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(format!("seed-{}", seed.name.replace([' ', ',', '/'], "-"))), seed.bytes).unwrap();
    }
}
