-- Nobody edits the log, and capture ends by audit_disable() alone. All of this is done as a superuser.
\getenv srcdir PG_ABS_SRCDIR
\set setup :srcdir '/setup.sql'
\i :setup

CREATE TABLE accounts (id int PRIMARY KEY, owner text);
CREATE TABLE plain (id int);
SELECT audit_enable('accounts');
INSERT INTO accounts VALUES (1, 'Ann'), (2, 'Bob');
SELECT count(*), md5(string_agg(l::text, '|' ORDER BY chain, seq)) AS content FROM audit_log l \gset before_

-- The log's rows.
UPDATE audit_log SET actor = 'nobody';
UPDATE audit_log SET actor = 'nobody' WHERE false;
UPDATE ONLY audit_log l SET actor = 'nobody' FROM accounts WHERE false;
DELETE FROM audit_log;
DELETE FROM audit_log WHERE false;
DELETE FROM audit_log USING accounts;
TRUNCATE audit_log;
TRUNCATE accounts, audit_log;
TRUNCATE audit_log RESTART IDENTITY CASCADE;
MERGE INTO audit_log USING accounts ON false WHEN MATCHED THEN DELETE;
MERGE INTO audit_log l USING accounts a ON l.seq = a.id WHEN MATCHED THEN UPDATE SET actor = 'nobody';
INSERT INTO audit_log SELECT * FROM audit_log WHERE seq = 1 ON CONFLICT (chain, seq) DO UPDATE SET actor = 'nobody';
WITH gone AS (DELETE FROM audit_log RETURNING 1) SELECT count(*) FROM gone;
UPDATE audit_log_identity SET log_id = '00000000-0000-0000-0000-000000000000';
DELETE FROM audit_log_identity;
TRUNCATE audit_log_identity;
-- Not with triggers switched off by the replication role either.
SET session_replication_role = replica;
UPDATE audit_log SET actor = 'nobody';
DELETE FROM audit_log;
TRUNCATE audit_log;
INSERT INTO audit_log SELECT 99, at, xid, 0, operation FROM audit_log WHERE seq = 1;
RESET session_replication_role;
-- Through a view and a function.
CREATE VIEW log_view AS SELECT chain, seq, actor FROM audit_log;
UPDATE log_view SET actor = 'nobody';
DELETE FROM log_view;
DO $$ BEGIN DELETE FROM audit_log; EXCEPTION WHEN insufficient_privilege THEN RAISE NOTICE 'refused: %', SQLERRM; END $$;

-- INSERT and COPY: only what is an entry.
CREATE TABLE copy AS TABLE audit_log;
UPDATE copy SET seq = seq + 100;
INSERT INTO audit_log SELECT * FROM copy WHERE seq = 102;
UPDATE copy SET seq = seq - 100;
UPDATE copy SET actor = 'somebody else';
INSERT INTO audit_log SELECT * FROM copy WHERE seq = 2;
UPDATE copy SET actor = NULL, hash = sha256('x');
INSERT INTO audit_log SELECT * FROM copy WHERE seq = 2;
COPY audit_log (chain, seq, at, xid, operation, session_role, effective_role, who_salt, salt, prev_hash, hash) FROM stdin;
0	4	2026-01-01 00:00:00+00	7	EVENT	x	x	\\x00112233445566778899aabbccddeeff	\\x00112233445566778899aabbccddeeff	\\x00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff	\\x00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff
\.
MERGE INTO audit_log l USING copy c ON l.seq = c.seq + 1000 WHEN NOT MATCHED THEN INSERT VALUES (c.seq + 1000, c.at, c.xid, c.chain,
    c.operation, c.table_schema, c.table_name, c.session_role, c.effective_role, c.actor, c.application_name, c.client_addr,
    c.who_salt, c.who_digest, c.row_key, c.old_row, c.new_row, c.detail, c.statement, c.salt, c.payload_digest, c.prev_hash, c.hash);
-- Not what is an entry either: this database has entries of its own. The test restore is about dumps.
INSERT INTO audit_log SELECT * FROM audit_log WHERE seq = 2;
INSERT INTO audit_log_identity VALUES (gen_random_uuid(), now());
-- The triggers of all tables of the extension.
SELECT c.relname, string_agg(t.tgname || ' ' || t.tgenabled::text, ', ' ORDER BY t.tgname) AS triggers
FROM pg_class c JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
    JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'audit_chain' LEFT JOIN pg_trigger t ON t.tgrelid = c.oid
