//! `audit_prune()`: removes the oldest sealed segment of the log, if the policy lets it go.
//!
//! **Invariants**
//! * Only whole sealed segments go, the oldest first; so what is gone are the first segments, and their
//!   chains.
//! * All of it is one transaction: the PRUNE entry, the row of `audit_segment`, the rows about what is gone,
//!   and the segment itself.
//! * What remains proves itself: the right edge of the tree of every size from the minimum index on can be
//!   rebuilt.
//! * Nobody waits for it: the segment is locked only if nobody uses it. What it stored is removed later
//!   ([`super::leftover`]).
//! * A segment that is not intact is not pruned: that would remove the evidence.

use crate::audit::record::record;
use crate::audit::suspend::GuardSuspended;
use crate::error::{Error, Unprunable, notice};
use crate::extension::{Extension, OwnTable};
use crate::log::segment::{self, Reached, Segments, State};
use crate::log::{self, incarnation, verified};
use crate::pg::ends::Bound;
use crate::pg::lock::{self, Lockable};
use crate::pg::session::{self, LocalSettings};
use crate::pg::table::{delete_within, insert_row};
use crate::pg::tuple::ColumnValue;
use crate::pg::xact::{self, ActiveSnapshot};
use crate::pg::{catalog, orphan, process, swap};
use crate::retention::policy::{self, Policy};
use crate::retention::{carry, hold, intact, leftover};
use crate::segment::create;
use crate::segment::rotate::insert_reached;
use crate::tree::reader::Reader;
use crate::tree::store::{Recorded, TreeStore};
use audit_chain_core::{Hash, tile::TILE_WIDTH};
use pgrx::pg_sys::Oid;
use serde_json::{Value, json};
use std::time::Duration;

/// What a call asks for.
#[derive(Clone, Debug)]
pub struct Request {
    /// One segment; `None` for all that the policy lets go.
    pub segment: Option<i32>,
    /// The SHA-256 of the segment's export.
    pub export: Option<String>,
    /// Whether the call says that no export is needed.
    pub disposable: bool,
    pub reason: String,
    /// Whether nothing is to be done but to check.
    pub dry_run: bool,
}

/// What of the log is known outside of this server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// The checkpoint of so many entries was published last.
    Entries(u64),
    /// Publishing is set up, and nothing was published yet.
    Nothing,
    /// Publishing is not set up.
    NotSetUp,
}

impl Published {
    /// The size of the tree that covers what may be pruned, if the newest recorded checkpoint has this size.
    fn covers(self, recorded: u64) -> u64 {
        match self {
            Self::Entries(entries) => entries.min(recorded),
            Self::Nothing => 0,
            Self::NotSetUp => recorded,
        }
    }
}

/// Prunes what is asked for, and returns what it pruned, or would prune.
pub fn prune(extension: &Extension, request: &Request, published: Published) -> Result<Vec<Value>, Error> {
    let log = extension.table(OwnTable::Log)?;
    let _path = LocalSettings::safe_search_path();
    log::flush();
    if let Some(names) = hold::active(extension)? {
        return Err(Error::UnderHold { what: "prune entries", names });
    }
    let policy = policy::current(extension)?.ok_or(Error::NoPolicy)?;
    let state = incarnation::state(extension)?.word;
    if state != "recording" {
        return Err(Error::NotPrunable { state });
    }
    let run = Run { extension, request, published, policy: &policy.policy };
    let due = {
        // What was committed while the lock was waited for counts.
        let _now = ActiveSnapshot::push_latest();
        policy::check_recorded(extension, &policy)?;
        run.due()?
    };
    if request.dry_run {
        return due.iter().map(|sealed| run.dry(sealed)).collect();
    }
    // Who holds these locks does not wait for a chain.
    log::take_chain()?;
    lock::lock(log, Lockable::Segments);
    lock::lock(log, Lockable::Checkpoint);
    let prune = |sealed| {
        // What was committed meanwhile, and what this call has pruned.
        let _now = ActiveSnapshot::push_latest();
        run.prune(sealed)
    };
    due.iter().map(prune).collect()
}

/// Whether the call lacks something that the caller can give at once.
fn is_for_the_caller(error: &Error) -> bool {
    matches!(error, Error::Unprunable { reason: Unprunable::NotExported, .. })
}

