//! Precision and kernels of products.

use serde::{Deserialize, Serialize};
use tamt_kernels::{Precision, sparse};
use tamt_model::{KernelChoice, Masks, Model, PreparedWeights, Workspace};

/// The kernel that multiplies by masked matrices of the encoder's layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kernel {
    /// The sparse kernel for matrices with a density up to [`sparse::break_even`], the dense one for others.
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
    /// The highest density of the sparse kernel.
    pub fn kernels(self) -> KernelChoice {
        match self.kernel {
            Kernel::Auto => KernelChoice::sparse_up_to(sparse::break_even(self.precision)),
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
