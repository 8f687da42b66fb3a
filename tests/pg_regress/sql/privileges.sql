-- Who may do what: the roles without privileges, a table's owner, an auditor, a superuser.
\getenv srcdir PG_ABS_SRCDIR
\set setup :srcdir '/setup.sql'
\i :setup

-- Every object of the extension, and every column of its tables and views, says what it is.
SELECT count(*) > 30 AS has_members FROM pg_depend
WHERE refclassid = 'pg_extension'::regclass AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'audit_chain');
SELECT pg_describe_object(classid, objid, 0) AS without_comment FROM pg_depend
WHERE refclassid = 'pg_extension'::regclass AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'audit_chain')
  AND deptype = 'e' AND classid <> 'pg_type'::regclass AND obj_description(objid, classid::regclass::name) IS NULL;
SELECT c.relname, a.attname AS without_comment FROM pg_depend d
JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE d.refclassid = 'pg_extension'::regclass AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'audit_chain')
  AND d.deptype = 'e' AND c.relkind IN ('r', 'v') AND col_description(c.oid, a.attnum) IS NULL;

CREATE ROLE regress_nobody;
CREATE ROLE regress_owner;
CREATE ROLE regress_member;
CREATE ROLE regress_auditor;
CREATE ROLE regress_application;
GRANT regress_owner TO regress_member;
GRANT USAGE ON SCHEMA app TO PUBLIC;
GRANT CREATE ON SCHEMA app TO regress_owner;
SET ROLE regress_owner;
CREATE TABLE app.t (id int PRIMARY KEY, v text);
GRANT ALL ON app.t TO regress_nobody;
RESET ROLE;

-- Nothing for PUBLIC but reading one's own doings' verdict, which takes SELECT on the log.
SELECT coalesce(string_agg(grantee || ' ' || privilege_type, ', '), 'none') AS public_privileges FROM information_schema.role_table_grants
WHERE table_name IN ('audit_log', 'audit_log_identity') AND grantee = 'PUBLIC';
SELECT p.proname FROM pg_proc p JOIN pg_depend d ON d.objid = p.oid AND d.deptype = 'e' JOIN pg_extension e ON e.oid = d.refobjid
WHERE d.classid = 'pg_proc'::regclass AND e.extname = 'audit_chain' AND has_function_privilege('regress_nobody', p.oid, 'EXECUTE')
  AND p.proname IN ('audit_enable', 'audit_disable', 'audit_event', 'audit_verify', 'audit_problems', '_audit_capture',
                    'audit_retention', 'audit_hold', 'audit_release', 'audit_prune', '_audit_prune_segment', 'audit_finish_pruning',
                    '_audit_refuse', '_audit_check_insert', '_audit_on_ddl', 'audit_erase', 'audit_erase_columns',
                    'audit_erase_actor', 'audit_erase_entry', 'audit_approve_erasure', 'audit_finish_erasure', 'audit_erasure_remains',
                    'audit_erasure_register', 'audit_apply_erasure_register', '_audit_is_to_erase') ORDER BY 1;

SET ROLE regress_nobody;
SELECT count(*) FROM audit_log;
SELECT count(*) FROM audit_log_identity;
INSERT INTO audit_log (chain) VALUES (1);
UPDATE audit_log SET actor = 'x';
DELETE FROM audit_log;
TRUNCATE audit_log;
SELECT valid FROM audit_verify();
SELECT * FROM audit_problems();
SELECT * FROM audit_transaction(1);
SELECT * FROM audit_by('x');
SELECT * FROM audit_changes;
SELECT * FROM audit_undo(1);
SELECT audit_restore('t', '{"id": 1}', 'now');
SELECT audit_event('x');
SELECT audit_disable('t', 'x');
SELECT * FROM audit_retention();
SELECT audit_hold('x', 'x');
SELECT audit_release('x', 'x');
SELECT * FROM audit_holds;
SELECT * FROM audit_prune(dry_run => true);
SELECT _audit_prune_segment(1, NULL, true, 'x', false);
CALL audit_finish_pruning();
SELECT audit_enable('t');
CREATE TEMP TABLE mine (id int);
CREATE TRIGGER x AFTER INSERT ON mine FOR EACH ROW EXECUTE FUNCTION _audit_capture();
CREATE TRIGGER x BEFORE INSERT ON mine FOR EACH ROW EXECUTE FUNCTION _audit_refuse();
RESET ROLE;

