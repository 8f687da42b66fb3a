//! Values as JSON: the text that is recorded.
//!
//! `new_row ->> 'column'` returns the value's own text; a cast to the column's type returns the value.
//! Numbers and booleans are not quoted. A json or jsonb document that is an object or an array without \u
//! escapes is copied as it is. Everything else is a string.

use super::catalog;
use super::encoding::{self, to_utf8};
use super::row::{Attribute, Value};
use super::{unguarded, varlena, xact};
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::{self, Datum, Oid};
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::ffi::CStr;

/// How values of a type are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Bool,
    Int2,
    Int4,
    Int8,
    Oid,
    /// The output function's text is a JSON number, except for NaN and Infinity.
    Number,
    /// A varlena whose bytes are the text.
    Text,
    /// A varlena of bytes, in hexadecimal.
    Bytea,
    /// A varlena whose bytes are a JSON document.
    Json,
    /// The output function's text is a JSON document.
    Jsonb,
    /// A `timestamp`, or with a time zone a `timestamptz`, in microseconds since 2000-01-01.
    Moment {
        zone: bool,
    },
    /// The output function's text, as a string.
    Quoted,
}

/// Writes the values of one column.
pub struct Writer {
    form: Form,
    function: Box<pg_sys::FmgrInfo>,
    is_varlena: bool,
    depends_on_settings: bool,
}

/// The largest image, in bytes: larger values are recorded as their digests. PostgreSQL limits a tuple, and
/// its text when the log is dumped, to 1 GiB: an old and a new row fit both, even if all of their characters
/// are escaped.
const MAX_IMAGE: usize = 200 << 20;

/// A stored value of this size, in bytes, may have a text that PostgreSQL cannot make.
const GUARDED: usize = 64 << 10;
/// The text of a stored value of this size is not made.
const MAX_STORED: usize = 100 << 20;

impl Writer {
    /// The writer for a column's type. The output function is looked up once, and kept in `context`.
    pub fn new(attribute: &Attribute, context: &Context) -> Self {
        let known = catalog::describe_type(attribute.type_oid);
        let form = match known.base {
            pg_sys::BOOLOID => Form::Bool,
            pg_sys::INT2OID => Form::Int2,
            pg_sys::INT4OID => Form::Int4,
            pg_sys::INT8OID => Form::Int8,
            pg_sys::OIDOID => Form::Oid,
            pg_sys::FLOAT4OID | pg_sys::FLOAT8OID | pg_sys::NUMERICOID => Form::Number,
            pg_sys::TEXTOID | pg_sys::VARCHAROID | pg_sys::BPCHAROID => Form::Text,
            pg_sys::BYTEAOID => Form::Bytea,
            pg_sys::JSONOID => Form::Json,
            pg_sys::JSONBOID => Form::Jsonb,
            pg_sys::TIMESTAMPOID => Form::Moment { zone: false },
            pg_sys::TIMESTAMPTZOID => Form::Moment { zone: true },
            _ => Form::Quoted,
        };
        let mut function = Box::<pg_sys::FmgrInfo>::default();
        // SAFETY: look-ups by the type's oid; what the function caches lives in `context`, which outlives the
        // writer.
        unsafe {
            let (mut output, mut is_varlena) = (Oid::INVALID, false);
            pg_sys::getTypeOutputInfo(attribute.type_oid, &mut output, &mut is_varlena);
            pg_sys::fmgr_info_cxt(output, &mut *function, context.0);
        }
        Self {
            form,
            function,
            is_varlena: attribute.length == -1,
            depends_on_settings: known.depends_on_settings,
        }
    }

    /// Whether the text may depend on `search_path` or `lc_monetary`.
    pub fn depends_on_settings(&self) -> bool {
        self.depends_on_settings
    }

    /// Appends `value`, which is of this writer's column, as JSON. Appends its digest instead if it is larger
    /// than `limit` bytes, or if the image would become larger than PostgreSQL can store.
    pub fn write(&mut self, value: Value<'_>, limit: usize, out: &mut Vec<u8>) {
        let Some(datum) = value.0 else {
            out.extend_from_slice(b"null");
            return;
        };
        let start = out.len();
        // SAFETY: a non-null varlena.
        let size = if self.is_varlena { unsafe { varlena::size(datum) } } else { 0 };
        let shortest = if self.form == Form::Bytea { 2 * size } else { size };
        if size <= limit && start + shortest <= MAX_IMAGE && self.write_value(datum, size, out) {
            // A text may come from a shared catalog, and a type's output may be any bytes.
            let may_be_invalid = matches!(self.form, Form::Text | Form::Json | Form::Jsonb | Form::Quoted);
            if out.len() <= MAX_IMAGE && may_be_invalid && !encoding::is_valid(&out[start..]) {
                out.truncate(start);
                self.write_bytes(datum, out);
            }
            if out.len() <= MAX_IMAGE {
                return;
            }
        }
        out.truncate(start);
        self.write_digest(datum, size, out);
    }

