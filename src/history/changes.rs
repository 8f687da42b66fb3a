//! `audit_history()`: the changes of a row, or of all rows of a table, one after the other.

use crate::error::{Error, OrRaise, notice};
use crate::history::ask::Asked;
use crate::history::lineage::Lineage;
use crate::history::reader::{Entry, Key, Operation, Reader, Rows};
use crate::history::report::{Report, plural};
use crate::history::table_at::{before_arrival, find, histories};
use crate::history::typed::{Found as Values, Typed};
use crate::history::when::When;
use crate::log::table;
use crate::pg::equality::KeyEquality;
use crate::pg::fmgr::Call;
use crate::pg::form::RowSink;
use crate::pg::inet::inet_datum;
use crate::pg::text::{Text, from_server, json_datum};
use audit_chain_core::changed::changed;
use audit_chain_core::history::Position;
use audit_chain_core::json;
use pgrx::IntoDatum;
use pgrx::pg_sys::{Datum, Oid};
use std::collections::{BTreeMap, BTreeSet};

/// `audit_history(relation regclass, key jsonb, since timestamptz, until timestamptz)`
pub fn of_relation(call: Call) -> Datum {
    let asked = || {
        let relation: Oid =
            call.arg(0).ok_or(Error::NullArgument { function: "audit_history", argument: "relation" })?;
        history(&call, &Asked::of_relation(relation)?, None)
    };
    asked().or_raise();
    call.null()
}

/// `audit_history(relation text, key jsonb, since timestamptz, until timestamptz)`
pub fn of_name(call: Call) -> Datum {
    let asked = || {
        let name =
            call.text(0).ok_or(Error::NullArgument { function: "audit_history", argument: "relation" })?;
        history(&call, &Asked::of_name(&name)?, None)
    };
    asked().or_raise();
    call.null()
}

/// `audit_history(row anyelement, key jsonb, since timestamptz, until timestamptz)`
pub fn of_type(call: Call) -> Datum {
    let asked = || {
        let asked = Asked::of_type(&call, "audit_history")?;
        let typed = asked.relation.map(Typed::of_relation);
        history(&call, &asked, typed)
    };
    asked().or_raise();
    call.null()
}

/// Which rows of a table are meant.
enum Wanted {
    All,
    /// The row of this key.
    Key(Key),
    /// Those that had this content.
    Content(json::Members),
}

/// The entries that a call asks for.
#[derive(Default)]
struct Found {
    /// The entries, in the order in which they are shown, each with the number of its table among the
    /// members.
    entries: Vec<(usize, Entry)>,
    /// By table, all entries about the rows that were asked for: they have the values that others leave out.
    histories: BTreeMap<usize, BTreeMap<Key, Vec<Entry>>>,
    /// How many entries may have been about the row, and have been erased.
    erased: u64,
}

impl Found {
    /// Finds them, by the key or the content that was given.
    fn of(asked: &Asked, given: Option<&str>) -> Result<Self, Error> {
        let found = Self::by(asked, given, None)?;
        // The log may have the key with another text.
        let equality = asked.relation.filter(|_| found.entries.is_empty()).and_then(KeyEquality::of);
        match equality {
            Some(mut equality) => Self::by(asked, given, Some(&mut equality)),
            None => Ok(found),
        }
    }

    /// Finds them by the text of the key, or by all keys in the log that are equal to it.
    fn by(asked: &Asked, given: Option<&str>, mut equality: Option<&mut KeyEquality>) -> Result<Self, Error> {
        let reader = Reader::open(&asked.extension, i64::MIN, i64::MAX)?;
        let mut found = Self::default();
        for (at, lineage) in asked.family.members().enumerate() {
            let wanted = match given {
                None => Wanted::All,
                Some(key) => wanted(asked, lineage, key)?,
            };
            let mut entries = match &wanted {
                Wanted::Key(key) => {
                    let keys = match &mut equality {
                        Some(equality) => equal_keys(&reader, lineage, key, equality),
                        None => BTreeSet::from([key.clone()]),
                    };
                    let known = histories(&reader, lineage, keys.clone());
                    let mut entries: Vec<Entry> =
                        keys.iter().flat_map(|key| follow(lineage, &known, key)).collect();
                    if keys.len() > 1 {
                        entries.sort_by_key(|entry| entry.position);
                        entries.dedup_by_key(|entry| entry.position);
                    }
                    found.histories.insert(at, known);
                    entries
                }
                Wanted::All | Wanted::Content(_) => {
                    let mut entries = Vec::new();
                    let all = Rows::Range { from: &[], to: None };
                    reader.visit(lineage, &all, &mut |entry| entries.push(entry));
                    entries.sort_by_key(|entry| entry.position);
                    entries.dedup_by_key(|entry| entry.position);
                    if let Wanted::Content(content) = &wanted {
                        entries.retain(|entry| has_content(entry, content));
                    }
                    entries
                }
            };
            if !matches!(wanted, Wanted::All) {
                // What names no row was about every row.
                let mut see = |entry: Entry| {
                    found.erased += u64::from(entry.is_erased);
                    if entry.operation == Operation::Truncate {
                        entries.push(entry);
                    }
                };
                reader.visit_unnamed(lineage, &mut see);
                reader.visit_unindexed(lineage, &Rows::Keys(&BTreeSet::new()), &mut see);
                truncations_of_lives(&mut entries);
            }
            found.entries.extend(entries.into_iter().map(|entry| (at, entry)));
        }
        // Those of one table are in the order of the row's versions.
        if !asked.family.below.is_empty() {
            found.entries.sort_by_key(|(_, entry)| entry.position);
        }
        Ok(found)
    }
}

