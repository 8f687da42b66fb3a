-- Coverage: which tables are audited, and which should be but are not. The log in one row.
--
-- Operators are resolved when the extension is created, and one that others have put into its schema would be
-- chosen where it fits better than that of pg_catalog. So the operands have the types of the operator.

-- Reads with its own rights entries that roles which may read a view need not be allowed to read themselves.
CREATE FUNCTION _audit_recorded(what text) RETURNS jsonb
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'audit_chain_recorded';
COMMENT ON FUNCTION _audit_recorded(text) IS
    'audit_chain: the entries about auditing (lifecycle), or about verifications; for roles that may read audit_coverage, or audit_verification_log';

-- An auditing is followed by its identity, which is in the arguments of its triggers and in its entries, not
-- by the table's name: a table may be renamed, and another may take its name.
CREATE VIEW audit_coverage AS
WITH RECURSIVE lifecycle AS (
    SELECT coalesce(l.detail ->> 'id'::text, pg_catalog.format('%I.%I', l.table_schema, l.table_name)) AS id,
           coalesce((l.detail ->> 'inherited'::text)::boolean, false) AS inherited,
           l.table_schema, l.table_name, l.operation, l.at, l.detail -> 'options'::text AS options, l.chain, l.seq,
           -- An entry that was carried forward when others were pruned says since when, and not by whom.
           coalesce((l.detail ->> 'since'::text)::timestamptz, l.at) AS since,
           coalesce((l.detail ->> 'options_since'::text)::timestamptz, l.at) AS options_since,
           CASE WHEN l.detail ->> 'carried'::text IS NULL THEN l.effective_role END AS enabled_by
    FROM (SELECT r.chain, r.seq, r.at, r.operation, r.table_schema, r.table_name, r.effective_role, r.detail::json AS detail
          FROM pg_catalog.jsonb_to_recordset(_audit_recorded('lifecycle')) AS r(
              chain integer, seq bigint, at timestamptz, operation text, table_schema text, table_name text,
              effective_role text, detail text)) l
), auditing AS (
    -- Each auditing, with the last name of its table.
    SELECT id,
           min(since) FILTER (WHERE operation = 'ENABLE') AS since,
           (pg_catalog.array_agg(enabled_by ORDER BY since, chain, seq) FILTER (WHERE operation = 'ENABLE'))[1] AS enabled_by,
           (pg_catalog.array_agg(table_schema ORDER BY at DESC, chain, seq DESC))[1] AS table_schema,
           (pg_catalog.array_agg(table_name ORDER BY at DESC, chain, seq DESC))[1] AS table_name,
           bool_or(operation <> 'ENABLE') AS ended
    FROM lifecycle WHERE NOT inherited GROUP BY id
), joined AS (
    -- Tables that came to be audited with a table above them after that table.
    SELECT id, table_schema, table_name, min(since) AS since,
           (pg_catalog.array_agg(enabled_by ORDER BY since, chain, seq))[1] AS enabled_by
    FROM lifecycle WHERE inherited AND operation = 'ENABLE' GROUP BY id, table_schema, table_name
), period AS (
    SELECT id, options_since AS at, pg_catalog.lead(options_since) OVER (PARTITION BY id ORDER BY options_since, chain, seq) AS until,
           options
    FROM (SELECT DISTINCT ON (id, options_since) id, options_since, chain, seq, options FROM lifecycle
          WHERE operation = 'ENABLE' AND NOT inherited ORDER BY id, options_since, chain, seq) e
), narrowed AS (
    SELECT id, pg_catalog.json_agg(
        pg_catalog.json_build_object('since', at, 'until', until, 'options', options) ORDER BY at) AS left_out
    FROM period WHERE options::text <> '{}' GROUP BY id
), capture AS (
    -- pg_trigger.tgargs: the options, the identity, and "inherited", each followed by a NUL.
    SELECT t.tgrelid,
           count(*) FILTER (WHERE t.tgname = '!audit_chain_row') AS row_triggers,
           count(*) FILTER (WHERE t.tgname = '!audit_chain_statement') AS statement_triggers,
           bool_and(t.tgenabled = 'A') AS always,
           coalesce(nullif(max(pg_catalog.convert_from(
               substring(t.tgargs FROM 1 FOR greatest(position(E'\\x00'::bytea IN t.tgargs) - 1, 0)),
               pg_catalog.getdatabaseencoding())), ''), '{}')::json AS options,
           coalesce(
               nullif(max(pg_catalog.split_part(pg_catalog.encode(
                   substring(t.tgargs FROM position(E'\\x00'::bytea IN t.tgargs) + 1), 'escape'), E'\\000', 1)), ''),
               max(pg_catalog.format('%I.%I', n.nspname, c.relname))) AS id,
           bool_or(t.tgnargs > 2) AS inherited
    FROM pg_catalog.pg_trigger t
    JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE t.tgfoid = '_audit_capture'::regproc::oid AND NOT t.tgisinternal
    GROUP BY t.tgrelid
), below (oid) AS (
    -- Tables that should be audited because a table above them is.
    SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN capture k ON k.tgrelid = i.inhparent
    UNION
    SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN below b ON b.oid = i.inhparent
), tables AS (
    SELECT c.oid, n.nspname::text AS table_schema, c.relname::text AS table_name, c.relkind = 'p' AS partitioned,
           c.relkind = 'f' AS is_foreign
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'f') AND c.relpersistence <> 't'
      AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
      AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_depend d
        WHERE d.classid = 'pg_catalog.pg_class'::regclass::oid AND d.objid = c.oid AND d.deptype = 'e'
          AND c.oid NOT IN (SELECT tgrelid FROM capture))
      -- Segments of the log.
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger g WHERE g.tgrelid = c.oid AND g.tgname = '!audit_chain_refuse')
), lost AS (
    -- Until somebody audits the table again.
    SELECT a.table_schema, a.table_name FROM auditing a
    WHERE NOT a.ended AND NOT EXISTS (SELECT FROM capture k WHERE k.id = a.id AND NOT k.inherited)
      AND NOT EXISTS (
        SELECT FROM auditing b
        WHERE (b.table_schema, b.table_name) = (a.table_schema, a.table_name) AND b.id <> a.id AND b.since > a.since)
), shown AS (
    SELECT t.table_schema, t.table_name, k.tgrelid IS NOT NULL AS captured,
           coalesce(k.statement_triggers = 1 AND k.always
                    AND k.row_triggers = CASE WHEN t.partitioned THEN 0 ELSE 1 END, false) AS audited,
           EXISTS (SELECT FROM below b WHERE b.oid = t.oid) AND NOT t.is_foreign
           OR EXISTS (SELECT FROM lost l WHERE (l.table_schema, l.table_name) = (t.table_schema, t.table_name))
               AS expected,
           EXISTS (SELECT FROM below b WHERE b.oid = t.oid) AND t.is_foreign AS left_out_below,
           NOT k.inherited AND a.id IS NOT NULL AND NOT EXISTS (
               SELECT FROM lifecycle n
               WHERE (n.id, n.table_schema, n.table_name) = (k.id, t.table_schema, t.table_name)) AS renamed,
           coalesce(j.since, a.since) AS since, coalesce(j.enabled_by, a.enabled_by) AS enabled_by,
           k.options, r.left_out,
           (SELECT pg_catalog.array_agg(a.attname::text ORDER BY a.attnum)
            FROM pg_catalog.pg_index i JOIN pg_catalog.pg_attribute a
                ON a.attrelid = i.indrelid AND a.attnum = ANY ((i.indkey::smallint[])[0:i.indnkeyatts::integer - 1])
            WHERE i.indrelid = t.oid AND i.indisprimary
              AND EXISTS (SELECT FROM pg_catalog.json_array_elements_text(k.options -> 'exclude_columns'::text) e(name)
                          WHERE e.name = a.attname::text
                          UNION ALL
                          SELECT FROM pg_catalog.json_array_elements_text(k.options -> 'mask_columns'::text) e(name)
                          WHERE e.name = a.attname::text)) AS key_left_out
    FROM tables t
    LEFT JOIN capture k ON k.tgrelid = t.oid
    LEFT JOIN auditing a ON a.id = k.id
    LEFT JOIN joined j ON (j.id, j.table_schema, j.table_name) = (k.id, t.table_schema, t.table_name)
    LEFT JOIN narrowed r ON r.id = k.id
)
SELECT s.table_schema, s.table_name, s.audited,
       CASE WHEN s.audited AND s.renamed THEN 'audited, but renamed by force'
            WHEN s.audited THEN 'audited'
            WHEN s.captured THEN 'broken: its triggers were dropped or disabled by force'
            WHEN s.expected THEN 'lost: its triggers were dropped by force'
            WHEN s.left_out_below THEN 'not audited: a foreign table is not audited with the table above it'
            ELSE 'not audited' END AS state,
       s.since, s.enabled_by, s.options, s.left_out, s.key_left_out
