//! The lines and files of an export besides its tiles and entry bundles.
//!
//! **Invariant**: the texts of payload and who-part stand in it as JSON strings, so that the bytes that were
//! hashed come back exactly.

use crate::{
    outcome::{Failure, OrFailure, Result},
    source::Entry,
};
use audit_chain_core::{
    Hash,
    check::RecordedCheckpoint,
    entry::{Defect, Exported, ExportedPayload, ExportedWho},
    format,
    identity::{LogIdentity, StoredIdentity},
    span::Span,
    tile::index_path,
};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde::{Deserialize, Serialize};

/// The version of the export's layout.
pub const EXPORT_FORMAT: u32 = 1;

/// How many entries one payload file holds.
pub const PAYLOAD_FILE: u64 = 65_536;

/// The longest `log.json`.
pub const MAX_LOG_JSON: usize = 64 * 1024;

/// The longest line of `spans.jsonl`.
pub const MAX_SPAN_LINE: usize = 256;

/// The longest line of `checkpoints.jsonl`: a note, escaped.
pub const MAX_CHECKPOINT_LINE: usize = 512 * 1024;

/// The longest payload line unless the command line says otherwise, in MiB.
pub const DEFAULT_MAX_ENTRY_MIB: usize = 256;

/// The path of the payload file that holds an entry, within the export.
#[must_use]
pub fn payload_path(leaf_index: u64) -> String {
    format!("payload/{}.jsonl.zst", index_path(leaf_index / PAYLOAD_FILE))
}

/// `log.json`: what an export is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogJson {
    /// [`EXPORT_FORMAT`].
    pub export_format: u32,
    /// The log's first identity, in hex; null for a log without entries.
    pub log_id: Option<String>,
    /// Its later identities, in hex, each with the number of entries that checkpoints of the identity before
    /// it seal.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forks: Vec<(String, u64)>,
    /// How many entries the newest checkpoint seals: those that are exported.
    pub tree_size: u64,
    /// Whether `unsealed.jsonl.zst` is there: entries that no checkpoint seals yet.
    pub unsealed: bool,
    /// What was pruned from the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pruned: Option<PrunedJson>,
    /// The segments that were exported, if not all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segments: Option<Vec<u32>>,
    /// Whether the payloads are there. One that was removed later makes the export one without payloads too.
    #[serde(default = "yes", skip_serializing_if = "Clone::clone")]
    pub payloads: bool,
}

/// What was pruned from a log, as `log.json` says it. The entry about it is in `records.jsonl.zst`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrunedJson {
    /// How many segments, the first ones.
    pub segments: u32,
    /// The first leaf of the tree whose entry remains.
    pub minimum_index: u64,
    /// The place of the entry about it.
    pub chain: u32,
    /// The place of the entry about it.
    pub seq: u64,
}

fn yes() -> bool {
    true
}

impl LogJson {
    /// Reads `log.json`.
    pub fn parse(bytes: &[u8]) -> Result<(Self, Option<LogIdentity>)> {
        let log: Self = serde_json::from_slice(bytes).or_unchecked("log.json")?;
        if log.export_format != EXPORT_FORMAT {
            return Err(Failure::Unchecked(format!(
                "the export has layout {}, this program knows layout {EXPORT_FORMAT}: use a newer audit-chain",
                log.export_format
            )));
        }
        let identity = log.identity().or_unchecked("log.json")?;
        Ok((log, identity))
    }

    fn identity(&self) -> std::result::Result<Option<LogIdentity>, String> {
        let id = |text: &str| hex_array(text).ok_or("an identity is not 16 bytes in hex");
        let mut stored: Vec<StoredIdentity> = Vec::new();
        if let Some(log_id) = &self.log_id {
            stored.push((id(log_id)?, None));
        }
        for (fork, size) in &self.forks {
            let before = stored.last().map(|&(before, _)| before).ok_or("forks without log_id")?;
            stored.push((id(fork)?, Some((before, *size))));
        }
        LogIdentity::from_stored(&stored)
    }
}

