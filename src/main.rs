//! The `leakslope` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    leakslope::cli::main()
}
