//! Checkpoints that come from elsewhere, and what must be checked before one counts.
//!
//! Texts that people keep go through terminals, editors, mail and `psql`, which drop or add a final newline,
//! end lines with CRLF, and put a byte order mark first. [`normalise`] undoes that and nothing else.
//!
//! **Invariants**
//! * A valid note or proof reads as the same value in whichever of these ways it was kept. The parsers stay
//!   strict.
//! * A [`VerifiedCheckpoint`] exists only if its origin is the log's identity and, if keys were given, one of
//!   them signed it and no signature by any of them is wrong.

use crate::{
    checkpoint::{Checkpoint, CheckpointError},
    identity::LogIdentity,
    key::VerifierKey,
    note::{Note, NoteError, Verified},
};
use std::{borrow::Cow, fmt};

/// How many bytes longer than its kind allows a kept text may be when it is read: line ends and newlines.
pub const KEPT_SLACK: usize = 4096;

/// The text as its parser expects it: without a byte order mark, with LF line ends and one final newline.
#[must_use]
pub fn normalise(kept: &[u8]) -> Cow<'_, [u8]> {
    let text = kept.strip_prefix("\u{FEFF}".as_bytes()).unwrap_or(kept);
    let end = text.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r')).map_or(0, |last| last + 1);
    let (body, rest) = text.split_at(end);
    let crlf = body.windows(2).any(|pair| pair == b"\r\n");
    match (crlf, rest.first()) {
        // Nothing but line ends.
        _ if body.is_empty() => Cow::Borrowed(body),
        (false, Some(b'\n')) => Cow::Borrowed(&text[..=end]),
        _ => {
            let mut clean = Vec::with_capacity(end + 1);
            for (at, &byte) in body.iter().enumerate() {
                if !(byte == b'\r' && body.get(at + 1) == Some(&b'\n')) {
                    clean.push(byte);
                }
            }
            clean.push(b'\n');
            Cow::Owned(clean)
        }
    }
}

/// Why a text is not a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SuppliedError {
    /// It is not a note.
    Note(NoteError),
    /// The note is not a checkpoint's.
    Checkpoint(CheckpointError),
}

impl fmt::Display for SuppliedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Note(error) => error.fmt(f),
            Self::Checkpoint(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for SuppliedError {}

/// A checkpoint that somebody kept elsewhere and supplies; nothing of it is verified.
#[derive(Clone, Debug, PartialEq)]
pub struct SuppliedCheckpoint {
    note: Note,
    checkpoint: Checkpoint,
}

impl SuppliedCheckpoint {
    /// Reads a checkpoint as people keep it ([`normalise`]).
    pub fn parse(kept: &[u8]) -> Result<Self, SuppliedError> {
        Self::parse_strict(&normalise(kept))
    }

    /// Reads a checkpoint as it was issued, byte for byte.
    pub fn parse_strict(bytes: &[u8]) -> Result<Self, SuppliedError> {
        let note = Note::parse(bytes).map_err(SuppliedError::Note)?;
        let checkpoint = Checkpoint::parse(note.text()).map_err(SuppliedError::Checkpoint)?;
        Ok(Self { note, checkpoint })
    }

    /// How many entries it seals.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.checkpoint.size
    }

    /// What it claims.
    #[must_use]
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The note, with its signatures.
    #[must_use]
    pub fn note(&self) -> &Note {
        &self.note
    }

    /// Compares the origin with the log's identity and verifies the signatures by the given keys; without
    /// keys, signatures are not looked at.
    pub fn verify(
        &self,
        identity: Option<&LogIdentity>,
        keys: &[VerifierKey],
    ) -> Result<VerifiedCheckpoint, CheckpointFault> {
        let ours = identity.map(|identity| identity.origin_of(self.checkpoint.size));
        if ours.as_ref() != Some(&self.checkpoint.origin) {
            let found = self.checkpoint.origin.clone();
            let forked = identity.is_some_and(|identity| identity.had_origin(&found));
            return Err(CheckpointFault::Origin { found, ours, forked });
        }
        let signed_by = if keys.is_empty() { Vec::new() } else { self.note.verify(keys)? };
        Ok(VerifiedCheckpoint { checkpoint: self.checkpoint.clone(), signed_by })
    }
}

/// Why a checkpoint does not count for a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckpointFault {
    /// It names another log.
    Origin {
        /// The log that it names.
        found: String,
        /// This log's name; `None` if the log has no identity.
        ours: Option<String>,
        /// Whether that is the log that this one was forked from, or was before it was forked.
        forked: bool,
    },
    /// The given keys did not sign it, or a signature is wrong.
    Signature(NoteError),
}

impl fmt::Display for CheckpointFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Origin { found, ours: Some(ours), forked: true } => {
                write!(
                    f,
                    "it is a checkpoint of {found}, from which this log, {ours}, was forked at another size"
                )
            }
            Self::Origin { found, ours: Some(ours), .. } => {
                write!(f, "it is a checkpoint of the log {found}, this log is {ours}")
            }
            Self::Origin { found, ours: None, .. } => {
                write!(f, "it is a checkpoint of the log {found}, this log has no identity")
            }
            Self::Signature(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for CheckpointFault {}

impl From<NoteError> for CheckpointFault {
    fn from(error: NoteError) -> Self {
        Self::Signature(error)
    }
}

/// A checkpoint of this log, signed by a given key if keys were given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedCheckpoint {
    checkpoint: Checkpoint,
    signed_by: Vec<Verified>,
}

