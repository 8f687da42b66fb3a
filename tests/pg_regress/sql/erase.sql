-- Erasure by law: what is found, who may erase, and what verification says afterwards.
\getenv srcdir PG_ABS_SRCDIR
\set setup :srcdir '/setup.sql'
\i :setup
CREATE VIEW app.shown AS
    SELECT seq, operation, table_name, row_key::text, old_row::text, new_row::text, payload_digest IS NOT NULL AS erased,
           who_digest IS NOT NULL AS who_erased
    FROM audit_log;

CREATE TABLE person (id int PRIMARY KEY, email text, points numeric);
SELECT audit_enable('person');
INSERT INTO person VALUES (1, 'ann@example.com', 1.50), (2, 'bob@example.com', 2);
UPDATE person SET email = 'ann@new.example' WHERE id = 1;
UPDATE person SET id = 10 WHERE id = 1;
DELETE FROM person WHERE id = 2;

-- By default nothing is changed.
SELECT state, erasure, table_schema, table_name, segment, erased, entries, first_at <= last_at AS ordered FROM audit_erase('person', '{"id": 1}', 'Art. 17');
SELECT count(*) FROM app.shown WHERE erased OR operation = 'ERASE';

-- What is asked for badly.
SELECT * FROM audit_erase('person', '{"id": 99}', 'Art. 17');
SELECT * FROM audit_erase('person', '{"id": "1"}', 'Art. 17');
SELECT * FROM audit_erase('person', '{"id": 1, "email": "ann@example.com"}', 'Art. 17');
SELECT * FROM audit_erase('person', '{}', 'Art. 17');
SELECT * FROM audit_erase('person', '[1]', 'Art. 17');
SELECT * FROM audit_erase('person', '1', 'Art. 17');
SELECT * FROM audit_erase('person', NULL, 'Art. 17');
SELECT * FROM audit_erase(NULL, '{"id": 1}', 'Art. 17');
SELECT * FROM audit_erase('person', '{"id": 1}', NULL);
SELECT * FROM audit_erase('person', '{"id": 1}', ' ');
SELECT * FROM audit_erase('person', '{"id": 1}', 'Art. 17', NULL);
SELECT * FROM audit_erase('no_such_table', '{"id": 1}', 'Art. 17');
SELECT * FROM audit_erase('app.no_such_table', '{"id": 1}', 'Art. 17');
SELECT * FROM audit_erase('a.b.c.d', '{"id": 1}', 'Art. 17');
SELECT * FROM audit_erase('', '{"id": 1}', 'Art. 17');
SELECT * FROM audit_erase_columns('person', '{}', 'Art. 17');
SELECT * FROM audit_erase_columns('person', '{nothing}', 'Art. 17');
SELECT * FROM audit_erase_columns('person', '{NULL}', 'Art. 17');
SELECT * FROM audit_erase_actor('nobody', 'Art. 17');
SELECT * FROM audit_erase_actor('nobody', 'Art. 17', by => 'hash');
SELECT * FROM audit_erase_entry(1, 99, 'payload', 'Art. 17');
SELECT * FROM audit_erase_entry(1, 1, 'payload', 'the log needs it');
SELECT * FROM audit_erase_entry(1, 2, 'everything', 'Art. 17');
SELECT count(*) FROM app.shown WHERE erased OR operation = 'ERASE';

-- Numbers compare as numbers. The change of the key is found under both keys.
SELECT state, erasure IS NOT NULL AS has_number, table_name, erased, entries FROM audit_erase('person', '{"id": 1.0}', 'Art. 17', dry_run => false);
SELECT * FROM app.shown ORDER BY seq;
SELECT detail::jsonb - 'request' AS detail, table_name, row_key, statement FROM audit_log WHERE operation = 'ERASE';
SELECT chain, seq, part, entries, (SELECT at FROM audit_log l WHERE (l.chain, l.seq) = (e.chain, e.seq)) = at AS at FROM audit_erasure e;
SELECT valid, entries, problems, summary FROM audit_verify();
-- It is not found again. The new key has its own entries.
SELECT * FROM audit_erase('person', '{"id": 1}', 'Art. 17', false);
SELECT entries FROM audit_erase('person', '{"id": 2}', 'Art. 17', false);
SELECT * FROM audit_erase('person', '{"id": 10}', 'Art. 17');
UPDATE person SET email = NULL WHERE id = 10;
SELECT entries FROM audit_erase('person', '{"id": 10}', 'Art. 17', false);

