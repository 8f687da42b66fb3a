//! Everything that the program prints.
//!
//! **Invariants**
//! * What the log says cannot act on a terminal or change what a reader sees: control characters, line ends
//!   within a line, and characters that hide or reorder text are printed as `\u{…}` ([`escape`]). A line that
//!   this program prints is one line.
//! * A reader that closes the pipe early, as `head` does, is no fault of anybody: the program ends quietly
//!   with the exit code of its answer.

use crate::outcome::{Failure, Result};
use std::{
    borrow::Cow,
    fmt::Write as _,
    io::{self, ErrorKind, IsTerminal, Write},
};

/// Whether a terminal may do something else with this character than show it.
fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(character,
            // Soft hyphen, Arabic letter mark, Mongolian vowel separator.
            '\u{ad}' | '\u{61c}' | '\u{180e}'
            // Zero width, bidirectional marks, line and paragraph separators, embeddings and overrides.
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            // Word joiner, invisible operators, isolates, deprecated format characters.
            | '\u{2060}'..='\u{206f}'
            // Variation selectors, byte order mark, interlinear annotations, tags.
            | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// The text as one line that is safe to print.
#[must_use]
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_unsafe(character) {
            escaped.extend(character.escape_unicode());
        } else {
            escaped.push(character);
        }
    }
    Cow::Owned(escaped)
}

/// JSON with the same characters escaped as JSON escapes them: the value is the same.
fn escape_json(json: &str) -> Cow<'_, str> {
    if !json.contains(is_unsafe) {
        return Cow::Borrowed(json);
    }
    let mut escaped = String::with_capacity(json.len() + 16);
    for character in json.chars() {
        if is_unsafe(character) {
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        } else {
            escaped.push(character);
        }
    }
    Cow::Owned(escaped)
}

/// Prints on the standard output; false if nobody reads it any more.
fn print(text: &str) -> Result<bool> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::Unchecked(format!("the result cannot be printed: {error}"))),
    }
}

/// Prints lines for a human to read, each escaped. Somebody who reads only the first ones has the answer.
pub fn lines<L: AsRef<str>>(lines: impl IntoIterator<Item = L>) -> Result<()> {
    let mut text = String::new();
    for line in lines {
        text += &escape(line.as_ref());
        text.push('\n');
    }
    print(&text).map(|_| ())
}

/// Prints one JSON object.
pub fn json(value: &impl serde::Serialize) -> Result<()> {
    let json = serde_json::to_string(value).expect("strings and numbers are JSON");
    print(&format!("{}\n", escape_json(&json))).map(|_| ())
}

/// Prints a text that another program reads, byte for byte; on a terminal its lines are escaped. One that was
/// cut is not handed over.
pub fn document(text: &str) -> Result<()> {
    let shown = if io::stdout().is_terminal() {
        text.lines().fold(String::new(), |shown, line| shown + &escape(line) + "\n")
    } else {
        text.to_owned()
    };
    if print(&shown)? { Ok(()) } else { Err(Failure::Unread) }
}

/// Prints a message on the standard error.
pub fn error(message: &str) {
    plain_error(&format!("audit-chain: {message}"));
}

/// Prints a line on the standard error without the program's name.
pub fn plain_error(line: &str) {
    let _ = writeln!(io::stderr(), "{}", escape(line));
}

/// Prints a warning on the standard error.
pub fn warn(message: &str) {
    error(&format!("warning: {message}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_acts_on_a_terminal_is_printed() {
        for plain in ["", "accounts", "Größe – 表 😀 \"x\" \\"] {
            assert_eq!(escape(plain), plain);
            assert_eq!(escape_json(plain), plain);
        }
        assert_eq!(escape("a\u{1b}[2K\rintact\n"), "a\\u{1b}[2K\\u{d}intact\\u{a}");
        assert_eq!(escape("x\u{9b}1A\u{7f}\u{202e}y\u{2066}"), "x\\u{9b}1A\\u{7f}\\u{202e}y\\u{2066}");
        let value = "\u{1b}\u{9b}\u{202e}\u{e0041}\"\\ä";
        let json = serde_json::to_string(value).unwrap();
        let escaped = escape_json(&json);
        assert!(!escaped.contains(is_unsafe));
        assert_eq!(serde_json::from_str::<String>(&escaped).unwrap(), value);
    }
}
