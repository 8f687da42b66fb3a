//! A consistency proof that is read is written again byte for byte; checking it ends.
#![no_main]

use audit_chain_core::{checkpoint::Checkpoint, proof_text::ConsistencyProof};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(proof) = ConsistencyProof::parse(data) {
        assert_eq!(proof.to_string().as_bytes(), data);
        if let Ok(new) = proof.checkpoint() {
            let _ = proof.check(&Checkpoint { size: proof.old, ..new });
        }
    }
});
