//! The erasure register: which payloads and who-parts were erased from a log, as a signed note (C2SP
//! signed-note).
//!
//! Whoever keeps an export from before an erasure erases the same places there by the register. It names no
//! row and no person.
//!
//! ```text
//! audit_chain erasures v1
//! audit_chain/3c1f8a52-0d0e-4c55-9a37-0f6b1e8c7a11
//! payload 0 17 17 6f1d9c2e-5b7a-4c3d-8e9f-0a1b2c3d4e5f
//! who 65536 4 9 6f1d9c2e-5b7a-4c3d-8e9f-0a1b2c3d4e5f
//!
//! — example.com/log m+XTxj/qjbq…
//! ```
//!
//! After the constant and the log's name, each line has the part, the chain, the first and the last place,
//! and the request. The second line of a checkpoint is a number, so no signature of one counts for the other.
//!
//! **Invariant**: a [`Register`] has one text. Its ranges ascend by part, chain and place, and do not
//! overlap.

use crate::{
    checkpoint::is_valid_origin,
    erasure::{ErasedPart, PlaceRange, Places},
    format::{MAX_CHAIN, MAX_SEQ},
    identity::LogIdentity,
    key::{SigningKey, VerifierKey},
    note::{Note, NoteError, Verified},
    supplied::normalise,
    text,
};
use std::{fmt, fmt::Write as _};
use uuid::Uuid;

/// The first line.
const HEADER: &str = "audit_chain erasures v1";

/// The longest register that is read, in bytes.
pub const MAX_REGISTER: usize = 256 << 20;

/// Why a text is not a register, or does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegisterError {
    /// It is not a note, or not signed as it must be.
    Note(NoteError),
    /// The first line is another one.
    Header,
    /// The second line is not the name of a log.
    Origin,
    /// A line is not a range.
    Line {
        /// Its number, from 1.
        number: usize,
    },
    /// A line does not come after the one before.
    Order {
        /// Its number, from 1.
        number: usize,
    },
    /// It is the register of another log.
    OtherLog {
        /// The log that it names.
        found: String,
    },
}

impl fmt::Display for RegisterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Note(error) => error.fmt(f),
            Self::Header => write!(f, "not an erasure register: the first line is not \"{HEADER}\""),
            Self::Origin => {
                f.write_str("malformed erasure register: the second line is not the name of a log")
            }
            Self::Line { number } => {
                write!(
                    f,
                    "malformed erasure register: line {number} is not \"part chain first last request\""
                )
            }
            Self::Order { number } => write!(
                f,
                "malformed erasure register: line {number} does not come after the line before, or overlaps it"
            ),
            Self::OtherLog { found } => write!(f, "it is the erasure register of the log {found}"),
        }
    }
}

impl std::error::Error for RegisterError {}

impl From<NoteError> for RegisterError {
    fn from(error: NoteError) -> Self {
        Self::Note(error)
    }
}

/// Places that lost a part by one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ErasedRange {
    /// What was erased.
    pub part: ErasedPart,
    /// Where.
    pub places: PlaceRange,
    /// The request.
    pub request: Uuid,
}

/// The erasures of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Register {
    origin: String,
    ranges: Vec<ErasedRange>,
}

impl Register {
    /// The register of the log of this name. Ranges may come in any order; where two overlap, the places
    /// count for the one that comes first by its place.
    pub fn new(origin: &str, ranges: Vec<ErasedRange>) -> Result<Self, RegisterError> {
        if !is_valid_origin(origin) {
            return Err(RegisterError::Origin);
        }
        let mut ranges = ranges;
        ranges.sort_unstable();
        let mut apart: Vec<ErasedRange> = Vec::with_capacity(ranges.len());
        for mut range in ranges {
            if let Some(before) = apart.last()
                && (before.part, before.places.chain) == (range.part, range.places.chain)
            {
                let next = before.places.last_seq.saturating_add(1);
                range.places.first_seq = range.places.first_seq.max(next);
            }
            let PlaceRange { chain, first_seq, last_seq } = range.places;
            if chain <= MAX_CHAIN && first_seq > 0 && first_seq <= last_seq && last_seq <= MAX_SEQ {
                apart.push(range);
            }
        }
        Ok(Self { origin: origin.to_owned(), ranges: apart })
    }

    /// Reads a note's text.
    pub fn parse(note_text: &str) -> Result<Self, RegisterError> {
        let body = note_text.strip_suffix('\n').ok_or(RegisterError::Header)?;
        let mut lines = body.split('\n').zip(1..);
        if lines.next().is_none_or(|(line, _)| line != HEADER) {
            return Err(RegisterError::Header);
        }
        let origin = lines.next().map(|(line, _)| line).filter(|line| is_valid_origin(line));
        let origin = origin.ok_or(RegisterError::Origin)?.to_owned();
        let mut ranges: Vec<ErasedRange> = Vec::new();
        for (line, number) in lines {
            let range = range_of(line).ok_or(RegisterError::Line { number })?;
            let key = |range: &ErasedRange, seq| (range.part, range.places.chain, seq);
            let follows = |before: &ErasedRange| {
                key(before, before.places.last_seq) < key(&range, range.places.first_seq)
            };
            if !ranges.last().is_none_or(follows) {
                return Err(RegisterError::Order { number });
            }
            ranges.push(range);
        }
        Ok(Self { origin, ranges })
    }

