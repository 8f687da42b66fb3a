//! Finds the entries that are to lose a part, counts them, or erases them.

use crate::erasure::matching;
use crate::erasure::subject::{ERASABLE, Selection, Source, Subject};
use crate::erasure::trace::{self, Event};
use crate::error::{Error, warning};
use crate::extension::{Extension, OwnTable};
use crate::log::segment::{self, segment_of};
use crate::log::stored::{AddressText, StoredRow};
use crate::log::{self, EntryHeader, WithoutStatement, columns, erased};
use crate::pg::lock::{Lockable, lock};
use crate::pg::numbers::for_each_numbers;
use crate::pg::query::query_statement;
use crate::pg::session::AsRole;
use crate::pg::table::{Replacer, StoredTuple, Tuple};
use crate::pg::text::{from_server, to_server};
use crate::pg::tuple::RowBuffer;
use crate::pg::xact::{self, ActiveSnapshot};
use crate::retention::hold;
use audit_chain_core::Hash;
use audit_chain_core::entry::Scratch;
use audit_chain_core::erasure::{ErasedPart, Erasure, MAX_RANGES, PlaceRange};
use pgrx::pg_sys::Oid;
use serde_json::{Value, json};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use uuid::Uuid;

/// Entries of one table in one segment that lose a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub table_schema: Option<String>,
    pub table_name: Option<String>,
    pub segment: u32,
    pub part: ErasedPart,
    pub entries: i64,
    /// In microseconds since 2000-01-01 UTC.
    pub first_at: i64,
    pub last_at: i64,
}

type Groups = BTreeMap<(ErasedPart, Option<String>, Option<String>, u32), Group>;

/// Who asked for an erasure, why, and who approved it.
pub struct Order<'a> {
    pub request: Uuid,
    pub reason: &'a str,
    /// The role that the entries are recorded for.
    pub role: Oid,
    /// What else they say: who asked, and who approved.
    pub approval: Option<(String, String)>,
}

/// Forgets what was looked for, also after an error.
struct Forget;

impl Drop for Forget {
    fn drop(&mut self) {
        matching::forget();
    }
}

/// The entries that would be erased now, by table, part and segment. To be called as the extension's owner.
pub fn preview(extension: &Extension, subject: &Subject) -> Result<Vec<Group>, Error> {
    let _forget = Forget;
    xact::make_visible();
    let _now = ActiveSnapshot::push_latest();
    let mut groups = Groups::new();
    for selection in subject.selections(extension)? {
        for (segment, from) in segments(extension)? {
            for condition in conditions(&selection, segment) {
                let query = format!(
                    "SELECT l.table_schema, l.table_name, count(*), min(l.at), max(l.at) FROM {from} l \
                     WHERE {condition} GROUP BY 1, 2"
                );
                for group in query_statement(&query, &[], |row| Group {
                    table_schema: row.get_text(1),
                    table_name: row.get_text(2),
                    segment,
                    part: selection.part,
                    entries: row.value(3),
                    first_at: row.value(4),
                    last_at: row.value(5),
                }) {
                    add(&mut groups, group);
                }
            }
        }
    }
    Ok(groups.into_values().collect())
}

/// Erases what is committed now, and what this transaction has written. To be called as the extension's
/// owner, after the caller's rights have been checked. Returns what was erased.
pub fn execute(extension: &Extension, subject: &Subject, order: &Order<'_>) -> Result<Vec<Group>, Error> {
    let _forget = Forget;
    let _silent = WithoutStatement::begin();
    // What this transaction has captured is found, too.
    log::flush();
    begin(extension)?;
    let _now = ActiveSnapshot::push_latest();
    if let Some(name) = hold::active(extension)? {
        return Err(Error::LegalHold { name });
    }
    let mut run = Run::begin(extension, order)?;
    for selection in subject.selections(extension)? {
        run.erase(&selection)?;
        // The next one may replace the same rows again.
        xact::make_visible();
    }
    run.end()
}

/// Waits for other erasures to end. From now on this transaction is the only one that erases.
pub fn begin(extension: &Extension) -> Result<(), Error> {
    // Who holds the lock does not wait for a chain.
    log::take_chain()?;
    lock(extension.table(OwnTable::Log)?, Lockable::Erasure);
    xact::make_visible();
    Ok(())
}

/// The segments that were not pruned, and their tables for SQL, in the order of their chains.
fn segments(extension: &Extension) -> Result<Vec<(u32, String)>, Error> {
    let all = segment::all(extension)?.into_iter();
    all.map(|(segment, _)| Ok((segment, segment::quoted(extension, segment)?))).collect()
}

