//! A row's image, as an entry has it, as a row of the table's type of now.

use crate::history::lineage::Lineage;
use crate::history::report::{Loss, Report};
use crate::history::state::Image;
use crate::history::when::When;
use crate::pg::encoding::from_utf8;
use crate::pg::form::{RowSink, RowType};
use crate::pg::session::OutputSettings;
use audit_chain_core::history::Position;
use audit_chain_core::history::columns::{Columns, Retyping, Then};
use audit_chain_core::history::image::{self, Recorded};
use pgrx::pg_sys::{Datum, Oid};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

/// Where a column's value is.
enum Source {
    /// In the image, under this name.
    Recorded { name: String, retyping: Retyping },
    /// The column was added later, with this value.
    Added { value: Option<String>, at: Position, retyping: Retyping },
    /// It has none.
    Nothing,
}

/// Values that the image of a row lacks, by the columns' names of now, as JSON.
pub type Found = BTreeMap<String, String>;

/// Forms rows of a table's type.
pub struct Typed {
    row_type: RowType,
    /// The table whose rows are shown, if it has others below it.
    root: Option<Lineage>,
    /// The columns of tables below it as of moments, where they are not those of now. The tables are told
    /// apart by their names, the moments by their times.
    columns: HashMap<(String, i64), Option<Rc<Columns>>>,
    /// The columns' sources in an era of a table.
    sources: HashMap<(String, Option<i64>, usize), Rc<Vec<Source>>>,
    settings: bool,
}

impl Typed {
    /// For the rows of a relation.
    pub fn of_relation(relation: Oid) -> Self {
        let row_type = RowType::of_relation(relation);
        Self::of(row_type)
    }

    fn of(row_type: RowType) -> Self {
        let settings = row_type.depends_on_settings;
        Self { row_type, root: None, columns: HashMap::new(), sources: HashMap::new(), settings }
    }

    /// Shows rows of tables below this one as its rows.
    pub fn follow(&mut self, root: &Lineage) {
        self.root = Some(root.clone());
    }

    /// The columns of a table as of a moment, where they are not those of now.
    pub fn columns_as_of(&mut self, lineage: &Lineage, when: &When) -> Option<Rc<Columns>> {
        let root = self.root.as_ref().filter(|root| root.name() != lineage.name())?;
        let columns = self.columns.entry((lineage.shown(), when.limit()));
        let as_of = || lineage.columns_as_of(root, &|turn| when.counts_turn(turn)).map(Rc::new);
        columns.or_insert_with(as_of).clone()
    }

    fn sources(&mut self, lineage: &Lineage, position: Position, when: &When) -> Rc<Vec<Source>> {
        let as_of = self.columns_as_of(lineage, when);
        let moment = as_of.is_some().then(|| when.limit());
        let columns = as_of.as_deref().unwrap_or(&lineage.columns);
        let era = columns.era(position);
        let key = (lineage.shown(), moment, era);
        if let Some(known) = self.sources.get(&key) {
            return Rc::clone(known);
        }
        let source = |field: &crate::pg::form::Field| {
            if field.holds_nothing {
                return Source::Nothing;
            }
            match columns.then(era, &field.name) {
                Then::Named { name, retyping } => Source::Recorded { name, retyping },
                Then::Added { change, value, retyping } => {
                    Source::Added { value: value.map(str::to_owned), at: change.position, retyping }
                }
            }
        };
        let sources = Rc::new(self.row_type.fields.iter().map(source).collect::<Vec<_>>());
        self.sources.insert(key, Rc::clone(&sources));
        sources
    }

    /// For the rows of a relation as a query describes them.
    pub fn of_sink(sink: &RowSink, relation: Oid) -> Self {
        Self::of(sink.row_type(relation))
    }

    /// The columns, by their names of now, that an image of that position should have and does not: unchanged
    /// out-of-line values.
    pub fn missing(
        &mut self,
        lineage: &Lineage,
        image: &str,
        position: Position,
        when: &When,
    ) -> Vec<String> {
        let sources = self.sources(lineage, position, when);
        let recorded = image::columns(image).unwrap_or_default();
        let mut missing = Vec::new();
        for (field, source) in self.row_type.fields.iter().zip(sources.iter()) {
            if let Source::Recorded { name, .. } = source
                && !recorded.iter().any(|(column, _)| column == name)
                && !is_excluded(lineage, position, name)
            {
                missing.push(field.name.clone());
            }
        }
        missing
    }