-- The owner, and a member of the owner's role, may begin auditing; not end it, nor drop or disable what captures.
SET ROLE regress_owner;
SELECT audit_enable('t');
SELECT audit_disable('t', 'x');
ALTER TABLE t DISABLE TRIGGER ALL;
ALTER TABLE t DISABLE TRIGGER USER;
ALTER TABLE t DISABLE TRIGGER "!audit_chain_row";
DROP TRIGGER "!audit_chain_row" ON t;
DROP TRIGGER "!audit_chain_statement" ON t;
ALTER TRIGGER "!audit_chain_row" ON t RENAME TO x;
RESET ROLE;
SET ROLE regress_member;
SELECT audit_enable('t', skip_unchanged => true);
RESET ROLE;
SELECT operation, effective_role FROM audit_log ORDER BY seq;

-- Writers need no privilege on anything of ours.
SET ROLE regress_nobody;
INSERT INTO t VALUES (1, 'a');
UPDATE t SET v = 'b';
RESET ROLE;
SELECT operation, effective_role FROM audit_log WHERE operation NOT IN ('ENABLE') ORDER BY seq;

-- An auditor reads and verifies; an application records events. Neither writes to the log otherwise.
GRANT SELECT ON audit_log, audit_log_identity, audit_checkpoint_log, audit_checkpoint_span, audit_tile TO regress_auditor;
GRANT EXECUTE ON FUNCTION audit_event(text, json) TO regress_application;
SET ROLE regress_auditor;
SELECT count(*) FROM audit_log WHERE operation <> 'DDL';
SELECT valid, problems FROM audit_verify();
SELECT * FROM audit_problems();
SELECT count(*) FROM audit_by('regress_nobody');
SELECT count(*) FROM audit_changes WHERE who = 'regress_nobody';
DELETE FROM audit_log;
SELECT audit_event('x');
RESET ROLE;
SET ROLE regress_application;
SELECT audit_event('allowed');
SELECT count(*) FROM audit_log;
RESET ROLE;
SELECT operation, effective_role FROM audit_log WHERE operation = 'EVENT';

-- Members of pg_monitor read two views, and none of the tables behind them; the function takes a right on its view.
CREATE ROLE regress_monitor IN ROLE pg_monitor;
SET ROLE regress_monitor;
SELECT entries > 0 AS sees, checkpoint_failures >= 0 AS counts FROM audit_status;
SELECT table_name, state FROM audit_coverage WHERE table_name = 't';
SELECT count(*) FROM audit_log;
SELECT count(*) FROM audit_lifecycle;
RESET ROLE;
SET ROLE regress_nobody;
TABLE audit_status;
SELECT _audit_status();
RESET ROLE;
DROP ROLE regress_monitor;

-- audit_disable() granted to a role is still refused: it takes the extension's owner.
GRANT EXECUTE ON FUNCTION audit_disable(regclass, text) TO regress_owner;
SET ROLE regress_owner;
SELECT audit_disable('t', 'I own the table');
RESET ROLE;
\set VERBOSITY sqlstate
SET ROLE regress_owner;
SELECT audit_disable('t', 'I own the table');
RESET ROLE;
\set VERBOSITY default
SELECT count(*) FROM pg_trigger WHERE tgrelid = 't'::regclass AND tgname LIKE '!audit%';

