-- Capture: the trigger function of audited tables, and the functions that begin and end auditing.

CREATE FUNCTION _audit_capture() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'audit_chain_capture';
COMMENT ON FUNCTION _audit_capture() IS 'audit_chain: trigger function that records row changes and truncation; audit_enable() installs it';
REVOKE ALL ON FUNCTION _audit_capture() FROM PUBLIC;

CREATE FUNCTION audit_enable(
    relation        regclass,
    exclude_columns text[]  DEFAULT '{}',
    baseline        boolean DEFAULT false,
    mask_columns    text[]  DEFAULT '{}',
    skip_unchanged  boolean DEFAULT false
) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'audit_chain_enable';
COMMENT ON FUNCTION audit_enable(regclass, text[], boolean, text[], boolean) IS
    'audit_chain: record every change of a table from now on; for the table''s owner';

CREATE FUNCTION audit_disable(relation regclass, reason text) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'audit_chain_disable';
COMMENT ON FUNCTION audit_disable(regclass, text) IS
    'audit_chain: stop recording a table; an entry records who stopped it, and why; for superusers and the extension''s owner';
REVOKE ALL ON FUNCTION audit_disable(regclass, text) FROM PUBLIC;

CREATE FUNCTION audit_enable_schema(
    schema         regnamespace,
    exclude_tables text[]  DEFAULT '{}',
    baseline       boolean DEFAULT false,
    skip_unchanged boolean DEFAULT false,
    include_foreign_tables boolean DEFAULT false
) RETURNS integer
    LANGUAGE c AS 'MODULE_PATHNAME', 'audit_chain_enable_schema';
COMMENT ON FUNCTION audit_enable_schema(regnamespace, text[], boolean, boolean, boolean) IS
    'audit_chain: audit all tables of a schema, and those created there later; returns the number of newly audited tables';

CREATE FUNCTION audit_disable_schema(schema regnamespace, reason text) RETURNS integer
    LANGUAGE c AS 'MODULE_PATHNAME', 'audit_chain_disable_schema';
COMMENT ON FUNCTION audit_disable_schema(regnamespace, text) IS
    'audit_chain: stop auditing the tables of a schema, and those created there later; returns the number of tables stopped';
REVOKE ALL ON FUNCTION audit_disable_schema(regnamespace, text) FROM PUBLIC;

CREATE FUNCTION audit_event(action text, detail json DEFAULT '{}') RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'audit_chain_event';
COMMENT ON FUNCTION audit_event(text, json) IS 'audit_chain: record an event of the application';
REVOKE ALL ON FUNCTION audit_event(text, json) FROM PUBLIC;
