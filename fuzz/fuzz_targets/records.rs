//! What entries say of others: details of any bytes give nothing, or what is written again as the same.
#![no_main]

use audit_chain_core::{
    erasure::{Erasure, Places},
    pruning::{PruneEntry, Pruning, ReportedPruning},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Some(erasure) = Erasure::of_entry(b"ERASE", Some(data)) {
        let written = erasure.detail().to_string();
        assert_eq!(Erasure::of_entry(b"ERASE", Some(written.as_bytes())).as_ref(), Some(&erasure));
        let mut places = Places::default();
        erasure.places.iter().for_each(|range| places.add_range(*range));
        assert!(places.clone().without(places).is_empty());
    }
    if let Some(pruning) = Pruning::of_entry(b"PRUNE", Some(data)) {
        let written = serde_json::to_string(&pruning).unwrap();
        assert_eq!(Pruning::of_entry(b"PRUNE", Some(written.as_bytes())).as_ref(), Some(&pruning));
        for at in [i64::MIN, 0, i64::MAX] {
            let entry = PruneEntry { chain: u32::MAX, seq: 1, at, pruning: pruning.clone() };
            let _ = (entry.fault(), ReportedPruning::from(&entry).to_string());
        }
    }
});
