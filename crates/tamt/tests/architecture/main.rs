//! The direction of imports: no circle of files in a crate, crates and the folders of the kernels import downwards, files
//! stay short.

mod circles;
mod modules;
mod rules;
mod tokens;

use std::fs;
use std::path::{Path, PathBuf};

use circles::circles;
use modules::{Sources, imports};

/// The crate of the Python package, the only one outside of `crates`.
const PYTHON: &str = "tamt-python";

/// Crates, and the crates of this workspace that each may depend on.
const CRATES: [(&str, &[&str]); 11] = [
    ("tamt-files", &[]),
    ("tamt-kernels", &[]),
    ("tamt-model", &["tamt-files", "tamt-kernels"]),
    ("tamt-data", &["tamt-files", "tamt-kernels"]),
    ("tamt-onnx", &["tamt-kernels", "tamt-model"]),
    ("tamt", &["tamt-files", "tamt-kernels", "tamt-model", "tamt-data", "tamt-onnx"]),
    ("tamt-serve", &["tamt-kernels", "tamt-model", "tamt-data", "tamt"]),
    ("tamt-study", &["tamt-files"]),
    ("tamt-report", &["tamt-files", "tamt-study"]),
    (
        "tamt-cli",
        &[
            "tamt-files",
            "tamt-kernels",
            "tamt-model",
            "tamt-data",
            "tamt-onnx",
            "tamt",
            "tamt-serve",
            "tamt-report",
            "tamt-study",
        ],
    ),
    (PYTHON, &["tamt-kernels", "tamt", "tamt-cli"]),
];

/// The folders of `tamt-kernels`, the lowest first: a folder imports only from itself and the lower ones.
const KERNEL_FLOORS: [&str; 6] = ["base", "masks", "gemm", "ops", "linear", "sparse"];

/// Maximum number of lines of a Rust file.
const MAX_LINES: usize = 500;

fn crates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The directory of a crate.
fn root_of(name: &str) -> PathBuf {
    crates().join(if name == PYTHON { "../python" } else { name })
}

/// Adds the Rust files below `directory`, with names relative to `base`.
fn collect(directory: &Path, base: &Path, found: &mut Sources) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, base, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(base).unwrap().to_str().unwrap().replace('\\', "/");
            found.insert(name, fs::read_to_string(&path).unwrap());
        }
    }
}

/// The Rust files below `src` of a crate, with names that begin with `src/`.
fn sources_of(name: &str) -> Sources {
    let (mut sources, base) = (Sources::new(), root_of(name));
    collect(&base.join("src"), &base, &mut sources);
    sources
}

/// The floor of a file of `tamt-kernels`; `None` for files at the root of the crate.
fn kernel_floor(file: &str) -> Option<usize> {
    let (folder, _) = file.strip_prefix("src/").unwrap().split_once('/')?;
    let floor = KERNEL_FLOORS.iter().position(|floor| *floor == folder);
    Some(floor.unwrap_or_else(|| panic!("{folder} is not in KERNEL_FLOORS")))
}

#[test]
fn no_files_of_a_crate_import_each_other() {
    let mut report = String::new();
    for (name, _) in CRATES {
        let sources = sources_of(name);
        let roots: Vec<_> =
            ["src/lib.rs", "src/main.rs"].into_iter().filter(|root| sources.contains_key(*root)).collect();
        assert!(!roots.is_empty(), "{name} has no root");
        let mut seen = 0;
        for root in roots {
            let imports = imports(&sources, root);
            seen += imports.len();
            circles(&imports).iter().for_each(|circle| report += &format!("\n{name}: {circle}"));
        }
        // The files of a small crate may well be independent of each other.
        assert!(sources.len() < 6 || seen > 5, "{name}: only {seen} imports are seen");
    }
    assert!(report.is_empty(), "files import each other in a circle\n{report}");
}

#[test]
fn folders_of_the_kernels_import_downwards_only() {
    let imports = imports(&sources_of("tamt-kernels"), "src/lib.rs");
    let floors = |(from, to): &(String, String)| Some((kernel_floor(from)?, kernel_floor(to)?));
    let (down, up): (Vec<_>, Vec<_>) = imports
        .iter()
        .filter_map(|(files, names)| Some((floors(files)?, files, names)))
        .partition(|((from, to), ..)| to <= from);
    assert!(down.len() > 100, "only {} imports are seen", down.len());
    let report = up.iter().map(|(_, (from, to), names)| format!("\n{from} imports {names:?} from {to}"));
    let report: String = report.collect();
    assert!(report.is_empty(), "the order of folders is {KERNEL_FLOORS:?}, the lowest first{report}");
}

#[test]
fn crates_depend_downwards_only() {
    for (name, allowed) in CRATES {
        let manifest = fs::read_to_string(root_of(name).join("Cargo.toml")).unwrap();
        let dependencies = manifest.split_once("dependencies]").map_or("", |(_, rest)| rest);
        let names = dependencies.lines().filter_map(|line| line.split(['.', ' ', '=']).next());
        for dependency in names.filter(|name| *name == "tamt" || name.starts_with("tamt-")) {
            assert!(allowed.contains(&dependency), "{name} depends on {dependency}, but may only on {allowed:?}");
        }
    }
    let count = fs::read_dir(crates()).unwrap().filter(|entry| entry.as_ref().unwrap().path().is_dir()).count();
    assert_eq!(count + 1, CRATES.len(), "each crate has its line in CRATES");
}

#[test]
fn no_file_is_longer_than_a_reader_can_take_in() {
    let mut sources = Sources::new();
    collect(&crates(), &crates(), &mut sources);
    collect(&root_of(PYTHON).join("src"), &root_of(PYTHON), &mut sources);
    let long = sources.iter().map(|(name, text)| (text.lines().count(), name)).filter(|(lines, _)| *lines > MAX_LINES);
    let long: Vec<_> = long.map(|(lines, name)| format!("{name}: {lines} lines")).collect();
    assert!(long.is_empty(), "more than {MAX_LINES} lines: {long:#?}");
}
