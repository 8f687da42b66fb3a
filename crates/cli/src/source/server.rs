//! A live server, over an ordinary connection with read privilege on the log.
//!
//! **Invariant**: everything is read in one snapshot, so that what is being written meanwhile does not look like
//! tampering, and nothing depends on the server's settings: encoding, row security and search path are set here.
//! Memory holds one row and a batch of spans or checkpoints.

use crate::{
    outcome::{Failure, OrFailure, Result, unchecked},
    source::{Each, Entry, Payload, Recorded, Source},
};
use audit_chain_core::{
    Hash,
    format::{Leaf, MAX_STR},
    span::Span,
    tile::TileId,
};
use postgres::{Client, NoTls, Row, error::SqlState, fallible_iterator::FallibleIterator, types::ToSql};

/// How many checkpoints and spans are asked for at once.
const ROWS: i64 = 1000;

/// What each session begins with. Row security must fail rather than hide entries. Plans that read the whole log for a
/// batch are ruled out.
const SESSION: &str = "
    SET client_encoding = 'UTF8'; SET search_path = pg_catalog; SET row_security = off;
    SET statement_timeout = 0; SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0;
    SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_seqscan = off; SET jit = off;
    BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// An entry's columns, each in the form that was hashed: texts as text, times in microseconds, addresses as their
/// type prints them.
const COLUMNS: &str = "
    l.chain, l.seq, CASE WHEN isfinite(l.at) THEN (extract(epoch FROM l.at) * 1000000)::bigint END, l.xid::text,
    l.operation::text, l.table_schema::text, l.table_name::text, l.session_role::text, l.effective_role::text,
    l.actor::text, l.application_name::text, CASE WHEN l.client_addr IS NOT NULL THEN format('%s', l.client_addr) END,
    l.row_key::text, l.old_row::text, l.new_row::text, l.detail::text, l.statement::text,
    l.salt, l.payload_digest, l.prev_hash, l.hash";

/// A connection to a server, in one snapshot.
pub struct Server {
    client: Client,
    /// The extension's schema, quoted.
    schema: String,
    last_checkpoint: i64,
    next_span: i64,
}