    /// The values of the row that an entry at that position left, at a moment; `found` has what its image
    /// lacks.
    pub fn values(
        &mut self,
        lineage: &Lineage,
        image: &str,
        position: Position,
        when: &When,
        found: Option<&Found>,
        report: &mut Report,
    ) -> Vec<Option<Datum>> {
        self.values_of(lineage, (image, position, true), when, found, report)
    }

    /// The values of a row that is known by its content, which several entries have told of.
    pub fn values_of_content(
        &mut self,
        lineage: &Lineage,
        image: &Image,
        when: &When,
        report: &mut Report,
    ) -> Vec<Option<Datum>> {
        self.values_of(lineage, (&image.row, image.position, false), when, None, report)
    }

    fn values_of(
        &mut self,
        lineage: &Lineage,
        (image, position, is_of_one): (&str, Position, bool),
        when: &When,
        found: Option<&Found>,
        report: &mut Report,
    ) -> Vec<Option<Datum>> {
        let sources = self.sources(lineage, position, when);
        let recorded = image::columns(image).unwrap_or_default();
        let _settings = OutputSettings::enter(self.settings);
        let mut values = Vec::with_capacity(sources.len());
        let counts = |at: Position| lineage.alteration_at(at).is_some_and(|turn| when.counts_turn(turn));
        for (column, source) in sources.iter().enumerate() {
            let field = &self.row_type.fields[column];
            let (value, retyping, origin) = match source {
                Source::Nothing => {
                    if field.is_virtual {
                        report.lose(&field.name, Loss::Virtual);
                    }
                    values.push(None);
                    continue;
                }
                Source::Recorded { name, retyping } => {
                    // The columns are in the table's order almost always.
                    let value = recorded
                        .get(column)
                        .filter(|(other, _)| other == name)
                        .or_else(|| recorded.iter().find(|(other, _)| other == name))
                        .map(|(_, value)| *value);
                    if let Some(value) = value {
                        let origin =
                            if is_of_one { origin(lineage, position, name) } else { Origin::Unknown };
                        (Some(value), *retyping, origin)
                    } else {
                        let value = found.and_then(|found| found.get(&field.name)).map(|value| &value[..]);
                        if value.is_none() {
                            let is_excluded = is_excluded(lineage, position, name);
                            report
                                .lose(&field.name, if is_excluded { Loss::Excluded } else { Loss::Unknown });
                        }
                        // What was stored out of line is no short document.
                        (value, *retyping, Origin::Unknown)
                    }
                }
                Source::Added { value, at, retyping } => {
                    let counts = counts(*at);
                    if !counts {
                        report.lose(&field.name, Loss::Added);
                    } else if value.is_none() {
                        report.lose(&field.name, Loss::Computed);
                    }
                    (value.as_deref().filter(|_| counts), *retyping, Origin::Unmasked)
                }
            };
            let value = value.filter(|_| {
                let is_computed = retyping.computed.is_some_and(counts);
                if is_computed {
                    report.lose(&field.name, Loss::Computed);
                }
                !is_computed
            });
            values
                .push(value.and_then(|value| self.read(column, value, retyping.is_retyped, origin, report)));
        }
        values
    }

    /// The columns that differ between a row at two moments.
    pub fn changed(
        &mut self,
        lineage: &Lineage,
        before: (&Image, Option<&Found>, &When),
        after: (&Image, Option<&Found>, &When),
    ) -> Vec<String> {
        let (before, after) = (self.texts(lineage, before), self.texts(lineage, after));
        let fields = self.row_type.fields.iter();
        fields
            .zip(before.iter().zip(&after))
            .filter(|(_, (before, after))| before != after)
            .map(|(field, _)| field.name.clone())
            .collect()
    }

