//! The test vectors of format 1, made by the Python implementation (`tests/vectors/`).

use audit_chain_core::{
    Hash,
    chain::{ChainCheck, Link, Problem, ProblemKind, Scope},
    format::{Leaf, Payload, genesis},
};
use serde_json::Value;
use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
};

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

/// An entry's fields, owned.
struct Entry {
    value: Value,
    salt: Option<[u8; 16]>,
    texts: [Option<String>; 8],
    payload: [Option<String>; 5],
    erased: Option<Hash>,
}

impl Entry {
    fn new(value: &Value) -> Self {
        Self {
            salt: value["salt"].is_string().then(|| unhex(value, "salt")),
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
            erased: value["payload_digest"].is_string().then(|| unhex(value, "payload_digest")),
            value: value.clone(),
        }
    }

    /// The payload's digest; `None` where section 4 of the specification allows none.
    fn digest(&self) -> Option<Hash> {
        let blob = |n: usize| self.payload[n].as_deref().map(str::as_bytes);
        match (self.erased, self.salt) {
            (None, Some(salt)) => Some(
                Payload {
                    salt,
                    row_key: blob(0),
                    old_row: blob(1),
                    new_row: blob(2),
                    detail: blob(3),
                    statement: blob(4),
                }
                .digest(),
            ),
            (Some(digest), None) if self.payload.iter().all(Option::is_none) => Some(digest),
            _ => None,
        }
    }

    fn leaf(&self, payload_digest: Hash) -> Leaf<'_> {
        let opt = |n: usize| self.texts[n].as_deref().map(str::as_bytes);
        Leaf {
            chain: u32::try_from(self.value["chain"].as_u64().unwrap()).unwrap(),
            seq: self.value["seq"].as_u64().unwrap(),
            prev_hash: unhex(&self.value, "prev_hash"),
            at: self.value["at"].as_i64().unwrap(),
            xid: self.value["xid"].as_str().unwrap().parse().unwrap(),
            operation: opt(0).unwrap(),
            table_schema: opt(1),
            table_name: opt(2),
            session_role: opt(3).unwrap(),
            effective_role: opt(4).unwrap(),
            actor: opt(5),
            application_name: opt(6),
            client_addr: opt(7),
            payload_digest,
        }
    }

    fn hash(&self) -> Hash {
        unhex(&self.value, "hash")
    }

    fn is_unaltered(&self) -> bool {
        self.digest().is_some_and(|digest| self.leaf(digest).hash() == self.hash())
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
        let digest = entry.digest().unwrap_or_else(|| panic!("{name}: no digest"));
        assert_eq!(hex::encode(digest), vector["payload_digest"].as_str().unwrap(), "{name}: payload_digest");
        let leaf = entry.leaf(digest);
        let mut bytes = Vec::new();
        leaf.encode(&mut bytes);
        assert_eq!(Some(bytes.len() as u64), vector["leaf_length"].as_u64(), "{name}: leaf_length");
        if let Some(expected) = vector["leaf"].as_str() {
            assert_eq!(hex::encode(&bytes), expected, "{name}: leaf");
        }
        assert_eq!(hex::encode(leaf.hash()), hex::encode(entry.hash()), "{name}: hash");
    }
}

#[test]
fn over_long_text_is_refused() {
    for vector in list(&vectors(), "refused") {
        let entry = Entry::new(&vector["entry"]);
        let digest = entry.digest().unwrap();
        let encoded = catch_unwind(AssertUnwindSafe(|| entry.leaf(digest).hash()));
        assert!(encoded.is_err(), "{}: encoded", vector["name"]);
    }
}

#[test]
fn whole_and_broken_logs() {
    for log in list(&vectors(), "logs") {
        let name = log["name"].as_str().unwrap();
        let log_id: [u8; 16] =
            hex::decode(log["log_id"].as_str().unwrap().replace('-', "")).unwrap().try_into().unwrap();
        let mut check = ChainCheck::new();
        for entry in log["entries"].as_array().unwrap().iter().map(Entry::new) {
            let leaf = entry.leaf([0; 32]);
            check.add(&Link {
                chain: leaf.chain,
                seq: leaf.seq,
                prev_hash: leaf.prev_hash,
                hash: entry.hash(),
                at: leaf.at,
            });
            if !entry.is_unaltered() {
                check.add_problem(Problem {
                    kind: ProblemKind::Altered,
                    chain: Some(leaf.chain.into()),
                    seq: i64::try_from(leaf.seq).ok(),
                    table_name: None,
                    detail: String::new(),
                });
            }
        }
        let found: Vec<Value> = check
            .finish(Some(&log_id), Scope::Whole)
            .problems
            .iter()
            .map(|problem| serde_json::json!([problem.kind, problem.chain, problem.seq]))
            .collect();
        assert_eq!(Value::from(found), log["problems"], "{name}");
    }
}
