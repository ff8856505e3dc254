//! The native part of the Python package `tamt`. The package wraps each item here in Python, with types and documentation.
//!
//! Work runs on a thread of its own without the interpreter's lock, while the caller's thread handles signals and hears
//! events (`work`). Values become Python's in `values`, failures exceptions in `errors`.

// The macros of pyo3 expand to items and code that these lints mean for hand-written ones.
#![allow(missing_docs, unreachable_pub, clippy::needless_pass_by_value)]

mod encoder;
mod errors;
mod ticket;
mod values;
mod verbs;
mod work;

use pyo3::prelude::*;
use tamt_cli::allocator::LineAllocator;

/// As in the command: the kernels are fastest on blocks that begin at a cache line.
#[global_allocator]
static ALLOCATOR: LineAllocator = LineAllocator;

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<encoder::Encoder>()?;
    module.add_class::<ticket::Ticket>()?;
    module.add_function(wrap_pyfunction!(verbs::call, module)?)?;
    module.add_function(wrap_pyfunction!(verbs::settings, module)?)
}
