//! What capture knows of an audited table: worked out once, and remembered until the table changes.

use crate::capture::options::{Auditing, Options};
use crate::error::Error;
use crate::log::buffer::TextBuffer;
use crate::pg::encoding::{storable, to_utf8};
use crate::pg::output::{Context, Writer, write_string};
use crate::pg::row::{Attribute, Relation, Row};
use crate::pg::text::from_server;
use crate::pg::trigger::Trigger;
use crate::pg::varlena::Comparison;
use crate::pg::{catalog, relation};
use crate::settings;
use pgrx::pg_sys::Oid;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

/// What is recorded in place of a masked column's value.
const MASKED: &[u8] = b"{\"masked\":true}";

/// A recorded column.
struct Column {
    /// Its position in the row, from 0.
    index: usize,
    /// `"name":`, ready to be written.
    key: Vec<u8>,
    attribute: Attribute,
    masked: bool,
    writer: RefCell<Writer>,
}

/// An audited table, as capture sees it.
pub struct AuditedTable {
    /// The schema's name.
    pub schema: Vec<u8>,
    /// The table's name.
    pub name: Vec<u8>,
    /// `{"partition_of": …}` for a partition.
    pub detail: Option<Vec<u8>>,
    /// Whether an UPDATE that changed nothing recorded makes no entry.
    pub skip_unchanged: bool,
    /// Whether some column's text may depend on `search_path` or `lc_monetary`.
    pub depends_on_settings: bool,
    root: Option<Oid>,
    columns: Vec<Column>,
    /// The primary key's columns, as positions in `columns`.
    key: Vec<usize>,
    /// Whether entries say which row they are about: there is a primary key, recorded as a whole.
    names_rows: bool,
    /// Whether two rows may have one key until the transaction ends.
    pub has_deferrable_key: bool,
    // The last field, because the columns' writers keep memory in it.
    _context: Context,
}

impl AuditedTable {
    fn of_trigger(trigger: Trigger<'_>) -> Result<Self, Error> {
        let relation = trigger.relation();
        let auditing = Auditing::from_arguments(&trigger.arguments())
            .map_err(|reason| Error::BadOptions { table: from_server(relation.name()), reason })?;
        Self::new(relation, &auditing.options)
    }

    /// The table, recorded with these options.
    pub fn new(table: Relation<'_>, options: &Options) -> Result<Self, Error> {
        let name = from_server(table.name());
        let attributes = table.attributes();
        let find = |column: &str| {
            attributes
                .iter()
                .find(|a| *to_utf8(&a.name) == *column.as_bytes())
                .ok_or_else(|| Error::OptionColumnGone { table: name.clone(), column: column.to_owned() })
        };
        // Fail closed: a column that must not be recorded and is not found may be there under another name.
        for column in options.exclude_columns.iter().chain(&options.mask_columns) {
            find(column)?;
        }
        let named = |list: &[String], a: &Attribute| {
            list.iter().any(|column| *column.as_bytes() == *to_utf8(&a.name))
        };

        let context = Context::new();
        let columns: Vec<Column> = attributes
            .into_iter()
            .enumerate()
            .filter(|(_, a)| a.stored && !named(&options.exclude_columns, a))
            .map(|(index, attribute)| {
                let mut key = Vec::with_capacity(attribute.name.len() + 3);
                write_string(&storable(&attribute.name), &mut key);
                key.push(b':');
                let writer = RefCell::new(Writer::new(&attribute, &context));
                Column { index, key, masked: named(&options.mask_columns, &attribute), attribute, writer }
            })
            .collect();
        let (key, has_deferrable_key) = catalog::primary_key(table);
        let parts = key.len();
        let key: Vec<usize> =
            key.into_iter().filter_map(|number| columns.iter().position(|c| c.index + 1 == number)).collect();
        let is_whole = key.len() == parts && !key.iter().any(|&column| columns[column].masked);
        let root = if table.is_partition() { relation::partition_root(table.oid()) } else { None };
        Ok(Self {
            schema: storable(&catalog::namespace_name(table.namespace()).unwrap_or_default()).into_owned(),
            name: storable(table.name()).into_owned(),
            detail: root.and_then(|root| {
                let (schema, table) = catalog::qualified_name(root)?;
                let mut detail = b"{\"partition_of\":".to_vec();
                write_string(&storable(&[&schema[..], b".", &table].concat()), &mut detail);
                detail.push(b'}');
                Some(detail)
            }),
            skip_unchanged: options.skip_unchanged,
            depends_on_settings: columns.iter().any(|c| c.writer.borrow().depends_on_settings()),
            root,
            columns,
            names_rows: is_whole && !key.is_empty(),
            key,
            has_deferrable_key,
            _context: context,
        })
    }

