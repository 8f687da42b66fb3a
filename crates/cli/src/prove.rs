//! `prove`: a proof that one entry is in the log, or that a later checkpoint continues an earlier one.
//!
//! **Invariant**: a proof is checked before it is handed out.

use crate::{
    outcome::{Failure, OrFailure, Result, tampered, unchecked},
    record::entry_line,
    source::{Source, Tiles},
};
use audit_chain_core::{
    check::RecordedCheckpoint,
    note::Note,
    proof::{consistency_proof, inclusion_proof, root_at, verify_consistency},
    proof_text::{ConsistencyProof, InclusionProof},
    span::Span,
    supplied::SuppliedCheckpoint,
    tile::{TileId, TileReader, TreeError},
};

/// The tiles of a source, for proofs.
struct Reader<'s> {
    source: &'s mut dyn Source,
    tiles: Tiles,
}

impl<'s> Reader<'s> {
    fn new(source: &'s mut dyn Source) -> Result<Self> {
        let tiles = Tiles::of(source)?;
        Ok(Self { source, tiles })
    }
}

impl TileReader for Reader<'_> {
    type Error = Failure;

    fn read_tile(&mut self, tile: TileId) -> Result<Vec<u8>> {
        self.tiles.read(self.source, tile)
    }
}

fn from_tree<T>(result: std::result::Result<T, TreeError<Failure>>) -> Result<T> {
    result.map_err(|error| match error {
        TreeError::Read(failure) => failure,
        other => Failure::Tampered(other.to_string()),
    })
}

/// The proof that an entry is in the tree of the recorded checkpoint of `size` entries, or of the newest one;
/// and the entry's payload as a line; none if the export has no payloads.
pub fn inclusion(
    source: &mut dyn Source,
    chain: u32,
    seq: u64,
    size: Option<u64>,
) -> Result<(InclusionProof, Option<String>)> {
    let (recorded, note) = recorded(source, size)?;
    if let Some(pruned) = source.pruned()?.filter(|pruned| chain < pruned.first_chain()) {
        return unchecked(format!(
            "entry {seq} of chain {chain} was pruned with the first {} segments; an export that was made before proves it",
            pruned.segments
        ));
    }
    let Some(index) = source.locate(chain, seq)? else {
        return unchecked(format!(
            "no checkpoint seals entry {seq} of chain {chain} yet, if it exists; SELECT audit_checkpoint() makes one"
        ));
    };
    if index >= recorded.size {
        return unchecked(format!(
            "the checkpoint of {} entries does not seal entry {seq} of chain {chain}, which is leaf {index}; name a \
             later one with --size",
            recorded.size
        ));
    }
    let mut found = None;
    source.entries(&[Span { leaf_index: index, chain, first_seq: seq, last_seq: seq }], &mut |entry| {
        let what = || format!("entry {seq} of chain {chain}");
        entry.check().or_tampered(what())?;
        let payload = entry_line(entry, false).or_tampered(what())?;
        found = Some((entry.leaf().or_tampered(what())?, payload));
        Ok(())
    })?;
    let Some((leaf, payload)) = found else {
        return tampered(format!(
            "entry {seq} of chain {chain} is missing from the log, and a checkpoint seals it"
        ));
    };
    let hashes = from_tree(inclusion_proof(&mut Reader::new(source)?, index, recorded.size))?;
    let proof = InclusionProof { leaf: Some(leaf), index, hashes, note };
    proof.check().or_tampered("the log's tiles do not prove the entry")?;
    Ok((proof, payload))
}

/// The proof that the tree of the first `old` entries is a beginning of that of the recorded checkpoint of
/// `new` entries, or of the newest one.
pub fn consistency(source: &mut dyn Source, old: u64, new: Option<u64>) -> Result<ConsistencyProof> {
    let (recorded, note) = recorded(source, new)?;
    if old > recorded.size {
        return unchecked(format!(
            "the log's checkpoint seals only {} entries; if you keep one of {old}, the log was truncated: run verify \
             --checkpoint",
            recorded.size
        ));
    }
    let pruned = source.pruned()?.and_then(|log| log.pruning).map_or(0, |pruning| pruning.minimum_index);
    if old < pruned {
        return unchecked(format!(
            "the log's first {pruned} entries were pruned: nothing proves any more that it continues a checkpoint of {old}"
        ));
    }
    let mut tiles = Reader::new(source)?;
    let hashes = from_tree(consistency_proof(&mut tiles, old, recorded.size))?;
    let old_root = from_tree(root_at(&mut tiles, old))?;
    let root = recorded.root.as_slice().try_into().or_tampered("the recorded checkpoint")?;
    verify_consistency(old, recorded.size, &old_root, root, &hashes)
        .or_tampered("the log's tiles are not those of its checkpoint")?;
    Ok(ConsistencyProof { old, hashes, note })
}

/// The recorded checkpoint of this size, or the newest, with its note.
pub fn recorded(source: &mut dyn Source, size: Option<u64>) -> Result<(RecordedCheckpoint, Note)> {
    let Some(recorded) = source.checkpoint(size)? else {
        return unchecked(match size {
            Some(size) => format!("the log has no checkpoint of {size} entries"),
            None => "the log has no checkpoint; SELECT audit_checkpoint() makes one".into(),
        });
    };
    let noted =
        SuppliedCheckpoint::parse_strict(recorded.note.as_bytes()).or_tampered("the recorded checkpoint")?;
    let checkpoint = noted.checkpoint();
    if (checkpoint.size, &checkpoint.root[..]) != (recorded.size, &recorded.root[..]) {
        return tampered(format!(
            "the note of the recorded checkpoint of {} entries says something else than its row",
            recorded.size
        ));
    }
    Ok((recorded, noted.note().clone()))
}
