//! `audit_check_table()`: every row of a table that is not what the log says, and every one that is missing or too many.
//!
//! Rows are written as capture writes them, and compared with the images in the log as texts: what was recorded of a value, be it the
//! value, a mask or a digest, is recorded again in the same way. The table and the log are read with one snapshot: a change and its entry
//! commit together, so that writers at work make no difference.

use crate::audit::triggers::Capture;
use crate::capture::audited_table::AuditedTable;
use crate::error::{Error, OrRaise, notice};
use crate::history::ask::Asked;
use crate::history::lineage::Lineage;
use crate::history::reader::{Key, Reader};
use crate::history::report::{Report, plural};
use crate::history::state::{Image, RowRange, State};
use crate::history::table_at::{Question, find, histories};
use crate::history::when::When;
use crate::log::buffer::TextBuffer;
use crate::log::segment::Segments;
use crate::pg::encoding::to_utf8;
use crate::pg::fmgr::Call;
use crate::pg::form::RowSink;
use crate::pg::row::Row;
use crate::pg::session::{self, OutputSettings};
use crate::pg::text::{Text, Texts, json_datum};
use crate::pg::{catalog, compat, relation, scan};
use audit_chain_core::history::columns::Then;
use audit_chain_core::history::image::{self, Recorded};
use audit_chain_core::row_id;
use pgrx::IntoDatum;
use pgrx::pg_sys::{Datum, Oid};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

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
    let asked = Asked::of_relation(relation)?;
    if !compat::may_read(relation, session::effective_role()) {
        return Err(Error::MayNotReadTable { table: catalog::quoted_name(relation).unwrap_or_default() });
    }
    let mut check = Check {
        asked: &asked,
        reader: Rc::new(Reader::open(&asked.extension, i64::MIN, i64::MAX)?),
        sink: RowSink::begin(call),
        compared: 0,
        unproven: 0,
        uncompared: BTreeMap::new(),
        found: 0,
    };
    let mut report = Report::new(&asked.family.root.shown());
    for lineage in asked.family.members() {
        if asked.family.is_member(lineage, &|_| true) {
            check.member(lineage, &mut report)?;
        }
    }
    report.tell();
    check.tell();
    Ok(())
}