-- Keys of several columns and types, in any order.
CREATE TABLE visit (at timestamptz, "Who" text, n numeric(6, 2), note text, PRIMARY KEY ("Who", n, at));
SELECT audit_enable('visit');
INSERT INTO visit VALUES ('2026-01-01 12:00+00', 'Zoë "Z" \n', 1.5, 'a'), ('2026-01-01 12:00+00', 'Zoë "Z" \n', 1.25, 'b');
UPDATE visit SET n = 2.5 WHERE n = 1.25;
SELECT row_key FROM audit_log WHERE table_name = 'visit' AND row_key IS NOT NULL ORDER BY seq;
SELECT * FROM audit_erase('visit', '{"Who": "Zoë \"Z\" \\n", "n": 1.50}', 'Art. 17');
SELECT entries FROM audit_erase('visit', '{"at": "2026-01-01 12:00:00+00", "n": 150e-2, "Who": "Zo\u00eb \"Z\" \\n"}', 'Art. 17', false);
SELECT entries FROM audit_erase('visit', '{"at": "2026-01-01 12:00:00+00", "n": 1.25, "Who": "Zoë \"Z\" \\n"}', 'Art. 17', false);
SELECT count(*) FROM app.shown WHERE table_name = 'visit' AND NOT erased AND operation <> 'ENABLE';
SET audit_chain.max_value_size = '1kB';
INSERT INTO visit VALUES ('2026-01-01 12:00+00', repeat('long', 300), 1, 'a');
RESET audit_chain.max_value_size;
SELECT entries FROM audit_erase('visit', pg_catalog.jsonb_build_object('at', '2026-01-01 12:00:00+00', 'n', 1, 'Who', repeat('long', 300)), 'by its digest');

-- Without a key, by content; with one, if that is asked for.
CREATE TABLE note (who text, city text, v jsonb);
SELECT audit_enable('note', baseline => true);
INSERT INTO note VALUES ('ann', 'Paris', '{"a": [1, {"b": 2}]}'), ('ann', 'Rome', NULL), ('bob', 'Rome', NULL);
UPDATE note SET city = 'Oslo' WHERE who = 'ann' AND city = 'Paris';
UPDATE note SET who = 'carl' WHERE who = 'bob';
DELETE FROM note WHERE who = 'carl';
SELECT entries FROM audit_erase('note', '{"who": "ann", "city": "Paris"}', 'Art. 17');
SELECT entries FROM audit_erase('note', '{"who": "bob"}', 'Art. 17');
SELECT entries FROM audit_erase('note', '{"v": {"a": [{"b": 2.0}]}}', 'Art. 17');
SELECT entries FROM audit_erase('note', '{"who": "ann"}', 'Art. 17', false);
SELECT entries FROM audit_erase('note', '{"who": "carl"}', 'Art. 17', false);
SELECT count(*) FROM app.shown WHERE table_name = 'note' AND NOT erased AND operation <> 'ENABLE';
INSERT INTO person VALUES (3, 'carol@example.com', 0), (4, 'carol@example.com', 0);
SELECT * FROM audit_erase('person', '{"email": "carol@example.com"}', 'Art. 17');
SELECT entries FROM audit_erase('person', '{"email": "carol@example.com"}', 'Art. 17', by_content => true);
-- The rows that a table had before are entries, too; so are those that TRUNCATE removed, which has none itself.
CREATE TABLE base (id int PRIMARY KEY);
INSERT INTO base VALUES (1), (2);
SELECT audit_enable('base', baseline => true);
TRUNCATE base;
SELECT entries FROM audit_erase('base', '{"id": 1}', 'Art. 17', false);
SELECT operation, erased FROM app.shown WHERE table_name = 'base' ORDER BY seq;

