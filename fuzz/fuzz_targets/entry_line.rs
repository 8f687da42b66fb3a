//! A payload line: any bytes give it or an error, and its digests can be computed.
#![no_main]

use audit_chain_cli::record::parse_entry;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(parsed) = parse_entry(data) {
        let _ = parsed.payload.map(|payload| payload.as_hashed().digest());
        let _ = parsed.who.map(|who| who.as_hashed().digest());
    }
});
