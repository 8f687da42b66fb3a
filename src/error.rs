//! Every error that audit_chain raises: its SQLSTATE, its message, and what to do about it.

use crate::pg::text::message;
use pgrx::{PgLogLevel, PgSqlErrorCode as State, pg_sys::panic::ErrorReport};
use std::fmt;

/// Why a segment cannot be sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotSealable {
    /// New transactions write there.
    Open,
    /// A transaction under way may write there.
    InUse,
    /// It is sealed.
    Sealed,
    /// It was pruned.
    Pruned,
    /// Its table, or entries that checkpoints seal, are missing.
    Missing,
}

/// Why a segment cannot be pruned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unprunable {
    /// It was pruned.
    Pruned,
    /// Another one is older.
    NotOldest { oldest: u32 },
    /// It is open, or closed and not sealed.
    NotSealed { is_open: bool },
    /// The policy keeps it until then.
    TooYoung { until: String },
    /// The policy wants checkpoints to be published, and none are.
    NotPublished,
    /// No checkpoint covers it.
    NotCovered { entries: u64 },
    /// No published checkpoint covers it.
    NotCoveredOutside { entries: u64, published: u64 },
    /// No export was named.
    NotExported,
    /// Its table is missing.
    Missing,
    /// Its entries are not those that checkpoints seal.
    Tampered,
    /// Other sessions use it.
    InUse,
}

