//! A live server, over an ordinary connection with read privilege on the log.
//!
//! **Invariant**: everything is read in one snapshot, so that what is being written meanwhile does not look
//! like tampering. Nothing depends on the server's settings: encoding, row security and search path are set
//! here. Memory holds one row and a page of spans or checkpoints.

use crate::{
    connect,
    outcome::{Failure, OrFailure, Result, tampered, unchecked},
    source::{Each, EachRecord, Entry, Source},
};
use audit_chain_core::{
    Hash,
    check::{LogReader, PrunedLog, Read, ReadError, RecordedCheckpoint},
    entry::StoredEntry,
    identity::{LogIdentity, StoredIdentity},
    pruning::Pruning,
    segment,
    span::Span,
    tile::{MAX_LEVEL, TileId},
};
use postgres::{
    Client, Row,
    error::SqlState,
    fallible_iterator::FallibleIterator,
    types::{FromSql, ToSql, Type},
};
use std::{collections::BTreeMap, error::Error};

/// How many checkpoints and spans are asked for at once.
const ROWS: i64 = 1000;

/// How many chains' ends, or single entries, are asked for at once.
const CHAINS: usize = 1000;

/// What each session begins with. Row security must fail rather than hide entries. Plans that read the whole
/// log for a batch are ruled out.
const SESSION: &str = "
    SET client_encoding = 'UTF8'; SET search_path = pg_catalog; SET row_security = off;
    SET statement_timeout = 0; SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0;
    SET constraint_exclusion = partition; SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_seqscan = off; SET jit = off;
    BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// An entry's columns, each in the form that was hashed: texts as text, times in microseconds (null if 64
/// bits cannot express them), addresses as their type prints them.
const COLUMNS: &str = "
    l.chain, l.seq,
    CASE WHEN isfinite(l.at) AND l.at <= '294247-01-10 04:00:54.775807+00'
         THEN (extract(epoch FROM l.at) * 1000000)::bigint END, l.xid::text,
    l.operation::text, l.table_schema::text, l.table_name::text, l.session_role::text, l.effective_role::text,
    l.actor::text, l.application_name::text, CASE WHEN l.client_addr IS NOT NULL THEN format('%s', l.client_addr) END,
    l.who_salt, l.who_digest, l.row_key::text, l.old_row::text, l.new_row::text, l.detail::text, l.statement::text,
    l.salt, l.payload_digest, l.prev_hash, l.hash";

/// A connection to a server, in one snapshot.
pub struct Server {
    client: Client,
    /// The extension's schema, quoted.
    schema: String,
}

impl Server {
    /// Connects, and takes the snapshot.
    pub fn connect(connection: &str) -> Result<Self> {
        let mut client = connect::connect(connection)?;
        client.batch_execute(SESSION).map_err(|error| failure("cannot begin", &error))?;
        let schema = client
            .query_opt(
                "SELECT quote_ident(n.nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
                 WHERE e.extname = 'audit_chain'",
                &[],
            )
            .map_err(|error| failure("cannot find the extension", &error))?;
        let Some(schema) = schema else {
            return unchecked("this database has no audit_chain; is it the right one?");
        };
        Ok(Self { client, schema: schema.get(0) })
    }

