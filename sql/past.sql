-- A table's past, from the log: the changes of a row, the rows at a moment, what changed between two. Whoever
-- may read audit_log may call these functions, which check that themselves.

CREATE FUNCTION audit_history(
    relation text, key jsonb DEFAULT NULL, since timestamptz DEFAULT NULL, until timestamptz DEFAULT NULL,
    OUT at timestamptz, OUT operation text, OUT "table" text, OUT row_key json, OUT changed json, OUT actor text,
    OUT session_role text, OUT effective_role text, OUT client_addr inet, OUT application_name text, OUT xid xid8,
    OUT chain integer, OUT seq bigint
) RETURNS SETOF record
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'audit_chain_history_of_name';
COMMENT ON FUNCTION audit_history(text, jsonb, timestamptz, timestamptz) IS
    'audit_chain: the changes of a row, or of all rows of a table, with who made them, what they changed, and the entry that proves it';

CREATE FUNCTION audit_history(
    relation regclass, key jsonb DEFAULT NULL, since timestamptz DEFAULT NULL, until timestamptz DEFAULT NULL,
    OUT at timestamptz, OUT operation text, OUT "table" text, OUT row_key json, OUT changed json, OUT actor text,
    OUT session_role text, OUT effective_role text, OUT client_addr inet, OUT application_name text, OUT xid xid8,
    OUT chain integer, OUT seq bigint
) RETURNS SETOF record
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'audit_chain_history';
COMMENT ON FUNCTION audit_history(regclass, jsonb, timestamptz, timestamptz) IS
    'audit_chain: the same for a table that exists';

CREATE FUNCTION audit_history(
    "row" anyelement, key jsonb DEFAULT NULL, since timestamptz DEFAULT NULL, until timestamptz DEFAULT NULL,
    OUT at timestamptz, OUT operation text, OUT "table" text, OUT row_key json, OUT old_row anyelement, OUT new_row anyelement,
    OUT actor text, OUT session_role text, OUT effective_role text, OUT client_addr inet, OUT application_name text, OUT xid xid8,
    OUT chain integer, OUT seq bigint
) RETURNS SETOF record
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'audit_chain_history_of_type';
COMMENT ON FUNCTION audit_history(anyelement, jsonb, timestamptz, timestamptz) IS
    'audit_chain: the same with the row before and after each change, as a row of the table: audit_history(NULL::accounts, ...)';

CREATE FUNCTION audit_as_of("row" anyelement, at timestamptz, exact boolean DEFAULT true) RETURNS SETOF anyelement
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'audit_chain_as_of_time';
COMMENT ON FUNCTION audit_as_of(anyelement, timestamptz, boolean) IS
    'audit_chain: the rows of a table as they were at the newest checkpoint before a time, or, unless exact, at the time: audit_as_of(NULL::accounts, ...)';

CREATE FUNCTION audit_as_of("row" anyelement, checkpoint bigint) RETURNS SETOF anyelement
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'audit_chain_as_of_checkpoint';
COMMENT ON FUNCTION audit_as_of(anyelement, bigint) IS
    'audit_chain: the rows of a table exactly as they were when the checkpoint of that many entries was made';

CREATE FUNCTION audit_as_of("row" anyelement, at text, exact boolean DEFAULT true) RETURNS SETOF anyelement
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'audit_chain_as_of_text';
COMMENT ON FUNCTION audit_as_of(anyelement, text, boolean) IS
    'audit_chain: the same for a checkpoint as it was issued, its number of entries, or a time';

CREATE FUNCTION audit_diff(
    "row" anyelement, since timestamptz, until timestamptz, exact boolean DEFAULT true,
    OUT change text, OUT columns text[], OUT old_row anyelement, OUT new_row anyelement
) RETURNS SETOF record
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'audit_chain_diff_times';
COMMENT ON FUNCTION audit_diff(anyelement, timestamptz, timestamptz, boolean) IS
    'audit_chain: the rows of a table that were added, removed or changed between two times: audit_diff(NULL::accounts, ...)';

CREATE FUNCTION audit_diff(
    "row" anyelement, since bigint, until bigint,
    OUT change text, OUT columns text[], OUT old_row anyelement, OUT new_row anyelement
) RETURNS SETOF record
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'audit_chain_diff_checkpoints';
COMMENT ON FUNCTION audit_diff(anyelement, bigint, bigint) IS
    'audit_chain: the same between two checkpoints, by how many entries they seal';

CREATE FUNCTION audit_diff(
    "row" anyelement, since text, until text, exact boolean DEFAULT true,
    OUT change text, OUT columns text[], OUT old_row anyelement, OUT new_row anyelement
) RETURNS SETOF record
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'audit_chain_diff_texts';
COMMENT ON FUNCTION audit_diff(anyelement, text, text, boolean) IS
    'audit_chain: the same between two checkpoints as they were issued, or times';

CREATE FUNCTION audit_check_table(
    relation regclass,
    OUT problem text, OUT row_key json, OUT columns text[], OUT in_table json, OUT in_log json,
    OUT at timestamptz, OUT chain integer, OUT seq bigint
) RETURNS SETOF record
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'audit_chain_check_table';
COMMENT ON FUNCTION audit_check_table(regclass) IS
    'audit_chain: the rows of a table that are not what the log says: different, missing or extra, with the entry that says so';

-- Time travel: temporary views of the tables' own names.
CREATE FUNCTION _audit_past(relation text, checkpoint bigint, at timestamptz) RETURNS SETOF record
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'audit_chain_past';
COMMENT ON FUNCTION _audit_past(text, bigint, timestamptz) IS
    'audit_chain: the rows of a table at a moment, for the views of audit_time_travel()';

CREATE FUNCTION audit_time_travel(at timestamptz, exact boolean DEFAULT true) RETURNS integer
    LANGUAGE c AS 'MODULE_PATHNAME', 'audit_chain_travel_to_time';
COMMENT ON FUNCTION audit_time_travel(timestamptz, boolean) IS
    'audit_chain: let this session see the audited tables as they were, by temporary views of their names; returns how many';

CREATE FUNCTION audit_time_travel(checkpoint bigint) RETURNS integer
    LANGUAGE c AS 'MODULE_PATHNAME', 'audit_chain_travel_to_checkpoint';
COMMENT ON FUNCTION audit_time_travel(bigint) IS 'audit_chain: the same for the checkpoint of that many entries';

CREATE FUNCTION audit_time_travel(at text, exact boolean DEFAULT true) RETURNS integer
    LANGUAGE c AS 'MODULE_PATHNAME', 'audit_chain_travel_to_text';
COMMENT ON FUNCTION audit_time_travel(text, boolean) IS
    'audit_chain: the same for a checkpoint as it was issued, its number of entries, or a time';

CREATE FUNCTION audit_time_travel_end() RETURNS integer
    LANGUAGE c AS 'MODULE_PATHNAME', 'audit_chain_travel_end';
COMMENT ON FUNCTION audit_time_travel_end() IS
    'audit_chain: let this session see the tables as they are again; returns how many views were dropped';