WHERE c.relkind = 'r' GROUP BY c.relname ORDER BY c.relname COLLATE "C";

-- The log's definition.
ALTER TABLE audit_log ADD COLUMN more int;
ALTER TABLE audit_log DROP COLUMN actor CASCADE;
ALTER TABLE audit_log DROP COLUMN salt;
ALTER TABLE audit_log ALTER actor SET DEFAULT 'x';
ALTER TABLE audit_log ALTER statement TYPE varchar;
ALTER TABLE audit_log DROP CONSTRAINT audit_log_pkey;
ALTER TABLE audit_log ADD CHECK (seq < 10);
ALTER TABLE audit_log RENAME TO other_log;
ALTER TABLE audit_log RENAME actor TO who;
ALTER TABLE audit_log RENAME CONSTRAINT audit_log_pkey TO x;
ALTER TABLE audit_log SET SCHEMA app;
ALTER TABLE audit_log SET UNLOGGED;
ALTER TABLE audit_log OWNER TO CURRENT_USER;
ALTER TABLE audit_log ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit_log DISABLE TRIGGER ALL;
ALTER TABLE audit_log DISABLE TRIGGER USER;
ALTER TABLE audit_log DISABLE TRIGGER "!audit_chain_refuse";
ALTER TABLE audit_log ENABLE TRIGGER "!audit_chain_refuse";
ALTER TABLE audit_log ENABLE REPLICA TRIGGER "!audit_chain_check_insert";
ALTER TABLE audit_log_identity DISABLE TRIGGER ALL;
ALTER TABLE audit_log_identity RENAME TO other_identity;
ALTER VIEW audit_log RENAME TO x;
CREATE TABLE child () INHERITS (audit_log);
CREATE TABLE likeness (LIKE audit_log INCLUDING ALL);
ALTER TABLE likeness INHERIT audit_log;
DROP TABLE likeness;
CREATE TRIGGER mine BEFORE INSERT ON audit_log FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
CREATE RULE mine AS ON INSERT TO audit_log DO INSTEAD NOTHING;
CREATE RULE mine AS ON UPDATE TO audit_log DO INSTEAD NOTHING;
CREATE POLICY mine ON audit_log USING (false);
DROP TRIGGER "!audit_chain_refuse" ON audit_log;
DROP TRIGGER "!audit_chain_check_insert" ON audit_log;
ALTER TRIGGER "!audit_chain_refuse" ON audit_log RENAME TO x;
CREATE OR REPLACE TRIGGER "!audit_chain_refuse" BEFORE UPDATE ON audit_log FOR EACH ROW EXECUTE FUNCTION _audit_refuse();
DROP INDEX public.audit_log_pkey;
DROP INDEX public.audit_log_identity_single;
DROP TABLE audit_log;
DROP TABLE audit_log CASCADE;
DROP TABLE audit_log_identity;

-- The extension's functions.
-- (How messages spell json depends on the version.)
\set VERBOSITY sqlstate
CREATE OR REPLACE FUNCTION public.audit_event(action text, detail json DEFAULT '{}') RETURNS void LANGUAGE sql AS '';
CREATE OR REPLACE FUNCTION public._audit_capture() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
ALTER FUNCTION public._audit_capture() RENAME TO x;
ALTER FUNCTION public.audit_event(text, json) OWNER TO CURRENT_USER;
ALTER FUNCTION public.audit_disable(regclass, text) SECURITY DEFINER;
ALTER AGGREGATE public._audit_check(bigint, timestamptz, xid8, integer, text, text, text, text, text, text, text, inet, bytea, bytea, json, json, json, json,
    text, bytea, bytea, bytea, bytea) RENAME TO x;
\set VERBOSITY default
DROP FUNCTION public._audit_capture();
DROP FUNCTION public.audit_verify(integer, timestamptz, timestamptz, text, text, text);
ALTER EXTENSION audit_chain DROP TABLE audit_log;
ALTER EXTENSION audit_chain DROP FUNCTION _audit_capture();
ALTER EXTENSION audit_chain ADD TABLE plain;

