-- Segments: the log is cut by ranges of chain numbers, so that old entries can leave it and a busy index
-- stays small. Segment 1 is audit_log itself; the others are tables that inherit from it, which rotation
-- makes. docs/design.md gives the reasons.

CREATE TABLE audit_segment (
    segment    integer     NOT NULL CHECK (segment >= 1),
    state      text        NOT NULL CHECK (state IN ('open', 'sealed', 'pruned')),
    at         timestamptz NOT NULL,
    chains     bigint      CHECK (chains >= 0),
    entries    bigint      CHECK (entries >= 0),
    first_at   timestamptz,
    last_at    timestamptz,
    first_leaf bigint      CHECK (first_leaf >= 0),
    last_leaf  bigint      CHECK (last_leaf >= first_leaf),
    size       bigint      CHECK (size >= 0),
    chain      integer,
    seq        bigint,
    PRIMARY KEY (segment, state)
);
COMMENT ON TABLE audit_segment IS 'audit_chain: the segments of the log: a row for each state that a segment has reached';
COMMENT ON COLUMN audit_segment.segment IS 'the number of the segment: 1 is audit_log itself, 2 is audit_log_0002, and so on';
COMMENT ON COLUMN audit_segment.state IS 'open (segment 1 has no such row), sealed or pruned';
COMMENT ON COLUMN audit_segment.at IS 'when it reached that state';
COMMENT ON COLUMN audit_segment.chains IS 'sealed, pruned: how many chains it has';
COMMENT ON COLUMN audit_segment.entries IS 'sealed, pruned: how many entries it has';
COMMENT ON COLUMN audit_segment.first_at IS 'sealed, pruned: when its first entry was captured';
COMMENT ON COLUMN audit_segment.last_at IS 'sealed, pruned: when its last entry was captured';
COMMENT ON COLUMN audit_segment.first_leaf IS 'sealed, pruned: the first of its places in the tree, from 0';
COMMENT ON COLUMN audit_segment.last_leaf IS 'sealed, pruned: the last of its places in the tree';
COMMENT ON COLUMN audit_segment.size IS 'sealed: its size on disk then, in bytes';
COMMENT ON COLUMN audit_segment.chain IS 'the chain of the entry that says so (SEAL, PRUNE)';
COMMENT ON COLUMN audit_segment.seq IS 'the place of that entry in the chain';

CREATE TABLE audit_pruned_leaf (
    leaf_index bigint PRIMARY KEY CHECK (leaf_index >= 0),
    hash       bytea  NOT NULL CHECK (length(hash) = 32)
);
COMMENT ON TABLE audit_pruned_leaf IS 'audit_chain: hashes of pruned entries that the tree still needs, and no complete tile has';
COMMENT ON COLUMN audit_pruned_leaf.leaf_index IS 'the place of the entry in the tree, from 0';
COMMENT ON COLUMN audit_pruned_leaf.hash IS 'the hash of the entry';

SELECT pg_catalog.pg_extension_config_dump('audit_segment', '');
SELECT pg_catalog.pg_extension_config_dump('audit_pruned_leaf', '');

CREATE FUNCTION audit_rotate() RETURNS integer
    LANGUAGE c AS 'MODULE_PATHNAME', 'audit_chain_rotate';
COMMENT ON FUNCTION audit_rotate() IS
    'audit_chain: begin the next segment of the log, and return its number; transactions under way go on in theirs';
REVOKE ALL ON FUNCTION audit_rotate() FROM PUBLIC;

CREATE FUNCTION audit_seal(segment integer DEFAULT NULL) RETURNS integer
    LANGUAGE c AS 'MODULE_PATHNAME', 'audit_chain_seal';
COMMENT ON FUNCTION audit_seal(integer) IS
    'audit_chain: seal a segment, or all that can be sealed: nobody writes there any more, and checkpoints cover all entries; returns how many were sealed';
REVOKE ALL ON FUNCTION audit_seal(integer) FROM PUBLIC;

CREATE PROCEDURE audit_maintain()
    LANGUAGE c AS 'MODULE_PATHNAME', 'audit_chain_maintain';
COMMENT ON PROCEDURE audit_maintain() IS
    'audit_chain: do what is due for the segments: rotate, seal, and finish what was begun; the server does it by itself if the library is preloaded';
REVOKE ALL ON PROCEDURE audit_maintain() FROM PUBLIC;

CREATE VIEW audit_segments AS
SELECT g.segment,
       CASE WHEN p.segment IS NOT NULL THEN 'pruned' WHEN s.segment IS NOT NULL THEN 'sealed'
            WHEN g.segment = n.newest THEN 'open' ELSE 'closed' END AS state,
       c.oid::regclass AS table_name,
       o.at AS opened_at, s.at AS sealed_at, p.at AS pruned_at,
       coalesce(s.chains, p.chains) AS chains, coalesce(s.entries, p.entries) AS entries,
       coalesce(s.first_at, p.first_at) AS first_at, coalesce(s.last_at, p.last_at) AS last_at,
       CASE WHEN p.segment IS NULL THEN pg_catalog.pg_total_relation_size(c.oid::regclass) END AS size
FROM (SELECT coalesce(max(segment), 1) AS newest FROM ONLY audit_segment WHERE state = 'open') n
CROSS JOIN LATERAL pg_catalog.generate_series(1, n.newest) AS g(segment)
LEFT JOIN ONLY audit_segment o ON o.segment = g.segment AND o.state = 'open'
LEFT JOIN ONLY audit_segment s ON s.segment = g.segment AND s.state = 'sealed'
LEFT JOIN ONLY audit_segment p ON p.segment = g.segment AND p.state = 'pruned'
LEFT JOIN pg_catalog.pg_class c ON c.relnamespace = (
        SELECT l.relnamespace FROM pg_catalog.pg_class l WHERE l.oid = 'audit_log'::regclass::oid)
    AND c.relname::text = CASE WHEN g.segment = 1 THEN 'audit_log'
                               ELSE 'audit_log_' || pg_catalog.lpad(g.segment::text, greatest(4, length(g.segment::text)), '0') END
    AND p.segment IS NULL;
COMMENT ON VIEW audit_segments IS 'audit_chain: the segments of the log, one per row';
COMMENT ON COLUMN audit_segments.segment IS 'the number of the segment';
COMMENT ON COLUMN audit_segments.state IS
    'open (new transactions write there), closed (transactions under way may still write there), sealed, or pruned';
COMMENT ON COLUMN audit_segments.table_name IS 'its table; null if it was pruned, or is missing';
COMMENT ON COLUMN audit_segments.opened_at IS 'when it was opened; null for the first one';
COMMENT ON COLUMN audit_segments.sealed_at IS 'when it was sealed';
COMMENT ON COLUMN audit_segments.pruned_at IS 'when it was pruned';
COMMENT ON COLUMN audit_segments.chains IS 'how many chains it has; null until it is sealed';
COMMENT ON COLUMN audit_segments.entries IS 'how many entries it has; null until it is sealed';
COMMENT ON COLUMN audit_segments.first_at IS 'when its first entry was captured; null until it is sealed';
COMMENT ON COLUMN audit_segments.last_at IS 'when its last entry was captured; null until it is sealed';
COMMENT ON COLUMN audit_segments.size IS 'its size on disk with indexes and TOAST table, in bytes; null if it was pruned';
