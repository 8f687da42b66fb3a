//! The entries that say what was to be kept, pruned and erased by rule, and whether they explain what is not
//! there.
//!
//! **Invariant**: only an entry whose content gives its hash counts. What lost its detail says nothing.

use crate::{
    Hash,
    erasure::{ErasedPart, Erasure, Places},
    pruning::{LockedPolicy, PruneEntry, Pruning},
    register::Register,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};

/// What the log's `PRUNE` and `ERASE` entries say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Records {
    /// The `PRUNE` entry of the newest segment that was pruned: it counts those before it.
    prune: Option<PruneEntry>,
    payloads: Places,
    who_parts: Places,
    /// What segments have, as their `SEAL` entries say.
    seals: BTreeMap<u32, Seal>,
    /// The policies that were locked.
    locked: BTreeSet<LockedPolicy>,
    /// Of each segment that was pruned, when that was recorded, and for how many seconds its policy kept
    /// entries.
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
        } else if let Some(erasure) = Erasure::of_entry(operation, detail) {
            let places = self.places_mut(erasure.part);
            erasure.places.into_iter().for_each(|range| places.add_range(range));
        } else if let Some(seal) = Seal::of_entry(operation, detail) {
            self.seals.entry(seal.segment).or_insert(seal);
        }
    }

    /// Of two entries about one segment, which no honest log has, it does not matter which one stays; but it
    /// must be the same one in whatever order they come.
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
        self.locked.extend(other.locked);
        self.prunings.extend(other.prunings);
        self.payloads.merge(other.payloads);
        self.who_parts.merge(other.who_parts);
        for (segment, seal) in other.seals {
            self.seals.entry(segment).or_insert(seal);
        }
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
    pub(crate) seals: BTreeMap<u32, Seal>,
    /// The segments that were pruned against a policy which had been locked before.
    pub(crate) too_early: Vec<(u32, LockedPolicy)>,
    pub(crate) by_register: bool,
}

/// What a `SEAL` entry says that its segment has. A segment is sealed once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    /// The segment.
    pub segment: u32,
    /// How many chains it has.
    pub chains: u64,
    /// How many entries it has.
    pub entries: u64,
    /// The digest of its chains' newest entries, in hexadecimal ([`heads_digest`]).
    pub heads: String,
}

impl Seal {
    /// The word in the entry's column `operation`.
    pub const OPERATION: &'static str = "SEAL";

    /// What an entry says; `None` if it is no `SEAL` entry, or its detail is not as it must be.
    #[must_use]
    pub fn of_entry(operation: &[u8], detail: Option<&[u8]>) -> Option<Self> {
        if operation != Self::OPERATION.as_bytes() {
            return None;
        }
        serde_json::from_slice(detail?).ok()
    }
}

/// The digest of the newest entries of chains, in the chains' order: SHA-256 over the chain (4 bytes,
/// big-endian), the place (8 bytes) and the hash of each.
#[must_use]
pub fn heads_digest<'a>(heads: impl IntoIterator<Item = &'a (u32, u64, Hash)>) -> Hash {
    let mut digest = Sha256::new();
    for (chain, seq, hash) in heads {
        digest.update(chain.to_be_bytes());
        digest.update(seq.to_be_bytes());
        digest.update(hash);
    }
    digest.finalize().into()
}