-- Columns that were recorded by mistake; masked and null values are none.
CREATE TABLE card (id int PRIMARY KEY, number text, v int);
SELECT audit_enable('card');
INSERT INTO card VALUES (1, '4111', 1), (2, NULL, 2);
UPDATE card SET v = 3 WHERE id = 2;
UPDATE card SET number = NULL WHERE id = 1;
SELECT audit_enable('card', mask_columns => '{number}');
INSERT INTO card VALUES (3, '4222', 1);
SELECT erased, entries FROM audit_erase_columns('card', '{number}', 'recorded by mistake', false);
SELECT operation, new_row, erased FROM app.shown WHERE table_name = 'card' ORDER BY seq;

-- One entry; an event; who-parts of any entry.
SELECT audit_event('login', '{"name": "ann"}');
SELECT max(seq) AS event FROM audit_log WHERE operation = 'EVENT' \gset
SELECT * FROM audit_erase_entry(1, :event, 'payload', 'an event about a person') WHERE false;
SELECT state, table_name, erased, entries FROM audit_erase_entry(1, :event, 'payload', 'an event about a person', false);
SELECT * FROM audit_erase_entry(1, :event, 'payload', 'an event about a person', false);
SELECT detail, salt, erased FROM audit_log JOIN app.shown USING (seq, operation) WHERE operation = 'EVENT';
SELECT erased, entries FROM audit_erase_entry(1, 1, 'who', 'Art. 17', false);
-- The entries of a transaction share a who-part.
SELECT erased, entries FROM audit_erase_entry(1, 3, 'who', 'Art. 17', false);
SELECT operation, who_erased FROM app.shown WHERE seq BETWEEN 1 AND 4 ORDER BY seq;
SET audit_chain.actor = 'clerk 7';
INSERT INTO person VALUES (5, 'x', 0);
RESET audit_chain.actor;
SELECT table_name, erased, entries FROM audit_erase_actor('clerk 7', 'left the company', false);
SELECT actor, session_role, effective_role, application_name, client_addr, who_salt, length(who_digest), row_key FROM audit_log
WHERE operation = 'INSERT' AND table_name = 'person' AND row_key ->> 'id' = '5';
SELECT sum(entries) > 20 AS many FROM audit_erase_actor(session_user::text, 'Art. 17', by => 'session_role');
SELECT * FROM audit_erase_actor('10.0.0.0/8', 'Art. 17', by => 'client_addr');
SELECT * FROM audit_erase_actor('not an address', 'Art. 17', by => 'client_addr');
SELECT valid, problems, summary FROM audit_verify();

