//! Text settings with a check hook (`src/include/utils/guc.h`). pgrx itself defines the other kinds safely.
//!
//! What a client has given when it connected, before the library was loaded ([`given_by_client`]), has
//! replaced what files, databases and roles set. PostgreSQL refuses it when the setting is defined, if the
//! client may not set it, and then the setting would have its default: anybody could undo what an
//! administrator has set. So that is set again ([`set_again`]).

use super::catalog::ROLE_SETTING;
use super::table::{StoredTuple, scan_catalog};
use super::text::{Texts, to_server};
use pgrx::pg_sys::Oid;
use pgrx::pg_sys::panic::pgrx_extern_c_guard;
use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting, PgSqlErrorCode, pg_sys};
use std::ffi::{CStr, CString, c_char, c_void};

/// A text setting's value.
pub struct Text {
    setting: GucSetting<Option<CString>>,
}

impl Text {
    /// A setting with this default.
    pub const fn new(default: &'static CStr) -> Self {
        Self { setting: GucSetting::<Option<CString>>::new(Some(default)) }
    }

    /// The current value; `None` if it is empty.
    pub fn get<'a>(&self) -> Option<&'a [u8]> {
        // SAFETY: the variable is null or a C string that lives until the setting changes.
        unsafe {
            let value: *const c_char = *self.setting.as_ptr();
            (!value.is_null()).then(|| CStr::from_ptr(value).to_bytes()).filter(|value| !value.is_empty())
        }
    }
}

/// The elements of a list of identifiers, folded and unquoted as in SQL; `None` for what is no such list.
pub fn identifiers(list: &[u8]) -> Option<Vec<String>> {
    let list = CString::new(list).ok()?;
    // SAFETY: works on a palloc'd copy, of which the elements are parts.
    unsafe {
        let copy = pg_sys::pstrdup(list.as_ptr());
        let mut elements = std::ptr::null_mut();
        let is_list = pg_sys::SplitIdentifierString(copy, b',' as c_char, &mut elements);
        let names = pgrx::PgList::<c_char>::from_pg(elements)
            .iter_ptr()
            .map(|name| String::from_utf8_lossy(CStr::from_ptr(name).to_bytes()).into_owned())
            .collect();
        pg_sys::list_free(elements);
        pg_sys::pfree(copy.cast());
        is_list.then_some(names)
    }
}

/// Why a text setting cannot have a value.
pub struct Invalid {
    /// The error's SQLSTATE.
    pub sqlstate: PgSqlErrorCode,
    /// The error's message.
    pub message: String,
    /// The error's hint.
    pub hint: Option<String>,
}

/// Checks the values of a text setting.
pub trait Check {
    /// Refuses a value that the setting cannot have.
    fn check(value: &[u8]) -> Result<(), Invalid>;
}

/// Accepts every value.
pub struct Anything;

impl Check for Anything {
    fn check(_: &[u8]) -> Result<(), Invalid> {
        Ok(())
    }
}

unsafe extern "C-unwind" fn hook<C: Check>(
    value: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: the guard turns panics into errors; the proposed value is null or a C string.
    unsafe {
        pgrx_extern_c_guard(|| {
            if (*value).is_null() {
                return true;
            }
            let Err(invalid) = C::check(CStr::from_ptr(*value).to_bytes()) else { return true };
            pg_sys::GUC_check_errcode(invalid.sqlstate as i32);
            pg_sys::GUC_check_errmsg_string = message(&invalid.message);
            pg_sys::GUC_check_errhint_string =
                invalid.hint.map_or(std::ptr::null_mut(), |hint| message(&hint));
            false
        })
    }
}

/// A message in the memory in which the caller of a check hook expects it.
fn message(text: &str) -> *mut c_char {
    let text = CString::new(text).unwrap_or_default();
    // SAFETY: as the macro GUC_check_errmsg does: the text is copied.
    unsafe {
        pg_sys::pre_format_elog_string(0, std::ptr::null());
        pg_sys::format_elog_string(c"%s".as_ptr(), text.as_ptr())
    }
}

/// Defines a text setting that `C` checks.
pub fn define_text<C: Check>(
    name: &'static CStr,
    short: &'static CStr,
    long: &'static CStr,
    text: &'static Text,
    context: GucContext,
    flags: GucFlags,
) {
    // SAFETY: the hook is guarded; names and value are static.
    unsafe {
        GucRegistry::define_string_guc_with_hooks(
            name,
            short,
            long,
            &text.setting,
            context,
            flags,
            Some(hook::<C>),
            None,
            None,
        );
    }
}

/// Makes an unknown setting with this prefix an error.
pub fn reserve_prefix(prefix: &'static CStr) {
    // SAFETY: a static C string.
    unsafe { pg_sys::MarkGUCPrefixReserved(prefix.as_ptr()) };
}

