//! A bundle that is read is written again byte for byte.
#![no_main]

use audit_chain_core::bundle;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: (u8, &[u8])| {
    let (width, bytes) = data;
    let width = u16::from(width) + 1;
    if let Ok(entries) = bundle::entries(bytes, width) {
        assert_eq!(entries.len(), usize::from(width));
        let mut again = Vec::new();
        entries.iter().for_each(|entry| bundle::put_entry(&mut again, entry).unwrap());
        assert_eq!(again, bytes);
    }
});