    /// What tells apart the values of a row at a moment: texts, or what stands for a value that was not
    /// recorded; `None` for null.
    pub fn texts(
        &mut self,
        lineage: &Lineage,
        (image, found, when): (&Image, Option<&Found>, &When),
    ) -> Vec<Option<Vec<u8>>> {
        let sources = self.sources(lineage, image.position, when);
        let recorded = image::columns(&image.row).unwrap_or_default();
        let counts = |at: Position| lineage.alteration_at(at).is_some_and(|turn| when.counts_turn(turn));
        let _settings = OutputSettings::enter(self.settings);
        let mut texts = Vec::with_capacity(sources.len());
        for (column, source) in sources.iter().enumerate() {
            let (value, retyping) = match source {
                Source::Nothing => (None, Retyping::default()),
                Source::Recorded { name, retyping } => {
                    let value = recorded.iter().find(|(other, _)| other == name).map(|(_, value)| *value);
                    let found = found.and_then(|found| found.get(&self.row_type.fields[column].name));
                    (value.or(found.map(|value| &value[..])), *retyping)
                }
                Source::Added { value, at, retyping } => {
                    (value.as_deref().filter(|_| counts(*at)), *retyping)
                }
            };
            let value = value.filter(|value| *value != "null" && !retyping.computed.is_some_and(counts));
            texts.push(value.and_then(|value| {
                let text = from_utf8(&image::text(value)).into_owned();
                if !retyping.is_retyped {
                    return Some(text);
                }
                let datum = self.row_type.read(column, &text, true)?;
                Some(self.row_type.text(column, datum))
            }));
        }
        texts
    }

    /// A value from its JSON.
    fn read(
        &mut self,
        column: usize,
        value: &str,
        is_retyped: bool,
        origin: Origin,
        report: &mut Report,
    ) -> Option<Datum> {
        let name = &self.row_type.fields[column].name;
        let recorded = match image::read(value) {
            // A document of a column of JSON may look like what stands for a value.
            Recorded::Masked if origin == Origin::Unmasked => Recorded::Text(Cow::Borrowed(value)),
            // No shorter value is replaced by its digest.
            Recorded::TooLarge { length } if length <= 1024 => Recorded::Text(Cow::Borrowed(value)),
            Recorded::Bytes(bytes) if std::str::from_utf8(&bytes).is_ok() => {
                Recorded::Text(Cow::Borrowed(value))
            }
            recorded => recorded,
        };
        let text = match &recorded {
            Recorded::Null => return None,
            Recorded::Masked => {
                report.lose(name, Loss::Masked);
                return None;
            }
            Recorded::TooLarge { .. } => {
                report.lose(name, Loss::TooLarge);
                return None;
            }
            Recorded::Text(text) => from_utf8(text),
            Recorded::Bytes(bytes) => Cow::Borrowed(&bytes[..]),
        };
        let datum = self.row_type.read(column, &text, is_retyped);
        let name = &self.row_type.fields[column].name;
        match datum {
            None => report.lose(name, Loss::Unreadable),
            Some(datum) if is_retyped && self.row_type.text(column, datum) != text[..] => {
                report.convert(name);
            }
            Some(_) => {}
        }
        datum
    }

    /// A row as a value of the table's type.
    pub fn row(&self, values: &[Option<Datum>]) -> Datum {
        self.row_type.row(values)
    }
}

/// Whether the values of a column were masked in an entry.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    Masked,
    Unmasked,
    /// It is in an entry of which that is not known.
    Unknown,
}

fn origin(lineage: &Lineage, position: Position, name: &str) -> Origin {
    match lineage.options_at(position) {
        Some(options) if options.mask_columns.iter().any(|column| column == name) => Origin::Masked,
        Some(_) => Origin::Unmasked,
        None => Origin::Unknown,
    }
}

/// What an image says of a column, which may have a type of JSON documents.
pub fn recorded(value: &str, is_json: bool) -> Recorded<'_> {
    match image::read(value) {
        // A document may look like what stands for a value.
        Recorded::Masked | Recorded::TooLarge { .. } | Recorded::Bytes(_) if is_json && !is_marker(value) => {
            Recorded::Text(Cow::Borrowed(value))
        }
        recorded => recorded,
    }
}

/// Whether the JSON is written as capture writes what stands for a value: without white space, which jsonb
/// never is.
fn is_marker(value: &str) -> bool {
    !value.contains(": ")
}

/// Whether a column, by its name then, was excluded from entries.
pub fn is_excluded(lineage: &Lineage, position: Position, name: &str) -> bool {
    lineage
        .options_at(position)
        .is_some_and(|options| options.exclude_columns.iter().any(|column| column == name))
}