impl VerifiedCheckpoint {
    /// The checkpoint.
    #[must_use]
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The signatures that were verified; none without keys.
    #[must_use]
    pub fn signed_by(&self) -> &[Verified] {
        &self.signed_by
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        checkpoint::default_origin,
        key::{KeyKind, SigningKey},
        proof_text::{ConsistencyProof, InclusionProof},
    };
    use proptest::prelude::*;

    const LOG: [u8; 16] = [7; 16];

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed("example.com/log", KeyKind::Log, &[seed; 32]).unwrap()
    }

    fn note(signed: bool) -> Note {
        let checkpoint = Checkpoint::new(&default_origin(&LOG), 3, [9; 32]).unwrap();
        let mut note = Note::new(&checkpoint.to_string()).unwrap();
        if signed {
            note.sign(&key(1));
        }
        note
    }

    /// What terminals, editors and programs do to a text.
    fn damaged(text: &str, mark: bool, crlf: bool, newlines: usize) -> Vec<u8> {
        let text = format!("{}{}", text.trim_end_matches('\n'), "\n".repeat(newlines));
        let text = if crlf { text.replace('\n', "\r\n") } else { text };
        format!("{}{text}", if mark { "\u{FEFF}" } else { "" }).into_bytes()
    }

    proptest! {
        /// However a valid note or proof is kept, it gives the same value.
        #[test]
        fn kept_texts_read_as_issued(
            mark: bool, crlf: bool, newlines in 0_usize..5, signed: bool,
            hashes in prop::collection::vec(any::<[u8; 32]>(), 0..5), leaf: Option<Vec<u8>>, index in 0_u64..9,
        ) {
            let kept = |text: &str| damaged(text, mark, crlf, newlines);
            let note = note(signed);
            let text = note.to_string();
            prop_assert_eq!(&*normalise(text.as_bytes()), text.as_bytes());
            let supplied = SuppliedCheckpoint::parse(&kept(&text)).unwrap();
            prop_assert_eq!(supplied.note(), &note);
            prop_assert_eq!(supplied.size(), 3);
            let inclusion = InclusionProof { leaf, index, hashes: hashes.clone(), note: note.clone() };
            let read = InclusionProof::parse(&normalise(&kept(&inclusion.to_string())));
            prop_assert_eq!(read.unwrap(), inclusion);
            let consistency = ConsistencyProof { old: index, hashes, note };
            let read = ConsistencyProof::parse(&normalise(&kept(&consistency.to_string())));
            prop_assert_eq!(read.unwrap(), consistency);
        }
    }

    #[test]
    fn damage_within_a_text_stays_damage() {
        let text = note(true).to_string();
        for bad in [
            text.replacen('\n', "\n\n", 1),
            text.replacen('\n', "\r", 1),
            text.replacen('\n', " \n", 1),
            format!(" {text}"),
            format!("{text} "),
            String::new(),
            "\n\n".into(),
            "\u{FEFF}".into(),
        ] {
            let read = SuppliedCheckpoint::parse(bad.as_bytes());
            assert!(
                read.as_ref().map_or(true, |read| read.checkpoint.origin != default_origin(&LOG)),
                "{bad:?}"
            );
        }
        assert!(SuppliedCheckpoint::parse_strict(text.trim_end().as_bytes()).is_err(), "strict is strict");
    }

    #[test]
    fn a_checkpoint_counts_for_its_log_and_by_its_key_only() {
        let keys = |seed| [key(seed).verifier().clone()];
        let signed = SuppliedCheckpoint::parse(note(true).to_string().as_bytes()).unwrap();
        let unsigned = SuppliedCheckpoint::parse(note(false).to_string().as_bytes()).unwrap();
        let verified = signed.verify(Some(&LogIdentity::new(LOG)), &keys(1)).unwrap();
        assert_eq!((verified.checkpoint().size, verified.signed_by().len()), (3, 1));
        assert!(unsigned.verify(Some(&LogIdentity::new(LOG)), &[]).unwrap().signed_by().is_empty());
        let fault = |supplied: &SuppliedCheckpoint, id: Option<[u8; 16]>, keys: &[VerifierKey]| {
            supplied.verify(id.map(LogIdentity::new).as_ref(), keys).unwrap_err()
        };
        assert_eq!(fault(&signed, Some(LOG), &keys(2)), CheckpointFault::Signature(NoteError::UnknownKeys));
        assert_eq!(fault(&unsigned, Some(LOG), &keys(1)), CheckpointFault::Signature(NoteError::Unsigned));
        for id in [Some([8; 16]), None] {
            assert!(matches!(fault(&signed, id, &keys(1)), CheckpointFault::Origin { .. }));
        }
    }
}
