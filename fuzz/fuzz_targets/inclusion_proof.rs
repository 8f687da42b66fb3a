//! An inclusion proof that is read is written again byte for byte; checking it ends.
#![no_main]

use audit_chain_core::proof_text::InclusionProof;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(proof) = InclusionProof::parse(data) {
        assert_eq!(proof.to_string().as_bytes(), data);
        let _ = (proof.check(), proof.check_hash(&[0; 32]));
    }
});
