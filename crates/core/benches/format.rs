//! What hashing and checking cost for each entry: `cargo bench -p audit-chain-core`.

use audit_chain_core::{
    Hash,
    chain::Scope,
    check::EntryCheck,
    entry::{EncodedEntry, ExportedPayload, ExportedWho},
    format::{Leaf, Payload, Who, WhoDigests, genesis},
};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;

const LOG: [u8; 16] = [7; 16];

fn payload_digest(c: &mut Criterion) {
    let mut group = c.benchmark_group("payload digest");
    for size in [0, 100, 300, 1000, 10_000] {
        let row = vec![b'x'; size];
        let payload =
            Payload { row_key: Some(br#"{"id":12345}"#), new_row: Some(&row), ..Payload::default() };
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(format!("new_row of {size} bytes"), |b| b.iter(|| black_box(&payload).digest()));
    }
    group.finish();
}

const LEAF: Leaf<'static> = Leaf {
    chain: 3,
    seq: 123_456,
    prev_hash: [1; 32],
    at: 1_700_000_000_000_001,
    xid: 4_294_967_400,
    operation: b"UPDATE",
    table_schema: Some(b"public"),
    table_name: Some(b"accounts"),
    who_digest: [3; 32],
    payload_digest: [2; 32],
};

const WHO: Who<'static> = Who {
    salt: [4; 16],
    session_role: b"application",
    effective_role: b"application",
    actor: Some(b"alice@example.org"),
    application_name: Some(b"web"),
    client_addr: Some(b"192.0.2.7"),
};

fn who_digest(c: &mut Criterion) {
    let mut scratch = Vec::new();
    c.bench_function("who digest", |b| b.iter(|| black_box(&WHO).digest_with(&mut scratch)));
    let mut digests = WhoDigests::default();
    c.bench_function("who digest, remembered", |b| b.iter(|| digests.digest(black_box(&WHO))));
}

fn leaf_hash(c: &mut Criterion) {
    let mut scratch = Vec::new();
    c.bench_function("leaf hash", |b| b.iter(|| black_box(&LEAF).hash_with(&mut scratch)));
}

/// An entry with its bytes and its hash.
struct Exported {
    chain: u32,
    seq: u64,
    leaf: Vec<u8>,
    hash: Hash,
}

impl Exported {
    fn entry(&self) -> EncodedEntry<'_> {
        let Self { chain, seq, ref leaf, hash } = *self;
        let (who, payload) = (ExportedWho::Erased, ExportedPayload::Erased);
        EncodedEntry { chain, seq, leaf, hash, who, payload, payload_place: (chain, seq) }
    }
}

/// Entries of `chains` chains, one of each in turn, as concurrent writers leave them.
fn entries(chains: u32, length: u64) -> Vec<Exported> {
    let mut heads: Vec<Hash> = (0..chains).map(|chain| genesis(&LOG, chain)).collect();
    let mut entry = |chain: u32, seq: u64| {
        let head = &mut heads[chain as usize];
        let leaf = Leaf { chain, seq, prev_hash: *head, at: seq as i64, operation: b"UPDATE", ..LEAF };
        *head = leaf.hash();
        let mut bytes = Vec::new();
        leaf.encode(&mut bytes);
        Exported { chain, seq, leaf: bytes, hash: *head }
    };
    (1..=length)
        .flat_map(|seq| (0..chains).map(move |chain| (chain, seq)))
        .map(|(chain, seq)| entry(chain, seq))
        .collect()
}

fn entry_check(c: &mut Criterion) {
    const ENTRIES: u64 = 32_768;
    let mut group = c.benchmark_group("EntryCheck::add_encoded");
    group.throughput(Throughput::Elements(ENTRIES));
    for chains in [1, 32] {
        let mut entries = entries(chains, ENTRIES / u64::from(chains));
        for order in ["in order", "in reverse"] {
            group.bench_function(format!("{chains} chains, {order}"), |b| {
                b.iter_batched_ref(
                    EntryCheck::new,
                    |check| entries.iter().for_each(|exported| check.add_encoded(&exported.entry())),
                    BatchSize::SmallInput,
                );
            });
            entries.reverse();
        }
    }
    group.finish();

    let entries = entries(32, 1024);
    let mut check = EntryCheck::new();
    entries.iter().rev().for_each(|exported| check.add_encoded(&exported.entry()));
    assert_eq!(check.clone().finish(Some(&LOG), Scope::Whole).problems.count(), 0);
    c.bench_function("EntryCheck::finish, 32 chains in reverse", |b| {
        b.iter_batched(
            || check.clone(),
            |check| check.finish(Some(&LOG), Scope::Whole),
            BatchSize::SmallInput,
        );
    });
}

criterion_group!(benches, payload_digest, who_digest, leaf_hash, entry_check);
criterion_main!(benches);
