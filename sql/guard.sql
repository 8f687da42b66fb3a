-- The guard: nobody edits the log, and capture ends only by audit_disable(). docs/threat-model.md says who is stopped by
-- which layer.

REVOKE ALL ON audit_log, audit_log_identity, audit_lifecycle, audit_schema_policy, audit_coverage, audit_status,
    audit_checkpoint_log, audit_checkpoint_span, audit_tile FROM PUBLIC;

CREATE FUNCTION audit_chain_refuse() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'audit_chain_refuse';
CREATE FUNCTION audit_chain_check_insert() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'audit_chain_check_insert';
CREATE FUNCTION audit_chain_on_ddl() RETURNS event_trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'audit_chain_on_ddl';
REVOKE ALL ON FUNCTION audit_chain_refuse(), audit_chain_check_insert(), audit_chain_on_ddl() FROM PUBLIC;

-- Statement triggers fire even if no row matches. ENABLE ALWAYS makes them independent of session_replication_role.
CREATE TRIGGER "!audit_chain_refuse" BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION audit_chain_refuse();
ALTER TABLE audit_log ENABLE ALWAYS TRIGGER "!audit_chain_refuse";
CREATE TRIGGER "!audit_chain_refuse" BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log_identity
    FOR EACH STATEMENT EXECUTE FUNCTION audit_chain_refuse();
ALTER TABLE audit_log_identity ENABLE ALWAYS TRIGGER "!audit_chain_refuse";
CREATE TRIGGER "!audit_chain_refuse" BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_lifecycle
    FOR EACH STATEMENT EXECUTE FUNCTION audit_chain_refuse();
ALTER TABLE audit_lifecycle ENABLE ALWAYS TRIGGER "!audit_chain_refuse";
CREATE TRIGGER "!audit_chain_refuse" BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_checkpoint_log
    FOR EACH STATEMENT EXECUTE FUNCTION audit_chain_refuse();
ALTER TABLE audit_checkpoint_log ENABLE ALWAYS TRIGGER "!audit_chain_refuse";
CREATE TRIGGER "!audit_chain_refuse" BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_checkpoint_span
    FOR EACH STATEMENT EXECUTE FUNCTION audit_chain_refuse();
ALTER TABLE audit_checkpoint_span ENABLE ALWAYS TRIGGER "!audit_chain_refuse";
CREATE TRIGGER "!audit_chain_refuse" BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_tile
    FOR EACH STATEMENT EXECUTE FUNCTION audit_chain_refuse();
ALTER TABLE audit_tile ENABLE ALWAYS TRIGGER "!audit_chain_refuse";
-- It lets audit_enable_schema() and audit_disable_schema() write.
CREATE TRIGGER "!audit_chain_refuse" BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_schema_policy
    FOR EACH STATEMENT EXECUTE FUNCTION audit_chain_refuse();
ALTER TABLE audit_schema_policy ENABLE ALWAYS TRIGGER "!audit_chain_refuse";

-- A dump is restored with INSERT or COPY: an entry is accepted if its hash is the hash of its content.
CREATE TRIGGER "!audit_chain_check_insert" BEFORE INSERT ON audit_log
    FOR EACH ROW EXECUTE FUNCTION audit_chain_check_insert();
ALTER TABLE audit_log ENABLE ALWAYS TRIGGER "!audit_chain_check_insert";

CREATE EVENT TRIGGER audit_chain_ddl_start ON ddl_command_start EXECUTE FUNCTION audit_chain_on_ddl();
CREATE EVENT TRIGGER audit_chain_ddl_end ON ddl_command_end EXECUTE FUNCTION audit_chain_on_ddl();
CREATE EVENT TRIGGER audit_chain_drop ON sql_drop EXECUTE FUNCTION audit_chain_on_ddl();
ALTER EVENT TRIGGER audit_chain_ddl_start ENABLE ALWAYS;
ALTER EVENT TRIGGER audit_chain_ddl_end ENABLE ALWAYS;
ALTER EVENT TRIGGER audit_chain_drop ENABLE ALWAYS;