-- The capture triggers.
ALTER TABLE accounts DISABLE TRIGGER ALL;
ALTER TABLE accounts DISABLE TRIGGER USER;
ALTER TABLE accounts DISABLE TRIGGER "!audit_chain_row";
ALTER TABLE accounts ENABLE REPLICA TRIGGER "!audit_chain_statement";
ALTER TABLE accounts ENABLE TRIGGER ALL;
DROP TRIGGER "!audit_chain_row" ON accounts;
DROP TRIGGER IF EXISTS "!audit_chain_statement" ON accounts;
ALTER TRIGGER "!audit_chain_row" ON accounts RENAME TO x;
CREATE OR REPLACE TRIGGER "!audit_chain_row" AFTER INSERT ON accounts FOR EACH ROW EXECUTE FUNCTION _audit_capture();
CREATE TRIGGER mine AFTER INSERT ON accounts FOR EACH ROW EXECUTE FUNCTION _audit_capture();
CREATE TRIGGER "!audit_chain_row" AFTER INSERT ON plain FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
CREATE TRIGGER "!audit_chain_statement" AFTER INSERT ON plain FOR EACH STATEMENT EXECUTE FUNCTION suppress_redundant_updates_trigger();
-- The functions do not work otherwise.
SELECT _audit_capture();
SELECT _audit_check(1, now(), '7', 0, 'EVENT', NULL, NULL, 'x', 'x', NULL, NULL, NULL, '', NULL, NULL, NULL, NULL, NULL, NULL, '', NULL, '', '') IS NULL;

-- After all this the log is as it was.
SELECT count(*) = :before_count AND md5(string_agg(l::text, '|' ORDER BY chain, seq)) = :'before_content' AS untouched FROM audit_log l;
SELECT tgname, tgenabled FROM pg_trigger WHERE tgrelid = 'accounts'::regclass ORDER BY tgname;
SELECT valid, problems FROM audit_verify();
\set VERBOSITY sqlstate
DELETE FROM audit_log;
ALTER TABLE audit_log ADD COLUMN more int;
ALTER TABLE accounts DISABLE TRIGGER ALL;
INSERT INTO audit_log SELECT * FROM copy WHERE seq = 2;
CREATE TRIGGER "!audit_chain_row" AFTER INSERT ON plain FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
\set VERBOSITY default

-- What is allowed: other triggers, privileges, comments, maintenance.
CREATE TRIGGER mine BEFORE UPDATE ON accounts FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
ALTER TABLE accounts DISABLE TRIGGER mine;
DROP TRIGGER mine ON accounts;
CREATE TRIGGER "!audit" BEFORE UPDATE ON accounts FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
DROP TRIGGER "!audit" ON accounts;
CREATE ROLE regress_auditor;
GRANT SELECT ON audit_log, audit_log_identity TO regress_auditor;
REVOKE SELECT ON audit_log FROM regress_auditor;
COMMENT ON TABLE audit_log IS 'ours';
ANALYZE audit_log;
VACUUM audit_log;
REINDEX TABLE audit_log;
REVOKE SELECT ON audit_log_identity FROM regress_auditor;
DROP ROLE regress_auditor;

-- A DBA's indexes, whatever their kind, hold every entry.
CREATE INDEX log_by_time ON audit_log USING brin (at);
CREATE INDEX log_by_owner ON audit_log ((coalesce(new_row, old_row) ->> 'owner'));
CREATE INDEX log_deletes ON audit_log (table_name, seq) WHERE operation = 'DELETE';
CREATE INDEX log_by_hash ON audit_log USING hash (actor);
CREATE UNIQUE INDEX log_hash ON audit_log (hash) INCLUDE (prev_hash);
CREATE STATISTICS log_statistics ON operation, table_name FROM audit_log;
SET audit_chain.actor = 'indexer';
INSERT INTO accounts SELECT i, 'owner ' || i % 10 FROM generate_series(10, 3000) i;
UPDATE accounts SET owner = 'Zed' WHERE id % 100 = 0;
DELETE FROM accounts WHERE id % 7 = 0;
BEGIN;
DELETE FROM accounts;
ROLLBACK;
CREATE FUNCTION by_both(query text) RETURNS TABLE (by_index bigint, by_table bigint, uses text) LANGUAGE plpgsql AS $$
DECLARE line text;
BEGIN
    SET LOCAL enable_seqscan = off;
    EXECUTE query INTO by_index;
    FOR line IN EXECUTE 'EXPLAIN (COSTS off) ' || query LOOP
        uses := coalesce(uses, substring(line FROM '(?:using|on) (log_\w+)'));
    END LOOP;
    SET LOCAL enable_seqscan = on;
    SET LOCAL enable_indexscan = off;
    SET LOCAL enable_indexonlyscan = off;
    SET LOCAL enable_bitmapscan = off;
    EXECUTE query INTO by_table;
    RETURN NEXT;
