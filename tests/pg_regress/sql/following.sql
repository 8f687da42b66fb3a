-- DDL that reaches audited tables from elsewhere is recorded and followed; what would end the guard is refused.
\getenv srcdir PG_ABS_SRCDIR
\set setup :srcdir '/setup.sql'
\i :setup
\pset null -
CREATE FUNCTION ddl() RETURNS TABLE (op text, on_table text, tag text, object text, reason text)
LANGUAGE plpgsql AS $$
DECLARE
    seen bigint := coalesce(nullif(current_setting('test.ddl', true), ''), '0');
BEGIN
    PERFORM set_config('test.ddl', coalesce(max(seq), 0)::text, false) FROM public.audit_log;
    RETURN QUERY SELECT l.operation, l.table_schema || '.' || l.table_name, l.detail ->> 'tag', l.detail ->> 'object', l.detail ->> 'reason'
        FROM public.audit_log l WHERE l.seq > seen AND l.operation IN ('DDL', 'ENABLE', 'DISABLE') ORDER BY l.chain, l.seq;
END
$$;

-- Types of columns.
CREATE TYPE verdict AS ENUM ('approved', 'rejected');
CREATE DOMAIN ruling AS verdict;
CREATE TYPE part AS (a int, b text);
CREATE TABLE cases (id int PRIMARY KEY, v verdict, all_of verdict[], r ruling, p part);
CREATE TABLE others (id int, v verdict);
CREATE TABLE typed OF part;
SELECT audit_enable('cases'), audit_enable('typed');
SELECT count(*) FROM ddl();
ALTER TYPE verdict RENAME VALUE 'approved' TO 'x';
SELECT * FROM ddl();
ALTER TYPE part DROP ATTRIBUTE b CASCADE;
SELECT * FROM ddl();
ALTER TYPE part ADD ATTRIBUTE c int CASCADE;
SELECT * FROM ddl();

-- From a parent that is not audited.
CREATE TABLE parent (id int, n int);
CREATE TABLE child () INHERITS (parent);
SELECT audit_enable('child', exclude_columns => '{n}');
SELECT count(*) FROM ddl();
ALTER TABLE parent ALTER n TYPE text USING 'changed';
SELECT * FROM ddl();
ALTER TABLE parent ADD COLUMN m int DEFAULT 7;
SELECT * FROM ddl();
ALTER TABLE parent RENAME n TO nn;
SELECT * FROM ddl();
SELECT options FROM audit_coverage WHERE table_name = 'child';
ALTER TABLE parent DROP COLUMN nn;
SELECT * FROM ddl();
SELECT options FROM audit_coverage WHERE table_name = 'child';

-- A schema's policy: in CREATE SCHEMA, by a new name, over two schemas, under another name.
SELECT audit_enable_schema('app', exclude_tables => '{oth%}');
SELECT count(*) FROM ddl();
ALTER TABLE others RENAME TO included;
SELECT * FROM ddl();
SELECT audit_enable_schema('app', exclude_tables => '{%}');
SELECT * FROM ddl();
CREATE SCHEMA live;
CREATE SCHEMA next;
CREATE TABLE next.t (id int);
SELECT audit_enable_schema('live'), audit_enable_schema('next');
CREATE SCHEMA sub CREATE TABLE heir () INHERITS (app.child) CREATE TABLE plain (id int);
SELECT table_name, state FROM audit_coverage WHERE table_schema = 'sub' ORDER BY 1;
DROP SCHEMA live CASCADE;
ALTER SCHEMA next RENAME TO live;
SELECT version, schema_name, ended FROM audit_schema_policy ORDER BY 1;
SELECT table_name, state FROM audit_coverage WHERE table_schema IN ('live', 'next') ORDER BY 1;

-- A function of the guard cannot be replaced, not even that which sees DDL. The real one may be put back. Who owns the schema
-- only does not drop the log with it.
CREATE OR REPLACE FUNCTION public._audit_on_ddl() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
CREATE OR REPLACE FUNCTION public._audit_refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
SELECT pg_get_functiondef('_audit_on_ddl'::regproc) AS real \gset
:real;
-- No other one, which could get the symbol of a function with other arguments.
SELECT replace(pg_get_functiondef('audit_transaction(text)'::regprocedure), 'audit_chain_transaction', 'audit_chain_by') AS other \gset
:other;
SELECT pg_get_functiondef('audit_transaction(text)'::regprocedure) AS same \gset
:same;
CREATE ROLE regress_schema_owner;
ALTER SCHEMA public OWNER TO regress_schema_owner;
GRANT CREATE ON DATABASE regress TO regress_schema_owner;
SET ROLE regress_schema_owner;
\set VERBOSITY terse
SET client_min_messages = warning;
DROP SCHEMA public CASCADE;
ALTER SCHEMA public RENAME TO mine;
RESET client_min_messages;
\set VERBOSITY default
RESET ROLE;
ALTER SCHEMA public OWNER TO pg_database_owner;
REVOKE CREATE ON DATABASE regress FROM regress_schema_owner;
DROP ROLE regress_schema_owner;

-- Somebody's event trigger is not fired by what audit_chain does.
CREATE FUNCTION loud() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE '% by %', tg_tag, current_user; END $$;
CREATE EVENT TRIGGER loud ON ddl_command_end EXECUTE FUNCTION loud();
CREATE TABLE heard (id int) PARTITION BY RANGE (id);
SELECT audit_enable('heard');
CREATE TABLE heard_1 PARTITION OF heard DEFAULT;
SELECT audit_disable('heard', 'test');
DROP EVENT TRIGGER loud;

-- Savepoints, and commands in functions.
CREATE TABLE outside (id int);
SELECT audit_enable('outside');
SELECT count(*) FROM ddl();
BEGIN;
SAVEPOINT a;
ALTER TABLE outside ADD a int;
ROLLBACK TO a;
DO $$ BEGIN
    BEGIN
        ALTER TABLE outside ADD b int;
        PERFORM 1 / 0;
    EXCEPTION WHEN division_by_zero THEN
        ALTER TABLE outside ADD c int;
    END;
END $$;
COMMIT;
SELECT * FROM ddl();
SELECT valid, problems FROM audit_verify();
DROP SCHEMA live, sub CASCADE;

-- What no event trigger announces is told when the transaction commits, and not if it is undone.
CREATE ROLE regress_former;
CREATE ROLE regress_heir;
CREATE TABLE owned (id int);
ALTER TABLE owned OWNER TO regress_former;
SELECT audit_enable('owned');
SELECT count(*) FROM ddl();
BEGIN;
REASSIGN OWNED BY regress_former TO regress_heir;
SAVEPOINT a;
ALTER ROLE regress_heir RENAME TO regress_undone;
ROLLBACK TO a;
SAVEPOINT b;
ALTER ROLE regress_heir RENAME TO regress_heir2;
RELEASE b;
COMMIT;
SELECT * FROM ddl();
BEGIN;
REASSIGN OWNED BY regress_heir2 TO regress_former;
ROLLBACK;
SELECT * FROM ddl();
DROP TABLE owned;
DROP ROLE regress_former, regress_heir2;
