//! `audit_checkpoint()`: seals what the log has gained since the last one.
//!
//! **Invariants**
//! * One checkpoint at a time: the lock is the transaction's. What is read is what is committed once the lock is held,
//!   whatever the isolation level, so every checkpoint continues the one before.
//! * All or nothing: spans, tiles and the checkpoint itself come with one transaction.
//! * Memory does not grow with the log: entries stream through the tree's right edge.
//! * What is handed out is durable: a crash does not undo a checkpoint that somebody has.

use crate::error::{OrRaise, Refusal};
use crate::log::transaction as chain;
use crate::pg::fmgr::Call;
use crate::pg::lock::{Lockable, lock};
use crate::pg::session::{AsRole, LocalSettings};
use crate::pg::text::Text;
use crate::pg::{catalog, numbers as ledger, xact};
use crate::settings;
use crate::tree::store::Ledger;
use audit_chain_core::{
    Hash,
    checkpoint::{Checkpoint, default_origin},
    key::{KeyKind, MAX_KEY, SigningKey},
    note::Note,
    span::Span,
    tile::CompleteTile,
    tree::TreeFrontier,
};
use pgrx::pg_sys::Datum;
use std::io::Read;
use std::os::unix::fs::MetadataExt;

/// How many tiles are written at once: 1 MB.
const TILES: usize = 128;

/// `audit_checkpoint() RETURNS text`
pub fn checkpoint(call: Call) -> Datum {
    xact::refuse_if_read_only(c"audit_checkpoint()");
    let note = seal(call).or_raise();
    call.returns(Text(note))
}

fn seal(call: Call) -> Result<String, Refusal> {
    chain::flush();
    let ledger = Ledger::beside(call.function())?;
    let key = signing_key()?;
    let _path = LocalSettings::safe_search_path();
    let _role = AsRole::become_role(catalog::extension_owner());
    lock(ledger.tables.log, Lockable::Checkpoint);
    // What was committed while this one waited counts: the statement's own snapshot is older.
    let _now = xact::ActiveSnapshot::push_latest();

    let log_id = ledger.identity()?.ok_or(Refusal::NothingToSeal)?;
    let last = ledger.checkpoint(None);
    let size = last.as_ref().map_or(0, |last| last.size);
    let spans = new_spans(&ledger, size)?;
    let Some(end) = spans.last() else {
        return last.map(|last| last.note).ok_or(Refusal::NothingToSeal);
    };
    let end = end.leaf_index + end.entries();

    let mut frontier = ledger.frontier(size)?;
    if let Some(last) = last
        && last.root != frontier.root()
    {
        return Err(Refusal::DamagedTree {
            reason: format!("the tree of {size} entries does not have the recorded root"),
        });
    }
    append(&ledger, &mut frontier, &spans)?;
    debug_assert_eq!(frontier.size(), end);
    issue(&ledger, &log_id, &frontier, key.as_ref())
}

/// What each chain has gained since the last checkpoint, chain by chain.
fn new_spans(ledger: &Ledger, size: u64) -> Result<Vec<Span>, Refusal> {
    // The chains and their ends, in the log and in the tree, by index steps alone.
    let steps = |name: &str, table: &str, end: &str| {
        format!(
            "{name}_chains(chain) AS ((SELECT chain FROM ONLY {table} ORDER BY chain LIMIT 1) UNION ALL \
             SELECT (SELECT t.chain FROM ONLY {table} t WHERE t.chain > c.chain ORDER BY t.chain LIMIT 1) \
             FROM {name}_chains c WHERE c.chain IS NOT NULL), \
             {name} AS (SELECT chain, (SELECT max({end}) FROM ONLY {table} t WHERE t.chain = c.chain) AS last \
             FROM {name}_chains c WHERE chain IS NOT NULL)"
        )
    };
    let rest = format!(
        "FROM (WITH RECURSIVE {}, {} SELECT chain, heads.last AS head, covered.last AS covered \
         FROM heads FULL JOIN covered USING (chain)) ends ORDER BY 1",
        steps("heads", &ledger.log, "seq"),
        steps("covered", &ledger.spans, "last_seq")
    );
    let mut spans = Vec::new();
    let mut leaf_index = size;
    for [chain, head, covered] in ledger::numbers(["chain", "head", "covered"], &rest) {
        let (chain, head, covered) = (chain as u32, head as u64, covered as u64);
        if head < covered {
            return Err(Refusal::EntryGone { chain, seq: head + 1 });
        }
        if head > covered {
            let span = Span { leaf_index, chain, first_seq: covered + 1, last_seq: head };
            leaf_index += span.entries();
            spans.push(span);
        }
    }
    Ok(spans)
}

