//! Where in the tree which entries lie. A checkpoint appends, chain by chain, what each chain gained: each
//! such piece is a [`Span`].
//!
//! **Invariant** of spans in order: they fill the tree from leaf 0 without gap or overlap, and each chain's
//! pieces continue one another from its entry 1. So every leaf is exactly one entry, and every sealed entry
//! is one leaf.

use crate::format::MAX_SEQ;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt};

/// A contiguous piece of a chain that is a contiguous piece of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The leaf of the first entry.
    pub leaf_index: u64,
    /// The chain.
    pub chain: u32,
    /// The first entry's place in the chain.
    pub first_seq: u64,
    /// The last entry's place in the chain.
    pub last_seq: u64,
}

impl Span {
    /// How many entries it has. Zero for a span that is not valid.
    #[must_use]
    pub fn entries(&self) -> u64 {
        if self.first_seq > self.last_seq { 0 } else { (self.last_seq - self.first_seq).saturating_add(1) }
    }

    /// The leaf of the entry `seq` of the span's chain.
    #[must_use]
    pub fn leaf_of(&self, chain: u32, seq: u64) -> Option<u64> {
        (chain == self.chain && (self.first_seq..=self.last_seq).contains(&seq))
            .then(|| self.leaf_index.checked_add(seq - self.first_seq))?
    }

    /// The entry at a leaf: its chain and its place there.
    #[must_use]
    pub fn entry_at(&self, leaf_index: u64) -> Option<(u32, u64)> {
        let offset = leaf_index.checked_sub(self.leaf_index).filter(|&offset| offset < self.entries())?;
        Some((self.chain, self.first_seq + offset))
    }
}

/// Why a span does not continue the spans before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanError {
    /// It begins at another leaf than where the one before ended.
    Leaf {
        /// Where it must begin.
        expected: u64,
        /// Where it begins.
        found: u64,
    },
    /// It begins at another entry than the one after the chain's last.
    Seq {
        /// The chain.
        chain: u32,
        /// Where it must begin.
        expected: u64,
        /// Where it begins.
        found: u64,
    },
    /// It ends before it begins.
    Empty,
}

impl fmt::Display for SpanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leaf { expected, found } => {
                write!(
                    f,
                    "the span at leaf {found} does not follow the one before, which ended at leaf {expected}"
                )
            }
            Self::Seq { chain, expected, found } => write!(
                f,
                "the span of chain {chain} begins at entry {found} where entry {expected} comes next in the tree"
            ),
            Self::Empty => f.write_str("a span ends before it begins"),
        }
    }
}

impl std::error::Error for SpanError {}

/// Checks spans one after the other; its memory grows with the number of chains only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpanCheck {
    size: u64,
    chains: BTreeMap<u32, u64>,
    /// The first chain that was not pruned: the first spans of those before it may be gone.
    first_chain: u32,
}

impl SpanCheck {
    /// Before the first span.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// After the spans of a tree of `size` leaves, which is trusted: each chain with its last sealed entry.
    #[must_use]
    pub fn resume(size: u64, chains: impl IntoIterator<Item = (u32, u64)>) -> Self {
        Self { size, chains: chains.into_iter().collect(), first_chain: 0 }
    }

    /// The same for a log of which all chains before `first_chain` were pruned: their spans may begin
    /// anywhere.
    #[must_use]
    pub fn after_pruning(self, first_chain: u32) -> Self {
        Self { first_chain, ..self }
    }

    /// Leaves out the leaves before `leaf`, which are not those of the chains that are looked at.
    pub fn skip_to(&mut self, leaf: u64) {
        self.size = self.size.max(leaf);
    }

    /// Takes the next span if it continues those before it.
    pub fn push(&mut self, span: &Span) -> Result<(), SpanError> {
        if span.leaf_index != self.size {
            return Err(SpanError::Leaf { expected: self.size, found: span.leaf_index });
        }
        let mut expected = self.last_seq(span.chain).checked_add(1).ok_or(SpanError::Empty)?;
        if span.chain < self.first_chain && !self.chains.contains_key(&span.chain) {
            expected = span.first_seq.max(1);
        }
        if span.first_seq != expected {
            return Err(SpanError::Seq { chain: span.chain, expected, found: span.first_seq });
        }
        let size = self.size.checked_add(span.entries()).filter(|&size| size < u64::MAX);
        let (Some(size), true) = (size, span.entries() > 0 && span.last_seq <= MAX_SEQ) else {
            return Err(SpanError::Empty);
        };
        self.size = size;
        self.chains.insert(span.chain, span.last_seq);
        Ok(())
    }

    /// The next span: the entries that `chain` has up to `last_seq` beyond those taken. `None` if it has
    /// none.
    pub fn extend(&mut self, chain: u32, last_seq: u64) -> Option<Span> {
        let span = Span {
            leaf_index: self.size,
            chain,
            first_seq: self.last_seq(chain).saturating_add(1),
            last_seq,
        };
        self.push(&span).is_ok().then_some(span)
    }