    /// `{"sha256": …, "length": …}`: of a bytea's bytes, of any other value's text in UTF-8. Of a value whose
    /// text PostgreSQL cannot make, of the bytes that it stores, with `"of": "stored"`.
    fn write_digest(&mut self, datum: Datum, size: usize, out: &mut Vec<u8>) {
        // SAFETY: called for varlenas only: a value of another kind is short.
        let stored = || unsafe { varlena::bytes(datum) };
        let (bytes, of) = match self.form {
            Form::Bytea => (Cow::Borrowed(stored()), ""),
            Form::Text | Form::Json => (to_utf8(stored()), ""),
            _ => match self.guarded_text(datum, size) {
                Some(text) => (to_utf8(text), ""),
                None => (Cow::Borrowed(stored()), ",\"of\":\"stored\""),
            },
        };
        out.extend_from_slice(b"{\"sha256\":\"");
        write_hex(&Sha256::digest(&bytes), out);
        out.extend_from_slice(b"\",\"length\":");
        write_integer(bytes.len(), out);
        out.extend_from_slice(of.as_bytes());
        out.push(b'}');
    }

    /// `{"bytes": …}`: the bytes of a text that is not valid, or has no form in UTF-8, as the text of a
    /// bytea.
    fn write_bytes(&mut self, datum: Datum, out: &mut Vec<u8>) {
        let bytes = match self.form {
            // SAFETY: the column's type is a varlena.
            Form::Text | Form::Json => unsafe { varlena::bytes(datum) },
            _ => self.text(datum),
        };
        out.extend_from_slice(b"{\"bytes\":\"\\\\x");
        write_hex(bytes, out);
        out.extend_from_slice(b"\"}");
    }

    /// Returns false where the value's text cannot be made. The JSON may be incomplete where it is longer
    /// than [`MAX_IMAGE`].
    fn write_value(&mut self, datum: Datum, size: usize, out: &mut Vec<u8>) -> bool {
        match self.form {
            Form::Bool => out.extend_from_slice(if datum.value() != 0 { b"true" } else { b"false" }),
            Form::Int2 => write_integer(datum.value() as i16, out),
            Form::Int4 => write_integer(datum.value() as i32, out),
            Form::Int8 => write_integer(datum.value() as i64, out),
            Form::Oid => write_integer(datum.value() as u32, out),
            // SAFETY: the column's type is a varlena.
            Form::Text => write_image_string(unsafe { varlena::bytes(datum) }, out),
            Form::Bytea => {
                out.extend_from_slice(b"\"\\\\x");
                // SAFETY: as above.
                write_hex(unsafe { varlena::bytes(datum) }, out);
                out.push(b'"');
            }
            Form::Number => {
                let text = self.text(datum);
                let digits = text.strip_prefix(b"-").unwrap_or(text);
                if digits.first().is_some_and(u8::is_ascii_digit) {
                    out.extend_from_slice(text);
                } else {
                    write_string(text, out);
                }
            }
            Form::Json | Form::Jsonb => {
                let text = if self.form == Form::Json {
                    // SAFETY: as above.
                    Some(unsafe { varlena::bytes(datum) })
                } else {
                    self.guarded_text(datum, size)
                };
                let Some(text) = text else { return false };
                let bare = matches!(
                    (text.first(), text.last()),
                    (Some(b'{'), Some(b'}')) | (Some(b'['), Some(b']'))
                );
                // `->>` decodes every escape of the image, and fails for one that is not a character of the
                // database's encoding (\u0000, half a surrogate pair), which json allows.
                let bare = bare && !text.windows(2).any(|pair| pair == b"\\u");
                if bare { out.extend_from_slice(text) } else { write_image_string(text, out) }
            }
            Form::Moment { zone } => {
                if !write_moment(datum.value() as i64, zone, out) {
                    write_string(self.text(datum), out);
                }
            }
            Form::Quoted => match self.guarded_text(datum, size) {
                Some(text) => write_image_string(text, out),
                None => return false,
            },
        }
        true
    }

    /// The output function's text of a value that is stored in `size` bytes; `None` if PostgreSQL cannot make
    /// it: it has no text beyond 1 GB, and an array of bits or a composite type may have a text many times as
    /// long as what is stored.
    fn guarded_text<'a>(&mut self, datum: Datum, size: usize) -> Option<&'a [u8]> {
        match size {
            0..GUARDED => Some(self.text(datum)),
            GUARDED..MAX_STORED => xact::try_in_savepoint(|| self.text(datum), is_too_large),
            _ => None,
        }
    }