fn check_number(segments: &Segments, asked: i32, oldest: u32) -> Result<(), Error> {
    let open = segments.open();
    let segment = u32::try_from(asked).ok().filter(|segment| (1..=open).contains(segment));
    let segment = segment.ok_or(Error::NoSuchSegment { segment: asked, open })?;
    let reason = if segments.has_reached(segment, State::Pruned) {
        Unprunable::Pruned
    } else if segment != oldest {
        Unprunable::NotOldest { oldest }
    } else {
        return Ok(());
    };
    Err(Error::Unprunable { segment, reason })
}

/// The segment that is due by the policy, without anything that a caller would have to give.
pub fn due(extension: &Extension, published: Published) -> Result<Option<u32>, Error> {
    if !hold::in_force(extension)?.is_empty() || incarnation::state(extension)?.word != "recording" {
        return Ok(None);
    }
    let Some(policy) = policy::current(extension)?.filter(|policy| !policy.policy.needs_export) else {
        return Ok(None);
    };
    let segments = Segments::read(extension)?;
    let Some(oldest) = segments.remaining().next() else { return Ok(None) };
    let request =
        Request { segment: None, export: None, disposable: false, reason: String::new(), dry_run: true };
    let run = Run { extension, request: &request, published, policy: &policy.policy };
    Ok(run.check(&segments, oldest)?.ok().map(|sealed| sealed.segment))
}

/// The pruning of segments.
struct Run<'a> {
    extension: &'a Extension,
    request: &'a Request,
    published: Published,
    policy: &'a Policy,
}

/// How long a recorded verification of the whole log spares reading the segment once more, in microseconds: a
/// week.
const VERIFIED: i64 = 7 * 86_400_000_000;

/// How often the segment's lock is tried, and how long it is waited between: readers come and go.
const ATTEMPTS: u32 = 200;
const PAUSE: Duration = Duration::from_millis(20);

