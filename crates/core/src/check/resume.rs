//! Resuming from a trusted checkpoint, so that only what came after it need be read.
//!
//! **Invariants**
//! * Everything that the rest of the check starts from follows from the trusted root: the right edge has that
//!   root, and each chain's last entry is proved to be in its tree. The stored tiles and spans are not
//!   trusted for it.
//! * If that fails, the problem is noted and the whole log is checked.

use crate::{
    chain::Link,
    check::{
        Records, ReportedCheckpoint,
        frontier::{FrontierError, frontier},
        log::truncated,
        reader::{LogReader, ReadError, ResumeReader},
        recorded::Recorded,
        state::LogCheck,
    },
    entry::Scratch,
    problem::{Problem, ProblemKind},
    proof::{consistency_proof, inclusion_proof, verify_consistency, verify_inclusion},
    span::Span,
    supplied::{SuppliedCheckpoint, VerifiedCheckpoint},
    tile::{TileId, TreeError},
    tree::TreeFrontier,
};
use std::collections::BTreeMap;

/// What a check that starts at a trusted checkpoint takes from before it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resumed {
    /// Each chain's last entry that the checkpoint seals. The entries before those need not be read.
    pub anchors: Vec<Link>,
    /// What the sealed `PRUNE` and `ERASE` entries say.
    pub(super) records: Records,
}

/// Why the check cannot start at a checkpoint.
enum NotResumed<E> {
    Problem(Problem),
    Failed(E),
}

impl<E> From<ReadError<E>> for NotResumed<E> {
    fn from(error: ReadError<E>) -> Self {
        match error {
            ReadError::Damaged(what) => mismatch(what),
            ReadError::Failed(error) => Self::Failed(error),
        }
    }
}

impl<E> From<FrontierError<E>> for NotResumed<E> {
    fn from(error: FrontierError<E>) -> Self {
        match error {
            FrontierError::Missing { chain, seq } => missing(chain, seq),
            FrontierError::Damaged(what) => mismatch(what),
            FrontierError::Failed(error) => Self::Failed(error),
        }
    }
}

impl<E> From<TreeError<ReadError<E>>> for NotResumed<E> {
    fn from(error: TreeError<ReadError<E>>) -> Self {
        match error {
            TreeError::Read(error) => error.into(),
            TreeError::ShortTile { tile, bytes } => mismatch(format!("{} has {bytes} bytes", tile.path())),
            TreeError::MissingTile(tile) => mismatch(format!("{} is missing", tile.path())),
            TreeError::OutOfRange { asked, size } => {
                mismatch(format!("{asked} lies outside the tree of {size} entries"))
            }
        }
    }
}

fn mismatch<E>(detail: impl Into<String>) -> NotResumed<E> {
    NotResumed::Problem(Problem::of_log(ProblemKind::CheckpointMismatch, detail))
}

fn missing<E>(chain: u32, seq: u64) -> NotResumed<E> {
    let detail = "the trusted checkpoint seals this entry, the log does not have it";
    NotResumed::Problem(Problem::at(ProblemKind::Truncated, chain, seq, detail))
}

impl LogCheck {
    /// Starts at a checkpoint that is trusted. What is returned is for
    /// [`EntryCheck::resume`](crate::check::EntryCheck::resume).
    ///
    /// `None` if the log is not the one of the checkpoint: that is noted as a problem, and the whole log must
    /// be checked. An error means that the reader failed.
    pub fn resume<R: ResumeReader + ?Sized>(
        &mut self,
        reader: &mut R,
        trusted: &SuppliedCheckpoint,
    ) -> Result<Option<Resumed>, R::Error> {
        self.begin(reader)?;
        self.trusted = Some(ReportedCheckpoint::new(trusted.checkpoint(), None));
        let verified = match trusted.verify(self.identity.as_ref(), self.keys()) {
            Ok(verified) => verified,
            Err(fault) => {
                let detail = format!("the trusted checkpoint of {} entries: {fault}", trusted.size());
                self.add_problem(Problem::of_log(ProblemKind::CheckpointMismatch, detail));
                return Ok(None);
            }
        };
        match self.start(reader, &verified) {
            Ok(resumed) => {
                let signed_by = Some(verified.signed_by());
                let reported = ReportedCheckpoint::new(verified.checkpoint(), signed_by);
                self.trusted = Some(ReportedCheckpoint { compared: true, ..reported });
                Ok(Some(resumed))
            }
            Err(NotResumed::Problem(problem)) => {
                let of_log = problem.chain.is_none() && problem.kind != ProblemKind::Unchecked;
                if of_log || problem.kind == ProblemKind::Truncated {
                    self.lacks.push((verified.checkpoint().clone(), problem));
                } else {
                    self.add_problem(problem);
                }
                Ok(None)
            }
            Err(NotResumed::Failed(error)) => Err(error),
        }
    }

