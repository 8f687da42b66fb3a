-- Capture: the trigger function of audited tables, and what turns it on and off.

CREATE FUNCTION audit_chain_capture() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'audit_chain_capture';
COMMENT ON FUNCTION audit_chain_capture() IS 'audit_chain: records row changes and truncation; installed by audit_enable()';
REVOKE ALL ON FUNCTION audit_chain_capture() FROM PUBLIC;

CREATE FUNCTION audit_enable(
    relation        regclass,
    exclude_columns text[]  DEFAULT '{}',
    baseline        boolean DEFAULT false,
    mask_columns    text[]  DEFAULT '{}',
    skip_unchanged  boolean DEFAULT false
) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'audit_chain_enable';
COMMENT ON FUNCTION audit_enable(regclass, text[], boolean, text[], boolean) IS
    'audit_chain: from now on every change of the table is recorded (the table''s owner)';

CREATE FUNCTION audit_disable(relation regclass, reason text) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'audit_chain_disable';
COMMENT ON FUNCTION audit_disable(regclass, text) IS
    'audit_chain: stop recording the table; the entry names who and why (superuser or the extension''s owner)';
REVOKE ALL ON FUNCTION audit_disable(regclass, text) FROM PUBLIC;

CREATE FUNCTION audit_enable_schema(
    schema         regnamespace,
    exclude_tables text[]  DEFAULT '{}',
    baseline       boolean DEFAULT false,
    skip_unchanged boolean DEFAULT false
) RETURNS integer
    LANGUAGE c AS 'MODULE_PATHNAME', 'audit_chain_enable_schema';
COMMENT ON FUNCTION audit_enable_schema(regnamespace, text[], boolean, boolean) IS
    'audit_chain: audit all tables of a schema, and those created there later; returns how many are newly audited';

CREATE FUNCTION audit_disable_schema(schema regnamespace, reason text) RETURNS integer
    LANGUAGE c AS 'MODULE_PATHNAME', 'audit_chain_disable_schema';
COMMENT ON FUNCTION audit_disable_schema(regnamespace, text) IS
    'audit_chain: stop auditing the tables of a schema, and those created there later; returns how many were audited';
REVOKE ALL ON FUNCTION audit_disable_schema(regnamespace, text) FROM PUBLIC;

CREATE FUNCTION audit_event(action text, detail json DEFAULT '{}') RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'audit_chain_event';
COMMENT ON FUNCTION audit_event(text, json) IS 'audit_chain: record an event of the application';
REVOKE ALL ON FUNCTION audit_event(text, json) FROM PUBLIC;
