//! Precision and kernels of products, and the file with the measurement that decides between the kernels.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};
use tamt_kernels::{Precision, processor, sparse};
use tamt_model::write::atomic_write;
use tamt_model::{KernelChoice, Masks, Model, PreparedWeights, Workspace};

/// The kernel that multiplies by masked matrices of the encoder's layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kernel {
    /// The faster kernel for each matrix, by its density and [`break_even`].
    #[default]
    Auto,
    /// The dense kernel.
    Dense,
    /// The sparse kernel.
    Sparse,
}

impl Kernel {
    /// The name in settings and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Dense => "dense",
            Self::Sparse => "sparse",
        }
    }
}

/// Kernel and precision of products.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Compute {
    /// The kernel that multiplies by masked matrices.
    pub kernel: Kernel,
    /// The precision of the operands of dense products.
    pub precision: Precision,
}

impl Compute {
    /// The highest density of the sparse kernel; [`Kernel::Auto`] measures where no measurement is recorded.
    pub fn kernels(self) -> KernelChoice {
        match self.kernel {
            Kernel::Auto => KernelChoice::sparse_up_to(break_even(self.precision)),
            Kernel::Dense => KernelChoice::DENSE,
            Kernel::Sparse => KernelChoice::SPARSE,
        }
    }

    /// A workspace for passes in this precision.
    pub fn workspace(self) -> Workspace {
        Workspace::new(self.precision)
    }

    /// [`PreparedWeights::for_inference`] with this kernel and precision.
    pub fn prepare(self, model: &Model, masks: Option<&Masks>) -> PreparedWeights {
        PreparedWeights::for_inference(model, masks, self.kernels(), self.precision)
    }
}

/// The measurement of one processor by one version of the kernels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Measurement {
    version: String,
    sparse_up_to: f32,
}

/// The density up to which the sparse kernel is faster on this processor than the dense kernel in a precision.
///
/// The first call on a machine measures, in some 300 ms, and records the density in [`file()`], so that all runs on the
/// machine choose alike. Where the file cannot be read or written, each process measures.
pub fn break_even(precision: Precision) -> f32 {
    static DENSITIES: [OnceLock<f32>; 2] = [OnceLock::new(), OnceLock::new()];
    let density = match precision {
        Precision::F32 => &DENSITIES[0],
        Precision::Bf16 => &DENSITIES[1],
    };
    let measure = || sparse::break_even(precision);
    *density.get_or_init(|| match file() {
        Some(path) => recorded_in(&path, &processor(precision), measure),
        None => measure(),
    })
}

/// `kernels.toml` in the [`cache_directory`].
pub fn file() -> Option<PathBuf> {
    Some(cache_directory()?.join("kernels.toml"))
}

/// The directory of what runs on a machine share: `$TAMT_CACHE`, else `$XDG_CACHE_HOME/tamt`, else `~/.cache/tamt`; `None`
/// if none of the variables (and `HOME`) is an absolute path.
pub fn cache_directory() -> Option<PathBuf> {
    let directory = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = || directory("XDG_CACHE_HOME").or_else(|| directory("HOME").map(|home| home.join(".cache")));
    directory("TAMT_CACHE").or_else(|| cache().map(|cache| cache.join("tamt")))
}

/// The measurements that a file records, by processor and precision; none if the file is missing or damaged.
fn measurements(path: &Path) -> BTreeMap<String, Measurement> {
    toml::from_str(&fs::read_to_string(path).unwrap_or_default()).unwrap_or_default()
}

/// A lock that one process holds at a time; `None` where there can be none.
fn locked(path: &Path) -> Option<File> {
    fs::create_dir_all(path.parent()?).ok()?;
    let file = File::options().create(true).append(true).open(path.with_extension("lock")).ok()?;
    file.lock().ok().map(|()| file)
}

/// The density that a file records under a name; measured and recorded where it is missing or another version's. Processes
/// that begin together measure one after the other, so that the later ones read what the first one has recorded.
fn recorded_in(path: &Path, name: &str, measure: impl FnOnce() -> f32) -> f32 {
    let version = env!("CARGO_PKG_VERSION");
    let recorded = |all: &BTreeMap<String, Measurement>| {
        let found = all.get(name).filter(|found| found.version == version)?;
        Some(found.sparse_up_to).filter(|density| (0.0..=1.0).contains(density))
    };
    if let Some(density) = recorded(&measurements(path)) {
        return density;
    }
    let _lock = locked(path);
    let mut all = measurements(path);
    if let Some(density) = recorded(&all) {
        return density;
    }
    let sparse_up_to = measure();
    all.insert(name.to_owned(), Measurement { version: version.to_owned(), sparse_up_to });
    // A failure costs the next process 300 ms.
    if let Ok(text) = toml::to_string(&all) {
        let _ = atomic_write(path, |out| out.write_all(text.as_bytes()));
    }
    sparse_up_to
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn a_measurement_is_made_once_for_each_processor_and_version() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cache/kernels.toml");
        let unexpected = || -> f32 { panic!("it was measured before") };
        assert_eq!(recorded_in(&path, "one \"quoted\"", || 0.1 + 0.2), 0.1 + 0.2);
        assert_eq!(recorded_in(&path, "two", || 0.5), 0.5);
        assert_eq!(recorded_in(&path, "one \"quoted\"", unexpected), 0.1 + 0.2);
        assert_eq!(recorded_in(&path, "two", unexpected), 0.5);

        let other = fs::read_to_string(&path).unwrap().replace(env!("CARGO_PKG_VERSION"), "0.0.1");
        fs::write(&path, other).unwrap();
        assert_eq!(recorded_in(&path, "two", || 0.75), 0.75);
    }

    #[test]
    fn of_those_that_begin_together_one_measures() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("kernels.toml");
        let measured = AtomicU32::new(0);
        let measure = || measured.fetch_add(1, Ordering::SeqCst) as f32 / 8.0;
        let densities: Vec<f32> = thread::scope(|scope| {
            let all: Vec<_> = (0..8).map(|_| scope.spawn(|| recorded_in(&path, "one", measure))).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert_eq!((densities, measured.into_inner()), (vec![0.0; 8], 1));
    }

    #[test]
    fn a_damaged_or_unwritable_file_is_no_obstacle() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("kernels.toml");
        for damage in ["[", "a = 3", "[one]\nversion = '0.1.0'\nsparse-up-to = nan", "[one]\nversion = 1"] {
            fs::write(&path, damage).unwrap();
            assert_eq!(recorded_in(&path, "one", || 0.25), 0.25, "{damage}");
        }
        assert_eq!(recorded_in(&directory.path().join("kernels.toml/x"), "one", || 0.5), 0.5);
    }
}
