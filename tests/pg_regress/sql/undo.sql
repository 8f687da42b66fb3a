-- audit_undo() and audit_restore(): what a transaction did is taken back, a row gets its state of the past.
\getenv srcdir PG_ABS_SRCDIR
\set setup :srcdir '/setup.sql'
\i :setup
\set VERBOSITY terse

-- The plan, and the execution, with what differs from run to run left out.
CREATE FUNCTION app.masked(text) RETURNS text LANGUAGE sql AS $$
    SELECT regexp_replace(regexp_replace(regexp_replace($1, 'transaction \d+', 'transaction N', 'g'), 'audit_undo\(\d+\)', 'audit_undo(N)', 'g'),
        '\d{4}-\d\d-\d\dT[0-9:.]+\+00:00', 'T', 'g')
$$;
CREATE FUNCTION app.plan(xid xid8, force boolean DEFAULT false) RETURNS TABLE (step int, on_table text, row_key json, statement text, conflict text)
    LANGUAGE sql AS $$ -- json is a word of the grammar since PostgreSQL 17.
    SELECT step, "table", row_key, regexp_replace(statement, 'pg_catalog\.json\M', 'json', 'g'), app.masked(conflict)
    FROM public.audit_undo(xid, true, force) $$;
CREATE FUNCTION app.undo(xid xid8, force boolean DEFAULT false) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    done bigint;
    hint text;
BEGIN
    SELECT count(*) INTO done FROM public.audit_undo(xid, false, force);
    RETURN done || ' done';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
    RETURN SQLSTATE || ' ' || app.masked(SQLERRM) || ' HINT: ' || app.masked(hint);
END
$$;
CREATE FUNCTION app.back(relation text, key jsonb, size bigint) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    RETURN public.audit_restore(relation, key, size);
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE || ' ' || regexp_replace(app.masked(SQLERRM), 'checkpoint \d+', 'checkpoint N');
END
$$;
-- The rows of a table as one text, and their text when it was kept last.
CREATE TABLE app.kept (name regclass PRIMARY KEY, rows text);
CREATE FUNCTION app.rows(name regclass) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    result text;
BEGIN
    EXECUTE format('SELECT coalesce(string_agg(t::text, '' '' ORDER BY t::text), ''none'') FROM %s t', name) INTO result;
    RETURN result;
END
$$;
CREATE FUNCTION app.keep(VARIADIC names regclass[]) RETURNS void LANGUAGE sql AS $$
    INSERT INTO app.kept SELECT name, app.rows(name) FROM unnest(names) name ON CONFLICT (name) DO UPDATE SET rows = excluded.rows
$$;
CREATE FUNCTION app.restored(VARIADIC names regclass[]) RETURNS text LANGUAGE sql AS $$
    SELECT coalesce(string_agg(format('%s was %s, is %s', name, rows, app.rows(name)), '; '), 'as before')
    FROM app.kept WHERE name = ANY (names) AND rows <> app.rows(name)
$$;

-- The net change of each row: several changes of a row, keys that change, what came and went.
CREATE TABLE accounts (id int PRIMARY KEY, name text, balance numeric(10, 2));
SELECT audit_enable('accounts');
INSERT INTO accounts VALUES (1, 'a''b', 1), (2, 'b\c', 2.5), (3, 'c', 3), (7, 'g', 7);
SELECT keep('accounts');
BEGIN;
UPDATE accounts SET balance = 9 WHERE id = 1;
UPDATE accounts SET name = 'x' WHERE id = 1;
UPDATE accounts SET id = 20 WHERE id = 2;
DELETE FROM accounts WHERE id = 3;
INSERT INTO accounts VALUES (4, 'd', 4), (5, 'e', 5);
DELETE FROM accounts WHERE id = 5;
UPDATE accounts SET name = 'h' WHERE id = 7;
UPDATE accounts SET name = 'g' WHERE id = 7;
SELECT pg_current_xact_id() AS x \gset
SELECT undo(:'x');
COMMIT;
SELECT * FROM plan(:'x');
SELECT count(*) FROM audit_undo(:'x');
SELECT count(*) FROM audit_undo(:x);
SELECT count(*) FROM audit_undo(:'x'::xid8, dry_run => true);
SELECT restored('accounts') <> 'as before' AS only_shown;
SELECT news();
SELECT undo(:'x');
SELECT restored('accounts');
SELECT op, on_table, key, old, new FROM news();
SELECT operation, detail ->> 'xid' = :'x' AS names_it, detail -> 'force' AS force, detail -> 'rows' AS rows, table_name
FROM audit_log WHERE operation = 'UNDO';
-- Taken back twice: the rows have changed since. The undoing can be undone.
SELECT undo(:'x');
SELECT conflict FROM plan(:'x') ORDER BY step;
SELECT xid AS y FROM audit_log WHERE operation = 'UNDO' \gset
SELECT keep('accounts');
SELECT undo(:'y');
SELECT rows('accounts');

-- Keys that change hands.
CREATE TABLE swaps (id int PRIMARY KEY, v text);
SELECT audit_enable('swaps');
INSERT INTO swaps VALUES (1, 'a'), (2, 'b'), (3, 'c');
SELECT keep('swaps');
BEGIN;
UPDATE swaps SET id = 9 WHERE id = 1;
UPDATE swaps SET id = 1 WHERE id = 2;
UPDATE swaps SET id = 2 WHERE id = 9;
DELETE FROM swaps WHERE id = 3;
UPDATE swaps SET id = 3 WHERE id = 1;
SELECT pg_current_xact_id() AS x \gset
COMMIT;
SELECT rows('swaps');
SELECT undo(:'x');
SELECT restored('swaps');
CREATE TABLE shifts (id int PRIMARY KEY DEFERRABLE, v text);
SELECT audit_enable('shifts');
INSERT INTO shifts VALUES (1, 'a'), (2, 'b'), (3, 'c');
SELECT keep('shifts');
BEGIN;
UPDATE shifts SET id = id % 3 + 1;
SELECT pg_current_xact_id() AS x \gset
COMMIT;
SELECT undo(:'x');
SELECT restored('shifts');

