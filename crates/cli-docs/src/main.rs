//! Writes the man pages and the shell completions of `audit-chain`, from its own definition of the command
//! line.
//!
//! `audit-chain-docs FOLDER` makes `FOLDER/man` and `FOLDER/completions`. Only packages need them, so this is
//! a program of its own, and `audit-chain` stays without the crates that generate them.
#![forbid(unsafe_code)]

use audit_chain_cli::args::Args;
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use std::{env, fs, io, path::Path};

fn main() -> io::Result<()> {
    let folder = env::args_os().nth(1).ok_or_else(|| io::Error::other("usage: audit-chain-docs FOLDER"))?;
    let folder = Path::new(&folder);
    let mut command = Args::command().disable_help_subcommand(true);
    command.build(); // global options become those of every command, and names become complete

    let pages = folder.join("man");
    fs::create_dir_all(&pages)?;
    write_page(&command, &command, &pages)?;
    command.get_subcommands().try_for_each(|subcommand| write_page(&command, subcommand, &pages))?;

    let completions = folder.join("completions");
    fs::create_dir_all(&completions)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut Args::command(), "audit-chain", &completions)?;
    }
    Ok(())
}

/// One page for the program and one for each of its commands, as git has them: `audit-chain-verify(1)`.
fn write_page(program: &Command, command: &Command, pages: &Path) -> io::Result<()> {
    let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
    let version = program.get_version().unwrap_or_default();
    let mut page = Vec::new();
    // Without a date: the version says what the page describes, and the same source makes the same page.
    Man::new(command.clone())
        .title(name.to_uppercase())
        .source(format!("audit-chain {version}"))
        .manual("audit_chain")
        .render(&mut page)?;
    // What clap prints after the options is about exit codes; man(7) has a section for these.
    let page = String::from_utf8_lossy(&page).replace(".SH EXTRA", ".SH \"EXIT STATUS\"");
    fs::write(pages.join(format!("{name}.1")), page)
}
