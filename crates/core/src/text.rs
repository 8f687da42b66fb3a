//! The pieces that the text formats share, read strictly: one way to write each value.

use crate::{Hash, merkle::MAX_TREE_SIZE};
use base64::prelude::{BASE64_STANDARD, Engine as _};

/// A decimal number without leading zeroes or sign, at most [`MAX_TREE_SIZE`].
pub(crate) fn number(text: &str) -> Option<u64> {
    let canonical = text == "0" || !text.starts_with('0');
    let digits = !text.is_empty() && text.len() <= 19 && text.bytes().all(|byte| byte.is_ascii_digit());
    if !(canonical && digits) {
        return None;
    }
    text.parse().ok().filter(|&number| number <= MAX_TREE_SIZE)
}

/// A hash in base64.
pub(crate) fn hash(text: &str) -> Option<Hash> {
    if text.len() != 44 {
        return None;
    }
    unbase64(text)?.try_into().ok()
}

/// Standard, padded, canonical base64.
pub(crate) fn base64(bytes: impl AsRef<[u8]>) -> String {
    BASE64_STANDARD.encode(bytes)
}

/// Reads what [`base64`] wrote.
pub(crate) fn unbase64(text: &str) -> Option<Vec<u8>> {
    BASE64_STANDARD.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_one_spelling() {
        assert_eq!(number("0"), Some(0));
        assert_eq!(number("9223372036854775807"), Some(MAX_TREE_SIZE));
        for wrong in [
            "",
            "00",
            "01",
            "+1",
            "-1",
            " 1",
            "1 ",
            "0x1",
            "1_0",
            "9223372036854775808",
            "99999999999999999999",
        ] {
            assert_eq!(number(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn hashes_have_one_spelling() {
        let text = base64([7; 32]);
        assert_eq!(hash(&text), Some([7; 32]));
        assert_eq!(hash(&text.replace('=', "")), None);
        assert_eq!(hash(&base64([7; 31])), None);
        let loose = text.replace("c=", "d=");
        assert_ne!(loose, text);
        assert_eq!(hash(&loose), None, "bits after the last byte must be zero");
    }
}