fn history(call: &Call, asked: &Asked, mut typed: Option<Typed>) -> Result<(), Error> {
    let mut found = Found::of(asked, call.jsonb(1).as_deref())?;
    let [since, until] = [2, 3].map(|argument| call.datum(argument).map(|at| at.value() as i64));
    found.entries.retain(|(_, entry)| {
        since.is_none_or(|since| entry.position.at >= since)
            && until.is_none_or(|until| entry.position.at < until)
    });
    if found.erased > 0 {
        notice(&format!(
            "{} {} of table \"{}\" {} been erased; they may have been about this row",
            found.erased,
            plural(found.erased, "entry", "entries"),
            asked.family.root.shown(),
            plural(found.erased, "has", "have")
        ));
    }
    tell_pruned(asked)?;
    let mut report = Report::new(&asked.family.root.shown());
    let members: Vec<&Lineage> = asked.family.members().collect();
    let mut sink = RowSink::begin(call);
    let none = BTreeMap::new();
    for (at, entry) in &found.entries {
        if typed.is_none() && entry.is_erased {
            report.erased(entry.position.at);
        }
        let histories = found.histories.get(at).unwrap_or(&none);
        let who = who(asked, entry)?;
        sink.put(|| {
            let mut columns = common(entry, who);
            match typed.as_mut() {
                None => {
                    let changed = changed(entry.old_row.as_deref(), entry.new_row.as_deref());
                    columns.insert(4, changed.map(|text| json_datum(&text)));
                }
                Some(typed) => {
                    let rows = old_and_new(typed, members[*at], histories, entry, &mut report);
                    columns.splice(4..4, rows);
                }
            }
            columns
        });
    }
    report.tell();
    Ok(())
}

/// The row before a change and after it, of the table's type of now.
fn old_and_new(
    typed: &mut Typed,
    lineage: &Lineage,
    histories: &BTreeMap<Key, Vec<Entry>>,
    entry: &Entry,
    report: &mut Report,
) -> [Option<Datum>; 2] {
    let after = entry.new_row.clone().filter(|_| entry.operation != Operation::Delete);
    [entry.before(), after].map(|image| {
        let image = image?;
        let found = lacking(typed, lineage, histories, entry, &image);
        let values = typed.values(lineage, &image, entry.position, &When::Now, found.as_ref(), report);
        Some(typed.row(&values))
    })
}

/// What an image of an entry lacks, from other entries about the row.
fn lacking(
    typed: &mut Typed,
    lineage: &Lineage,
    histories: &BTreeMap<Key, Vec<Entry>>,
    entry: &Entry,
    image: &str,
) -> Option<Values> {
    let missing = typed.missing(lineage, image, entry.position, &When::Now);
    if missing.is_empty() {
        return None;
    }
    // An out-of-line value that is not in the entry was the same before it and after it.
    let key = entry.key.as_ref()?;
    Some(find(lineage, &lineage.columns, histories, key, entry.position, &missing))
}

/// The columns that both forms have, without what changed.
fn common(entry: &Entry, who: Who) -> Vec<Option<Datum>> {
    let text = |text: &str| Text(text.to_owned()).into_datum();
    vec![
        Some(Datum::from(entry.position.at)),
        text(entry.operation.word()),
        text(&format!("{}.{}", entry.table.0, entry.table.1)),
        entry.row_key.as_deref().map(json_datum),
        who.actor.and_then(|actor| Text(actor).into_datum()),
        who.session_role.and_then(|role| Text(role).into_datum()),
        who.effective_role.and_then(|role| Text(role).into_datum()),
        who.client_addr.map(|packed| inet_datum(&packed)),
        who.application_name.and_then(|name| Text(name).into_datum()),
        Some(Datum::from(entry.xid)),
        Some(Datum::from(entry.position.chain)),
        Some(Datum::from(entry.position.seq)),
    ]
}

/// Who made a change, and from where.
#[derive(Default)]
struct Who {
    actor: Option<String>,
    session_role: Option<String>,
    effective_role: Option<String>,
    client_addr: Option<Vec<u8>>,
    application_name: Option<String>,
}

