//! `keygen`, `pubkey`, and the keys given to other commands.

use crate::{
    files,
    outcome::{OrFailure, Result, unchecked},
};
use audit_chain_core::{
    key::{KeyKind, MAX_KEY, SigningKey, VerifierKey},
    supplied::normalise,
};
use std::path::Path;

/// The longest file of verifier keys.
const MAX_KEY_FILE: usize = 64 * 1024;

/// Makes a key, writes it to a new file that only its owner can read, and returns its public key.
pub fn generate(name: &str, kind: KeyKind, path: &Path) -> Result<VerifierKey> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).or_unchecked("no randomness")?;
    let key = SigningKey::from_seed(name, kind, &seed).or_unchecked(format!("{name:?}"))?;
    let folder = files::parent(path);
    if let Err(failure) = files::create_folders(&folder, true) {
        let user = whoami::username().unwrap_or_else(|_| "USER".into());
        return unchecked(format!(
            "{failure}; make the folder first, as root: install -d -m 700 -o {user} '{}'",
            folder.display()
        ));
    }
    files::create_secret(path, &(key.to_private_string() + "\n"))?;
    Ok(key.verifier().clone())
}

/// Reads a private key.
pub fn read_private(path: &Path) -> Result<SigningKey> {
    SigningKey::parse(&files::read_secret(path, MAX_KEY)?).or_unchecked(path.display())
}

/// The verifier keys of the command line: each is a key, or a file with one key a line. Empty lines and lines
/// that begin with `#` are ignored.
pub fn verifier_keys(given: &[String]) -> Result<Vec<VerifierKey>> {
    let mut keys = Vec::new();
    for given in given {
        if Path::new(given).is_file() {
            let text = files::read(Path::new(given), MAX_KEY_FILE)?;
            let text = String::from_utf8(normalise(&text).into_owned()).or_unchecked(given)?;
            keys.extend(VerifierKey::parse_list(&text).or_unchecked(given)?);
        } else {
            keys.push(
                VerifierKey::parse(given)
                    .or_unchecked(format!("--key {given:?} is neither a file nor a key"))?,
            );
        }
    }
    Ok(keys)
}
