//! A frontier that is read is written again byte for byte, and grows.
#![no_main]

use audit_chain_core::{merkle::MAX_TREE_SIZE, tree::TreeFrontier};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(mut tree) = TreeFrontier::from_bytes(data) {
        assert_eq!(tree.to_bytes(), data);
        let _ = tree.root();
        if tree.size() < MAX_TREE_SIZE {
            assert!(tree.push([0; 32]).len() <= 8);
        }
    }
});