/// Appends the spans' entries to the tree, and stores the spans and the tiles that become complete.
fn append(ledger: &Ledger, frontier: &mut TreeFrontier, spans: &[Span]) -> Result<(), Refusal> {
    let mut completed: Vec<CompleteTile> = Vec::with_capacity(TILES);
    for span in spans {
        let visit = |hash: Hash| {
            completed.extend(frontier.push(hash));
            if completed.len() >= TILES {
                store(ledger, &mut completed);
            }
        };
        let chain = span.chain;
        ledger.hashes(span, visit).map_err(|seq| Refusal::EntryGone { chain, seq })?;
        ledger.insert_span(span);
    }
    store(ledger, &mut completed);
    Ok(())
}

fn store(ledger: &Ledger, tiles: &mut Vec<CompleteTile>) {
    let rows: Vec<_> =
        tiles.iter().map(|tile| (i32::from(tile.level), tile.index as i64, &tile.hashes[..])).collect();
    ledger::insert_tiles(&ledger.tiles, &rows);
    tiles.clear();
}

/// Signs and records the checkpoint.
fn issue(
    ledger: &Ledger,
    log_id: &[u8; 16],
    frontier: &TreeFrontier,
    key: Option<&SigningKey>,
) -> Result<String, Refusal> {
    let invalid = |error: &dyn std::fmt::Display| Refusal::DamagedTree { reason: error.to_string() };
    let checkpoint = Checkpoint::new(&default_origin(log_id), frontier.size(), frontier.root())
        .map_err(|error| invalid(&error))?;
    let mut note = Note::new(&checkpoint.to_string()).map_err(|error| invalid(&error))?;
    match key {
        Some(key) => note.sign(key),
        None => pgrx::notice!("the checkpoint is not signed: audit_chain.signing_key_file is not set"),
    }
    let note = note.to_string();
    ledger.insert_checkpoint(frontier.size(), &frontier.root(), &note);
    // Lost in a crash, a checkpoint that has left the server would look like a history that was rewritten.
    xact::force_sync_commit();
    Ok(note)
}

/// The key that signs checkpoints; `None` where none is configured.
fn signing_key() -> Result<Option<SigningKey>, Refusal> {
    let Some(path) = settings::signing_key_file() else { return Ok(None) };
    let unusable = |reason: String| Refusal::SigningKey { path: path.clone(), reason };
    let read = || -> std::io::Result<Result<String, String>> {
        if !std::fs::metadata(&path)?.is_file() {
            return Ok(Err("it is not an ordinary file".into()));
        }
        let file = std::fs::File::open(&path)?;
        let metadata = file.metadata()?;
        // A server runs in its data directory, which its own user owns: it would not have started otherwise.
        if metadata.uid() != 0 && metadata.uid() != std::fs::metadata(".")?.uid() {
            return Ok(Err("it belongs neither to the server's user nor to root".into()));
        }
        if metadata.mode() & 0o077 != 0 {
            return Ok(Err(format!(
                "its permissions {:04o} let others than its owner in",
                metadata.mode() & 0o7777
            )));
        }
        let mut text = String::new();
        file.take(MAX_KEY as u64 + 2).read_to_string(&mut text)?;
        Ok(Ok(text))
    };
    let text = read().map_err(|error| unusable(error.to_string()))?.map_err(unusable)?;
    let key = SigningKey::parse(&text).map_err(|error| unusable(error.to_string()))?;
    if key.verifier().kind() != KeyKind::Log {
        return Err(unusable("it is a witness's key, not a log's".into()));
    }
    Ok(Some(key))
}
