//! Signed notes (C2SP signed-note v1.0.0) with Ed25519 signatures and witnesses' cosignatures (C2SP
//! tlog-cosignature v1.0.1).
//!
//! **Invariant**: a [`Note`] is well-formed. What it says is verified only by [`Note::verify`].
//!
//! A checkpoint without any signature, which a server without a key issues, is the note's text alone, without
//! the blank line that begins the signatures. [`Note::parse`] accepts it; [`Note::is_signed`] says which it
//! is.

use crate::key::{KeyKind, SigningKey, VerifierKey};
use std::fmt;

/// The longest note that is read, in bytes.
pub const MAX_NOTE: usize = 64 * 1024;

/// The most signatures a note may have.
pub const MAX_SIGNATURES: usize = 32;

/// Why a note is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoteError {
    /// Longer than it may be, which is mostly [`MAX_NOTE`], or with more than [`MAX_SIGNATURES`] signatures.
    TooLarge,
    /// Not of the form of a note.
    Malformed,
    /// The note carries no signature at all.
    Unsigned,
    /// No signature is by one of the known keys.
    UnknownKeys,
    /// A signature in the name of a known key is not that key's.
    BadSignature {
        /// The key's name.
        name: String,
    },
}

impl fmt::Display for NoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge => {
                write!(
                    f,
                    "the note is longer than {MAX_NOTE} bytes or has more than {MAX_SIGNATURES} signatures"
                )
            }
            Self::Malformed => {
                f.write_str("malformed note: expected text, an empty line and signature lines")
            }
            Self::Unsigned => f.write_str("the note is not signed"),
            Self::UnknownKeys => f.write_str("the note is not signed by any of the given keys"),
            Self::BadSignature { name } => write!(f, "the signature of {name} is not valid"),
        }
    }
}

impl std::error::Error for NoteError {}

/// A signature that has been verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The key's name.
    pub name: String,
    /// The key's id.
    pub key_id: u32,
    /// A log's signature or a witness's.
    pub kind: KeyKind,
    /// When a witness signed: seconds since 1970-01-01 UTC.
    pub time: Option<u64>,
}

/// A text with its signatures, verified or not.
#[derive(Clone, Debug, PartialEq)]
pub struct Note {
    text: String,
    signatures: Vec<signed_note::Signature>,
}

impl Note {
    /// A note without signatures. The text must end with a newline and have neither an empty line nor control
    /// characters.
    pub fn new(text: &str) -> Result<Self, NoteError> {
        Self::with_limit(text, MAX_NOTE)
    }

    /// [`Note::new`] for a kind of text that may be longer than [`MAX_NOTE`].
    pub(crate) fn with_limit(text: &str, limit: usize) -> Result<Self, NoteError> {
        if text.len() > limit {
            return Err(NoteError::TooLarge);
        }
        if text == "\n" || text.starts_with('\n') || text.contains("\n\n") {
            return Err(NoteError::Malformed);
        }
        signed_note::Note::new(text.as_bytes(), &[]).map_err(|_| NoteError::Malformed)?;
        Ok(Self { text: text.to_owned(), signatures: Vec::new() })
    }

    /// Reads a note, signed or not.
    pub fn parse(bytes: &[u8]) -> Result<Self, NoteError> {
        Self::parse_with_limit(bytes, MAX_NOTE)
    }

    /// [`Note::parse`] for a kind of text that may be longer than [`MAX_NOTE`].
    pub(crate) fn parse_with_limit(bytes: &[u8], limit: usize) -> Result<Self, NoteError> {
        if bytes.len() > limit {
            return Err(NoteError::TooLarge);
        }
        let note = str::from_utf8(bytes).map_err(|_| NoteError::Malformed)?;
        let Some((text, signatures)) = note.rsplit_once("\n\n") else {
            return Self::with_limit(note, limit);
        };
        let mut parsed = Self::with_limit(&format!("{text}\n"), limit)?;
        let signatures = signatures.strip_suffix('\n').ok_or(NoteError::Malformed)?;
        for line in signatures.split('\n') {
            if parsed.signatures.len() == MAX_SIGNATURES {
                return Err(NoteError::TooLarge);
            }
            if line.chars().any(char::is_control) {
                return Err(NoteError::Malformed);
            }
            let signature =
                signed_note::Signature::from_bytes(line.as_bytes()).map_err(|_| NoteError::Malformed)?;
            parsed.signatures.push(signature);
        }
        Ok(parsed)
    }

    /// The text, over which the signatures are made.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it carries any signature.
    #[must_use]
    pub fn is_signed(&self) -> bool {
        !self.signatures.is_empty()
    }