    fn query(&mut self, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>> {
        let sql = sql.replace("$schema", &self.schema);
        self.client.query(&sql, parameters).map_err(|error| failure("the query failed", &error))
    }

    /// Gives each row of an entry query to `each` as it arrives.
    fn stream(&mut self, sql: &str, parameters: &[&(dyn ToSql + Sync)], each: Each<'_>) -> Result<()> {
        let sql = sql.replace("$columns", COLUMNS).replace("$schema", &self.schema);
        let rows = self.client.query_raw(&sql, parameters.iter().copied());
        let mut rows = rows.map_err(|error| failure("cannot read the log", &error))?;
        while let Some(row) = rows.next().map_err(|error| failure("cannot read the log", &error))? {
            each(&Entry::Stored(entry(&row).or_unchecked("the log has unexpected columns")?))?;
        }
        Ok(())
    }

    fn recorded(rows: Vec<Row>) -> Result<Vec<RecordedCheckpoint>> {
        rows.into_iter()
            .map(|row| {
                let size: Option<i64> = row.get(0);
                let Some(size) = size.and_then(|size| u64::try_from(size).ok()) else {
                    return tampered("audit_checkpoint_log has a checkpoint of an impossible size");
                };
                let root = row.get::<_, Option<Vec<u8>>>(1).unwrap_or_default();
                Ok(RecordedCheckpoint {
                    size,
                    root,
                    note: row.get::<_, Option<String>>(2).unwrap_or_default(),
                })
            })
            .collect()
    }

    fn read_spans(rows: Vec<Row>) -> Result<Vec<Span>> {
        rows.into_iter()
            .map(|row| {
                let number = |at: usize| row.get::<_, Option<i64>>(at).and_then(|n| u64::try_from(n).ok());
                let chain = row.get::<_, Option<i32>>(1).and_then(|chain| u32::try_from(chain).ok());
                let (Some(leaf_index), Some(chain), Some(first_seq), Some(last_seq)) =
                    (number(0), chain, number(2), number(3))
                else {
                    return tampered("audit_checkpoint_span has an impossible row");
                };
                Ok(Span { leaf_index, chain, first_seq, last_seq })
            })
            .collect()
    }
}

/// An error of the server or the connection, with what to do where that is known.
fn failure(what: &str, error: &postgres::Error) -> Failure {
    let hint = match error.code() {
        Some(code) if *code == SqlState::INSUFFICIENT_PRIVILEGE => {
            "; the role needs SELECT on the log's tables and must not be subject to row security on them"
        }
        Some(code) if *code == SqlState::UNDEFINED_TABLE || *code == SqlState::UNDEFINED_COLUMN => {
            "; the extension's version may be another than this program's"
        }
        _ => "",
    };
    Failure::Unchecked(format!("{what}: {}{hint}", connect::described(error)))
}

/// A text as it arrives. The check says whether it is UTF-8: one that is not is an altered entry, not a log
/// that cannot be read.
struct TextBytes<'a>(&'a [u8]);

impl<'a> FromSql<'a> for TextBytes<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> std::result::Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(raw))
    }

    fn accepts(column: &Type) -> bool {
        *column == Type::TEXT
    }
}

/// An entry from a row of [`COLUMNS`].
fn entry(row: &Row) -> std::result::Result<StoredEntry<'_>, postgres::Error> {
    let text = |at| row.try_get::<_, Option<TextBytes<'_>>>(at).map(|text| text.map(|text| text.0));
    let bytes = |at| row.try_get::<_, Option<&[u8]>>(at);
    Ok(StoredEntry {
        chain: row.try_get::<_, Option<i32>>(0)?.unwrap_or(-1),
        seq: row.try_get::<_, Option<i64>>(1)?.unwrap_or(-1),
        at: row.try_get(2)?,
        xid: row.try_get::<_, Option<&str>>(3)?.and_then(|xid| xid.parse().ok()),
        operation: text(4)?,
        table_schema: text(5)?,
        table_name: text(6)?,
        session_role: text(7)?,
        effective_role: text(8)?,
        actor: text(9)?,
        application_name: text(10)?,
        client_addr: text(11)?,
        who_salt: bytes(12)?,
        who_digest: bytes(13)?,
        row_key: text(14)?,
        old_row: text(15)?,
        new_row: text(16)?,
        detail: text(17)?,
        statement: text(18)?,
        salt: bytes(19)?,
        payload_digest: bytes(20)?,
        prev_hash: bytes(21)?,
        hash: bytes(22)?,
    })
}

