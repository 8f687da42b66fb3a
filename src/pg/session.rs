//! The session: its roles, the settings that capture reads, and the settings that must not affect what is
//! recorded.

use super::{compat, unguarded};
use pgrx::pg_sys;
use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int};

unsafe extern "C" {
    // src/backend/utils/adt/varlena.c
    static mut bytea_output: c_int;
}

/// The role that logged in, or that SET SESSION AUTHORIZATION chose.
pub fn session_role() -> pg_sys::Oid {
    unguarded::GetSessionUserId()
}

/// The role that the statement runs as.
pub fn effective_role() -> pg_sys::Oid {
    unguarded::GetUserId()
}

/// The session's `application_name`; `None` if it is empty.
pub fn application_name<'a>() -> Option<&'a [u8]> {
    // SAFETY: null or a C string, replaced only when the setting changes.
    unsafe { c_bytes(pg_sys::application_name) }.filter(|name| !name.is_empty())
}

/// The value of any setting; `None` if it is empty or not set.
pub fn setting<'a>(name: &[u8]) -> Option<&'a [u8]> {
    let name = std::ffi::CString::new(name).ok()?;
    // SAFETY: a look-up; the value lives until the setting changes.
    unsafe { c_bytes(pg_sys::GetConfigOption(name.as_ptr(), true, false)) }.filter(|value| !value.is_empty())
}

/// Whether event triggers fire. They do not in single-user mode, nor with `event_triggers = off` (PostgreSQL
/// 17 and later).
pub fn event_triggers_fire() -> bool {
    // SAFETY: flags of this process.
    unsafe { pg_sys::IsUnderPostmaster && compat::event_triggers() }
}

/// Whether DDL may change the system catalogs themselves (`allow_system_table_mods`).
pub fn may_alter_catalogs() -> bool {
    // SAFETY: a flag of this process.
    unsafe { pg_sys::allowSystemTableMods }
}

/// The query that the client sent.
pub fn client_query<'a>() -> Option<&'a [u8]> {
    // SAFETY: null or a C string that lives until the query ends.
    unsafe { c_bytes(pg_sys::debug_query_string) }
}

unsafe fn c_bytes<'a>(text: *const c_char) -> Option<&'a [u8]> {
    // SAFETY: null or a C string, by the callers.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_bytes())
}

/// Fills `bytes` with strong random bytes.
pub fn random(bytes: &mut [u8]) {
    // SAFETY: writes exactly `len` bytes.
    let filled = unsafe { pg_sys::pg_strong_random(bytes.as_mut_ptr().cast(), bytes.len()) };
    assert!(filled, "the operating system has no random bytes");
}

/// Settings that are changed until the value is dropped, as a function's SET clause does.
pub struct LocalSettings(c_int);

impl LocalSettings {
    /// Changes the settings.
    pub fn enter(settings: &[(&CStr, &CStr)]) -> Self {
        // SAFETY: C strings; the nest level is ended in `drop`, or by the transaction's abort.
        unsafe {
            let level = pg_sys::NewGUCNestLevel();
            for (name, value) in settings {
                pg_sys::set_config_option(
                    name.as_ptr(),
                    value.as_ptr(),
                    pg_sys::GucContext::PGC_USERSET,
                    pg_sys::GucSource::PGC_S_SESSION,
                    pg_sys::GucAction::GUC_ACTION_SAVE,
                    true,
                    0,
                    false,
                );
            }
            Self(level)
        }
    }

    /// Sets a search path in which nobody can shadow an operator or a function.
    pub fn safe_search_path() -> Self {
        Self::enter(&[(c"search_path", c"pg_catalog, pg_temp")])
    }
}

/// The schemas of the search path that exist and that the current role may use, `pg_catalog` and that of
/// temporary objects included where they are searched.
pub fn search_path() -> Vec<pg_sys::Oid> {
    // SAFETY: within a transaction; a list of OIDs, palloc'd.
    unsafe { pgrx::PgList::<std::ffi::c_void>::from_pg(pg_sys::fetch_search_path(true)).iter_oid().collect() }
}

impl Drop for LocalSettings {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: the level that `enter` began; in an error PostgreSQL's abort ends it.
            unsafe { pg_sys::AtEOXact_GUC(true, self.0) };
        }
    }
}

/// While it lives, a type's output does not depend on the session: the same row always has the same bytes.
///
/// The variables behind the settings are set directly, because `set_config_option` would cost microseconds
/// for each row. `search_path` and `lc_monetary` have further state, and are set properly, for types that
/// depend on them only.
pub struct OutputSettings {
    date_style: c_int,
    date_order: c_int,
    interval_style: c_int,
    float_digits: c_int,
    bytea: c_int,
    timezone: *mut pg_sys::pg_tz,
    _local: Option<LocalSettings>,
}

/// `BYTEA_OUTPUT_HEX` of `src/include/utils/bytea.h`.
const BYTEA_HEX: c_int = 1;