    /// The register as a note, signed if there is a key.
    pub fn to_note(&self, key: Option<&SigningKey>) -> Result<Note, RegisterError> {
        let mut note = Note::with_limit(&self.to_string(), MAX_REGISTER)?;
        key.into_iter().for_each(|key| note.sign(key));
        Ok(note)
    }

    /// The log's name.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// What was erased, by part, chain and place.
    #[must_use]
    pub fn ranges(&self) -> &[ErasedRange] {
        &self.ranges
    }

    /// The places that lost a part.
    #[must_use]
    pub fn places(&self, part: ErasedPart) -> Places {
        let mut places = Places::default();
        let of_part = self.ranges.iter().filter(|range| range.part == part);
        of_part.for_each(|range| places.add_range(range.places));
        places
    }

    /// Whether this place lost a part.
    #[must_use]
    pub fn covers(&self, part: ErasedPart, chain: u32, seq: u64) -> bool {
        let key = |range: &ErasedRange| (range.part, range.places.chain, range.places.last_seq);
        let at = self.ranges.partition_point(|range| key(range) < (part, chain, seq));
        self.ranges.get(at).is_some_and(|range| {
            (range.part, range.places.chain) == (part, chain) && range.places.first_seq <= seq
        })
    }
}

fn range_of(line: &str) -> Option<ErasedRange> {
    let mut words = line.split(' ');
    let part = ErasedPart::of_name(words.next()?)?;
    let chain = u32::try_from(text::number(words.next()?)?).ok().filter(|&chain| chain <= MAX_CHAIN)?;
    let (first_seq, last_seq) = (text::number(words.next()?)?, text::number(words.next()?)?);
    let request = words.next()?;
    let id = Uuid::try_parse(request).ok().filter(|id| id.to_string() == request)?;
    let is_range = words.next().is_none() && 0 < first_seq && first_seq <= last_seq && last_seq <= MAX_SEQ;
    is_range.then_some(ErasedRange { part, places: PlaceRange { chain, first_seq, last_seq }, request: id })
}

impl fmt::Display for Register {
    /// The text that a note signs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEADER}\n{}", self.origin)?;
        let mut line = String::new();
        for ErasedRange { part, places, request } in &self.ranges {
            line.clear();
            let PlaceRange { chain, first_seq, last_seq } = places;
            writeln!(line, "{} {chain} {first_seq} {last_seq} {request}", part.name())?;
            f.write_str(&line)?;
        }
        Ok(())
    }
}

/// A register that somebody supplies; its signatures are not verified.
#[derive(Clone, Debug, PartialEq)]
pub struct SuppliedRegister {
    note: Note,
    register: Register,
}

impl SuppliedRegister {
    /// Reads a register as people keep it ([`normalise`]).
    pub fn parse(kept: &[u8]) -> Result<Self, RegisterError> {
        let note = Note::parse_with_limit(&normalise(kept), MAX_REGISTER)?;
        let register = Register::parse(note.text())?;
        Ok(Self { note, register })
    }

    /// What it says.
    #[must_use]
    pub fn register(&self) -> &Register {
        &self.register
    }

    /// The note, with its signatures.
    #[must_use]
    pub fn note(&self) -> &Note {
        &self.note
    }

    /// Whether it is the register of this log, under any of its names.
    pub fn is_of(&self, identity: Option<&LogIdentity>) -> Result<(), RegisterError> {
        if identity.is_some_and(|identity| identity.had_origin(&self.register.origin)) {
            return Ok(());
        }
        Err(RegisterError::OtherLog { found: self.register.origin.clone() })
    }

