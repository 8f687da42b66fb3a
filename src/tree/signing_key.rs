//! The key that signs checkpoints: `audit_chain.signing_key_file`.

use crate::error::Error;
use crate::settings;
use audit_chain_core::key::{KeyKind, MAX_KEY, SigningKey};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Reads the key; `None` where none is configured. Refuses a file that others than the server's user may use.
pub fn signing_key() -> Result<Option<SigningKey>, Error> {
    let Some(path) = settings::signing_key_file() else { return Ok(None) };
    let unusable = |reason: String| Error::SigningKey { path: path.display().to_string(), reason };
    let text = read(path).map_err(|error| unusable(error.to_string()))?.map_err(unusable)?;
    let key = SigningKey::parse(&text).map_err(|error| unusable(error.to_string()))?;
    if key.verifier().kind() != KeyKind::Log {
        return Err(unusable("it is a witness's key, not a log's".into()));
    }
    Ok(Some(key))
}

/// The file's text; or why it cannot be a key's file.
fn read(path: &Path) -> std::io::Result<Result<String, String>> {
    if !std::fs::metadata(path)?.is_file() {
        return Ok(Err("it is not an ordinary file".into()));
    }
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    // A server runs in its data directory, which its own user owns: it would not have started otherwise.
    if metadata.uid() != 0 && metadata.uid() != std::fs::metadata(".")?.uid() {
        return Ok(Err("it belongs neither to the server's user nor to root".into()));
    }
    if metadata.mode() & 0o077 != 0 {
        return Ok(Err(format!(
            "its permissions {:04o} give access to others than its owner",
            metadata.mode() & 0o7777
        )));
    }
    let mut text = String::new();
    file.take(MAX_KEY as u64 + 2).read_to_string(&mut text)?;
    Ok(Ok(text))
}
