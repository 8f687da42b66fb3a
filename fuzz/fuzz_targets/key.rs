//! A key that is read is written so that it is read as the same key.
#![no_main]

use audit_chain_core::key::{SigningKey, VerifierKey};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(key) = VerifierKey::parse(text) {
        assert_eq!(VerifierKey::parse(&key.to_string()).as_ref(), Ok(&key));
    }
    if let Ok(key) = SigningKey::parse(text) {
        let again = SigningKey::parse(&key.to_private_string()).unwrap();
        assert_eq!(again.verifier(), key.verifier());
    }
});
