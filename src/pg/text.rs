//! Text between Rust, which uses UTF-8, and the database, which may use another encoding.
//!
//! pgrx's conversions of `String` are for UTF-8 databases only; the extension uses these instead.

use super::encoding::{self, to_utf8};
use super::fmgr::Call;
use super::varlena;
use pgrx::datum::DatumWithOid;
use pgrx::pg_sys::{self, Datum, Oid};
use pgrx::{FromDatum, IntoDatum};
use std::borrow::Cow;
use std::ffi::CString;

/// A text value: UTF-8 in Rust, the server's encoding in PostgreSQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text(pub String);

impl FromDatum for Text {
    unsafe fn from_polymorphic_datum(datum: Datum, is_null: bool, _: Oid) -> Option<Self> {
        // SAFETY: by the trait's contract a text datum.
        (!is_null).then(|| Self(from_server(unsafe { varlena::bytes(datum) })))
    }
}

impl IntoDatum for Text {
    fn into_datum(self) -> Option<Datum> {
        let bytes = to_server(&self.0);
        // SAFETY: copies the bytes into a palloc'd text.
        Some(Datum::from(unsafe {
            pg_sys::cstring_to_text_with_len(bytes.as_ptr().cast(), bytes.len() as i32)
        }))
    }

    fn type_oid() -> Oid {
        pg_sys::TEXTOID
    }
}

/// Text in the server's encoding as a Rust string. What is not valid is escaped.
pub fn from_server(bytes: &[u8]) -> String {
    match std::str::from_utf8(&to_utf8(bytes)) {
        Ok(text) => text.to_owned(),
        Err(_) => from_outside(bytes),
    }
}

/// A text that does not come from a table of this database as a Rust string ([`encoding::outside`]).
pub fn from_outside(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&to_utf8(&encoding::outside(bytes))).into_owned()
}

/// A Rust string in the server's encoding. A character that the encoding does not have is escaped.
pub fn to_server(text: &str) -> Cow<'_, [u8]> {
    encoding::from_utf8(text)
}

/// The text of an error or a notice. pgrx passes messages as UTF-8, so in other databases what is not ASCII
/// is escaped.
pub fn message(text: &str) -> Cow<'_, str> {
    if encoding::is_utf8() || text.is_ascii() {
        return Cow::Borrowed(text);
    }
    let escaped = text.chars().map(|character| {
        if character.is_ascii() { character.to_string() } else { character.escape_unicode().to_string() }
    });
    Cow::Owned(escaped.collect())
}

/// Whether nobody can see anything of the text: it is empty, or of white space, control characters, and
/// characters that leave no mark (Unicode's property Default_Ignorable_Code_Point, and the braille blank).
pub fn is_blank(text: &str) -> bool {
    let leaves_no_mark = |character: char| {
        matches!(
            character,
            '\u{AD}' | '\u{34F}' | '\u{61C}' | '\u{115F}' | '\u{1160}' | '\u{17B4}' | '\u{17B5}' | '\u{180B}'..='\u{180F}'
                | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{2800}' | '\u{3164}'
                | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}' | '\u{FFA0}' | '\u{FFF0}'..='\u{FFF8}' | '\u{1BCA0}'..='\u{1BCA3}'
                | '\u{1D173}'..='\u{1D17A}' | '\u{E0000}'..='\u{E0FFF}'
        )
    };
    text.chars()
        .all(|character| character.is_whitespace() || character.is_control() || leaves_no_mark(character))
}

/// A text argument of a query.
pub fn argument<'a>(text: &str) -> DatumWithOid<'a> {
    // SAFETY: a text datum, palloc'd, of the type that is named.
    unsafe { DatumWithOid::new(Text(text.to_owned()), pg_sys::TEXTOID) }
}

/// The bytes of a text[] value, without its header.
pub fn array_bytes(texts: &[String]) -> Vec<u8> {
    let texts: Vec<Text> = texts.iter().cloned().map(Text).collect();
    let array = texts.into_datum().expect("an array is not null");
    // SAFETY: a text[], which is a varlena.
    unsafe { varlena::bytes(array) }.to_vec()
}

/// SQL as a C string in the server's encoding.
pub fn sql(text: &str) -> CString {
    CString::new(to_server(text)).expect("SQL without NUL")
}

impl Call {
    /// A text argument; `None` for null.
    pub fn text(&self, index: usize) -> Option<String> {
        self.arg::<Text>(index).map(|text| text.0)
    }

    /// A jsonb argument as text; `None` for null.
    pub fn jsonb(&self, index: usize) -> Option<String> {
        // SAFETY: the SQL declaration makes it a jsonb; the output function returns a palloc'd C string.
        self.datum(index).map(|value| unsafe {
            let text = pg_sys::OidOutputFunctionCall(pg_sys::F_JSONB_OUT.into(), value);
            from_server(std::ffi::CStr::from_ptr(text).to_bytes())
        })
    }

