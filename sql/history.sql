-- History: what the log says, for people. Each function checks that its caller may read audit_log; EXECUTE stays with PUBLIC.

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