-- A table is followed through its names, and kept apart from others that had or have them.
CREATE TABLE a (id int PRIMARY KEY, v text);
CREATE TABLE b (id int PRIMARY KEY, v text);
SELECT audit_enable('a');
SELECT audit_enable('b');
INSERT INTO a VALUES (1, 'of a, as a');
INSERT INTO b VALUES (1, 'of b, as b');
ALTER TABLE a RENAME TO "A. tmp";
ALTER TABLE b RENAME TO a;
ALTER TABLE "A. tmp" RENAME TO b;
UPDATE a SET v = 'of b, as a';
UPDATE b SET v = 'of a, as b';
SELECT table_name, entries FROM audit_erase('a', '{"id": 1}', 'Art. 17') ORDER BY 1;
SELECT table_name, entries FROM audit_erase('app.b', '{"id": 1}', 'Art. 17', false) ORDER BY 1;
SELECT table_name, new_row FROM app.shown WHERE table_name IN ('a', 'b') AND operation IN ('INSERT', 'UPDATE') ORDER BY seq;
-- Another schema; a dropped table, by its last name, and the one that took its name.
CREATE SCHEMA "Other";
ALTER TABLE b SET SCHEMA "Other";
UPDATE "Other".b SET v = 'moved';
SELECT table_schema, table_name, entries FROM audit_erase('"Other".b', '{"id": 1}', 'Art. 17', false);
CREATE TABLE gone (id int PRIMARY KEY, v text);
SELECT audit_enable('gone');
INSERT INTO gone VALUES (1, 'x');
DROP TABLE gone;
SELECT table_schema, table_name, entries FROM audit_erase('gone', '{"id": 1}', 'Art. 17');
SELECT table_schema, table_name, entries FROM audit_erase('app.gone', '{"id": 1}', 'Art. 17', false);
CREATE TABLE "Other".gone (id int PRIMARY KEY);
SELECT audit_enable('"Other".gone');
INSERT INTO "Other".gone VALUES (1);
DROP TABLE "Other".gone;
SELECT * FROM audit_erase('gone', '{"id": 1}', 'Art. 17');
SELECT table_schema, entries FROM audit_erase('"Other".gone', '{"id": 1}', 'Art. 17');
-- A partitioned table has the entries of its partitions; a partition its own.
CREATE TABLE part (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM (0) TO (10);
CREATE TABLE part_2 PARTITION OF part FOR VALUES FROM (10) TO (20);
SELECT audit_enable('part');
INSERT INTO part VALUES (1, 'a'), (11, 'b');
UPDATE part SET id = 12 WHERE id = 1;
SELECT table_name, entries FROM audit_erase('part', '{"id": 1}', 'Art. 17');
SELECT table_name, entries FROM audit_erase('part_2', '{"id": 12}', 'Art. 17');
ALTER TABLE part RENAME TO whole;
SELECT table_name, entries FROM audit_erase('whole', '{"id": 1}', 'Art. 17', false);
SELECT table_name, entries FROM audit_erase('whole', '{"id": 12}', 'Art. 17', false);

-- What was captured in the same transaction, and statements. A rollback leaves nothing, to a savepoint or to the end.
SET audit_chain.log_statement = on;
BEGIN;
INSERT INTO person VALUES (6, 'in the statement', 0);
SELECT entries FROM audit_erase('person', '{"id": 6}', 'Art. 17', false);
COMMIT;
RESET audit_chain.log_statement;
SELECT count(*) FROM audit_log WHERE statement LIKE '%in the statement%' OR statement LIKE '%audit_erase%';
BEGIN;
INSERT INTO person VALUES (7, 'seven', 0);
SAVEPOINT s;
SELECT entries FROM audit_erase('person', '{"id": 7}', 'Art. 17', false);
SELECT count(*) FROM audit_log WHERE row_key ->> 'id' = '7';
ROLLBACK TO s;
SELECT count(*) FROM audit_log WHERE row_key ->> 'id' = '7';
COMMIT;
BEGIN;
SELECT entries FROM audit_erase('person', '{"id": 7}', 'Art. 17', false);
ROLLBACK;
SELECT count(*) FROM audit_log WHERE row_key ->> 'id' = '7';
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT entries FROM audit_erase('person', '{"id": 7}', 'Art. 17', false);
COMMIT;
SELECT count(*) FROM audit_log WHERE row_key ->> 'id' = '7';
BEGIN READ ONLY;
SELECT entries FROM audit_erase('person', '{"id": 5}', 'Art. 17');
SELECT entries FROM audit_erase('person', '{"id": 5}', 'Art. 17', false);
ROLLBACK;
SELECT valid, problems FROM audit_verify();

-- Who may erase needs EXECUTE, and no right on the log.
CREATE ROLE regress_nobody;
CREATE ROLE regress_eraser;
CREATE ROLE regress_second;
CREATE ROLE regress_both IN ROLE regress_eraser, regress_second;
GRANT USAGE ON SCHEMA app TO regress_nobody, regress_eraser, regress_second;
GRANT EXECUTE ON FUNCTION audit_erase(text, jsonb, text, boolean, boolean), audit_approve_erasure(uuid, boolean) TO regress_eraser, regress_second;
SET ROLE regress_nobody;
SELECT * FROM audit_erase('person', '{"id": 5}', 'Art. 17');
SELECT * FROM audit_erase_columns('person', '{email}', 'Art. 17');
SELECT * FROM audit_erase_actor('x', 'Art. 17');
SELECT * FROM audit_erase_entry(1, 1, 'who', 'Art. 17');
SELECT * FROM audit_approve_erasure('6f1d9c2e-5b7a-4c3d-8e9f-0a1b2c3d4e5f');
SELECT * FROM audit_erasure_remains();
SELECT audit_erasure_register();
SELECT * FROM audit_apply_erasure_register('x', 'x');
CALL audit_finish_erasure();
SELECT * FROM audit_erasure;
SELECT * FROM audit_erasure_request;
SET ROLE regress_eraser;
SELECT count(*) FROM audit_log;
SELECT entries FROM audit_erase('person', '{"id": 5}', 'Art. 17', false);
SET audit_chain.erase_needs_approval = on;
RESET ROLE;
SELECT effective_role FROM audit_log WHERE operation = 'ERASE' ORDER BY seq DESC LIMIT 1;
-- Nobody edits what the extension notes.
INSERT INTO audit_erasure VALUES (1, 1, now(), 'payload', 1, '6f1d9c2e-5b7a-4c3d-8e9f-0a1b2c3d4e5f');
UPDATE audit_erasure SET entries = 1;
DELETE FROM audit_erasure_request;
TRUNCATE audit_erasure_trace;

-- A second role approves.
INSERT INTO person VALUES (8, 'eight', 0);
SET audit_chain.erase_needs_approval = on;
SET ROLE regress_eraser;
SET client_min_messages = warning;
SELECT erasure AS request FROM audit_erase('person', '{"id": 8}', 'Art. 17', false) \gset
RESET client_min_messages;
RESET ROLE;
SELECT state, role::regrole, subject #>> '{rows,rows,key}' AS key, reason FROM audit_erasure_request;
SELECT count(*) FROM audit_log WHERE row_key ->> 'id' = '8';
\set VERBOSITY sqlstate
SET ROLE regress_eraser;
SELECT * FROM audit_approve_erasure(:'request');
SET ROLE regress_second;
SELECT * FROM audit_approve_erasure(:'request');
\set VERBOSITY default
SELECT * FROM audit_approve_erasure('6f1d9c2e-5b7a-4c3d-8e9f-0a1b2c3d4e5f');
SELECT * FROM audit_approve_erasure(NULL);
RESET ROLE;
SELECT state, erasure, entries FROM audit_approve_erasure(:'request', approve => false);
\set VERBOSITY sqlstate
SELECT * FROM audit_approve_erasure(:'request');
\set VERBOSITY default
SELECT state, role::regrole, subject, reason FROM audit_erasure_request WHERE request = :'request' ORDER BY at;
SELECT count(*) FROM audit_log WHERE row_key ->> 'id' = '8';
RESET audit_chain.erase_needs_approval;

-- A legal hold forbids it, and what would be erased can still be seen.
SELECT audit_hold('case 12', 'a letter of 2 March');
SELECT entries FROM audit_erase('person', '{"id": 8}', 'Art. 17');
SELECT * FROM audit_erase('person', '{"id": 8}', 'Art. 17', false);
SELECT * FROM audit_erase_actor(session_user::text, 'Art. 17', false, 'session_role');
SELECT audit_release('case 12', 'settled');

-- The old values leave the files when nobody writes to the table any more.
SELECT what, location, since IS NOT NULL AS has_time, remedy FROM audit_erasure_remains() WHERE what = 'table';
BEGIN;
CALL audit_finish_erasure();
ROLLBACK;
CALL audit_finish_erasure();
SELECT audit_rotate();
INSERT INTO person VALUES (9, 'nine', 0);
SELECT segment, entries FROM audit_erase('person', '{"id": 8}', 'Art. 17', false);
SELECT segment, entries FROM audit_erase('person', '{"id": 9}', 'Art. 17', false);
SELECT audit_checkpoint() IS NOT NULL AS made;
SELECT audit_seal();
SELECT what, location, remedy FROM audit_erasure_remains() WHERE what = 'table';
SELECT relfilenode AS before, oid AS oid_before FROM pg_class WHERE oid = 'audit_log'::regclass \gset
CALL audit_finish_erasure();
SELECT relfilenode <> :before AS rewritten, oid = :oid_before AS same FROM pg_class WHERE oid = 'audit_log'::regclass;
SELECT what, location, remedy FROM audit_erasure_remains() WHERE what = 'table';
SELECT valid, problems FROM audit_verify();
SELECT valid, problems FROM audit_verify(only_chain => 1);
INSERT INTO person VALUES (12, 'twelve', 0);
SELECT valid, problems FROM audit_verify();
SELECT count(*) FROM pg_trigger WHERE tgrelid = 'audit_log'::regclass AND tgenabled = 'A';
UPDATE audit_log SET actor = 'x';

SET client_min_messages = warning;
DROP EXTENSION audit_chain CASCADE;
DROP SCHEMA app CASCADE;
DROP SCHEMA "Other" CASCADE;
DROP ROLE regress_nobody, regress_both, regress_eraser, regress_second;