/// A line of `spans.jsonl`: `[leaf_index, chain, first_seq, last_seq]`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct SpanLine(u64, u32, u64, u64);

impl From<Span> for SpanLine {
    fn from(span: Span) -> Self {
        Self(span.leaf_index, span.chain, span.first_seq, span.last_seq)
    }
}

/// Reads a line of `spans.jsonl`.
pub fn parse_span(line: &[u8]) -> std::result::Result<Span, serde_json::Error> {
    let SpanLine(leaf_index, chain, first_seq, last_seq) = serde_json::from_slice(line)?;
    Ok(Span { leaf_index, chain, first_seq, last_seq })
}

/// A line of `checkpoints.jsonl`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CheckpointLine {
    tree_size: u64,
    root: String,
    note: String,
}

/// Reads a line of `checkpoints.jsonl`.
pub fn parse_checkpoint(line: &[u8]) -> std::result::Result<RecordedCheckpoint, String> {
    let line: CheckpointLine = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let root: Hash = hex_array(&line.root).ok_or("a root is not 32 bytes in hex")?;
    Ok(RecordedCheckpoint { size: line.tree_size, root: root.to_vec(), note: line.note })
}

/// The line that [`parse_checkpoint`] reads.
#[must_use]
pub fn checkpoint_line(recorded: &RecordedCheckpoint) -> String {
    to_line(&CheckpointLine {
        tree_size: recorded.size,
        root: hex::encode(&recorded.root),
        note: recorded.note.clone(),
    })
}

/// The file of entries that say what became of others.
pub const RECORDS: &str = "records.jsonl.zst";

/// The line of a payload file that stands for a leaf whose entry is not exported: it was pruned, or is of
/// another segment.
pub const NOT_EXPORTED: &str = "null\n";

/// A line of a payload file, and of `unsealed.jsonl.zst` and `records.jsonl.zst`, where it has the leaf and
/// the hash too.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct EntryLine {
    chain: u32,
    seq: u64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    erased: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    salt: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    row_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    old_row: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    new_row: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    statement: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    erased_who: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    who_salt: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_role: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    effective_role: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    actor: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    application_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_addr: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    leaf: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hash: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    leaf_index: Option<u64>,
}

/// An entry that says what became of others as a line: with its leaf, hash and leaf index, without its
/// who-part.
pub fn record_line(
    entry: &Entry<'_>,
    leaf_index: Option<u64>,
) -> std::result::Result<Option<String>, Defect> {
    let Some(line) = entry_fields(entry, true)? else { return Ok(None) };
    Ok(Some(to_line(&EntryLine {
        leaf_index,
        erased_who: true,
        who_salt: None,
        session_role: None,
        effective_role: None,
        actor: None,
        application_name: None,
        client_addr: None,
        ..line
    })))
}

/// An entry's who-part and payload as a line; with its leaf and hash if `complete`. `None` if the source has
/// them not. A defect keeps the entry from being written.
pub fn entry_line(entry: &Entry<'_>, complete: bool) -> std::result::Result<Option<String>, Defect> {
    Ok(entry_fields(entry, complete)?.as_ref().map(to_line))
}