impl Run<'_> {
    /// The segments that are to be pruned, oldest first. They are intact, unless nothing is to be done but to
    /// check.
    ///
    /// A sealed segment changes by erasure alone, which waits for the lock that is held; so checkpoints need
    /// not wait meanwhile.
    fn due(&self) -> Result<Vec<Reached>, Error> {
        let segments = Segments::read(self.extension)?;
        let mut due = Vec::new();
        for oldest in segments.remaining() {
            if let Some(asked) = self.request.segment {
                check_number(&segments, asked, oldest)?;
            }
            let reason = match self.check(&segments, oldest)? {
                Ok(sealed) => {
                    if !self.request.dry_run {
                        self.check_intact(&sealed)?;
                    }
                    due.push(sealed);
                    if self.request.segment.is_some() {
                        break;
                    }
                    continue;
                }
                Err(reason) => reason,
            };
            let error = Error::Unprunable { segment: oldest, reason };
            if self.request.segment.is_some() || is_for_the_caller(&error) {
                return Err(error);
            }
            if due.is_empty() {
                notice(&format!("nothing is pruned: {error}"));
            }
            break;
        }
        Ok(due)
    }

    /// Refuses a segment that is not intact. All its entries are read, unless that was done lately.
    fn check_intact(&self, sealed: &Reached) -> Result<(), Error> {
        let segment = sealed.segment;
        let refused = |reason| Err(Error::Unprunable { segment, reason });
        let store = TreeStore::open(self.extension)?;
        match segment::table_of(self.extension, segment)? {
            None => refused(Unprunable::Missing),
            Some(table)
                if verified::is_intact_since(self.extension, sealed.at, VERIFIED)?
                    && intact::has_as_many(sealed, table) =>
            {
                Ok(())
            }
            Some(table) if !intact::is_intact(&store, sealed, table)? => refused(Unprunable::Tampered),
            Some(_) => Ok(()),
        }
    }

    /// Whether a segment, the oldest one, may be pruned now; or why not.
    fn check(&self, segments: &Segments, segment: u32) -> Result<Result<Reached, Unprunable>, Error> {
        let Some(&sealed) = segments.reached(segment, State::Sealed) else {
            return Ok(Err(Unprunable::NotSealed { is_open: segment >= segments.open() }));
        };
        let until =
            sealed.contents.last_at.saturating_add(self.policy.keep_seconds.saturating_mul(1_000_000));
        if until > xact::now() {
            return Ok(Err(Unprunable::TooYoung { until: xact::json_time(until) }));
        }
        if self.policy.needs_published && self.published == Published::NotSetUp {
            return Ok(Err(Unprunable::NotPublished));
        }
        let recorded = TreeStore::open(self.extension)?.checkpoint(None).map_or(0, |newest| newest.size);
        let (size, entries) = (self.published.covers(recorded), sealed.contents.last_leaf.unsigned_abs() + 1);
        if size < entries {
            return Ok(Err(match self.published {
                Published::NotSetUp => Unprunable::NotCovered { entries },
                _ => Unprunable::NotCoveredOutside { entries, published: size },
            }));
        }
        if self.policy.needs_export && self.request.export.is_none() && !self.request.disposable {
            return Ok(Err(Unprunable::NotExported));
        }
        Ok(Ok(sealed))
    }

    /// What a call returns about a segment.
    fn row(&self, sealed: &Reached, minimum_index: u64) -> Value {
        let contents = &sealed.contents;
        json!({
            "segment": sealed.segment,
            "entries": contents.entries,
            "chains": contents.chains,
            "first_at": xact::json_time(contents.first_at),
            "last_at": xact::json_time(contents.last_at),
            "minimum_index": minimum_index,
            "published": matches!(self.published, Published::Entries(_)),
            "pruned": !self.request.dry_run,
        })
    }

    fn dry(&self, sealed: &Reached) -> Result<Value, Error> {
        let store = TreeStore::open(self.extension)?;
        let minimum_index = store.minimum_index_after(sealed.segment);
        Ok(self.row(sealed, minimum_index))
    }

    fn prune(&self, sealed: &Reached) -> Result<Value, Error> {
        let (extension, segment) = (self.extension, sealed.segment);
        let (log, role) = (extension.table(OwnTable::Log)?, session::effective_role());
        let store = TreeStore::open(extension)?;
        let newest = store.checkpoint(None).ok_or(Error::NothingToSeal)?;
        let table = segment::table_of(extension, segment)?
            .ok_or(Error::Unprunable { segment, reason: Unprunable::Missing })?;
        let minimum_index = store.minimum_index_after(segment);
        let root = self.proved_root(&store, &newest, minimum_index)?;
        let leaves = pruned_leaves(&store, segment, newest.size)?;
        carry::carry_forward(extension, segment, role)?;
        policy::carry_forward(extension, segment)?;
        let detail = self.detail(sealed, &newest, minimum_index, root)?;
        let place = record("PRUNE", None, &detail, role)?;
        log::flush();
        let place = Some((place.chain, place.seq));
        insert_reached(extension, segment, State::Pruned, Some(&sealed.contents), place)?;
        self.remove_rows(segment, newest.size, minimum_index, &leaves)?;
        xact::make_visible();
        take_out(extension, log, segment, table)?;
        // Who gets an answer may delete the export's other copies.
        xact::force_sync_commit();
        Ok(self.row(sealed, minimum_index))
    }

    /// The root of the tree of the first `minimum_index` entries, if the stored tree has the newest
    /// checkpoint's root.
    fn proved_root(&self, store: &TreeStore, newest: &Recorded, minimum_index: u64) -> Result<Hash, Error> {
        let mut reader = Reader::new(store);
        if reader.frontier(newest.size)?.root()[..] != newest.root[..] {
            let reason = format!("the tree of {} entries does not have the recorded root", newest.size);
            return Err(Error::DamagedTree { reason });
        }
        Ok(reader.frontier(minimum_index)?.root())
    }

    /// The detail of the PRUNE entry (docs/format.md).
    fn detail(
        &self,
        sealed: &Reached,
        newest: &Recorded,
        minimum_index: u64,
        root: Hash,
    ) -> Result<Value, Error> {
        let (segment, contents) = (sealed.segment, &sealed.contents);
        let segments = Segments::read(self.extension)?;
        let earlier = segments.pruned();
        let entries = earlier.iter().map(|row| row.contents.entries).sum::<i64>() + contents.entries;
        let since = earlier.first().map_or(contents.first_at, |row| row.contents.first_at);
        Ok(json!({
            "segment": segment,
            "first_chain": segment::first_chain(segment),
            "last_chain": segment::last_chain(segment),
            "chains": contents.chains,
            "entries": contents.entries,
            "first_at": xact::json_time(contents.first_at),
            "last_at": xact::json_time(contents.last_at),
            "first_leaf": contents.first_leaf,
            "last_leaf": contents.last_leaf,
            "minimum_index": minimum_index,
            "root": hex::encode(root),
            "checkpoint": { "size": newest.size, "root": hex::encode(&newest.root) },
            "published": match self.published {
                Published::Entries(entries) => Some(entries),
                _ => None,
            },
            "policy": self.policy.to_json(),
            "export": self.request.export,
            "disposable": self.request.disposable || !self.policy.needs_export,
            "reason": self.request.reason,
            "pruned": { "segments": segment, "entries": entries, "since": xact::json_time(since) },
        }))
    }

    /// Removes the rows about what is gone, and keeps the hashes that the tree still needs.
    fn remove_rows(
        &self,
        segment: u32,
        size: u64,
        minimum_index: u64,
        leaves: &[(u64, Hash)],
    ) -> Result<(), Error> {
        let extension = self.extension;
        let at_most = |column, number: u64| Bound::BigintAtMost(column, number as i64 - 1);
        let last_chain = segment::last_chain(segment) as i32;
        let width = TILE_WIDTH as u64;
        // A tile of level 0 is needed as long as no complete tile of level 1 has its root.
        let tiles = (minimum_index / width).min(size / (width * width) * width);
        let of_level_0 = [Bound::Integer(1, 0), at_most(2, tiles)];
        delete_within(extension.table(OwnTable::Tiles)?, &of_level_0, |_| true);
        let start = minimum_index - minimum_index % width;
        delete_within(extension.table(OwnTable::Spans)?, &[at_most(1, start)], |row| {
            let [leaf, first, last] = [1, 3, 4].map(|column| row.integer(column));
            (leaf + (last - first) + 1).unsigned_abs() <= start
        });
        delete_within(extension.table(OwnTable::Checkpoints)?, &[at_most(1, minimum_index)], |_| true);
        let places = extension.table(OwnTable::Verifications)?;
        delete_within(places, &[], |row| row.integer(3) as i32 <= last_chain);
        // An ERASE entry is in no earlier segment than what was erased: that is gone with it.
        delete_within(extension.table(OwnTable::Erasures)?, &[Bound::IntegerAtMost(1, last_chain)], |_| true);
        let kept = extension.table(OwnTable::PrunedLeaves)?;
        delete_within(kept, &[at_most(1, size - size % width)], |_| true);
        for (leaf, hash) in leaves {
            insert_row(kept, &[ColumnValue::Eight(*leaf), ColumnValue::Varlena(Some(hash))]);
        }
        Ok(())
    }
}

