//! What hashing and checking cost for each entry: `cargo bench -p audit-chain-core`.

use audit_chain_core::{
    chain::{ChainCheck, Link, Scope},
    format::{Leaf, Payload, genesis},
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

fn leaf_hash(c: &mut Criterion) {
    let leaf = Leaf {
        chain: 3,
        seq: 123_456,
        prev_hash: [1; 32],
        at: 1_700_000_000_000_001,
        xid: 4_294_967_400,
        operation: b"UPDATE",
        table_schema: Some(b"public"),
        table_name: Some(b"accounts"),
        session_role: b"application",
        effective_role: b"application",
        actor: Some(b"alice@example.org"),
        application_name: Some(b"web"),
        client_addr: Some(b"192.0.2.7"),
        payload_digest: [2; 32],
    };
    let mut scratch = Vec::new();
    c.bench_function("leaf hash", |b| b.iter(|| black_box(&leaf).hash_with(&mut scratch)));
}

/// Entries of `chains` chains, one of each in turn, as concurrent writers leave them.
fn links(chains: u32, length: u64) -> Vec<Link> {
    let hash = |chain: u32, seq: u64| {
        let mut hash = [0; 32];
        hash[..4].copy_from_slice(&chain.to_be_bytes());
        hash[4..12].copy_from_slice(&seq.to_be_bytes());
        hash
    };
    let link = |chain, seq| Link {
        chain,
        seq,
        prev_hash: if seq == 1 { genesis(&LOG, chain) } else { hash(chain, seq - 1) },
        hash: hash(chain, seq),
        at: seq as i64,
    };
    (1..=length).flat_map(|seq| (0..chains).map(move |chain| link(chain, seq))).collect()
}

fn chain_check(c: &mut Criterion) {
    const ENTRIES: u64 = 32_768;
    let mut group = c.benchmark_group("ChainCheck::add");
    group.throughput(Throughput::Elements(ENTRIES));
    for chains in [1, 32] {
        let ordered = links(chains, ENTRIES / u64::from(chains));
        let mut reversed = ordered.clone();
        reversed.reverse();
        for (order, links) in [("in order", ordered), ("in reverse", reversed)] {
            group.bench_function(format!("{chains} chains, {order}"), |b| {
                b.iter_batched_ref(
                    ChainCheck::new,
                    |check| links.iter().for_each(|link| check.add(link)),
                    BatchSize::SmallInput,
                );
            });
        }
    }
    group.finish();

    let links = links(32, 1024);
    let mut check = ChainCheck::new();
    links.iter().rev().for_each(|link| check.add(link));
    assert!(check.clone().finish(Some(&LOG), Scope::Whole).problems.is_empty());
    c.bench_function("ChainCheck::finish, 32 chains in reverse", |b| {
        b.iter_batched(
            || check.clone(),
            |check| check.finish(Some(&LOG), Scope::Whole),
            BatchSize::SmallInput,
        );
    });
}

criterion_group!(benches, payload_digest, leaf_hash, chain_check);
criterion_main!(benches);
