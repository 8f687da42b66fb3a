-- Taking back what a transaction did, and bringing a row to a state of the past. Whoever may read audit_log
-- may call these functions, which check that themselves; their statements are run with the caller's rights.

CREATE FUNCTION audit_undo(
    xid xid8, dry_run boolean DEFAULT true, force boolean DEFAULT false,
    OUT step integer, OUT "table" text, OUT row_key json, OUT statement text, OUT conflict text
) RETURNS SETOF record
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'audit_chain_undo';
COMMENT ON FUNCTION audit_undo(xid8, boolean, boolean) IS
    'audit_chain: the statements that take back a transaction; runs them if told dry_run => false, and not if rows have changed since, unless told force => true';

CREATE FUNCTION audit_undo(
    xid bigint, dry_run boolean DEFAULT true, force boolean DEFAULT false,
    OUT step integer, OUT "table" text, OUT row_key json, OUT statement text, OUT conflict text
) RETURNS SETOF record
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'audit_chain_undo';
COMMENT ON FUNCTION audit_undo(bigint, boolean, boolean) IS
    'audit_chain: the same for an xid that is given as a number';

CREATE FUNCTION audit_undo(
    xid text, dry_run boolean DEFAULT true, force boolean DEFAULT false,
    OUT step integer, OUT "table" text, OUT row_key json, OUT statement text, OUT conflict text
) RETURNS SETOF record
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'audit_chain_undo';
COMMENT ON FUNCTION audit_undo(text, boolean, boolean) IS
    'audit_chain: the same for an xid that is given as a text';

CREATE FUNCTION audit_restore(relation text, key jsonb, at timestamptz, dry_run boolean DEFAULT false) RETURNS text
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'audit_chain_restore_named_to_time';
COMMENT ON FUNCTION audit_restore(text, jsonb, timestamptz, boolean) IS
    'audit_chain: brings a row to its state as of a time; returns the statement, which it does not run if told dry_run => true';

CREATE FUNCTION audit_restore(relation text, key jsonb, checkpoint bigint, dry_run boolean DEFAULT false) RETURNS text
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'audit_chain_restore_named_to_checkpoint';
COMMENT ON FUNCTION audit_restore(text, jsonb, bigint, boolean) IS
    'audit_chain: the same when a checkpoint was made, by how many entries it seals';

CREATE FUNCTION audit_restore(relation text, key jsonb, at text, dry_run boolean DEFAULT false) RETURNS text
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'audit_chain_restore_named_to_text';
COMMENT ON FUNCTION audit_restore(text, jsonb, text, boolean) IS
    'audit_chain: the same as of a checkpoint as it was issued, or a time';

CREATE FUNCTION audit_restore(relation regclass, key jsonb, at timestamptz, dry_run boolean DEFAULT false) RETURNS text
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'audit_chain_restore_to_time';
COMMENT ON FUNCTION audit_restore(regclass, jsonb, timestamptz, boolean) IS
    'audit_chain: the same as of a time, for a table that exists';

CREATE FUNCTION audit_restore(relation regclass, key jsonb, checkpoint bigint, dry_run boolean DEFAULT false) RETURNS text
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'audit_chain_restore_to_checkpoint';
COMMENT ON FUNCTION audit_restore(regclass, jsonb, bigint, boolean) IS
    'audit_chain: the same when a checkpoint was made, by how many entries it seals, for a table that exists';

CREATE FUNCTION audit_restore(relation regclass, key jsonb, at text, dry_run boolean DEFAULT false) RETURNS text
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'audit_chain_restore_to_text';
COMMENT ON FUNCTION audit_restore(regclass, jsonb, text, boolean) IS
    'audit_chain: the same as of a checkpoint as it was issued, or a time, for a table that exists';