    /// The names and ids of the keys that the signatures claim; not verified.
    pub fn claimed_keys(&self) -> impl Iterator<Item = (&str, u32)> {
        self.signatures.iter().map(|signature| (signature.name(), signature.id()))
    }

    /// Adds a log's signature. One by the same key is replaced.
    ///
    /// # Panics
    /// Where the key is a witness's, which signs with a time.
    pub fn sign(&mut self, key: &SigningKey) {
        assert_eq!(key.verifier().kind(), KeyKind::Log, "a witness's key signs with a time");
        self.add(key, key.sign(self.text.as_bytes()).to_vec());
    }

    /// Adds a witness's cosignature, given at `time` (seconds since 1970-01-01 UTC). One by the same key is
    /// replaced.
    ///
    /// # Panics
    /// Where the key is a log's, which signs without a time.
    pub fn cosign(&mut self, key: &SigningKey, time: u64) {
        assert_eq!(key.verifier().kind(), KeyKind::Witness, "a log's key signs without a time");
        let signature = key.sign(cosigned(time, &self.text).as_bytes());
        self.add(key, [&time.to_be_bytes()[..], &signature].concat());
    }

    fn add(&mut self, key: &SigningKey, bytes: Vec<u8>) {
        let (name, id) = (key.verifier().name(), key.verifier().id());
        self.signatures.retain(|signature| (signature.name(), signature.id()) != (name, id));
        let signature = signed_note::Signature::new(name.to_owned(), id, bytes);
        self.signatures.push(signature.expect("a key has a valid name"));
    }

    /// Checks the signatures of the given keys. Those of other keys are ignored, as the specification
    /// demands.
    ///
    /// An error unless at least one of the keys has signed, and none of their signatures is wrong.
    pub fn verify(&self, keys: &[VerifierKey]) -> Result<Vec<Verified>, NoteError> {
        if !self.is_signed() {
            return Err(NoteError::Unsigned);
        }
        let mut verified: Vec<Verified> = Vec::new();
        for signature in &self.signatures {
            let (name, key_id) = (signature.name(), signature.id());
            let Some(key) = keys.iter().find(|key| (key.name(), key.id()) == (name, key_id)) else {
                continue;
            };
            let time = check(key, &self.text, signature.signature())
                .ok_or_else(|| NoteError::BadSignature { name: name.to_owned() })?;
            if !verified.iter().any(|seen| (seen.name.as_str(), seen.key_id) == (name, key_id)) {
                verified.push(Verified { name: name.to_owned(), key_id, kind: key.kind(), time });
            }
        }
        if verified.is_empty() { Err(NoteError::UnknownKeys) } else { Ok(verified) }
    }
}

impl fmt::Display for Note {
    /// The note as it is stored and sent.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        if self.is_signed() {
            f.write_str("\n")?;
        }
        self.signatures.iter().try_for_each(|s| f.write_str(&String::from_utf8_lossy(&s.to_bytes())))
    }
}

/// The time of a valid signature (`Some(None)` for a log's); `None` if it is not valid.
fn check(key: &VerifierKey, text: &str, bytes: &[u8]) -> Option<Option<u64>> {
    match key.kind() {
        KeyKind::Log => key.accepts(text.as_bytes(), bytes.try_into().ok()?).then_some(None),
        KeyKind::Witness => {
            let (time, signature) = bytes.split_first_chunk()?;
            let time = u64::from_be_bytes(*time);
            if i64::try_from(time).is_err() {
                return None;
            }
            key.accepts(cosigned(time, text).as_bytes(), signature.try_into().ok()?).then_some(Some(time))
        }
    }
}

