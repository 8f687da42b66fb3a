//! `audit_check_table()`: every row of a table that is not what the log says, and every one that is missing
//! or too many.
//!
//! Rows are written as capture writes them, and compared with the images in the log as texts: what was
//! recorded of a value, be it the value, a mask or a digest, is recorded again in the same way. The table and
//! the log are read with one snapshot: a change and its entry commit together, so that writers at work make
//! no difference.

use crate::audit::triggers::Capture;
use crate::capture::audited_table::AuditedTable;
use crate::capture::options::Options;
use crate::error::{Error, OrRaise, notice};
use crate::extension::Extension;
use crate::history::ask::{Asked, reader};
use crate::history::lineage::Lineage;
use crate::history::reader::{Key, Reader};
use crate::history::report::{Report, plural};
use crate::history::state::{Image, RowRange, State};
use crate::history::table_at::{self, Question, find, histories};
use crate::history::when::When;
use crate::log::buffer::TextBuffer;
use crate::log::segment::{self, Segments};
use crate::pg::encoding::to_utf8;
use crate::pg::fmgr::Call;
use crate::pg::form::{self, RowSink};
use crate::pg::query::{Record, query_latest, query_statement};
use crate::pg::relation::Lock;
use crate::pg::row::{Relation, Row};
use crate::pg::session::{self, LocalSettings, OutputSettings};
use crate::pg::sort::Sort;
use crate::pg::text::{Text, Texts, json_datum};
use crate::pg::xact::{self, ActiveSnapshot};
use crate::pg::{catalog, compat, relation, scan, trigger};
use crate::settings;
use audit_chain_core::history::Position;
use audit_chain_core::history::columns::Then;
use audit_chain_core::history::content::Content;
use audit_chain_core::history::image::{self, Recorded};
use audit_chain_core::row_id;
use pgrx::IntoDatum;
use pgrx::pg_sys::{Datum, Oid};
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// How many rows wait for values that their own entries do not have.
const BATCH: usize = 2000;

/// What is wrong with a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Problem {
    /// It is not what the newest entry about it says.
    Different,
    /// The log says that it is there.
    Missing,
    /// The log does not say that it is there.
    Extra,
}

impl Problem {
    fn word(self) -> &'static str {
        match self {
            Self::Different => "different",
            Self::Missing => "missing",
            Self::Extra => "extra",
        }
    }
}

/// `audit_check_table(relation regclass)`, which returns rows
pub fn check_table(call: Call) -> Datum {
    check(&call).or_raise();
    call.null()
}

fn check(call: &Call) -> Result<(), Error> {
    let relation: Oid =
        call.arg(0).ok_or(Error::NullArgument { function: "audit_check_table", argument: "relation" })?;
    let extension = reader()?;
    require_may_read(relation)?;
    lock(&extension, relation)?;
    // What was committed during a wait for the locks counts, and what this transaction has done.
    xact::make_visible();
    let _now = ActiveSnapshot::push();
    let tables = relation::descendants(relation, Lock::None);
    for &table in &tables {
        refuse_unseen_change(table)?;
    }
    let asked = Asked::of_relation(relation)?;
    require_may_read(relation)?;
    let mut check = Check {
        asked: &asked,
        reader: Reader::open(&asked.extension, i64::MIN, i64::MAX)?,
        sink: RowSink::begin(call),
        compared: 0,
        unproven: 0,
        uncompared: BTreeMap::new(),
        found: 0,
        has_compared: false,
    };
    let mut report = Report::new(&asked.family.root.shown());
    for lineage in asked.family.members() {
        if asked.family.is_member(lineage, &|_| true) {
            check.member(lineage, &tables, &mut report)?;
        }
    }
    report.tell();
    check.tell();
    Ok(())
}

/// Refuses what is not a table, and a caller who may not read it.
fn require_may_read(relation: Oid) -> Result<(), Error> {
    let table = || catalog::quoted_name(relation).unwrap_or_default();
    let Some(description) = relation::describe(relation) else {
        return Err(Error::NoSuchRelation { oid: relation.to_u32() });
    };
    if !description.is_table() {
        return Err(Error::NotATableToCheck { name: table() });
    }
    if !compat::may_read(relation, session::effective_role()) {
        return Err(Error::MayNotReadTable { table: table() });
    }
    Ok(())
}

