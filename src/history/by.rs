//! `audit_by()`: all that somebody did: an application's user, or a role.
//!
//! A sealed segment has indexes on who and when; a very long actor is not in them. In others the entries of
//! the time are found along each chain; without a time, the segment is read.

use crate::error::{Error, OrRaise};
use crate::extension::Extension;
use crate::history::segments::{Segment, of_time};
use crate::history::{entry, require_reader};
use crate::log::columns::{self, Fields};
use crate::log::segment::Segments;
use crate::log::stored::StoredRow;
use crate::pg::fmgr::Call;
use crate::pg::index::{Bound, Direction, Is, OrderedIndex, Value};
use crate::pg::rows::ResultRows;
use crate::pg::scan::{for_each_in_range, for_each_stored_row, with_relation};
use crate::pg::text::to_server;
use crate::segment::indexes::{HistoryIndex, LONGEST_ACTOR};
use pgrx::pg_sys::{Datum, Oid};
use std::ops::ControlFlow;

const NAME: &str = "audit_by";

/// The columns of the result by which it is sorted: at, chain, seq.
const ORDER: [i16; 3] = [1, 12, 13];

/// `audit_by(who text, since timestamptz, until timestamptz)`, which returns rows
pub fn by(call: Call) -> Datum {
    entries(&call).or_raise()
}

fn entries(call: &Call) -> Result<Datum, Error> {
    let who = call.text(0).ok_or(Error::NullArgument { function: NAME, argument: "who" })?;
    // In microseconds since 2000-01-01 UTC; infinity is an end of the range.
    let time = |index| call.datum(index).map(|at| at.value() as i64);
    let (since, until) = (time(1).unwrap_or(i64::MIN), time(2).unwrap_or(i64::MAX));
    let extension = Extension::installed()?;
    require_reader(&extension, NAME)?;
    let who = to_server(&who);
    let search = Search { who: &who, since, until };
    let mut rows = ResultRows::sorted(call, &ORDER);
    let mut shown = entry::ShownTable::default();
    for number in of_time(&Segments::read(&extension)?, since, until) {
        if let Some(segment) = Segment::lock(&extension, number)? {
            search.visit(&segment, |row| {
                let mut columns = entry::columns(row, &mut shown).to_vec();
                columns.push(Some(Datum::from(row.xid)));
                rows.add(&columns);
            });
        }
    }
    Ok(rows.finish(call))
}

/// Who, and when: from `since` on, and before `until`.
struct Search<'a> {
    who: &'a [u8],
    since: i64,
    until: i64,
}

impl Search<'_> {
    /// Calls `visit` with each entry of a segment, in any order.
    fn visit(&self, segment: &Segment, mut visit: impl FnMut(&StoredRow<'_>)) {
        let indexes = [HistoryIndex::Actor, HistoryIndex::SessionRole, HistoryIndex::EffectiveRole]
            .map(|index| segment.index(index));
        if let [Some(actor), Some(session), Some(effective)] = indexes
            && self.who.len() <= LONGEST_ACTOR
        {
            return self.visit_indexed(segment.table, [actor, session, effective], visit);
        }
        if (self.since, self.until) == (i64::MIN, i64::MAX) {
            with_relation(segment.table, |relation| {
                for_each_stored_row(relation, |row| {
                    if self.is_about(row) {
                        visit(&columns::read(row));
                    }
                })
            });
            return;
        }
        let mut chains = segment.chains();
        for (chain, newest) in chains.newest() {
            if newest.at < self.since {
                continue;
            }
            let first = chains.first(chain, newest.seq, |entry| entry.at >= self.since);
            let end = match newest.at < self.until {
                true => newest.seq + 1,
                false => chains.first(chain, newest.seq, |entry| entry.at >= self.until),
            };
            for_each_in_range(segment.table, chain, first..=end - 1, |row| {
                if self.is_about(&row) {
                    visit(&columns::read(&row));
                }
            });
        }
    }

    /// Whether an entry is by whom is searched for, at any time.
    fn is_about<'r>(&self, row: &impl Fields<'r>) -> bool {
        let columns = [columns::ACTOR, columns::SESSION_ROLE, columns::EFFECTIVE_ROLE];
        columns.into_iter().any(|column| row.bytes(column as usize - 1) == Some(self.who))
    }

    /// Each entry is found by the first of the indexes that has it.
    fn visit_indexed(&self, table: Oid, indexes: [Oid; 3], mut visit: impl FnMut(&StoredRow<'_>)) {
        let bounds = [
            Bound::new(1, Is::Equal, Value::Text(self.who)),
            Bound::new(2, Is::AtLeast, Value::Time(self.since)),
            Bound::new(2, Is::Less, Value::Time(self.until)),
        ];
        // An entry at the end of time is none.
        let bounds = if self.until == i64::MAX { &bounds[..2] } else { &bounds[..] };
        for (at, index) in indexes.into_iter().enumerate() {
            OrderedIndex::open(table, index).visit(bounds, Direction::Forward, |row| {
                let row = columns::read(&row);
                if ![row.actor, row.session_role][..at].contains(&Some(self.who)) {
                    visit(&row);
                }
                ControlFlow::Continue(())
            });
        }
    }
}
