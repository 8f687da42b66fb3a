//! The other lines of an export: spans, which are then checked, and checkpoints.
#![no_main]

use audit_chain_cli::record::{parse_checkpoint, parse_span};
use audit_chain_core::span::SpanCheck;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut spans = SpanCheck::new();
    for line in data.split(|&byte| byte == b'\n') {
        let _ = parse_checkpoint(line);
        if let Ok(span) = parse_span(line) {
            let _ =
                (spans.push(&span), span.leaf_of(span.chain, span.last_seq), span.entry_at(span.leaf_index));
        }
    }
});
