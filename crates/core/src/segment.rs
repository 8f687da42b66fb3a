//! Segments: the log is cut by ranges of chain numbers. docs/format.md, section 1.

use crate::format::{MAX_CHAIN, SEGMENT_CHAINS};

/// The number of the last segment that a log can have.
pub const LAST: u32 = MAX_CHAIN / SEGMENT_CHAINS + 1;

/// The segment that a chain belongs to.
#[must_use]
pub fn segment_of(chain: u32) -> u32 {
    chain / SEGMENT_CHAINS + 1
}

/// The first chain of a segment.
#[must_use]
pub fn first_chain(segment: u32) -> u32 {
    (segment - 1) * SEGMENT_CHAINS
}

/// The last chain that a segment can have.
#[must_use]
pub fn last_chain(segment: u32) -> u32 {
    first_chain(segment) + (SEGMENT_CHAINS - 1)
}

/// The name of a segment's table.
#[must_use]
pub fn name(segment: u32) -> String {
    if segment == 1 { "audit_log".into() } else { format!("audit_log_{segment:04}") }
}

/// Whether a table of the extension's schema has the name of a segment other than the first, or of what is
/// left of one.
#[must_use]
pub fn is_name(name: &[u8]) -> bool {
    name.strip_prefix(b"audit_log_")
        .is_some_and(|number| number.len() >= 4 && number.iter().all(u8::is_ascii_digit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_belong_to_segments_and_these_to_tables() {
        assert_eq!([0, 65_535, 65_536, i32::MAX as u32].map(segment_of), [1, 1, 2, LAST]);
        assert_eq!((first_chain(2), last_chain(2), last_chain(LAST)), (65_536, 131_071, i32::MAX as u32));
        assert_eq!([1, 2, LAST].map(name), ["audit_log", "audit_log_0002", "audit_log_32768"]);
        assert!(is_name(b"audit_log_0002") && is_name(b"audit_log_32768"));
        assert!(!is_name(b"audit_log") && !is_name(b"audit_log_2") && !is_name(b"audit_log_identity"));
    }
}
