//! A log cut into slices, which are read one after the other.
//!
//! **Invariant**: every place of every chain, up to the chain's end, is in exactly one range.

/// Entries of one chain: those after `after`, or all from the first on, up to `last`. Numbers are as they are
/// stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The chain.
    pub chain: i32,
    /// The place before the first one; `None` where nothing comes before.
    pub after: Option<i64>,
    /// The last place.
    pub last: i64,
}

/// Cuts a log, given as its chains with their last places, into slices of about `entries` entries and at most
/// `ranges` ranges.
///
/// Each slice has the same part of its chains, because the entries of chains that grow together are stored
/// together.
pub fn slices_of(chains: &[(i32, i64)], entries: u64, ranges: usize) -> impl Iterator<Item = Vec<Range>> {
    let total: u128 = chains.iter().map(|(_, last)| u128::from(last.max(&0).unsigned_abs())).sum();
    let slices = (total / u128::from(entries.max(1)) + 1).min(u32::MAX.into()) as u32;
    // The place at which part `n` of a chain ends.
    let end = move |last: i64, n: u32| (i128::from(last) * i128::from(n) / i128::from(slices)) as i64;
    (0..slices).flat_map(move |n| {
        chains.chunks(ranges.max(1)).filter_map(move |chains| {
            let range = |&(chain, last): &(i32, i64)| Range {
                chain,
                after: (n > 0).then(|| end(last, n)),
                last: if n + 1 == slices { last } else { end(last, n + 1) },
            };
            let is_empty = |range: &Range| range.after.is_some_and(|after| after >= range.last);
            let ranges: Vec<Range> = chains.iter().map(range).filter(|range| !is_empty(range)).collect();
            (!ranges.is_empty()).then_some(ranges)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_is_in_one_range() {
        let lengths = [1, 2, 7, 300, 5_001, i64::MAX / 150];
        let chains: Vec<(i32, i64)> = (0..150).map(|n| (n, lengths[n as usize % 5])).collect();
        for (entries, ranges) in [(1_000_000_000, 64), (1000, 64), (100, 1), (0, 0)] {
            let slices: Vec<Vec<Range>> = slices_of(&chains[..20], entries, ranges).collect();
            for &(chain, last) in &chains[..20] {
                let mut end = None;
                for range in slices.iter().flatten().filter(|range| range.chain == chain) {
                    assert_eq!(range.after, end);
                    assert!(range.last > range.after.unwrap_or(i64::MIN));
                    end = Some(range.last);
                }
                assert_eq!(end, Some(last));
            }
            assert!(slices.iter().all(|slice| slice.len() <= ranges.max(1)));
        }
        assert!(slices_of(&[], 10, 10).next().is_none());
        let most = slices_of(&chains, 10_000, 64)
            .map(|slice| slice.iter().map(|range| range.last - range.after.unwrap_or(0)).sum::<i64>());
        assert!(most.max().unwrap() <= 10_000, "no slice is much larger than asked for");
    }

    /// Places that only a forger stores are in a range, too.
    #[test]
    fn an_end_below_the_first_place_is_in_a_range() {
        let slices: Vec<Vec<Range>> = slices_of(&[(0, -5), (1, 2000)], 1000, 64).collect();
        let of_first = |range: &&Range| range.chain == 0 && range.after.is_none() && range.last >= -5;
        assert_eq!(slices.iter().flatten().filter(of_first).count(), 1);
    }
}
