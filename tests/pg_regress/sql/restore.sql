-- What SQL may insert into the extension's tables: the rows of a dump, before the database writes entries of its own.
\getenv srcdir PG_ABS_SRCDIR
\set setup :srcdir '/setup.sql'
\i :setup

CREATE TABLE t (id int PRIMARY KEY);
SELECT audit_enable('t');
SELECT audit_enable_schema('app');
INSERT INTO t SELECT generate_series(1, 300);
DO $$ BEGIN PERFORM audit_checkpoint(); PERFORM audit_verify_and_record(); PERFORM audit_verify_and_record(only_chain => 0); END $$;
DO $$ BEGIN PERFORM audit_retention('7 years', locked => true, reason => 'law'); PERFORM audit_hold('matter', 'a letter'); END $$;
CREATE SCHEMA kept;
CREATE TABLE kept.audit_log AS TABLE audit_log;
CREATE TABLE kept.audit_log_identity AS TABLE audit_log_identity;
CREATE TABLE kept.audit_lifecycle AS TABLE audit_lifecycle;
CREATE TABLE kept.audit_schema_policy AS TABLE audit_schema_policy;
CREATE TABLE kept.audit_checkpoint_log AS TABLE audit_checkpoint_log;
CREATE TABLE kept.audit_checkpoint_span AS TABLE audit_checkpoint_span;
CREATE TABLE kept.audit_tile AS TABLE audit_tile;
CREATE TABLE kept.audit_verification_place AS TABLE audit_verification_place;
CREATE TABLE kept.audit_retention_policy AS TABLE audit_retention_policy;
CREATE TABLE kept.audit_hold_log AS TABLE audit_hold_log;
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
INSERT INTO audit_incarnation VALUES (gen_random_uuid(), NULL, 'first', true, 1, 1, 1, 1, now());
RESET ROLE;

-- In any order. What does not fit is refused.
INSERT INTO audit_incarnation VALUES (gen_random_uuid(), NULL, 'first', true, 1, 1, 1, 1, now());
INSERT INTO audit_tile SELECT * FROM kept.audit_tile;
INSERT INTO audit_checkpoint_log SELECT tree_size, sha256('x'), at, note FROM kept.audit_checkpoint_log;
INSERT INTO audit_checkpoint_log SELECT tree_size + 1, root, at, note FROM kept.audit_checkpoint_log;
INSERT INTO audit_checkpoint_log SELECT tree_size, root, at, 'note' FROM kept.audit_checkpoint_log;
INSERT INTO audit_checkpoint_log SELECT * FROM kept.audit_checkpoint_log;
INSERT INTO audit_lifecycle SELECT * FROM kept.audit_lifecycle LIMIT 1;
INSERT INTO audit_log SELECT * FROM kept.audit_log ORDER BY seq DESC;
INSERT INTO audit_lifecycle SELECT chain, seq FROM kept.audit_log WHERE operation = 'INSERT';
INSERT INTO audit_lifecycle SELECT * FROM kept.audit_lifecycle ON CONFLICT DO NOTHING;
INSERT INTO audit_checkpoint_log SELECT tree_size, root, at, note, chain, seq - 1 FROM kept.audit_checkpoint_log;
\set VERBOSITY terse
INSERT INTO audit_checkpoint_log SELECT tree_size, root, at, note, chain FROM kept.audit_checkpoint_log;
\set VERBOSITY default
INSERT INTO audit_verification_place SELECT true, at, chain, seq FROM kept.audit_log WHERE operation = 'INSERT';
INSERT INTO audit_verification_place SELECT whole, at + '1 s', chain, seq FROM kept.audit_verification_place;
INSERT INTO audit_verification_place SELECT * FROM kept.audit_verification_place;
SELECT scope, verdict FROM audit_verification_log ORDER BY seq;
INSERT INTO audit_retention_policy SELECT version, keep, keep_seconds, locked, needs_export, needs_published, chain, 1, at
    FROM kept.audit_retention_policy;