/// The SQL conditions, on the table `l` of a segment, that the selected entries meet: each its own entries.
fn conditions(selection: &Selection, segment: u32) -> Vec<String> {
    let left = match selection.part {
        ErasedPart::Payload => format!(
            "l.payload_digest IS NULL AND l.operation IN ({})",
            ERASABLE.map(|operation| format!("'{operation}'::text")).join(", ")
        ),
        ErasedPart::Who => "l.who_digest IS NULL".into(),
    };
    match &selection.source {
        Source::Condition(condition) => vec![format!("{left} AND {condition}")],
        Source::Places(ranges, condition) => {
            let place = |range: &PlaceRange| {
                let PlaceRange { chain, first_seq, last_seq } = range;
                format!(
                    "{left} AND l.chain = ({chain}) AND l.seq BETWEEN ({first_seq}) AND ({last_seq}) AND {condition}"
                )
            };
            ranges.iter().filter(|range| segment_of(range.chain) == segment).map(place).collect()
        }
    }
}

fn add(groups: &mut Groups, group: Group) {
    let key = (group.part, group.table_schema.clone(), group.table_name.clone(), group.segment);
    groups
        .entry(key)
        .and_modify(|known| {
            known.entries += group.entries;
            known.first_at = known.first_at.min(group.first_at);
            known.last_at = known.last_at.max(group.last_at);
        })
        .or_insert(group);
}

/// An erasure under way. Its memory grows with the tables and segments, not with the entries.
struct Run<'a> {
    extension: &'a Extension,
    order: &'a Order<'a>,
    erasures: Oid,
    /// The segment that was written to last.
    open: Option<(u32, Replacer)>,
    places: Vec<PlaceRange>,
    /// How many entries they are.
    entries: u64,
    groups: Groups,
    segments: BTreeSet<u32>,
    /// How many entries were not intact before, and how many had a statement.
    altered: u64,
    with_statement: u64,
    row: RowBuffer,
    addresses: AddressText,
    scratch: Scratch,
    hashed: Vec<u8>,
}

impl<'a> Run<'a> {
    fn begin(extension: &'a Extension, order: &'a Order<'a>) -> Result<Self, Error> {
        Ok(Self {
            extension,
            order,
            erasures: extension.table(OwnTable::Erasures)?,
            open: None,
            places: Vec::new(),
            entries: 0,
            groups: Groups::new(),
            segments: BTreeSet::new(),
            altered: 0,
            with_statement: 0,
            row: RowBuffer::default(),
            addresses: AddressText::default(),
            scratch: Scratch::default(),
            hashed: Vec::new(),
        })
    }

    /// Erases the selected entries in the order of their places, and records it.
    fn erase(&mut self, selection: &Selection) -> Result<(), Error> {
        let result = Cell::new(Ok(()));
        let all = segments(self.extension)?;
        let of_segment = |(segment, from): (u32, String)| {
            let from = move |condition| format!("FROM {from} l WHERE {condition} ORDER BY l.chain, l.seq");
            conditions(selection, segment).into_iter().map(from)
        };
        for rest in all.into_iter().flat_map(of_segment) {
            for_each_numbers(["l.chain", "l.seq"], &rest, |[chain, seq]| {
                // Indexes that an administrator has added to the log may call functions: not with the owner's
                // rights.
                let _caller = AsRole::become_role(self.order.role);
                let erased = self.erase_entry(selection.part, chain as u32, seq);
                if let Err(error) = erased {
                    result.set(Err(error));
                    return ControlFlow::Break(());
                }
                ControlFlow::Continue(())
            });
            result.replace(Ok(()))?;
        }
        self.record(selection.part)
    }

