//! The event that fired a trigger function (`src/include/commands/trigger.h`).

use super::fmgr::Call;
use super::row::{Relation, Row};
use super::successor;
use pgrx::pg_sys;
use std::ffi::CStr;

/// Whether AFTER triggers of a table still have to fire for what this transaction has done.
pub fn waits_for(table: pg_sys::Oid) -> bool {
    // SAFETY: looks through this process's queue of events.
    unsafe { pg_sys::AfterTriggerPendingOnRel(table) }
}

/// The event that a trigger function was called for.
pub enum Firing<'a> {
    /// AFTER ROW INSERT.
    Insert { new: Row<'a> },
    /// AFTER ROW UPDATE.
    Update { old: Row<'a>, new: Row<'a> },
    /// AFTER ROW DELETE.
    Delete { old: Row<'a> },
    /// AFTER STATEMENT TRUNCATE.
    Truncate,
    /// AFTER STATEMENT of any other operation.
    Statement,
    /// BEFORE, at any level.
    Before,
}

/// The trigger that fired. Valid during the call.
#[derive(Clone, Copy)]
pub struct Trigger<'a> {
    data: &'a pg_sys::TriggerData,
}

impl<'a> Trigger<'a> {
    /// The trigger that the call is for; `None` if the function was called in another way.
    pub fn of(call: &'a Call) -> Option<Self> {
        // SAFETY: `context` is null or a node; a TriggerData is recognised by its tag (CALLED_AS_TRIGGER).
        unsafe {
            let context = (*call.raw()).context;
            (!context.is_null() && (*context).type_ == pg_sys::NodeTag::T_TriggerData)
                .then(|| Self { data: &*context.cast() })
        }
    }

    /// The table.
    pub fn relation(self) -> Relation<'a> {
        // SAFETY: open while its triggers run.
        unsafe { Relation::new(self.data.tg_relation) }
    }

    /// The arguments given in CREATE TRIGGER.
    pub fn arguments(self) -> Vec<&'a [u8]> {
        // SAFETY: tg_trigger is valid; tgargs has tgnargs C strings.
        unsafe {
            let trigger = &*self.data.tg_trigger;
            (0..trigger.tgnargs as usize).map(|i| CStr::from_ptr(*trigger.tgargs.add(i)).to_bytes()).collect()
        }
    }

    /// Whether it fires for each row.
    pub fn is_for_row(self) -> bool {
        self.data.tg_event & pg_sys::TRIGGER_EVENT_ROW != 0
    }

    /// `INSERT`, `UPDATE`, `DELETE` or `TRUNCATE`.
    pub fn operation(self) -> &'static str {
        match self.data.tg_event & pg_sys::TRIGGER_EVENT_OPMASK {
            pg_sys::TRIGGER_EVENT_INSERT => "INSERT",
            pg_sys::TRIGGER_EVENT_UPDATE => "UPDATE",
            pg_sys::TRIGGER_EVENT_DELETE => "DELETE",
            _ => "TRUNCATE",
        }
    }

    /// The event, with its rows.
    pub fn firing(self) -> Firing<'a> {
        let event = self.data.tg_event;
        if event & pg_sys::TRIGGER_EVENT_TIMINGMASK != pg_sys::TRIGGER_EVENT_AFTER {
            return Firing::Before;
        }
        let operation = event & pg_sys::TRIGGER_EVENT_OPMASK;
        if event & pg_sys::TRIGGER_EVENT_ROW == 0 {
            return if operation == pg_sys::TRIGGER_EVENT_TRUNCATE {
                Firing::Truncate
            } else {
                Firing::Statement
            };
        }
        // SAFETY: for a row trigger tg_trigslot is filled, and tg_newslot too for an UPDATE, during the call.
        unsafe {
            let row = Row::new(self.data.tg_trigslot);
            match operation {
                pg_sys::TRIGGER_EVENT_INSERT => Firing::Insert { new: row },
                pg_sys::TRIGGER_EVENT_DELETE => Firing::Delete { old: row },
                _ => Firing::Update { old: row, new: Row::new(self.data.tg_newslot) },
            }
        }
    }

    /// Whether the row version that an AFTER ROW trigger for INSERT or UPDATE is about has been updated or
    /// deleted by its own transaction since, so that another one has replaced it, or none. Rows that are not
    /// stored in a heap: not known, so false.
    pub fn is_superseded(self) -> bool {
        let slot = match self.data.tg_event & pg_sys::TRIGGER_EVENT_OPMASK {
            pg_sys::TRIGGER_EVENT_INSERT => self.data.tg_trigslot,
            pg_sys::TRIGGER_EVENT_UPDATE => self.data.tg_newslot,
            _ => return false,
        };
        // SAFETY: a filled slot, as in `firing`. The version is uncommitted: nobody else can lock or change
        // it.
        unsafe { successor::is_of_heap(slot) && successor::has_own(slot) }
    }

    /// Whether a command may have run since an UPDATE or DELETE that an AFTER ROW trigger is about, so that
    /// another row may have got the key of the old one. Rows that are not stored in a heap: not known, so
    /// false.
    pub fn is_late(self) -> bool {
        // SAFETY: as above. The old version was replaced by this transaction, for which others wait.
        unsafe { successor::is_of_heap(self.data.tg_trigslot) && successor::is_late(self.data.tg_trigslot) }
    }

    /// Whether a row has the primary key of the old row of an UPDATE or DELETE now, as this transaction sees
    /// it, and `is_same` says so too, who is given that row: equal values may be written in different ways.
    /// Rows that are not stored in a heap: not known, so false.
    pub fn old_key_is_in_use(self, is_same: impl FnOnce(&Row<'_>) -> bool) -> bool {
        // SAFETY: as above; the table is open and locked while its triggers run.
        unsafe {
            successor::is_of_heap(self.data.tg_trigslot)
                && successor::has_key_of(self.data.tg_relation, self.data.tg_trigslot, |slot| {
                    is_same(&Row::new(slot))
                })
        }
    }

    /// The row of a BEFORE ROW trigger, unpacked.
    pub fn row(self) -> Row<'a> {
        // SAFETY: as above.
        unsafe { Row::new(self.data.tg_trigslot) }
    }

    /// The result of a BEFORE trigger that lets the change pass as it is. An AFTER trigger's result is
    /// ignored.
    pub fn pass(self) -> pg_sys::Datum {
        let event = self.data.tg_event;
        if event & pg_sys::TRIGGER_EVENT_ROW == 0 {
            pg_sys::Datum::null()
        } else if event & pg_sys::TRIGGER_EVENT_OPMASK == pg_sys::TRIGGER_EVENT_UPDATE {
            pg_sys::Datum::from(self.data.tg_newtuple)
        } else {
            pg_sys::Datum::from(self.data.tg_trigtuple)
        }
    }

    /// The result of a BEFORE ROW trigger that leaves the row out.
    pub fn skip(self) -> pg_sys::Datum {
        pg_sys::Datum::null()
    }
}
