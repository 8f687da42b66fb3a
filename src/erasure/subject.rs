//! What is to be erased.

use crate::erasure::matching::{Rows, Wanted};
use crate::erasure::names;
use crate::error::Error;
use crate::extension::Extension;
use crate::log::stored::StoredRow;
use crate::log::table;
use audit_chain_core::erasure::{ErasedPart, PlaceRange};
use audit_chain_core::register::Register;
use pgrx::spi::quote_literal;
use serde::{Deserialize, Serialize};

/// The operations of the entries whose payload can be erased. What other entries say, the log itself needs.
pub const ERASABLE: [&str; 6] = ["INSERT", "UPDATE", "DELETE", "TRUNCATE", "BASELINE", "EVENT"];

/// A column of the who-part by which entries are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhoColumn {
    Actor,
    SessionRole,
    EffectiveRole,
    ApplicationName,
    ClientAddr,
}

impl WhoColumn {
    const ALL: [Self; 5] =
        [Self::Actor, Self::SessionRole, Self::EffectiveRole, Self::ApplicationName, Self::ClientAddr];

    fn name(self) -> &'static str {
        match self {
            Self::Actor => "actor",
            Self::SessionRole => "session_role",
            Self::EffectiveRole => "effective_role",
            Self::ApplicationName => "application_name",
            Self::ClientAddr => "client_addr",
        }
    }

    /// The column of this name.
    pub fn of_name(name: &str) -> Result<Self, Error> {
        Self::ALL
            .into_iter()
            .find(|column| column.name() == name)
            .ok_or_else(|| Error::NotAWhoColumn { column: name.into() })
    }
}

/// What is to be erased, as it is asked for. A request that waits for its approval keeps it as JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// The payloads of a table's entries about rows, or with columns.
    Rows {
        schema: String,
        table: String,
        /// When the table had this name, in microseconds since 2000-01-01 UTC.
        named_at: i64,
        rows: Rows,
    },
    /// The who-parts of all entries with this value in a column.
    Who { column: WhoColumn, value: String },
    /// A part of one entry; of the others that share it, too.
    Entry { chain: i32, seq: i64, part: ErasedPart },
    /// What a register names: its text, whose signature has been verified. Entries since `before`, in
    /// microseconds since 2000-01-01 UTC, are not those of the register's log.
    Register { text: String, before: Option<i64> },
}

/// Where the entries are that lose a part.
pub enum Source {
    /// Where an SQL condition on the log, `l`, holds.
    Condition(String),
    /// In these places, if it holds there.
    Places(Vec<PlaceRange>, String),
}

/// Entries, and the part that they lose.
pub struct Selection {
    pub part: ErasedPart,
    pub source: Source,
}

impl Subject {
    /// The entries that are to lose a part. To be called as the extension's owner.
    pub fn selections(&self, extension: &Extension) -> Result<Vec<Selection>, Error> {
        let one = |part, source| Ok(vec![Selection { part, source }]);
        match self {
            Self::Rows { schema, table, named_at, rows } => {
                let names = names::of_table(extension, schema, table, *named_at)?;
                let wanted = serde_json::to_string(&Wanted { names, rows: rows.clone() });
                let condition = format!(
                    "{}._audit_is_to_erase(l.at, l.table_schema, l.table_name, l.row_key, l.old_row, l.new_row, \
                     l.detail, {}::text)",
                    extension.quoted_schema()?,
                    quote_literal(wanted.expect("names and texts are JSON"))
                );
                one(ErasedPart::Payload, Source::Condition(condition))
            }
            Self::Who { column, value } => {
                let kind = if *column == WhoColumn::ClientAddr { "inet" } else { "text" };
                let condition = format!("l.{} = {}::{kind}", column.name(), quote_literal(value));
                one(ErasedPart::Who, Source::Condition(condition))
            }
            Self::Entry { chain, seq, part: ErasedPart::Who } => {
                // The entries of a transaction share a who-part. In another entry it, or its salt, would tell
                // what was erased here.
                let salt = |entry: &StoredRow<'_>| entry.who_salt.map(hex::encode);
                let salt = table::entry(extension, *chain, *seq, salt)?.flatten();
                let condition = salt.map_or_else(
                    || "false".into(),
                    |salt| {
                        format!("l.chain = ({chain}) AND l.who_salt = decode('{salt}'::text, 'hex'::text)")
                    },
                );
                one(ErasedPart::Who, Source::Condition(condition))
            }
            Self::Entry { chain, seq, part } => {
                one(*part, Source::Condition(format!("l.chain = ({chain}) AND l.seq = ({seq})")))
            }
            Self::Register { text, before } => {
                let register = Register::parse(text)
                    .map_err(|error| Error::BadRegister { reason: error.to_string() })?;
                let condition = before.map_or_else(
                    || "true".to_owned(),
                    |before| format!("l.at < {}::timestamptz", quote_literal(names::shown(before))),
                );
                let select = |part| Selection {
                    part,
                    source: Source::Places(register.places(part).into_ranges(), condition.clone()),
                };
                Ok(ErasedPart::ALL.map(select).into())
            }
        }
    }

    /// That nothing matches, as an error.
    pub fn not_found(&self) -> Error {
        match self {
            Self::Rows { schema, table, rows, .. } => Error::NothingToErase {
                what: format!(
                    "no entry of table \"{schema}.{table}\" {}",
                    match rows {
                        Rows::Key(_) => "has this key",
                        Rows::Content(_) => "has this content",
                        Rows::Columns(_) => "holds values of these columns",
                    }
                ),
                hint: match rows {
                    Rows::Key(_) => {
                        "Name all columns of the entries' row_key, with the values as they are recorded there. Older entries have a \
                         renamed column under its old name. What was erased already is not found again."
                    }
                    Rows::Content(_) | Rows::Columns(_) => {
                        "Name columns as they were called when the entries were recorded. What was erased already is not found again."
                    }
                },
            },
            Self::Who { column, .. } => Error::NothingToErase {
                what: format!("no entry has this {}", column.name()),
                hint: "What was erased already is not found again. Names are case-sensitive here.",
            },
            Self::Entry { chain, seq, part } => Error::NothingToErase {
                what: format!("entry ({chain}, {seq}) has no {part} any more"),
                hint: "It has been erased already.",
            },
            Self::Register { .. } => Error::NothingToErase {
                what: "nothing that the register names is left in this log".into(),
                hint: "",
            },
        }
    }
}
