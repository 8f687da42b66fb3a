-- audit_enable_schema(): all tables of a schema, and those created there later.
\getenv srcdir PG_ABS_SRCDIR
\set setup :srcdir '/setup.sql'
\i :setup

CREATE TABLE a (id int PRIMARY KEY);
CREATE TABLE b (id int);
CREATE TABLE tmp_import (id int);
CREATE TABLE "tmpX" (id int);
CREATE TABLE p (id int) PARTITION BY RANGE (id);
CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
CREATE VIEW v AS SELECT * FROM a;
SELECT audit_enable('b', skip_unchanged => true);
SELECT audit_enable_schema('app', exclude_tables => '{tmp\_%}');
CREATE VIEW covered AS SELECT table_name, audited, options FROM audit_coverage WHERE table_schema = 'app' ORDER BY 1;
TABLE covered;
SELECT audit_enable_schema('app', exclude_tables => '{tmp\_%}');
-- What comes later.
CREATE TABLE later (id int PRIMARY KEY);
CREATE TABLE later_as AS SELECT 1 AS id;
SELECT 2 AS id INTO later_into;
CREATE TABLE later_like (LIKE later INCLUDING ALL);
CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20);
CREATE TABLE p3 (id int);
ALTER TABLE p ATTACH PARTITION p3 FOR VALUES FROM (20) TO (30);
CREATE TABLE tmp_later (id int);
CREATE UNLOGGED TABLE fleeting (id int);
CREATE TEMP TABLE temporary (id int);
CREATE TABLE public.elsewhere (id int);
CREATE TABLE IF NOT EXISTS later (id int);
TABLE covered;
INSERT INTO later VALUES (1);
INSERT INTO p VALUES (1), (11), (21);
INSERT INTO tmp_later VALUES (1);
SELECT operation, table_name, new_row FROM audit_log WHERE operation IN ('INSERT', 'BASELINE') ORDER BY seq;
-- Moved in, and out.
ALTER TABLE public.elsewhere SET SCHEMA app;
ALTER TABLE app.later SET SCHEMA public;
SELECT table_schema, table_name, audited FROM audit_coverage WHERE table_name IN ('elsewhere', 'later') ORDER BY 1;
-- By a role that may create tables there and nothing else.
CREATE ROLE regress_schema;
GRANT CREATE, USAGE ON SCHEMA app TO regress_schema;
SET ROLE regress_schema;
CREATE TABLE app.hers (id int);
INSERT INTO app.hers VALUES (1);
SELECT public.audit_enable_schema('app');
RESET ROLE;
SELECT operation, table_name, effective_role FROM audit_log WHERE table_name = 'hers' ORDER BY seq;
DROP TABLE app.hers;
REVOKE ALL ON SCHEMA app FROM regress_schema;
DROP ROLE regress_schema;
-- Rolled back.
BEGIN;
CREATE TABLE undone (id int);
INSERT INTO undone VALUES (1);
ROLLBACK;
SELECT count(*) FROM audit_log WHERE table_name = 'undone';
-- Bad input: nothing is changed by it.
SELECT count(*) AS before FROM audit_log \gset
SELECT audit_enable_schema('app', exclude_tables => ARRAY['x\']);
SELECT audit_enable_schema('app', exclude_tables => '{a,NULL}');
SELECT audit_enable_schema(NULL);
SELECT audit_enable_schema('pg_catalog');
SELECT audit_enable_schema('information_schema');
SELECT audit_enable_schema('no_such_schema');
SELECT audit_disable_schema('app', NULL);
\set VERBOSITY sqlstate
SELECT audit_enable_schema('app', exclude_tables => ARRAY['a', 'x\\\']);
\set VERBOSITY default
SELECT count(*) - :before AS new FROM audit_log;
-- With a baseline.
CREATE SCHEMA IF NOT EXISTS schema_other;
CREATE TABLE schema_other.x AS SELECT generate_series(1, 3) AS id;
CREATE TABLE schema_other.y AS SELECT generate_series(1, 2) AS id;
SELECT audit_enable_schema('schema_other', baseline => true);
SELECT table_name, count(*) FROM audit_log WHERE operation = 'BASELINE' AND table_schema = 'schema_other' GROUP BY 1 ORDER BY 1;
-- The end.
SELECT audit_disable_schema('app', 'end of the test');
CREATE TABLE after_all (id int);
SELECT table_name, audited FROM covered WHERE audited OR table_name = 'after_all';
SELECT count(*), min(detail ->> 'reason') FROM audit_log WHERE operation = 'DISABLE';
SELECT audit_disable_schema('app', 'again');
SET client_min_messages = warning;
DROP SCHEMA schema_other CASCADE;
DROP TABLE public.later;
SELECT valid, problems FROM audit_verify();

SET client_min_messages = notice;
-- Patterns that match nothing yet match tables that are created later.
CREATE SCHEMA regress_later;
SELECT audit_enable_schema('regress_later', exclude_tables => ARRAY['tmp%', 'cache', 'odd\\']);
CREATE TABLE regress_later.tmp1 (id int);
CREATE TABLE regress_later.cache (id int);
CREATE TABLE regress_later."odd\" (id int);
CREATE TABLE regress_later.kept (id int);
SELECT table_name, audited FROM audit_coverage WHERE table_schema = 'regress_later' ORDER BY 1;
SELECT audit_enable_schema('regress_later', exclude_tables => ARRAY['tmp%', 'cache', 'odd\\']);
SET client_min_messages = warning;
DROP SCHEMA regress_later CASCADE;