    fn erase_entry(&mut self, part: ErasedPart, chain: u32, seq: i64) -> Result<(), Error> {
        let follows = self.places.last().is_some_and(|range| {
            range.chain == chain && range.last_seq.checked_add(1) == Some(seq.unsigned_abs())
        });
        if !follows && self.places.len() == MAX_RANGES {
            self.record(part)?;
        }
        let segment = segment_of(chain);
        if self.open.as_ref().is_none_or(|(open, _)| *open != segment) {
            self.open = None;
            let missing = Error::MissingObject { what: "a segment of audit_log" };
            let table = segment::table_of(self.extension, segment)?.ok_or(missing)?;
            self.open = Some((segment, Replacer::open(table, columns::KEY)));
            self.segments.insert(segment);
        }
        let Self { open, row, addresses, scratch, hashed, .. } = self;
        let (_, replacer) = open.as_mut().expect("opened above");
        let replaced = replacer.replace((chain as i32, seq), |tuple: StoredTuple<'_>| {
            let stored = columns::read(&tuple);
            let erased = erase_part(&stored, part, row, (addresses, scratch, hashed));
            let text = |text: Option<&[u8]>| text.map(from_server);
            let group = Group {
                table_schema: text(stored.table_schema),
                table_name: text(stored.table_name),
                segment,
                part,
                entries: 1,
                first_at: stored.at,
                last_at: stored.at,
            };
            let had_statement = part == ErasedPart::Payload && stored.statement.is_some();
            (Some(erased.tuple), (group, erased.was_altered, had_statement))
        });
        let missing = Error::EntryMissing { chain, seq: seq.unsigned_abs() };
        let (group, was_altered, had_statement) = replaced.ok_or(missing)?;
        self.altered += u64::from(was_altered);
        self.with_statement += u64::from(had_statement);
        add(&mut self.groups, group);
        self.entries += 1;
        match self.places.last_mut() {
            Some(range) if follows => range.last_seq += 1,
            _ => {
                let seq = seq.unsigned_abs();
                self.places.push(PlaceRange { chain, first_seq: seq, last_seq: seq });
            }
        }
        Ok(())
    }

    /// Appends the ERASE entry about the places that were erased since the last one.
    fn record(&mut self, part: ErasedPart) -> Result<(), Error> {
        if self.places.is_empty() {
            return Ok(());
        }
        let Order { request, reason, role, approval } = self.order;
        let places = std::mem::take(&mut self.places);
        let entries = std::mem::take(&mut self.entries);
        let erasure = Erasure { part, request: *request, entries, places };
        let mut detail: Value = erasure.detail();
        detail["reason"] = json!(reason);
        if let Some((requester, approver)) = approval {
            detail["requested_by"] = json!(requester);
            detail["approved_by"] = json!(approver);
        }
        let header = EntryHeader { operation: Erasure::OPERATION, table: None };
        let place = log::append(&header, *role, |images| {
            images.detail.set(Some(&to_server(&detail.to_string())));
            Ok(ControlFlow::Continue(()))
        })?;
        let place = place.expect("a detail is always recorded");
        // Segments are pruned from the oldest on: the entry must not go before those whose erasure it
        // explains.
        let newest = erasure.places.last().map_or(0, |range| segment_of(range.chain));
        if segment_of(place.chain) < newest {
            return Err(Error::NewerSegment { segment: newest });
        }
        erased::insert_place(self.erasures, &place, &erasure);
        Ok(())
    }

    fn end(mut self) -> Result<Vec<Group>, Error> {
        self.open = None;
        log::flush();
        for &segment in &self.segments {
            trace::note(self.extension, segment, Event::Erased)?;
        }
        xact::make_visible();
        if self.entries > 0 || !self.groups.is_empty() {
            // The caller is going to say that it is done.
            xact::force_sync_commit();
        }
        if self.altered > 0 {
            warning(
                &format!(
                    "{} of the erased entries had been altered before; they are still reported as that",
                    self.altered
                ),
                "Call audit_problems(), and see docs/operations.md.",
            );
        }
        if self.with_statement > 0 {
            warning(
                &format!("{} of the erased entries had recorded the client's query", self.with_statement),
                "Entries of other rows that the same queries changed hold the same text. Erase them one by one, with \
                 audit_erase_entry().",
            );
        }
        Ok(self.groups.into_values().collect())
    }
}

/// An entry without a part.
struct Erased {
    tuple: Tuple,
    was_altered: bool,
}

fn erase_part(
    stored: &StoredRow<'_>,
    part: ErasedPart,
    row: &mut RowBuffer,
    (addresses, scratch, hashed): (&mut AddressText, &mut Scratch, &mut Vec<u8>),
) -> Erased {
    // An entry without salt has no digest that anything could be compared with: it was altered.
    let (digest, was_altered): (Hash, bool) = stored.with_entry(addresses, |entry| {
        let digest = match part {
            ErasedPart::Payload => entry.payload().map(|payload| payload.digest_with(hashed)),
            ErasedPart::Who => entry.who().map(|who| who.digest_with(hashed)),
        };
        (digest.unwrap_or_default(), entry.check(scratch).is_err())
    });
    let erased = match part {
        ErasedPart::Payload => StoredRow {
            row_key: None,
            old_row: None,
            new_row: None,
            detail: None,
            statement: None,
            salt: None,
            payload_digest: Some(&digest),
            ..*stored
        },
        ErasedPart::Who => StoredRow {
            session_role: None,
            effective_role: None,
            actor: None,
            application_name: None,
            client_addr: None,
            who_salt: None,
            who_digest: Some(&digest),
            ..*stored
        },
    };
    row.fill(&columns::values(&erased));
    Erased { tuple: Tuple::new(row, (stored.chain, stored.seq)), was_altered }
}