-- Values of a unique key that change hands; a row that is replaced by another one.
CREATE TABLE mails (id int PRIMARY KEY, mail text UNIQUE);
SELECT audit_enable('mails');
INSERT INTO mails VALUES (1, 'a'), (2, 'b'), (3, 'c');
SELECT keep('mails');
BEGIN;
UPDATE mails SET mail = 'tmp' WHERE id = 1;
UPDATE mails SET mail = 'a' WHERE id = 2;
UPDATE mails SET mail = 'b' WHERE id = 1;
SELECT pg_current_xact_id() AS x \gset
COMMIT;
SELECT undo(:'x');
BEGIN;
DELETE FROM mails WHERE id = 3;
INSERT INTO mails VALUES (4, 'c');
SELECT pg_current_xact_id() AS x \gset
COMMIT;
SELECT undo(:'x');
SELECT restored('mails');
-- Changes that a trigger makes to other rows of the statement have their entries first.
CREATE TABLE nested (id int PRIMARY KEY, v int, n int DEFAULT 0);
CREATE FUNCTION app.bump() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF pg_trigger_depth() = 1 THEN
        UPDATE app.nested SET n = n + 1 WHERE id <> NEW.id;
    END IF;
    RETURN NULL;
END
$$;
SELECT audit_enable('nested');
INSERT INTO nested VALUES (1, 1), (2, 2), (3, 3);
SELECT keep('nested');
CREATE TRIGGER bump AFTER UPDATE ON nested FOR EACH ROW EXECUTE FUNCTION app.bump();
BEGIN;
UPDATE nested SET v = v + 10;
SELECT pg_current_xact_id() AS x \gset
COMMIT;
DROP TRIGGER bump ON nested;
SELECT count(*) > 0 AS out_of_order FROM audit_log WHERE detail ->> 'superseded' = 'true' AND table_name = 'nested';
SELECT statement FROM plan(:'x');
SELECT undo(:'x');
SELECT restored('nested');
-- Savepoints: what was rolled back is not there; what was taken back can be rolled back.
BEGIN;
INSERT INTO nested VALUES (50);
SAVEPOINT a;
INSERT INTO nested VALUES (51);
ROLLBACK TO a;
INSERT INTO nested VALUES (52);
SELECT pg_current_xact_id() AS x \gset
COMMIT;
BEGIN;
SAVEPOINT a;
SELECT undo(:'x');
ROLLBACK TO a;
SELECT undo(:'x');
SELECT undo(:'x') LIKE '%deleted later by this transaction%' AS not_twice;
COMMIT;
SELECT restored('nested');

-- Types, names and settings.
CREATE TYPE app."Mood" AS ENUM ('sad', 'o''k');
CREATE TYPE app.pair AS (a int, b text);
CREATE DOMAIN app.small AS int CHECK (VALUE < 100);
CREATE TABLE "T a""b" (
    "Key 1" text, "k'2" timestamptz, PRIMARY KEY ("Key 1", "k'2"),
    ints int[], texts text[], pair app.pair, pairs app.pair[], mood "Mood", doc jsonb, raw json, num numeric, bin bytea, d date, ts timestamp, iv interval,
    f4 float4, f8 float8, u uuid, r int4range, small app.small, c char(5), vc varchar(9), b bit(3), vb varbit, net inet, rel regclass, m money,
    "select" boolean
);
SELECT audit_enable('"T a""b"');
INSERT INTO "T a""b" VALUES ('it''s \ "x"', '2024-02-29 12:34:56.789+05', '{1,NULL,3}', '{"a b","c\"d",NULL,"e\\f",""}', ROW(1, 'x,"y)'), ARRAY[ROW(1, 'a''b')::pair],
    'o''k', '{"a": [1, 2.50, null], "b": {"masked": true}}', '{ "z":1,"z" : "\u0041"}', 1e-30, '\x00ff5c27', '2024-01-02', '2024-01-02 03:04:05',
    '-1 mon +2 days -03:04:05', 'NaN', -0.1, 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '[1,5)', 7, 'ab', 'x''y', '101', '1', '10.0.0.0/8', 'pg_class', '12.34', true);
INSERT INTO "T a""b" ("Key 1", "k'2") VALUES ('null', 'infinity');
SELECT keep('"T a""b"');
BEGIN;
UPDATE "T a""b" SET ints = '{}', texts = NULL, pair = NULL, pairs = NULL, mood = 'sad', doc = 'null', raw = '"s"', num = 'NaN', bin = NULL, d = NULL, ts = NULL,
    iv = '1 year', f4 = 1, f8 = 'Infinity', u = NULL, r = 'empty', small = 8, c = '', vc = '', b = NULL, vb = '', net = '::1', rel = NULL, m = 0, "select" = NULL
