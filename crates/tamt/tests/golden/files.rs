//! Golden files: where they lie, and comparing with them.

use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use tamt_model::{Batch, Model};

/// The golden folders at hand. Prints what is skipped.
pub(crate) fn folders() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let shared = std::env::var_os("TAMT_SHARED").map_or_else(|| root.join("../shared"), PathBuf::from).join("golden");
    let mut folders = vec![root.join("tests/golden")];
    if shared.is_dir() {
        folders.push(shared);
    } else {
        println!("skipped: the larger golden set ({} is absent)", shared.display());
    }
    folders
}

/// Runs a test on both model families of every folder.
pub(crate) fn for_each(test: impl Fn(&Golden)) {
    for folder in folders() {
        for kind in ["bert", "roberta"] {
            println!("{} {kind}", folder.display());
            test(&Golden { folder: folder.clone(), kind });
        }
    }
}

/// The golden files of one model.
pub(crate) struct Golden {
    pub(crate) folder: PathBuf,
    pub(crate) kind: &'static str,
}

impl Golden {
    pub(crate) fn model(&self) -> Model {
        Model::load(&self.folder.join(self.kind)).unwrap()
    }

    /// The file `<kind>.<what>.safetensors`, or `None` where the folder does not have it.
    pub(crate) fn file(&self, what: &str) -> Option<Tensors> {
        let path = self.folder.join(format!("{}.{what}.safetensors", self.kind));
        if !path.exists() {
            println!("skipped: {} is absent", path.display());
            return None;
        }
        Some(Tensors { bytes: std::fs::read(path).unwrap() })
    }
}

/// A safetensors file in memory.
pub(crate) struct Tensors {
    bytes: Vec<u8>,
}

impl Tensors {
    pub(crate) fn read(path: &Path) -> Self {
        Self { bytes: std::fs::read(path).unwrap() }
    }

    fn parsed(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.bytes).unwrap()
    }

    pub(crate) fn names(&self, prefix: &str) -> Vec<String> {
        let file = self.parsed();
        let mut names: Vec<String> =
            file.names().into_iter().filter_map(|name| Some(name.strip_prefix(prefix)?.to_owned())).collect();
        names.sort();
        names
    }

    pub(crate) fn floats(&self, name: &str) -> Vec<f64> {
        let file = self.parsed();
        let tensor = file.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        match tensor.dtype() {
            Dtype::F32 => tensor.data().as_chunks().0.iter().map(|&b| f64::from(f32::from_le_bytes(b))).collect(),
            Dtype::F64 => tensor.data().as_chunks().0.iter().map(|&b| f64::from_le_bytes(b)).collect(),
            Dtype::U8 => tensor.data().iter().map(|&b| f64::from(b)).collect(),
            other => panic!("{name} is {other:?}"),
        }
    }

    pub(crate) fn integers(&self, name: &str) -> (Vec<i32>, Vec<usize>) {
        let file = self.parsed();
        let tensor = file.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(tensor.dtype(), Dtype::I32, "{name}");
        (tensor.data().as_chunks().0.iter().map(|&b| i32::from_le_bytes(b)).collect(), tensor.shape().to_vec())
    }

    /// The batch stored as `name`, packed.
    pub(crate) fn batch(&self, model: &Model, name: &str) -> Batch {
        let (ids, shape) = self.integers(name);
        let mut batch = Batch::default();
        for row in ids.chunks(shape[1]) {
            batch.push(&row.iter().map(|&id| id as u32).collect::<Vec<_>>());
        }
        batch.locate(&model.config);
        batch
    }
}

/// Checks that two tensors agree to `tolerance` of the larger one's largest value, and prints how well they do.
pub(crate) fn assert_close(name: &str, ours: &[f32], golden: &[f64], tolerance: f64) {
    assert_close_above(name, ours, golden, tolerance, 1e-30);
}

/// As [`assert_close`], for tensors that may be zero but for rounding: values below `floor` count as that large.
pub(crate) fn assert_close_above(name: &str, ours: &[f32], golden: &[f64], tolerance: f64, floor: f64) {
    assert_eq!(ours.len(), golden.len(), "{name}");
    let scale = golden.iter().fold(floor, |max, g| max.max(g.abs()));
    let errors = ours.iter().zip(golden).map(|(&a, &b)| (f64::from(a) - b).abs());
    // NaN, which `f64::max` drops, stays.
    let worst = errors.fold(0.0, |worst: f64, error| if error > worst || error.is_nan() { error } else { worst });
    assert!(worst <= tolerance * scale, "{name}: off by {worst:.3e} where the largest value is {scale:.3e}");
    println!("  {name}: {:.1e} of the largest value", worst / scale);
}