INSERT INTO audit_retention_policy SELECT version, keep, keep_seconds, locked, needs_export, needs_published, chain, seq, at - interval '1 s'
    FROM kept.audit_retention_policy;
INSERT INTO audit_retention_policy SELECT * FROM kept.audit_retention_policy;
INSERT INTO audit_hold_log SELECT version, name, false, chain, seq, at FROM kept.audit_hold_log;
INSERT INTO audit_hold_log SELECT * FROM kept.audit_hold_log;
SELECT keep, locked FROM audit_retention();
SELECT name, reason FROM audit_holds;
INSERT INTO audit_schema_policy SELECT * FROM kept.audit_schema_policy;
INSERT INTO audit_log_identity SELECT * FROM kept.audit_log_identity;
-- A session that replays a dump, by the settings of pg_dump, records nothing, whatever it does.
INSERT INTO audit_checkpoint_span SELECT * FROM kept.audit_checkpoint_span;
SELECT set_config('search_path', '', false), set_config('check_function_bodies', 'off', false);
CREATE TRIGGER "!audit_chain_row" AFTER INSERT OR DELETE OR UPDATE ON app.t FOR EACH ROW EXECUTE FUNCTION public._audit_capture('{}', 'id');
CREATE TRIGGER "!audit_chain_statement" AFTER INSERT OR DELETE OR UPDATE OR TRUNCATE ON app.t FOR EACH STATEMENT EXECUTE FUNCTION public._audit_capture('{}', 'id');
ALTER TABLE app.t ENABLE ALWAYS TRIGGER "!audit_chain_row";
ALTER TABLE app.t ENABLE ALWAYS TRIGGER "!audit_chain_statement";
ALTER TABLE app.t ADD COLUMN v int;
INSERT INTO app.t VALUES (301);
ALTER TABLE app.t DISABLE TRIGGER ALL;
ALTER TABLE app.t ENABLE TRIGGER ALL;
ALTER TABLE public.audit_log DISABLE TRIGGER ALL;
SELECT tgrelid::regclass, tgname, tgenabled FROM pg_trigger
    WHERE tgname ~ '^!audit_chain' AND tgrelid IN ('app.t'::regclass, 'public.audit_log'::regclass) ORDER BY 1, 2;
CREATE TRIGGER other AFTER INSERT ON app.t FOR EACH ROW EXECUTE FUNCTION public._audit_capture();
ALTER TABLE public.audit_log ADD COLUMN v int;
ALTER TABLE app.t ADD CHECK (id > 0);
SET search_path = app, public;
RESET check_function_bodies;
-- What is rolled back does not end it.
BEGIN;
INSERT INTO t VALUES (302);
ROLLBACK;
BEGIN;
SAVEPOINT s;
INSERT INTO t VALUES (302);
ROLLBACK TO s;
COMMIT;
SELECT valid, entries, checkpoints, problems FROM audit_verify();
SELECT count(*) FROM audit_incarnation;
-- A copy makes no checkpoint, and the restore goes on.
SELECT audit_checkpoint();
SELECT count(*) FROM audit_incarnation;

-- The first entry of this database ends it, for all tables and in the same transaction already.
BEGIN;
SAVEPOINT s;
INSERT INTO t VALUES (303);
ROLLBACK TO s;
INSERT INTO t VALUES (304);
INSERT INTO audit_lifecycle SELECT * FROM kept.audit_lifecycle;
ROLLBACK;
SELECT audit_event('restored');
INSERT INTO t VALUES (303);
SELECT kind, publishes, previous IS NOT NULL AS previous FROM audit_incarnation;
SELECT operation, detail ->> 'sealed' AS sealed, detail ->> 'reason' AS reason, detail ->> 'incarnation' = incarnation::text AS current
    FROM audit_log, audit_incarnation WHERE operation = 'RESTORE';
