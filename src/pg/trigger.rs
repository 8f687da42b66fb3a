//! The event that fired a trigger function (`src/include/commands/trigger.h`).

use super::fmgr::Call;
use super::row::{Relation, Row};
use pgrx::pg_sys;
use std::ffi::CStr;

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

    /// Whether the row version that an AFTER ROW trigger for INSERT or UPDATE is about has been updated or deleted by its own
    /// transaction since, so that another one has replaced it, or none. Rows that are not stored in a heap: not known, so false.
    ///
    /// Such a version is uncommitted: nobody else can lock or change it meanwhile.
    pub fn is_superseded(self) -> bool {
        let slot = match self.data.tg_event & pg_sys::TRIGGER_EVENT_OPMASK {
            pg_sys::TRIGGER_EVENT_INSERT => self.data.tg_trigslot,
            pg_sys::TRIGGER_EVENT_UPDATE => self.data.tg_newslot,
            _ => return false,
        };
        // SAFETY: a filled slot, as in `firing`. One of a heap has the tuple as it lies in the buffer, which the slot pins.
        unsafe {
            if !std::ptr::eq((*slot).tts_ops, &raw const pg_sys::TTSOpsBufferHeapTuple) {
                return false;
            }
            let tuple = (*slot.cast::<pg_sys::HeapTupleTableSlot>()).tuple;
            !tuple.is_null() && has_own_successor((*tuple).t_data)
        }
    }

    /// The row of a BEFORE ROW trigger, unpacked.
    pub fn row(self) -> Row<'a> {
        // SAFETY: as above.
        unsafe { Row::new(self.data.tg_trigslot) }
    }

    /// The result of a BEFORE trigger that lets the change pass as it is. An AFTER trigger's result is ignored.
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

/// Whether the current transaction has updated or deleted a tuple, and has not undone that (`src/include/access/htup_details.h`).
///
/// # Safety
/// The header of a tuple that nobody else changes meanwhile.
unsafe fn has_own_successor(header: pg_sys::HeapTupleHeader) -> bool {
    // SAFETY: by the contract; a tuple that is stored has a transaction's ID there, or a multixact's.
    unsafe {
        let bits = u32::from((*header).t_infomask);
        let (multi, exclusive) = (pg_sys::HEAP_XMAX_IS_MULTI, pg_sys::HEAP_XMAX_EXCL_LOCK);
        // Locked only (HEAP_XMAX_IS_LOCKED_ONLY), as foreign keys do.
        if bits & (pg_sys::HEAP_XMAX_INVALID | pg_sys::HEAP_XMAX_LOCK_ONLY) != 0
            || bits & (multi | pg_sys::HEAP_LOCK_MASK) == exclusive
        {
            return false;
        }
        let xmax = if bits & multi != 0 {
            pg_sys::HeapTupleGetUpdateXid(header)
        } else {
            (*header).t_choice.t_heap.t_xmax
        };
        // Not that of a savepoint that was rolled back.
        pg_sys::TransactionIdIsCurrentTransactionId(xmax)
    }
}
