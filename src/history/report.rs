//! What an answer lacks, and why: said in notices, once for each column and reason.

use crate::error::notice;
use crate::pg::xact;
use std::collections::BTreeMap;

/// Why a value is not shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loss {
    /// The column is excluded from entries.
    Excluded,
    /// Its values are masked in entries.
    Masked,
    /// The value was too large; its digest is in the entry.
    TooLarge,
    /// The row was written before, or without, an entry that has the value.
    Unknown,
    /// The column was added later.
    Added,
    /// A command computed the value when it rewrote the table.
    Computed,
    /// The column's type, or what its type takes, is another one now.
    Unreadable,
    /// It is computed when it is read.
    Virtual,
}

impl Loss {
    /// The reason, as messages give it.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Excluded => "it is excluded from the log",
            Self::Masked => "it is masked in the log",
            Self::TooLarge => "the value was too large to be recorded; its SHA-256 is in the entry",
            Self::Unknown => "no entry has the value",
            Self::Added => "the column did not exist then",
            Self::Computed => {
                "a command that changed the table computed it, and the row has not changed since"
            }
            Self::Unreadable => "the column's type does not take the recorded value any more",
            Self::Virtual => "it is computed when it is read, and not recorded",
        }
    }
}

/// What is missing in the rows of a table.
pub struct Report {
    table: String,
    losses: BTreeMap<(String, Loss), u64>,
    /// Columns whose values are shown as another type has them: in how many rows.
    converted: BTreeMap<String, u64>,
    /// Entries whose payload was erased: how many, and when the first and the last were captured.
    erased: Option<(u64, i64, i64)>,
    notes: Vec<String>,
}

impl Report {
    pub fn new(table: &str) -> Self {
        Self {
            table: table.into(),
            losses: BTreeMap::new(),
            converted: BTreeMap::new(),
            erased: None,
            notes: Vec::new(),
        }
    }

    /// A value of a column is not shown.
    pub fn lose(&mut self, column: &str, loss: Loss) {
        *self.losses.entry((column.to_owned(), loss)).or_default() += 1;
    }

    /// A value of a column is shown otherwise than it was recorded.
    pub fn convert(&mut self, column: &str) {
        *self.converted.entry(column.to_owned()).or_default() += 1;
    }

    /// An entry, captured then, was erased.
    pub fn erased(&mut self, at: i64) {
        self.erased =
            Some(self.erased.map_or((1, at, at), |(count, from, to)| (count + 1, from.min(at), to.max(at))));
    }

    /// Something else, said once.
    pub fn note(&mut self, text: String) {
        if !self.notes.contains(&text) {
            self.notes.push(text);
        }
    }

    /// Adds what this one has to another one about the same question.
    pub fn merge_into(self, other: &mut Self) {
        for (key, count) in self.losses {
            *other.losses.entry(key).or_default() += count;
        }
        for (column, count) in self.converted {
            *other.converted.entry(column).or_default() += count;
        }
        if let Some((count, from, to)) = self.erased {
            other.erased =
                Some(other.erased.map_or((count, from, to), |(n, f, t)| (n + count, f.min(from), t.max(to))));
        }
        self.notes.into_iter().for_each(|note| other.note(note));
    }

    /// Says it.
    pub fn tell(self) {
        let table = &self.table;
        for note in &self.notes {
            notice(note);
        }
        if let Some((count, from, to)) = self.erased {
            notice(&format!(
                "{count} {} of table \"{table}\", captured from {} to {}, {} been erased: their rows are missing, or shown as they were \
                 before",
                plural(count, "entry", "entries"),
                xact::json_time(from),
                xact::json_time(to),
                plural(count, "has", "have")
            ));
        }
        for ((column, loss), count) in &self.losses {
            notice(&format!(
                "column \"{column}\" of table \"{table}\" is null in {count} {}: {}",
                plural(*count, "row", "rows"),
                loss.reason()
            ));
        }
        for (column, count) in &self.converted {
            notice(&format!(
                "column \"{column}\" of table \"{table}\" is shown in {count} {} as its type of now has the value, which was recorded in \
                 another way",
                plural(*count, "row", "rows")
            ));
        }
    }
}

/// The word for one, or for another number.
pub fn plural<'a>(count: u64, one: &'a str, many: &'a str) -> &'a str {
    if count == 1 { one } else { many }
}