-- A user's own functions and operators are not run with our rights: the search path of the caller does not matter.
SET ROLE regress_owner;
CREATE FUNCTION app.count_rows() RETURNS bigint LANGUAGE sql AS 'SELECT 0::bigint';
CREATE FUNCTION app.evil(text, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'the operator of % was called', current_user; END $$;
CREATE OPERATOR app.= (LEFTARG = text, RIGHTARG = text, FUNCTION = app.evil);
CREATE FUNCTION app.evil(name, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'the operator of % was called', current_user; END $$;
CREATE OPERATOR app.= (LEFTARG = name, RIGHTARG = text, FUNCTION = app.evil);
CREATE TABLE app.pg_trigger (tgname text);
CREATE TABLE app.pg_class (relname text);
CREATE TABLE app.pg_inherits (relname text);
CREATE TABLE app.victim (id int);
RESET ROLE;
SET search_path = app, pg_catalog, public;
SELECT public.audit_enable('app.victim');
INSERT INTO app.victim VALUES (1);
SELECT valid, problems FROM public.audit_verify();
SELECT public.audit_disable('app.victim', 'done');
DROP TABLE app.victim;
SET search_path = app, public;
DROP OPERATOR app.= (text, text);
DROP OPERATOR app.= (name, text);
DROP TABLE app.pg_trigger, app.pg_class, app.pg_inherits;

-- The extension in a schema that its users cannot even see.
SELECT valid, problems FROM audit_verify();
SET client_min_messages = warning;
DROP EXTENSION audit_chain CASCADE;
DROP SCHEMA IF EXISTS "Hidden schema" CASCADE;
CREATE SCHEMA "Hidden schema";
CREATE EXTENSION audit_chain SCHEMA "Hidden schema";
RESET client_min_messages;
SELECT "Hidden schema".audit_enable('app.t');
SET ROLE regress_nobody;
INSERT INTO app.t VALUES (2, 'c');
SELECT "Hidden schema".audit_event('x');
RESET ROLE;
SELECT operation, effective_role, table_schema, table_name FROM "Hidden schema".audit_log ORDER BY seq;
SELECT valid, problems FROM "Hidden schema".audit_verify();
SELECT count(*) FROM "Hidden schema".audit_problems();
SET client_min_messages = warning;
DROP EXTENSION audit_chain CASCADE;
DROP SCHEMA "Hidden schema" CASCADE;
DROP SCHEMA app CASCADE;
DROP OWNED BY regress_nobody, regress_owner, regress_member, regress_auditor, regress_application;
DROP ROLE regress_nobody, regress_owner, regress_member, regress_auditor, regress_application;

-- Default privileges from before CREATE EXTENSION give no right on the extension's tables and functions.
CREATE ROLE "regress Default";
CREATE SCHEMA "Default schema";
ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO "regress Default" WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO "regress Default";
ALTER DEFAULT PRIVILEGES IN SCHEMA "Default schema" GRANT ALL ON TABLES TO PUBLIC;
CREATE EXTENSION audit_chain SCHEMA "Default schema";
SELECT c.relname AS object, a.grantee::regrole, a.privilege_type
FROM pg_class c CROSS JOIN aclexplode(c.relacl) a WHERE c.relnamespace = '"Default schema"'::regnamespace AND a.grantee <> c.relowner
UNION ALL
SELECT p.proname, a.grantee::regrole, a.privilege_type
FROM pg_proc p CROSS JOIN aclexplode(p.proacl) a WHERE p.pronamespace = '"Default schema"'::regnamespace AND a.grantee NOT IN (0, p.proowner)
ORDER BY 1;
SELECT p.proname FROM pg_proc p WHERE p.pronamespace = '"Default schema"'::regnamespace
    AND has_function_privilege('regress Default', p.oid, 'EXECUTE') ORDER BY p.proname COLLATE "C";
-- A role with all rights on data reads the log, and does not write to it.
CREATE ROLE regress_writer IN ROLE pg_write_all_data, pg_read_all_data;
SET ROLE regress_writer;
SELECT count(*) FROM "Default schema".audit_log;
INSERT INTO "Default schema".audit_lifecycle VALUES (0, 1);
INSERT INTO "Default schema".audit_schema_policy VALUES (9, 'public', '{%}', false, false);
UPDATE "Default schema".audit_log SET actor = 'x';
DELETE FROM "Default schema".audit_log;
TRUNCATE "Default schema".audit_log;
RESET ROLE;
DROP EXTENSION audit_chain CASCADE;
DROP SCHEMA "Default schema";
DROP OWNED BY "regress Default", regress_writer;
DROP ROLE "regress Default", regress_writer;

-- A schema in which others may create objects is not for the extension. Its owner, and superusers, may.
CREATE ROLE regress_owner;
CREATE ROLE regress_super SUPERUSER;
CREATE ROLE regress_other;
CREATE SCHEMA "Shared schema";
GRANT ALL ON SCHEMA "Shared schema" TO regress_super;
GRANT USAGE ON SCHEMA "Shared schema" TO PUBLIC, regress_other;
CREATE EXTENSION audit_chain SCHEMA "Shared schema";
DROP EXTENSION audit_chain;
GRANT CREATE ON SCHEMA "Shared schema" TO PUBLIC, regress_other;
CREATE EXTENSION audit_chain SCHEMA "Shared schema";
DROP EXTENSION audit_chain;
REVOKE ALL ON SCHEMA "Shared schema" FROM PUBLIC, regress_other;
ALTER SCHEMA "Shared schema" OWNER TO regress_owner;
CREATE EXTENSION audit_chain SCHEMA "Shared schema";
DROP EXTENSION audit_chain;
ALTER SCHEMA "Shared schema" OWNER TO pg_database_owner;
CREATE EXTENSION audit_chain SCHEMA "Shared schema";
DROP EXTENSION audit_chain;
-- What they have put there before is not called: operators and functions that fit better than those of pg_catalog.
DO $$
DECLARE
    one record;
BEGIN
    FOR one IN
        SELECT l.type AS l, r.type AS r, o.operator
        FROM unnest('{oid,regclass,regproc,regprocedure,regrole,name,text,json,jsonb,"\"char\"",int4,int8,bool,bytea,timestamptz}'::text[]) l(type),
            unnest('{oid,regclass,regproc,regprocedure,regrole,name,text,json,jsonb,"\"char\"",int4,int8,bool,bytea,timestamptz}'::text[]) r(type),
            unnest('{=,<>,<,>,<=,>=,-,+,->,->>,||,~~}'::text[]) o(operator)
        WHERE to_regoperator(format('pg_catalog.%s(%s,%s)', o.operator, l.type, r.type)) IS NULL
    LOOP
        EXECUTE format('CREATE OR REPLACE FUNCTION "Shared schema".trap(%s, %s) RETURNS %s LANGUAGE plpgsql AS %L', one.l, one.r,
            'bool', 'BEGIN RAISE ''an operator of another was called''; END');
        EXECUTE format('CREATE OPERATOR "Shared schema".%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = "Shared schema".trap)', one.operator, one.l, one.r);
    END LOOP;
    FOR one IN
        SELECT f.name, t.type
        FROM unnest('{array_agg,format,string_agg,unnest,count,coalesce,nullif,jsonb_to_record,jsonb_to_recordset,convert_from}'::text[]) f(name),
            unnest('{oid,name,text,json,jsonb,int4,int8,bool,text[]}'::text[]) t(type)
    LOOP
        EXECUTE format('CREATE FUNCTION "Shared schema".%I(%s) RETURNS %s LANGUAGE plpgsql AS %L', one.name, one.type, one.type,
            'BEGIN RAISE ''a function of another was called''; END');
    END LOOP;
END
$$;
CREATE EXTENSION audit_chain SCHEMA "Shared schema";
SELECT e.class, e.object, pg_describe_object(d.refclassid, d.refobjid, 0) AS calls
FROM (SELECT m.classid AS class_oid, m.objid AS oid, m.classid::regclass AS class, pg_describe_object(m.classid, m.objid, 0) AS object
      FROM pg_depend m JOIN pg_extension x ON x.oid = m.refobjid AND x.extname = 'audit_chain' AND m.deptype = 'e'
      UNION ALL
      SELECT 'pg_rewrite'::regclass, r.oid, 'pg_rewrite', pg_describe_object('pg_class'::regclass, r.ev_class, 0) FROM pg_rewrite r) e
    JOIN pg_depend d ON d.classid = e.class_oid AND d.objid = e.oid
    JOIN pg_depend s ON s.classid = d.refclassid AND s.objid = d.refobjid AND s.refclassid = 'pg_namespace'::regclass
        AND s.refobjid = '"Shared schema"'::regnamespace
WHERE d.refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass)
    AND NOT EXISTS (SELECT FROM pg_depend m WHERE m.classid = d.refclassid AND m.objid = d.refobjid AND m.deptype = 'e')
ORDER BY 2, 3;
SELECT count(*) FROM "Shared schema".audit_coverage WHERE table_name = 'x';
SELECT entries FROM "Shared schema".audit_status;
SELECT valid FROM "Shared schema".audit_verify();
SELECT * FROM "Shared schema".audit_problems();
SET client_min_messages = warning;
DROP EXTENSION audit_chain;
DROP SCHEMA "Shared schema" CASCADE;
RESET client_min_messages;
DROP ROLE regress_owner, regress_super, regress_other;