FROM shown s
UNION ALL
-- A database that has none of the log's tables holds a copy of the log.
SELECT l.table_schema, l.table_name, false,
       CASE WHEN EXISTS (SELECT FROM capture)
              OR EXISTS (SELECT FROM tables t JOIN auditing a USING (table_schema, table_name))
            THEN 'lost: the table was dropped or renamed by force'
            ELSE 'elsewhere: this database has none of the tables that the log is about' END,
       NULL::timestamptz, NULL, NULL::json, NULL::json, NULL::text[]
FROM (SELECT DISTINCT table_schema, table_name FROM lost) l
WHERE NOT EXISTS (
    SELECT FROM shown s
    WHERE (s.table_schema, s.table_name) = (l.table_schema, l.table_name) AND NOT s.captured);
COMMENT ON VIEW audit_coverage IS
    'audit_chain: one row per user table: whether it is audited, since when, by whom, what was left out of its entries when, and whether auditing was removed by force';
COMMENT ON COLUMN audit_coverage.table_schema IS 'the schema of the table';
COMMENT ON COLUMN audit_coverage.table_name IS 'the name of the table';
COMMENT ON COLUMN audit_coverage.audited IS 'whether all changes of the table are recorded';
COMMENT ON COLUMN audit_coverage.state IS 'audited, not audited, or what was done by force';
COMMENT ON COLUMN audit_coverage.since IS 'since when the table is audited without interruption';
COMMENT ON COLUMN audit_coverage.enabled_by IS 'who enabled auditing then; null if that has been pruned or erased';
COMMENT ON COLUMN audit_coverage.options IS 'what is left out of its entries now';
COMMENT ON COLUMN audit_coverage.key_left_out IS
    'columns of the primary key that are excluded or masked: the entries do not say which row they are about';
