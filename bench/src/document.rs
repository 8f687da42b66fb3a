//! Writes the table into a document, between two markers. The rest of the document does not change.

use harness::{Error, Result};
use std::fs;
use std::path::Path;

const BEGIN: &str = "<!-- benchmark: begin; written by `make bench`, changes are lost -->";
const END: &str = "<!-- benchmark: end -->";

/// Replaces the text between the markers of a file.
pub fn rewrite(path: &Path, content: &str) -> Result<()> {
    let failed = |error: std::io::Error| Error::new(format!("{}: {error}", path.display()));
    let text = fs::read_to_string(path).map_err(failed)?;
    let text = replace(&text, content)
        .ok_or_else(|| Error::new(format!("{} has no two lines\n{BEGIN}\n{END}", path.display())))?;
    fs::write(path, text).map_err(failed)
}

/// Checks that [`rewrite`] will work, before the measurements begin.
pub fn check(path: &Path) -> Result<()> {
    let text =
        fs::read_to_string(path).map_err(|error| Error::new(format!("{}: {error}", path.display())))?;
    replace(&text, "").map(|_| ()).ok_or_else(|| {
        Error::new(format!(
            "{} needs two lines, between which the table goes:\n{BEGIN}\n{END}",
            path.display()
        ))
    })
}

fn replace(text: &str, content: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n\n{}\n\n{END}{after}", content.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_markers_changes() {
        let text = format!("head\n{BEGIN}\nold\n{END}\ntail\n");
        let once = replace(&text, "new\n").unwrap();
        assert_eq!(once, format!("head\n{BEGIN}\n\nnew\n\n{END}\ntail\n"));
        assert_eq!(replace(&once, "new").unwrap(), once);
        assert_eq!(replace("no markers", "new"), None);
    }
}