fn who(asked: &Asked, entry: &Entry) -> Result<Who, Error> {
    let text = |bytes: Option<&[u8]>| bytes.map(from_server);
    let who = table::entry(&asked.extension, entry.position.chain, entry.position.seq, |row| Who {
        actor: text(row.actor),
        session_role: text(row.session_role),
        effective_role: text(row.effective_role),
        client_addr: row.client_addr.map(<[u8]>::to_vec),
        application_name: text(row.application_name),
    })?;
    Ok(who.unwrap_or_default())
}

/// The keys in the log that are equal to one.
fn equal_keys(reader: &Reader, lineage: &Lineage, key: &Key, equality: &mut KeyEquality) -> BTreeSet<Key> {
    let mut keys = BTreeSet::new();
    let all = Rows::Range { from: &[], to: None };
    reader.visit(lineage, &all, &mut |entry| keys.extend(entry.key.into_iter().chain(entry.left)));
    keys.retain(|other| equality.are_equal(key, other));
    keys
}

/// The entries about the row that has this key last, under the keys that it had before too.
fn follow(lineage: &Lineage, known: &BTreeMap<Key, Vec<Entry>>, key: &Key) -> Vec<Entry> {
    let about = |key: &Key| known.get(key).map_or(&[][..], |entries| &entries[..]);
    let mut entries = Vec::new();
    let (mut seen, mut followed) = (BTreeSet::new(), BTreeSet::new());
    // What is to come, the next one last: an entry, and under which key it was found.
    let mut rest: Vec<(&Entry, &Key)> = about(key).iter().rev().map(|entry| (entry, key)).collect();
    while let Some((entry, key)) = rest.pop() {
        let came_from = entry.left.as_ref().filter(|left| *left != key && entry.key.as_ref() == Some(key));
        if let Some(left) = came_from.filter(|_| followed.insert(entry.position)) {
            // What the row was called before this change: its life under that key.
            let end = Position { seq: entry.position.seq - 1, ..entry.position };
            let before = before_arrival(lineage, about(left), left, end, Some(entry));
            let begin = before
                .iter()
                .rposition(|other| other.key.as_ref() == Some(left) && other.is_arrival())
                .unwrap_or(0);
            rest.push((entry, key));
            rest.extend(before[begin..].iter().rev().map(|other| (other, left)));
        } else if seen.insert(entry.position) {
            entries.push(entry.clone());
        }
    }
    entries
}

/// Keeps the truncations that found the row there.
fn truncations_of_lives(entries: &mut Vec<Entry>) {
    let mut truncations = Vec::new();
    entries.retain(|entry| {
        let is_truncation = entry.operation == Operation::Truncate;
        if is_truncation {
            truncations.push(entry.clone());
        }
        !is_truncation
    });
    truncations.sort_by_key(|entry| entry.position);
    truncations.dedup_by_key(|entry| entry.position);
    for truncation in truncations {
        let after = entries.partition_point(|entry| entry.position < truncation.position);
        let was_there = match after.checked_sub(1) {
            Some(before) => !matches!(entries[before].operation, Operation::Delete | Operation::Truncate),
            None => false,
        };
        if was_there {
            entries.insert(after, truncation);
        }
    }
}

/// What the caller means by a key.
fn wanted(asked: &Asked, lineage: &Lineage, given: &str) -> Result<Wanted, Error> {
    let table = asked.family.root.shown();
    let members = json::members(given).filter(|members| !members.is_empty()).ok_or_else(|| {
        Error::NoSuchKey { table: table.clone(), key: given.into(), columns: shown(&asked.key_columns()) }
    })?;
    let columns = asked.key_columns();
    if columns.is_empty() || lineage.key_has_changed {
        if !columns.is_empty() || asked.relation.is_none() || asked.has_columns(members.keys()) {
            return Ok(Wanted::Content(members));
        }
        return Err(Error::NoKey { table });
    }
    let names: BTreeSet<&String> = members.keys().collect();
    if names != columns.iter().collect() {
        return Err(Error::NoSuchKey { table, key: given.into(), columns: shown(&columns) });
    }
    // The values as entries have them.
    let key = asked.key_values(given, &columns)?;
    Ok(Wanted::Key(key))
}

fn shown(columns: &[String]) -> String {
    let members: Vec<String> =
        columns.iter().map(|column| format!("{}: ...", serde_json::Value::from(column.as_str()))).collect();
    format!("{{{}}}", members.join(", "))
}

/// Whether the row before or after a change had this content.
fn has_content(entry: &Entry, content: &json::Members) -> bool {
    let has =
        |image: Option<&str>| image.and_then(json::members).is_some_and(|row| json::contain(&row, content));
    has(entry.new_row.as_deref()) || has(entry.before().as_deref())
}

/// Says that entries have been pruned.
fn tell_pruned(asked: &Asked) -> Result<(), Error> {
    let segments = crate::log::segment::Segments::known(&asked.extension)?;
    if let Some(until) = segments.pruned().iter().map(|pruned| pruned.contents.last_at).max() {
        notice(&format!("entries captured until {} have been pruned", crate::pg::xact::json_time(until)));
    }
    Ok(())
}
