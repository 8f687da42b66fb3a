//! What is to be verified, and against what: the arguments of a call.

use crate::error::Error;
use crate::pg::fmgr::Call;
use crate::pg::xact;
use audit_chain_core::{check::Part, key::VerifierKey, supplied::SuppliedCheckpoint};
use pgrx::datum::TimestampWithTimeZone;
use serde_json::{Value, json};

/// What is to be verified.
#[derive(Default)]
pub struct Request {
    pub entries: Entries,
    /// A checkpoint that was kept elsewhere.
    pub supplied: Option<SuppliedCheckpoint>,
    pub keys: Vec<VerifierKey>,
    /// A checkpoint that is trusted: only what follows it is checked.
    pub trusted: Option<SuppliedCheckpoint>,
}

/// The entries to check.
#[derive(Default)]
pub struct Entries {
    pub chain: Option<i32>,
    pub since: Option<TimestampWithTimeZone>,
    pub until: Option<TimestampWithTimeZone>,
}

impl Entries {
    /// The part of the log that they are; `None` for the whole log.
    pub fn part(&self) -> Option<Part> {
        let range = self.since.is_some() || self.until.is_some();
        (self.chain.is_some() || range).then(|| Part { chain: self.chain.map(Into::into), range })
    }

    /// The condition that their rows meet, on the arguments `chain`, `since` and `until`.
    pub fn condition(&self) -> String {
        let conditions = [
            self.chain.map(|_| "chain = $1"),
            self.since.as_ref().map(|_| "at >= $2"),
            self.until.as_ref().map(|_| "at <= $3"),
        ];
        let conditions: Vec<_> = conditions.into_iter().flatten().collect();
        if conditions.is_empty() { String::new() } else { format!("WHERE {}", conditions.join(" AND ")) }
    }
}

impl Request {
    /// The arguments of `audit_verify()` and of the functions that have the same.
    pub fn of(call: &Call) -> Result<Self, Error> {
        let request = Self {
            entries: Entries { chain: call.arg(0), since: call.arg(1), until: call.arg(2) },
            supplied: checkpoint(call, 3)?,
            keys: keys(call, 4)?,
            trusted: checkpoint(call, 5)?,
        };
        if request.entries.part().is_some() && (request.supplied.is_some() || request.trusted.is_some()) {
            return Err(Error::PartAgainstCheckpoint);
        }
        Ok(request)
    }

    /// The arguments `checkpoint` and `public_key` of a procedure that checks the whole log.
    pub fn of_whole(call: &Call) -> Result<Self, Error> {
        Ok(Self { supplied: checkpoint(call, 0)?, keys: keys(call, 1)?, ..Self::default() })
    }

    /// Whether every entry of the log is to be checked.
    pub fn is_whole(&self) -> bool {
        self.entries.part().is_none() && self.trusted.is_none()
    }

    /// What is to be verified, as a VERIFY entry records it: what was given, and nothing else.
    pub fn to_json(&self) -> Value {
        let time = |at: &TimestampWithTimeZone| xact::json_time((*at).into());
        let given = json!({
            "only_chain": self.entries.chain,
            "since": self.entries.since.as_ref().map(time),
            "until": self.entries.until.as_ref().map(time),
            "checkpoint": self.supplied.as_ref().map(SuppliedCheckpoint::size),
            "since_checkpoint": self.trusted.as_ref().map(SuppliedCheckpoint::size),
            "public_keys": Some(self.keys.len()).filter(|&keys| keys > 0),
        });
        let Value::Object(given) = given else { return given };
        given.into_iter().filter(|(_, value)| !value.is_null()).collect()
    }
}

/// A checkpoint that was kept elsewhere, as an argument.
fn checkpoint(call: &Call, index: usize) -> Result<Option<SuppliedCheckpoint>, Error> {
    let parse = |note: String| {
        SuppliedCheckpoint::parse(note.as_bytes())
            .map_err(|error| Error::BadCheckpoint { reason: error.to_string() })
    };
    call.text(index).map(parse).transpose()
}

/// Verifier keys, one per line, as an argument.
fn keys(call: &Call, index: usize) -> Result<Vec<VerifierKey>, Error> {
    let parse = |text: String| {
        VerifierKey::parse_list(&text).map_err(|error| Error::BadKey { reason: error.to_string() })
    };
    call.text(index).map_or(Ok(Vec::new()), parse)
}
