//! A log's identities, and so the names of its checkpoints.
//!
//! A log has the identity from which its chains begin. A copy that goes on by itself gets another one
//! (`audit_fork()`), by which its checkpoints are named from then on, so that they do not contradict those of
//! the original.
//!
//! **Invariant**: the identities of a [`LogIdentity`] follow one another, and the sizes at which they begin
//! never decrease.

use crate::checkpoint::default_origin;

/// An identity as it is stored: the identity before, and how many entries its checkpoints seal, for all but
/// the first one.
pub type StoredIdentity = ([u8; 16], Option<([u8; 16], u64)>);

/// A log's identities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogIdentity {
    first: [u8; 16],
    /// Later ones, and how many entries the checkpoints of those before them seal.
    forks: Vec<([u8; 16], u64)>,
}

impl LogIdentity {
    /// A log that was never forked.
    #[must_use]
    pub fn new(first: [u8; 16]) -> Self {
        Self { first, forks: Vec::new() }
    }

    /// Puts stored identities, in any order, into theirs; `None` if there are none. An error says why they
    /// cannot be those of an honest log.
    pub fn from_stored(stored: &[StoredIdentity]) -> Result<Option<Self>, String> {
        let mut first = stored.iter().filter(|(_, forked)| forked.is_none());
        let Some(&(first_id, _)) = first.next() else {
            return if stored.is_empty() { Ok(None) } else { Err("the log has no first identity".into()) };
        };
        if first.next().is_some() {
            return Err("the log has more than one first identity".into());
        }
        let mut identity = Self::new(first_id);
        while identity.forks.len() + 1 < stored.len() {
            let newest = identity.newest();
            let mut next = stored.iter().filter_map(|&(id, forked)| match forked {
                Some((from, size)) if from == newest => Some((id, size)),
                _ => None,
            });
            let (Some((id, size)), None) = (next.next(), next.next()) else {
                return Err("the identities of the log do not follow one another".into());
            };
            if identity.forks.last().is_some_and(|&(_, before)| size < before) {
                return Err("an identity of the log begins before the one that it follows".into());
            }
            identity.forks.push((id, size));
        }
        Ok(Some(identity))
    }

    /// The identities as they are stored, the first one first.
    pub fn stored(&self) -> impl Iterator<Item = StoredIdentity> {
        let before = std::iter::once(self.first).chain(self.forks.iter().map(|&(id, _)| id));
        let forks = self.forks.iter().zip(before).map(|(&(id, size), before)| (id, Some((before, size))));
        std::iter::once((self.first, None)).chain(forks)
    }

    /// The identity on which the first links of the chains depend.
    #[must_use]
    pub fn first(&self) -> &[u8; 16] {
        &self.first
    }

    /// The identity that names the checkpoints now.
    #[must_use]
    pub fn newest(&self) -> [u8; 16] {
        self.forks.last().map_or(self.first, |&(id, _)| id)
    }

    /// The name of the log's checkpoints now.
    #[must_use]
    pub fn origin(&self) -> String {
        default_origin(&self.newest())
    }

    /// The name that a checkpoint of this size must have.
    #[must_use]
    pub fn origin_of(&self, size: u64) -> String {
        let fork = self.forks.iter().rev().find(|&&(_, forked_at)| size > forked_at);
        default_origin(fork.map_or(&self.first, |(id, _)| id))
    }

    /// Whether the log had, or has, this name.
    #[must_use]
    pub fn had_origin(&self, origin: &str) -> bool {
        self.stored().any(|(id, _)| default_origin(&id) == origin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Identities are put into their order, and a checkpoint has the name of the one in which it was
        /// made.
        #[test]
        fn identities_follow_one_another(sizes in prop::collection::vec(0_u64..100, 0..5), turn: usize) {
            let mut sizes = sizes;
            sizes.sort_unstable();
            let id = |n: usize| [n as u8 + 1; 16];
            let mut stored: Vec<StoredIdentity> = vec![(id(0), None)];
            stored.extend(sizes.iter().enumerate().map(|(n, &size)| (id(n + 1), Some((id(n), size)))));
            let ordered = stored.clone();
            let turn = turn % stored.len();
            stored.rotate_left(turn);
            let identity = LogIdentity::from_stored(&stored).unwrap().unwrap();
            prop_assert_eq!(identity.stored().collect::<Vec<_>>(), ordered);
            prop_assert_eq!(identity.newest(), id(sizes.len()));
            for size in 0..101 {
                let made_by = sizes.iter().filter(|&&forked| size > forked).count();
                prop_assert_eq!(identity.origin_of(size), default_origin(&id(made_by)));
            }
        }
    }

    #[test]
    fn identities_that_do_not_follow_one_another_are_refused() {
        let [a, b, c] = [[1; 16], [2; 16], [3; 16]];
        let read = LogIdentity::from_stored;
        assert_eq!(read(&[]), Ok(None));
        for bad in [
            &[(a, None), (b, None)][..],
            &[(a, Some((b, 1)))],
            &[(a, None), (b, Some((a, 1))), (c, Some((a, 1)))],
            &[(a, None), (b, Some((c, 1))), (c, Some((b, 1)))],
            &[(a, None), (b, Some((a, 5))), (c, Some((b, 4)))],
        ] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }
}
