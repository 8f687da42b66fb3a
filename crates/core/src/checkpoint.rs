//! Checkpoints (C2SP tlog-checkpoint v1.0.0): a log's name, its size and its tree's root, as three lines of
//! text, and one extension line, which names the incarnation of the log that made it.
//!
//! **Invariant**: a checkpoint has exactly one text, and only that text is read back. Other extension lines
//! are refused.

use crate::{Hash, merkle::MAX_TREE_SIZE, text};
use std::fmt;
use uuid::Uuid;

/// The longest origin, in bytes.
pub const MAX_ORIGIN: usize = 255;

/// What one checkpoint says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log's name.
    pub origin: String,
    /// How many entries the tree has.
    pub size: u64,
    /// The tree's root.
    pub root: Hash,
    /// The incarnation of the log that made it ([`transition`](crate::transition)): a UUID of version 7.
    pub incarnation: Option<Uuid>,
}

/// What begins the extension line.
const INCARNATION: &str = "incarnation ";

/// Why a text is not a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckpointError {
    /// Not three lines, or four with an incarnation, each ended by a newline.
    Lines,
    /// The origin is empty or too long, or has control characters.
    Origin,
    /// The second line is not a size.
    Size,
    /// The third line is not a hash in base64.
    Root,
}

impl fmt::Display for CheckpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lines => "malformed checkpoint: expected three lines: origin, tree size, root hash; and at most one more, with the incarnation",
            Self::Origin => {
                "malformed checkpoint: the origin must have 1 to 255 bytes without control characters"
            }
            Self::Size => "malformed checkpoint: the second line is not a tree size",
            Self::Root => "malformed checkpoint: the third line is not a root hash in base64",
        })
    }
}

impl std::error::Error for CheckpointError {}

impl Checkpoint {
    /// A checkpoint, if the values can stand in one.
    pub fn new(origin: &str, size: u64, root: Hash) -> Result<Self, CheckpointError> {
        if !is_valid_origin(origin) {
            return Err(CheckpointError::Origin);
        }
        if size > MAX_TREE_SIZE {
            return Err(CheckpointError::Size);
        }
        Ok(Self { origin: origin.to_owned(), size, root, incarnation: None })
    }

    /// Reads a note's text.
    pub fn parse(note_text: &str) -> Result<Self, CheckpointError> {
        let lines = note_text.strip_suffix('\n').ok_or(CheckpointError::Lines)?;
        let mut lines = lines.splitn(4, '\n');
        let (Some(origin), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next()) else {
            return Err(CheckpointError::Lines);
        };
        let named = |line: &str| line.strip_prefix(INCARNATION).and_then(incarnation);
        let incarnation = match lines.next() {
            None => None,
            Some(line) => Some(named(line).ok_or(CheckpointError::Lines)?),
        };
        let size = text::number(size).ok_or(CheckpointError::Size)?;
        let checkpoint = Self::new(origin, size, text::hash(root).ok_or(CheckpointError::Root)?)?;
        Ok(Self { incarnation, ..checkpoint })
    }

    /// The checkpoint, as an incarnation of the log makes it.
    #[must_use]
    pub fn made_by(self, incarnation: Uuid) -> Self {
        Self { incarnation: Some(incarnation), ..self }
    }
}

impl fmt::Display for Checkpoint {
    /// The text that a note signs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}\n{}", self.origin, self.size, text::base64(self.root))?;
        self.incarnation.iter().try_for_each(|incarnation| writeln!(f, "{INCARNATION}{incarnation}"))
    }
}

/// The incarnation of this name, written as a UUID of version 7 is.
#[must_use]
pub fn incarnation(name: &str) -> Option<Uuid> {
    let id = Uuid::try_parse(name).ok()?;
    (id.get_version_num() == 7 && id.to_string() == name).then_some(id)
}

/// Whether a log can have this name.
#[must_use]
pub fn is_valid_origin(origin: &str) -> bool {
    (1..=MAX_ORIGIN).contains(&origin.len()) && !origin.chars().any(char::is_control)
}

/// The name of a log, which follows from its identity.
#[must_use]
pub fn default_origin(log_id: &[u8; 16]) -> String {
    let hex = hex::encode(log_id);
    format!("audit_chain/{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of C2SP tlog-checkpoint.
    const EXAMPLE: &str =
        "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";

    #[test]
    fn the_published_example_is_read_and_written() {
        let checkpoint = Checkpoint::parse(EXAMPLE).unwrap();
        assert_eq!(
            (checkpoint.origin.as_str(), checkpoint.size),
            ("example.com/behind-the-sofa", 20_852_163)
        );
        assert_eq!(checkpoint.to_string(), EXAMPLE);
    }

    #[test]
    fn the_incarnation_is_the_only_extension_line() {
        let id = "01936b1f-0000-7abc-8def-0123456789ab";
        let named = Checkpoint::parse(EXAMPLE).unwrap().made_by(incarnation(id).unwrap());
        let text = format!("{EXAMPLE}incarnation {id}\n");
        assert_eq!(named.to_string(), text);
        assert_eq!(Checkpoint::parse(&text).unwrap(), named);
        let (other_version, upper) = (id.replace("7abc", "4abc"), id.to_uppercase());
        for line in ["", "timeline 2", "incarnation", "incarnation 01936b1f00007abc8def0123456789ab"]
            .map(str::to_owned)
            .into_iter()
            .chain([&other_version, &upper].map(|id| format!("incarnation {id}")))
        {
            let text = format!("{EXAMPLE}{line}\n");
            assert_eq!(Checkpoint::parse(&text), Err(CheckpointError::Lines), "{line:?}");
        }
        assert_eq!(Checkpoint::parse(&format!("{text}more\n")), Err(CheckpointError::Lines));
    }

    #[test]
    fn malformed_checkpoints_are_refused() {
        use CheckpointError::*;
        let refused = |text: &str| Checkpoint::parse(text).unwrap_err();
        for text in ["", "\n", "a\n", "a\n1\n", EXAMPLE.trim_end(), &format!("{EXAMPLE}extension\n")] {
            assert_eq!(refused(text), Lines, "{text:?}");
        }
        for size in ["020852163", "", "-1", "9223372036854775808", "2e7"] {
            assert_eq!(refused(&EXAMPLE.replace("20852163", size)), Size, "{size:?}");
        }
        assert_eq!(refused(&EXAMPLE.replace("q2I=", "q2J=")), Root);
        assert_eq!(refused(&EXAMPLE.replace("CsUY", "")), Root);
        assert_eq!(refused(&EXAMPLE.replace("example.com/behind-the-sofa", "")), Origin);
        assert_eq!(refused(&EXAMPLE.replace("example", &"x".repeat(300))), Origin);
        assert_eq!(refused(&EXAMPLE.replace("example", "x\ry")), Origin);
    }

    #[test]
    fn the_default_name_is_the_logs_identity() {
        let id = std::array::from_fn(|n| n as u8 * 17);
        assert_eq!(default_origin(&id), "audit_chain/00112233-4455-6677-8899-aabbccddeeff");
    }
}