COMMENT ON COLUMN audit_coverage.left_out IS 'what was left out of its entries, since when and until when';

-- Reads with its own rights what roles that may read audit_status need not be allowed to read themselves.
CREATE FUNCTION _audit_status() RETURNS jsonb
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'audit_chain_status';
COMMENT ON FUNCTION _audit_status() IS 'audit_chain: the content of audit_status; for roles that may read that view';

CREATE VIEW audit_status AS
SELECT s.state, s.chains, s.entries, s.newest_entry, s.last_checkpoint, s.checkpoint_entries, s.unsealed_entries,
       s.last_published, s.published_entries, s.publish_failures, s.publish_error, s.checkpoint_failures, s.checkpoint_error,
       s.publish_waits_for,
       s.last_verified, s.last_verdict, s.verification_failures, s.verification_error,
       s.log_size, s.checkpoint_size, s.entries_per_day, s.bytes_per_day, s.chain_waits,
       s.restores, s.last_restore, s.segments, s.pruned_segments, s.pruned_entries, s.keep, s.holds
FROM pg_catalog.jsonb_to_record(_audit_status()) AS s(
    state text, chains integer, entries bigint, newest_entry timestamptz,
    last_checkpoint timestamptz, checkpoint_entries bigint, unsealed_entries bigint,
    last_published timestamptz, published_entries bigint, publish_failures integer, publish_error text,
    checkpoint_failures integer, checkpoint_error text, publish_waits_for text,
    last_verified timestamptz, last_verdict text, verification_failures integer, verification_error text,
    log_size bigint, checkpoint_size bigint, entries_per_day bigint, bytes_per_day bigint, chain_waits bigint,
    restores integer, last_restore timestamptz, segments integer, pruned_segments integer, pruned_entries bigint,
    keep interval, holds integer);
