//! Intervals (`src/include/datatype/timestamp.h`).

use super::session::OutputSettings;
use pgrx::pg_sys::{self, Datum, Oid};
use pgrx::{FromDatum, IntoDatum};
use std::ffi::CStr;

/// An interval, whose three parts PostgreSQL adds to a time one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    pub months: i32,
    pub days: i32,
    pub microseconds: i64,
}

impl Interval {
    /// The interval as text, which does not depend on the session's settings and which PostgreSQL reads with
    /// any.
    pub fn text(self) -> String {
        let _settings = OutputSettings::enter(false);
        let mut interval = self.raw();
        // SAFETY: an interval, which interval_out reads; it returns a palloc'd C string of ASCII.
        unsafe {
            let text = pgrx::direct_function_call::<&CStr>(
                pg_sys::interval_out,
                &[Some(Datum::from(&raw mut interval))],
            );
            text.expect("interval_out returns no null").to_string_lossy().into_owned()
        }
    }

    fn raw(self) -> pg_sys::Interval {
        pg_sys::Interval { time: self.microseconds, day: self.days, month: self.months }
    }
}

impl FromDatum for Interval {
    unsafe fn from_polymorphic_datum(datum: Datum, is_null: bool, _: Oid) -> Option<Self> {
        // SAFETY: by the trait's contract an interval, which is passed by reference.
        (!is_null).then(|| unsafe {
            let interval = &*datum.cast_mut_ptr::<pg_sys::Interval>();
            Self { months: interval.month, days: interval.day, microseconds: interval.time }
        })
    }
}

impl IntoDatum for Interval {
    fn into_datum(self) -> Option<Datum> {
        // SAFETY: palloc'd memory of the type's size, which is filled.
        unsafe {
            let copy: *mut pg_sys::Interval = pg_sys::palloc(std::mem::size_of::<pg_sys::Interval>()).cast();
            copy.write(self.raw());
            Some(Datum::from(copy))
        }
    }

    fn type_oid() -> Oid {
        pg_sys::INTERVALOID
    }
}
