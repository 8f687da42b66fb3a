//! The entries that say what was to be kept, and what was sealed, pruned and erased by rule, and whether they explain what is not there.
//!
//! **Invariant**: only an entry whose content gives its hash counts. What lost its detail says nothing.

use crate::{
    erasure::{ErasedPart, Erasure, Places},
    pruning::{LockedPolicy, PruneEntry, Pruning},
    register::Register,
    sealing::Sealing,
    segment,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What the log's `SEAL`, `PRUNE` and `ERASE` entries say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Records {
    /// The `PRUNE` entry of the newest segment that was pruned: it counts those before it.
    prune: Option<PruneEntry>,
    payloads: Places,
    who_parts: Places,
    /// What segments have, as their `SEAL` entries say.
    seals: BTreeMap<u32, Sealing>,
    /// The policies that were locked.
    locked: BTreeSet<LockedPolicy>,
    /// Of each segment that was pruned, when that was recorded, and for how many seconds its policy kept entries.
    prunings: BTreeSet<(u32, i64, u64)>,
    /// Whether a register told of erasures.
    by_register: bool,
}

impl Records {
    /// Adds what an intact entry says.
    pub(crate) fn add(&mut self, operation: &[u8], at: i64, (chain, seq): (u32, u64), detail: Option<&[u8]>) {
        if let Some(locked) = LockedPolicy::of_entry(operation, at, detail) {
            self.locked.insert(locked);
        } else if let Some(pruning) = Pruning::of_entry(operation, detail) {
            self.prunings.insert((pruning.segment, at, pruning.policy.keep_seconds));
            self.add_prune(PruneEntry { chain, seq, at, pruning });
        } else if let Some(sealing) = Sealing::of_entry(operation, detail) {
            self.add_sealing(sealing);
        } else if let Some(erasure) = Erasure::of_entry(operation, detail) {
            let places = self.places_mut(erasure.part);
            erasure.places.into_iter().for_each(|range| places.add_range(range));
        }
    }

    /// Of two entries about one segment, which no honest log has, the one counts that says less.
    fn add_sealing(&mut self, sealing: Sealing) {
        if !(1..=segment::LAST).contains(&sealing.segment) {
            return;
        }
        let order = |sealing: &Sealing| (sealing.entries, sealing.chains, sealing.heads.clone());
        match self.seals.get(&sealing.segment) {
            Some(known) if order(known) <= order(&sealing) => {}
            _ => drop(self.seals.insert(sealing.segment, sealing)),
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
        other.seals.into_values().for_each(|sealing| self.add_sealing(sealing));
        self.locked.extend(other.locked);
        self.prunings.extend(other.prunings);
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

    pub(crate) fn into_parts(self) -> Parts {
        let Self { prune, payloads, who_parts, seals, locked, prunings, by_register } = self;
        let against = |&(_, at, keep): &(u32, i64, u64)| {
            locked
                .iter()
                .copied()
                .filter(|policy| policy.forbids(at, keep))
                .max_by_key(|policy| policy.keep_seconds)
        };
        let too_early = prunings
            .iter()
            .filter_map(|pruning| against(pruning).map(|policy| (pruning.0, policy)))
            .collect();
        Parts {
            prune,
            erased: [(ErasedPart::Payload, payloads), (ErasedPart::Who, who_parts)],
            seals,
            too_early,
            by_register,
        }
    }
}

/// What the entries say, part by part.
pub(crate) struct Parts {
    pub(crate) prune: Option<PruneEntry>,
    pub(crate) erased: [(ErasedPart, Places); 2],
    pub(crate) seals: BTreeMap<u32, Sealing>,
    /// The segments that were pruned against a policy which had been locked before.
    pub(crate) too_early: Vec<(u32, LockedPolicy)>,
    pub(crate) by_register: bool,
}