WHERE "Key 1" <> 'null';
DELETE FROM "T a""b" WHERE "Key 1" = 'null';
SELECT pg_current_xact_id() AS x \gset
COMMIT;
BEGIN;
DELETE FROM "T a""b";
SELECT pg_current_xact_id() AS y \gset
COMMIT;
-- A session's settings, operators and types change nothing.
CREATE SCHEMA trap;
CREATE FUNCTION trap.never(text, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'called'; END $$;
CREATE OPERATOR trap.= (LEFTARG = text, RIGHTARG = text, FUNCTION = trap.never);
CREATE FUNCTION trap.never(int, int) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'called'; END $$;
CREATE OPERATOR trap.= (LEFTARG = int, RIGHTARG = int, FUNCTION = trap.never);
CREATE DOMAIN trap.text AS pg_catalog.text CHECK (false);
CREATE DOMAIN trap."numeric" AS pg_catalog.numeric CHECK (false);
SET DateStyle = 'SQL, DMY';
SET TimeZone = 'Asia/Kathmandu';
SET IntervalStyle = 'sql_standard';
SET bytea_output = 'escape';
SET extra_float_digits = -10;
SET standard_conforming_strings = off;
SET quote_all_identifiers = on;
SET search_path = trap, pg_catalog, app, public;
SELECT count(*) FROM public.audit_undo(:'y'::xid8, false);
SELECT count(*) FROM public.audit_undo(:'x'::xid8, true);
RESET ALL;
SET search_path = app, public;
\set VERBOSITY terse
SELECT conflict FROM plan(:'x') ORDER BY step;
SET DateStyle = 'SQL, DMY';
SET IntervalStyle = 'sql_standard';
SELECT undo(:'x', true);
RESET DateStyle;
RESET IntervalStyle;
SELECT restored('"T a""b"');
SELECT statement FROM plan(:'y', true);
DROP SCHEMA trap CASCADE;

-- What a later transaction changed is told, and left alone unless by force.
CREATE TABLE t (id int PRIMARY KEY, v text, w text);
SELECT audit_enable('t');
INSERT INTO t VALUES (1, 'a', 'a'), (2, 'b', 'b'), (3, 'c', 'c'), (4, 'd', 'd'), (5, 'e', 'e'), (6, 'f', 'f'), (7, 'g', 'g');
SELECT keep('t');
BEGIN;
UPDATE t SET v = 'x' WHERE id IN (1, 2, 4, 5);
DELETE FROM t WHERE id IN (3, 6);
UPDATE t SET id = 17 WHERE id = 7;
INSERT INTO t VALUES (10, 'new', ''), (11, 'new', '');
SELECT pg_current_xact_id() AS x \gset
COMMIT;
SET audit_chain.actor = 'bob';
UPDATE t SET w = 'later' WHERE id = 2;
INSERT INTO t VALUES (3, 'again', ''), (7, 'another', '');
DELETE FROM t WHERE id = 4;
UPDATE t SET id = 50 WHERE id = 5;
UPDATE t SET v = 'later' WHERE id = 10;
RESET audit_chain.actor;
SELECT replace(conflict, current_user, 'me') AS conflict, row_key, statement IS NOT NULL AS has_statement FROM plan(:'x') ORDER BY row_key::text;
SELECT replace(undo(:'x'), current_user, 'me');
SELECT row_key, statement FROM plan(:'x', true);
SELECT undo(:'x', true);
SELECT rows('t');
TRUNCATE t;
INSERT INTO t VALUES (1, 'a', 'a'), (2, 'b', 'b'), (3, 'c', 'c');
-- A change of the own transaction counts too, and one that the log does not know.
BEGIN;
UPDATE t SET v = 'x' WHERE id = 1;
SELECT pg_current_xact_id() AS x \gset
COMMIT;
BEGIN;
UPDATE t SET v = 'y' WHERE id = 1;
SELECT replace(undo(:'x'), current_user, 'me');
ROLLBACK;
SET client_min_messages = warning;
SELECT audit_disable('t', 'test');
SELECT undo(:'x');
UPDATE t SET v = 'unseen' WHERE id = 1;
SELECT audit_enable('t');
SELECT undo(:'x');
UPDATE t SET id = 100 WHERE id = 1;
RESET client_min_messages;
SELECT conflict IS NOT NULL FROM plan(:'x');
TRUNCATE t;
SELECT replace(undo(:'x'), current_user, 'me');

-- Another table has come to the name while nobody audited it.
CREATE TABLE lent (id int PRIMARY KEY, v text);
SELECT audit_enable('lent');
INSERT INTO lent VALUES (1, 'a');
BEGIN;
DELETE FROM lent;
SELECT pg_current_xact_id() AS x \gset
COMMIT;
SET client_min_messages = warning;
SELECT audit_disable('lent', 'test');
RESET client_min_messages;
DROP TABLE lent;
CREATE TABLE lent (id int PRIMARY KEY, v text);
SELECT undo(:'x');

-- TRUNCATE: all rows that were there come back, with what the transaction did before and after it.
CREATE TABLE full_t (id int PRIMARY KEY, v text);
INSERT INTO full_t VALUES (1, 'baseline');
SELECT audit_enable('full_t', baseline => true);
INSERT INTO full_t SELECT i, 'v' || i FROM generate_series(2, 5) i;
ALTER TABLE full_t ADD COLUMN n int DEFAULT 42;
ALTER TABLE full_t RENAME COLUMN v TO val;
UPDATE full_t SET val = 'later' WHERE id = 5;
SELECT keep('full_t');
BEGIN;
UPDATE full_t SET val = 'x' WHERE id = 1;
DELETE FROM full_t WHERE id = 2;
INSERT INTO full_t VALUES (9, 'gone');
TRUNCATE full_t;
INSERT INTO full_t VALUES (3, 'other'), (8, 'stays');
SELECT pg_current_xact_id() AS x \gset
COMMIT;
SELECT * FROM plan(:'x');
SELECT undo(:'x');
SELECT restored('full_t');
CREATE TABLE partial_t (id int PRIMARY KEY, v text);
INSERT INTO partial_t VALUES (1, 'before auditing'), (2, 'before auditing');
SELECT audit_enable('partial_t');
UPDATE partial_t SET v = 'x' WHERE id = 2;
BEGIN;
TRUNCATE partial_t;
SELECT pg_current_xact_id() AS x \gset
COMMIT;
SELECT * FROM plan(:'x');
SELECT undo(:'x');
SELECT undo(:'x', true);
SELECT rows('partial_t');

-- Foreign keys: parents first and children last, cascades, references within a table, in a circle, and to what others have added.
CREATE TABLE child (id int PRIMARY KEY, parent_id int);
CREATE TABLE parent (id int PRIMARY KEY, v text);
ALTER TABLE child ADD CONSTRAINT child_parent FOREIGN KEY (parent_id) REFERENCES parent ON DELETE CASCADE ON UPDATE CASCADE;
SELECT audit_enable('child');
SELECT audit_enable('parent');
INSERT INTO parent VALUES (1, 'a'), (2, 'b');
INSERT INTO child VALUES (1, 1), (2, 1), (3, 2);
SELECT keep('child', 'parent');
BEGIN;
DELETE FROM parent WHERE id = 1;
UPDATE parent SET id = 3 WHERE id = 2;
INSERT INTO parent VALUES (4, 'd');
INSERT INTO child VALUES (7, 4);
SELECT pg_current_xact_id() AS x \gset
COMMIT;
SELECT statement FROM plan(:'x') ORDER BY step;
INSERT INTO child VALUES (8, 4);
SELECT undo(:'x');
SELECT rows('child'), rows('parent');
DELETE FROM child WHERE id = 8;
SELECT undo(:'x');
SELECT restored('child', 'parent');
BEGIN;
INSERT INTO parent VALUES (4, 'd');
SELECT pg_current_xact_id() AS x \gset
COMMIT;
INSERT INTO child VALUES (8, 4);
SELECT undo(:'x', true);
SELECT restored('child', 'parent');
CREATE TABLE tree (id int PRIMARY KEY, up int REFERENCES tree ON DELETE CASCADE);
SELECT audit_enable('tree');
INSERT INTO tree VALUES (5, NULL), (4, 5), (3, 4), (6, 6);
SELECT keep('tree');
BEGIN;
DELETE FROM tree WHERE id IN (5, 6);
INSERT INTO tree VALUES (11, NULL), (10, 11), (12, 10);
SELECT pg_current_xact_id() AS x \gset
COMMIT;
SELECT undo(:'x');
SELECT restored('tree');
CREATE TABLE egg (id int PRIMARY KEY, hen int);
CREATE TABLE hen (id int PRIMARY KEY, egg int REFERENCES egg DEFERRABLE);
ALTER TABLE egg ADD FOREIGN KEY (hen) REFERENCES hen DEFERRABLE INITIALLY DEFERRED;
SELECT audit_enable('egg');
SELECT audit_enable('hen');
BEGIN;
INSERT INTO egg VALUES (1, 1);
INSERT INTO hen VALUES (1, 1);
COMMIT;
SELECT keep('egg', 'hen');
BEGIN;
SET CONSTRAINTS ALL DEFERRED;
DELETE FROM hen;
DELETE FROM egg;
INSERT INTO hen VALUES (2, 2);
INSERT INTO egg VALUES (2, 2);
SELECT pg_current_xact_id() AS x \gset
COMMIT;
SELECT undo(:'x');
SELECT restored('egg', 'hen');
-- What cannot be: the first error is told.
CREATE TABLE used (id int REFERENCES parent);
BEGIN;
INSERT INTO parent VALUES (20, 'u');
SELECT pg_current_xact_id() AS x \gset
COMMIT;
INSERT INTO used VALUES (20);
SELECT undo(:'x', true);
DROP TABLE used;

-- Values that the log does not have.
CREATE TABLE secret (id int PRIMARY KEY, plain text, masked text DEFAULT 'default', excluded text DEFAULT 'default');
SELECT audit_enable('secret', exclude_columns => '{excluded}', mask_columns => '{masked}');
INSERT INTO secret VALUES (1, 'p1', 'm1', 'e1'), (2, 'p2', 'm2', 'e2'), (3, 'p3', 'm3', 'e3');
BEGIN;
UPDATE secret SET plain = 'x' WHERE id = 1;
UPDATE secret SET plain = 'x', masked = 'x', excluded = 'x' WHERE id = 2;
DELETE FROM secret WHERE id = 3;
SELECT pg_current_xact_id() AS x \gset
COMMIT;
SELECT * FROM plan(:'x');
SELECT undo(:'x');
SELECT statement FROM plan(:'x', true);
SELECT undo(:'x', true);
SELECT rows('secret');
SET audit_chain.max_value_size = 1;
UPDATE secret SET plain = repeat('too large ', 200) WHERE id = 1;
BEGIN;
UPDATE secret SET plain = repeat('too large also ', 200) WHERE id = 1;
SELECT pg_current_xact_id() AS x \gset
COMMIT;
RESET audit_chain.max_value_size;
SELECT * FROM plan(:'x');
BEGIN;
UPDATE secret SET plain = 'short' WHERE id = 2;
SELECT pg_current_xact_id() AS x \gset
COMMIT;
SELECT entries > 0 AS erased FROM audit_erase('secret', '{"id": 2}', 'test', dry_run => false);
SELECT regexp_replace(conflict, '\(\d+, \d+\)', '(C, S)') AS conflict, statement FROM plan(:'x');
SELECT undo(:'x', true);
-- Out-of-line values that the transaction left as they were.
CREATE TABLE large (id int PRIMARY KEY, v int, doc text);
ALTER TABLE large ALTER doc SET STORAGE EXTERNAL;
SELECT audit_enable('large');
INSERT INTO large VALUES (1, 1, repeat('x', 5000)), (2, 2, repeat('y', 5000)), (3, 3, repeat('z', 5000));
SELECT md5(rows('large')) AS before \gset
BEGIN;
UPDATE large SET v = 10;
UPDATE large SET v = 11 WHERE id = 2;
DELETE FROM large WHERE id = 2;
SELECT pg_current_xact_id() AS x \gset
COMMIT;
DELETE FROM large WHERE id = 3;
SELECT undo(:'x', true);
SELECT md5(rows('large')) = :'before' AS as_before;

-- Columns that the server fills.
CREATE TABLE filled (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a int, twice int GENERATED ALWAYS AS (a * 2) STORED, n int GENERATED BY DEFAULT AS IDENTITY);
SELECT audit_enable('filled');
INSERT INTO filled (a) VALUES (1), (2);
SELECT keep('filled');
BEGIN;
UPDATE filled SET a = 10 WHERE id = 1;
DELETE FROM filled WHERE id = 2;
INSERT INTO filled (a) VALUES (3);
SELECT pg_current_xact_id() AS x \gset
COMMIT;
SELECT statement FROM plan(:'x');
SELECT undo(:'x');
SELECT restored('filled');

-- What became of columns and tables since.
CREATE TABLE changes (id int PRIMARY KEY, old_name text, gone text, n int);
SELECT audit_enable('changes');
INSERT INTO changes VALUES (1, 'a', 'g', 1), (2, 'b', 'g', 2);
BEGIN;
UPDATE changes SET old_name = 'x', gone = 'x', n = 7 WHERE id = 1;
DELETE FROM changes WHERE id = 2;
SELECT pg_current_xact_id() AS x \gset
COMMIT;
ALTER TABLE changes RENAME COLUMN old_name TO new_name;
ALTER TABLE changes RENAME COLUMN id TO number;
ALTER TABLE changes DROP COLUMN gone;
ALTER TABLE changes ADD COLUMN added text DEFAULT 'd';
ALTER TABLE changes ALTER COLUMN n TYPE numeric(5, 1);
ALTER TABLE changes RENAME TO renamed;
CREATE SCHEMA app2;
ALTER TABLE renamed SET SCHEMA app2;
SELECT statement, conflict FROM plan(:'x');
SELECT undo(:'x');
SELECT rows('app2.renamed');
-- The name is another table's now.
CREATE TABLE changes (id int PRIMARY KEY, old_name text);
SELECT audit_enable('changes');
INSERT INTO changes VALUES (1, 'x');
SELECT on_table, conflict IS NOT NULL AS is_changed FROM plan(:'x');
DROP TABLE app2.renamed;
SELECT * FROM plan(:'x');
SELECT undo(:'x', true);

-- The key is another one now, or came later, or went.
CREATE TABLE keyed (id int PRIMARY KEY, code text NOT NULL, v text);
CREATE TABLE unkeyed (id int PRIMARY KEY, v text);
CREATE TABLE keyed_later (id int NOT NULL, v text);
SELECT audit_enable('keyed'), audit_enable('unkeyed'), audit_enable('keyed_later');
INSERT INTO keyed VALUES (1, 'a', 'x'), (2, 'b', 'y'), (3, 'c', 'z');
INSERT INTO unkeyed VALUES (1, 'x'), (2, 'y');
INSERT INTO keyed_later VALUES (1, 'x'), (2, 'y');
SELECT keep('keyed', 'unkeyed', 'keyed_later');
BEGIN;
UPDATE keyed SET v = 'changed' WHERE id < 3;
DELETE FROM keyed WHERE id = 3;
UPDATE unkeyed SET v = 'changed' WHERE id = 1;
DELETE FROM unkeyed WHERE id = 2;
UPDATE keyed_later SET v = 'changed' WHERE id = 1;
DELETE FROM keyed_later WHERE id = 2;
SELECT pg_current_xact_id() AS x \gset
COMMIT;
ALTER TABLE keyed DROP CONSTRAINT keyed_pkey;
ALTER TABLE keyed ADD PRIMARY KEY (code);
ALTER TABLE unkeyed DROP CONSTRAINT unkeyed_pkey;
ALTER TABLE keyed_later ADD PRIMARY KEY (id);
UPDATE keyed SET id = 50 WHERE code = 'b';
SELECT row_key, replace(conflict, current_user, 'me') AS conflict, regexp_replace(statement, '\(\d+,\d+\)', '(P)') AS statement FROM plan(:'x');
UPDATE keyed SET id = 2 WHERE code = 'b';
SELECT undo(:'x', true);
SELECT restored('keyed', 'unkeyed', 'keyed_later');

-- Partitions: by the table above, wherever the row is.
CREATE TABLE parts (id int, region text, v text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE parts_a PARTITION OF parts FOR VALUES IN ('a');
CREATE TABLE parts_b PARTITION OF parts FOR VALUES IN ('b');
SELECT audit_enable('parts');
CREATE TABLE byid (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
CREATE TABLE byid_1 PARTITION OF byid FOR VALUES FROM (0) TO (10);
CREATE TABLE byid_2 PARTITION OF byid FOR VALUES FROM (10) TO (20);
SELECT audit_enable('byid');
INSERT INTO parts VALUES (1, 'a', 'x'), (2, 'a', 'y'), (3, 'b', 'z');
INSERT INTO byid VALUES (1, 'x'), (2, 'y'), (11, 'z');
SELECT keep('parts', 'parts_a', 'byid', 'byid_1');
BEGIN;
UPDATE parts SET region = 'b' WHERE id = 1;
UPDATE parts SET v = 'new' WHERE id = 2;
DELETE FROM parts WHERE id = 3;
UPDATE byid SET id = 12 WHERE id = 1;
SELECT pg_current_xact_id() AS x \gset
COMMIT;
SELECT statement, conflict FROM plan(:'x');
SELECT undo(:'x');
SELECT restored('parts', 'parts_a', 'byid', 'byid_1');
BEGIN;
TRUNCATE parts;
INSERT INTO byid VALUES (5, 'n');
TRUNCATE byid_1;
SELECT pg_current_xact_id() AS x \gset
COMMIT;
SELECT undo(:'x');
SELECT restored('parts', 'parts_a', 'byid', 'byid_1');
-- Children of a table: only the row of the table itself.
CREATE TABLE above (id int PRIMARY KEY, v text);
CREATE TABLE below (PRIMARY KEY (id)) INHERITS (above);
SELECT audit_enable('above');
INSERT INTO above VALUES (1, 'above');
INSERT INTO below VALUES (1, 'below');
SELECT keep('above');
BEGIN;
UPDATE ONLY above SET v = 'x';
SELECT pg_current_xact_id() AS x \gset
COMMIT;
SELECT statement FROM plan(:'x');
SELECT undo(:'x');
SELECT restored('above');

-- Partitions with keys of their own, and one that was detached.
CREATE TABLE own (id int, r int, v text) PARTITION BY LIST (r);
CREATE TABLE own_1 PARTITION OF own FOR VALUES IN (1);
CREATE TABLE own_2 PARTITION OF own FOR VALUES IN (2);
ALTER TABLE own_1 ADD PRIMARY KEY (id);
ALTER TABLE own_2 ADD PRIMARY KEY (id);
SELECT audit_enable('own');
INSERT INTO own VALUES (1, 1, 'a'), (1, 2, 'b'), (2, 1, 'c');
SELECT keep('own', 'own_1', 'own_2');
BEGIN;
UPDATE own SET v = v || 'x';
UPDATE own SET r = 2 WHERE id = 2;
SELECT pg_current_xact_id() AS x \gset
COMMIT;
ALTER TABLE own DETACH PARTITION own_1;
SELECT statement, conflict FROM plan(:'x');
SELECT undo(:'x');
SELECT restored('own_1', 'own_2');

-- Tables without a key: one row of that content.
CREATE TABLE bare (v text, n numeric, doc json);
SELECT audit_enable('bare');
INSERT INTO bare VALUES ('a', 1, '{}'), ('a', 1, '{}'), ('b', NULL, '[1]'), ('c', 3, NULL);
SELECT keep('bare');
BEGIN;
UPDATE bare SET n = 2 WHERE ctid = (SELECT min(ctid) FROM bare);
DELETE FROM bare WHERE v = 'b';
INSERT INTO bare VALUES ('a', 1, '{}');
UPDATE bare SET v = 'd' WHERE v = 'c';
SELECT pg_current_xact_id() AS x \gset
COMMIT;
SELECT regexp_replace(statement, '\(\d+,\d+\)', '(P)') AS statement, row_key, conflict FROM plan(:'x');
SELECT undo(:'x');
SELECT restored('bare');
SELECT undo(:'x');
BEGIN;
TRUNCATE bare;
INSERT INTO bare VALUES ('new');
SELECT pg_current_xact_id() AS x \gset
COMMIT;
SELECT undo(:'x');
SELECT restored('bare');

-- Triggers do what they do: what they set is told, what else they change is refused.
CREATE TABLE stamped (id int PRIMARY KEY, v text, stamp int DEFAULT 0);
CREATE TABLE trail (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text);
CREATE FUNCTION app.stamp() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.stamp := OLD.stamp + 1; RETURN NEW; END $$;
CREATE FUNCTION app.leave() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO app.trail (v) VALUES (OLD.v); RETURN NULL; END $$;
CREATE FUNCTION app.skip() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TRIGGER stamp BEFORE UPDATE ON stamped FOR EACH ROW EXECUTE FUNCTION app.stamp();
SELECT audit_enable('stamped');
SELECT audit_enable('trail');
INSERT INTO stamped VALUES (1, 'a');
BEGIN;
UPDATE stamped SET v = 'b';
SELECT pg_current_xact_id() AS x \gset
COMMIT;
SELECT undo(:'x');
SELECT rows('stamped');
CREATE TRIGGER leave AFTER UPDATE ON stamped FOR EACH ROW EXECUTE FUNCTION app.leave();
BEGIN;
UPDATE stamped SET v = 'b';
SELECT pg_current_xact_id() AS x \gset
COMMIT;
SELECT undo(:'x');
SELECT rows('stamped'), rows('trail');
SELECT undo(:'x', true);
SELECT rows('stamped'), rows('trail');
DROP TRIGGER leave ON stamped;
BEGIN;
UPDATE stamped SET v = 'b';
SELECT pg_current_xact_id() AS x \gset
COMMIT;
CREATE TRIGGER skip BEFORE UPDATE ON stamped FOR EACH ROW EXECUTE FUNCTION app.skip();
SELECT undo(:'x');
SELECT undo(:'x', true);

-- Entries that are no changes of rows.
BEGIN;
SELECT audit_event('something');
CREATE TABLE other (id int PRIMARY KEY);
SELECT audit_enable('other');
INSERT INTO swaps VALUES (30, 'x');
SELECT pg_current_xact_id() AS x \gset
COMMIT;
\set VERBOSITY default
SELECT count(*) FROM audit_undo(:'x'::xid8);
BEGIN;
UPDATE swaps SET v = 'y' WHERE id = 30;
ALTER TABLE swaps ADD COLUMN w int;
SELECT pg_current_xact_id() AS x \gset
COMMIT;
SELECT undo(:'x');
SELECT undo(:'x', true);
SELECT rows('swaps');

-- Transactions that cannot be meant.
BEGIN;
INSERT INTO swaps VALUES (40, 'x');
SELECT pg_current_xact_id() AS x \gset
ROLLBACK;
SELECT undo(:'x');
CREATE TABLE unaudited (id int);
BEGIN;
INSERT INTO unaudited VALUES (1);
SELECT pg_current_xact_id() AS x \gset
COMMIT;
SELECT undo(:'x');
SELECT undo((pg_current_xact_id()::text::bigint + 100000)::text::xid8);
SELECT audit_undo('x');
SELECT audit_undo('-5');
SELECT audit_undo(-5);
SELECT audit_undo(0);
SELECT audit_undo(NULL::bigint);
SELECT audit_undo(5, NULL);
BEGIN READ ONLY;
SELECT count(*) >= 0 AS shown FROM audit_undo(:'y'::xid8);
SELECT count(*) FROM audit_undo(:'y'::xid8, false);
ROLLBACK;

-- Roles: rights on the tables and on the log are the caller's.
CREATE ROLE regress_undo_reader;
CREATE ROLE regress_undo_writer;
GRANT USAGE ON SCHEMA app TO regress_undo_reader, regress_undo_writer;
GRANT SELECT ON audit_log TO regress_undo_reader;
GRANT SELECT ON parent TO regress_undo_reader;
GRANT ALL ON parent TO regress_undo_writer;
BEGIN;
UPDATE parent SET v = 'roles' WHERE id = 1;
SELECT pg_current_xact_id() AS x \gset
COMMIT;
SET ROLE regress_undo_reader;
SELECT count(*) FROM audit_undo(:'x'::xid8);
SELECT undo(:'x');
SELECT audit_restore('parent', '{"id": 1}', 'now', dry_run => true) IS NULL AS nothing_to_do;
RESET ROLE;
SET ROLE regress_undo_writer;
SELECT undo(:'x');
SELECT audit_restore('parent', '{"id": 1}', 'now');
RESET ROLE;
-- Row security: what a role does not see it cannot take back.
GRANT SELECT ON audit_log TO regress_undo_writer;
ALTER TABLE parent ENABLE ROW LEVEL SECURITY;
CREATE POLICY visible ON parent TO regress_undo_writer USING (id > 1) WITH CHECK (v <> 'a');
BEGIN;
UPDATE parent SET v = 'roles' WHERE id = 2;
SELECT pg_current_xact_id() AS y \gset
COMMIT;
SET ROLE regress_undo_writer;
SELECT undo(:'x');
SELECT undo(:'x', true);
SELECT undo(:'y');
SELECT audit_restore('parent', '{"id": 1}', 'now', dry_run => true);
RESET ROLE;
SELECT session_role = effective_role AS own, count(*) FROM audit_log WHERE operation = 'UNDO' AND effective_role = 'regress_undo_writer' GROUP BY 1;
ALTER TABLE parent DISABLE ROW LEVEL SECURITY;

SET client_min_messages = warning;
-- audit_restore(): inserts, updates, deletes, or has nothing to do.
CREATE TABLE r (id int, "k 2" text, v text, n int, PRIMARY KEY ("k 2", id));
SELECT audit_enable('r');
INSERT INTO r VALUES (1, 'a', 'first', 1), (2, 'a', 'first', 2);
SELECT split_part(audit_checkpoint(), E'\n', 2) AS size \gset
UPDATE r SET v = 'second', n = 7 WHERE id = 1;
DELETE FROM r WHERE id = 2;
INSERT INTO r VALUES (3, 'a', 'new', 3);
SELECT audit_restore('r', '{"id": 1, "k 2": "a"}', :size, dry_run => true);
SELECT audit_restore('r', '{"k 2": "a", "id": 1}', :'size');
SELECT audit_restore('app.r'::regclass, '{"id": 2, "k 2": "a"}', :size);
SELECT audit_restore('r', '{"id": 3, "k 2": "a"}', :size);
SELECT audit_restore('r', '{"id": 3, "k 2": "a"}', :size) IS NULL AS nothing_to_do;
SELECT audit_restore('r', '{"id": 99, "k 2": "a"}', :size) IS NULL AS nothing_to_do;
SELECT rows('r');
SELECT detail #- '{restored,at}' AS detail FROM (SELECT detail::jsonb FROM audit_log WHERE operation = 'UNDO' AND detail::jsonb ? 'restored' ORDER BY at, seq) e;
SELECT audit_restore('r', '{"id": 1}', :size);
SELECT audit_restore('r', '{"id": 1, "k 2": null}', :size);
SELECT audit_restore('r', '{"id": "x", "k 2": "a"}', :size);
SELECT audit_restore('bare', '{"v": "a"}', :size);
SELECT audit_restore('r', NULL, :size);
SELECT audit_restore('unaudited', '{"id": 1}', :size);
SELECT audit_restore('app.nothing', '{"id": 1}', :size);
SELECT audit_restore('app.changes', '{"id": 1}', now() + interval '1 day', dry_run => true) IS NULL AS nothing_to_do;
DROP TABLE r;
SELECT audit_restore('app.r', '{"id": 1, "k 2": "a"}', :size);
-- A row of which the log does not tell whether it was there is not deleted.
CREATE TABLE unknown (id int PRIMARY KEY, v text);
INSERT INTO unknown VALUES (1, 'before auditing'), (2, 'before auditing');
SELECT audit_enable('unknown');
SELECT split_part(audit_checkpoint(), E'\n', 2) AS size \gset
UPDATE unknown SET v = 'x' WHERE id = 2;
INSERT INTO unknown VALUES (3, 'new');
SELECT back('unknown', '{"id": 1}', :size);
SELECT audit_restore('unknown', '{"id": 2}', :size);
SELECT audit_restore('unknown', '{"id": 3}', :size);
SELECT rows('unknown');
-- A row of a partitioned table that has moved.
SELECT split_part(audit_checkpoint(), E'\n', 2) AS size \gset
UPDATE byid SET id = 15, v = 'moved' WHERE id = 1;
SELECT audit_restore('byid', '{"id": 15}', :size);
SELECT audit_restore('byid', '{"id": 1}', :size);
SELECT rows('byid_1');

-- Equal keys whose texts differ: the row is the same one, whichever text is given, and nothing is taken for another row.
CREATE TABLE equal_n (id numeric PRIMARY KEY, v int);
CREATE TABLE equal_f (id float8, i interval, v int, PRIMARY KEY (id, i));
SELECT audit_enable('equal_n'), audit_enable('equal_f');
INSERT INTO equal_n VALUES (1.0, 1), (2, 2);
INSERT INTO equal_f VALUES (0, '1 month', 1);
SELECT split_part(audit_checkpoint(), E'\n', 2) AS size \gset
UPDATE equal_n SET v = 9;
UPDATE equal_f SET v = 9;
SELECT back('equal_n', '{"id": 1}', :size);
SELECT audit_restore('equal_n', '{"id": 1.000}', now());
SELECT audit_restore('equal_n', '{"id": 2.0}', :size);
SELECT audit_restore('equal_f', '{"id": "-0", "i": "30 days"}', :size);
SELECT rows('equal_n'), rows('equal_f');
UPDATE equal_n SET id = 1.00 WHERE id = 1 RETURNING pg_current_xact_id() AS xid \gset
SELECT * FROM audit_undo(:xid, dry_run => false);
UPDATE equal_f SET id = '-0', i = '30 days' RETURNING pg_current_xact_id() AS xid \gset
SELECT audit_restore('equal_f', '{"id": 0, "i": "1 mon"}', :size, dry_run => true);
SELECT * FROM audit_undo(:xid, dry_run => false);
BEGIN;
DELETE FROM equal_n WHERE id = 1;
INSERT INTO equal_n VALUES (1.00, 3) RETURNING pg_current_xact_id() AS xid \gset
COMMIT;
SELECT audit_restore('equal_n', '{"id": 1.00}', :size, dry_run => true);
SELECT * FROM audit_undo(:xid, dry_run => false);
SELECT rows('equal_n'), rows('equal_f');
-- Another row that has come to an equal key is another row.
DELETE FROM equal_n WHERE id = 1 RETURNING pg_current_xact_id() AS xid \gset
INSERT INTO equal_n VALUES (1.00, 4);
SELECT row_key, statement, conflict FROM plan(:'xid');

-- Tables that inherit from one another have rows of their own, even with the same keys.
CREATE TABLE heir_of (id int PRIMARY KEY, v text);
CREATE TABLE heir (w text, PRIMARY KEY (id)) INHERITS (heir_of);
SELECT audit_enable('heir_of');
INSERT INTO heir_of VALUES (1, 'above'), (3, 'above');
INSERT INTO heir VALUES (1, 'below', 'w'), (2, 'below', 'w');
SELECT split_part(audit_checkpoint(), E'\n', 2) AS size \gset
BEGIN;
SELECT pg_current_xact_id() AS xid \gset
UPDATE heir_of SET v = v || '!';
DELETE FROM heir_of WHERE id > 1;
UPDATE ONLY heir_of SET id = 7;
COMMIT;
SELECT * FROM plan(:'xid');
SELECT undo(:'xid');
SELECT rows('heir_of'), rows('heir');
BEGIN;
SELECT pg_current_xact_id() AS xid \gset
UPDATE ONLY heir_of SET v = 'x' WHERE id = 1;
COMMIT;
UPDATE heir SET v = 'later' WHERE id = 1;
SELECT undo(:'xid');
SELECT rows('heir_of'), rows('heir');
SELECT audit_restore('heir_of', '{"id": 2}', :size);
SELECT audit_restore('heir', '{"id": 1}', :size);
BEGIN;
SELECT pg_current_xact_id() AS xid \gset
TRUNCATE heir_of;
COMMIT;
SELECT undo(:'xid');
SELECT rows('heir_of'), rows('heir');
-- A domain has another constraint by now.
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TABLE of_domain (id positive PRIMARY KEY, v positive);
SELECT audit_enable('of_domain');
INSERT INTO of_domain VALUES (1, 2);
UPDATE of_domain SET v = 3 RETURNING pg_current_xact_id() AS xid \gset
ALTER DOMAIN positive ADD CONSTRAINT large CHECK (VALUE > 2) NOT VALID;
SELECT * FROM plan(:'xid');
SELECT undo(:'xid');
ALTER DOMAIN positive DROP CONSTRAINT large;
SELECT undo(:'xid');
SELECT rows('of_domain');

-- The whole log is intact, with what was taken back.
SELECT valid, problems FROM audit_verify();
SET client_min_messages = warning;
DROP SCHEMA app2 CASCADE;
DROP SCHEMA app CASCADE;
DROP OWNED BY regress_undo_reader, regress_undo_writer;
DROP ROLE regress_undo_reader, regress_undo_writer;
