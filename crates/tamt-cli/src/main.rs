//! The command `tamt`; the library `tamt_cli` holds all of it.

use std::process::ExitCode;

use tamt_cli::allocator::LineAllocator;

#[global_allocator]
static ALLOCATOR: LineAllocator = LineAllocator;

fn main() -> ExitCode {
    tamt_cli::main()
}