END
$$;
SELECT * FROM by_both($$SELECT count(*) FROM audit_log WHERE coalesce(new_row, old_row) ->> 'owner' = 'Zed'$$);
SELECT * FROM by_both($$SELECT count(*) FROM audit_log WHERE coalesce(new_row, old_row) ->> 'owner' = 'owner 3'$$);
SELECT * FROM by_both($$SELECT count(*) FROM audit_log WHERE operation = 'DELETE' AND table_name = 'accounts'$$);
SELECT * FROM by_both($$SELECT count(*) FROM audit_log WHERE actor = 'indexer'$$);
SELECT * FROM by_both($$SELECT count(*) FROM audit_log WHERE at >= '2020-01-01' AND operation <> 'DDL'$$);
SELECT * FROM by_both($$SELECT count(*) FROM audit_log WHERE hash > '\x00' AND operation <> 'DDL'$$);
-- An index whose expression fails is the DBA's, as on any table: the write fails, nothing is lost in silence.
CREATE INDEX log_failing ON audit_log ((1 / (CASE WHEN new_row ->> 'owner' = 'trap' THEN 0 ELSE 1 END)));
INSERT INTO accounts VALUES (9001, 'trap');
SELECT count(*) FROM accounts WHERE id = 9001;
ALTER INDEX log_failing RENAME TO log_failed;
DROP INDEX log_failed, log_by_owner, log_by_hash, log_hash, log_by_time, log_deletes;
DROP STATISTICS log_statistics;
RESET audit_chain.actor;

-- An audited table may be dropped, and that is recorded; once for each table.
SELECT max(seq) AS seen FROM audit_log \gset
DROP TABLE accounts;
SELECT operation, table_schema, table_name, detail ->> 'tag' AS tag, detail ->> 'object' AS object FROM audit_log WHERE seq > :seen ORDER BY seq;
CREATE SCHEMA doomed;
CREATE TABLE doomed.a (id int);
CREATE TABLE doomed.b (id int);
SELECT audit_enable('doomed.a'), audit_enable('doomed.b');
SELECT max(seq) AS seen FROM audit_log \gset
SET client_min_messages = warning;
DROP SCHEMA doomed CASCADE;
RESET client_min_messages;
SELECT operation, table_schema, table_name, detail ->> 'tag' AS tag, detail ->> 'object' AS object FROM audit_log WHERE seq > :seen ORDER BY table_name;
SELECT valid, problems FROM audit_verify();

-- DROP EXTENSION is possible: not by accident where tables are audited, but with CASCADE, and then auditing is over.
CREATE TABLE again (id int);
SELECT audit_enable('again');
\set VERBOSITY terse
DROP EXTENSION audit_chain;
DROP EXTENSION audit_chain RESTRICT;
\set VERBOSITY default
SET client_min_messages = warning;
BEGIN;
DROP EXTENSION audit_chain CASCADE;
INSERT INTO again VALUES (1);
ROLLBACK;
INSERT INTO again VALUES (2);
SELECT count(*) FROM audit_log WHERE table_name = 'again';
SELECT valid, problems FROM audit_verify();
DROP EXTENSION audit_chain CASCADE;
RESET client_min_messages;
INSERT INTO again VALUES (3);
SELECT tgname FROM pg_trigger WHERE tgrelid = 'again'::regclass;
SELECT evtname FROM pg_event_trigger;
CREATE EXTENSION audit_chain SCHEMA public;
SELECT audit_enable('again');
INSERT INTO again VALUES (4);
SELECT chain, seq, operation FROM audit_log ORDER BY seq;
SELECT valid, problems FROM audit_verify();