/// A check under way.
struct Check<'a> {
    asked: &'a Asked,
    reader: Rc<Reader>,
    sink: RowSink,
    /// How many rows agree with the log.
    compared: u64,
    /// How many rows the log cannot know of.
    unproven: u64,
    /// How often a column was not compared, and why.
    uncompared: BTreeMap<(String, &'static str), u64>,
    found: u64,
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
                "{} {} of table \"{table}\" have no entry, and need none: they may be older than the log, or their entries have been \
                 pruned or erased",
                self.unproven,
                plural(self.unproven, "row", "rows")
            ));
        }
        notice(&format!(
            "{} {} of table \"{table}\" compared with the log: {}",
            self.compared,
            plural(self.compared, "row", "rows"),
            match self.found {
                0 => "no difference".to_owned(),
                found => format!("{found} {}", plural(found, "difference", "differences")),
            }
        ));
    }

    /// Checks one table, without those below it.
    fn member(&mut self, lineage: &Lineage, report: &mut Report) -> Result<(), Error> {
        let (schema, name) = lineage.name();
        let Some(table) = relation::find(schema, name) else { return Ok(()) };
        let description = relation::describe(table);
        let is_partitioned =
            description.as_ref().is_some_and(|found| found.kind == pgrx::pg_sys::RELKIND_PARTITIONED_TABLE);
        if is_partitioned {
            return Ok(());
        }
        let capture = Capture::of(&self.asked.extension, table)?;
        let Some(options) = capture.options() else {
            notice(&format!("table \"{}\" is not audited any more, and was not compared", lineage.shown()));
            return Ok(());
        };
        if lineage.periods.last().is_some_and(|period| period.until.is_some()) {
            notice(&format!("table \"{}\" is not audited any more, and was not compared", lineage.shown()));
            return Ok(());
        }
        scan::with_relation(table, |opened| {
            let written = AuditedTable::new(opened, options)?;
            let moments = [When::Now];
            let reader = Rc::clone(&self.reader);
            let mut state = State::new(&reader, lineage, &self.asked.family.root, &moments, report);
            let pruned = Segments::known(&self.asked.extension)?.pruned().len();
            let mut certain = false;
            let is_keyed = state.visit_ranges(None, report, &mut |range, is_complete| {
                certain = is_complete && pruned == 0;
                self.range(lineage, opened, &written, range, certain)
            })?;
            certain = state.is_complete() && pruned == 0;
            if !is_keyed {
                self.contents(lineage, opened, &written, certain, report)?;
            }
            Ok(())
        })
    }

    /// Checks the rows in a range of keys: those of the table against those of the log.
    fn range(
        &mut self,
        lineage: &Lineage,
        opened: crate::pg::row::Relation<'_>,
        written: &AuditedTable,
        mut range: RowRange<'_>,
        certain: bool,
    ) -> Result<(), Error> {
        let mut rows = std::mem::take(&mut range.rows);
        let (mut text, mut image) = (TextBuffer::default(), Vec::new());
        let mut doubtful: Vec<(Key, String, Image)> = Vec::new();
        let mut extra: Vec<(Option<String>, String, Option<Image>)> = Vec::new();
        let mut failed = None;
        let is_stored = scan::for_each_stored_row(opened, |row: &Row<'_>| {
            let _settings = OutputSettings::enter(written.depends_on_settings);
            written.write_key(row, &mut text);
            let key_text = text.get().map(|key| String::from_utf8_lossy(&to_utf8(key)).into_owned());
            let Some(key) = key_text.as_deref().and_then(row_id::values) else { return };
            if !range.has(&key) {
                return;
            }
            image.clear();
            written.write_row(row, &mut image);
            match rows.remove(&key).map(|mut images| images.remove(0)) {
                Some(Some(known)) => {
                    let now = to_utf8(&image);
                    if known.row.as_bytes() == &now[..] {
                        self.compared += 1;
                    } else {
                        doubtful.push((key, String::from_utf8_lossy(&now).into_owned(), known));
                        if doubtful.len() >= 5000 && failed.is_none() {
                            failed = self.doubtful(lineage, std::mem::take(&mut doubtful)).err();
                        }
                    }
                }
                // Its last entry says that it is gone.
                Some(None) => {
                    extra.push((key_text, String::from_utf8_lossy(&to_utf8(&image)).into_owned(), None))
                }
                None if certain => {
                    extra.push((key_text, String::from_utf8_lossy(&to_utf8(&image)).into_owned(), None));
                }
                None => self.unproven += 1,
            }
        });
        if let Some(error) = failed {
            return Err(error);
        }
        if !is_stored {
            notice(&format!("table \"{}\" is a foreign table, and was not compared", lineage.shown()));
            return Ok(());
        }
        self.doubtful(lineage, doubtful)?;
        for (key, now, known) in extra {
            self.put(Problem::Extra, key.as_deref(), Some(&now), known.as_ref(), &[]);
        }
        for known in rows.into_values().flatten().flatten() {
            self.put(Problem::Missing, known.key.as_deref(), None, Some(&known), &[]);
        }
        Ok(())
    }

    /// Compares rows whose images differ, column by column.
    fn doubtful(&mut self, lineage: &Lineage, rows: Vec<(Key, String, Image)>) -> Result<(), Error> {
        let mut waiting = Vec::new();
        for (key, now, known) in rows {
            let missing = lacking(lineage, &now, &known);
            if missing.is_empty() {
                self.compare(lineage, &now, &known, &BTreeMap::new());
            } else {
                waiting.push((key, now, known, missing));
            }
        }
        if waiting.is_empty() {
            return Ok(());
        }
        let keys: BTreeSet<Key> = waiting.iter().map(|(key, ..)| key.clone()).collect();
        let histories = histories(&self.reader, lineage, keys);
        for (key, now, known, missing) in waiting {
            let found = find(lineage, &histories, &key, known.position, &missing);
            self.compare(lineage, &now, &known, &found);
        }
        Ok(())
    }

    /// Compares a row with the image in the log, and what that lacks.
    fn compare(&mut self, lineage: &Lineage, now: &str, known: &Image, found: &BTreeMap<String, String>) {
        let era = lineage.columns.era(known.position);
        let recorded = image::columns(&known.row).unwrap_or_default();
        let options = lineage.options_at(known.position);
        let mut different = Vec::new();
        for (name, value) in image::columns(now).unwrap_or_default() {
            let then = lineage.columns.then(era, &name);
            let (old, reason) = match &then {
                Then::Named { name: then, is_retyped } => {
                    let is_excluded = options
                        .is_some_and(|options| options.exclude_columns.iter().any(|column| column == then));
                    let old = recorded
                        .iter()
                        .find(|(other, _)| other == then)
                        .map(|(_, value)| *value)
                        .or_else(|| found.get(&name[..]).map(|value| &value[..]));
                    let reason = match old {
                        None if is_excluded => Some("it was excluded when the row changed last"),
                        None => Some("no entry has the value"),
                        Some(old) if *is_retyped && old != value => {
                            Some("its type was changed after the row had changed last")
                        }
                        Some(_) => None,
                    };
                    (old, reason)
                }
                Then::Added { value, .. } => {
                    let reason = value.is_none().then_some("a command computed it when it changed the table");
                    (*value, reason)
                }
            };
            match (old, reason) {
                (_, Some(reason)) => *self.uncompared.entry((name.into_owned(), reason)).or_default() += 1,
                (Some(old), None) if !is_same(old, value) => different.push(name.into_owned()),
                _ => {}
            }
        }
        if different.is_empty() {
            self.compared += 1;
        } else {
            self.put(Problem::Different, known.key.as_deref(), Some(now), Some(known), &different);
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
        lineage: &Lineage,
        opened: crate::pg::row::Relation<'_>,
        written: &AuditedTable,
        certain: bool,
        report: &mut Report,
    ) -> Result<(), Error> {
        let moments = [When::Now];
        let question = Question {
            extension: &self.asked.extension,
            family: &self.asked.family,
            moments: &moments,
            key: None,
        };
        let mut logged: HashMap<String, i64> = HashMap::new();
        for content in question.contents(lineage, &When::Now, report)? {
            *logged.entry(written_content(&content)).or_default() += 1;
        }
        let mut image = Vec::new();
        let mut extra: Vec<String> = Vec::new();
        scan::for_each_stored_row(opened, |row: &Row<'_>| {
            let _settings = OutputSettings::enter(written.depends_on_settings);
            image.clear();
            written.write_row(row, &mut image);
            let now = String::from_utf8_lossy(&to_utf8(&image)).into_owned();
            let content: BTreeMap<String, String> = image::columns(&now)
                .unwrap_or_default()
                .into_iter()
                .map(|(name, value)| (name.into_owned(), value.to_owned()))
                .collect();
            match logged.get_mut(&written_content(&content)).filter(|count| **count > 0) {
                Some(count) => {
                    *count -= 1;
                    self.compared += 1;
                }
                None => extra.push(now),
            }
        });
        for now in extra {
            if certain {
                self.put(Problem::Extra, None, Some(&now), None, &[]);
            } else {
                self.unproven += 1;
            }
        }
        for (row, count) in logged {
            let known = Image { row, ..Image::default() };
            for _ in 0..count.max(0) {
                self.found += 1;
                self.sink.put(|| {
                    let word = Text(Problem::Missing.word().into()).into_datum();
                    vec![word, None, None, None, Some(json_datum(&known.row)), None, None, None]
                });
            }
        }
        Ok(())
    }
}