    /// The output function's text, in the current memory context.
    fn text<'a>(&mut self, datum: Datum) -> &'a [u8] {
        // SAFETY: a non-null value of the type that the function is for; the result is a palloc'd C string.
        unsafe { CStr::from_ptr(pg_sys::OutputFunctionCall(&mut *self.function, datum)) }.to_bytes()
    }
}

/// Appends a `timestamp` or `timestamptz` as its output function writes it with ISO dates in UTC, without
/// looking up the zone's rules each time. Returns false, and appends nothing, for infinity.
fn write_moment(value: i64, zone: bool, out: &mut Vec<u8>) -> bool {
    // SAFETY: timestamp2tm takes null for no zone; EncodeDateTime writes a C string of at most MAXDATELEN
    // bytes.
    unsafe {
        let mut parts = pg_sys::pg_tm::default();
        let mut microseconds: pg_sys::fsec_t = 0;
        let null = std::ptr::null_mut();
        if matches!(value, i64::MIN | i64::MAX)
            || unguarded::timestamp2tm(value, null, &mut parts, &mut microseconds, null.cast(), null.cast())
                != 0
        {
            return false;
        }
        parts.tm_isdst = 0;
        let mut text: [std::ffi::c_char; pg_sys::MAXDATELEN as usize + 1] = [0; _];
        unguarded::EncodeDateTime(
            &mut parts,
            microseconds,
            zone,
            0,
            std::ptr::null(),
            pg_sys::USE_ISO_DATES as i32,
            text.as_mut_ptr(),
        );
        out.push(b'"');
        out.extend_from_slice(CStr::from_ptr(text.as_ptr()).to_bytes());
        out.push(b'"');
        true
    }
}

/// A memory context for what output functions cache. Dropping it deletes everything in it.
pub struct Context(pg_sys::MemoryContext);

impl Context {
    /// A new context, which lives until it is dropped or the backend ends.
    pub fn new() -> Self {
        // SAFETY: TopMemoryContext always exists; the name is a static C string.
        Self(unsafe {
            pg_sys::AllocSetContextCreateInternal(
                pg_sys::TopMemoryContext,
                c"audit_chain audited table".as_ptr(),
                pg_sys::ALLOCSET_SMALL_MINSIZE as usize,
                pg_sys::ALLOCSET_SMALL_INITSIZE as usize,
                pg_sys::ALLOCSET_SMALL_MAXSIZE as usize,
            )
        })
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: created in `new` and owned.
        unsafe { pg_sys::MemoryContextDelete(self.0) };
    }
}

fn write_integer(value: impl itoa::Integer, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn write_hex(bytes: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + bytes.len() * 2, 0);
    hex::encode_to_slice(bytes, &mut out[start..]).expect("twice the length");
}

/// Whether an error says that a text would be larger than PostgreSQL can make it.
fn is_too_large(code: PgSqlErrorCode, message: &str) -> bool {
    match code {
        PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED | PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY => true,
        // palloc's (src/backend/utils/mmgr/mcxt.c), which is not translated.
        PgSqlErrorCode::ERRCODE_INTERNAL_ERROR => message.starts_with("invalid memory alloc request size"),
        _ => false,
    }
}

/// Appends `text` as a JSON string; of one that makes an image too long, the beginning.
fn write_image_string(text: &[u8], out: &mut Vec<u8>) {
    write_bounded(text, out, MAX_IMAGE);
}

/// Appends `text` as a JSON string. Works in every server encoding: all are supersets of ASCII in which no
/// byte of a multi-byte character is an ASCII byte.
pub fn write_string(text: &[u8], out: &mut Vec<u8>) {
    write_bounded(text, out, usize::MAX);
}

/// Appends `text` as a JSON string, and stops where `out` is longer than `limit`.
fn write_bounded(text: &[u8], out: &mut Vec<u8>, limit: usize) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    let mut rest = text;
    while let Some(at) = rest.iter().position(|&byte| byte < 0x20 || byte == b'"' || byte == b'\\') {
        out.extend_from_slice(&rest[..at]);
        match rest[at] {
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            byte @ (b'"' | b'\\') => out.extend_from_slice(&[b'\\', byte]),
            control => {
                out.extend_from_slice(b"\\u00");
                write_hex(&[control], out);
            }
        }
        rest = &rest[at + 1..];
        if out.len() > limit {
            return;
        }
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}
