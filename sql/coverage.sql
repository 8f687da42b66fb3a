-- Coverage: which tables are audited, and which should be but are not. The log in one row.

CREATE VIEW audit_coverage AS
WITH lifecycle AS (
    -- The last ENABLE, DISABLE or DROP of each table, by the name that it had then.
    SELECT DISTINCT ON (l.table_schema, l.table_name)
           l.table_schema, l.table_name, l.operation, l.at, l.effective_role
    FROM audit_lifecycle p JOIN audit_log l USING (chain, seq)
    ORDER BY l.table_schema, l.table_name, l.at DESC, l.chain, l.seq DESC
), begun AS (
    -- The time since which a table is audited without interruption: its first ENABLE after its last DISABLE.
    SELECT l.table_schema, l.table_name, min(l.at) AS since,
           (array_agg(l.effective_role ORDER BY l.at, l.chain, l.seq))[1] AS enabled_by
    FROM audit_lifecycle p JOIN audit_log l USING (chain, seq)
    WHERE l.operation = 'ENABLE' AND NOT EXISTS (
        SELECT FROM audit_lifecycle q JOIN audit_log e USING (chain, seq)
        WHERE (e.table_schema, e.table_name) = (l.table_schema, l.table_name)
          AND e.operation <> 'ENABLE' AND e.at > l.at)
    GROUP BY l.table_schema, l.table_name
), renamed AS (
    SELECT l.detail ->> 'renamed_from' AS name, l.at
    FROM audit_lifecycle p JOIN audit_log l USING (chain, seq)
    WHERE l.detail ->> 'renamed_from' IS NOT NULL
), capture AS (
    SELECT t.tgrelid,
           count(*) FILTER (WHERE t.tgname = '!audit_chain_row') AS row_triggers,
           count(*) FILTER (WHERE t.tgname = '!audit_chain_statement') AS statement_triggers,
           bool_and(t.tgenabled = 'A') AS always,
           max(convert_from(trim(trailing '\x00'::bytea from t.tgargs), getdatabaseencoding())) AS options
    FROM pg_catalog.pg_trigger t
    WHERE t.tgfoid = 'audit_chain_capture'::regproc AND NOT t.tgisinternal
    GROUP BY t.tgrelid
), tables AS (
    SELECT c.oid, n.nspname::text AS table_schema, c.relname::text AS table_name,
           rn.nspname::text AS root_schema, rc.relname::text AS root_name
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_catalog.pg_class rc ON c.relispartition AND rc.oid = pg_catalog.pg_partition_root(c.oid)
    LEFT JOIN pg_catalog.pg_namespace rn ON rn.oid = rc.relnamespace
    WHERE c.relkind IN ('r', 'p', 'f') AND c.relpersistence <> 't'
      AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
      AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_depend d
        WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
)
SELECT t.table_schema, t.table_name,
       c.row_triggers IS NOT NULL AND c.row_triggers = 1 AND c.statement_triggers = 1 AND c.always AS audited,
       CASE WHEN c.row_triggers = 1 AND c.statement_triggers = 1 AND c.always THEN 'audited'
            WHEN c.tgrelid IS NOT NULL THEN 'broken: its triggers were dropped or disabled by force'
            WHEN l.operation = 'ENABLE' THEN 'lost: its triggers were dropped by force'
            ELSE 'not audited' END AS state,
       CASE WHEN c.tgrelid IS NOT NULL THEN coalesce(b.since, rb.since) END AS since,
       CASE WHEN c.tgrelid IS NOT NULL THEN coalesce(b.enabled_by, rb.enabled_by) END AS enabled_by,
       CASE WHEN c.tgrelid IS NOT NULL THEN coalesce(nullif(c.options, ''), '{}')::json END AS options
FROM tables t
LEFT JOIN capture c ON c.tgrelid = t.oid
LEFT JOIN lifecycle l USING (table_schema, table_name)
LEFT JOIN begun b USING (table_schema, table_name)
LEFT JOIN begun rb ON (rb.table_schema, rb.table_name) = (t.root_schema, t.root_name)
UNION ALL
SELECT l.table_schema, l.table_name, false, 'lost: the table was dropped or renamed by force',
       NULL, NULL, NULL
FROM lifecycle l
WHERE l.operation = 'ENABLE'
  AND NOT EXISTS (SELECT FROM tables t WHERE (t.table_schema, t.table_name) = (l.table_schema, l.table_name))
  AND NOT EXISTS (
      SELECT FROM renamed r
      WHERE r.name = pg_catalog.format('%I.%I', l.table_schema, l.table_name) AND r.at >= l.at);
COMMENT ON VIEW audit_coverage IS
    'audit_chain: one row per user table: whether it is audited, since when, by whom, and whether auditing was removed by force';

CREATE FUNCTION audit_chain_publication() RETURNS jsonb
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'audit_chain_publication';
COMMENT ON FUNCTION audit_chain_publication() IS
    'audit_chain: what audit_chain.publish_command published last, and why a checkpoint waits; part of audit_status';

CREATE VIEW audit_status AS
WITH RECURSIVE chains AS (
    -- The newest entry of each chain, by the primary key: no scan of the log.
    (SELECT chain, seq, at FROM audit_log ORDER BY chain, seq DESC LIMIT 1)
    UNION ALL
    SELECT n.chain, n.seq, n.at
    FROM chains c CROSS JOIN LATERAL (
        SELECT chain, seq, at FROM audit_log l
        WHERE l.chain = (SELECT min(m.chain) FROM audit_log m WHERE m.chain > c.chain)
        ORDER BY seq DESC LIMIT 1) n
)
SELECT c.chains, c.entries, c.newest_entry,
       k.at AS last_checkpoint, coalesce(k.tree_size, 0) AS checkpoint_entries,
       c.entries - coalesce(k.tree_size, 0) AS unsealed_entries,
       pg_catalog.to_timestamp(p.published_at) AS last_published, p.entries AS published_entries,
       p.failures AS publish_failures, p.error AS publish_error,
       p.checkpoint_failures, p.checkpoint_error
FROM (SELECT count(*)::integer AS chains, coalesce(sum(seq), 0)::bigint AS entries, max(at) AS newest_entry
      FROM chains) c
LEFT JOIN (SELECT at, tree_size FROM audit_checkpoint_log ORDER BY tree_size DESC LIMIT 1) k ON true
CROSS JOIN pg_catalog.jsonb_to_record(audit_chain_publication())
    AS p(published_at double precision, entries bigint, failures integer, error text,
         checkpoint_failures integer, checkpoint_error text);
COMMENT ON VIEW audit_status IS 'audit_chain: the log in one row: chains, entries, the last checkpoint, what was published';
