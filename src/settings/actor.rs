//! The application's user, from another setting: `audit_chain.actor_setting`.
//!
//! It names the setting, and may lead into the JSON document that the setting holds, as SQL would:
//! `request.jwt.claims ->> sub`, `app.claims -> user ->> 'full name'`. What is not there gives no actor, and
//! never an error.

use crate::pg::encoding::{from_utf8, to_utf8};
use crate::pg::session;
use serde::de::{Deserializer as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

/// A parsed `audit_chain.actor_setting`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActorPath {
    /// The setting, in the server's encoding.
    setting: Vec<u8>,
    /// The members that lead to the actor; empty where the setting is the actor.
    keys: Vec<String>,
}

impl ActorPath {
    /// Reads a path; or says what is wrong with it.
    pub fn parse(text: &[u8]) -> Result<Self, &'static str> {
        let (setting, mut rest) = match find(text, b"->") {
            Some(at) => text.split_at(at),
            None => (text, &b""[..]),
        };
        let setting = setting.trim_ascii();
        if setting.is_empty() {
            return Err("it does not begin with the name of a setting");
        }
        if setting
            .iter()
            .any(|byte| byte.is_ascii() && !byte.is_ascii_alphanumeric() && !b"_.$".contains(byte))
        {
            return Err("the name of the setting has a character that no setting's name has");
        }
        let (mut keys, mut last) = (Vec::new(), false);
        while let Some(step) = rest.strip_prefix(b"->") {
            if last {
                return Err("only the last step can be ->>");
            }
            let (step, is_last) = step.strip_prefix(b">").map_or((step, false), |step| (step, true));
            last = is_last;
            let (key, after) = key(step.trim_ascii_start())?;
            keys.push(String::from_utf8_lossy(&to_utf8(&key)).into_owned());
            rest = after.trim_ascii_start();
        }
        if !rest.is_empty() {
            return Err("a key that is not a single word must be in single quotes");
        }
        if !keys.is_empty() && !last {
            return Err("the last step must be ->>");
        }
        Ok(Self { setting: setting.to_vec(), keys })
    }

    /// The actor in a document; `None` where there is none.
    fn actor(&self, document: &[u8]) -> Option<Vec<u8>> {
        let document = to_utf8(document);
        let mut json = std::str::from_utf8(&document).ok()?;
        for key in &self.keys {
            json = member(json, key)?.get();
        }
        let text = match json.as_bytes().first()? {
            b'"' => Cow::Owned(serde_json::from_str::<String>(json).ok()?),
            b'n' => return None,
            _ => Cow::Borrowed(json),
        };
        Some(from_utf8(&text).into_owned()).filter(|text| !text.is_empty())
    }
}

fn find(text: &[u8], pattern: &[u8]) -> Option<usize> {
    text.windows(pattern.len()).position(|window| window == pattern)
}

/// A key, in single quotes or a word, and what follows it.
fn key(text: &[u8]) -> Result<(Vec<u8>, &[u8]), &'static str> {
    let Some(mut rest) = text.strip_prefix(b"'") else {
        let end =
            text.iter().position(|byte| byte.is_ascii_whitespace() || *byte == b'\'').unwrap_or(text.len());
        let end = find(text, b"->").map_or(end, |arrow| arrow.min(end));
        let (word, rest) = text.split_at(end);
        return if word.is_empty() { Err("a step has no key") } else { Ok((word.to_vec(), rest)) };
    };
    let mut key = Vec::new();
    loop {
        let end = rest.iter().position(|&byte| byte == b'\'').ok_or("a quoted key does not end")?;
        key.extend_from_slice(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix(b"'") {
            Some(after) => {
                key.push(b'\'');
                rest = after;
            }
            None => return Ok((key, rest)),
        }
    }
}

/// The member of that name of a JSON object, the last one if there are several, as for PostgreSQL. The others
/// need only be JSON.
fn member<'a>(json: &'a str, key: &str) -> Option<&'a RawValue> {
    struct Member<'k>(&'k str);
    impl<'de> Visitor<'de> for Member<'_> {
        type Value = Option<&'de RawValue>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<M: MapAccess<'de>>(self, mut members: M) -> Result<Self::Value, M::Error> {
            let mut found = None;
            while let Some(name) = members.next_key::<Cow<'_, str>>()? {
                if name == self.0 {
                    found = Some(members.next_value()?);
                } else {
                    members.next_value::<IgnoredAny>()?;
                }
            }
            Ok(found)
        }
    }
    let mut document = serde_json::Deserializer::from_str(json);
    let found = document.deserialize_map(Member(key)).ok()?;
    document.end().ok()?;
    found
}

/// What a session knows: an actor is looked up in a document once.
struct Known {
    text: Vec<u8>,
    path: Option<ActorPath>,
    document: Vec<u8>,
    actor: Option<Vec<u8>>,
}

/// The actor that a path leads to now.
pub fn actor(text: &[u8]) -> Option<Vec<u8>> {
    thread_local!(static KNOWN: Cell<Option<Known>> = const { Cell::new(None) });
    let known = KNOWN.take().filter(|known| known.text == text);
    let mut known = known.unwrap_or_else(|| {
        let path = ActorPath::parse(text).ok();
        Known { text: text.to_vec(), path, document: Vec::new(), actor: None }
    });
    let actor = known.path.as_ref().and_then(|path| {
        let document = session::setting(&path.setting)?;
        if path.keys.is_empty() {
            return Some(document.to_vec());
        }
        if known.document != document {
            known.actor = path.actor(document);
            known.document = document.to_vec();
        }
        known.actor.clone()
    });
    KNOWN.set(Some(known));
    actor
}
