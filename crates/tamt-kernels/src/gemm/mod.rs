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