INSERT INTO audit_log SELECT * FROM kept.audit_log;
INSERT INTO audit_log_identity SELECT * FROM kept.audit_log_identity;
INSERT INTO audit_lifecycle SELECT * FROM kept.audit_lifecycle;
INSERT INTO audit_schema_policy VALUES (9, 'public', '{%}', false, false);
INSERT INTO audit_checkpoint_log SELECT * FROM kept.audit_checkpoint_log;
INSERT INTO audit_verification_place SELECT * FROM kept.audit_verification_place;
INSERT INTO audit_checkpoint_span VALUES (1000000, 900, 1, 1);
INSERT INTO audit_tile SELECT 0, 7, hashes FROM kept.audit_tile;
COPY audit_lifecycle FROM stdin;
0	2
\.
SET session_replication_role = replica;
INSERT INTO audit_lifecycle VALUES (0, 2);
RESET session_replication_role;
DELETE FROM audit_incarnation;
TRUNCATE audit_incarnation;
-- Sessions that replay a dump are recorded like others now.
SELECT set_config('search_path', '', false), set_config('check_function_bodies', 'off', false);
INSERT INTO app.t VALUES (305);
SET search_path = app, public;
RESET check_function_bodies;
SELECT operation, new_row FROM audit_log WHERE (chain, seq) IN (SELECT chain, max(seq) FROM audit_log GROUP BY chain);

-- It is a copy until somebody says what it is.
SELECT audit_checkpoint();
SELECT audit_fork(' ');
SELECT audit_fork(NULL);
SELECT audit_resume() = 'audit_chain/' || log_id AS original FROM audit_log_identity;
SELECT audit_resume('again') IS NOT NULL;
-- The extension's own functions write as before.
DO $$ BEGIN PERFORM audit_checkpoint(); END $$;
SELECT audit_enable_schema('kept'), audit_disable_schema('kept', 'test');
SELECT valid, checkpoints, problems FROM audit_verify();

-- A fork goes on under another name.
SELECT audit_fork('a test') AS fork \gset
SELECT count(*), count(DISTINCT log_id), count(*) FILTER (WHERE 'audit_chain/' || log_id = :'fork') FROM audit_log_identity;
INSERT INTO t VALUES (306);
DO $$ BEGIN PERFORM audit_checkpoint(); END $$;
SELECT split_part(note, E'\n', 1) = :'fork' AS forked, note ~ (E'\nincarnation ' || incarnation || E'\n') AS named
    FROM audit_checkpoint_log, (SELECT incarnation FROM audit_incarnation ORDER BY at DESC LIMIT 1) i ORDER BY tree_size;
SELECT valid, checkpoints, problems FROM audit_verify();
SELECT r.valid, r.problems FROM audit_checkpoint_log, audit_verify(checkpoint => note) r ORDER BY tree_size;
SELECT kind, publishes FROM audit_incarnation ORDER BY at;
SELECT operation, detail ->> 'reason' AS reason FROM audit_log WHERE operation IN ('RESTORE', 'FORK', 'RESUME') ORDER BY at;

-- A dump without entries: what it has of the log proves nothing, and a new log begins.
SET client_min_messages = error;
DROP EXTENSION audit_chain CASCADE;
CREATE EXTENSION audit_chain SCHEMA public;
RESET client_min_messages;
SELECT audit_fork('nothing');
INSERT INTO audit_log_identity SELECT * FROM kept.audit_log_identity;
INSERT INTO audit_checkpoint_log SELECT * FROM kept.audit_checkpoint_log;
INSERT INTO audit_checkpoint_span SELECT * FROM kept.audit_checkpoint_span;
INSERT INTO audit_verification_place SELECT * FROM kept.audit_verification_place;
SELECT audit_enable('t');
SELECT count(*), count(*) FILTER (WHERE log_id IN (SELECT log_id FROM kept.audit_log_identity)) AS old FROM audit_log_identity;
SELECT count(*) FROM audit_verification_place;
SELECT operation, detail ->> 'reason' AS reason FROM audit_log ORDER BY chain, seq;
DO $$ BEGIN PERFORM audit_checkpoint(); END $$;
SELECT valid, checkpoints, problems FROM audit_verify();
DROP OWNED BY regress_writer;
DROP ROLE regress_writer;
