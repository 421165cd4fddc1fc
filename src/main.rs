//! The `leakslope` binary: everything is in the library.

fn main() -> std::process::ExitCode {
    leakslope::cli::main()
}
