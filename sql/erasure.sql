-- Erasure by law: entries lose their payload or their who-part, and keep the digest that their hash covers.
-- docs/retention.md says how to use this.

-- The places of the ERASE entries, so that nobody need search the log for them.
CREATE TABLE audit_erasure (
    chain   integer     NOT NULL,
    seq     bigint      NOT NULL,
    at      timestamptz NOT NULL,
    part    text        NOT NULL CHECK (part IN ('payload', 'who')),
    entries bigint      NOT NULL CHECK (entries > 0),
    request uuid        NOT NULL,
    PRIMARY KEY (chain, seq)
);
COMMENT ON TABLE audit_erasure IS 'audit_chain: the places of the entries about erasures';
COMMENT ON COLUMN audit_erasure.chain IS 'the chain of the entry';
COMMENT ON COLUMN audit_erasure.seq IS 'the place of the entry in it';
COMMENT ON COLUMN audit_erasure.at IS 'when it was erased: the time of the entry';
COMMENT ON COLUMN audit_erasure.part IS 'what was erased: payload or who';
COMMENT ON COLUMN audit_erasure.entries IS 'how many entries lost it';
COMMENT ON COLUMN audit_erasure.request IS 'the request by which it was erased: several entries may belong to one';

SELECT pg_catalog.pg_extension_config_dump('audit_erasure', '');

-- Erasures that wait for a second role's approval, and those that were decided: a row for each state. A dump
-- does not contain them: what is asked for may name a person, and a copy must not execute what the original
-- was asked for.
CREATE TABLE audit_erasure_request (
    request      uuid        NOT NULL,
    state        text        NOT NULL CHECK (state IN ('requested', 'executed', 'rejected')),
    at           timestamptz NOT NULL,
    role         oid         NOT NULL,
    session_role oid         NOT NULL,
    login_role   oid         NOT NULL,
    subject      json,
    reason       text,
    PRIMARY KEY (request, state)
);
COMMENT ON TABLE audit_erasure_request IS 'audit_chain: erasures that were requested for a second role''s approval; a row for each state';
COMMENT ON COLUMN audit_erasure_request.request IS 'the request';
COMMENT ON COLUMN audit_erasure_request.state IS 'requested, executed or rejected';
COMMENT ON COLUMN audit_erasure_request.at IS 'when it reached that state';
COMMENT ON COLUMN audit_erasure_request.role IS 'the role that requested it, or decided on it';
COMMENT ON COLUMN audit_erasure_request.session_role IS 'the role of its session';
COMMENT ON COLUMN audit_erasure_request.login_role IS 'the role that had logged in';
COMMENT ON COLUMN audit_erasure_request.subject IS 'what is to be erased; removed when the request is decided, because it may name a person';
COMMENT ON COLUMN audit_erasure_request.reason IS 'the reason';

-- The tables in whose files erased values remain, until they are written anew: a row for each event. It is
-- about this database's files, so a dump does not contain it.
CREATE TABLE audit_erasure_trace (
    segment   integer     NOT NULL CHECK (segment >= 0),
    at        timestamptz NOT NULL,
    rewritten boolean     NOT NULL,
    wal       pg_lsn      NOT NULL,
    PRIMARY KEY (segment, at)
);
COMMENT ON TABLE audit_erasure_trace IS 'audit_chain: when entries of a segment, or what a request named, were erased, and when its table was written anew';
COMMENT ON COLUMN audit_erasure_trace.segment IS 'the segment; 0 for audit_erasure_request';
COMMENT ON COLUMN audit_erasure_trace.at IS 'when that happened';
COMMENT ON COLUMN audit_erasure_trace.rewritten IS 'whether its table was written anew; otherwise entries of it were erased';
COMMENT ON COLUMN audit_erasure_trace.wal IS 'the end of the WAL then';

-- Whoever may call these may erase: REVOKEd from PUBLIC. They need no right on the log's tables.
CREATE FUNCTION audit_erase(
    relation   text,
    key        jsonb,
    reason     text,
    dry_run    boolean DEFAULT true,
    by_content boolean DEFAULT false
) RETURNS TABLE (
    state text, erasure uuid, table_schema text, table_name text, segment integer, erased text, entries bigint,
    first_at timestamptz, last_at timestamptz
)
    LANGUAGE c AS 'MODULE_PATHNAME', 'audit_chain_erase';
COMMENT ON FUNCTION audit_erase(text, jsonb, text, boolean, boolean) IS
    'audit_chain: erase the payload of all entries about one row of a table; by default it only shows what would be erased';

CREATE FUNCTION audit_erase_columns(
    relation text,
    columns  text[],
    reason   text,
    dry_run  boolean DEFAULT true
) RETURNS TABLE (
    state text, erasure uuid, table_schema text, table_name text, segment integer, erased text, entries bigint,
    first_at timestamptz, last_at timestamptz
)
    LANGUAGE c AS 'MODULE_PATHNAME', 'audit_chain_erase_columns';