/// Keeps the table, those below it and the log's segments from being altered, truncated or dropped. Writers
/// go on.
fn lock(extension: &Extension, relation: Oid) -> Result<(), Error> {
    relation::lock(relation, Lock::AccessShare);
    relation::descendants(relation, Lock::AccessShare);
    for (_, segment) in segment::all(extension)? {
        relation::lock(segment, Lock::AccessShare);
    }
    Ok(())
}

/// Refuses a table that changed since the snapshot in a way that a snapshot does not show, which only one
/// that is older than the locks can meet; and one whose changes by the statement that is under way are not
/// captured yet.
fn refuse_unseen_change(table: Oid) -> Result<(), Error> {
    let shape = "SELECT c.relfilenode::pg_catalog.text || ' ' || pg_catalog.string_agg( \
            pg_catalog.concat_ws(' ', a.attnum, a.attname, a.atttypid, a.attisdropped), ',' ORDER BY a.attnum) \
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 \
        WHERE c.oid = $1 GROUP BY c.relfilenode";
    let name = || catalog::quoted_name(table).unwrap_or_default();
    if xact::keeps_snapshot() {
        let _path = LocalSettings::safe_search_path();
        let read = |row: &Record| row.get_text(1);
        let seen = query_statement(shape, &[table.into()], read);
        if seen != query_latest(shape, &[table.into()], read) {
            return Err(Error::ChangedSinceSnapshot { table: name() });
        }
    }
    if trigger::waits_for(table) {
        return Err(Error::TriggersWait { table: name() });
    }
    Ok(())
}

/// Why a column is not compared.
const COMPUTED: &str = "a command computed it when it changed the table";

/// A check under way.
struct Check<'a> {
    asked: &'a Asked,
    reader: Reader,
    sink: RowSink,
    /// How many rows agree with the log.
    compared: u64,
    /// How many rows the log cannot know of.
    unproven: u64,
    /// How often a column was not compared, and why.
    uncompared: BTreeMap<(String, &'static str), u64>,
    found: u64,
    /// Whether any table was compared.
    has_compared: bool,
}

/// A table that is compared.
struct Table<'a> {
    oid: Oid,
    lineage: &'a Lineage,
    /// As capture writes its rows now.
    written: AuditedTable,
    options: Options,
}

/// How much the log knows of the rows of a table.
#[derive(Clone, Copy)]
struct Knowledge {
    /// Whether it has all of them.
    is_complete: bool,
    /// An entry before this one is about a row that may have changed, or gone, since: auditing was
    /// interrupted after it.
    since: Position,
    /// When the newest entry was captured whose payload was erased: what an older one says may have been
    /// changed by it.
    erased: i64,
    /// Whether changes of the table are not in the log, or have been erased.
    is_interrupted: bool,
}

impl Knowledge {
    fn is_outdated(&self, position: Position) -> bool {
        position < self.since || position.at <= self.erased
    }
}

/// A row of the table.
struct Stored {
    key: Option<String>,
    row: String,
}