    /// Verifies that one of the keys signed it, and that no signature by any of them is wrong.
    pub fn verify(&self, keys: &[VerifierKey]) -> Result<Vec<Verified>, RegisterError> {
        Ok(self.note.verify(keys)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        checkpoint::{Checkpoint, default_origin},
        key::KeyKind,
    };
    use proptest::prelude::*;

    const LOG: [u8; 16] = [7; 16];

    fn key() -> SigningKey {
        SigningKey::from_seed("example.com/log", KeyKind::Log, &[1; 32]).unwrap()
    }

    fn range(part: ErasedPart, chain: u32, first_seq: u64, last_seq: u64) -> ErasedRange {
        let request = Uuid::from_bytes([last_seq as u8; 16]);
        ErasedRange { part, places: PlaceRange { chain, first_seq, last_seq }, request }
    }

    fn register() -> Register {
        let ranges = vec![
            range(ErasedPart::Who, 3, 1, 9),
            range(ErasedPart::Payload, 65_536, 4, 4),
            range(ErasedPart::Payload, 0, 7, 8),
        ];
        Register::new(&default_origin(&LOG), ranges).unwrap()
    }

    #[test]
    fn a_register_is_signed_and_read_as_it_was_written() {
        let note = register().to_note(Some(&key())).unwrap();
        let text = note.to_string();
        assert!(text.starts_with(
            "audit_chain erasures v1\naudit_chain/07070707-0707-0707-0707-070707070707\n\
             payload 0 7 8 08080808-0808-0808-0808-080808080808\npayload 65536 4 4 "
        ));
        for kept in [text.clone(), text.replace('\n', "\r\n"), text.trim_end().into()] {
            let supplied = SuppliedRegister::parse(kept.as_bytes()).unwrap();
            assert_eq!((supplied.register(), supplied.note()), (&register(), &note));
            assert_eq!(supplied.verify(&[key().verifier().clone()]).unwrap().len(), 1);
            assert_eq!(supplied.is_of(Some(&LogIdentity::new(LOG))), Ok(()));
            assert!(
                supplied.is_of(Some(&LogIdentity::new([8; 16]))).is_err() && supplied.is_of(None).is_err()
            );
        }
        let unsigned = register().to_note(None).unwrap().to_string();
        let unsigned = SuppliedRegister::parse(unsigned.as_bytes()).unwrap();
        assert_eq!(
            unsigned.verify(&[key().verifier().clone()]),
            Err(RegisterError::Note(NoteError::Unsigned))
        );
        let forged = text.replacen(" 7 8 ", " 6 8 ", 1);
        let forged = SuppliedRegister::parse(forged.as_bytes()).unwrap();
        assert!(forged.verify(&[key().verifier().clone()]).is_err());
        let empty = Register::new("log", Vec::new()).unwrap();
        assert_eq!(Register::parse(&empty.to_string()), Ok(empty));
    }

    #[test]
    fn a_register_is_no_checkpoint() {
        assert!(Checkpoint::parse(&register().to_string()).is_err());
        let checkpoint = Checkpoint::new(HEADER, 5, [1; 32]).unwrap().to_string();
        assert!(Register::parse(&checkpoint).is_err());
    }

    #[test]
    fn a_long_register_is_read() {
        let ranges = (1..5000).map(|n| range(ErasedPart::Payload, 0, n * 2, n * 2)).collect();
        let register = Register::new("log", ranges).unwrap();
        let text = register.to_note(Some(&key())).unwrap().to_string();
        assert!(text.len() > crate::note::MAX_NOTE);
        assert_eq!(SuppliedRegister::parse(text.as_bytes()).unwrap().register(), &register);
    }

    #[test]
    fn malformed_registers_are_refused() {
        let good = register().to_string();
        for (from, to, error) in [
            ("erasures v1", "erasures v2", RegisterError::Header),
            ("audit_chain/", "audit\u{7f}chain/", RegisterError::Origin),
            ("payload 0", "row 0", RegisterError::Line { number: 3 }),
            ("payload 0 7 8", "payload 0 8 7", RegisterError::Line { number: 3 }),
            ("payload 0 7 8", "payload 0 0 8", RegisterError::Line { number: 3 }),
            ("payload 0 7 8", "payload 00 7 8", RegisterError::Line { number: 3 }),
            ("payload 0 7 8", "payload 0  7 8", RegisterError::Line { number: 3 }),
            ("payload 0 7 8", "payload 2147483648 7 8", RegisterError::Line { number: 3 }),
            ("payload 0 7", "payload 0 7 7", RegisterError::Line { number: 3 }),
            ("payload 0 7 8", "who 0 7 8", RegisterError::Order { number: 4 }),
            ("payload 65536 4 4", "payload 0 8 8", RegisterError::Order { number: 4 }),
            ("0808-0808-0808-", "080808080808", RegisterError::Line { number: 3 }),
        ] {
            let bad = good.replacen(from, to, 1);
            assert_ne!(bad, good);
            assert_eq!(Register::parse(&bad), Err(error), "{bad}");
        }
        assert_eq!(Register::parse(good.trim_end()).unwrap_err(), RegisterError::Header);
        assert_eq!(Register::new("", Vec::new()), Err(RegisterError::Origin));
    }

    proptest! {
        /// Whatever ranges it is made of, it covers their places, and reads as it was written.
        #[test]
        fn a_register_covers_its_ranges(
            ranges in prop::collection::vec((any::<bool>(), 0_u32..3, 1_u64..40, 0_u64..9), 0..30),
        ) {
            let ranges: Vec<ErasedRange> = ranges
                .into_iter()
                .map(|(who, chain, first, more)| {
                    let part = if who { ErasedPart::Who } else { ErasedPart::Payload };
                    range(part, chain, first, first + more)
                })
                .collect();
            let register = Register::new("log", ranges.clone()).unwrap();
            prop_assert_eq!(Register::parse(&register.to_string()), Ok(register.clone()));
            for part in ErasedPart::ALL {
                for (chain, seq) in (0..3).flat_map(|chain| (1..60).map(move |seq| (chain, seq))) {
                    let erased = ranges.iter().any(|range| {
                        (range.part, range.places.chain) == (part, chain)
                            && (range.places.first_seq..=range.places.last_seq).contains(&seq)
                    });
                    prop_assert_eq!(register.covers(part, chain, seq), erased);
                }
            }
        }
    }
}
