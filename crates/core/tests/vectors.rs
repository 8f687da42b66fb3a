//! The test vectors of format 1, made by the Python implementation (`tests/vectors/`).

use audit_chain_core::{
    chain::Scope,
    check::EntryCheck,
    decode::LeafError,
    entry::{Defect, Scratch, StoredEntry},
    format::{Leaf, genesis},
};
use serde_json::Value;
use std::{fs, path::PathBuf};

const PAYLOAD: [&str; 5] = ["row_key", "old_row", "new_row", "detail", "statement"];

fn vectors() -> Value {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/format1.json");
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).expect("format1.json is JSON")
}

fn list<'a>(vectors: &'a Value, name: &str) -> &'a [Value] {
    let list = vectors[name].as_array().unwrap_or_else(|| panic!("format1.json has no {name}"));
    assert!(!list.is_empty(), "no vectors in {name}");
    list
}

/// A field's text, with `{"repeat": text, "times": n}` written out.
fn text(entry: &Value, field: &str) -> Option<String> {
    match &entry[field] {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        Value::Object(long) => {
            let times = usize::try_from(long["times"].as_u64().unwrap()).unwrap();
            Some(long["repeat"].as_str().unwrap().repeat(times))
        }
        other => panic!("{field} is {other}"),
    }
}

fn unhex<const N: usize>(entry: &Value, field: &str) -> [u8; N] {
    let digits = entry[field].as_str().unwrap_or_else(|| panic!("{field} is not text"));
    hex::decode(digits).unwrap().try_into().unwrap_or_else(|_| panic!("{field} is not {N} bytes"))
}

/// An entry's columns, owned.
struct Entry {
    value: Value,
    texts: [Option<String>; 8],
    payload: [Option<String>; 5],
    bytes: [Option<Vec<u8>>; 6],
}

impl Entry {
    fn new(value: &Value) -> Self {
        let bytes = |field: &str| value[field].as_str().map(|digits| hex::decode(digits).unwrap());
        Self {
            texts: [
                "operation",
                "table_schema",
                "table_name",
                "session_role",
                "effective_role",
                "actor",
                "application_name",
                "client_addr",
            ]
            .map(|field| text(value, field)),
            payload: PAYLOAD.map(|field| text(value, field)),
            bytes: ["who_salt", "who_digest", "salt", "payload_digest", "prev_hash", "hash"].map(bytes),
            value: value.clone(),
        }
    }

    fn stored(&self) -> StoredEntry<'_> {
        let [
            operation,
            table_schema,
            table_name,
            session_role,
            effective_role,
            actor,
            application_name,
            client_addr,
        ] = self.texts.each_ref().map(|text| text.as_deref().map(str::as_bytes));
        let [row_key, old_row, new_row, detail, statement] =
            self.payload.each_ref().map(|text| text.as_deref().map(str::as_bytes));
        let [who_salt, who_digest, salt, payload_digest, prev_hash, hash] =
            self.bytes.each_ref().map(Option::as_deref);
        StoredEntry {
            chain: self.value["chain"].as_i64().unwrap().try_into().unwrap(),
            seq: self.value["seq"].as_i64().unwrap(),
            at: self.value["at"].as_i64(),
            xid: self.value["xid"].as_str().unwrap().parse().ok(),
            operation,
            table_schema,
            table_name,
            session_role,
            effective_role,
            actor,
            application_name,
            client_addr,
            who_salt,
            who_digest,
            row_key,
            old_row,
            new_row,
            detail,
            statement,
            salt,
            payload_digest,
            prev_hash,
            hash,
        }
    }
}

#[test]
fn genesis_hashes() {
    for vector in list(&vectors(), "genesis") {
        let log_id: [u8; 16] =
            hex::decode(vector["log_id"].as_str().unwrap().replace('-', "")).unwrap().try_into().unwrap();
        let chain = u32::try_from(vector["chain"].as_u64().unwrap()).unwrap();
        assert_eq!(genesis(&log_id, chain), unhex(vector, "genesis"), "{vector}");
    }
}

#[test]
fn entries() {
    for vector in list(&vectors(), "entries") {
        let name = vector["name"].as_str().unwrap();
        let entry = Entry::new(&vector["entry"]);
        let (stored, scratch) = (entry.stored(), &mut Scratch::default());
        let bytes = stored.encode(scratch).unwrap_or_else(|defect| panic!("{name}: {defect}")).to_vec();
        let leaf = Leaf::decode(&bytes).unwrap_or_else(|error: LeafError| panic!("{name}: {error}"));
        let who_digest = vector["who_digest"].as_str().unwrap();
        assert_eq!(hex::encode(leaf.who_digest), who_digest, "{name}: who_digest");
        let digest = vector["payload_digest"].as_str().unwrap();
        assert_eq!(hex::encode(leaf.payload_digest), digest, "{name}: payload_digest");
        assert_eq!(Some(bytes.len() as u64), vector["leaf_length"].as_u64(), "{name}: leaf_length");
        if let Some(expected) = vector["leaf"].as_str() {
            assert_eq!(hex::encode(&bytes), expected, "{name}: leaf");
        }
        assert_eq!(stored.check(scratch), Ok(leaf.hash()), "{name}: hash");
    }
}

#[test]
fn what_no_entry_can_hold_is_refused() {
    for vector in list(&vectors(), "refused") {
        let entry = Entry::new(&vector["entry"]);
        let encoded = entry.stored().check(&mut Scratch::default());
        assert!(
            matches!(encoded, Err(Defect::Column { .. } | Defect::WhoBesideDigest)),
            "{}: {encoded:?}",
            vector["name"]
        );
    }
}

#[test]
fn intact_and_broken_logs() {
    for log in list(&vectors(), "logs") {
        let name = log["name"].as_str().unwrap();
        let log_id: [u8; 16] =
            hex::decode(log["log_id"].as_str().unwrap().replace('-', "")).unwrap().try_into().unwrap();
        let mut check = EntryCheck::new();
        log["entries"]
            .as_array()
            .unwrap()
            .iter()
            .for_each(|entry| check.add_stored(&Entry::new(entry).stored()));
        let found: Vec<Value> = check
            .finish(Some(&log_id), Scope::Whole)
            .problems
            .into_sorted()
            .iter()
            .map(|problem| serde_json::json!([problem.kind, problem.chain, problem.seq]))
            .collect();
        assert_eq!(Value::from(found), log["problems"], "{name}");
    }
}
