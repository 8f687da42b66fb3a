//! What was erased from a log, and by which of its entries.
//!
//! An erased payload or who-part leaves its digest, so the chain stays intact. That the erasure was allowed
//! is told by an `ERASE` entry, which names the places ([`Erasure`]). Verification accepts an erased part
//! only where an intact entry covers it.
//!
//! **Invariants**
//! * An [`Erasure`] is read completely or not at all: ranges that do not ascend, or overlap, cover nothing.
//! * Memory grows with the ranges of places, not with the places.

use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt};
use uuid::Uuid;

/// The most ranges that one `ERASE` entry names.
pub const MAX_RANGES: usize = 2000;

/// The part of an entry that can be erased by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ErasedPart {
    /// The row's data, the detail and the statement.
    Payload,
    /// Who made the change, and from where.
    Who,
}

impl ErasedPart {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::Payload, Self::Who];

    /// Its name in entries and registers: `payload` or `who`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Payload => "payload",
            Self::Who => "who",
        }
    }

    /// The part of this name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|part| part.name() == name)
    }
}

impl fmt::Display for ErasedPart {
    /// As sentences name it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Payload => "payload",
            Self::Who => "who-part",
        })
    }
}

/// Places of one chain that follow one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PlaceRange {
    /// The chain.
    pub chain: u32,
    /// The first place.
    pub first_seq: u64,
    /// The last place.
    pub last_seq: u64,
}

/// What an `ERASE` entry says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Erasure {
    /// What was erased.
    pub part: ErasedPart,
    /// The request by which it was: several entries may belong to one.
    pub request: Uuid,
    /// How many entries lost that part.
    pub entries: u64,
    /// Their places, ascending.
    pub places: Vec<PlaceRange>,
}

/// The entry's detail, as far as it counts.
#[derive(Serialize, Deserialize)]
struct Detail {
    part: ErasedPart,
    request: Uuid,
    entries: u64,
    places: Vec<(u32, u64, u64)>,
}

impl Erasure {
    /// The word in the entry's column `operation`.
    pub const OPERATION: &'static str = "ERASE";

    /// What an entry says; `None` if it is no `ERASE` entry, or its detail is not as it must be.
    #[must_use]
    pub fn of_entry(operation: &[u8], detail: Option<&[u8]>) -> Option<Self> {
        if operation != Self::OPERATION.as_bytes() {
            return None;
        }
        let Detail { part, request, entries, places } = serde_json::from_slice(detail?).ok()?;
        let place = |(chain, first_seq, last_seq)| PlaceRange { chain, first_seq, last_seq };
        let places: Vec<PlaceRange> = places.into_iter().map(place).collect();
        is_ascending(&places).then_some(Self { part, request, entries, places })
    }

    /// The keys of the entry's detail that say this; the caller adds `reason` and others.
    #[must_use]
    pub fn detail(&self) -> serde_json::Value {
        let Self { part, request, entries, ref places } = *self;
        let places = places.iter().map(|range| (range.chain, range.first_seq, range.last_seq)).collect();
        serde_json::to_value(Detail { part, request, entries, places }).unwrap_or_default()
    }
}

/// Whether ranges are not empty, ascend, and do not overlap.
pub(crate) fn is_ascending(places: &[PlaceRange]) -> bool {
    let is_range = |range: &PlaceRange| range.first_seq > 0 && range.first_seq <= range.last_seq;
    let ascends = |before: &PlaceRange, next: &PlaceRange| {
        (before.chain, before.last_seq) < (next.chain, next.first_seq)
    };
    places.iter().all(is_range) && places.is_sorted_by(ascends)
}

/// A set of places, held as ranges. Places may be added in any order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Places {
    chains: BTreeMap<u32, Ranges>,
}

/// Ranges of one chain, from first to last; mostly in order, and mostly apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Ranges {
    ranges: Vec<(u64, u64)>,
    compact_at: usize,
}

impl Ranges {
    const FIRST_COMPACTION: usize = 1024;

    fn add(&mut self, first: u64, last: u64) {
        if let Some(end) = self.ranges.last_mut()
            && first > end.0
            && end.1.checked_add(1).is_none_or(|next| first <= next)
        {
            end.1 = end.1.max(last);
            return;
        }
        if self.ranges.len() >= self.compact_at.max(Self::FIRST_COMPACTION) {
            self.compact();
            self.compact_at = self.ranges.len() * 2;
        }
        self.ranges.push((first, last));
    }

    /// Sorts the ranges and joins those that touch.
    fn compact(&mut self) {
        self.ranges.sort_unstable();
        let mut joined: Vec<(u64, u64)> = Vec::with_capacity(self.ranges.len());
        for &(first, last) in &self.ranges {
            match joined.last_mut() {
                Some(end) if end.1.checked_add(1).is_none_or(|next| first <= next) => {
                    end.1 = end.1.max(last);
                }
                _ => joined.push((first, last)),
            }
        }
        self.ranges = joined;
    }

    /// The parts of these ranges that lie in none of the others; both are sorted and joined.
    fn without(&self, others: &[(u64, u64)]) -> Vec<(u64, u64)> {
        let mut left = Vec::new();
        let mut others = others.iter().peekable();
        for &(first, last) in &self.ranges {
            let mut next = Some(first);
            while let Some(from) = next {
                while others.next_if(|other| other.1 < from).is_some() {}
                match others.peek() {
                    Some(&&(start, end)) if start <= last => {
                        if start > from {
                            left.push((from, start - 1));
                        }
                        next = end.checked_add(1).filter(|&after| after <= last);
                    }
                    _ => {
                        left.push((from, last));
                        next = None;
                    }
                }
            }
        }
        left
    }
}

