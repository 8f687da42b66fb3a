-- The guard: nobody edits the log, and capture ends only by audit_disable(). docs/threat-model.md says who is
-- stopped by which layer.

REVOKE ALL ON audit_log, audit_log_identity, audit_incarnation, audit_lifecycle, audit_schema_policy, audit_coverage, audit_status,
    audit_checkpoint_log, audit_checkpoint_span, audit_tile, audit_verification_place, audit_verification_log,
    audit_segment, audit_pruned_leaf, audit_segments, audit_retention_policy, audit_hold_log, audit_holds,
    audit_erasure, audit_erasure_request, audit_erasure_trace FROM PUBLIC;

CREATE FUNCTION _audit_refuse() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'audit_chain_refuse';
CREATE FUNCTION _audit_check_insert() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'audit_chain_check_insert';
CREATE FUNCTION _audit_on_ddl() RETURNS event_trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'audit_chain_on_ddl';
REVOKE ALL ON FUNCTION _audit_refuse(), _audit_check_insert(), _audit_on_ddl() FROM PUBLIC;

-- Statement triggers fire even if no row matches. Row triggers fire where changes are applied row by row, as
-- the workers of logical replication do. ENABLE ALWAYS makes them independent of session_replication_role. A
-- dump is restored with INSERT or COPY: _audit_check_insert() checks what a restore inserts, and refuses what
-- is not a restore.
DO $$
DECLARE
    own_table text;
BEGIN
    FOREACH own_table IN ARRAY ARRAY[
        'audit_log', 'audit_log_identity', 'audit_incarnation', 'audit_lifecycle', 'audit_schema_policy',
        'audit_checkpoint_log', 'audit_checkpoint_span', 'audit_tile', 'audit_verification_place', 'audit_segment', 'audit_pruned_leaf',
        'audit_retention_policy', 'audit_hold_log', 'audit_erasure', 'audit_erasure_request', 'audit_erasure_trace']
    LOOP
        EXECUTE pg_catalog.format($sql$
            CREATE TRIGGER "!audit_chain_refuse" BEFORE UPDATE OR DELETE OR TRUNCATE ON %1$I.%2$I
                FOR EACH STATEMENT EXECUTE FUNCTION %1$I._audit_refuse();
            CREATE TRIGGER "!audit_chain_refuse_row" BEFORE UPDATE OR DELETE ON %1$I.%2$I
                FOR EACH ROW EXECUTE FUNCTION %1$I._audit_refuse();
            CREATE TRIGGER "!audit_chain_check_insert" BEFORE INSERT ON %1$I.%2$I
                FOR EACH ROW EXECUTE FUNCTION %1$I._audit_check_insert();
            ALTER TABLE %1$I.%2$I
                ENABLE ALWAYS TRIGGER "!audit_chain_refuse",
                ENABLE ALWAYS TRIGGER "!audit_chain_refuse_row",
                ENABLE ALWAYS TRIGGER "!audit_chain_check_insert";
        $sql$, pg_catalog.current_schema(), own_table);
    END LOOP;
END
$$;

CREATE EVENT TRIGGER audit_chain_ddl_start ON ddl_command_start EXECUTE FUNCTION _audit_on_ddl();
CREATE EVENT TRIGGER audit_chain_ddl_end ON ddl_command_end EXECUTE FUNCTION _audit_on_ddl();
CREATE EVENT TRIGGER audit_chain_drop ON sql_drop EXECUTE FUNCTION _audit_on_ddl();
ALTER EVENT TRIGGER audit_chain_ddl_start ENABLE ALWAYS;
ALTER EVENT TRIGGER audit_chain_ddl_end ENABLE ALWAYS;
ALTER EVENT TRIGGER audit_chain_drop ENABLE ALWAYS;

-- Default privileges, which apply to objects that an extension creates too, give no role a right on the
-- extension's tables and functions. PUBLIC keeps what the scripts leave to it.
DO $$
DECLARE
    granted record;
BEGIN
    FOR granted IN
        SELECT o.object, r.rolname
        FROM (
            SELECT 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid AS class, c.oid,
                   pg_catalog.format('TABLE %I.%I', n.nspname, c.relname) AS object, c.relowner AS owner, c.relacl AS acl
            FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
            UNION ALL
            SELECT 'pg_catalog.pg_proc'::pg_catalog.regclass::pg_catalog.oid, p.oid,
                   pg_catalog.format('ROUTINE %s', p.oid::pg_catalog.regprocedure), p.proowner, p.proacl
            FROM pg_catalog.pg_proc p
        ) o
        JOIN pg_catalog.pg_depend d ON d.classid = o.class AND d.objid = o.oid AND d.deptype = 'e'
            AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass::pg_catalog.oid
        JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid AND e.extname = 'audit_chain'
        CROSS JOIN LATERAL (SELECT DISTINCT a.grantee FROM pg_catalog.aclexplode(o.acl) a) a
        JOIN pg_catalog.pg_roles r ON r.oid = a.grantee
        WHERE a.grantee <> o.owner
    LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON %s FROM %I', granted.object, granted.rolname);
    END LOOP;
END
$$;

-- Monitoring needs no right on the log. The views show numbers, times, and names that the catalogs show
-- everybody.
GRANT SELECT ON audit_status, audit_coverage, audit_segments TO pg_monitor;

-- A publication of the schema publishes the log too, which its subscribers may not expect. docs/operations.md
-- says more.
DO $$
BEGIN
    IF EXISTS (
        SELECT FROM pg_catalog.pg_publication_namespace p JOIN pg_catalog.pg_namespace n ON n.oid = p.pnnspid
        WHERE n.nspname = pg_catalog.current_schema())
    THEN
        RAISE WARNING 'a publication of schema "%" publishes the log of audit_chain too', pg_catalog.current_schema()
            USING HINT = 'Install the extension in a schema of its own: CREATE SCHEMA audit; '
                'CREATE EXTENSION audit_chain SCHEMA audit.';
    END IF;
END
$$;

COMMENT ON FUNCTION _audit_refuse() IS 'audit_chain: trigger function that refuses edits of the extension''s tables';
COMMENT ON FUNCTION _audit_check_insert() IS
    'audit_chain: trigger function that lets INSERT and COPY into the extension''s tables restore a dump, and nothing else; skips rows that logical replication brings';
COMMENT ON FUNCTION _audit_on_ddl() IS 'audit_chain: event trigger function that refuses, records and follows DDL';
COMMENT ON EVENT TRIGGER audit_chain_ddl_start IS 'audit_chain: a command begins';
COMMENT ON EVENT TRIGGER audit_chain_ddl_end IS 'audit_chain: refuses, records and follows what a command has changed';
COMMENT ON EVENT TRIGGER audit_chain_drop IS 'audit_chain: refuses and records what a command has dropped';