/// An error of the extension. Its `Display` is the message, which names the object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// A trigger function was called as an ordinary function.
    NotATrigger { function: &'static str },
    /// The capture function was installed as a trigger of a kind that it does not serve.
    WrongTrigger { table: String },
    /// `audit_chain.actor_setting` is no path.
    BadActorSetting { reason: &'static str },
    /// `audit_chain.context` is longer than `limit` bytes.
    ContextTooLong { length: usize, limit: usize },
    /// `audit_chain.context` is not a JSON object.
    BadContext { reason: String },
    /// `audit_chain.publish_after` is not a list of names.
    BadStandbys,
    /// UPDATE, DELETE or TRUNCATE of one of the extension's tables.
    AppendOnly { table: String, operation: &'static str },
    /// A row inserted with SQL does not have the hash of its content.
    NotSelfConsistent { chain: i64, seq: i64 },
    /// A row inserted with SQL cannot be from a dump.
    Implausible { table: String, reason: String },
    /// SQL inserts into one of the extension's tables, which has rows of this database's own.
    NotRestoring { table: String },
    /// SQL inserts into one of the extension's tables for a role that may not restore a dump.
    NotRestorer { table: String },
    /// The aggregate is called by a role that may not read the log.
    NotReader,
    /// A role that may not record verifications asks for that.
    NotRecorder,
    /// The status of the log is asked for by a role that may not read it.
    NotMonitor { function: &'static str, view: &'static str },
    /// The table is to be compared with the log for a role that may not read it.
    MayNotReadTable { table: String },
    /// What is to be compared with the log is not a table.
    NotATableToCheck { name: String },
    /// The transaction's snapshot is older than a change of the table that no snapshot shows.
    ChangedSinceSnapshot { table: String },
    /// A change of the table is not captured yet.
    TriggersWait { table: String },
    /// Time travel to now.
    NotInThePast,
    /// The table was dropped whose past is asked for.
    PastOfDropped { table: String },
    /// A temporary relation has the name that a view of the past needs.
    TemporaryNameTaken { name: String },
    /// A polymorphic argument has not the type of a table's rows.
    NotARow { function: &'static str },
    /// Row security hides rows of the table from the caller, who asks for its history.
    RowSecurity { table: String },
    /// No entry tells that the table was ever audited.
    NeverAudited { table: String },
    /// The table was not audited then.
    PastNotAudited { table: String, asked: String, since: String },
    /// The entries of that time have been pruned.
    PastPruned { table: String, until: String },
    /// A text is neither a checkpoint nor a time.
    NotAMoment { text: String, reason: String },
    /// An object does not name the columns of a table's key.
    NoSuchKey { table: String, key: String, columns: String },
    /// A table has no key by which a row could be named.
    NoKey { table: String },
    /// A transaction that is to be taken back is the one that asks for it.
    UndoOwn { xid: u64 },
    /// It has not ended.
    UndoNotCommitted { xid: u64 },
    /// It was rolled back.
    UndoRolledBack { xid: u64 },
    /// The log has no entry of it.
    UndoUnknown { xid: u64, pruned: Option<String> },
    /// It has changed the definition of a table whose rows it has changed.
    UndoDefinition { xid: u64, table: String },
    /// Rows cannot be taken back.
    UndoConflict { xid: u64, first: String, others: usize },
    /// The statements changed other rows too.
    UndoStrays { first: String, others: usize },
    /// A statement did not change one row.
    UndoWithoutEffect { table: String, row: String, changed: u64 },
    /// A table was renamed while its rows were being looked at.
    UndoRenamed { table: String },
    /// A table does not exist any more.
    TableGone { table: String },
    /// The log does not tell whether a row was there.
    RestoreUnknown { table: String, key: String, at: String },
    /// A row of a table without a key is to be restored.
    RestoreNeedsKey { table: String },
    /// History is asked for by a role that may not read the log.
    MayNotReadLog { function: &'static str },
    /// A text or a number that is no transaction's ID.
    NoTransactionId { text: String },
    /// More chains than a log can have.
    TooManyChains { limit: u32 },
    /// The log that is being verified in slices is not the one with which that began.
    LogReplaced,
    /// A procedure is called where it cannot end transactions.
    InTransactionBlock { procedure: &'static str },
    /// The supplied checkpoint cannot be read.
    BadCheckpoint { reason: String },
    /// The supplied public key cannot be read.
    BadKey { reason: String },
    /// A checkpoint was supplied to check only a part of the log.
    PartAgainstCheckpoint,
    /// A null argument where a value is needed.
    NullArgument { function: &'static str, argument: &'static str },
    /// A text argument is longer than `limit` bytes.
    ArgumentTooLong { function: &'static str, argument: &'static str, length: usize, limit: usize },
    /// An event without a name.
    EmptyAction,
    /// The reason for ending auditing is empty.
    EmptyReason { function: &'static str },
    /// No relation has this OID.
    NoSuchRelation { oid: u32 },
    /// No schema has this OID.
    NoSuchSchema { oid: u32 },
    /// The relation or schema cannot be audited.
    NotATable { name: String, kind: &'static str },
    /// The caller does not own the table.
    NotOwner { name: String },
    /// The caller does not own the schema.
    NotSchemaOwner { schema: String },
    /// A pattern of tables to exclude ends with an escape character.
    BadPattern { pattern: String },
    /// The caller is neither a superuser nor the extension's owner.
    NotExtensionOwner { function: &'static str },
    /// The table does not have this column.
    NoSuchColumn { table: String, column: String },
    /// A column of the primary key can be neither excluded nor masked.
    KeyColumn { table: String, column: String },
    /// The column is both excluded and masked.
    ExcludedAndMasked { table: String, column: String },
    /// The capture trigger's options name a column that does not exist: the column may be there under another
    /// name.
    OptionColumnGone { table: String, column: String },
    /// The capture trigger's arguments cannot be read.
    BadOptions { table: String, reason: String },
    /// The table is a partition whose root is audited.
    PartOfAudited { name: String, relationship: &'static str, root: String },
    /// A foreign table whose remote table's rows cannot be changed one by one.
    RemoteUnfit { name: String, remote: String, server: String, harm: &'static str },
    /// What a foreign table is on its server cannot be seen.
    RemoteUnseen { name: String, server: String, reason: String },
    /// A command against one of the extension's objects.
    Guarded { tag: String, object: String },
    /// A trigger on one of the extension's tables.
    TriggerGuarded { object: String },
    /// A command that would end capture without `audit_disable`.
    CaptureGuarded { tag: String, table: String },
    /// A direct write to a catalog that the guard relies on.
    CatalogGuarded { catalog: String, operation: &'static str },
    /// DDL on an object that PostgreSQL itself needs, or on a function or operator of `pg_catalog`.
    ServerGuarded { object: String },
    /// DDL while it may change the system catalogs themselves.
    CatalogDdl,
    /// A call of a function of pg_surgery.
    Surgery { function: String },
    /// An INSERT into the log whose rows no trigger would check.
    NotChecked { table: String },
    /// DDL that an event trigger of the guard (all of them, for `None`) would not see.
    UnseenDdl { trigger: Option<&'static str> },
    /// A trigger with one of the capture triggers' names.
    ReservedTrigger { name: String, table: String },
    /// A chain's newest entry has the last place or time that the format has.
    ChainEnded { chain: u32 },
    /// The open segment of the log cannot be written to.
    SegmentUnfit { table: String, reason: &'static str },
    /// `audit_rotate()` after the transaction has written entries.
    RotateAfterWriting,
    /// `audit_rotate()` of a log whose open segment has no entries.
    NothingToRotate { segment: u32 },
    /// `audit_rotate()` of a log that is not recording.
    NotRotatable { state: &'static str },
    /// A table has the name of the next segment.
    SegmentNameTaken { table: String },
    /// There can be no further segment.
    NoMoreSegments,
    /// No segment has this number.
    NoSuchSegment { segment: i32, open: u32 },
    /// A segment cannot be sealed.
    NotSealable { segment: u32, reason: NotSealable },
    /// A checkpoint of a log without entries.
    NothingToSeal,
    /// A checkpoint of a copy that was not told what it is.
    UndecidedCopy,
    /// `audit_fork()` or `audit_resume()` of a log without entries.
    NothingToContinue { function: &'static str },
    /// An entry that the log must have is missing.
    EntryMissing { chain: u32, seq: u64 },
    /// A policy of retention keeps entries for no time, or for too long.
    BadKeep { reason: &'static str },
    /// A locked policy of retention would become less strict.
    LockedPolicy { what: &'static str },
    /// The stored policies of retention cannot be what `audit_retention` has set.
    DamagedRetention { reason: String },
    /// A legal hold without a name.
    EmptyHoldName { function: &'static str },
    /// A legal hold of this name is in force already.
    HoldInForce { name: String },
    /// No legal hold of this name is in force; those that are.
    NoSuchHold { name: String, in_force: Option<String> },
    /// Something is not removed while legal holds are in force.
    UnderHold { what: &'static str, names: String },
    /// Entries are pruned by a policy, and there is none.
    NoPolicy,
    /// The log is not one from which entries can be pruned.
    NotPrunable { state: &'static str },
    /// A segment cannot be pruned.
    Unprunable { segment: u32, reason: Unprunable },
    /// What the policy or a caller says of an export is no digest.
    BadDigest { function: &'static str },
    /// One export is named for several segments.
    ExportOfSeveral,
    /// The chain was pruned.
    ChainPruned { chain: i32, segment: u32 },
    /// The entry was pruned.
    EntryPruned { chain: i32, seq: i64 },
    /// The log was pruned while it was being read, or after the transaction's snapshot was taken.
    PrunedMeanwhile,
    /// The stored tree does not fit together.
    DamagedTree { reason: String },
    /// The signing key cannot be used.
    SigningKey { path: String, reason: String },
    /// No checkpoint has this size; `newest` is the size of the newest one.
    NoSuchCheckpoint { size: i64, newest: Option<u64> },
    /// The log does not have this entry.
    NoSuchEntry { chain: i32, seq: i64 },
    /// The checkpoint does not seal the entry; `sealing` is the size of the first one that does.
    NotSealed { chain: i32, seq: i64, size: u64, sealing: Option<u64> },
    /// The older tree is larger than the newer one.
    SizesSwapped { old: i64, new: u64 },
    /// No table of this name exists, and the log does not know it.
    UnknownTable { name: String },
    /// Dropped tables of several schemas had this name.
    AmbiguousTable { name: String, schemas: String },
    /// An argument that must name something names nothing.
    NothingNamed { function: &'static str, argument: &'static str },
    /// The key of a row to erase is no JSON object with members.
    NotAKey { function: &'static str },
    /// An entry has no part of this name.
    NotAPart { part: String },
    /// Entries are not found by this column.
    NotAWhoColumn { column: String },
    /// The entry's payload is needed by the log itself.
    NotErasable { chain: i32, seq: i64, operation: String },
    /// The transaction began in an older segment than that of the entries to erase.
    NewerSegment { segment: u32 },
    /// There is nothing to erase.
    NothingToErase { what: String, hint: &'static str },
    /// A legal hold forbids to erase.
    LegalHold { name: String },
    /// No erasure was requested under this number.
    NoSuchRequest { request: String },
    /// The request has been executed or rejected.
    RequestDecided { request: String, state: String },
    /// The role that requested an erasure approves it.
    OwnRequest { request: String },
    /// The supplied register of erasures cannot be used.
    BadRegister { reason: String },
    /// Readers do not let go of a table.
    InUse { table: String },
    /// One of the extension's own objects cannot be found.
    MissingObject { what: &'static str },
}

/// What the client sees of an error.
pub struct Description {
    /// The SQLSTATE.
    pub sqlstate: State,
    /// The message.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Error {
    /// The error's SQLSTATE, message and hint.
    pub fn describe(&self) -> Description {
        let (sqlstate, message, hint) = self.text();
        Description { sqlstate, message, hint: Some(hint).filter(|hint| !hint.is_empty()) }
    }

    /// The SQLSTATE, the message, and the hint, which is empty where there is none.
    fn text(&self) -> (State, String, String) {
        use State::*;
        match self {
            Self::NotATrigger { function } => (
                ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED,
                format!("function \"{function}\" was not called as a trigger"),
                "Call audit_enable() to audit a table.".into(),
            ),
            Self::WrongTrigger { table } => (
                ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED,
                format!("_audit_capture() on table \"{table}\" must be an AFTER trigger"),
                "Call audit_enable() to audit a table.".into(),
            ),
            Self::BadActorSetting { reason } => (
                ERRCODE_INVALID_PARAMETER_VALUE,
                format!("audit_chain.actor_setting is not the name of a setting or a path into one: {reason}"),
                "For example: request.jwt.claims ->> sub, or app.claims -> user ->> 'full name'".into(),
            ),
            Self::ContextTooLong { length, limit } => (
                ERRCODE_INVALID_PARAMETER_VALUE,
                format!("audit_chain.context is too long: it has {length} bytes, and the limit is {limit}"),
                "Set what identifies the request, and record the rest with audit_event().".into(),
            ),
            Self::BadContext { reason } => (
                ERRCODE_INVALID_PARAMETER_VALUE,
                format!("audit_chain.context must be a JSON object: {reason}"),
                "For example: {\"request\": \"7f3a\"}".into(),
            ),
            Self::BadStandbys => (
                ERRCODE_INVALID_PARAMETER_VALUE,
                "audit_chain.publish_after must be a list of names".into(),
                "For example: standby1, \"standby-2\", or sync for the synchronous standbys.".into(),
            ),
            Self::AppendOnly { table, operation } => (
                ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("{operation} on table \"{table}\" is not allowed: the table is append-only"),
                "To correct a mistake, add an entry, for example with audit_event().".into(),
            ),
            Self::NotSelfConsistent { chain, seq } => (
                ERRCODE_CHECK_VIOLATION,
                format!("cannot insert entry ({chain}, {seq}): its hash is not the hash of its content"),
                "Only a restored dump inserts entries with SQL. Use audit_event() to add an entry.".into(),
            ),
            Self::Implausible { table, reason } => (
                ERRCODE_CHECK_VIOLATION,
                format!("cannot insert into table \"{table}\": {reason}"),
                "Only a restored dump inserts rows with SQL. The dump is damaged or was edited.".into(),
            ),
            Self::NotRestoring { table } => (
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("cannot insert into table \"{table}\": this database has written entries of its own"),
                "Restore the log into a new database, or after DROP EXTENSION audit_chain CASCADE, before anything else is \
                 written; or leave it out (pg_dump --exclude-table-data). Use audit_event() to add an entry."
                    .into(),
            ),
            Self::NotRestorer { table } => (
                ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!(
                    "permission denied for table {table}: only a superuser, the extension's owner, or a role that was granted \
                     INSERT by name may insert rows with SQL"
                ),
                "Restore a dump as a superuser, or GRANT INSERT on the extension's tables and EXECUTE on \
                 _audit_capture() to the role that restores. Use audit_event() to add an entry."
                    .into(),
            ),
            Self::NotReader => (
                ERRCODE_INSUFFICIENT_PRIVILEGE,
                "permission denied for table audit_log".into(),
                "GRANT SELECT ON audit_log allows a role to verify the log, with audit_verify().".into(),
            ),
            Self::NotRecorder => (
                ERRCODE_INSUFFICIENT_PRIVILEGE,
                "permission denied: only roles that may call function audit_verify_and_record may record a verification"
                    .into(),
                "GRANT EXECUTE ON FUNCTION audit_verify_and_record allows it. Without record, verification needs no such \
                 right."
                    .into(),
            ),
            Self::NotMonitor { function, view } => (
                ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("permission denied for function {function}: only roles that may read view {view} may call it"),
                format!("GRANT SELECT ON {view} allows a role to read it. Members of pg_monitor may read audit_status and audit_coverage."),
            ),
            Self::MayNotReadTable { table } => (
                ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("permission denied for table {table}: whoever may not read its rows may not read them in the log either"),
                format!("GRANT SELECT ON {table} allows a role to read it."),
            ),
            Self::NotATableToCheck { name } => (
                ERRCODE_WRONG_OBJECT_TYPE,
                format!("\"{name}\" is not a table"),
                "Pass an audited table, or a partitioned one, of which all partitions are compared.".into(),
            ),
            Self::ChangedSinceSnapshot { table } => (
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("table \"{table}\" was altered, rewritten or truncated after this transaction's snapshot"),
                "Call audit_check_table() in a new transaction.".into(),
            ),
            Self::TriggersWait { table } => (
                ERRCODE_OBJECT_IN_USE,
                format!("cannot compare table \"{table}\" with the log because it has pending trigger events"),
                "Call audit_check_table() when the statement that changes the table has ended, and its deferred triggers have fired: \
                 SET CONSTRAINTS ALL IMMEDIATE."
                    .into(),
            ),
            Self::NotInThePast => (
                ERRCODE_INVALID_PARAMETER_VALUE,
                "the time to travel to is not in the past".into(),
                "Pass an earlier time, or the number of entries of a checkpoint.".into(),
            ),
            Self::PastOfDropped { table } => (
                ERRCODE_UNDEFINED_TABLE,
                format!("table \"{table}\" was dropped, so that nobody can be said to be allowed to read it"),
                "audit_history() shows its changes.".into(),
            ),
            Self::TemporaryNameTaken { name } => (
                ERRCODE_DUPLICATE_TABLE,
                format!("\"{name}\" is a temporary relation of this session: the name cannot mean the table of the past"),
                "Drop or rename it, or travel in another session.".into(),
            ),
            Self::NotARow { function } => (
                ERRCODE_DATATYPE_MISMATCH,
                format!("the first argument of {function}() does not have the type of a table's rows"),
                format!("Pass a null of the table's row type: {function}(NULL::accounts, ...)."),
            ),
            Self::RowSecurity { table } => (
                ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("row security of table \"{table}\" applies to you: its history would show rows that its policies hide"),
                "Ask as the table's owner, or as a role with BYPASSRLS.".into(),
            ),
            Self::NeverAudited { table } => (
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("the log has no entry about table \"{table}\": it was never audited"),
                "SELECT audit_enable('...') begins auditing; with baseline => true it records the rows that are there. \
                 audit_coverage says which tables are audited."
                    .into(),
            ),
            Self::PastNotAudited { table, asked, since } => (
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("table \"{table}\" was not audited yet at the time asked for ({asked}): auditing began on {since}"),
                format!("Ask for a time after {since}."),
            ),
            Self::PastPruned { table, until } => (
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("entries about table \"{table}\" of the time asked for may have been pruned: the log has those captured after {until}"),
                "An export made before pruning has them: see docs/retention.md.".into(),
            ),
            Self::NotAMoment { text, reason } => (
                ERRCODE_INVALID_PARAMETER_VALUE,
                format!("\"{text}\" is neither a checkpoint of this log nor a time: {reason}"),
                "Pass a time, the number of entries that a checkpoint seals (audit_checkpoint_log.tree_size), or the checkpoint's text."
                    .into(),
            ),
            Self::NoSuchKey { table, key, columns } => (
                ERRCODE_INVALID_PARAMETER_VALUE,
                format!("{key} is no key of table \"{table}\""),
                format!("Name the columns of its primary key, with their values, as a JSON object: {columns}."),
            ),
            Self::NoKey { table } => (
                ERRCODE_INVALID_PARAMETER_VALUE,
                format!("table \"{table}\" has no primary key: no key names a row of it"),
                "Pass columns and values that the row has; its history is found by its content.".into(),
            ),
            Self::UndoOwn { xid } => (
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("cannot take back transaction {xid}: it is the current one"),
                "ROLLBACK takes it back.".into(),
            ),
            Self::UndoNotCommitted { xid } => (
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("cannot take back transaction {xid}: it has not committed"),
                "Wait until it has ended, or check its ID. pg_stat_activity and pg_prepared_xacts have those under way.".into(),
            ),
            Self::UndoRolledBack { xid } => (
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("cannot take back transaction {xid}: it was rolled back"),
                "It has left nothing that could be taken back.".into(),
            ),
            Self::UndoUnknown { xid, pruned } => (
                ERRCODE_NO_DATA_FOUND,
                format!("the log has no entry of transaction {xid}"),
                match pruned {
                    None => "Pass the value of audit_log.xid. A transaction that changed no audited table has no entry.".into(),
                    Some(until) => format!(
                        "Entries captured until {until} have been pruned; an export made before has them. A transaction that \
                         changed no audited table has no entry."
                    ),
                },
            ),
            Self::UndoDefinition { xid, table } => (
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("cannot take back transaction {xid}: it has changed the definition of table \"{table}\" too"),
                "Changes of definitions are not taken back. With force => true its rows are, as far as that is possible.".into(),
            ),
            Self::UndoConflict { xid, first, others } => (
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("cannot take back transaction {xid}: {first}{}", and_others(*others)),
                format!(
                    "SELECT * FROM audit_undo({xid}) shows all of them. With force => true rows get the state before the transaction, \
                     whatever they are now."
                ),
            ),
            Self::UndoStrays { first, others } => (
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!(
                    "cannot take the transaction back: triggers or foreign keys would change other rows too: {first}{}",
                    and_others(*others)
                ),
                "With force => true it is taken back nevertheless.".into(),
            ),
            Self::UndoWithoutEffect { table, row, changed } => (
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("the statement about {row} of table \"{table}\" changed {changed} rows, and not one"),
                "A trigger, a rule or row security has prevented it.".into(),
            ),
            Self::UndoRenamed { table } => (
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("table \"{table}\" was renamed meanwhile"),
                "Try again.".into(),
            ),
            Self::TableGone { table } => (
                ERRCODE_UNDEFINED_TABLE,
                format!("table \"{table}\" does not exist any more"),
                "Create it, and insert what audit_history() shows.".into(),
            ),
            Self::RestoreUnknown { table, key, at } => (
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("the log does not tell whether row {key} of table \"{table}\" was there ({at})"),
                "Auditing began without a baseline, or entries have been pruned or erased. DELETE the row, if it was not there.".into(),
            ),
            Self::RestoreNeedsKey { table } => (
                ERRCODE_INVALID_PARAMETER_VALUE,
                format!("table \"{table}\" has no primary key: no key names a row of it"),
                "audit_undo() takes back what a transaction did to rows without a key.".into(),
            ),
            Self::MayNotReadLog { function } => (
                ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("permission denied for function {function}: only roles that may read table audit_log may call it"),
                "GRANT SELECT ON audit_log allows a role to read the log.".into(),
            ),
            Self::NoTransactionId { text } => (
                ERRCODE_INVALID_PARAMETER_VALUE,
                format!("\"{text}\" is not the ID of a transaction"),
                "A transaction's ID is a number without sign, as pg_current_xact_id() and audit_log.xid have it.".into(),
            ),
            Self::TooManyChains { limit } => (
                ERRCODE_PROGRAM_LIMIT_EXCEEDED,
                format!("cannot check more than {limit} chains"),
                "A segment of the log has no more chains than audit_chain.max_chains allows. Entries of other chains were inserted \
                 by force: verify chain by chain, with only_chain, or with the program audit-chain."
                    .into(),
            ),
            Self::LogReplaced => (
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                "the log was replaced while it was being verified".into(),
                "Extension audit_chain was dropped and created. Verify the new log.".into(),
            ),
            Self::InTransactionBlock { procedure } => (
                ERRCODE_ACTIVE_SQL_TRANSACTION,
                format!("{procedure} cannot run inside a transaction block"),
                in_transaction_hint(procedure),
            ),
            Self::BadCheckpoint { reason } => (
                ERRCODE_INVALID_TEXT_REPRESENTATION,
                format!("invalid checkpoint: {reason}"),
                "Supply the complete, unchanged text that audit_checkpoint() returned.".into(),
            ),
            Self::BadKey { reason } => (
                ERRCODE_INVALID_TEXT_REPRESENTATION,
                format!("invalid public key: {reason}"),
                "Supply what `audit-chain pubkey` prints, one key per line.".into(),
            ),
            Self::PartAgainstCheckpoint => (
                ERRCODE_INVALID_PARAMETER_VALUE,
                "cannot compare a part of the log with a checkpoint, which covers the whole log".into(),
                "Omit only_chain, since and until, or omit the checkpoint. since_checkpoint checks later entries only."
                    .into(),
            ),
            Self::NullArgument { function, argument } => (
                ERRCODE_NULL_VALUE_NOT_ALLOWED,
                format!("argument \"{argument}\" of {function}() must not be null"),
                String::new(),
            ),
            Self::ArgumentTooLong { function, argument, length, limit } => (
                ERRCODE_PROGRAM_LIMIT_EXCEEDED,
                format!(
                    "argument \"{argument}\" of {function}() is too long: it has {length} bytes, and the limit is {limit}"
                ),
                "Shorten it. The argument detail of audit_event() takes long texts.".into(),
            ),
            Self::EmptyAction => (
                ERRCODE_INVALID_PARAMETER_VALUE,
                "argument \"action\" of audit_event() must not be empty".into(),
                "Name what happened, for example 'user.login'.".into(),
            ),
            Self::NoSuchRelation { oid } => (
                ERRCODE_UNDEFINED_TABLE,
                format!("relation with OID {oid} does not exist"),
                "Specify the table by its name.".into(),
            ),
            Self::NoSuchSchema { oid } => (
                ERRCODE_INVALID_SCHEMA_NAME,
                format!("schema with OID {oid} does not exist"),
                "Specify the schema by its name.".into(),
            ),
            Self::NotATable { name, kind } => (
                ERRCODE_WRONG_OBJECT_TYPE,
                format!("cannot audit \"{name}\": it is {kind}"),
                "Audit the ordinary, partitioned or foreign tables that hold the data.".into(),
            ),
            Self::EmptyReason { function } => (
                ERRCODE_INVALID_PARAMETER_VALUE,
                format!("argument \"reason\" of {function}() must not be empty"),
                "State the reason: it is recorded.".into(),
            ),
            Self::NotOwner { name } => (
                ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("must be owner of table \"{name}\" to audit it"),
                "Ask the table's owner or a superuser to call audit_enable().".into(),
            ),
            Self::NotSchemaOwner { schema } => (
                ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("must be owner of schema \"{schema}\" to audit it"),
                "Ask the schema's owner or a superuser to call audit_enable_schema().".into(),
            ),
            Self::BadPattern { pattern } => (
                ERRCODE_INVALID_ESCAPE_SEQUENCE,
                format!("pattern \"{pattern}\" of tables to exclude ends with an escape character"),
                "Patterns are those of LIKE: write \\\\ for a backslash.".into(),
            ),
            Self::NotExtensionOwner { function } => (
                ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("permission denied for {function}: only a superuser or the extension's owner may call it"),
                "Ask a superuser. The entry records who called it, and the reason.".into(),
            ),
            Self::NoSuchColumn { table, column } => (
                ERRCODE_UNDEFINED_COLUMN,
                format!("column \"{column}\" of table \"{table}\" does not exist"),
                "Column names are case-sensitive here.".into(),
            ),
            Self::KeyColumn { table, column } => (
                ERRCODE_INVALID_PARAMETER_VALUE,
                format!("cannot exclude or mask column \"{column}\" of table \"{table}\": it belongs to the primary key"),
                "The history of a row is found by its key. Exclude or mask other columns.".into(),
            ),
            Self::ExcludedAndMasked { table, column } => (
                ERRCODE_INVALID_PARAMETER_VALUE,
                format!("column \"{column}\" of table \"{table}\" is both excluded and masked"),
                "Name the column in only one of the two lists.".into(),
            ),
            Self::OptionColumnGone { table, column } => (
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("cannot record table \"{table}\": its options name column \"{column}\", which does not exist"),
                format!(
                    "The column was renamed or dropped without firing audit_chain's event triggers. Call \
                     audit_enable('{table}', …) again with the columns that must not be recorded."
                ),
            ),
            Self::BadOptions { table, reason } => (
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("cannot record table \"{table}\": the arguments of its capture trigger are invalid: {reason}"),
                "Call audit_enable() to make the trigger again.".into(),
            ),
            Self::PartOfAudited { name, relationship, root } => (
                ERRCODE_WRONG_OBJECT_TYPE,
                format!("table \"{name}\" {relationship} {root}, which is audited"),
                format!("Call the function for {root} instead."),
            ),
            Self::RemoteUnfit { name, remote, server, harm } => (
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("cannot audit foreign table \"{name}\": table \"{remote}\" of server \"{server}\" {harm}"),
                "UPDATE and DELETE would change wrong rows, or fail. Audit the table on its own server, leave it out with \
                 exclude_tables, or make a foreign table for each partition or child."
                    .into(),
            ),
            Self::RemoteUnseen { name, server, reason } => (
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("cannot audit foreign table \"{name}\": server \"{server}\" does not say what it is there: {reason}"),
                "If its remote table were partitioned, UPDATE and DELETE would change wrong rows. The caller needs a user \
                 mapping, and the rights to use the server and to create temporary tables."
                    .into(),
            ),
            Self::Guarded { tag, object } => (
                ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("{tag} is not allowed: {object} belongs to extension audit_chain"),
                "The log and the objects that protect it cannot be changed. DROP EXTENSION audit_chain removes them \
                 together with the log."
                    .into(),
            ),
            Self::TriggerGuarded { object } => (
                ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("CREATE TRIGGER is not allowed: {object} would be on a table of extension audit_chain"),
                "Entries are written past triggers. Run pg_repack with --exclude-extension=audit_chain; VACUUM FULL and \
                 CLUSTER may be used on these tables."
                    .into(),
            ),
            Self::CaptureGuarded { tag, table } => (
                ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("{tag} is not allowed: it would end or change the auditing of table {table}"),
                "Use audit_disable(table, reason), which records who ended the auditing, and why.".into(),
            ),
            Self::CatalogGuarded { catalog, operation } => (
                ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("{operation} on catalog \"{catalog}\" is not allowed: it could end auditing without an entry"),
                "Use the DDL command for the object. To repair a catalog, start the server without audit_chain in \
                 shared_preload_libraries."
                    .into(),
            ),
            Self::ServerGuarded { object } => (
                ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("cannot create or change {object} in schema pg_catalog, which audit_chain relies on"),
                "Create functions and operators in another schema.".into(),
            ),
            Self::CatalogDdl => (
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                "DDL is not allowed while allow_system_table_mods is on: it could end auditing without an entry".into(),
                "SET allow_system_table_mods = off. To change a catalog, start the server without audit_chain in \
                 shared_preload_libraries."
                    .into(),
            ),
            Self::Surgery { function } => (
                ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("cannot call {function}: it could remove rows without an entry"),
                "To repair a table, start the server without audit_chain in shared_preload_libraries.".into(),
            ),
            Self::NotChecked { table } => (
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("INSERT on table \"{table}\" is not allowed: the trigger that checks entries does not fire"),
                format!("ALTER TABLE {table} ENABLE ALWAYS TRIGGER \"!audit_chain_check_insert\"."),
            ),
            Self::UnseenDdl { trigger: None } => (
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                "DDL is not allowed while event triggers do not fire: audit_chain could not record it".into(),
                "SET event_triggers = on. Single-user mode has no event triggers: start it without audit_chain in \
                 shared_preload_libraries."
                    .into(),
            ),
            Self::UnseenDdl { trigger: Some(trigger) } => (
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!(
                    "DDL is not allowed while event trigger \"{trigger}\" does not fire: audit_chain could not record it"
                ),
                format!("ALTER EVENT TRIGGER {trigger} ENABLE ALWAYS."),
            ),
            Self::ReservedTrigger { name, table } => (
                ERRCODE_RESERVED_NAME,
                format!("trigger name \"{name}\" on table {table} is reserved for audit_chain"),
                "Choose another name.".into(),
            ),
            Self::ChainEnded { chain } => (
                ERRCODE_PROGRAM_LIMIT_EXCEEDED,
                format!("cannot add to chain {chain}: its newest entry has the last place or time that an entry can have"),
                format!("Such an entry was inserted by force. Increase audit_chain.max_chains. {SEE_PROBLEMS}"),
            ),
            Self::SegmentUnfit { table, reason } => (
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("cannot write to the log: its segment \"{table}\" {reason}"),
                "If a dump is being restored, restore all of it. Otherwise the table was changed by force: restore it from a backup."
                    .into(),
            ),
            Self::RotateAfterWriting => (
                ERRCODE_ACTIVE_SQL_TRANSACTION,
                "audit_rotate() cannot be called after the transaction has added entries to the log".into(),
                "All entries of a transaction are in one segment. Call audit_rotate() in a transaction of its own.".into(),
            ),
            Self::NothingToRotate { segment } => (
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("cannot begin another segment of the log: segment {segment}, which is open, has no entries"),
                "Call audit_rotate() after entries were added.".into(),
            ),
            Self::NotRotatable { state } => (
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("cannot begin another segment of the log: its state is {state}"),
                "See audit_status.state. A log can be rotated once this database has written an entry of its own.".into(),
            ),
            Self::SegmentNameTaken { table } => (
                ERRCODE_DUPLICATE_TABLE,
                format!("table {table} exists, whose name is that of a segment of the log"),
                "Rename or drop that table. It does not belong to the log.".into(),
            ),
            Self::NoMoreSegments => (
                ERRCODE_PROGRAM_LIMIT_EXCEEDED,
                "cannot begin another segment of the log: it has as many as it can have".into(),
                "Entries are added to the last segment. Increase audit_chain.segment_age for other logs.".into(),
            ),
            Self::NoSuchSegment { segment, open } => (
                ERRCODE_INVALID_PARAMETER_VALUE,
                format!("the log has no segment {segment}"),
                format!("Its segments are 1 to {open}, see audit_segments."),
            ),
            Self::NotSealable { segment, reason } => {
                let (state, why, hint) = match reason {
                    NotSealable::Open => (
                        ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                        "is open",
                        "Call audit_rotate() first, in a transaction of its own.",
                    ),
                    NotSealable::InUse => (
                        ERRCODE_LOCK_NOT_AVAILABLE,
                        "is in use by a transaction",
                        "A transaction that wrote there has not ended (it may be this one), or the table is being vacuumed. See pg_locks, and try again.",
                    ),
                    NotSealable::Sealed => (ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, "is sealed", "See audit_segments."),
                    NotSealable::Pruned => (ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, "was pruned", "See audit_segments."),
                    NotSealable::Missing => {
                        (ERRCODE_DATA_CORRUPTED, "is missing, or misses entries", SEE_PROBLEMS)
                    }
                };
                (state, format!("cannot seal segment {segment} of the log: it {why}"), hint.into())
            }
            Self::NothingToSeal => (
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                "cannot make a checkpoint: the log has no entries".into(),
                "The first audited change or audit_event() adds the first entry.".into(),
            ),
            Self::UndecidedCopy => (
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                "cannot make a checkpoint: this database is a copy of the one that wrote the log".into(),
                "If it replaces the original, call audit_resume(reason). If the original goes on elsewhere, call \
                 audit_fork(reason), which gives this log a name of its own."
                    .into(),
            ),
            Self::NothingToContinue { function } => (
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("cannot call {function}: the log has no entries"),
                "A log without entries is no copy: use it as it is.".into(),
            ),
            Self::EntryMissing { chain, seq } => (
                ERRCODE_DATA_CORRUPTED,
                format!("the log is tampered: entry {seq} of chain {chain} is missing"),
                SEE_PROBLEMS.into(),
            ),
            Self::DamagedTree { reason } => (
                ERRCODE_DATA_CORRUPTED,
                format!("the stored checkpoints are tampered: {reason}"),
                SEE_PROBLEMS.into(),
            ),
            Self::BadKeep { reason } => (
                ERRCODE_INVALID_PARAMETER_VALUE,
                format!("argument \"keep\" of audit_retention() {reason}"),
                "State how long every entry must be kept, for example '7 years'.".into(),
            ),
            Self::LockedPolicy { what } => (
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("the policy of retention is locked: it cannot {what}"),
                "A locked policy can only become stricter. audit_retention() shows it.".into(),
            ),
            Self::DamagedRetention { reason } => (
                ERRCODE_DATA_CORRUPTED,
                format!("the stored policies and holds of retention are tampered: {reason}"),
                "The RETENTION, HOLD and RELEASE entries of audit_log say what was set.".into(),
            ),
            Self::UnderHold { what, names } => (
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("cannot {what}: a legal hold is in force: {names}"),
                "See audit_holds. Whoever may do so ends a hold by audit_release(name, reason).".into(),
            ),
            Self::NoPolicy => (
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                "cannot prune entries: no policy says how long they must be kept".into(),
                "Call audit_retention(keep, reason => '...').".into(),
            ),
            Self::NotPrunable { state } => (
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("cannot prune entries: the state of the log is {state}"),
                "See audit_status.state. Entries are pruned from a log that is recording.".into(),
            ),
            Self::Unprunable { segment, reason } => {
                let state = match reason {
                    Unprunable::InUse => ERRCODE_LOCK_NOT_AVAILABLE,
                    Unprunable::Missing | Unprunable::Tampered => ERRCODE_DATA_CORRUPTED,
                    _ => ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                };
                let (why, hint) = reason.describe();
                (state, format!("cannot prune segment {segment} of the log: {why}"), hint)
            }
            Self::BadDigest { function } => (
                ERRCODE_INVALID_PARAMETER_VALUE,
                format!("argument \"export\" of {function}() must be a SHA-256 digest of 64 hexadecimal digits"),
                "`audit-chain export` prints the digest of what it has exported.".into(),
            ),
            Self::ExportOfSeveral => (
                ERRCODE_INVALID_PARAMETER_VALUE,
                "an export is named, and the segment that it is of is not".into(),
                "Export and prune one segment after the other: audit_prune(segment, export => ..., reason => ...).".into(),
            ),
            Self::ChainPruned { chain, segment } => (
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("chain {chain} was pruned, with segment {segment} of the log"),
                "audit_segments says when. An export of its segment proves it.".into(),
            ),
            Self::EntryPruned { chain, seq } => (
                ERRCODE_INVALID_PARAMETER_VALUE,
                format!("entry ({chain}, {seq}) was pruned"),
                "audit_segments says when. An export of its segment proves it.".into(),
            ),
            Self::PrunedMeanwhile => (
                ERRCODE_T_R_SERIALIZATION_FAILURE,
                "entries were pruned while the log was being read".into(),
                "Try again in a new transaction.".into(),
            ),
            Self::EmptyHoldName { function } => (
                ERRCODE_INVALID_PARAMETER_VALUE,
                format!("argument \"name\" of {function}() must not be empty"),
                "Name the matter that the hold is for.".into(),
            ),
            Self::HoldInForce { name } => (
                ERRCODE_DUPLICATE_OBJECT,
                format!("legal hold \"{name}\" is in force already"),
                "Choose another name. audit_holds shows the holds in force.".into(),
            ),
            Self::NoSuchHold { name, in_force } => (
                ERRCODE_UNDEFINED_OBJECT,
                format!("legal hold \"{name}\" is not in force"),
                match in_force {
                    Some(names) => format!("In force: {names}."),
                    None => "No legal hold is in force.".into(),
                },
            ),
            Self::SigningKey { path, reason } => (
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("cannot use signing key \"{path}\": {reason}"),
                "audit_chain.signing_key_file must name a file that `audit-chain keygen` wrote, owned by the server's \
                 user, with permissions 0600 or 0400."
                    .into(),
            ),
            Self::NoSuchCheckpoint { size, newest } => (
                ERRCODE_INVALID_PARAMETER_VALUE,
                format!("checkpoint of {size} entries does not exist"),
                match newest {
                    Some(newest) => format!("audit_checkpoint_log lists the checkpoints; the newest has {newest} entries."),
                    None => MAKE_CHECKPOINT.into(),
                },
            ),
            Self::NoSuchEntry { chain, seq } => (
                ERRCODE_INVALID_PARAMETER_VALUE,
                format!("entry ({chain}, {seq}) does not exist"),
                "audit_log lists the entries, and audit_problems() the missing ones.".into(),
            ),
            Self::NotSealed { chain, seq, size, sealing } => (
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("the checkpoint of {size} entries does not seal entry ({chain}, {seq})"),
                match sealing {
                    Some(sealing) => format!("The first checkpoint that seals it has {sealing} entries."),
                    None => MAKE_CHECKPOINT.into(),
                },
            ),
            Self::SizesSwapped { old, new } => (
                ERRCODE_INVALID_PARAMETER_VALUE,
                format!("a checkpoint of {new} entries cannot continue one of {old} entries"),
                "Specify the size of the older, smaller checkpoint first.".into(),
            ),
            Self::UnknownTable { name } => (
                ERRCODE_UNDEFINED_TABLE,
                format!("table \"{name}\" does not exist, and the log has no entries about it"),
                "Name the table with its schema, as the entries name it.".into(),
            ),
            Self::AmbiguousTable { name, schemas } => (
                ERRCODE_AMBIGUOUS_ALIAS,
                format!("the log has entries about tables \"{name}\" of several schemas: {schemas}"),
                "Name the table with its schema.".into(),
            ),
            Self::NothingNamed { function, argument } => (
                ERRCODE_INVALID_PARAMETER_VALUE,
                format!("argument \"{argument}\" of {function}() must not be empty"),
                "Name what is to be erased.".into(),
            ),
            Self::NotAKey { function } => (
                ERRCODE_INVALID_PARAMETER_VALUE,
                format!("argument \"key\" of {function}() must be a JSON object that names columns and their values"),
                "For example: {\"id\": 42}".into(),
            ),
            Self::NotAPart { part } => (
                ERRCODE_INVALID_PARAMETER_VALUE,
                format!("an entry has no part \"{part}\""),
                "The parts are payload and who.".into(),
            ),
            Self::NotAWhoColumn { column } => (
                ERRCODE_INVALID_PARAMETER_VALUE,
                format!("argument \"by\" of audit_erase_actor() must not be \"{column}\""),
                "The columns are actor, session_role, effective_role, application_name and client_addr.".into(),
            ),
            Self::NotErasable { chain, seq, operation } => (
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("cannot erase the payload of entry ({chain}, {seq}), whose operation is {operation}"),
                "The log itself needs it. Entries about rows, TRUNCATE and EVENT can lose their payload, every entry its who-part."
                    .into(),
            ),
            Self::NewerSegment { segment } => (
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("cannot erase entries of segment {segment}: this transaction began to write before that segment was opened"),
                "Erase them in a transaction of its own.".into(),
            ),
            Self::NothingToErase { what, hint } => {
                (ERRCODE_NO_DATA_FOUND, what.clone(), (*hint).into())
            }
            Self::LegalHold { name } => (
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("cannot erase entries: hold {name} forbids it"),
                "View audit_holds has the reason. audit_release() ends a hold.".into(),
            ),
            Self::NoSuchRequest { request } => (
                ERRCODE_UNDEFINED_OBJECT,
                format!("there is no request {request} for an erasure"),
                "Table audit_erasure_request has the requests.".into(),
            ),
            Self::RequestDecided { request, state } => (
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("request {request} for an erasure has been {state} already"),
                "Request the erasure again, if there is more to erase.".into(),
            ),
            Self::OwnRequest { request } => (
                ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("permission denied: request {request} for an erasure must be approved by another role"),
                "Neither the current role, nor that of the session, nor the one that logged in may be one of those that requested \
                 it."
                    .into(),
            ),
            Self::BadRegister { reason } => (
                ERRCODE_INVALID_TEXT_REPRESENTATION,
                format!("invalid erasure register: {reason}"),
                "Supply the complete, unchanged text that audit_erasure_register() of this log returned, and the key that signed it."
                    .into(),
            ),
            Self::InUse { table } => (
                ERRCODE_LOCK_NOT_AVAILABLE,
                format!("cannot write table {table} anew: others are reading it"),
                "Call it again when long transactions have ended. Until then old values remain in its files.".into(),
            ),
            Self::MissingObject { what } => (
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("{what} of extension audit_chain is missing"),
                "Restore the extension's objects, or drop and create the extension.".into(),
            ),
        }
    }

    /// Raises the error.
    #[track_caller]
    pub fn raise(self) -> ! {
        let description = self.describe();
        let text = message(&description.message).into_owned();
        let mut report = ErrorReport::new(description.sqlstate, text, "audit_chain");
        if let Some(hint) = &description.hint {
            report = report.set_hint(message(hint));
        }
        report.report(PgLogLevel::ERROR);
        unreachable!("an error does not return")
    }
}

/// Warns the client of something, with a hint what to do.
#[track_caller]
pub fn warning(text: &str, hint: &str) {
    ErrorReport::new(State::ERRCODE_WARNING, message(text).into_owned(), "audit_chain")
        .set_hint(message(hint))
        .report(PgLogLevel::WARNING);
}

/// Tells the client something.
#[track_caller]
pub fn notice(text: &str) {
    ErrorReport::new(State::ERRCODE_SUCCESSFUL_COMPLETION, message(text).into_owned(), "audit_chain")
        .report(PgLogLevel::NOTICE);
}

/// Tells the client something, with a hint what it may mean.
#[track_caller]
pub fn notice_with_hint(text: &str, hint: &str) {
    ErrorReport::new(State::ERRCODE_SUCCESSFUL_COMPLETION, message(text).into_owned(), "audit_chain")
        .set_hint(message(hint))
        .report(PgLogLevel::NOTICE);
}

impl Unprunable {
    /// Why, and what to do.
    fn describe(&self) -> (String, String) {
        match self {
            Self::Pruned => ("it was pruned".into(), "See audit_segments.".into()),
            Self::NotOldest { oldest } => (
                format!("segment {oldest} is older"),
                format!("Prune the oldest segment first: audit_prune({oldest}, ...)."),
            ),
            Self::NotSealed { is_open: true } => (
                "it is open".into(),
                "Call audit_rotate(), then audit_seal(), or leave it to audit_maintain().".into(),
            ),
            Self::NotSealed { is_open: false } => (
                "it is not sealed".into(),
                "Call audit_seal(): it can be sealed once all transactions that wrote there have ended.".into(),
            ),
            Self::TooYoung { until } => (
                format!("the policy keeps it until {until}"),
                "See audit_retention(). A policy that is locked cannot be shortened.".into(),
            ),
            Self::NotPublished => (
                "the policy wants checkpoints to be published, and audit_chain.publish_command is not set".into(),
                "Set audit_chain.publish_command, see docs/operations.md.".into(),
            ),
            Self::NotCovered { entries } => (
                format!("no checkpoint covers it: it takes one of {entries} entries"),
                MAKE_CHECKPOINT.into(),
            ),
            Self::NotCoveredOutside { entries, published } => (
                format!("no published checkpoint covers it: the last one has {published} entries, and it takes {entries}"),
                "See audit_status.publish_error. A checkpoint must leave the server before entries do.".into(),
            ),
            Self::NotExported => (
                "it was not exported".into(),
                "Pass the digest that `audit-chain export --segment` prints as the argument export, or disposable => true."
                    .into(),
            ),
            Self::Missing => ("its table is missing".into(), SEE_PROBLEMS.into()),
            Self::Tampered => (
                "its entries are not those that checkpoints seal, and pruning them would remove the evidence".into(),
                SEE_PROBLEMS.into(),
            ),
            Self::InUse => (
                "other sessions use it".into(),
                "Queries, dumps and VACUUM hold locks on it: see pg_locks. Try again.".into(),
            ),
        }
    }
}

fn in_transaction_hint(procedure: &str) -> String {
    let instead =
        if procedure.starts_with("audit_verify") { " SELECT * FROM audit_verify() runs in one." } else { "" };
    format!("CALL it by itself: it ends its transactions.{instead}")
}

/// How many others there are, besides the one that a message names.
pub fn and_others(others: usize) -> String {
    match others {
        0 => String::new(),
        1 => " (and 1 other)".into(),
        others => format!(" (and {others} others)"),
    }
}

const SEE_PROBLEMS: &str = "Call audit_verify() and audit_problems(), and see docs/operations.md.";
const MAKE_CHECKPOINT: &str =
    "Call audit_checkpoint(): the next checkpoint seals all entries committed before it.";

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text().1)
    }
}

/// Refuses an argument that is longer than `limit` bytes.
pub fn check_length(
    function: &'static str,
    argument: &'static str,
    length: usize,
    limit: usize,
) -> Result<(), Error> {
    if length <= limit { Ok(()) } else { Err(Error::ArgumentTooLong { function, argument, length, limit }) }
}

/// Raises the error of a `Result`.
pub trait OrRaise<T> {
    /// The value; an error is raised.
    fn or_raise(self) -> T;
}

impl<T> OrRaise<T> for Result<T, Error> {
    #[track_caller]
    fn or_raise(self) -> T {
        self.unwrap_or_else(|error| error.raise())
    }
}
