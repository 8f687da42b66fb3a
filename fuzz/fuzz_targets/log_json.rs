//! `log.json`: any bytes give it or an error.
#![no_main]

use audit_chain_cli::record::LogJson;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = LogJson::parse(data);
});