impl Places {
    /// Adds one place.
    pub fn add(&mut self, chain: u32, seq: u64) {
        self.add_range(PlaceRange { chain, first_seq: seq, last_seq: seq });
    }

    /// Adds a range of places; none if it ends before it begins.
    pub fn add_range(&mut self, range: PlaceRange) {
        if range.first_seq <= range.last_seq {
            self.chains.entry(range.chain).or_default().add(range.first_seq, range.last_seq);
        }
    }

    /// Adds all places of the other set.
    pub fn merge(&mut self, other: Self) {
        for (chain, theirs) in other.chains {
            let ours = self.chains.entry(chain).or_default();
            if ours.ranges.is_empty() {
                *ours = theirs;
            } else {
                theirs.ranges.into_iter().for_each(|(first, last)| ours.add(first, last));
            }
        }
    }

    /// The ranges, ascending and apart.
    #[must_use]
    pub fn into_ranges(self) -> Vec<PlaceRange> {
        self.without(Self::default())
    }

    /// The places that the other set does not have.
    #[must_use]
    pub fn without(mut self, mut other: Self) -> Vec<PlaceRange> {
        let mut left = Vec::new();
        for (&chain, ranges) in &mut self.chains {
            ranges.compact();
            let others = other.chains.get_mut(&chain).map_or(&[][..], |others| {
                others.compact();
                &others.ranges
            });
            let range = |(first_seq, last_seq)| PlaceRange { chain, first_seq, last_seq };
            left.extend(ranges.without(others).into_iter().map(range));
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const DETAIL: &str = r#"{"part":"who","request":"6f1d9c2e-5b7a-4c3d-8e9f-0a1b2c3d4e5f","entries":4,
        "places":[[0,5,6],[0,8,8],[65536,1,1]],"reason":"on request","approved_by":"judge"}"#;

    #[test]
    fn an_entry_says_what_was_erased() {
        let read = |operation: &str, detail: Option<&str>| {
            Erasure::of_entry(operation.as_bytes(), detail.map(str::as_bytes))
        };
        let erasure = read("ERASE", Some(DETAIL)).unwrap();
        assert_eq!((erasure.part, erasure.entries, erasure.places.len()), (ErasedPart::Who, 4, 3));
        assert_eq!(read("ERASE", Some(&erasure.detail().to_string())), Some(erasure));
        assert_eq!(read("EVENT", Some(DETAIL)), None);
        assert_eq!(read("ERASE", None), None);
        for (good, bad) in [
            ("\"who\"", "\"all\""),
            ("[0,8,8]", "[0,6,8]"),
            ("[0,8,8]", "[0,8,7]"),
            ("[0,5,6]", "[0,0,6]"),
            ("[0,5,6]", "[1,5,6]"),
            ("[0,5,6]", "[0,5]"),
            ("[0,5,6]", "[-1,5,6]"),
            ("\"part\"", "\"entries\":1,\"part\""),
        ] {
            let detail = DETAIL.replacen(good, bad, 1);
            assert_ne!(detail, DETAIL);
            assert_eq!(read("ERASE", Some(&detail)), None, "{detail}");
        }
    }

    #[test]
    fn ranges_are_joined_when_there_are_many() {
        let mut places = Places::default();
        (1..=100_000).rev().for_each(|seq| places.add(3, seq));
        assert!(places.chains[&3].ranges.len() <= Ranges::FIRST_COMPACTION + 1);
        assert_eq!(places.into_ranges(), [PlaceRange { chain: 3, first_seq: 1, last_seq: 100_000 }]);
        let mut last = Places::default();
        [u64::MAX, u64::MAX - 1, u64::MAX].into_iter().for_each(|seq| last.add(0, seq));
        let end = PlaceRange { chain: 0, first_seq: u64::MAX - 1, last_seq: u64::MAX };
        assert_eq!(last.clone().into_ranges(), [end]);
        assert_eq!(last.clone().without(last), []);
    }

    proptest! {
        /// A set of ranges is the set of their places.
        #[test]
        fn places_are_a_set(
            ours in prop::collection::vec((0_u32..3, 1_u64..60, 0_u64..9), 0..40),
            theirs in prop::collection::vec((0_u32..3, 1_u64..60, 0_u64..9), 0..40),
        ) {
            let make = |ranges: &[(u32, u64, u64)]| {
                let (mut places, mut set) = (Places::default(), BTreeSet::new());
                for &(chain, first_seq, more) in ranges {
                    places.add_range(PlaceRange { chain, first_seq, last_seq: first_seq + more });
                    set.extend((first_seq..=first_seq + more).map(|seq| (chain, seq)));
                }
                (places, set)
            };
            let set_of = |ranges: Vec<PlaceRange>| {
                assert!(is_ascending(&ranges));
                let places = |range: PlaceRange| {
                    (range.first_seq..=range.last_seq).map(move |seq| (range.chain, seq))
                };
                ranges.into_iter().flat_map(places).collect::<BTreeSet<_>>()
            };
            let ((ours, our_set), (theirs, their_set)) = (make(&ours), make(&theirs));
            let left: BTreeSet<_> = our_set.difference(&their_set).copied().collect();
            prop_assert_eq!(set_of(ours.clone().without(theirs.clone())), left);
            let mut merged = ours;
            merged.merge(theirs);
            prop_assert_eq!(set_of(merged.into_ranges()), &our_set | &their_set);
        }
    }
}
