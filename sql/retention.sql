-- Retention: how long entries are kept, and legal holds, during which nothing is pruned or erased.
-- docs/retention.md says what each of them means.

-- A change adds a row: the newest one counts. A locked policy can only become stricter.
CREATE TABLE audit_retention_policy (
    version         bigint      PRIMARY KEY CHECK (version >= 1),
    keep            interval    NOT NULL,
    keep_seconds    bigint      NOT NULL CHECK (keep_seconds > 0),
    locked          boolean     NOT NULL,
    needs_export    boolean     NOT NULL,
    needs_published boolean     NOT NULL,
    chain           integer     NOT NULL,
    seq             bigint      NOT NULL,
    at              timestamptz NOT NULL
);
COMMENT ON TABLE audit_retention_policy IS 'audit_chain: how long entries are kept; the row of the newest version counts';
COMMENT ON COLUMN audit_retention_policy.version IS 'the number of the change: 1, 2, 3, ...';
COMMENT ON COLUMN audit_retention_policy.keep IS 'how long an entry is kept at least';
COMMENT ON COLUMN audit_retention_policy.keep_seconds IS
    'the same in seconds: the longest time that the interval can last, in UTC';
COMMENT ON COLUMN audit_retention_policy.locked IS 'whether the policy can only become stricter';
COMMENT ON COLUMN audit_retention_policy.needs_export IS
    'whether entries are pruned only if the digest of their export is given, or the call says that they are disposable';
COMMENT ON COLUMN audit_retention_policy.needs_published IS
    'whether entries are pruned only once a checkpoint that covers them was published';
COMMENT ON COLUMN audit_retention_policy.chain IS 'the chain of the RETENTION entry that records the change';
COMMENT ON COLUMN audit_retention_policy.seq IS 'the place of that entry in it';
COMMENT ON COLUMN audit_retention_policy.at IS 'when the change was made: the time of the entry';

-- A hold that begins or ends adds a row: of each name, the newest one counts.
CREATE TABLE audit_hold_log (
    version bigint      PRIMARY KEY CHECK (version >= 1),
    name    text        NOT NULL,
    held    boolean     NOT NULL,
    chain   integer     NOT NULL,
    seq     bigint      NOT NULL,
    at      timestamptz NOT NULL
);
COMMENT ON TABLE audit_hold_log IS 'audit_chain: legal holds that began or ended; of each name, the row of the newest version counts';
COMMENT ON COLUMN audit_hold_log.version IS 'the number of the change: 1, 2, 3, ...';
COMMENT ON COLUMN audit_hold_log.name IS 'the name of the hold';
COMMENT ON COLUMN audit_hold_log.held IS 'whether the hold began, or else was released';
COMMENT ON COLUMN audit_hold_log.chain IS 'the chain of the HOLD or RELEASE entry';
COMMENT ON COLUMN audit_hold_log.seq IS 'the place of that entry in it';
COMMENT ON COLUMN audit_hold_log.at IS 'when that was: the time of the entry';

SELECT pg_catalog.pg_extension_config_dump('audit_retention_policy', '');
SELECT pg_catalog.pg_extension_config_dump('audit_hold_log', '');

CREATE FUNCTION audit_retention(
    INOUT keep            interval DEFAULT NULL,
    INOUT locked          boolean  DEFAULT NULL,
    INOUT needs_export    boolean  DEFAULT NULL,
    INOUT needs_published boolean  DEFAULT NULL,
    reason text DEFAULT NULL,
    OUT since timestamptz
) RETURNS record
    LANGUAGE c AS 'MODULE_PATHNAME', 'audit_chain_retention';
COMMENT ON FUNCTION audit_retention(interval, boolean, boolean, boolean, text) IS
    'audit_chain: says how long entries are kept; without arguments, shows the policy; an argument that is null stays as it was';

CREATE FUNCTION audit_hold(name text, reason text) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'audit_chain_hold';
COMMENT ON FUNCTION audit_hold(text, text) IS
    'audit_chain: begins a legal hold: nothing is pruned or erased until audit_release() ends it';
CREATE FUNCTION audit_release(name text, reason text) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'audit_chain_release';
COMMENT ON FUNCTION audit_release(text, text) IS 'audit_chain: ends a legal hold';
REVOKE ALL ON FUNCTION audit_retention(interval, boolean, boolean, boolean, text), audit_hold(text, text), audit_release(text, text)
    FROM PUBLIC;

CREATE FUNCTION _audit_prune_segment(segment integer, export text, disposable boolean, reason text, dry_run boolean) RETURNS jsonb
    LANGUAGE c AS 'MODULE_PATHNAME', 'audit_chain_prune_segment';
COMMENT ON FUNCTION _audit_prune_segment(integer, text, boolean, text, boolean) IS 'audit_chain: what audit_prune() does';
CREATE FUNCTION audit_prune(
    segment    integer DEFAULT NULL,
    export     text    DEFAULT NULL,
    disposable boolean DEFAULT false,
    reason     text    DEFAULT NULL,
    dry_run    boolean DEFAULT false
) RETURNS TABLE (
    pruned_segment integer, entries bigint, chains bigint, first_at timestamptz, last_at timestamptz, minimum_index bigint,
    published boolean, pruned boolean
)
LANGUAGE sql VOLATILE
BEGIN ATOMIC
    SELECT p.segment, p.entries, p.chains, p.first_at, p.last_at, p.minimum_index, p.published, p.pruned
    FROM pg_catalog.jsonb_to_recordset(_audit_prune_segment(segment, export, disposable, reason, dry_run))
        AS p(segment integer, entries bigint, chains bigint, first_at timestamptz, last_at timestamptz, minimum_index bigint,
             published boolean, pruned boolean);
END;
COMMENT ON FUNCTION audit_prune(integer, text, boolean, text, boolean) IS
    'audit_chain: removes the oldest sealed segment that the policy lets go, or all of them, and returns them; dry_run only checks';
CREATE PROCEDURE audit_finish_pruning()
    LANGUAGE c AS 'MODULE_PATHNAME', 'audit_chain_finish_pruning';
COMMENT ON PROCEDURE audit_finish_pruning() IS
    'audit_chain: frees the disk space of pruned segments, in small steps; the server does it by itself if the library is preloaded';
REVOKE ALL ON FUNCTION _audit_prune_segment(integer, text, boolean, text, boolean), audit_prune(integer, text, boolean, text, boolean)
    FROM PUBLIC;
REVOKE ALL ON PROCEDURE audit_finish_pruning() FROM PUBLIC;

CREATE VIEW audit_holds AS
SELECT h.name, h.at AS since, l.effective_role AS placed_by, l.detail ->> 'reason'::text AS reason, h.chain, h.seq
FROM audit_hold_log h LEFT JOIN audit_log l ON l.chain = h.chain AND l.seq = h.seq AND l.operation = 'HOLD'::text
WHERE h.held AND NOT EXISTS (SELECT FROM audit_hold_log later WHERE later.name = h.name AND later.version > h.version);
COMMENT ON VIEW audit_holds IS 'audit_chain: the legal holds in force, during which nothing is pruned or erased';
COMMENT ON COLUMN audit_holds.name IS 'the name of the hold';
COMMENT ON COLUMN audit_holds.since IS 'since when it is in force';
COMMENT ON COLUMN audit_holds.placed_by IS 'the role that called audit_hold()';
COMMENT ON COLUMN audit_holds.reason IS 'the reason that it gave';
COMMENT ON COLUMN audit_holds.chain IS 'the chain of the HOLD entry';
COMMENT ON COLUMN audit_holds.seq IS 'the place of that entry in it';
