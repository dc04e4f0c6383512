//! Exit codes only; everything else is in the library.

use std::process::ExitCode;

/// glibc's allocator fragments with the 4 to 64 KiB buffers of TLS and HTTP.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    vestibule::cli::main(std::env::args_os())
}
