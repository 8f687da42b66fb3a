//! Signing keys and verifier keys: one line of text each, as C2SP signed-note and its first implementation
//! write them.
//!
//! * verifier key: `<name>+<key id, 8 hex digits>+<base64 of type byte and public key>`
//! * private key: `PRIVATE+KEY+<name>+<key id>+<base64 of type byte and 32-byte seed>`
//!
//! **Invariant**: a key's id is the one that follows from its name, type and public key, so that a key that
//! was cut, renamed or pasted together is refused when it is read.

use crate::text;
use ed25519_dalek::{Signature, Signer, SigningKey as Ed25519, VerifyingKey};
use std::fmt;

/// The longest key name, in bytes.
pub const MAX_NAME: usize = 255;

/// The longest key, in bytes, of either kind.
pub const MAX_KEY: usize = 512;

/// What a key signs, which is also its type byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// The log's own key: Ed25519 over the note's text (type 0x01).
    Log,
    /// A witness's key: Ed25519 over the time and the note's text (type 0x04, C2SP tlog-cosignature).
    Witness,
}

impl KeyKind {
    fn byte(self) -> u8 {
        match self {
            Self::Log => 1,
            Self::Witness => 4,
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Log),
            4 => Some(Self::Witness),
            _ => None,
        }
    }
}

/// Why a text is not a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// Not of the form that a key has.
    Malformed,
    /// The name is empty or too long, or has a space, a plus or a control character.
    Name,
    /// A kind of key that this program does not know.
    Kind,
    /// The key id does not belong to the name and the key: the key was damaged or put together from two.
    Id,
    /// A private key where a verifier key was expected.
    Private,
    /// A verifier key where a private key was expected.
    Public,
    /// A list of keys without a key.
    None,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => {
                "malformed key: expected one line, name+id+base64 or PRIVATE+KEY+name+id+base64"
            }
            Self::Name => {
                "a key's name must have 1 to 255 bytes, without spaces, plus signs or control characters"
            }
            Self::Kind => "unknown kind of key: only Ed25519 keys of logs (1) and witnesses (4) are known",
            Self::Id => "the key's id does not belong to its name and key: it was damaged or put together",
            Self::Private => "this is a private key; a verifier key is needed here",
            Self::Public => "this is a verifier key; a private key is needed here",
            Self::None => "there is no key in it",
        })
    }
}

impl std::error::Error for KeyError {}

/// Whether a key may have this name.
#[must_use]
pub fn is_valid_name(name: &str) -> bool {
    signed_note::is_key_name_valid(name) && name.len() <= MAX_NAME && !name.chars().any(char::is_control)
}

/// A public key, with the name it signs under.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    kind: KeyKind,
    id: u32,
    key: VerifyingKey,
}

impl VerifierKey {
    fn new(name: &str, kind: KeyKind, key: VerifyingKey) -> Result<Self, KeyError> {
        if !is_valid_name(name) {
            return Err(KeyError::Name);
        }
        let id = signed_note::key_id(name, &typed(kind, key.as_bytes()));
        Ok(Self { name: name.to_owned(), kind, id, key })
    }

    /// Reads one line: `name+id+base64`. A newline at its end is allowed.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let text = one_line(text)?;
        if text.starts_with("PRIVATE+KEY+") {
            return Err(KeyError::Private);
        }
        let (name, kind, id, bytes) = parts(text)?;
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| KeyError::Malformed)?;
        if key.is_weak() {
            return Err(KeyError::Malformed);
        }
        let key = Self::new(name, kind, key)?;
        if key.id == id { Ok(key) } else { Err(KeyError::Id) }
    }

    /// Reads a list of keys, one a line. Empty lines and lines that begin with `#` are ignored; there must be
    /// a key.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, KeyError> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let keys = lines.map(Self::parse).collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() { Err(KeyError::None) } else { Ok(keys) }
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it signs.
    #[must_use]
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The id that its signatures carry.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Whether `signature` is this key's over `message`. Stricter than RFC 8032 demands: a signature cannot
    /// be varied.
    pub(crate) fn accepts(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        self.key.verify_strict(message, &Signature::from_bytes(signature)).is_ok()
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{:08x}+{}", self.name, self.id, text::base64(typed(self.kind, self.key.as_bytes())))
    }
}

impl fmt::Debug for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A private key, with the name it signs under. Its memory is overwritten when it is dropped.
#[derive(Clone)]
pub struct SigningKey {
    verifier: VerifierKey,
    key: Ed25519,
}

impl SigningKey {
    /// A key from 32 secret random bytes.
    pub fn from_seed(name: &str, kind: KeyKind, seed: &[u8; 32]) -> Result<Self, KeyError> {
        let key = Ed25519::from_bytes(seed);
        Ok(Self { verifier: VerifierKey::new(name, kind, key.verifying_key())?, key })
    }