/// What a witness signs.
fn cosigned(time: u64, text: &str) -> String {
    format!("cosignature/v1\ntime {time}\n{text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log_key() -> SigningKey {
        SigningKey::from_seed("example.com/log", KeyKind::Log, &[1; 32]).unwrap()
    }

    fn witness_key() -> SigningKey {
        SigningKey::from_seed("witness.example", KeyKind::Witness, &[2; 32]).unwrap()
    }

    fn note() -> Note {
        let mut note = Note::new("one\ntwo\n").unwrap();
        note.sign(&log_key());
        note.cosign(&witness_key(), 1_700_000_000);
        note
    }

    /// The example of C2SP signed-note.
    #[test]
    fn the_published_example_verifies() {
        let key = VerifierKey::parse("example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k")
            .unwrap();
        let text = "This is an example message.\n\n— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2\
                    ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";
        let note = Note::parse(text.as_bytes()).unwrap();
        assert_eq!(note.to_string(), text);
        assert_eq!(note.verify(std::slice::from_ref(&key)).unwrap()[0].name, "example.com/foo");
        let other = Note::parse(text.replace("an example", "no example").as_bytes()).unwrap();
        assert_eq!(other.verify(&[key]), Err(NoteError::BadSignature { name: "example.com/foo".into() }));
    }

    /// The example of the Go project's note package: the same signature from the same private key.
    #[test]
    fn the_published_private_key_gives_the_published_signature() {
        let key = SigningKey::parse(
            "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz",
        )
        .unwrap();
        let mut note = Note::new(
            "If you think cryptography is the answer to your problem,\n\
             then you don't know what your problem is.\n",
        )
        .unwrap();
        note.sign(&key);
        assert!(note.to_string().ends_with(
            "\n\n— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6Ryy\
             BwJnAM=\n"
        ));
    }

    #[test]
    fn what_is_signed_verifies_and_nothing_else() {
        let (log, witness) = (log_key().verifier().clone(), witness_key().verifier().clone());
        let note = Note::parse(note().to_string().as_bytes()).unwrap();
        let verified = note.verify(&[log.clone(), witness.clone()]).unwrap();
        assert_eq!(verified.iter().map(|v| v.time).collect::<Vec<_>>(), [None, Some(1_700_000_000)]);
        assert_eq!(note.verify(std::slice::from_ref(&witness)).unwrap().len(), 1);
        let stranger = SigningKey::from_seed("example.com/log", KeyKind::Log, &[3; 32]).unwrap();
        assert_eq!(note.verify(&[stranger.verifier().clone()]), Err(NoteError::UnknownKeys));
        assert_eq!(note.verify(&[]), Err(NoteError::UnknownKeys));
        let unsigned = Note::new("one\ntwo\n").unwrap();
        assert_eq!(unsigned.verify(std::slice::from_ref(&log)), Err(NoteError::Unsigned));
        assert_eq!(Note::parse(unsigned.to_string().as_bytes()).unwrap(), unsigned);
        let changed = note.to_string().replace("two", "2");
        let changed = Note::parse(changed.as_bytes()).unwrap();
        for key in [log, witness] {
            assert!(matches!(changed.verify(&[key]), Err(NoteError::BadSignature { .. })));
        }
    }

    #[test]
    fn signing_again_replaces() {
        let mut note = note();
        note.cosign(&witness_key(), 1_800_000_000);
        assert_eq!(note.claimed_keys().count(), 2);
        assert_eq!(note.verify(&[witness_key().verifier().clone()]).unwrap()[0].time, Some(1_800_000_000));
    }

    #[test]
    fn malformed_notes_are_refused() {
        let good = note().to_string();
        let signature = good.lines().nth(3).unwrap();
        for bad in [
            "",
            "\n",
            "text",
            "text\n\n",
            "text\n\n\n",
            "te\txt\n",
            "te\rxt\n",
            "te\0xt\n",
            "\n\ntext\n",
            "text\n\nmore\n",
            "a\n\nb\n\n— x AAAA\n",
            "text\n\n— x AAAAAAA=\n\n",
            "text\n\n— x\n",
            "text\n\n— x  AAAAAAA=\n",
            "text\n\n— x+y AAAAAAA=\n",
            "text\n\n— x AAAAAA=\n",
            "text\n\n- x AAAAAAA=\n",
            &good[..good.len() - 1],
            &good.replace("— ", "—"),
            &format!("text\n\n{signature}"),
        ] {
            assert_eq!(Note::parse(bad.as_bytes()), Err(NoteError::Malformed), "{bad:?}");
        }
        assert_eq!(Note::parse(b"text\n\xFF\n"), Err(NoteError::Malformed));
        assert_eq!(Note::parse(&vec![b'x'; MAX_NOTE + 1]), Err(NoteError::TooLarge));
        let many = format!("text\n\n{}", format!("{signature}\n").repeat(MAX_SIGNATURES + 1));
        assert_eq!(Note::parse(many.as_bytes()), Err(NoteError::TooLarge));
        let sixteen = format!("text\n\n{}", format!("{signature}\n").repeat(16));
        assert!(Note::parse(sixteen.as_bytes()).is_ok(), "the specification demands at least 16");
    }

    #[test]
    #[should_panic(expected = "with a time")]
    fn a_witness_key_never_signs_as_a_log() {
        Note::new("x\n").unwrap().sign(&witness_key());
    }
}