/// A number of ours as the server's; one that it cannot have becomes the largest.
fn bigint(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn int(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// The parameters of a query of the entries of spans.
struct Pieces {
    chains: Vec<i32>,
    first: Vec<i64>,
    last: Vec<i64>,
}

impl Pieces {
    fn of(spans: &[Span]) -> Self {
        Self {
            chains: spans.iter().map(|span| int(span.chain)).collect(),
            first: spans.iter().map(|span| bigint(span.first_seq)).collect(),
            last: spans.iter().map(|span| bigint(span.last_seq)).collect(),
        }
    }

    fn parameters(&self) -> [&(dyn ToSql + Sync); 3] {
        [&self.chains, &self.first, &self.last]
    }
}

/// The entries of spans of one segment, in their order. What is said of its chains rules out the tables of
/// the other segments when the query is planned.
fn of_spans(segment: u32) -> String {
    format!(
        "FROM unnest($1::int[], $2::bigint[], $3::bigint[]) WITH ORDINALITY AS s(chain, first, last, place)
         JOIN $schema.audit_log l ON l.chain = s.chain AND l.seq BETWEEN s.first AND s.last AND {}
         ORDER BY s.place, l.seq",
        of_segment(segment)
    )
}

/// The condition that entries belong to a segment.
fn of_segment(segment: u32) -> String {
    format!("l.chain BETWEEN {} AND {}", segment::first_chain(segment), segment::last_chain(segment))
}

/// Spans of one segment after the other, as they come.
fn by_segment(spans: &[Span]) -> impl Iterator<Item = (u32, &[Span])> {
    let number = |span: &Span| segment::segment_of(span.chain).clamp(1, segment::LAST);
    spans.chunk_by(move |a, b| number(a) == number(b)).map(move |spans| (number(&spans[0]), spans))
}

impl LogReader for Server {
    type Error = String;

    fn identity(&mut self) -> Read<Option<LogIdentity>, String> {
        let rows = self.query(
            "SELECT decode(replace(log_id::text, '-', ''), 'hex'), decode(replace(forked_from::text, '-', ''), 'hex'),
                    forked_at
             FROM $schema.audit_log_identity",
            &[],
        )?;
        let id = |bytes: Option<&[u8]>| bytes.and_then(|id| id.try_into().ok());
        let stored = rows.iter().map(|row| -> Option<StoredIdentity> {
            let forked = match row.get::<_, Option<&[u8]>>(1) {
                Some(from) => Some((id(Some(from))?, u64::try_from(row.get::<_, Option<i64>>(2)?).ok()?)),
                None => None,
            };
            Some((id(row.get(0))?, forked))
        });
        let Some(stored) = stored.collect::<Option<Vec<_>>>() else {
            return Ok(tampered("audit_log_identity has a damaged row")?);
        };
        LogIdentity::from_stored(&stored).map_err(ReadError::Damaged)
    }

    fn checkpoints(&mut self, after: Option<u64>) -> Read<Vec<RecordedCheckpoint>, String> {
        let rows = self.query(
            "SELECT tree_size, root, note FROM $schema.audit_checkpoint_log
             WHERE $1::bigint IS NULL OR tree_size > $1 ORDER BY tree_size LIMIT $2",
            &[&after.map(bigint), &ROWS],
        )?;
        Ok(Self::recorded(rows)?)
    }

    fn spans(&mut self, from: u64) -> Read<Vec<Span>, String> {
        let rows = self.query(
            "SELECT leaf_index, chain, first_seq, last_seq FROM $schema.audit_checkpoint_span
             WHERE $1::bigint = 0 OR leaf_index >= $1 ORDER BY leaf_index LIMIT $2",
            &[&bigint(from), &ROWS],
        )?;
        Ok(Self::read_spans(rows)?)
    }

    fn span_at(&mut self, leaf: u64) -> Read<Option<Span>, String> {
        let rows = self.query(
            "SELECT leaf_index, chain, first_seq, last_seq FROM $schema.audit_checkpoint_span
             WHERE leaf_index <= $1 ORDER BY leaf_index DESC LIMIT 1",
            &[&bigint(leaf)],
        )?;
        Ok(Self::read_spans(rows)?.pop())
    }

    fn hashes(&mut self, spans: &[Span], visit: &mut dyn FnMut(u32, u64, Hash)) -> Read<(), String> {
        for (segment, spans) in by_segment(spans) {
            let pieces = Pieces::of(spans);
            let sql = format!("SELECT l.chain, l.seq, l.hash {}", of_spans(segment));
            let sql = sql.replace("$schema", &self.schema);
            let failed = |error: &postgres::Error| failure("cannot read the log", error);
            let rows = self.client.query_raw(&sql, pieces.parameters());
            let mut rows = rows.map_err(|error| failed(&error))?;
            while let Some(row) = rows.next().map_err(|error| failed(&error))? {
                let chain = u32::try_from(row.get::<_, i32>(0)).ok();
                let seq = u64::try_from(row.get::<_, i64>(1)).ok();
                let hash = row.get::<_, Option<&[u8]>>(2).and_then(|hash| hash.try_into().ok());
                if let (Some(chain), Some(seq), Some(hash)) = (chain, seq, hash) {
                    visit(chain, seq, hash);
                }
            }
        }
        Ok(())
    }

    fn tile(&mut self, tile: TileId) -> Read<Option<Vec<u8>>, String> {
        let rows = self.query(
            "SELECT hashes FROM $schema.audit_tile WHERE level = $1 AND index = $2",
            &[&i32::from(tile.level), &bigint(tile.index)],
        )?;
        Ok(rows.first().and_then(|row| row.get(0)))
    }

    fn pruned(&mut self) -> Read<Option<PrunedLog>, String> {
        let rows = self.query(
            "SELECT segment, chain, seq FROM $schema.audit_segment WHERE state = 'pruned' ORDER BY segment DESC LIMIT 1",
            &[],
        )?;
        let Some(row) = rows.first() else { return Ok(None) };
        let number = |at| row.get::<_, Option<i32>>(at).and_then(|number| u32::try_from(number).ok());
        let seq = row.get::<_, Option<i64>>(2).and_then(|seq| u64::try_from(seq).ok());
        let (segments, place) = (number(0).unwrap_or(0), (number(1).unwrap_or(u32::MAX), seq.unwrap_or(0)));
        let mut pruning = None;
        let span = Span { leaf_index: 0, chain: place.0, first_seq: place.1, last_seq: place.1 };
        self.entries(&[span], &mut |entry| {
            pruning = entry.said().and_then(|(operation, detail)| Pruning::of_entry(operation, Some(detail)));
            Ok(())
        })?;
        Ok(Some(PrunedLog { segments, place, pruning }))
    }

    fn pruned_leaf(&mut self, leaf: u64) -> Read<Option<Hash>, String> {
        let rows =
            self.query("SELECT hash FROM $schema.audit_pruned_leaf WHERE leaf_index = $1", &[&bigint(leaf)])?;
        let hash = rows.first().and_then(|row| row.get::<_, Option<Vec<u8>>>(0));
        Ok(hash.and_then(|hash| hash.try_into().ok()))
    }

    fn beyond(&mut self, size: u64) -> Read<Option<String>, String> {
        // One step through the primary key for each level, and for what no level can have.
        let levels: Vec<i32> = (0..=MAX_LEVEL).map(i32::from).collect();
        let first: Vec<i64> =
            (0..=MAX_LEVEL).map(|level| bigint(size >> (8 * (u32::from(level) + 1)).min(63))).collect();
        let rows = self.query(
            "(SELECT t.level, t.index FROM unnest($1::int[], $2::bigint[]) AS beyond(level, first)
              CROSS JOIN LATERAL (SELECT a.level, a.index FROM $schema.audit_tile a
                                  WHERE a.level = beyond.level AND a.index >= beyond.first
                                  ORDER BY a.level, a.index LIMIT 1) t LIMIT 1)
             UNION ALL (SELECT level, index FROM $schema.audit_tile WHERE level > 7 OR level < 0 OR index < 0 LIMIT 1)
             LIMIT 1",
            &[&levels, &first],
        )?;
        Ok(rows.first().map(|row| format!("the tile {}/{}", row.get::<_, i32>(0), row.get::<_, i64>(1))))
    }
}

impl Source for Server {
    fn tree_size(&mut self) -> Result<u64> {
        Ok(self.checkpoint(None)?.map_or(0, |newest| newest.size))
    }

    fn entries(&mut self, spans: &[Span], each: Each<'_>) -> Result<()> {
        for (segment, spans) in by_segment(spans) {
            let pieces = Pieces::of(spans);
            self.stream(&format!("SELECT $columns {}", of_spans(segment)), &pieces.parameters(), &mut *each)?;
        }
        Ok(())
    }

    fn unsealed(&mut self, sealed: &[(u32, u64)], each: Each<'_>) -> Result<()> {
        // One step through the primary key for each chain.
        let chains = self.query(
            "WITH RECURSIVE c(chain) AS (
                 (SELECT chain FROM $schema.audit_log ORDER BY chain LIMIT 1)
                 UNION ALL
                 SELECT (SELECT l.chain FROM $schema.audit_log l WHERE l.chain > c.chain ORDER BY l.chain LIMIT 1)
                 FROM c WHERE c.chain IS NOT NULL)
             SELECT chain FROM c WHERE chain IS NOT NULL",
            &[],
        )?;
        let sealed: BTreeMap<i32, i64> =
            sealed.iter().map(|&(chain, last)| (int(chain), bigint(last))).collect();
        let chains: Vec<(i32, i64)> = chains
            .iter()
            .map(|row| row.get(0))
            .map(|chain| (chain, sealed.get(&chain).copied().unwrap_or(0)))
            .collect();
        let segment_of = |chain: i32| u32::try_from(chain).map_or(0, segment::segment_of);
        for chains in chains.chunk_by(|a, b| segment_of(a.0) == segment_of(b.0)) {
            // No segment has chains below 0: an attacker's rows are read from all of them.
            let within = match segment_of(chains[0].0) {
                0 => "l.chain < 0".to_owned(),
                segment => of_segment(segment),
            };
            for chains in chains.chunks(CHAINS) {
                let (numbers, last): (Vec<i32>, Vec<i64>) = chains.iter().copied().unzip();
                let sql = format!(
                    "SELECT $columns FROM unnest($1::int[], $2::bigint[]) WITH ORDINALITY AS s(chain, last, place)
                     CROSS JOIN LATERAL (SELECT * FROM $schema.audit_log l WHERE l.chain = s.chain AND l.seq < 1 AND {within}
                                         UNION ALL
                                         SELECT * FROM $schema.audit_log l WHERE l.chain = s.chain AND l.seq > s.last
                                             AND l.seq >= 1 AND {within}) l
                     ORDER BY s.place, l.seq"
                );
                self.stream(&sql, &[&numbers, &last], &mut *each)?;
            }
        }
        Ok(())
    }

    fn records(&mut self, each: EachRecord<'_>) -> Result<()> {
        let erasures = self.query("SELECT to_regclass('$schema.audit_erasure') IS NOT NULL", &[])?;
        let erasures = match erasures.first().is_some_and(|row| row.get(0)) {
            true => "UNION SELECT chain, seq FROM $schema.audit_erasure",
            false => "",
        };
        let places = self.query(
            &format!(
                "SELECT p.chain, p.seq, s.leaf_index + (p.seq - s.first_seq)
                 FROM ((SELECT chain, seq FROM $schema.audit_segment WHERE state = 'pruned' ORDER BY segment DESC LIMIT 1)
                       UNION SELECT chain, seq FROM $schema.audit_segment WHERE state = 'sealed' {erasures}) p
                 LEFT JOIN LATERAL (SELECT * FROM $schema.audit_checkpoint_span s WHERE s.chain = p.chain
                                        AND s.last_seq >= p.seq ORDER BY s.last_seq LIMIT 1) s ON s.first_seq <= p.seq
                 WHERE p.chain >= 0 AND p.seq > 0 ORDER BY p.chain, p.seq"
            ),
            &[],
        )?;
        let places: BTreeMap<(u32, u64), Option<u64>> = places
            .iter()
            .filter_map(|row| {
                let place = (row.get::<_, i32>(0).try_into().ok()?, row.get::<_, i64>(1).try_into().ok()?);
                Some((place, row.get::<_, Option<i64>>(2).and_then(|leaf| leaf.try_into().ok())))
            })
            .collect();
        let spans: Vec<Span> = places
            .keys()
            .map(|&(chain, seq)| Span { leaf_index: 0, chain, first_seq: seq, last_seq: seq })
            .collect();
        for spans in spans.chunks(CHAINS) {
            self.entries(spans, &mut |entry| {
                let leaf = entry.place().and_then(|place| places.get(&place).copied());
                each(entry, leaf.flatten())
            })?;
        }
        Ok(())
    }

    fn locate(&mut self, chain: u32, seq: u64) -> Result<Option<u64>> {
        let rows = self.query(
            "SELECT leaf_index, chain, first_seq, last_seq FROM $schema.audit_checkpoint_span
             WHERE chain = $1 AND $2 BETWEEN first_seq AND last_seq ORDER BY leaf_index LIMIT 1",
            &[&int(chain), &bigint(seq)],
        )?;
        Ok(Self::read_spans(rows)?.first().and_then(|span| span.leaf_of(chain, seq)))
    }

    fn checkpoint(&mut self, size: Option<u64>) -> Result<Option<RecordedCheckpoint>> {
        let rows = self.query(
            "SELECT tree_size, root, note FROM $schema.audit_checkpoint_log
             WHERE $1::bigint IS NULL OR tree_size = $1 ORDER BY tree_size DESC LIMIT 1",
            &[&size.map(bigint)],
        )?;
        Ok(Self::recorded(rows)?.pop())
    }
}
