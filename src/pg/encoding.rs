//! The database's encoding, and texts that may not be in it.
//!
//! PostgreSQL checks what a client sends, but not settings of a startup packet, the names of roles and
//! databases, which databases of different encodings share, and settings in files. [`outside`] makes a text
//! of the database of what comes from there. Nothing here raises an error for a text.

use super::unguarded;
use pgrx::pg_sys::{self, Oid};
use std::borrow::Cow;
use std::cell::Cell;
use std::ffi::c_int;

unsafe extern "C-unwind" {
    // src/backend/catalog/pg_conversion.c
    fn FindDefaultConversion(namespace: Oid, from: i32, to: i32) -> Oid;
}

const UTF8: c_int = pg_sys::pg_enc::PG_UTF8 as c_int;

/// The number of bytes that are converted at a time.
const CHUNK: usize = 1 << 16;
/// By how much a conversion can make a text longer (`MAX_CONVERSION_GROWTH`).
const GROWTH: usize = 4;

/// Whether the database's encoding is UTF-8. False in a process that is connected to no database.
pub fn is_utf8() -> bool {
    unguarded::GetDatabaseEncoding() == UTF8
}

/// `text` as UTF-8, which is what is hashed. In a UTF-8 database this is `text` itself. What UTF-8 has no
/// character for is escaped.
pub fn to_utf8(text: &[u8]) -> Cow<'_, [u8]> {
    if is_utf8() || text.is_ascii() {
        return Cow::Borrowed(text);
    }
    let mut converted = Vec::new();
    if convert(text, Direction::ToUtf8, &mut converted) < text.len() {
        let escaped = escape(text);
        converted.clear();
        convert(&escaped, Direction::ToUtf8, &mut converted);
    }
    Cow::Owned(converted)
}

/// UTF-8 in the database's encoding. A character that the encoding does not have is written as `\u` and four
/// hexadecimal digits or more in braces.
pub fn from_utf8(text: &str) -> Cow<'_, [u8]> {
    if is_utf8() || text.is_ascii() {
        return Cow::Borrowed(text.as_bytes());
    }
    let (mut converted, mut rest) = (Vec::new(), text);
    loop {
        rest = &rest[convert(rest.as_bytes(), Direction::FromUtf8, &mut converted)..];
        let mut characters = rest.chars();
        let Some(unknown) = characters.next() else { break };
        converted.extend_from_slice(unknown.escape_unicode().to_string().as_bytes());
        rest = characters.as_str();
    }
    Cow::Owned(converted)
}

/// Whether the text is one of the database, and has a form in UTF-8.
pub fn is_valid(text: &[u8]) -> bool {
    valid_prefix(text) == text.len()
}

/// Makes a text of the database of one that does not come from its tables (`docs/format.md`, section 3). A
/// valid text that does not look like an escaped one remains as it is; another becomes `E'…'`, with `\xHH`
/// for each byte that is not valid.
pub fn outside(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.starts_with(b"E'") && is_valid(text) { Cow::Borrowed(text) } else { Cow::Owned(escape(text)) }
}

/// A text of a table of the database, escaped if it has no form in UTF-8.
pub fn storable(text: &[u8]) -> Cow<'_, [u8]> {
    if is_valid(text) { Cow::Borrowed(text) } else { Cow::Owned(escape(text)) }
}

/// The text, or where it is longer than `limit` bytes, its beginning with a mark that says how long it was.
pub fn cut(text: &[u8], limit: usize) -> Cow<'_, [u8]> {
    if text.len() <= limit {
        return Cow::Borrowed(text);
    }
    // Not within a character; in a text that is not valid this does not matter.
    let end = if is_utf8() {
        (limit.saturating_sub(3)..=limit).rev().find(|&at| text[at] & 0xC0 != 0x80).unwrap_or(limit)
    } else {
        let (encoding, limit) = (unguarded::GetDatabaseEncoding(), limit as c_int);
        // SAFETY: reads at most `limit` bytes of the text.
        unsafe { pg_sys::pg_encoding_mbcliplen(encoding, text.as_ptr().cast(), limit, limit) as usize }
    };
    let mut cut = text[..end].to_vec();
    cut.extend_from_slice(format!(" [cut: it has {} bytes]", text.len()).as_bytes());
    Cow::Owned(cut)
}