/// The leaves of a segment that no complete tile has, with their hashes.
fn pruned_leaves(store: &TreeStore, segment: u32, size: u64) -> Result<Vec<(u64, Hash)>, Error> {
    let start = size - size % TILE_WIDTH as u64;
    let mut leaves = Vec::new();
    for mut span in store.spans_of_segment(segment, start) {
        let before = start.saturating_sub(span.leaf_index);
        (span.leaf_index, span.first_seq) = (span.leaf_index + before, span.first_seq + before);
        let chain = span.chain;
        let mut leaf = span.leaf_index;
        let visit = |hash| {
            leaves.push((leaf, hash));
            leaf += 1;
        };
        store.hashes(&span, visit)?.map_err(|seq| Error::EntryMissing { chain, seq })?;
    }
    Ok(leaves)
}

/// Takes a segment's table out of the log: the first one's rows move to a table of their own, another one
/// inherits no more.
fn take_out(extension: &Extension, log: Oid, segment: u32, table: Oid) -> Result<(), Error> {
    let mut attempts = ATTEMPTS;
    while !orphan::try_lock(table) {
        attempts -= 1;
        if attempts == 0 {
            return Err(Error::Unprunable { segment, reason: Unprunable::InUse });
        }
        process::pause(PAUSE);
    }
    swap::refuse_if_in_use(table, c"prune");
    // It may have been changed before the lock.
    if segment::table_of(extension, segment)? != Some(table) {
        return Err(Error::Unprunable { segment, reason: Unprunable::Missing });
    }
    let _guard = GuardSuspended::begin();
    let _owner = extension.act_as_owner();
    let left = if table == log {
        let name = leftover::name(segment);
        if catalog::relation_in(extension.schema, &name).is_some() {
            let table = format!("{}.{}", extension.quoted_schema()?, name.to_string_lossy());
            return Err(Error::SegmentNameTaken { table });
        }
        let moved = swap::move_rows(table, &name);
        let quoted =
            catalog::quoted_name(moved).ok_or(Error::MissingObject { what: "what is left of segment 1" })?;
        create::guard(&extension.quoted_schema()?, &quoted);
        moved
    } else {
        orphan::end_inheritance(table, log);
        orphan::retire_indexes(table);
        table
    };
    // It does not outlast the extension.
    orphan::drop_with(left, log);
    Ok(())
}
