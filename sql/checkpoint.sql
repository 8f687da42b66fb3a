-- Checkpoints: the log as one Merkle tree, of which only the parts that never change are stored.
-- docs/checkpoints.md says what a checkpoint is, docs/operations.md how to publish it.

CREATE TABLE audit_checkpoint_log (
    tree_size bigint      PRIMARY KEY CHECK (tree_size > 0),
    root      bytea       NOT NULL CHECK (length(root) = 32),
    at        timestamptz NOT NULL,
    note      text        NOT NULL,
    chain     integer,
    seq       bigint,
    CHECK ((chain IS NULL) = (seq IS NULL))
);
COMMENT ON TABLE audit_checkpoint_log IS 'audit_chain: all checkpoints, as they were issued';
COMMENT ON COLUMN audit_checkpoint_log.tree_size IS 'how many entries it seals';
COMMENT ON COLUMN audit_checkpoint_log.root IS 'the root hash of the tree over them (RFC 6962)';
COMMENT ON COLUMN audit_checkpoint_log.at IS 'when it was made';
COMMENT ON COLUMN audit_checkpoint_log.note IS 'the checkpoint as it was issued (C2SP tlog-checkpoint)';
COMMENT ON COLUMN audit_checkpoint_log.chain IS 'the chain of the entry about it, which it seals too; null if it has none';
COMMENT ON COLUMN audit_checkpoint_log.seq IS 'the place of that entry in the chain';

CREATE TABLE audit_checkpoint_span (
    leaf_index bigint  PRIMARY KEY CHECK (leaf_index >= 0),
    chain      integer NOT NULL CHECK (chain >= 0),
    first_seq  bigint  NOT NULL CHECK (first_seq >= 1),
    last_seq   bigint  NOT NULL CHECK (last_seq >= first_seq),
    UNIQUE (chain, last_seq)
);
COMMENT ON TABLE audit_checkpoint_span IS 'audit_chain: which entries are where in the tree: each row is a contiguous part of a chain';
COMMENT ON COLUMN audit_checkpoint_span.leaf_index IS 'the place of the first of these entries in the tree, from 0';
COMMENT ON COLUMN audit_checkpoint_span.chain IS 'their chain';
COMMENT ON COLUMN audit_checkpoint_span.first_seq IS 'the first entry''s place in the chain';
COMMENT ON COLUMN audit_checkpoint_span.last_seq IS 'the last entry''s place in the chain';

CREATE TABLE audit_tile (
    level  integer NOT NULL CHECK (level BETWEEN 0 AND 7),
    index  bigint  NOT NULL CHECK (index >= 0),
    hashes bytea   NOT NULL CHECK (length(hashes) = 8192),
    PRIMARY KEY (level, index)
);
-- Hashes do not compress.
ALTER TABLE audit_tile ALTER COLUMN hashes SET STORAGE EXTERNAL;
COMMENT ON TABLE audit_tile IS 'audit_chain: the complete tiles of the tree, of 256 hashes each (C2SP tlog-tiles)';
COMMENT ON COLUMN audit_tile.level IS 'the level of the tile, from 0 at the leaves';
COMMENT ON COLUMN audit_tile.index IS 'the place of the tile in its level, from 0';
COMMENT ON COLUMN audit_tile.hashes IS 'its 256 hashes, one after the other';

SELECT pg_catalog.pg_extension_config_dump('audit_checkpoint_log', '');
SELECT pg_catalog.pg_extension_config_dump('audit_checkpoint_span', '');
SELECT pg_catalog.pg_extension_config_dump('audit_tile', '');

CREATE FUNCTION audit_checkpoint() RETURNS text
    LANGUAGE c AS 'MODULE_PATHNAME', 'audit_chain_checkpoint';
COMMENT ON FUNCTION audit_checkpoint() IS
    'audit_chain: seal the entries that no checkpoint covers yet, and return the checkpoint, to be kept elsewhere';
REVOKE ALL ON FUNCTION audit_checkpoint() FROM PUBLIC;

-- A copy of the log makes no checkpoints until one of these says what it is.
CREATE FUNCTION audit_fork(reason text) RETURNS text
    LANGUAGE c AS 'MODULE_PATHNAME', 'audit_chain_fork';
COMMENT ON FUNCTION audit_fork(text) IS
    'audit_chain: give this copy of the log a name of its own, because the original goes on elsewhere; returns the name';
CREATE FUNCTION audit_resume(reason text DEFAULT 'this is the original') RETURNS text
    LANGUAGE c AS 'MODULE_PATHNAME', 'audit_chain_resume';
COMMENT ON FUNCTION audit_resume(text) IS
    'audit_chain: let this copy of the log replace the original, under its name; returns the name';
REVOKE ALL ON FUNCTION audit_fork(text), audit_resume(text) FROM PUBLIC;

-- A role that may read the log's tables may prove what they contain.
CREATE FUNCTION audit_inclusion_proof(chain integer, seq bigint, tree_size bigint DEFAULT NULL) RETURNS text
    LANGUAGE c AS 'MODULE_PATHNAME', 'audit_chain_inclusion_proof';
COMMENT ON FUNCTION audit_inclusion_proof(integer, bigint, bigint) IS
    'audit_chain: the proof (C2SP tlog-proof) that the newest checkpoint, or that of tree_size entries, seals an entry';
CREATE FUNCTION audit_consistency_proof(old_size bigint, new_size bigint DEFAULT NULL) RETURNS text
    LANGUAGE c AS 'MODULE_PATHNAME', 'audit_chain_consistency_proof';
COMMENT ON FUNCTION audit_consistency_proof(bigint, bigint) IS
    'audit_chain: the proof that the newest checkpoint, or that of new_size entries, continues the one of old_size';

-- A role that may read the log may ask.
CREATE FUNCTION audit_sealed(tree_size bigint, chain integer, seq bigint) RETURNS boolean
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'audit_chain_sealed';
COMMENT ON FUNCTION audit_sealed(bigint, integer, bigint) IS
    'audit_chain: whether the checkpoint of tree_size entries seals an entry: whether its transaction had committed then';