/// The settings with this prefix that the client gave when it connected. To be called before they are
/// defined.
pub fn given_by_client(prefix: &CStr) -> Vec<CString> {
    // SAFETY: what the server knows of each setting, whose name is a C string; none is defined meanwhile.
    unsafe {
        super::compat::settings()
            .into_iter()
            .filter(|&setting| (*setting).reset_source == pg_sys::GucSource::PGC_S_CLIENT)
            .map(|setting| CStr::from_ptr((*setting).name).to_owned())
            .filter(|name| name.to_bytes().to_ascii_lowercase().starts_with(prefix.to_bytes()))
            .collect()
    }
}

/// Gives settings what the server's files set, and `ALTER DATABASE` and `ALTER ROLE … SET`, as far as the
/// client has not been allowed to set something else. What the server's command line sets is not known.
pub fn set_again(names: &[CString]) {
    if names.is_empty() {
        return;
    }
    let is_wanted = |name: &[u8]| names.iter().any(|wanted| wanted.to_bytes().eq_ignore_ascii_case(name));
    let set = |name: &CStr, value: &CStr, context, source| {
        // SAFETY: C strings. A value that is not valid is told in the server's log, and not set.
        unsafe {
            let action = pg_sys::GucAction::GUC_ACTION_SET;
            pg_sys::set_config_option(
                name.as_ptr(),
                value.as_ptr(),
                context,
                source,
                action,
                true,
                pg_sys::LOG as i32,
                false,
            );
        }
    };
    let (mut head, mut tail) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: as `ProcessConfigFileInternal` does (`src/backend/utils/misc/guc-file.l`): the list that is
    // made has C strings, and is freed. Of several values of a setting the last one counts.
    unsafe {
        let files =
            [(pg_sys::ConfigFileName.cast_const(), true), (pg_sys::PG_AUTOCONF_FILENAME.as_ptr(), false)];
        for (file, is_strict) in files {
            let none = std::ptr::null();
            let level = pg_sys::DEBUG2 as i32;
            pg_sys::ParseConfigFile(file, is_strict, none, 0, 0, level, &mut head, &mut tail);
        }
        let mut variable = head;
        while !variable.is_null() {
            let name = CStr::from_ptr((*variable).name);
            if is_wanted(name.to_bytes()) && !(*variable).ignore {
                let value = CStr::from_ptr((*variable).value);
                set(name, value, pg_sys::GucContext::PGC_SIGHUP, pg_sys::GucSource::PGC_S_FILE);
            }
            variable = (*variable).next;
        }
        pg_sys::FreeConfigVariables(head);
    }
    for (source, setting) in settings_of_roles() {
        let Some((name, value)) = setting.split_once('=') else { continue };
        if let (true, Ok(name), Ok(value)) =
            (is_wanted(name.as_bytes()), CString::new(name), CString::new(&*to_server(value)))
        {
            set(&name, &value, pg_sys::GucContext::PGC_SUSET, source);
        }
    }
}

/// What `ALTER DATABASE` and `ALTER ROLE … SET` give this session, with the source of each
/// (`process_settings` in `src/backend/utils/init/postinit.c`).
fn settings_of_roles() -> Vec<(pg_sys::GucSource::Type, String)> {
    use pg_sys::GucSource::{PGC_S_DATABASE, PGC_S_DATABASE_USER, PGC_S_GLOBAL, PGC_S_USER};
    /// `DbRoleSettingDatidRolidIndexId`
    const INDEX: Oid = Oid::from_u32(2965);
    // SAFETY: variables of this process.
    let (database, login) = unsafe {
        if !pg_sys::IsTransactionState() {
            return Vec::new();
        }
        (pg_sys::MyDatabaseId, pg_sys::GetAuthenticatedUserId())
    };
    let mut found = Vec::new();
    for of in [Oid::INVALID, database] {
        let key = (1, pg_sys::F_OIDEQ, of.into());
        let read = |row: StoredTuple<'_>| {
            (Oid::from(row.integer(2) as u32), row.get::<Texts>(3).map_or_else(Vec::new, |texts| texts.0))
        };
        for (role, settings) in scan_catalog(ROLE_SETTING, INDEX, key, read) {
            let source = match (of == Oid::INVALID, role == Oid::INVALID) {
                _ if role != Oid::INVALID && role != login => continue,
                (true, true) => PGC_S_GLOBAL,
                (true, false) => PGC_S_USER,
                (false, true) => PGC_S_DATABASE,
                (false, false) => PGC_S_DATABASE_USER,
            };
            found.extend(settings.into_iter().map(|setting| (source, setting)));
        }
    }
    found
}