    /// Reads one line: `PRIVATE+KEY+name+id+base64`. A newline at its end is allowed.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let text = one_line(text)?;
        let Some(text) = text.strip_prefix("PRIVATE+KEY+") else {
            let public = VerifierKey::parse(text).is_ok();
            return Err(if public { KeyError::Public } else { KeyError::Malformed });
        };
        let (name, kind, id, seed) = parts(text)?;
        let key = Self::from_seed(name, kind, &seed)?;
        if key.verifier.id == id { Ok(key) } else { Err(KeyError::Id) }
    }

    /// The line that [`SigningKey::parse`] reads, without a newline. A secret.
    #[must_use]
    pub fn to_private_string(&self) -> String {
        let VerifierKey { name, id, kind, .. } = &self.verifier;
        format!("PRIVATE+KEY+{name}+{id:08x}+{}", text::base64(typed(*kind, self.key.as_bytes())))
    }

    /// The public key that belongs to it.
    #[must_use]
    pub fn verifier(&self) -> &VerifierKey {
        &self.verifier
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).to_bytes()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PRIVATE+KEY+… of {}", self.verifier)
    }
}

fn typed(kind: KeyKind, key: &[u8; 32]) -> [u8; 33] {
    let mut bytes = [kind.byte(); 33];
    bytes[1..].copy_from_slice(key);
    bytes
}

fn one_line(text: &str) -> Result<&str, KeyError> {
    let line = text.strip_suffix('\n').unwrap_or(text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.len() > MAX_KEY || line.contains(['\n', '\r']) { Err(KeyError::Malformed) } else { Ok(line) }
}

fn parts(text: &str) -> Result<(&str, KeyKind, u32, [u8; 32]), KeyError> {
    let mut parts = text.splitn(3, '+');
    let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(KeyError::Malformed);
    };
    if id.len() != 8 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(KeyError::Malformed);
    }
    let id = u32::from_str_radix(id, 16).map_err(|_| KeyError::Malformed)?;
    let bytes = text::unbase64(key).ok_or(KeyError::Malformed)?;
    let (&kind, key) = bytes.split_first().ok_or(KeyError::Malformed)?;
    let kind = KeyKind::from_byte(kind).ok_or(KeyError::Kind)?;
    if !is_valid_name(name) {
        return Err(KeyError::Name);
    }
    Ok((name, kind, id, key.try_into().map_err(|_| KeyError::Malformed)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example key of C2SP signed-note.
    const EXAMPLE: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
    /// The key pair that the note package of the Go project publishes in its documentation.
    const PRIVATE: &str = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
    const PUBLIC: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";

    #[test]
    fn a_list_of_keys_has_one_a_line_and_at_least_one() {
        let key =
            SigningKey::from_seed("example.com/log", KeyKind::Log, &[1; 32]).unwrap().verifier().clone();
        let list = format!("# the log\r\n\r\n  {key}\r\n{key}");
        assert_eq!(VerifierKey::parse_list(&list), Ok(vec![key.clone(), key.clone()]));
        assert_eq!(VerifierKey::parse_list("\n# nothing\n"), Err(KeyError::None));
        assert_eq!(VerifierKey::parse_list(&format!("{key}\nx")), Err(KeyError::Malformed));
    }

    #[test]
    fn published_keys_are_read_and_written() {
        for key in [EXAMPLE, PUBLIC] {
            assert_eq!(VerifierKey::parse(key).unwrap().to_string(), key);
        }
        let private = SigningKey::parse(&format!("{PRIVATE}\n")).unwrap();
        assert_eq!(private.to_private_string(), PRIVATE);
        assert_eq!(private.verifier().to_string(), PUBLIC);
    }

    #[test]
    fn damaged_keys_are_refused() {
        use KeyError::*;
        let public = |text: &str| VerifierKey::parse(text).unwrap_err();
        assert_eq!(public(PRIVATE), Private);
        assert_eq!(public(&PUBLIC.replace("Peter", "Pater")), Id);
        assert_eq!(public(&PUBLIC.replace("c74f20a3", "c74f20a4")), Id);
        assert_eq!(public(&PUBLIC.replace("+AR", "+Ah")), Kind);
        assert_eq!(public(&PUBLIC.replace("PeterN", "Peter N")), Name);
        assert_eq!(public(&PUBLIC.replace("PeterNeumann", "")), Name);
        assert_eq!(public(&PUBLIC.replace("PeterNeumann", &"x".repeat(256))), Name);
        for malformed in
            ["", "+", "a+b", "a+00000000+", "a+0+AA==", &PUBLIC[..PUBLIC.len() - 4], &"x".repeat(9999)]
        {
            assert_eq!(public(malformed), Malformed, "{malformed}");
        }
        assert_eq!(public(&format!("{PUBLIC}\n{PUBLIC}")), Malformed);
        assert_eq!(SigningKey::parse(PUBLIC).unwrap_err(), Public);
        assert_eq!(SigningKey::parse(&PRIVATE.replace("AYEK", "AYEL")).unwrap_err(), Id);
        assert_eq!(SigningKey::parse("").unwrap_err(), Malformed);
    }

    #[test]
    fn the_same_bytes_as_log_and_as_witness_are_two_keys() {
        let log = SigningKey::from_seed("a", KeyKind::Log, &[1; 32]).unwrap();
        let witness = SigningKey::from_seed("a", KeyKind::Witness, &[1; 32]).unwrap();
        assert_ne!(log.verifier().id(), witness.verifier().id());
        assert_eq!(VerifierKey::parse(&witness.verifier().to_string()).unwrap().kind(), KeyKind::Witness);
    }

    #[test]
    fn a_private_key_is_not_printed() {
        let printed = format!("{:?}", SigningKey::parse(PRIVATE).unwrap());
        assert!(printed.contains("c74f20a3") && !printed.contains("AYEK"), "{printed}");
    }
}