    /// How many leaves the spans fill.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The last sealed entry of a chain; 0 if none.
    #[must_use]
    pub fn last_seq(&self, chain: u32) -> u64 {
        self.chains.get(&chain).copied().unwrap_or(0)
    }

    /// Each chain with its last sealed entry.
    pub fn chains(&self) -> impl Iterator<Item = (u32, u64)> {
        self.chains.iter().map(|(&chain, &last)| (chain, last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(leaf_index: u64, chain: u32, first_seq: u64, last_seq: u64) -> Span {
        Span { leaf_index, chain, first_seq, last_seq }
    }

    #[test]
    fn every_entry_has_one_leaf_and_every_leaf_one_entry() {
        let spans = [span(0, 0, 1, 5), span(5, 3, 1, 1), span(6, 0, 6, 6), span(7, 3, 2, 9)];
        let mut check = SpanCheck::new();
        spans.iter().for_each(|span| check.push(span).unwrap());
        assert_eq!(check.size(), 15);
        let entry_at = |leaf| spans.iter().find_map(|span| span.entry_at(leaf));
        let leaf_of = |chain, seq| spans.iter().find_map(|span| span.leaf_of(chain, seq));
        for leaf in 0..15 {
            let (chain, seq) = entry_at(leaf).unwrap();
            assert_eq!(leaf_of(chain, seq), Some(leaf));
        }
        assert_eq!((entry_at(15), entry_at(u64::MAX)), (None, None));
        assert_eq!((leaf_of(0, 0), leaf_of(0, 7), leaf_of(1, 1)), (None, None, None));
    }

    #[test]
    fn gaps_and_overlaps_are_refused() {
        let refused = |spans: &[Span]| {
            let mut check = SpanCheck::new();
            spans.iter().try_for_each(|span| check.push(span)).unwrap_err()
        };
        assert_eq!(refused(&[span(1, 0, 1, 2)]), SpanError::Leaf { expected: 0, found: 1 });
        assert_eq!(refused(&[span(0, 0, 2, 2)]), SpanError::Seq { chain: 0, expected: 1, found: 2 });
        assert_eq!(refused(&[span(0, 0, 1, 0)]), SpanError::Empty);
        assert_eq!(refused(&[span(0, 0, 1, u64::MAX)]), SpanError::Empty);
        let twice = [span(0, 0, 1, 3), span(3, 0, 3, 4)];
        assert_eq!(refused(&twice), SpanError::Seq { chain: 0, expected: 4, found: 3 });
        let overlap = [span(0, 0, 1, 3), span(2, 1, 1, 4)];
        assert_eq!(refused(&overlap), SpanError::Leaf { expected: 3, found: 2 });
        let gap = [span(0, 0, 1, 3), span(3, 0, 5, 6)];
        assert_eq!(refused(&gap), SpanError::Seq { chain: 0, expected: 4, found: 5 });
    }

    #[test]
    fn a_checkpoint_extends_chain_by_chain() {
        let mut check = SpanCheck::new();
        assert_eq!(check.extend(0, 4), Some(span(0, 0, 1, 4)));
        assert_eq!(check.extend(1, 2), Some(span(4, 1, 1, 2)));
        assert_eq!(check.extend(0, 4), None);
        assert_eq!(check.extend(0, 3), None, "a chain that has become shorter gives nothing");
        assert_eq!(check.extend(0, 5), Some(span(6, 0, 5, 5)));
        assert_eq!(check.chains().collect::<Vec<_>>(), [(0, 5), (1, 2)]);
    }

    #[test]
    fn spans_of_pruned_chains_begin_anywhere_and_then_continue() {
        let mut check = SpanCheck::resume(10, []).after_pruning(3);
        for (next, fits) in [
            (span(10, 2, 0, 4), false),
            (span(10, 2, 5, 6), true),
            (span(12, 2, 8, 8), false),
            (span(12, 2, 7, 7), true),
            (span(13, 3, 2, 2), false),
            (span(13, 3, 1, 2), true),
        ] {
            assert_eq!(check.push(&next).is_ok(), fits, "{next:?}");
        }
    }

    #[test]
    fn spans_of_the_last_places_do_not_wrap() {
        let mut check = SpanCheck::resume(5, [(0, MAX_SEQ), (1, u64::MAX), (2, MAX_SEQ - 1)]);
        for chain in [0, 1] {
            assert_eq!(check.extend(chain, u64::MAX), None);
            for first_seq in [0, 1, MAX_SEQ, MAX_SEQ + 1, u64::MAX] {
                let span = Span { leaf_index: 5, chain, first_seq, last_seq: u64::MAX };
                assert!(check.push(&span).is_err(), "{span:?}");
            }
        }
        let last = Span { leaf_index: 5, chain: 2, first_seq: MAX_SEQ, last_seq: MAX_SEQ };
        assert_eq!(check.push(&last), Ok(()));
        assert_eq!(check.size(), 6);
    }
}