    /// A text[] argument, nulls in it as `None`; `None` for a null array.
    pub fn texts(&self, index: usize) -> Option<Vec<Option<String>>> {
        // SAFETY: the SQL declaration makes it a text[].
        self.datum(index).map(|datum| unsafe { text_array(datum) })
    }
}

/// A json value from its text: it is stored like a text.
pub fn json_datum(json: &str) -> Datum {
    Text(json.to_owned()).into_datum().expect("a text is not null")
}

/// A timestamptz from its text, by the session's settings, in microseconds since 2000-01-01 UTC; `None` for
/// what is none.
pub fn timestamp(text: &str) -> Option<i64> {
    let text = CString::new(&*to_server(text)).ok()?;
    super::xact::try_in_savepoint(
        // SAFETY: timestamptz's input function reads the C string; it fails by an ereport.
        || unsafe {
            let input = pg_sys::F_TIMESTAMPTZ_IN.into();
            pg_sys::OidInputFunctionCall(input, text.as_ptr().cast_mut(), pg_sys::TIMESTAMPTZOID, -1).value()
                as i64
        },
        |code, _| !super::xact::ends_statement(code),
    )
}

/// The elements of a text[].
///
/// # Safety
/// `datum` is a non-null text[].
unsafe fn text_array(datum: Datum) -> Vec<Option<String>> {
    // SAFETY: by the contract; deconstruct_array fills both arrays with `count` elements.
    unsafe {
        let array: *mut pg_sys::ArrayType = pg_sys::pg_detoast_datum(datum.cast_mut_ptr()).cast();
        let (mut values, mut nulls, mut count) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
        pg_sys::deconstruct_array(
            array,
            pg_sys::TEXTOID,
            -1,
            false,
            b'i' as std::ffi::c_char,
            &mut values,
            &mut nulls,
            &mut count,
        );
        (0..count as usize)
            .map(|i| (!*nulls.add(i)).then(|| from_server(varlena::bytes(*values.add(i)))))
            .collect()
    }
}

/// The elements of a text[] column that a query yields.
pub struct Texts(pub Vec<String>);

impl FromDatum for Texts {
    unsafe fn from_polymorphic_datum(datum: Datum, is_null: bool, _: Oid) -> Option<Self> {
        // SAFETY: by the trait's contract a text[] datum.
        (!is_null).then(|| Self(unsafe { text_array(datum) }.into_iter().flatten().collect()))
    }
}

impl IntoDatum for Texts {
    fn into_datum(self) -> Option<Datum> {
        self.0.into_iter().map(Text).collect::<Vec<_>>().into_datum()
    }

    fn type_oid() -> Oid {
        pg_sys::TEXTARRAYOID
    }
}

/// A jsonb value. What the database's encoding has no character for is escaped in its texts, U+0000 too.
pub fn jsonb(value: serde_json::Value) -> Datum {
    let json = CString::new(&*to_server(&representable(value).to_string())).expect("JSON escapes NUL");
    // SAFETY: jsonb's input function reads the C string; it fails by an ereport.
    unsafe {
        pg_sys::OidInputFunctionCall(
            pg_sys::F_JSONB_IN.into(),
            json.as_ptr().cast_mut(),
            pg_sys::JSONBOID,
            -1,
        )
    }
}

/// The value with texts that the database's encoding can hold.
fn representable(value: serde_json::Value) -> serde_json::Value {
    use serde_json::Value::{Array, Object, String};
    let text = |text: std::string::String| {
        let text = if encoding::is_utf8() { text } else { from_server(&to_server(&text)) };
        text.replace('\0', r"\u{0}")
    };
    match value {
        String(value) => String(text(value)),
        Array(values) => Array(values.into_iter().map(representable).collect()),
        Object(members) => {
            Object(members.into_iter().map(|(key, value)| (text(key), representable(value))).collect())
        }
        other => other,
    }
}

/// Raises PostgreSQL's own error if a text of the database has no form in UTF-8.
pub fn refuse_unconvertible(text: &[u8]) {
    if !encoding::is_valid(text) {
        let utf8 = pg_sys::pg_enc::PG_UTF8 as i32;
        // SAFETY: reads `len` bytes, and raises an error.
        unsafe { pg_sys::pg_server_to_any(text.as_ptr().cast(), text.len() as i32, utf8) };
    }
}

/// Raises PostgreSQL's own error if a json text has an escape that no text value can store (`\\u0000`, half a
/// surrogate pair). The type json accepts it, but every `->>` would fail.
pub fn refuse_unreadable_json(json: &[u8]) {
    let json = CString::new(json).expect("a json value has no NUL");
    // SAFETY: as in `jsonb`.
    unsafe {
        pg_sys::OidInputFunctionCall(
            pg_sys::F_JSONB_IN.into(),
            json.as_ptr().cast_mut(),
            pg_sys::JSONBOID,
            -1,
        );
    }
}
