//! A leaf that is read is encoded again byte for byte.
#![no_main]

use audit_chain_core::format::Leaf;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(leaf) = Leaf::decode(data) {
        let mut again = Vec::new();
        leaf.encode(&mut again);
        assert_eq!(again, data);
    }
});