COMMENT ON VIEW audit_status IS
    'audit_chain: the log in one row: chains, entries, sizes, the last checkpoint, what was published, what failed';
COMMENT ON COLUMN audit_status.state IS 'new, restoring (a dump), copy (makes no checkpoints until audit_fork() or audit_resume()), recording, or standby';
COMMENT ON COLUMN audit_status.restores IS 'how often this database was restored, cloned, promoted or recovered';
COMMENT ON COLUMN audit_status.last_restore IS 'when it last began to write after that';
COMMENT ON COLUMN audit_status.segments IS 'how many segments it has';
COMMENT ON COLUMN audit_status.pruned_segments IS 'how many other segments were pruned';
COMMENT ON COLUMN audit_status.pruned_entries IS 'how many entries these had';
COMMENT ON COLUMN audit_status.keep IS 'how long entries are kept at least; null without a policy';
COMMENT ON COLUMN audit_status.holds IS 'how many legal holds are in force';
COMMENT ON COLUMN audit_status.chains IS 'how many chains the log has';
COMMENT ON COLUMN audit_status.entries IS 'how many entries it has, by the newest place in each chain, without pruned ones';
COMMENT ON COLUMN audit_status.newest_entry IS 'when the newest entry was captured';
COMMENT ON COLUMN audit_status.last_checkpoint IS 'when the last checkpoint was made';
COMMENT ON COLUMN audit_status.checkpoint_entries IS 'how many entries it seals, pruned ones included';
COMMENT ON COLUMN audit_status.unsealed_entries IS 'how many entries no checkpoint seals yet';
COMMENT ON COLUMN audit_status.last_published IS 'when a checkpoint was last published';
COMMENT ON COLUMN audit_status.published_entries IS 'how many entries that one seals';
COMMENT ON COLUMN audit_status.publish_failures IS 'how often publishing has failed since';
COMMENT ON COLUMN audit_status.publish_error IS 'why it failed last';
COMMENT ON COLUMN audit_status.checkpoint_failures IS
    'how often making a checkpoint has failed since one was last made, whoever called for it';
COMMENT ON COLUMN audit_status.checkpoint_error IS 'why it failed last';
COMMENT ON COLUMN audit_status.publish_waits_for IS 'for which standbys of audit_chain.publish_after publishing waits';
COMMENT ON COLUMN audit_status.last_verified IS 'when a recorded verification of the whole log ended last';
COMMENT ON COLUMN audit_status.last_verdict IS 'what it found: intact, tampered or unchecked';
COMMENT ON COLUMN audit_status.verification_failures IS
    'how often the server''s own verification has failed since it last succeeded, whatever it found then';
COMMENT ON COLUMN audit_status.verification_error IS 'why it failed last';
COMMENT ON COLUMN audit_status.log_size IS 'the size of audit_log on disk, with its indexes and TOAST table, in bytes';
COMMENT ON COLUMN audit_status.checkpoint_size IS 'the size of checkpoints, spans and tiles on disk, in bytes';
COMMENT ON COLUMN audit_status.entries_per_day IS
    'the entries since the newest checkpoint that is a day old, per day; null without one';
COMMENT ON COLUMN audit_status.bytes_per_day IS 'the same in bytes, at the average size of an entry on disk';
COMMENT ON COLUMN audit_status.chain_waits IS
    'how often writers had to wait since the server started because all chains were taken; null unless preloaded';
