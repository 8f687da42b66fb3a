-- Row ids: bytes that stand for a row in the indexes of sealed segments (crates/core/src/row_id.rs). Every
-- role that may read the log may use those indexes, so every role may call these functions.

CREATE FUNCTION audit_row_id(table_schema text, table_name text, row_key json) RETURNS bytea
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'audit_chain_row_id';
COMMENT ON FUNCTION audit_row_id(text, text, json) IS
    'audit_chain: the id of a row in the log''s indexes; the same for all rows of a table without a key, and null without a table';

CREATE FUNCTION audit_left_row_id(table_schema text, table_name text, row_key json, old_row json) RETURNS bytea
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'audit_chain_left_row_id';
COMMENT ON FUNCTION audit_left_row_id(text, text, json, json) IS
    'audit_chain: the id that a row had before an UPDATE that changed its key; null for every other entry';
