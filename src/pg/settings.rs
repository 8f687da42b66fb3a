//! Text settings with a check hook (`src/include/utils/guc.h`). pgrx itself defines the other kinds safely.

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
