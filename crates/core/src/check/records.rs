//! The entries that say what was sealed, pruned and erased by rule, and whether they explain what is not there.
//!
//! **Invariant**: only an entry whose content gives its hash counts. What lost its detail says nothing.

use crate::{
    erasure::{ErasedPart, Erasure, Places},
    pruning::{PruneEntry, Pruning},
    register::Register,
    sealing::Sealing,
    segment,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What the log's `SEAL`, `PRUNE` and `ERASE` entries say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Records {
    /// The `PRUNE` entry of the newest segment that was pruned: it counts those before it.
    prune: Option<PruneEntry>,
    payloads: Places,
    who_parts: Places,
    /// Whether a register told of erasures.
    by_register: bool,
    /// How many entries each sealed segment had.
    sealed: BTreeMap<u32, u64>,
}

impl Records {
    /// Adds what an intact entry says.
    pub(crate) fn add(&mut self, operation: &[u8], at: i64, (chain, seq): (u32, u64), detail: Option<&[u8]>) {
        if let Some(pruning) = Pruning::of_entry(operation, detail) {
            self.add_prune(PruneEntry { chain, seq, at, pruning });
        } else if let Some(sealing) = Sealing::of_entry(operation, detail) {
            self.add_sealing(sealing.segment, sealing.entries);
        } else if let Some(erasure) = Erasure::of_entry(operation, detail) {
            let places = self.places_mut(erasure.part);
            erasure.places.into_iter().for_each(|range| places.add_range(range));
        }
    }

    /// Of two entries about one segment, which no honest log has, the one counts that says less.
    fn add_sealing(&mut self, segment: u32, entries: u64) {
        if (1..=segment::LAST).contains(&segment) {
            let sealed = self.sealed.entry(segment).or_insert(entries);
            *sealed = entries.min(*sealed);
        }
    }

    /// Of two entries about one segment, which no honest log has, it does not matter which one stays; but it must be the same
    /// one in whatever order they come.
    fn add_prune(&mut self, entry: PruneEntry) {
        let order = |entry: &PruneEntry| (entry.pruning.segment, entry.chain, entry.seq, entry.at);
        if self.prune.as_ref().is_none_or(|newest| order(newest) < order(&entry)) {
            self.prune = Some(entry);
        }
    }

    /// Adds what a register says, which the caller has verified.
    pub(crate) fn add_register(&mut self, register: &Register) {
        self.by_register = true;
        for part in ErasedPart::ALL {
            self.places_mut(part).merge(register.places(part));
        }
    }

    pub(crate) fn merge(&mut self, other: Self) {
        other.prune.into_iter().for_each(|entry| self.add_prune(entry));
        other.sealed.into_iter().for_each(|(segment, entries)| self.add_sealing(segment, entries));
        self.payloads.merge(other.payloads);
        self.who_parts.merge(other.who_parts);
        self.by_register |= other.by_register;
    }

    fn places_mut(&mut self, part: ErasedPart) -> &mut Places {
        match part {
            ErasedPart::Payload => &mut self.payloads,
            ErasedPart::Who => &mut self.who_parts,
        }
    }

    /// The sealed segments with the number of entries that each had.
    pub(crate) fn sealed(&self) -> impl Iterator<Item = (u32, u64)> {
        self.sealed.iter().map(|(&segment, &entries)| (segment, entries))
    }

    pub(crate) fn into_parts(self) -> (Option<PruneEntry>, [(ErasedPart, Places); 2], bool) {
        let erased = [(ErasedPart::Payload, self.payloads), (ErasedPart::Who, self.who_parts)];
        (self.prune, erased, self.by_register)
    }
}