fn written_content(content: &BTreeMap<String, String>) -> String {
    let columns: Vec<_> =
        content.iter().map(|(name, value)| (name.as_str().into(), value.as_str())).collect();
    image::write(&columns)
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

/// Whether a recorded value and one that is written now are the same: one may be the digest of the other, if `max_value_size` has changed,
/// and masked now or then, it says nothing.
fn is_same(recorded: &str, now: &str) -> bool {
    if recorded == now {
        return true;
    }
    let digest = |value: &str| {
        let text = image::text(value);
        let bytes = text.strip_prefix("\\x").and_then(|hex| hex::decode(hex).ok());
        [
            Some(hex::encode(Sha256::digest(text.as_bytes()))),
            bytes.map(|bytes| hex::encode(Sha256::digest(bytes))),
        ]
    };
    let is_digest_of = |marker: &str, value: &str| {
        digest(value).into_iter().flatten().any(|digest| marker.contains(&format!("\"sha256\":\"{digest}\"")))
    };
    match (image::read(recorded), image::read(now)) {
        (Recorded::Masked, _) | (_, Recorded::Masked) => true,
        (Recorded::TooLarge, Recorded::TooLarge) => false,
        (Recorded::TooLarge, _) => is_digest_of(recorded, now),
        (_, Recorded::TooLarge) => is_digest_of(now, recorded),
        _ => false,
    }
}