impl OutputSettings {
    /// Changes the settings; with `all`, also `search_path` and `lc_monetary`.
    pub fn enter(all: bool) -> Self {
        let local = all.then(|| {
            LocalSettings::enter(&[
                // Otherwise temporary objects come first, and hide those of the same names.
                (c"search_path", c"pg_catalog, pg_temp"),
                (c"lc_monetary", c"C"),
                (c"quote_all_identifiers", c"off"),
            ])
        });
        let utc = utc();
        // SAFETY: plain variables of a one-threaded backend, restored in `drop`.
        unsafe {
            let saved = Self {
                date_style: pg_sys::DateStyle,
                date_order: pg_sys::DateOrder,
                interval_style: pg_sys::IntervalStyle,
                float_digits: pg_sys::extra_float_digits,
                bytea: bytea_output,
                timezone: pg_sys::session_timezone,
                _local: local,
            };
            pg_sys::DateStyle = pg_sys::USE_ISO_DATES as c_int;
            pg_sys::DateOrder = pg_sys::DATEORDER_YMD as c_int;
            // pg_dump uses it too: every setting of IntervalStyle can read it.
            pg_sys::IntervalStyle = pg_sys::INTSTYLE_POSTGRES as c_int;
            // The most: types of other extensions may print as many digits as this adds to 15. That it is
            // more than 0 makes the built-in types print the shortest text that gives the value back.
            pg_sys::extra_float_digits = 3;
            bytea_output = BYTEA_HEX;
            pg_sys::session_timezone = utc;
            saved
        }
    }
}

impl Drop for OutputSettings {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe {
            pg_sys::DateStyle = self.date_style;
            pg_sys::DateOrder = self.date_order;
            pg_sys::IntervalStyle = self.interval_style;
            pg_sys::extra_float_digits = self.float_digits;
            bytea_output = self.bytea;
            pg_sys::session_timezone = self.timezone;
        }
    }
}

/// The time zone UTC, which PostgreSQL keeps as long as the backend lives.
fn utc() -> *mut pg_sys::pg_tz {
    thread_local!(static UTC: Cell<*mut pg_sys::pg_tz> = const { Cell::new(std::ptr::null_mut()) });
    UTC.with(|utc| {
        if utc.get().is_null() {
            // SAFETY: looks the zone up and keeps it.
            utc.set(unsafe { pg_sys::pg_tzset(c"UTC".as_ptr()) });
            assert!(!utc.get().is_null(), "the time zone UTC is not known");
        }
        utc.get()
    })
}

/// Another current role, until the value is dropped: the extension's owner, for work for which the caller's
/// rights have been checked.
pub struct AsRole {
    role: pg_sys::Oid,
    context: c_int,
}

impl AsRole {
    /// Makes `role` the current role.
    pub fn become_role(role: pg_sys::Oid) -> Self {
        let mut saved = Self { role: pg_sys::Oid::INVALID, context: 0 };
        // SAFETY: writes to the two variables; a transaction's abort restores them too.
        unsafe {
            pg_sys::GetUserIdAndSecContext(&mut saved.role, &mut saved.context);
            pg_sys::SetUserIdAndSecContext(
                role,
                saved.context | pg_sys::SECURITY_LOCAL_USERID_CHANGE as c_int,
            );
        }
        saved
    }
}

impl Drop for AsRole {
    fn drop(&mut self) {
        // SAFETY: what was current before.
        unsafe { pg_sys::SetUserIdAndSecContext(self.role, self.context) };
    }
}

/// Code of another role's making, run as that role until the value is dropped: as VACUUM and REINDEX run the
/// functions of a table's owner (`src/backend/commands/vacuum.c`), who gets neither the caller's rights nor a
/// hold on the caller's session.
pub struct Restricted {
    _settings: LocalChanges,
    _role: AsRole,
}

impl Restricted {
    /// Makes `role`, which has made the code, the current role.
    pub fn to(role: pg_sys::Oid) -> Self {
        let as_role = AsRole::become_role(role);
        // SAFETY: the flag is added to what `become_role` has set, and goes when that is dropped; the nest
        // level is ended in `drop`, or by the transaction's abort.
        unsafe {
            let (mut current, mut context) = (pg_sys::Oid::INVALID, 0);
            pg_sys::GetUserIdAndSecContext(&mut current, &mut context);
            pg_sys::SetUserIdAndSecContext(current, context | pg_sys::SECURITY_RESTRICTED_OPERATION as c_int);
            Self { _settings: LocalChanges(pg_sys::NewGUCNestLevel()), _role: as_role }
        }
    }
}

/// Settings that somebody else's code may change, until the value is dropped.
struct LocalChanges(c_int);

impl Drop for LocalChanges {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: the level that began with the value; in an error PostgreSQL's abort ends it.
            unsafe { pg_sys::AtEOXact_GUC(false, self.0) };
        }
    }
}

/// Whether the session has the settings with which pg_dump's scripts and pg_restore begin
/// (`_doSetFixedOutputState` in `src/bin/pg_dump/pg_backup_archiver.c`): no search path, and no checks of
/// function bodies.
pub fn replays_dump() -> bool {
    // SAFETY: variables of this process; the search path is null or a C string.
    unsafe {
        !pg_sys::check_function_bodies
            && c_bytes(pg_sys::namespace_search_path).is_none_or(|path| matches!(path, b"" | b"\"\""))
    }
}

/// Makes the session plan all its queries again, prepared ones too, before they are run next.
pub fn forget_plans() {
    // SAFETY: marks what this process keeps, and looks nothing up, so that it may be called while a
    // transaction ends.
    unsafe { pg_sys::ResetPlanCache() };
}

/// The memory that work on whole tables may take (`maintenance_work_mem`), in bytes.
pub fn maintenance_memory() -> usize {
    // SAFETY: a variable of this process, in kB.
    (unsafe { pg_sys::maintenance_work_mem }).max(1024) as usize * 1024
}

/// The roles that the session acts for: the current one, that of the session, and the one that logged in.
pub fn roles() -> [pg_sys::Oid; 3] {
    // SAFETY: variables of this process.
    [effective_role(), session_role(), unsafe { pg_sys::GetAuthenticatedUserId() }]
}
