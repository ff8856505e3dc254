//! The dense matrix product `C = A B`: layout of panels, packing, micro-kernels, epilogues. `docs/gemm.md` explains the
//! whole.

#[cfg(target_arch = "x86_64")]
pub(crate) mod bf16;
pub(crate) mod block;
pub(crate) mod deep;
#[cfg(target_arch = "x86_64")]
pub(crate) mod epilogue;
pub(crate) mod layout;
pub(crate) mod microkernel;
pub(crate) mod multiply;
pub(crate) mod operand;
pub(crate) mod pack;
pub(crate) mod panels;
pub(crate) mod peak;
pub(crate) mod product;
pub(crate) mod transpose;
#[cfg(target_arch = "x86_64")]
pub(crate) mod transpose_avx512;

pub(crate) use block::{Init, OutputBlock};
pub(crate) use deep::{DEEP, deep_product};
#[cfg(target_arch = "x86_64")]
pub(crate) use epilogue::{Epilogue, OutputTile};
#[cfg(target_arch = "x86_64")]
pub(crate) use layout::OUTPUT_TILE;
pub(crate) use layout::{DEPTH_BLOCK, Side, TILE};
pub(crate) use multiply::{LeftOperand, multiply};
pub(crate) use operand::{Operand, Order};
pub(crate) use pack::PACK_LANES;
pub(crate) use panels::{Panels, SharedPanels};
pub(crate) use product::{JOB_COLS, RightOperand, Strip, is_one_portion, job_rows, row_portions, row_product};
#[cfg(target_arch = "x86_64")]
pub(crate) use transpose_avx512::transposed;
