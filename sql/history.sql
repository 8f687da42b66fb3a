-- History: what the log says, for people. Each function checks that its caller may read audit_log; EXECUTE
-- stays with PUBLIC.

-- One entry point for three types: '123', 123 and pg_current_xact_id() all mean something.
CREATE FUNCTION audit_transaction(
    xid xid8,
    OUT at timestamptz, OUT operation text, OUT "table" text, OUT row_key json, OUT changed json, OUT actor text,
    OUT session_role text, OUT effective_role text, OUT client_addr inet, OUT application_name text, OUT detail json,
    OUT chain integer, OUT seq bigint
) RETURNS SETOF record
    LANGUAGE c STABLE PARALLEL RESTRICTED ROWS 10 AS 'MODULE_PATHNAME', 'audit_chain_transaction';
CREATE FUNCTION audit_transaction(
    xid bigint,
    OUT at timestamptz, OUT operation text, OUT "table" text, OUT row_key json, OUT changed json, OUT actor text,
    OUT session_role text, OUT effective_role text, OUT client_addr inet, OUT application_name text, OUT detail json,
    OUT chain integer, OUT seq bigint
) RETURNS SETOF record
    LANGUAGE c STABLE PARALLEL RESTRICTED ROWS 10 AS 'MODULE_PATHNAME', 'audit_chain_transaction';
CREATE FUNCTION audit_transaction(
    xid text,
    OUT at timestamptz, OUT operation text, OUT "table" text, OUT row_key json, OUT changed json, OUT actor text,
    OUT session_role text, OUT effective_role text, OUT client_addr inet, OUT application_name text, OUT detail json,
    OUT chain integer, OUT seq bigint
) RETURNS SETOF record
    LANGUAGE c STABLE PARALLEL RESTRICTED ROWS 10 AS 'MODULE_PATHNAME', 'audit_chain_transaction';
COMMENT ON FUNCTION audit_transaction(xid8) IS
    'audit_chain: all entries of a transaction, in order, with what changed: {column: {"old": ..., "new": ...}}';
COMMENT ON FUNCTION audit_transaction(bigint) IS 'audit_chain: the same by the ID as a number';
COMMENT ON FUNCTION audit_transaction(text) IS 'audit_chain: the same by the ID as a text';

CREATE FUNCTION audit_by(
    who text, since timestamptz DEFAULT NULL, until timestamptz DEFAULT NULL,
    OUT at timestamptz, OUT operation text, OUT "table" text, OUT row_key json, OUT changed json, OUT actor text,
    OUT session_role text, OUT effective_role text, OUT client_addr inet, OUT application_name text, OUT detail json,
    OUT chain integer, OUT seq bigint, OUT xid xid8
) RETURNS SETOF record
    LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'audit_chain_by';
COMMENT ON FUNCTION audit_by(text, timestamptz, timestamptz) IS
    'audit_chain: all entries by an actor or a role, from since on and before until, by time';

-- What an entry changed, by its images. It reads nothing, so everybody may call it.
CREATE FUNCTION _audit_changed(old_row json, new_row json) RETURNS json
    LANGUAGE c IMMUTABLE PARALLEL SAFE COST 50 AS 'MODULE_PATHNAME', 'audit_chain_changed';
COMMENT ON FUNCTION _audit_changed(json, json) IS
    'audit_chain: {column: {"old": ..., "new": ...}} of the images of an entry; null if it has none';

-- The log as people read it, with the rights of whoever reads it: they need SELECT on audit_log. The order is
-- that of the time alone, so that indexes on it give the newest entries.
CREATE VIEW audit_changes WITH (security_invoker = true) AS
SELECT l.at, coalesce(l.actor, l.session_role) AS who, l.operation,
       CASE WHEN l.table_name IS NOT NULL THEN pg_catalog.format('%I.%I', l.table_schema, l.table_name) END AS "table",
       l.row_key AS key, _audit_changed(l.old_row, l.new_row) AS changed, l.xid, l.chain, l.seq
FROM audit_log l ORDER BY l.at DESC;
COMMENT ON VIEW audit_changes IS 'audit_chain: who changed what, the newest first; for roles that may read audit_log';
COMMENT ON COLUMN audit_changes.at IS 'when it was changed';
COMMENT ON COLUMN audit_changes.who IS 'the application''s user, as claimed by the application; without one, the role that logged in';
COMMENT ON COLUMN audit_changes.operation IS 'INSERT, UPDATE, DELETE and so on (audit_log.operation)';
COMMENT ON COLUMN audit_changes."table" IS 'the table, as it was called then';
COMMENT ON COLUMN audit_changes.key IS 'the columns of the primary key';
COMMENT ON COLUMN audit_changes.changed IS 'the changed columns, each with its old and its new value';
COMMENT ON COLUMN audit_changes.xid IS 'the transaction, for audit_transaction()';
COMMENT ON COLUMN audit_changes.chain IS 'the chain of the entry';
COMMENT ON COLUMN audit_changes.seq IS 'the place of the entry in it';
REVOKE ALL ON audit_changes FROM PUBLIC;
GRANT SELECT ON audit_changes TO PUBLIC;
