//! Functions of PostgreSQL that never raise an error, called directly. pgrx guards each call with a `setjmp`,
//! which costs more than these functions do, and capture calls them for each row.

use pgrx::pg_sys::{Oid, Timestamp, TimestampTz, fsec_t, pg_tm, pg_tz};
use std::ffi::{c_char, c_int};

unsafe extern "C" {
    // src/backend/utils/init/miscinit.c
    pub safe fn GetUserId() -> Oid;
    pub safe fn GetSessionUserId() -> Oid;
    // src/backend/utils/mb/mbutils.c
    pub safe fn GetDatabaseEncoding() -> c_int;
    // src/backend/access/transam/xact.c
    pub safe fn GetCurrentTransactionNestLevel() -> c_int;
    // src/backend/utils/adt/timestamp.c
    pub safe fn GetCurrentTimestamp() -> TimestampTz;
    pub fn timestamp2tm(
        value: Timestamp,
        offset: *mut c_int,
        parts: *mut pg_tm,
        microseconds: *mut fsec_t,
        zone_name: *mut *const c_char,
        zone: *mut pg_tz,
    ) -> c_int;
    // src/backend/utils/adt/datetime.c
    pub fn EncodeDateTime(
        parts: *mut pg_tm,
        microseconds: fsec_t,
        print_zone: bool,
        offset: c_int,
        zone_name: *const c_char,
        style: c_int,
        text: *mut c_char,
    );
}