    /// Appends the whole row as a JSON object.
    pub fn write_row(&self, row: &Row<'_>, out: &mut Vec<u8>) {
        let mut object = Object::begin(out);
        for column in &self.columns {
            object.member(column, row);
        }
        object.end();
    }

    /// Sets the key to the primary key's columns as a JSON object; leaves it where the table has no primary
    /// key.
    pub fn write_key(&self, row: &Row<'_>, key: &mut TextBuffer) {
        if self.key.is_empty() {
            return;
        }
        let mut object = Object::begin(key.begin());
        for &column in &self.key {
            object.member(&self.columns[column], row);
        }
        object.end();
    }

    /// Whether both rows have one key, as it is recorded.
    pub fn has_same_key(&self, row: &Row<'_>, other: &Row<'_>) -> bool {
        let mut keys = [TextBuffer::default(), TextBuffer::default()];
        for (key, row) in keys.iter_mut().zip([row, other]) {
            self.write_key(row, key);
        }
        keys[0].get() == keys[1].get()
    }

    /// Whether an UPDATE has changed the key, as far as it is recorded.
    pub fn changes_key(&self, old: &Row<'_>, new: &Row<'_>) -> bool {
        self.key.iter().any(|&column| {
            let Column { index, attribute, .. } = &self.columns[column];
            attribute.compare(old.value(*index), new.value(*index)) == Comparison::Changed
        })
    }

    /// Appends the new row and the old values of the columns that the change has changed. The new row is
    /// without the out-of-line values that the change left as they are, unless they may be all that tells the
    /// row from others. Returns whether it changed any recorded column.
    pub fn write_change(
        &self,
        old: &Row<'_>,
        new: &Row<'_>,
        old_out: &mut Vec<u8>,
        new_out: &mut Vec<u8>,
    ) -> bool {
        let mut changed = false;
        let (mut old_object, mut new_object) = (Object::begin(old_out), Object::begin(new_out));
        for column in &self.columns {
            match column.attribute.compare(old.value(column.index), new.value(column.index)) {
                Comparison::UnchangedOutOfLine if self.names_rows => continue,
                Comparison::UnchangedOutOfLine | Comparison::Unchanged => {}
                Comparison::Changed => {
                    changed = true;
                    old_object.member(column, old);
                }
            }
            new_object.member(column, new);
        }
        old_object.end();
        new_object.end();
        changed
    }
}

/// A JSON object under construction.
struct Object<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    max_value_size: usize,
}

impl<'a> Object<'a> {
    fn begin(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        let start = out.len();
        Self { out, start, max_value_size: settings::max_value_size().unwrap_or(usize::MAX) }
    }

    fn member(&mut self, column: &Column, row: &Row<'_>) {
        if self.out.len() > self.start {
            self.out.push(b',');
        }
        self.out.extend_from_slice(&column.key);
        if column.masked {
            self.out.extend_from_slice(MASKED);
        } else {
            column.writer.borrow_mut().write(row.value(column.index), self.max_value_size, self.out);
        }
    }

    fn end(self) {
        self.out.push(b'}');
    }
}

thread_local! {
    static TABLES: RefCell<HashMap<Oid, Rc<AuditedTable>>> = RefCell::default();
    /// Set where a table changed while the map was in use: everything is forgotten at the next use.
    static STALE: Cell<bool> = const { Cell::new(false) };
}

/// The table that the trigger is on.
pub fn of(trigger: Trigger<'_>) -> Result<Rc<AuditedTable>, Error> {
    let oid = trigger.relation().oid();
    if STALE.take() {
        TABLES.take();
    }
    if let Some(table) = TABLES.with_borrow(|tables| tables.get(&oid).cloned()) {
        return Ok(table);
    }
    // Nothing is borrowed here: the look-ups may process invalidations, which call `forget`.
    let table = Rc::new(AuditedTable::of_trigger(trigger)?);
    TABLES.with_borrow_mut(|tables| tables.insert(oid, table.clone()));
    Ok(table)
}

/// Forgets what is known of the relation; of all relations, for `None`.
pub fn forget(relation: Option<Oid>) {
    TABLES.with(|tables| match (tables.try_borrow_mut(), relation) {
        (Ok(mut tables), Some(oid)) => tables.retain(|&known, table| known != oid && table.root != Some(oid)),
        (Ok(mut tables), None) => tables.clear(),
        (Err(_), _) => STALE.set(true),
    });
}