COMMENT ON FUNCTION audit_erase_columns(text, text[], text, boolean) IS
    'audit_chain: erase the whole payload of all entries that hold values of columns which were recorded by mistake; by default it only shows what would be erased';

CREATE FUNCTION audit_erase_actor(
    actor   text,
    reason  text,
    dry_run boolean DEFAULT true,
    by      text    DEFAULT 'actor'
) RETURNS TABLE (
    state text, erasure uuid, table_schema text, table_name text, segment integer, erased text, entries bigint,
    first_at timestamptz, last_at timestamptz
)
    LANGUAGE c AS 'MODULE_PATHNAME', 'audit_chain_erase_actor';
COMMENT ON FUNCTION audit_erase_actor(text, text, boolean, text) IS
    'audit_chain: erase the who-part of all entries of an actor, or with another value in a column of the who-part; by default it only shows what would be erased';

CREATE FUNCTION audit_erase_entry(
    chain   integer,
    seq     bigint,
    part    text,
    reason  text,
    dry_run boolean DEFAULT true
) RETURNS TABLE (
    state text, erasure uuid, table_schema text, table_name text, segment integer, erased text, entries bigint,
    first_at timestamptz, last_at timestamptz
)
    LANGUAGE c AS 'MODULE_PATHNAME', 'audit_chain_erase_entry';
COMMENT ON FUNCTION audit_erase_entry(integer, bigint, text, text, boolean) IS
    'audit_chain: erase the payload of one entry, or its who-part, which other entries of its transaction may share; by default it only shows what would be erased';

CREATE FUNCTION audit_approve_erasure(request uuid, approve boolean DEFAULT true) RETURNS TABLE (
    state text, erasure uuid, table_schema text, table_name text, segment integer, erased text, entries bigint,
    first_at timestamptz, last_at timestamptz
)
    LANGUAGE c AS 'MODULE_PATHNAME', 'audit_chain_approve_erasure';
COMMENT ON FUNCTION audit_approve_erasure(uuid, boolean) IS
    'audit_chain: execute, or reject, an erasure that another role has requested';

CREATE PROCEDURE audit_finish_erasure()
    LANGUAGE c AS 'MODULE_PATHNAME', 'audit_chain_finish_erasure';
COMMENT ON PROCEDURE audit_finish_erasure() IS
    'audit_chain: write the tables anew in whose files erased values remain';

CREATE FUNCTION audit_erasure_remains() RETURNS TABLE (what text, location text, since timestamptz, remedy text)
    LANGUAGE c AS 'MODULE_PATHNAME', 'audit_chain_erasure_remains';
COMMENT ON FUNCTION audit_erasure_remains() IS 'audit_chain: where erased values may remain';

CREATE FUNCTION audit_erasure_register() RETURNS text
    LANGUAGE c AS 'MODULE_PATHNAME', 'audit_chain_erasure_register';
COMMENT ON FUNCTION audit_erasure_register() IS
    'audit_chain: the places of all erased parts, signed, for those who hold copies of the log';

CREATE FUNCTION audit_apply_erasure_register(register text, public_key text) RETURNS TABLE (
    state text, erasure uuid, table_schema text, table_name text, segment integer, erased text, entries bigint,
    first_at timestamptz, last_at timestamptz
)
    LANGUAGE c AS 'MODULE_PATHNAME', 'audit_chain_apply_erasure_register';
COMMENT ON FUNCTION audit_apply_erasure_register(text, text) IS
    'audit_chain: erase in this copy of the log what the register of another copy names';

-- The condition of the queries by which entries are found.
CREATE FUNCTION _audit_is_to_erase(
    at timestamptz, table_schema text, table_name text, row_key json, old_row json, new_row json, detail json, wanted text
) RETURNS boolean
    LANGUAGE c STABLE PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'audit_chain_is_to_erase';
COMMENT ON FUNCTION _audit_is_to_erase(timestamptz, text, text, json, json, json, json, text) IS
    'audit_chain: a part of audit_erase(): whether an entry is about a row';

REVOKE ALL ON FUNCTION audit_erase(text, jsonb, text, boolean, boolean), audit_erase_columns(text, text[], text, boolean),
    audit_erase_actor(text, text, boolean, text), audit_erase_entry(integer, bigint, text, text, boolean),
    audit_approve_erasure(uuid, boolean), audit_erasure_remains(), audit_erasure_register(),
    audit_apply_erasure_register(text, text),
    _audit_is_to_erase(timestamptz, text, text, json, json, json, json, text) FROM PUBLIC;
REVOKE ALL ON PROCEDURE audit_finish_erasure() FROM PUBLIC;