/// The text as a literal `E'…'`.
fn escape(text: &[u8]) -> Vec<u8> {
    let (mut escaped, mut rest) = (b"E'".to_vec(), text);
    loop {
        let (valid, invalid) = rest.split_at(valid_prefix(rest));
        for &byte in valid {
            if matches!(byte, b'\\' | b'\'') {
                escaped.push(byte);
            }
            escaped.push(byte);
        }
        let Some((&byte, after)) = invalid.split_first() else { break };
        escaped.extend_from_slice(format!("\\x{byte:02x}").as_bytes());
        rest = after;
    }
    escaped.push(b'\'');
    escaped
}

/// The number of bytes up to the first that is not valid.
fn valid_prefix(text: &[u8]) -> usize {
    let text =
        if text.contains(&0) { text.split(|&byte| byte == 0).next().unwrap_or_default() } else { text };
    if is_utf8() {
        return std::str::from_utf8(text).map_or_else(|error| error.valid_up_to(), str::len);
    }
    let ascii = text.iter().position(|byte| !byte.is_ascii()).unwrap_or(text.len());
    ascii + convert(&text[ascii..], Direction::ToUtf8, &mut Vec::new())
}

#[derive(Clone, Copy)]
enum Direction {
    ToUtf8,
    FromUtf8,
}

/// Appends the text, converted between the database's encoding and UTF-8, as far as it can be, and returns
/// how many bytes of it that is. Outside of transactions only ASCII is converted.
fn convert(text: &[u8], direction: Direction, out: &mut Vec<u8>) -> usize {
    thread_local!(static CONVERSIONS: Cell<[Option<Oid>; 2]> = const { Cell::new([None; 2]) });
    // Most texts are ASCII, which all encodings of servers contain.
    let mut done = text.iter().position(|byte| !byte.is_ascii()).unwrap_or(text.len());
    out.extend_from_slice(&text[..done]);
    // SAFETY: a flag of this process.
    if done == text.len() || !unsafe { pg_sys::IsTransactionState() } {
        return done;
    }
    let encoding = unguarded::GetDatabaseEncoding();
    let (from, to) = match direction {
        Direction::ToUtf8 => (encoding, UTF8),
        Direction::FromUtf8 => (UTF8, encoding),
    };
    let conversion = CONVERSIONS.get()[direction as usize].unwrap_or_else(|| {
        // A backend never changes its database. PostgreSQL's own conversion: one of another schema may come
        // first in the session's search path. SAFETY: a look-up, within a transaction; what it raises is
        // caught at the boundary.
        let found = unsafe {
            pg_sys::ffi::pg_guard_ffi_boundary(|| {
                FindDefaultConversion(Oid::from(pg_sys::PG_CATALOG_NAMESPACE), from, to)
            })
        };
        let mut known = CONVERSIONS.get();
        known[direction as usize] = Some(found);
        CONVERSIONS.set(known);
        found
    });
    if conversion == Oid::INVALID {
        return done;
    }
    while done < text.len() {
        let chunk = &text[done..text.len().min(done + CHUNK)];
        let start = out.len();
        out.resize(start + chunk.len() * GROWTH + 1, 0);
        // SAFETY: reads the chunk, and writes at most GROWTH times its length and a NUL. Without errors it
        // returns the number of bytes up to the first character that it cannot convert, or that the chunk has
        // only a part of.
        let converted = unsafe {
            pg_sys::pg_do_encoding_conversion_buf(
                conversion,
                from,
                to,
                chunk.as_ptr().cast_mut(),
                chunk.len() as c_int,
                out[start..].as_mut_ptr(),
                (chunk.len() * GROWTH + 1) as c_int,
                true,
            )
        };
        let written = out[start..].iter().position(|&byte| byte == 0).unwrap_or(0);
        out.truncate(start + written);
        done += converted.max(0) as usize;
        // A character that a chunk has only a part of is complete in the next one.
        if converted <= 0 {
            break;
        }
    }
    done
}