    fn start<R: ResumeReader + ?Sized>(
        &mut self,
        reader: &mut R,
        trusted: &VerifiedCheckpoint,
    ) -> Result<Resumed, NotResumed<R::Error>> {
        let (size, root) = (trusted.checkpoint().size, trusted.checkpoint().root);
        let first_chain = self.pruned.as_ref().map_or(0, |pruned| pruned.log.first_chain());
        if size < self.minimum_index() {
            let detail = format!(
                "the trusted checkpoint of {size} entries cannot be compared: its entries were pruned"
            );
            return Err(NotResumed::Problem(Problem::of_log(ProblemKind::Unchecked, detail)));
        }
        let spans = last_spans(reader, size, self.minimum_index(), first_chain)?;
        let edge = frontier(reader, size)?;
        if edge.root() != root {
            return Err(mismatch(format!(
                "the trusted checkpoint of {size} entries is not that of this log"
            )));
        }
        let mut anchors = Vec::new();
        for (&chain, span) in &spans {
            let seq = span.last_seq;
            let other = || {
                let detail = "the trusted checkpoint seals another entry at this place";
                NotResumed::Problem(Problem::at(ProblemKind::CheckpointMismatch, chain, seq, detail))
            };
            let link = reader.link(chain, seq)?.ok_or_else(|| missing(chain, seq))?.map_err(|_| other())?;
            let index = span.leaf_of(chain, seq).ok_or_else(other)?;
            if !is_in_tree(reader, &edge, index, &link)? || (link.chain, link.seq) != (chain, seq) {
                return Err(other());
            }
            anchors.push(link);
        }
        let records = sealed_records(reader, &edge, &spans)?;
        self.compare_older_supplied(reader, &edge)?;
        self.start_at(edge, spans.into_iter().map(|(chain, span)| (chain, span.last_seq)));
        self.spans = std::mem::take(&mut self.spans).after_pruning(first_chain);
        self.recorded = Recorded::after(size);
        Ok(Resumed { anchors, records })
    }

    /// A supplied checkpoint that is older than the trusted one must be a beginning of it.
    fn compare_older_supplied<R: LogReader + ?Sized>(
        &mut self,
        reader: &mut R,
        edge: &TreeFrontier,
    ) -> Result<(), NotResumed<R::Error>> {
        let older = self.open_supplied().map(|supplied| supplied.checkpoint().clone());
        let minimum_index = self.minimum_index();
        if let Some(older) = older.filter(|older| (minimum_index..edge.size()).contains(&older.size)) {
            let (old, new) = (older.size, edge.size());
            let proof = consistency_proof(&mut edge.reader(|tile| stored(reader, tile)), old, new)?;
            let proved = verify_consistency(old, new, &older.root, &edge.root(), &proof).is_ok();
            self.compare_supplied(proved);
        }
        Ok(())
    }
}

/// Whether an entry is the leaf of this number, in the tree of which this is the right edge.
fn is_in_tree<R: LogReader + ?Sized>(
    reader: &mut R,
    edge: &TreeFrontier,
    index: u64,
    link: &Link,
) -> Result<bool, NotResumed<R::Error>> {
    let proof = inclusion_proof(&mut edge.reader(|tile| stored(reader, tile)), index, edge.size())?;
    Ok(verify_inclusion(index, edge.size(), &link.hash, &proof, &edge.root()).is_ok())
}

/// What the `PRUNE` and `ERASE` entries of the trusted tree say; those that come later are read with all
/// others. One that is not in the tree says nothing.
fn sealed_records<R: ResumeReader + ?Sized>(
    reader: &mut R,
    edge: &TreeFrontier,
    spans: &BTreeMap<u32, Span>,
) -> Result<Records, NotResumed<R::Error>> {
    let (mut found, mut scratch) = (Vec::new(), Scratch::default());
    reader.records(&mut |entry| {
        if let (Ok(link), Some(operation)) = (entry.link(&mut scratch), entry.operation) {
            let mut said = Records::default();
            said.add(operation, link.at, (link.chain, link.seq), entry.detail);
            found.push((link, said));
        }
    })?;
    let mut records = Records::default();
    for (link, said) in found {
        let is_sealed = spans.get(&link.chain).is_some_and(|span| link.seq <= span.last_seq);
        let index = if is_sealed { reader.leaf_of(link.chain, link.seq)? } else { None };
        if let Some(index) = index.filter(|&index| index < edge.size())
            && is_in_tree(reader, edge, index, &link)?
        {
            records.merge(said);
        }
    }
    Ok(records)
}

/// Each chain's last span of the tree of `size` entries, cut where that ends; together, and with the entries
/// that were pruned, they must fill the tree.
fn last_spans<R: ResumeReader + ?Sized>(
    reader: &mut R,
    size: u64,
    minimum_index: u64,
    first_chain: u32,
) -> Result<BTreeMap<u32, Span>, NotResumed<R::Error>> {
    let mut spans = BTreeMap::new();
    let mut sealed = minimum_index;
    if first_chain > 0 {
        for span in reader.pruned_spans(minimum_index, first_chain)? {
            let within = size.saturating_sub(span.leaf_index).min(span.entries());
            sealed = sealed.saturating_add(within);
        }
    }
    for span in reader.last_spans(size)? {
        if span.chain < first_chain {
            continue;
        }
        let damaged = || mismatch(format!("the span at leaf {} is not one of the tree", span.leaf_index));
        let within = size.checked_sub(span.leaf_index).filter(|&within| within > 0 && span.entries() > 0);
        let last_seq = span.first_seq.saturating_add(within.ok_or_else(damaged)? - 1).min(span.last_seq);
        sealed = sealed.saturating_add(last_seq);
        if spans.insert(span.chain, Span { last_seq, ..span }).is_some() {
            return Err(damaged());
        }
    }
    match sealed {
        sealed if sealed < size => Err(NotResumed::Problem(truncated("trusted", size, sealed))),
        sealed if sealed > size => Err(mismatch("the spans of the checkpoints do not continue one another")),
        _ => Ok(spans),
    }
}

fn stored<R: LogReader + ?Sized>(reader: &mut R, tile: TileId) -> Result<Vec<u8>, ReadError<R::Error>> {
    reader.tile(tile)?.ok_or_else(|| ReadError::Damaged(format!("{} is not stored", tile.path())))
}