impl Check<'_> {
    fn tell(&self) {
        let table = self.asked.family.root.shown();
        for ((column, reason), count) in &self.uncompared {
            notice(&format!(
                "column \"{column}\" of table \"{table}\" was not compared in {count} {}: {reason}",
                plural(*count, "row", "rows")
            ));
        }
        if self.unproven > 0 {
            notice(&format!(
                "{} {} of table \"{table}\" could not be compared: the log does not have the last change, which may be older than the log, \
                 not audited, pruned or erased",
                self.unproven,
                plural(self.unproven, "row", "rows")
            ));
        }
        if !self.has_compared {
            return;
        }
        notice(&format!(
            "{} {} of table \"{table}\" compared with the log: {}",
            self.compared + self.found,
            plural(self.compared + self.found, "row", "rows"),
            match self.found {
                0 => "no difference".to_owned(),
                found => format!("{found} {}", plural(found, "difference", "differences")),
            }
        ));
    }

    /// Checks one table, without those below it.
    fn member(&mut self, lineage: &Lineage, tables: &[Oid], report: &mut Report) -> Result<(), Error> {
        let not_compared =
            |why: &str| notice(&format!("table \"{}\" was not compared: {why}", lineage.shown()));
        let (schema, name) = lineage.name();
        // One that left the table, or was dropped, is not the caller's question.
        let Some(oid) = relation::find(schema, name).filter(|oid| tables.contains(oid)) else {
            return Ok(());
        };
        let Some(description) = relation::describe(oid) else { return Ok(()) };
        if description.kind == pgrx::pg_sys::RELKIND_PARTITIONED_TABLE {
            return Ok(());
        }
        if description.kind == pgrx::pg_sys::RELKIND_FOREIGN_TABLE {
            not_compared("it is a foreign table, which others can change");
            return Ok(());
        }
        let capture = Capture::of(&self.asked.extension, oid)?;
        let is_ended = lineage.periods.last().is_some_and(|period| period.until.is_some());
        let Some(options) = capture.options().filter(|_| !is_ended) else {
            not_compared("it is not audited any more");
            return Ok(());
        };
        scan::with_relation(oid, |opened| {
            let written = AuditedTable::new(opened, options)?;
            let table = Table { oid, lineage, written, options: options.clone() };
            self.table(&table, opened, report)
        })
    }

    fn table(&mut self, table: &Table<'_>, opened: Relation<'_>, report: &mut Report) -> Result<(), Error> {
        self.has_compared = true;
        let lineage = table.lineage;
        let moments = [When::Now];
        let reader = self.reader.clone();
        let mut state = State::new(&reader, lineage, &self.asked.family.root, &moments, report);
        let is_whole = Segments::read(&self.asked.extension)?.pruned().is_empty();
        let period = lineage.periods.last();
        let since = period.map(|period| period.complete_from.unwrap_or(period.from)).unwrap_or_default();
        let know = |is_complete, erased: Option<i64>| Knowledge {
            is_complete: is_complete && is_whole && erased.is_none(),
            since,
            erased: erased.unwrap_or(i64::MIN),
            is_interrupted: erased.is_some() || lineage.periods.len() > 1,
        };
        let mut rows: Option<Sort<3>> = None;
        let (mut next, mut seen) = (None, 0);
        let is_keyed = state.visit_ranges(None, report, &mut |range| {
            let knowledge = know(range.is_complete, range.erased);
            let rows = rows.get_or_insert_with(|| {
                let mut rows = sorted_rows(table, opened);
                next = rows.next();
                rows
            });
            seen += self.range(table, range, rows, &mut next, knowledge)?;
            Ok(())
        })?;
        if let Some(rows) = rows {
            rows.end();
        }
        self.count_left_out(table, seen);
        if !is_keyed {
            let knowledge = know(state.is_complete(), state.erased());
            self.contents(table, opened, knowledge, report)?;
        }
        Ok(())
    }

    /// Checks the rows in a range of keys: those of the table, which are sorted as the ranges are, against
    /// those of the log. Returns how many the table has.
    fn range(
        &mut self,
        table: &Table<'_>,
        mut range: RowRange<'_>,
        stored: &mut Sort<3>,
        next: &mut Option<[Vec<u8>; 3]>,
        knowledge: Knowledge,
    ) -> Result<u64, Error> {
        let mut seen = 0;
        let mut known = std::mem::take(&mut range.rows);
        let mut doubtful: Vec<(Key, Stored, Image)> = Vec::new();
        while let Some([part, ..]) = next {
            if range.to.is_some_and(|to| &part[..] >= to) {
                break;
            }
            let Some([_, key, row]) = std::mem::replace(next, stored.next()) else { break };
            seen += 1;
            let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("written as UTF-8");
            let stored = Stored { key: Some(text(key)), row: text(row) };
            let key = stored.key.as_deref().and_then(row_id::values).unwrap_or_default();
            match known.remove(&key).map(|mut images| images.remove(0)) {
                Some(Some(image)) if image.row == stored.row => self.compared += 1,
                Some(Some(image)) if knowledge.is_outdated(image.position) => {
                    self.extra(&stored, knowledge, false);
                }
                Some(Some(image)) => {
                    doubtful.push((key, stored, image));
                    if doubtful.len() >= BATCH {
                        self.doubtful(table, std::mem::take(&mut doubtful))?;
                    }
                }
                // Its last entry says that it is gone.
                Some(None) => self.extra(&stored, knowledge, true),
                None => self.extra(&stored, knowledge, false),
            }
        }
        self.doubtful(table, doubtful)?;
        for image in known.into_values().flatten().flatten() {
            if !knowledge.is_outdated(image.position) {
                self.put(Problem::Missing, image.key.as_deref(), None, Some(&image), &[]);
            }
        }
        Ok(seen)
    }

    /// A row of the table that the log does not have; `is_gone` if it says that the row was deleted, or
    /// another one came to its key.
    fn extra(&mut self, stored: &Stored, knowledge: Knowledge, is_gone: bool) {
        if knowledge.is_complete || is_gone && !knowledge.is_interrupted {
            self.put(Problem::Extra, stored.key.as_deref(), Some(&stored.row), None, &[]);
        } else {
            self.unproven += 1;
        }
    }

    /// Compares rows whose images differ, column by column.
    fn doubtful(&mut self, table: &Table<'_>, rows: Vec<(Key, Stored, Image)>) -> Result<(), Error> {
        let mut waiting = Vec::new();
        for (key, stored, image) in rows {
            let missing = lacking(table.lineage, &stored.row, &image);
            if missing.is_empty() {
                self.compare(table, &stored, &image, &BTreeMap::new());
            } else {
                waiting.push((key, stored, image, missing));
            }
        }
        if waiting.is_empty() {
            return Ok(());
        }
        let keys: BTreeSet<Key> = waiting.iter().map(|(key, ..)| key.clone()).collect();
        let histories = histories(&self.reader, table.lineage, keys);
        for (key, stored, image, missing) in waiting {
            let found =
                find(table.lineage, &table.lineage.columns, &histories, &key, image.position, &missing);
            self.compare(table, &stored, &image, &found);
        }
        Ok(())
    }

    /// Compares a row with the image in the log, and with what other entries have of it.
    fn compare(
        &mut self,
        table: &Table<'_>,
        stored: &Stored,
        known: &Image,
        found: &BTreeMap<String, String>,
    ) {
        let recorded = image::columns(&known.row).unwrap_or_default();
        let mut different = Vec::new();
        for (name, value) in image::columns(&stored.row).unwrap_or_default() {
            let found = found.get(&name[..]).map(|value| &value[..]);
            match table.compare(&name, value, known.position, &recorded, found) {
                Ok(true) => {}
                Ok(false) => different.push(name.into_owned()),
                Err(reason) => *self.uncompared.entry((name.into_owned(), reason)).or_default() += 1,
            }
        }
        if different.is_empty() {
            self.compared += 1;
        } else {
            self.put(Problem::Different, known.key.as_deref(), Some(&stored.row), Some(known), &different);
        }
    }

    fn put(
        &mut self,
        problem: Problem,
        key: Option<&str>,
        now: Option<&str>,
        known: Option<&Image>,
        columns: &[String],
    ) {
        self.found += 1;
        self.sink.put(|| {
            vec![
                Text(problem.word().into()).into_datum(),
                key.map(json_datum),
                (!columns.is_empty()).then(|| Texts(columns.to_vec())).and_then(IntoDatum::into_datum),
                now.map(json_datum),
                known.map(|known| json_datum(&known.row)),
                known.map(|known| Datum::from(known.position.at)),
                known.map(|known| Datum::from(known.position.chain)),
                known.map(|known| Datum::from(known.position.seq)),
            ]
        });
    }

    /// Checks a table whose rows are known by their content.
    fn contents(
        &mut self,
        table: &Table<'_>,
        opened: Relation<'_>,
        knowledge: Knowledge,
        report: &mut Report,
    ) -> Result<(), Error> {
        let lineage = table.lineage;
        if knowledge.is_interrupted {
            notice(&format!(
                "table \"{}\" was not compared: its rows are known by their content only, and not all of their changes are in the log",
                lineage.shown()
            ));
            return Ok(());
        }
        let moments = [When::Now];
        let question = Question {
            extension: &self.asked.extension,
            family: &self.asked.family,
            moments: &moments,
            key: None,
        };
        let mut logged: HashMap<String, u64> = HashMap::new();
        for content in question.contents(lineage, &When::Now, report)? {
            *logged.entry(written_content(&content)).or_default() += 1;
        }
        let mut extra: Vec<Content> = Vec::new();
        let mut seen = 0;
        for_each_written_row(table, opened, &mut |_, row| {
            seen += 1;
            let columns = image::columns(row).unwrap_or_default().into_iter();
            let content: Content =
                columns.map(|(name, value)| (name.into_owned(), value.to_owned())).collect();
            match logged.get_mut(&written_content(&content)).filter(|count| **count > 0) {
                Some(count) => {
                    *count -= 1;
                    self.compared += 1;
                }
                None => extra.push(content),
            }
        });
        self.count_left_out(table, seen);
        logged.retain(|_, count| *count > 0);
        // What is left may differ only in what cannot be compared.
        let uncertain = table.uncertain();
        let mut vague: HashMap<String, Vec<String>> = HashMap::new();
        for (row, count) in logged {
            let content = table_at::content(&row).unwrap_or_default();
            for _ in 0..count {
                vague.entry(projected(&content, &uncertain)).or_default().push(row.clone());
            }
        }
        for content in extra {
            if vague.get_mut(&projected(&content, &uncertain)).and_then(Vec::pop).is_some() {
                self.compared += 1;
                let is_compared =
                    |column: &&String| content.contains_key(*column) && !table.options.leaves_out(column);
                for column in uncertain.iter().filter(is_compared) {
                    *self.uncompared.entry((column.clone(), VAGUE)).or_default() += 1;
                }
            } else {
                let stored = Stored { key: None, row: written_content(&content) };
                self.extra(&stored, knowledge, false);
            }
        }
        for row in vague.into_values().flatten() {
            self.found += 1;
            self.sink.put(|| {
                let word = Text(Problem::Missing.word().into()).into_datum();
                vec![word, None, None, None, Some(json_datum(&row)), None, None, None]
            });
        }
        Ok(())
    }

    /// Notes the columns that entries leave out.
    fn count_left_out(&mut self, table: &Table<'_>, rows: u64) {
        let Options { exclude_columns, mask_columns, .. } = &table.options;
        for (columns, reason) in
            [(exclude_columns, "it is excluded from the log"), (mask_columns, "it is masked in the log")]
        {
            for column in columns.iter().filter(|_| rows > 0) {
                *self.uncompared.entry((column.clone(), reason)).or_default() += rows;
            }
        }
    }
}

