//! `audit-chain`: see the library.

fn main() -> std::process::ExitCode {
    audit_chain_cli::main()
}
