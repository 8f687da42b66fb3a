//! The check of a log: whatever is stored, it ends without a panic, and says the same for every size of
//! batches. A log that nobody damaged is intact.
#![no_main]

use audit_chain_core::{
    check::Options,
    erasure::ErasedPart,
    format::SEGMENT_CHAINS,
    problem::Verdict,
    span::Span,
    supplied::SuppliedCheckpoint,
    testing::{DAMAGES, MemoryLog, check, key},
};
use libfuzzer_sys::fuzz_target;

/// The input, taken from its front; zeroes after its end.
struct Input<'d>(&'d [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn number(&mut self) -> u64 {
        // Small numbers, and some that are anything.
        match self.byte() {
            255 => u64::from_be_bytes(std::array::from_fn(|_| self.byte())),
            byte => byte.into(),
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let shape = input.byte();
    let mut log = MemoryLog::new(shape % 2 == 1, usize::from(input.byte() % 3) + 1);
    for _ in 0..input.byte() % 4 {
        for chain in 0..u32::from(input.byte() % 4) {
            log.append(chain, u64::from(input.byte() % 100));
        }
        // A server records no checkpoint where there is nothing new.
        let entries: usize = log.chains.values().map(Vec::len).sum();
        if entries as u64 > log.checkpoints.last().map_or(0, |newest| newest.size) {
            log.checkpoint(Some(&key(1)));
        }
    }
    if shape & 2 != 0 && !log.checkpoints.is_empty() {
        // The first segment is pruned, the second one goes on.
        log.append(SEGMENT_CHAINS, u64::from(shape >> 2) + 1);
        log.checkpoint(Some(&key(1)));
        log.prune(1, SEGMENT_CHAINS);
        log.erase(ErasedPart::Who, &[(SEGMENT_CHAINS, 1, 1)], SEGMENT_CHAINS);
        log.checkpoint(Some(&key(1)));
    }
    let kept = log.checkpoints.first().map(|kept| SuppliedCheckpoint::parse(kept.note.as_bytes()).unwrap());
    let trusted = kept.clone().filter(|_| input.byte() % 2 == 1);
    let mut damaged = false;
    for _ in 0..input.byte() % 4 {
        damaged = true;
        match input.byte() {
            0 => log.spans.push(Span {
                leaf_index: input.number(),
                chain: input.byte().into(),
                first_seq: input.number(),
                last_seq: input.number(),
            }),
            1 => drop(log.tiles.insert((input.byte(), input.number()), data.to_vec())),
            2 => log
                .newest_mut()
                .into_iter()
                .for_each(|newest| newest.note = String::from_utf8_lossy(data).into()),
            3 => log.newest_mut().into_iter().for_each(|newest| newest.size = input.number()),
            which => {
                let (_, damage) = DAMAGES[usize::from(which) % DAMAGES.len()];
                damage(&mut log, input.number() as usize, input.number() as usize);
            }
        }
    }
    let keys = if input.byte() % 2 == 1 { vec![key(1).verifier().clone()] } else { Vec::new() };
    let options = |batch| Options {
        supplied: kept.clone(),
        keys: keys.clone(),
        batch,
        max_problems: 100,
        ..Options::default()
    };
    let report = check(&mut log, options(8192), trusted.as_ref());
    assert!(damaged || report.verdict == Verdict::Intact, "{report:?}");
    assert!(
        report.problems.len() <= 100 && (report.verdict == Verdict::Intact) == (report.problem_count == 0)
    );
    let batch = input.number();
    assert_eq!(check(&mut log, options(batch), trusted.as_ref()).verdict, report.verdict);
    let _ = report.summary();
});
