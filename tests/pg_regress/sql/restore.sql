-- What SQL may insert into the extension's tables: the rows of a dump, before the database writes entries of its own.
\getenv srcdir PG_ABS_SRCDIR
\set setup :srcdir '/setup.sql'
\i :setup

CREATE TABLE t (id int PRIMARY KEY);
SELECT audit_enable('t');
SELECT audit_enable_schema('app');
INSERT INTO t SELECT generate_series(1, 300);
DO $$ BEGIN PERFORM audit_checkpoint(); END $$;
CREATE SCHEMA kept;
CREATE TABLE kept.audit_log AS TABLE audit_log;
CREATE TABLE kept.audit_log_identity AS TABLE audit_log_identity;
CREATE TABLE kept.audit_lifecycle AS TABLE audit_lifecycle;
CREATE TABLE kept.audit_schema_policy AS TABLE audit_schema_policy;
CREATE TABLE kept.audit_checkpoint_log AS TABLE audit_checkpoint_log;
CREATE TABLE kept.audit_checkpoint_span AS TABLE audit_checkpoint_span;
CREATE TABLE kept.audit_tile AS TABLE audit_tile;
SET client_min_messages = warning;
DROP EXTENSION audit_chain CASCADE;
CREATE EXTENSION audit_chain SCHEMA public;
RESET client_min_messages;

-- Nobody but a superuser or the extension's owner restores.
CREATE ROLE regress_writer IN ROLE pg_write_all_data;
GRANT USAGE ON SCHEMA app, kept TO regress_writer;
GRANT SELECT ON ALL TABLES IN SCHEMA kept TO regress_writer;
SET ROLE regress_writer;
INSERT INTO audit_log SELECT * FROM kept.audit_log;
INSERT INTO audit_lifecycle SELECT * FROM kept.audit_lifecycle;
INSERT INTO audit_log_begun VALUES (now());
RESET ROLE;

-- In any order. What does not fit is refused.
INSERT INTO audit_log_begun VALUES (now());
INSERT INTO audit_tile SELECT * FROM kept.audit_tile;
INSERT INTO audit_checkpoint_log SELECT tree_size, sha256('x'), at, note FROM kept.audit_checkpoint_log;
INSERT INTO audit_checkpoint_log SELECT tree_size + 1, root, at, note FROM kept.audit_checkpoint_log;
INSERT INTO audit_checkpoint_log SELECT tree_size, root, at, 'note' FROM kept.audit_checkpoint_log;
INSERT INTO audit_checkpoint_log SELECT * FROM kept.audit_checkpoint_log;
INSERT INTO audit_lifecycle SELECT * FROM kept.audit_lifecycle LIMIT 1;
INSERT INTO audit_log SELECT * FROM kept.audit_log ORDER BY seq DESC;
INSERT INTO audit_lifecycle SELECT chain, seq FROM kept.audit_log WHERE operation = 'INSERT';
INSERT INTO audit_lifecycle SELECT * FROM kept.audit_lifecycle ON CONFLICT DO NOTHING;
INSERT INTO audit_schema_policy SELECT * FROM kept.audit_schema_policy;
INSERT INTO audit_log_identity SELECT * FROM kept.audit_log_identity;
-- Entries about auditing itself do not end it: a restore adds them. Nor do entries that are rolled back.
SELECT audit_enable('t');
ALTER TABLE t ADD COLUMN v int;
BEGIN;
INSERT INTO t VALUES (301);
ROLLBACK;
BEGIN;
SAVEPOINT s;
INSERT INTO t VALUES (301);
ROLLBACK TO s;
COMMIT;
INSERT INTO audit_checkpoint_span SELECT * FROM kept.audit_checkpoint_span;
SELECT valid, checkpoints, problems FROM audit_verify();
SELECT count(*) FROM audit_log_begun;

-- The first change or event of this database ends it, for all tables and in the same transaction already.
BEGIN;
SAVEPOINT s;
INSERT INTO t VALUES (301);
ROLLBACK TO s;
INSERT INTO t VALUES (302);
INSERT INTO audit_lifecycle SELECT * FROM kept.audit_lifecycle;
ROLLBACK;
SELECT audit_event('restored');
INSERT INTO t VALUES (303);
SELECT count(*) FROM audit_log_begun;
INSERT INTO audit_log SELECT * FROM kept.audit_log;
INSERT INTO audit_log_identity SELECT * FROM kept.audit_log_identity;
INSERT INTO audit_lifecycle SELECT * FROM kept.audit_lifecycle;
INSERT INTO audit_schema_policy VALUES ('public', '{%}', false);
INSERT INTO audit_checkpoint_log SELECT * FROM kept.audit_checkpoint_log;
INSERT INTO audit_checkpoint_span VALUES (1000000, 900, 1, 1);
INSERT INTO audit_tile SELECT 0, 7, hashes FROM kept.audit_tile;
COPY audit_lifecycle FROM stdin;
0	2
\.
SET session_replication_role = replica;
INSERT INTO audit_lifecycle VALUES (0, 2);
RESET session_replication_role;
DELETE FROM audit_log_begun;
TRUNCATE audit_log_begun;
-- The extension's own functions write as before.
DO $$ BEGIN PERFORM audit_checkpoint(); END $$;
SELECT audit_enable_schema('kept'), audit_disable_schema('kept', 'test');
SELECT valid, checkpoints, problems FROM audit_verify();
DROP OWNED BY regress_writer;
DROP ROLE regress_writer;
