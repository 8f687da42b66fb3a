//! An erasure register that is read is written again byte for byte, and covers what its ranges say.
#![no_main]

use audit_chain_core::{
    erasure::ErasedPart,
    register::{Register, SuppliedRegister},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(supplied) = SuppliedRegister::parse(data) else { return };
    let register = supplied.register();
    assert_eq!(register.to_string(), supplied.note().text());
    assert_eq!(Register::new(register.origin(), register.ranges().to_vec()).as_ref(), Ok(register));
    for range in register.ranges() {
        for seq in [range.places.first_seq, range.places.last_seq] {
            assert!(register.covers(range.part, range.places.chain, seq));
        }
    }
    for part in ErasedPart::ALL {
        let places = register.places(part).into_ranges();
        assert!(places.iter().all(|range| register.covers(part, range.chain, range.last_seq)));
    }
});
