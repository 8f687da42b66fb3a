//! Files: read up to a limit, written completely or not at all.

use crate::outcome::{OrFailure, Result, unchecked};
use std::{
    fmt,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, BufRead, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// Reads a regular file of at most `max` bytes; `None` if there is none.
pub fn read_if_exists(path: &Path, max: usize) -> Result<Option<Vec<u8>>> {
    let Some(file) = open_if_exists(path)? else { return Ok(None) };
    let mut bytes = Vec::new();
    file.take(max as u64 + 1).read_to_end(&mut bytes).or_unchecked(path.display())?;
    if bytes.len() > max {
        return unchecked(format!(
            "{} is longer than {max} bytes, the most that such a file may have",
            path.display()
        ));
    }
    Ok(Some(bytes))
}

/// Reads a regular file of at most `max` bytes.
pub fn read(path: &Path, max: usize) -> Result<Vec<u8>> {
    match read_if_exists(path, max)? {
        Some(bytes) => Ok(bytes),
        None => unchecked(format!("{} does not exist", path.display())),
    }
}

/// Reads a file of at most `max` bytes, or the standard input if the path is `-`.
pub fn read_or_stdin(path: &Path, max: usize) -> Result<Vec<u8>> {
    if path != Path::new("-") {
        return read(path, max);
    }
    let mut bytes = Vec::new();
    io::stdin().take(max as u64 + 1).read_to_end(&mut bytes).or_unchecked("standard input")?;
    if bytes.len() > max {
        return unchecked(format!("the standard input is longer than {max} bytes"));
    }
    Ok(bytes)
}

/// Opens a regular file; `None` if there is none.
pub fn open_if_exists(path: &Path) -> Result<Option<File>> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return unchecked(format!("{}: {error}", path.display())),
    };
    if !metadata.is_file() {
        return unchecked(format!("{} is not a file", path.display()));
    }
    File::open(path).map(Some).or_unchecked(path.display())
}

/// Reads a secret: a file that only its owner can read, as ssh demands of its keys.
pub fn read_secret(path: &Path, max: usize) -> Result<String> {
    let mode = fs::metadata(path).or_unchecked(path.display())?.mode();
    if mode & 0o077 != 0 {
        return unchecked(format!(
            "{} may be read or written by others (mode {:04o}); run: chmod 600 {0}",
            path.display(),
            mode & 0o7777
        ));
    }
    String::from_utf8(read(path, max)?).or_unchecked(path.display())
}

/// Writes a new file that only its owner can read; never replaces an existing one.
pub fn create_secret(path: &Path, content: &str) -> Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .or_unchecked(path.display())?;
    file.write_all(content.as_bytes()).and_then(|()| file.sync_all()).or_unchecked(path.display())
}

/// Makes a folder and those above it; only their owner can enter them if they are `secret`.
pub fn create_folders(path: &Path, secret: bool) -> Result<()> {
    let mode = if secret { 0o700 } else { 0o777 };
    DirBuilder::new().recursive(true).mode(mode).create(path).or_unchecked(path.display())
}

/// Replaces a file atomically: after a crash it is the old one or the new one, never a part.
pub fn write_atomically(path: &Path, content: &[u8]) -> Result<()> {
    replace(path, content, 0o666)
}

/// The same with a file that only its owner can read.
pub fn write_secret(path: &Path, content: &[u8]) -> Result<()> {
    replace(path, content, 0o600)
}

fn replace(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let folder = parent(path);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = folder.join(name);
    let write = || {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(&folder)?.sync_all()
    };
    write().inspect_err(|_| drop(fs::remove_file(&temporary))).or_unchecked(path.display())
}

/// The folder that a path lies in.
#[must_use]
pub fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Why a line could not be read.
#[derive(Debug)]
pub enum LineError {
    /// It is longer than so many bytes.
    TooLong(usize),
    /// The file ends within it.
    Cut,
    /// The file is not what a compressed file must be.
    Corrupt(io::Error),
    /// The system could not read the file. This says nothing about what it holds.
    Io(io::Error),
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong(max) => write!(f, "a line is longer than {max} bytes"),
            Self::Cut => f.write_str("the file ends within a line"),
            Self::Corrupt(error) | Self::Io(error) => error.fmt(f),
        }
    }
}

/// Reads the next line, without its newline, of at most `max` bytes; false at the end. A last line without a
/// newline is an error: it was cut.
pub fn read_line(
    reader: &mut impl BufRead,
    max: usize,
    line: &mut Vec<u8>,
) -> std::result::Result<bool, LineError> {
    line.clear();
    // An error of the system has its number, one of the decompressor has none.
    let classify = |error: io::Error| match error.raw_os_error() {
        Some(_) => LineError::Io(error),
        None => LineError::Corrupt(error),
    };
    reader.take(max as u64 + 1).read_until(b'\n', line).map_err(classify)?;
    match line.pop() {
        None => Ok(false),
        Some(b'\n') => Ok(true),
        Some(_) if line.len() >= max => Err(LineError::TooLong(max)),
        Some(_) => Err(LineError::Cut),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded_and_complete() {
        let mut line = Vec::new();
        let mut reader = &b"one\n\nthree"[..];
        assert!(read_line(&mut reader, 10, &mut line).unwrap() && line == b"one");
        assert!(read_line(&mut reader, 10, &mut line).unwrap() && line.is_empty());
        assert!(matches!(read_line(&mut reader, 10, &mut line), Err(LineError::Cut)));
        assert!(!read_line(&mut &b""[..], 10, &mut line).unwrap());
        assert!(read_line(&mut &b"12345\n"[..], 5, &mut line).unwrap());
        assert!(matches!(read_line(&mut &b"123456\n"[..], 5, &mut line), Err(LineError::TooLong(5))));
        let corrupt = zstd::encode_all(&b"one\n"[..], 3).unwrap();
        let mut decoder = io::BufReader::new(zstd::Decoder::new(&corrupt[..corrupt.len() - 2]).unwrap());
        assert!(matches!(read_line(&mut decoder, 10, &mut line), Err(LineError::Corrupt(_))));
    }

    #[test]
    fn secrets_are_not_shared_and_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        create_secret(&path, "x\n").unwrap();
        assert_eq!(read_secret(&path, 10).unwrap(), "x\n");
        assert!(create_secret(&path, "y\n").is_err());
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
        assert!(read_secret(&path, 10).unwrap_err().to_string().contains("chmod 600"));
    }

    #[test]
    fn a_file_is_replaced_completely_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        write_atomically(&path, b"one").unwrap();
        write_atomically(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(read(&path, 2).is_err());
        assert_eq!(read_if_exists(&folder.path().join("none"), 2), Ok(None));
        assert!(read(folder.path(), 2).is_err());
    }
}