fn entry_fields(entry: &Entry<'_>, complete: bool) -> std::result::Result<Option<EntryLine>, Defect> {
    let leaf = if complete { Some(entry.leaf()?) } else { None };
    let payload = match entry.payload() {
        Exported::Present(payload) => Some(payload),
        Exported::Erased => None,
        Exported::Absent => return Ok(None),
    };
    let who = match entry.who() {
        Exported::Present(who) => Some(who),
        Exported::Erased => None,
        Exported::Absent => return Ok(None),
    };
    let text = |text: Option<&[u8]>| text.map(|text| String::from_utf8_lossy(text).into_owned());
    let (chain, seq) = entry.place().unwrap_or((u32::MAX, 0));
    Ok(Some(EntryLine {
        chain,
        seq,
        erased: payload.is_none(),
        salt: payload.map(|payload| hex::encode(payload.salt)),
        row_key: payload.and_then(|payload| text(payload.row_key)),
        old_row: payload.and_then(|payload| text(payload.old_row)),
        new_row: payload.and_then(|payload| text(payload.new_row)),
        detail: payload.and_then(|payload| text(payload.detail)),
        statement: payload.and_then(|payload| text(payload.statement)),
        erased_who: who.is_none(),
        who_salt: who.map(|who| hex::encode(who.salt)),
        session_role: who.and_then(|who| text(Some(who.session_role))),
        effective_role: who.and_then(|who| text(Some(who.effective_role))),
        actor: who.and_then(|who| text(who.actor)),
        application_name: who.and_then(|who| text(who.application_name)),
        client_addr: who.and_then(|who| text(who.client_addr)),
        leaf: leaf.map(|leaf| BASE64_STANDARD.encode(leaf)),
        hash: complete.then(|| hex::encode(entry.hash().unwrap_or_default())),
        leaf_index: None,
    }))
}

/// An entry's payload, as a line holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// The salt.
    pub salt: [u8; 16],
    /// `row_key`, `old_row`, `new_row`, `detail`, `statement`.
    pub texts: [Option<String>; 5],
}

impl Payload {
    /// The payload as its digest covers it.
    #[must_use]
    pub fn as_hashed(&self) -> format::Payload<'_> {
        let [row_key, old_row, new_row, detail, statement] =
            self.texts.each_ref().map(|text| text.as_ref().map(String::as_bytes));
        format::Payload { salt: self.salt, row_key, old_row, new_row, detail, statement }
    }
}

/// An entry's who-part, as a line holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Who {
    pub salt: [u8; 16],
    pub session_role: String,
    pub effective_role: String,
    pub actor: Option<String>,
    pub application_name: Option<String>,
    pub client_addr: Option<String>,
}

impl Who {
    /// The who-part as its digest covers it.
    #[must_use]
    pub fn as_hashed(&self) -> format::Who<'_> {
        format::Who {
            salt: self.salt,
            session_role: self.session_role.as_bytes(),
            effective_role: self.effective_role.as_bytes(),
            actor: self.actor.as_ref().map(String::as_bytes),
            application_name: self.application_name.as_ref().map(String::as_bytes),
            client_addr: self.client_addr.as_ref().map(String::as_bytes),
        }
    }
}

/// What a line says of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsedEntry {
    /// Which entry.
    pub place: (u32, u64),
    /// Its payload; `None` if it has been erased.
    pub payload: Option<Payload>,
    /// Its who-part; `None` if it has been erased.
    pub who: Option<Who>,
    /// Its leaf and hash, in a line of `unsealed.jsonl.zst` or `records.jsonl.zst`.
    pub leaf_and_hash: Option<(Vec<u8>, Hash)>,
    /// Its place in the tree, in a line of `records.jsonl.zst`.
    pub leaf_index: Option<u64>,
}

impl ParsedEntry {
    /// The payload, as the check takes it.
    #[must_use]
    pub fn exported_payload(&self) -> ExportedPayload<'_> {
        Exported::of(self.payload.as_ref().map(Payload::as_hashed))
    }

    /// The who-part, as the check takes it.
    #[must_use]
    pub fn exported_who(&self) -> ExportedWho<'_> {
        Exported::of(self.who.as_ref().map(Who::as_hashed))
    }
}

/// The place of the entry that a line is about; `None` if the line stands for one that is not exported.
pub fn place_of(line: &[u8]) -> std::result::Result<Option<(u32, u64)>, String> {
    let line: Option<EntryLine> = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    Ok(line.map(|line| (line.chain, line.seq)))
}

