//! A note that is read is written again byte for byte; verifying it never fails otherwise than with an error.
#![no_main]

use audit_chain_core::{
    key::VerifierKey,
    note::{MAX_NOTE, MAX_SIGNATURES, Note},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(note) = Note::parse(data) else { return };
    assert!(data.len() <= MAX_NOTE && note.claimed_keys().count() <= MAX_SIGNATURES);
    assert_eq!(note.to_string().as_bytes(), data);
    let key = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
    let _ = note.verify(&[VerifierKey::parse(key).unwrap()]);
});