impl Server {
    /// Connects, and takes the snapshot.
    pub fn connect(connection: &str) -> Result<Self> {
        let mut config: postgres::Config = connection.parse().or_unchecked("the connection string")?;
        if config.get_application_name().is_none() {
            config.application_name("audit-chain");
        }
        let mut client = config.connect(NoTls).map_err(|error| failure("cannot connect", &error))?;
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
        Ok(Self { client, schema: schema.get(0), last_checkpoint: -1, next_span: 0 })
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
            each(entry(&row).or_unchecked("the log has unexpected columns")?)?;
        }
        Ok(())
    }

    fn recorded(rows: Vec<Row>) -> Result<Vec<Recorded>> {
        rows.into_iter()
            .map(|row| {
                let size: Option<i64> = row.get(0);
                let root = row.get::<_, Option<&[u8]>>(1).and_then(|root| Hash::try_from(root).ok());
                let (Some(size), Some(root)) = (size.and_then(|size| u64::try_from(size).ok()), root) else {
                    return Err(Failure::Tampered("audit_checkpoint_log has an impossible row".into()));
                };
                Ok(Recorded { size, root, note: row.get::<_, Option<String>>(2).unwrap_or_default() })
            })
            .collect()
    }

    fn spans(rows: Vec<Row>) -> Result<Vec<Span>> {
        rows.into_iter()
            .map(|row| {
                let number = |at: usize| row.get::<_, Option<i64>>(at).and_then(|n| u64::try_from(n).ok());
                let chain = row.get::<_, Option<i32>>(1).and_then(|chain| u32::try_from(chain).ok());
                let (Some(leaf_index), Some(chain), Some(first_seq), Some(last_seq)) =
                    (number(0), chain, number(2), number(3))
                else {
                    return Err(Failure::Tampered("audit_checkpoint_span has an impossible row".into()));
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
    let hint = if chain(error).contains("TLS") {
        "; use sslmode=disable through a tunnel such as ssh -L"
    } else {
        hint
    };
    let detail = error.as_db_error().map_or_else(|| chain(error), ToString::to_string);
    Failure::Unchecked(format!("{what}: {detail}{hint}"))
}

fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

/// An entry from a row of [`COLUMNS`]. What cannot be hashed becomes the entry's defect.
fn entry(row: &Row) -> std::result::Result<Entry, postgres::Error> {
    let text = |at| row.try_get::<_, Option<&str>>(at);
    let bytes = |at| row.try_get::<_, Option<&[u8]>>(at);
    let (chain, seq) = (row.try_get::<_, Option<i32>>(0)?, row.try_get::<_, Option<i64>>(1)?);
    let (at, xid) = (row.try_get::<_, Option<i64>>(2)?, text(3)?);
    let [operation, schema, table, session, effective, actor, application, client] =
        [text(4)?, text(5)?, text(6)?, text(7)?, text(8)?, text(9)?, text(10)?, text(11)?];
    let blobs = [text(12)?, text(13)?, text(14)?, text(15)?, text(16)?].map(|blob| blob.map(str::to_owned));
    let (salt, erased, prev_hash, hash) = (bytes(17)?, bytes(18)?, bytes(19)?, bytes(20)?);

    // A digest stands for a payload that is gone: beside one, it would hide what that says.
    let contradicts = erased.is_some() && (salt.is_some() || blobs.iter().any(Option::is_some));
    let payload = match (erased, salt.and_then(|salt| salt.try_into().ok())) {
        (None, Some(salt)) => Some(Payload { salt, blobs }),
        _ => None,
    };
    let encode = || {
        if contradicts {
            return Err("a payload digest stands beside a payload");
        }
        let digest = match (erased, &payload) {
            (Some(digest), _) => digest.try_into().map_err(|_| "payload_digest is not 32 bytes")?,
            (None, Some(payload)) => payload.digest(),
            (None, None) => return Err("salt is not 16 bytes"),
        };
        let leaf = Leaf {
            chain: chain.and_then(|chain| chain.try_into().ok()).ok_or("chain is not a number from 0")?,
            seq: seq.and_then(|seq| seq.try_into().ok()).ok_or("seq is not a number from 1")?,
            prev_hash: prev_hash.and_then(|hash| hash.try_into().ok()).ok_or("prev_hash is not 32 bytes")?,
            at: at.ok_or("at is not a time")?,
            xid: xid.and_then(|xid| xid.parse().ok()).ok_or("xid is not a number")?,
            operation: operation.ok_or("operation is null")?.as_bytes(),
            table_schema: schema.map(str::as_bytes),
            table_name: table.map(str::as_bytes),
            session_role: session.ok_or("session_role is null")?.as_bytes(),
            effective_role: effective.ok_or("effective_role is null")?.as_bytes(),
            actor: actor.map(str::as_bytes),
            application_name: application.map(str::as_bytes),
            client_addr: client.map(str::as_bytes),
            payload_digest: digest,
        };
        let texts = [operation, schema, table, session, effective, actor, application, client];
        if texts.into_iter().flatten().any(|text| text.len() > MAX_STR) {
            return Err("a text is longer than an entry's may be");
        }
        let mut bytes = Vec::with_capacity(256);
        leaf.encode(&mut bytes);
        Ok(bytes)
    };
    let leaf = encode().map_err(str::to_owned).and_then(|leaf| {
        let hash = hash.is_some_and(|hash| hash.len() == 32);
        if hash { Ok(leaf) } else { Err("hash is not 32 bytes".to_owned()) }
    });
    Ok(Entry {
        chain: chain.and_then(|chain| chain.try_into().ok()).unwrap_or(u32::MAX),
        seq: seq.and_then(|seq| seq.try_into().ok()).unwrap_or(0),
        leaf,
        hash: hash.and_then(|hash| hash.try_into().ok()).unwrap_or_default(),
        payload,
    })
}

/// A number of ours as the server's; one that it cannot have becomes the largest.
fn bigint(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn int(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

impl Source for Server {
    fn log_id(&mut self) -> Result<Option<[u8; 16]>> {
        let rows = self.query(
            "SELECT decode(replace(log_id::text, '-', ''), 'hex') FROM $schema.audit_log_identity",
            &[],
        )?;
        match rows.as_slice() {
            [] => Ok(None),
            [row] => Ok(row.get::<_, Option<&[u8]>>(0).and_then(|id| id.try_into().ok())),
            _ => Err(Failure::Tampered("audit_log_identity has more than one row".into())),
        }
    }

    fn tree_size(&mut self) -> Result<u64> {
        Ok(self.checkpoint(None)?.map_or(0, |newest| newest.size))
    }

    fn next_checkpoints(&mut self) -> Result<Vec<Recorded>> {
        let rows = self.query(
            "SELECT tree_size, root, note FROM $schema.audit_checkpoint_log WHERE tree_size > $1
             ORDER BY tree_size LIMIT $2",
            &[&self.last_checkpoint.clone(), &ROWS],
        )?;
        let recorded = Self::recorded(rows)?;
        self.last_checkpoint = recorded.last().map_or(self.last_checkpoint, |last| bigint(last.size));
        Ok(recorded)
    }

    fn next_spans(&mut self) -> Result<Vec<Span>> {
        let rows = self.query(
            "SELECT leaf_index, chain, first_seq, last_seq FROM $schema.audit_checkpoint_span
             WHERE leaf_index >= $1 ORDER BY leaf_index LIMIT $2",
            &[&self.next_span.clone(), &ROWS],
        )?;
        let spans = Self::spans(rows)?;
        self.next_span = spans.last().map_or(self.next_span, |last| bigint(last.leaf_index) + 1);
        Ok(spans)
    }

    fn entries(&mut self, spans: &[Span], each: Each<'_>) -> Result<()> {
        let chains: Vec<i32> = spans.iter().map(|span| int(span.chain)).collect();
        let first: Vec<i64> = spans.iter().map(|span| bigint(span.first_seq)).collect();
        let last: Vec<i64> = spans.iter().map(|span| bigint(span.last_seq)).collect();
        self.stream(
            "SELECT $columns
             FROM unnest($1::int[], $2::bigint[], $3::bigint[]) WITH ORDINALITY AS s(chain, first, last, place)
             JOIN $schema.audit_log l ON l.chain = s.chain AND l.seq BETWEEN s.first AND s.last
             ORDER BY s.place, l.seq",
            &[&chains, &first, &last],
            each,
        )
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
        for row in chains {
            let chain: i32 = row.get(0);
            let covered =
                sealed.iter().find(|(number, _)| int(*number) == chain).map_or(0, |(_, last)| *last);
            for condition in ["l.seq < 1 AND $2 IS NOT NULL", "l.seq > $2"] {
                let sql = format!(
                    "SELECT $columns FROM $schema.audit_log l
                     WHERE l.chain = $1 AND {} ORDER BY l.seq",
                    condition.replace("$2", "$2::bigint")
                );
                self.stream(&sql, &[&chain, &bigint(covered)], each)?;
            }
        }
        Ok(())
    }

    fn tile(&mut self, tile: TileId) -> Result<Option<Vec<u8>>> {
        let rows = self.query(
            "SELECT hashes FROM $schema.audit_tile WHERE level = $1 AND index = $2",
            &[&i32::from(tile.level), &bigint(tile.index)],
        )?;
        Ok(rows.first().and_then(|row| row.get(0)))
    }

    fn has_partial_tiles(&self) -> bool {
        false
    }

    fn locate(&mut self, chain: u32, seq: u64) -> Result<Option<u64>> {
        let rows = self.query(
            "SELECT leaf_index, chain, first_seq, last_seq FROM $schema.audit_checkpoint_span
             WHERE chain = $1 AND $2 BETWEEN first_seq AND last_seq ORDER BY leaf_index LIMIT 1",
            &[&int(chain), &bigint(seq)],
        )?;
        Ok(Self::spans(rows)?.first().and_then(|span| span.leaf_of(chain, seq)))
    }

    fn span_at(&mut self, leaf_index: u64) -> Result<Option<Span>> {
        let rows = self.query(
            "SELECT leaf_index, chain, first_seq, last_seq FROM $schema.audit_checkpoint_span
             WHERE leaf_index <= $1 ORDER BY leaf_index DESC LIMIT 1",
            &[&bigint(leaf_index)],
        )?;
        Ok(Self::spans(rows)?.pop())
    }

    fn checkpoint(&mut self, size: Option<u64>) -> Result<Option<Recorded>> {
        let rows = self.query(
            "SELECT tree_size, root, note FROM $schema.audit_checkpoint_log
             WHERE $1::bigint IS NULL OR tree_size = $1 ORDER BY tree_size DESC LIMIT 1",
            &[&size.map(bigint)],
        )?;
        Ok(Self::recorded(rows)?.pop())
    }
}