/// The line without its payload, its who-part or both, and which of them it had; `None` if it has none of
/// them.
pub fn erase_line(
    line: &[u8],
    payload: bool,
    who: bool,
) -> std::result::Result<Option<(String, [bool; 2])>, String> {
    let mut line: EntryLine = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let lost = [payload && !line.erased, who && !line.erased_who];
    if lost[0] {
        (line.erased, line.salt) = (true, None);
        let EntryLine { row_key, old_row, new_row, detail, statement, .. } = &mut line;
        [row_key, old_row, new_row, detail, statement].into_iter().for_each(|text| *text = None);
    }
    if lost[1] {
        (line.erased_who, line.who_salt) = (true, None);
        let EntryLine { session_role, effective_role, actor, application_name, client_addr, .. } = &mut line;
        [session_role, effective_role, actor, application_name, client_addr]
            .into_iter()
            .for_each(|text| *text = None);
    }
    Ok((lost != [false; 2]).then(|| (to_line(&line), lost)))
}

/// Reads a line that [`entry_line`] wrote.
pub fn parse_entry(line: &[u8]) -> std::result::Result<ParsedEntry, String> {
    let line: EntryLine = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let texts = [line.row_key, line.old_row, line.new_row, line.detail, line.statement];
    let payload = if line.erased {
        if line.salt.is_some() || texts.iter().any(Option::is_some) {
            return Err("a payload is marked as erased and present".into());
        }
        None
    } else {
        let salt = line.salt.as_deref().and_then(hex_array).ok_or("a salt is not 16 bytes in hex")?;
        Some(Payload { salt, texts })
    };
    let who = if line.erased_who {
        let texts = [
            &line.session_role,
            &line.effective_role,
            &line.actor,
            &line.application_name,
            &line.client_addr,
        ];
        if line.who_salt.is_some() || texts.into_iter().any(Option::is_some) {
            return Err("a who-part is marked as erased and present".into());
        }
        None
    } else {
        let salt = line.who_salt.as_deref().and_then(hex_array);
        let (Some(session_role), Some(effective_role)) = (line.session_role, line.effective_role) else {
            return Err("a who-part lacks a role".into());
        };
        Some(Who {
            salt: salt.ok_or("a who_salt is not 16 bytes in hex")?,
            session_role,
            effective_role,
            actor: line.actor,
            application_name: line.application_name,
            client_addr: line.client_addr,
        })
    };
    let leaf_and_hash = match (line.leaf, line.hash) {
        (None, None) => None,
        (Some(leaf), Some(hash)) => {
            let leaf = BASE64_STANDARD.decode(leaf).map_err(|_| "a leaf is not base64")?;
            Some((leaf, hex_array(&hash).ok_or("a hash is not 32 bytes in hex")?))
        }
        _ => return Err("a leaf without its hash, or a hash without its leaf".into()),
    };
    let leaf_index = line.leaf_index;
    Ok(ParsedEntry { place: (line.chain, line.seq), payload, who, leaf_and_hash, leaf_index })
}

fn to_line(value: &impl Serialize) -> String {
    let mut line = serde_json::to_string(value).expect("strings and numbers are JSON");
    line.push('\n');
    line
}