/// Why a column of a row that is known by its content was not compared.
const VAGUE: &str = "not all entries have its values as they are now";

impl Table<'_> {
    /// Whether a column's value, `now`, is what the entry at a position says, or why that cannot be told.
    /// `found` is what other entries have of it.
    fn compare(
        &self,
        name: &str,
        now: &str,
        position: Position,
        recorded: &[(Cow<'_, str>, &str)],
        found: Option<&str>,
    ) -> Result<bool, &'static str> {
        let lineage = self.lineage;
        let then = lineage.columns.then(lineage.columns.era(position), name);
        let options = lineage.options_at(position);
        let is_among = |columns: Option<&Vec<String>>, name: &str| {
            columns.is_some_and(|columns| columns.iter().any(|column| column == name))
        };
        let (old, retyping) = match &then {
            Then::Named { name: then, retyping } => {
                let old = recorded.iter().find(|(other, _)| other == then).map(|(_, value)| *value).or(found);
                if old.is_none() && is_among(options.map(|options| &options.exclude_columns), then) {
                    return Err("it was excluded when the row changed last");
                }
                if is_among(options.map(|options| &options.mask_columns), then) {
                    return if is_among(Some(&self.options.mask_columns), name) {
                        Ok(true)
                    } else {
                        Err("it was masked when the row changed last")
                    };
                }
                (old.ok_or("no entry has the value")?, *retyping)
            }
            Then::Added { value, retyping, .. } => (value.ok_or(COMPUTED)?, *retyping),
        };
        if old == now || is_among(Some(&self.options.mask_columns), name) {
            return Ok(true);
        }
        let is_digest = |value: &str| matches!(image::read(value), Recorded::TooLarge { .. });
        let same = match (is_digest(old), is_digest(now)) {
            (true, true) => Some(false),
            (true, false) => Some(is_digest_of(old, now)),
            (false, true) => {
                Some(is_digest_of(now, old) && settings::max_value_size().is_some_and(|max| old.len() > max))
            }
            (false, false) => None,
        };
        if let Some(same) = same {
            let is_of_stored = [old, now].iter().any(|value| value.contains(r#""of":"stored""#));
            return if !same && is_of_stored {
                Err("a digest of the value as it is stored says nothing about another form")
            } else {
                Ok(same)
            };
        }
        if old != "null" {
            // Types may have another text for the value now: a label of an enum that was renamed, or another
            // precision.
            let _settings = OutputSettings::enter(true);
            match form::rewritten(self.oid, name, &image::text(old)) {
                None if retyping.computed.is_some() && !retyping.is_retyped => return Err(COMPUTED),
                None => return Err("its type does not take the recorded value any more"),
                Some(again) if again == now => return Ok(true),
                Some(_) => {}
            }
        }
        if retyping.is_retyped {
            Err("its type was changed after the row had changed last")
        } else {
            Ok(false)
        }
    }

    /// The columns of which not all entries have the values as they are now.
    fn uncertain(&self) -> BTreeSet<String> {
        let lineage = self.lineage;
        let mut uncertain = BTreeSet::new();
        for options in lineage.all_options().chain([&self.options]) {
            uncertain.extend(options.exclude_columns.iter().chain(&options.mask_columns).cloned());
        }
        for change in lineage.columns.changes() {
            let retyped = change.retyped.iter().filter(|retyped| retyped.rewrites());
            uncertain.extend(retyped.map(|retyped| retyped.name.clone()));
            let computed = change.added.iter().filter(|(_, value)| value.is_none());
            uncertain.extend(computed.map(|(name, _)| name.clone()));
        }
        // By their names of now.
        for change in lineage.columns.changes() {
            for (old, new) in &change.renamed {
                if uncertain.contains(old) {
                    uncertain.insert(new.clone());
                }
            }
        }
        uncertain
    }
}

/// Calls `visit` with the key, empty without one, and the image of every row of a table, as capture writes
/// them, in UTF-8.
fn for_each_written_row(table: &Table<'_>, opened: Relation<'_>, visit: &mut dyn FnMut(&str, &str)) {
    let (mut key, mut image) = (TextBuffer::default(), Vec::new());
    scan::for_each_stored_row(opened, |row: &Row<'_>| {
        let _settings = OutputSettings::enter(table.written.depends_on_settings);
        table.written.write_key(row, &mut key);
        image.clear();
        table.written.write_row(row, &mut image);
        let (key, image) = (to_utf8(key.get().unwrap_or_default()), to_utf8(&image));
        visit(&String::from_utf8_lossy(&key), &String::from_utf8_lossy(&image));
    });
}

/// The rows of a table by the keys' parts of their row ids: that part, the key and the row.
fn sorted_rows(table: &Table<'_>, opened: Relation<'_>) -> Sort<3> {
    let mut rows = Sort::begin(session::maintenance_memory());
    for_each_written_row(table, opened, &mut |key, row| {
        let values = row_id::values(key).unwrap_or_default();
        rows.put([&row_id::key_part(&values), key.as_bytes(), row.as_bytes()]);
    });
    rows.sort();
    rows
}

fn written_content(content: &Content) -> String {
    let columns: Vec<_> =
        content.iter().map(|(name, value)| (name.as_str().into(), value.as_str())).collect();
    image::write(&columns)
}

/// What can be compared of a row: without some columns, and large values by their digests.
fn projected(content: &Content, uncertain: &BTreeSet<String>) -> String {
    let columns: Vec<_> = content
        .iter()
        .filter(|(name, _)| !uncertain.contains(*name))
        .map(|(name, value)| (name.as_str().into(), digest(value)))
        .collect();
    let columns: Vec<_> =
        columns.iter().map(|(name, value): &(Cow<'_, str>, String)| (name.clone(), &value[..])).collect();
    image::write(&columns)
}

/// The SHA-256 of a value, as a JSON string: as the entry has it, or of what it has.
fn digest(value: &str) -> String {
    let hex = match image::read(value) {
        Recorded::TooLarge { .. } => value.get(11..75).unwrap_or_default().to_owned(),
        _ => hex::encode(Sha256::digest(image::text(value).as_bytes())),
    };
    format!("\"{hex}\"")
}

/// The columns of a row that its image in the log should have, and does not.
fn lacking(lineage: &Lineage, now: &str, known: &Image) -> Vec<String> {
    let era = lineage.columns.era(known.position);
    let recorded = image::columns(&known.row).unwrap_or_default();
    let names = image::columns(now).unwrap_or_default().into_iter().map(|(name, _)| name.into_owned());
    names
        .filter(|name| match lineage.columns.then(era, name) {
            Then::Named { name: then, .. } => !recorded.iter().any(|(other, _)| *other == then),
            Then::Added { .. } => false,
        })
        .collect()
}

/// Whether what stands for a large value is about this one: its SHA-256, of the text, or of the bytes of a
/// bytea.
fn is_digest_of(marker: &str, value: &str) -> bool {
    let text = image::text(value);
    let is_of = |bytes: &[u8]| {
        let start =
            format!("{{\"sha256\":\"{}\",\"length\":{}", hex::encode(Sha256::digest(bytes)), bytes.len());
        marker.strip_prefix(&start).is_some_and(|rest| rest.starts_with(['}', ',']))
    };
    is_of(text.as_bytes())
        || text.strip_prefix("\\x").and_then(|hex| hex::decode(hex).ok()).is_some_and(|bytes| is_of(&bytes))
}
