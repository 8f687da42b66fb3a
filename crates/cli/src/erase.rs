//! `erase`: what an erasure register names is erased from an export, too.
//!
//! A file of lines is written anew beside the old one and takes its place, so that a file is erased
//! completely or not at all. What the old one held may remain on the disk, as after any removal of a file.
//!
//! **Invariant**: nothing is erased but what the register names. Leaves, hashes and all other lines stay as
//! they are, byte for byte, so the export verifies as before if an entry of the log, or the register, says
//! what was erased.

use crate::{
    directory::{Directory, decompress, line_failure},
    export::digest,
    files,
    outcome::{OrFailure, Result, unchecked},
    record::{DEFAULT_MAX_ENTRY_MIB, NOT_EXPORTED, RECORDS, erase_line},
};
use audit_chain_core::{check::LogReader, erasure::ErasedPart, key::VerifierKey, register::SuppliedRegister};
use serde::Serialize;
use std::{
    fs::{self, File, OpenOptions},
    io::{BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// How hard payloads are compressed.
const LEVEL: i32 = 3;

/// What was erased.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Erased {
    /// How many payloads.
    pub payloads: u64,
    /// How many who-parts.
    pub who_parts: u64,
    /// The digest of the files now.
    pub sha256: String,
}

/// Erases from an export what a register names. With keys, one of them must have signed it.
pub fn erase(folder: &Path, register: &[u8], keys: &[VerifierKey]) -> Result<Erased> {
    let register = SuppliedRegister::parse(register).or_unchecked("the register")?;
    if !keys.is_empty() {
        register.verify(keys).or_unchecked("the register")?;
    }
    let mut export = Directory::open(folder, DEFAULT_MAX_ENTRY_MIB << 20)?;
    let identity = export.identity()?;
    register.is_of(identity.as_ref()).or_unchecked("the register")?;
    let register = register.register();
    let mut erased = Erased::default();
    for path in files_of_lines(folder)? {
        erase_file(&path, &mut |line| {
            let Some((chain, seq)) = crate::record::place_of(line)? else { return Ok(None) };
            let [payload, who] = ErasedPart::ALL.map(|part| register.covers(part, chain, seq));
            let Some((rest, [lost_payload, lost_who])) = erase_line(line, payload, who)? else {
                return Ok(None);
            };
            erased.payloads += u64::from(lost_payload);
            erased.who_parts += u64::from(lost_who);
            Ok(Some(rest))
        })?;
    }
    erased.sha256 = digest(folder)?;
    Ok(erased)
}

/// The files of an export that have payloads and who-parts.
fn files_of_lines(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.join("payload")];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return unchecked(format!("{}: {error}", folder.display())),
        };
        for entry in entries {
            let entry = entry.or_unchecked(folder.display())?;
            if entry.file_type().or_unchecked(folder.display())?.is_dir() {
                folders.push(entry.path());
            } else if entry.path().extension().is_some_and(|extension| extension == "zst") {
                found.push(entry.path());
            }
        }
    }
    found.extend(
        ["unsealed.jsonl.zst", RECORDS]
            .map(|name| folder.join(name))
            .into_iter()
            .filter(|path| path.exists()),
    );
    found.sort_unstable();
    Ok(found)
}

/// Takes a line; gives what takes its place, or nothing if it stays.
type Change<'c> = &'c mut dyn FnMut(&[u8]) -> std::result::Result<Option<String>, String>;

/// Writes a file of lines anew, if any of them changes.
fn erase_file(path: &Path, change: Change<'_>) -> Result<()> {
    let name = path.display().to_string();
    let Some(file) = files::open_if_exists(path)? else { return Ok(()) };
    let mut reader = decompress(file).or_unchecked(&name)?;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = Temporary(PathBuf::from(temporary));
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(&temporary.0).or_unchecked(&name)?;
    let mut encoder = zstd::Encoder::new(BufWriter::new(file), LEVEL).or_unchecked(&name)?;
    encoder.include_checksum(true).or_unchecked(&name)?;
    let (mut line, mut changed) = (Vec::new(), false);
    while files::read_line(&mut reader, usize::MAX - 1, &mut line)
        .map_err(|error| line_failure(&name, error))?
    {
        let rest = if line == NOT_EXPORTED.trim_end().as_bytes() {
            None
        } else {
            change(&line).or_tampered(&name)?
        };
        changed |= rest.is_some();
        let written = match rest {
            Some(rest) => encoder.write_all(rest.as_bytes()),
            None => encoder.write_all(&line).and_then(|()| encoder.write_all(b"\n")),
        };
        written.or_unchecked(&name)?;
    }
    let file = encoder.finish().and_then(|file| file.into_inner().map_err(|error| error.into_error()));
    file.and_then(|file| file.sync_all()).or_unchecked(&name)?;
    if !changed {
        return Ok(());
    }
    let mode = fs::metadata(path).or_unchecked(&name)?.permissions();
    fs::set_permissions(&temporary.0, mode).or_unchecked(&name)?;
    fs::rename(&temporary.0, path).or_unchecked(&name)?;
    File::open(files::parent(path)).and_then(|folder| folder.sync_all()).or_unchecked(&name)
}

/// A file that is removed unless it was renamed.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