fn hex_array<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use audit_chain_core::entry::EncodedEntry;

    #[test]
    fn the_bytes_of_payload_and_who_part_survive_the_line() {
        let text = "{\"a\" :\n 1.0e5,\t\"ü\u{1F600}\\u0000\": \"\u{7f}\"}";
        let payload =
            Payload { salt: [9; 16], texts: [None, Some(text.into()), Some(String::new()), None, None] };
        let who = Who {
            salt: [8; 16],
            session_role: "app".into(),
            effective_role: "\"ö\"\n".into(),
            actor: Some(text.into()),
            application_name: Some(String::new()),
            client_addr: None,
        };
        let encoded = EncodedEntry {
            chain: 1,
            seq: 2,
            leaf: &[1, 2],
            hash: [3; 32],
            who: Exported::Present(who.as_hashed()),
            payload: Exported::Present(payload.as_hashed()),
            payload_place: (1, 2),
        };
        let line = entry_line(&Entry::Encoded(encoded), true).unwrap().unwrap();
        assert_eq!(line.matches('\n').count(), 1);
        let parsed = parse_entry(line.as_bytes()).unwrap();
        let leaf_and_hash = Some((vec![1, 2], [3; 32]));
        let whole = ParsedEntry {
            place: (1, 2),
            payload: Some(payload.clone()),
            who: Some(who.clone()),
            leaf_and_hash,
            leaf_index: None,
        };
        assert_eq!(parsed, whole);
        assert_eq!((parsed.exported_payload(), parsed.exported_who()), (encoded.payload, encoded.who));
        for absent in [
            EncodedEntry { payload: Exported::Absent, ..encoded },
            EncodedEntry { who: Exported::Absent, ..encoded },
        ] {
            assert_eq!(entry_line(&Entry::Encoded(absent), false).unwrap(), None);
        }
        let read =
            |entry| parse_entry(entry_line(&Entry::Encoded(entry), false).unwrap().unwrap().as_bytes());
        let whole = ParsedEntry { leaf_and_hash: None, ..whole };
        let erased = EncodedEntry { payload: Exported::Erased, ..encoded };
        assert_eq!(read(erased), Ok(ParsedEntry { payload: None, ..whole.clone() }));
        assert_eq!(
            read(EncodedEntry { who: Exported::Erased, ..encoded }),
            Ok(ParsedEntry { who: None, ..whole.clone() })
        );
        assert_eq!(
            read(EncodedEntry { who: Exported::Erased, ..erased }),
            Ok(ParsedEntry { payload: None, who: None, ..whole })
        );
    }

    #[test]
    fn malformed_lines_are_refused() {
        for line in [
            "",
            "{}",
            "[]",
            "{\"chain\":-1}",
            "{\"erased\":true}",
            "{\"erased_who\":true}",
            "{\"erased_who\":true,\"seq\":1,\"salt\":\"00\"}",
            "{\"erased\":true,\"erased_who\":true,\"detail\":\"{}\"}",
            "{\"erased\":true,\"erased_who\":true,\"hash\":\"00\"}",
            "{\"erased\":true,\"erased_who\":true,\"unknown\":1}",
            "{\"erased\":true,\"erased_who\":null}",
        ] {
            assert!(parse_entry(line.as_bytes()).is_err(), "{line}");
        }
        let salt = "00".repeat(16);
        let roles = "\"session_role\":\"\",\"effective_role\":\"\"";
        let of_who = |rest: &str| parse_entry(format!("{{\"erased\":true,{rest}}}").as_bytes());
        assert!(of_who(&format!("{roles},\"who_salt\":\"{salt}\"")).is_ok());
        assert!(of_who("\"erased_who\":true").is_ok());
        for rest in [
            roles.into(),
            format!("{roles},\"who_salt\":\"{}\"", &salt[1..]),
            format!("{roles},\"who_salt\":\"{salt}\",\"who_salt\":\"{salt}\""),
            format!("\"session_role\":\"\",\"who_salt\":\"{salt}\""),
            format!("\"effective_role\":\"\",\"who_salt\":\"{salt}\""),
            format!("\"effective_role\":null,\"session_role\":\"\",\"who_salt\":\"{salt}\""),
            format!("\"erased_who\":true,\"who_salt\":\"{salt}\""),
            "\"erased_who\":true,\"session_role\":\"\"".into(),
            "\"erased_who\":true,\"effective_role\":\"\"".into(),
            "\"erased_who\":true,\"actor\":\"\"".into(),
            "\"erased_who\":true,\"application_name\":\"\"".into(),
            "\"erased_who\":true,\"client_addr\":\"\"".into(),
        ] {
            assert!(of_who(&rest).is_err(), "{rest}");
        }
        assert!(parse_span(b"[1,2,3]").is_err() && parse_span(b"[1,2,3,4,5]").is_err());
        assert!(parse_checkpoint(b"{\"tree_size\":1,\"root\":\"00\",\"note\":\"\"}").is_err());
        for log in ["", "{}", "{\"export_format\":2,\"log_id\":null,\"tree_size\":0,\"unsealed\":false}"] {
            assert!(LogJson::parse(log.as_bytes()).is_err(), "{log}");
        }
    }
}
