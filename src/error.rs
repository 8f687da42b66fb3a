//! What audit_chain refuses, each with its SQLSTATE and what to do about it.

use crate::settings::{MAX_ACTOR, MAX_CONTEXT};
use pgrx::{PgLogLevel, PgSqlErrorCode as State, pg_sys::panic::ErrorReport};
use std::fmt;

/// A refusal. Its `Display` is the error's message; it names the object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A function that only a trigger may call.
    NotATrigger { function: &'static str },
    /// The capture function on a trigger of a kind that it does not serve.
    WrongTrigger { table: String },
    /// `audit_chain.actor` is over its bound.
    ActorTooLong { length: usize },
    /// `audit_chain.context` is over its bound.
    ContextTooLong { length: usize },
    /// `audit_chain.context` is not a JSON object.
    BadContext { reason: String },
    /// The log is append-only.
    AppendOnly { table: String, operation: &'static str },
    /// A row inserted by SQL whose hash is not its content's.
    NotSelfConsistent { chain: i64, seq: i64 },
    /// A checkpoint handed in that is none.
    BadCheckpoint { reason: String },
    /// A verifier key that is none.
    BadKey { reason: String },
    /// A checkpoint covers the whole log, not a part.
    PartAgainstCheckpoint,
    /// A null where a value is needed.
    NullArgument { function: &'static str, argument: &'static str },
    /// An event without a name.
    EmptyAction,
    /// No relation has this oid.
    NoSuchRelation { oid: u32 },
    /// No schema has this oid.
    NoSuchSchema { oid: u32 },
    /// Not a relation that can be audited.
    NotATable { name: String, kind: &'static str },
    /// The caller does not own the table.
    NotOwner { name: String },
    /// The caller does not own the schema.
    NotSchemaOwner { schema: String },
    /// A pattern of tables to leave out that leaves none out.
    PatternMatchesNothing { schema: String, pattern: String },
    /// Only the extension's owner may do this.
    NotExtensionOwner { function: &'static str },
    /// A column that the table does not have.
    NoSuchColumn { table: String, column: String },
    /// A column of the primary key cannot be left out of the record.
    KeyColumn { table: String, column: String },
    /// A column both left out and masked.
    ExcludedAndMasked { table: String, column: String },
    /// The trigger's options name a column that is gone: capturing would record what must not be recorded.
    OptionColumnGone { table: String, column: String },
    /// The trigger's arguments are not ours.
    BadOptions { table: String, reason: String },
    /// The table is a partition whose root is audited.
    PartOfAudited { name: String, root: String },
    /// A command against the log or what belongs to it.
    Guarded { tag: String, object: String },
    /// A command that would end capture otherwise than by `audit_disable`.
    CaptureGuarded { tag: String, table: String },
    /// A write to a catalog past the commands that are for it.
    CatalogGuarded { catalog: String, operation: &'static str },
    /// Rows for the log that nothing would check.
    NotChecked { table: String },
    /// DDL that an event trigger of ours, if not all, would not see.
    UnseenDdl { trigger: Option<&'static str> },
    /// A trigger whose name is ours.
    ReservedTrigger { table: String },
    /// A checkpoint of a log without entries.
    NothingToSeal,
    /// An entry that the log must have is not there.
    EntryGone { chain: u32, seq: u64 },
    /// What is stored of the tree does not fit together.
    DamagedTree { reason: String },
    /// The signing key cannot be used.
    SigningKey { path: String, reason: String },
    /// No checkpoint of this size was made; the newest one's size.
    NoSuchCheckpoint { size: i64, newest: Option<u64> },
    /// The entry is not in the log.
    NoSuchEntry { chain: i32, seq: i64 },
    /// No checkpoint covers the entry, or not the one that was named.
    NotCovered { chain: i32, seq: i64, size: u64, covering: Option<u64> },
    /// The older tree is not the smaller one.
    SizesSwapped { old: i64, new: u64 },
    /// The extension's tables cannot be found.
    Broken { what: &'static str },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotATrigger { function } => {
                write!(f, "function \"{function}\" was not called as a trigger")
            }
            Self::WrongTrigger { table } => {
                write!(f, "audit_chain_capture() on table \"{table}\" must be an AFTER trigger")
            }
            Self::ActorTooLong { length } => {
                write!(f, "audit_chain.actor has {length} bytes, more than {MAX_ACTOR}")
            }
            Self::ContextTooLong { length } => {
                write!(f, "audit_chain.context has {length} bytes, more than {MAX_CONTEXT}")
            }
            Self::BadContext { reason } => write!(f, "audit_chain.context is not a JSON object: {reason}"),
            Self::AppendOnly { table, operation } => {
                write!(f, "\"{table}\" is append-only: {operation} is refused")
            }
            Self::NotSelfConsistent { chain, seq } => {
                write!(f, "entry ({chain}, {seq}) is refused: its hash is not the hash of its content")
            }
            Self::NullArgument { function, argument } => {
                write!(f, "{function}: \"{argument}\" must not be null")
            }
            Self::EmptyAction => write!(f, "audit_event: \"action\" must not be empty"),
            Self::NotATable { name, kind } => write!(f, "\"{name}\" cannot be audited: it is {kind}"),
            Self::NoSuchRelation { oid } => write!(f, "relation with OID {oid} does not exist"),
            Self::NoSuchSchema { oid } => write!(f, "schema with OID {oid} does not exist"),
            Self::NotOwner { name } => write!(f, "must be owner of table \"{name}\" to audit it"),
            Self::NotSchemaOwner { schema } => write!(f, "must be owner of schema \"{schema}\" to audit it"),
            Self::PatternMatchesNothing { schema, pattern } => {
                write!(f, "pattern \"{pattern}\" matches no table of schema \"{schema}\"")
            }
            Self::NotExtensionOwner { function } => {
                write!(f, "permission denied for {function}: it takes a superuser or the extension's owner")
            }
            Self::NoSuchColumn { table, column } => {
                write!(f, "column \"{column}\" of table \"{table}\" does not exist")
            }
            Self::KeyColumn { table, column } => {
                write!(
                    f,
                    "column \"{column}\" belongs to the primary key of table \"{table}\" and must be recorded"
                )
            }
            Self::ExcludedAndMasked { table, column } => {
                write!(f, "column \"{column}\" of table \"{table}\" is both excluded and masked")
            }
            Self::OptionColumnGone { table, column } => write!(
                f,
                "table \"{table}\" cannot be recorded: column \"{column}\", which must not be recorded, is not there"
            ),
            Self::BadOptions { table, reason } => {
                write!(
                    f,
                    "table \"{table}\" cannot be recorded: its capture trigger's options are not valid: {reason}"
                )
            }
            Self::PartOfAudited { name, root } => {
                write!(f, "\"{name}\" is a partition of \"{root}\", and is audited with it")
            }
            Self::Guarded { tag, object } => write!(f, "{tag} is refused: {object} belongs to audit_chain"),
            Self::CaptureGuarded { tag, table } => {
                write!(f, "{tag} is refused: it would end or change the auditing of table {table}")
            }
            Self::CatalogGuarded { catalog, operation } => {
                write!(f, "{operation} of catalog \"{catalog}\" is refused: it could end auditing unseen")
            }
            Self::NotChecked { table } => {
                write!(f, "INSERT into \"{table}\" is refused: its trigger that checks entries does not fire")
            }
            Self::UnseenDdl { trigger: None } => {
                write!(f, "DDL is refused while event triggers do not fire: audit_chain could not follow it")
            }
            Self::UnseenDdl { trigger: Some(trigger) } => {
                write!(
                    f,
                    "DDL is refused while event trigger \"{trigger}\" does not fire: audit_chain could not follow it"
                )
            }
            Self::ReservedTrigger { table } => {
                write!(f, "the trigger name on table {table} is reserved for audit_chain")
            }
            Self::BadCheckpoint { reason } => write!(f, "the given checkpoint cannot be read: {reason}"),
            Self::BadKey { reason } => write!(f, "the given public key cannot be read: {reason}"),
            Self::PartAgainstCheckpoint => {
                write!(f, "a part of the log cannot be measured by a checkpoint, which covers all of it")
            }
            Self::NothingToSeal => write!(f, "there is nothing to checkpoint: the log has no entries"),
            Self::EntryGone { chain, seq } => {
                write!(f, "the log is not whole: entry {seq} of chain {chain} is not there")
            }
            Self::DamagedTree { reason } => write!(f, "the log's checkpoints are not whole: {reason}"),
            Self::SigningKey { path, reason } => write!(f, "signing key \"{path}\" cannot be used: {reason}"),
            Self::NoSuchCheckpoint { size, .. } => write!(f, "there is no checkpoint of {size} entries"),
            Self::NoSuchEntry { chain, seq } => write!(f, "there is no entry ({chain}, {seq})"),
            Self::NotCovered { chain, seq, size, .. } => {
                write!(f, "the checkpoint of {size} entries does not cover entry ({chain}, {seq})")
            }
            Self::SizesSwapped { old, new } => {
                write!(f, "a checkpoint of {new} entries does not continue one of {old}")
            }
            Self::Broken { what } => write!(f, "audit_chain is damaged: {what} is missing"),
        }
    }
}

impl Refusal {
    /// The error's SQLSTATE.
    pub fn sqlstate(&self) -> State {
        match self {
            Self::NotATrigger { .. } | Self::WrongTrigger { .. } => {
                State::ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED
            }
            Self::ActorTooLong { .. }
            | Self::ContextTooLong { .. }
            | Self::BadContext { .. }
            | Self::EmptyAction => State::ERRCODE_INVALID_PARAMETER_VALUE,
            Self::BadCheckpoint { .. } | Self::BadKey { .. } => State::ERRCODE_INVALID_TEXT_REPRESENTATION,
            Self::PartAgainstCheckpoint => State::ERRCODE_INVALID_PARAMETER_VALUE,
            Self::NullArgument { .. } => State::ERRCODE_NULL_VALUE_NOT_ALLOWED,
            Self::AppendOnly { .. }
            | Self::Guarded { .. }
            | Self::CaptureGuarded { .. }
            | Self::CatalogGuarded { .. } => State::ERRCODE_INSUFFICIENT_PRIVILEGE,
            Self::NotChecked { .. } | Self::UnseenDdl { .. } => {
                State::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE
            }
            Self::NotOwner { .. } | Self::NotSchemaOwner { .. } | Self::NotExtensionOwner { .. } => {
                State::ERRCODE_INSUFFICIENT_PRIVILEGE
            }
            Self::PatternMatchesNothing { .. } | Self::NoSuchRelation { .. } => {
                State::ERRCODE_UNDEFINED_TABLE
            }
            Self::NoSuchSchema { .. } => State::ERRCODE_INVALID_SCHEMA_NAME,
            Self::NotSelfConsistent { .. } => State::ERRCODE_CHECK_VIOLATION,
            Self::NotATable { .. } | Self::PartOfAudited { .. } => State::ERRCODE_WRONG_OBJECT_TYPE,
            Self::NoSuchColumn { .. } => State::ERRCODE_UNDEFINED_COLUMN,
            Self::KeyColumn { .. } | Self::ExcludedAndMasked { .. } => State::ERRCODE_INVALID_PARAMETER_VALUE,
            Self::OptionColumnGone { .. } | Self::BadOptions { .. } => {
                State::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE
            }
            Self::ReservedTrigger { .. } => State::ERRCODE_RESERVED_NAME,
            Self::NothingToSeal | Self::SigningKey { .. } | Self::NotCovered { .. } => {
                State::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE
            }
            Self::EntryGone { .. } | Self::DamagedTree { .. } => State::ERRCODE_DATA_CORRUPTED,
            Self::NoSuchCheckpoint { .. } | Self::NoSuchEntry { .. } | Self::SizesSwapped { .. } => {
                State::ERRCODE_INVALID_PARAMETER_VALUE
            }
            Self::Broken { .. } => State::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NotATrigger { .. } | Self::WrongTrigger { .. } => "Call audit_enable() to install it.".into(),
            Self::ActorTooLong { .. } => "Set the user's name or id, not a document about him.".into(),
            Self::ContextTooLong { .. } => "Set what identifies the request; record the rest by audit_event().".into(),
            Self::BadContext { .. } => "For example: {\"request\": \"7f3a\"}".into(),
            Self::AppendOnly { .. } => {
                "Nobody edits the log; a mistake is put right by a further entry, such as an audit_event().".into()
            }
            Self::NotSelfConsistent { .. } => {
                "Rows come in by SQL only as a dump restores them; use audit_event() to add an entry.".into()
            }
            Self::BadCheckpoint { .. } => "Give the text that audit_checkpoint() returned, whole and unchanged.".into(),
            Self::BadKey { .. } => "Give what `audit-chain pubkey` prints, one key a line.".into(),
            Self::PartAgainstCheckpoint => {
                "Leave out only_chain, since and until, or the checkpoint. since_checkpoint checks what came later.".into()
            }
            Self::NullArgument { .. } => return None,
            Self::NoSuchRelation { .. } | Self::NoSuchSchema { .. } => "Give its name.".into(),
            Self::EmptyAction => "Name what happened, for example 'user.login'.".into(),
            Self::NotATable { .. } => "Audit the ordinary, partitioned or foreign tables that hold the data.".into(),
            Self::NotOwner { .. } => "Ask the table's owner or a superuser to call audit_enable().".into(),
            Self::NotSchemaOwner { .. } => "Ask the schema's owner or a superuser.".into(),
            Self::PatternMatchesNothing { .. } => "Patterns are those of LIKE: % for any text, _ for a letter.".into(),
            Self::NotExtensionOwner { .. } => "Ask a superuser; the entry will name the reason.".into(),
            Self::NoSuchColumn { .. } => "Column names are case-sensitive here.".into(),
            Self::KeyColumn { .. } => {
                "Without its key a row's history cannot be found. Mask other columns, or audit another table.".into()
            }
            Self::ExcludedAndMasked { .. } => "Name it in one of the two lists.".into(),
            Self::OptionColumnGone { table, .. } => format!(
                "It was renamed or dropped past audit_chain's event triggers. Call audit_enable('{table}', …) again \
                 with the columns that must not be recorded."
            ),
            Self::BadOptions { .. } => "Call audit_enable() to install the trigger.".into(),
            Self::PartOfAudited { root, .. } => format!("Change the options of \"{root}\"."),
            Self::Guarded { .. } => {
                "The log and its guards are not altered. DROP EXTENSION audit_chain removes it with its history.".into()
            }
            Self::CaptureGuarded { .. } => {
                "Use audit_disable(table, reason): it records who ended the auditing, and why.".into()
            }
            Self::CatalogGuarded { .. } => {
                "Use the DDL command that is for it. A catalog is repaired without audit_chain in shared_preload_libraries."
                    .into()
            }
            Self::NotChecked { table } => {
                format!("ALTER TABLE {table} ENABLE ALWAYS TRIGGER \"!audit_chain_check_insert\".")
            }
            Self::UnseenDdl { trigger: Some(trigger) } => {
                format!("ALTER EVENT TRIGGER {trigger} ENABLE ALWAYS.")
            }
            Self::UnseenDdl { trigger: None } => {
                "SET event_triggers = on. Single-user mode has none: start it without audit_chain in \
                 shared_preload_libraries."
                    .into()
            }
            Self::ReservedTrigger { .. } => "Choose another name.".into(),
            Self::NothingToSeal => "The first audited change or audit_event() makes the first entry.".into(),
            Self::EntryGone { .. } | Self::DamagedTree { .. } => {
                "Call audit_verify() and audit_problems(); docs/operations.md says what then.".into()
            }
            Self::SigningKey { .. } => {
                "audit_chain.signing_key_file names a file that `audit-chain keygen` made, which belongs to the server's \
                 user and has the permissions 0600 or 0400."
                    .into()
            }
            Self::NoSuchCheckpoint { newest: None, .. } | Self::NotCovered { covering: None, .. } => {
                "Call audit_checkpoint(): the next checkpoint covers all entries committed by then.".into()
            }
            Self::NoSuchCheckpoint { newest: Some(newest), .. } => {
                format!("audit_checkpoint_log lists them; the newest has {newest} entries.")
            }
            Self::NoSuchEntry { .. } => "audit_log lists the entries, audit_problems() those that are gone.".into(),
            Self::NotCovered { covering: Some(covering), .. } => {
                format!("The first checkpoint that does has {covering} entries.")
            }
            Self::SizesSwapped { .. } => "Give the older, smaller tree's size first.".into(),
            Self::Broken { .. } => "Restore the extension's objects, or drop and create the extension.".into(),
        };
        Some(hint)
    }

    /// Raises the error.
    #[track_caller]
    pub fn raise(self) -> ! {
        let mut report = ErrorReport::new(self.sqlstate(), self.to_string(), "audit_chain");
        if let Some(hint) = self.hint() {
            report = report.set_hint(hint);
        }
        report.report(PgLogLevel::ERROR);
        unreachable!("an error does not return")
    }
}

/// Raises the refusal of a `Result`.
pub trait OrRaise<T> {
    /// The value; a refusal is raised as an error.
    fn or_raise(self) -> T;
}

impl<T> OrRaise<T> for Result<T, Refusal> {
    #[track_caller]
    fn or_raise(self) -> T {
        self.unwrap_or_else(|refusal| refusal.raise())
    }
}
