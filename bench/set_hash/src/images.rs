//! The images of a table's rows, by capture's `Writer`, as `src/capture/audited_table.rs` makes them; and the
//! whole old row, which capture does not make.

use crate::pg::catalog;
use crate::pg::output::{Context, Writer, write_string};
use crate::pg::row::{Attribute, Relation, Row};
use crate::pg::varlena::Comparison;
use std::ops::Range;

struct Column {
    index: usize,
    key: Vec<u8>,
    attribute: Attribute,
    writer: Writer,
}

/// A table whose rows become images.
pub struct Images {
    /// What every image begins with, so that rows of different tables differ.
    name: Vec<u8>,
    columns: Vec<Column>,
    key: Vec<usize>,
    _context: Context,
}

/// Where a column's text is after [`Images::write_change`].
#[derive(Clone)]
enum Written {
    /// In the new row, and the same in the old one.
    Both(Range<usize>),
    /// In the old row and in the new one.
    Each(Range<usize>, Range<usize>),
    /// Nowhere: out of line, and not changed.
    Nowhere,
}

/// The images of one change, in buffers that are reused.
#[derive(Default)]
pub struct Buffers {
    pub old: Vec<u8>,
    pub new: Vec<u8>,
    written: Vec<Written>,
    whole_old: Vec<u8>,
    whole_new: Vec<u8>,
    value: Vec<u8>,
}

impl Images {
    pub fn new(table: Relation<'_>) -> Self {
        let context = Context::new();
        let columns: Vec<Column> = table
            .attributes()
            .into_iter()
            .enumerate()
            .filter(|(_, attribute)| attribute.stored)
            .map(|(index, attribute)| {
                let mut key = Vec::new();
                write_string(&attribute.name, &mut key);
                key.push(b':');
                let writer = Writer::new(&attribute, &context);
                Column { index, key, attribute, writer }
            })
            .collect();
        let key = catalog::primary_key(table)
            .0
            .into_iter()
            .filter_map(|number| columns.iter().position(|c| c.index + 1 == number))
            .collect();
        let mut name = catalog::namespace_name(table.namespace()).unwrap_or_default();
        name.push(0);
        name.extend_from_slice(table.name());
        Self { name, columns, key, _context: context }
    }

    /// The whole row.
    pub fn write_row(&mut self, row: &Row<'_>, out: &mut Vec<u8>) {
        self.begin(out);
        for column in &mut self.columns {
            separate(out);
            out.extend_from_slice(&column.key);
            column.writer.write(row.value(column.index), usize::MAX, out);
        }
        out.push(b'}');
    }

    /// Calls `visit` with the image of each of the row's values: the table, the row's key, the column, the
    /// value.
    pub fn for_each_cell(&mut self, row: &Row<'_>, buffers: &mut Buffers, mut visit: impl FnMut(&[u8])) {
        let Buffers { new: cell, value: key, .. } = buffers;
        self.write_key(row, key);
        for column in &mut self.columns {
            begin_cell(&self.name, key, cell);
            cell.extend_from_slice(&column.key);
            column.writer.write(row.value(column.index), usize::MAX, cell);
            visit(cell);
        }
    }

    /// Calls `visit` with the images of the values that [`Self::write_change`] found changed: the old one
    /// with false, the new one with true.
    pub fn for_each_changed_cell(
        &self,
        key: &[u8],
        buffers: &mut Buffers,
        mut visit: impl FnMut(&[u8], bool),
    ) {
        let Buffers { old, new, written, value: cell, .. } = buffers;
        for written in written {
            let Written::Each(before, after) = written else { continue };
            for (member, is_new) in [(&old[before.clone()], false), (&new[after.clone()], true)] {
                begin_cell(&self.name, key, cell);
                cell.extend_from_slice(member);
                visit(cell, is_new);
            }
        }
    }

    /// The key's columns.
    pub fn write_key(&mut self, row: &Row<'_>, out: &mut Vec<u8>) {
        out.clear();
        out.push(b'{');
        for &position in &self.key {
            let column = &mut self.columns[position];
            separate(out);
            out.extend_from_slice(&column.key);
            column.writer.write(row.value(column.index), usize::MAX, out);
        }
        out.push(b'}');
    }

    /// What capture makes of an UPDATE: the new row without the out-of-line values that did not change, and
    /// the old values of the columns that did.
    pub fn write_change(&mut self, old: &Row<'_>, new: &Row<'_>, buffers: &mut Buffers) {
        let Buffers { old: old_out, new: new_out, written, .. } = buffers;
        self.begin(old_out);
        self.begin(new_out);
        written.clear();
        for column in &mut self.columns {
            let (before, after) = (old.value(column.index), new.value(column.index));
            let mut member = |row: &Row<'_>, out: &mut Vec<u8>| {
                separate(out);
                let start = out.len();
                out.extend_from_slice(&column.key);
                column.writer.write(row.value(column.index), usize::MAX, out);
                start..out.len()
            };
            written.push(match column.attribute.compare(before, after) {
                Comparison::UnchangedOutOfLine => Written::Nowhere,
                Comparison::Unchanged => Written::Both(member(new, new_out)),
                Comparison::Changed => Written::Each(member(old, old_out), member(new, new_out)),
            });
        }
        old_out.push(b'}');
        new_out.push(b'}');
    }

    /// The whole old and the whole new row, of what [`Self::write_change`] wrote. No value is written a
    /// second time; an out-of-line value that did not change is fetched once.
    pub fn write_whole<'a>(&mut self, new: &Row<'_>, buffers: &'a mut Buffers) -> (&'a [u8], &'a [u8]) {
        let Buffers { old: old_out, new: new_out, written, whole_old, whole_new, value } = buffers;
        self.begin(whole_old);
        let is_whole = !written.iter().any(|written| matches!(written, Written::Nowhere));
        if !is_whole {
            self.begin(whole_new);
        }
        for (column, written) in self.columns.iter_mut().zip(written) {
            let (before, after) = match written {
                Written::Both(range) => (&new_out[range.clone()], &new_out[range.clone()]),
                Written::Each(before, after) => (&old_out[before.clone()], &new_out[after.clone()]),
                Written::Nowhere => {
                    value.clear();
                    value.extend_from_slice(&column.key);
                    column.writer.write(new.value(column.index), usize::MAX, value);
                    (&value[..], &value[..])
                }
            };
            separate(whole_old);
            whole_old.extend_from_slice(before);
            if !is_whole {
                separate(whole_new);
                whole_new.extend_from_slice(after);
            }
        }
        whole_old.push(b'}');
        if is_whole {
            return (whole_old, new_out);
        }
        whole_new.push(b'}');
        (whole_old, whole_new)
    }

    fn begin(&self, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(&self.name);
        out.push(b'{');
    }
}

/// Begins the image of a value.
fn begin_cell(table: &[u8], key: &[u8], out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(table);
    out.extend_from_slice(key);
}

fn separate(out: &mut Vec<u8>) {
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
}
