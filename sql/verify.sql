-- Verification: an aggregate over the log's rows, so that PostgreSQL reads them, in parallel where that pays.
-- Its arguments are the columns of audit_log in their order.

CREATE FUNCTION _audit_check_transition(
    internal,
    seq bigint, at timestamptz, xid xid8, chain integer, operation text, table_schema text, table_name text,
    session_role text, effective_role text, actor text, application_name text, client_addr inet,
    who_salt bytea, who_digest bytea, row_key json, old_row json, new_row json, detail json, statement text,
    salt bytea, payload_digest bytea, prev_hash bytea, hash bytea
) RETURNS internal
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'audit_chain_check_transition';
CREATE FUNCTION _audit_check_combine(internal, internal) RETURNS internal
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'audit_chain_check_combine';
CREATE FUNCTION _audit_check_serialize(internal) RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'audit_chain_check_serialize';
CREATE FUNCTION _audit_check_deserialize(bytea, internal) RETURNS internal
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'audit_chain_check_deserialize';
-- Returns the serialised state, from which _audit_check_log() makes the report.
CREATE FUNCTION _audit_check_final(internal) RETURNS bytea
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'audit_chain_check_final';

CREATE AGGREGATE _audit_check(
    seq bigint, at timestamptz, xid xid8, chain integer, operation text, table_schema text, table_name text,
    session_role text, effective_role text, actor text, application_name text, client_addr inet,
    who_salt bytea, who_digest bytea, row_key json, old_row json, new_row json, detail json, statement text,
    salt bytea, payload_digest bytea, prev_hash bytea, hash bytea
) (
    sfunc = _audit_check_transition,
    stype = internal,
    sspace = 1024,
    combinefunc = _audit_check_combine,
    serialfunc = _audit_check_serialize,
    deserialfunc = _audit_check_deserialize,
    finalfunc = _audit_check_final,
    parallel = safe
);

COMMENT ON FUNCTION _audit_check_transition(internal, bigint, timestamptz, xid8, integer, text, text, text, text, text, text, text, inet, bytea, bytea, json, json, json, json,
    text, bytea, bytea, bytea, bytea) IS 'audit_chain: a part of _audit_check(): adds an entry';
COMMENT ON FUNCTION _audit_check_combine(internal, internal) IS
    'audit_chain: a part of _audit_check(): joins what two workers have seen';
COMMENT ON FUNCTION _audit_check_serialize(internal) IS
    'audit_chain: a part of _audit_check(): what a worker has seen, as bytes';
COMMENT ON FUNCTION _audit_check_deserialize(bytea, internal) IS
    'audit_chain: a part of _audit_check(): reads these bytes';
COMMENT ON FUNCTION _audit_check_final(internal) IS 'audit_chain: a part of _audit_check(): the result';
COMMENT ON AGGREGATE _audit_check(bigint, timestamptz, xid8, integer, text, text, text, text, text, text, text, inet, bytea, bytea, json, json, json, json,
    text, bytea, bytea, bytea, bytea) IS 'audit_chain: checks entries; a part of audit_verify()';

-- Returns the report as one object, which audit_verify() and audit_problems() unpack. For all roles that may
-- read the log's tables.
CREATE FUNCTION _audit_check_log(
    only_chain integer, since timestamptz, until timestamptz, checkpoint text, public_key text, since_checkpoint text
) RETURNS jsonb
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'audit_chain_check_log';
COMMENT ON FUNCTION _audit_check_log(integer, timestamptz, timestamptz, text, text, text) IS
    'audit_chain: the report of which audit_verify() and audit_problems() show a part';

CREATE FUNCTION audit_verify(
    only_chain       integer     DEFAULT NULL,
    since            timestamptz DEFAULT NULL,
    until            timestamptz DEFAULT NULL,
    checkpoint       text        DEFAULT NULL,
    public_key       text        DEFAULT NULL,
    since_checkpoint text        DEFAULT NULL,
    OUT valid boolean, OUT entries bigint, OUT chains integer, OUT checkpoints integer, OUT problems bigint,
    OUT summary text
) RETURNS record
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT r.valid, r.entries, r.chains, r.checkpoints, r.problem_count, r.summary
    FROM pg_catalog.jsonb_to_record(
            _audit_check_log(only_chain, since, until, checkpoint, public_key, since_checkpoint))
        AS r(valid boolean, entries bigint, chains integer, checkpoints integer, problem_count bigint, summary text);
END;
COMMENT ON FUNCTION audit_verify(integer, timestamptz, timestamptz, text, text, text) IS
    'audit_chain: whether the log, one of its chains, or a range of time is intact, and agrees with its checkpoints';

CREATE FUNCTION audit_problems(
    only_chain       integer     DEFAULT NULL,
    since            timestamptz DEFAULT NULL,
    until            timestamptz DEFAULT NULL,
    checkpoint       text        DEFAULT NULL,
    public_key       text        DEFAULT NULL,
    since_checkpoint text        DEFAULT NULL
) RETURNS TABLE (kind text, chain integer, seq bigint, table_name text, detail text)
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT p.kind, p.chain, p.seq, p.table_name, p.detail
    FROM pg_catalog.jsonb_to_recordset(
            _audit_check_log(only_chain, since, until, checkpoint, public_key, since_checkpoint) -> 'problems'::text)
        AS p(kind text, chain integer, seq bigint, table_name text, detail text);
END;
COMMENT ON FUNCTION audit_problems(integer, timestamptz, timestamptz, text, text, text) IS
    'audit_chain: the problems that audit_verify() counts, one per row';
