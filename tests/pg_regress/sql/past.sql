-- audit_history(), audit_as_of() and audit_diff(): what they show, what they tell, who may call them.
\getenv srcdir PG_ABS_SRCDIR
\set setup :srcdir '/setup.sql'
\i :setup
\set VERBOSITY terse
SET audit_chain.keep_chain = off;
-- Rights: SELECT on audit_log is needed and enough, but for row security.
CREATE TABLE a (id int PRIMARY KEY, v text);
SELECT audit_enable('a');
INSERT INTO a VALUES (1, 'x');
SET client_min_messages = warning;
SELECT split_part(audit_checkpoint(), E'\n', 2) AS size \gset
RESET client_min_messages;
UPDATE a SET v = 'y';
CREATE ROLE regress_reader;
GRANT USAGE ON SCHEMA app TO regress_reader;
GRANT SELECT ON audit_log TO regress_reader;
SET ROLE regress_reader;
SELECT * FROM a;
SELECT * FROM audit_as_of(NULL::a, now());
SELECT * FROM audit_as_of(NULL::a, :size);
SELECT * FROM audit_as_of(NULL::a, :'size');
SELECT * FROM audit_diff(NULL::a, :size, :size);
SELECT * FROM audit_diff(NULL::a, :'size', 'now');
SELECT operation, changed FROM audit_history('a', '{"id": 1}');
SELECT operation, changed FROM audit_history('app.a'::regclass);
SELECT operation, old_row, new_row FROM audit_history(NULL::a, '{"id": "1"}');
RESET ROLE;
REVOKE SELECT ON audit_log FROM regress_reader;
SET ROLE regress_reader;
SELECT * FROM audit_as_of(NULL::a, now());
SELECT * FROM audit_as_of(NULL::a, :size);
SELECT * FROM audit_diff(NULL::a, :size, :size);
SELECT operation, changed FROM audit_history('a', '{"id": 1}');
SELECT operation, old_row, new_row FROM audit_history(NULL::a, '{"id": "1"}');
RESET ROLE;
GRANT SELECT ON audit_log TO regress_reader;
GRANT SELECT ON a TO regress_reader;
ALTER TABLE a ENABLE ROW LEVEL SECURITY;
SELECT count(*) FROM audit_as_of(NULL::a, now());
SET ROLE regress_reader;
SELECT * FROM audit_as_of(NULL::a, now());
SELECT operation, changed FROM audit_history('a', '{"id": 1}');
SELECT operation, changed FROM audit_history('a');
RESET ROLE;
ALTER TABLE a RENAME TO a2;
SET ROLE regress_reader;
SELECT operation, changed FROM audit_history('a');
SELECT operation, changed FROM audit_history('app.a');
RESET ROLE;
ALTER ROLE regress_reader BYPASSRLS;
SET ROLE regress_reader;
SELECT operation, changed FROM audit_history('a');
RESET ROLE;
ALTER TABLE a2 DISABLE ROW LEVEL SECURITY;
ALTER TABLE a2 RENAME TO a;
-- What cannot be answered.
CREATE FUNCTION said(query text) RETURNS text LANGUAGE plpgsql SET client_min_messages = warning AS $$
DECLARE
    hint text;
    count bigint;
BEGIN
    EXECUTE 'SELECT count(*) FROM (' || query || ') x' INTO count;
    RETURN count || ' rows';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
    RETURN regexp_replace(regexp_replace(SQLSTATE || ': ' || SQLERRM || E'\n' || hint, '\d{4}-\d\d-\d\dT[0-9:.+]+', 'TIME', 'g'), '[0-9a-f]{8}-[0-9a-f-]{27}', 'UUID', 'g');
END $$;
CREATE TABLE never (id int PRIMARY KEY);
SELECT said('SELECT * FROM audit_as_of(NULL::never, now())');
SELECT said('SELECT * FROM audit_as_of(NULL::a, ''2000-01-01''::timestamptz)');
SELECT said('SELECT * FROM audit_as_of(NULL::a, ''2000-01-01'')');
SELECT said('SELECT * FROM audit_as_of(NULL::a, ''never'')');
SELECT said('SELECT * FROM audit_as_of(NULL::a, '''')');
SELECT said('SELECT * FROM audit_as_of(NULL::a, 0)');
SELECT said('SELECT * FROM audit_as_of(NULL::a, -1)');
SELECT said('SELECT * FROM audit_as_of(NULL::a, 5::bigint)');
SELECT said('SELECT * FROM audit_as_of(NULL::a, 99999999999999)');
SELECT said('SELECT * FROM audit_as_of(NULL::a, NULL::bigint)');
SELECT said('SELECT * FROM audit_as_of(NULL::a, NULL::timestamptz)');
SELECT said('SELECT * FROM audit_as_of(NULL::a, NULL::text)');
SELECT said('SELECT * FROM audit_as_of(NULL::a, now(), NULL)');
SELECT said('SELECT * FROM audit_as_of(NULL::a, NULL)');
SELECT said('SELECT * FROM audit_as_of(NULL, now())');
SELECT said('SELECT * FROM audit_as_of(1, now())');
SELECT said('SELECT * FROM audit_as_of(''a''::regclass, now())');
CREATE VIEW aview AS SELECT * FROM a;
SELECT said('SELECT * FROM audit_as_of(NULL::aview, now())');
CREATE TYPE comp AS (id int);
SELECT said('SELECT * FROM audit_as_of(NULL::comp, now())');
CREATE DOMAIN adom AS a;
SELECT said('SELECT * FROM audit_as_of(NULL::adom, now())');
CREATE MATERIALIZED VIEW amat AS SELECT * FROM a;
SELECT said('SELECT * FROM audit_as_of(NULL::amat, now())');
SELECT said('SELECT * FROM audit_as_of(NULL::pg_class, now())');
SELECT said('SELECT * FROM audit_as_of(NULL::audit_log, now())');
SELECT said('SELECT * FROM audit_as_of(NULL::a[], now())');
SELECT * FROM audit_as_of((SELECT a FROM a), now());
SELECT audit_as_of(NULL::a, now());
SELECT (audit_as_of(NULL::a, now())).*;
SELECT said('SELECT * FROM audit_as_of(NULL::a, split_part(audit_checkpoint(), ''zzz'', 1))');
SELECT said('SELECT * FROM audit_as_of(NULL::a, replace(audit_checkpoint(), E''\n'', E''x\n''))');
SELECT said('SELECT operation FROM audit_history(''nope'')');
SELECT said('SELECT operation FROM audit_history(''no.pe.x.y'')');
SELECT said('SELECT operation FROM audit_history('''')');
SELECT said('SELECT operation FROM audit_history(NULL::text)');
SELECT said('SELECT operation FROM audit_history(NULL::regclass)');
SELECT said('SELECT operation FROM audit_history(0::regclass)');
SELECT said('SELECT operation FROM audit_history(99999::regclass)');
SELECT said('SELECT operation FROM audit_history(''a'', ''{}'')');
SELECT said('SELECT operation FROM audit_history(''a'', ''[]'')');
SELECT said('SELECT operation FROM audit_history(''a'', ''1'')');
SELECT said('SELECT operation FROM audit_history(''a'', ''null'')');
SELECT said('SELECT operation FROM audit_history(''a'', ''{"id": null}'')');
SELECT said('SELECT operation FROM audit_history(''a'', ''{"id": "x"}'')');
SELECT said('SELECT operation FROM audit_history(''a'', ''{"id": {"a": 1}}'')');
SELECT said('SELECT operation FROM audit_history(''a'', ''{"v": "x"}'')');
SELECT said('SELECT operation FROM audit_history(''a'', ''{"nope": "x"}'')');
SELECT said('SELECT operation FROM audit_history(''a'', ''{"id": 1, "v": "x"}'')');
SELECT said('SELECT operation FROM audit_history(''a'', ''{"id": 7}'')');
SELECT said('SELECT operation FROM audit_history(''a'', ''{"id": 1}'', ''infinity'')');
SELECT operation FROM audit_history('a', '{"id": 1}', '-infinity', 'infinity');
SELECT said('SELECT * FROM audit_diff(NULL::a, NULL, now())');
SELECT said('SELECT * FROM audit_diff(NULL::a, 3, NULL)');
SELECT said('SELECT * FROM audit_as_of(NULL::a, ''infinity''::timestamptz)');
SELECT said('SELECT * FROM audit_as_of(NULL::a, ''-infinity''::timestamptz, false)');
SELECT said('SELECT * FROM audit_as_of(NULL::a, ''infinity'', false)');
-- A table that was dropped; odd names; transactions of any kind.
DROP VIEW aview; DROP DOMAIN adom; DROP MATERIALIZED VIEW amat;
DROP TABLE a;
SELECT operation, changed FROM audit_history('a');
SELECT operation, changed FROM audit_history('a', '{"id": 1}');
CREATE TABLE "A.b ""c""" ("Id.x" int PRIMARY KEY, "order" text);
SELECT audit_enable('"A.b ""c"""');
INSERT INTO "A.b ""c""" VALUES (1, 'q');
SELECT operation, changed FROM audit_history('"A.b ""c"""', '{"Id.x": 1}');
SELECT operation, new_row FROM audit_history(NULL::"A.b ""c""", '{"Id.x": 1}');
SELECT * FROM audit_as_of(NULL::"A.b ""c""", now());
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
SELECT * FROM audit_as_of(NULL::"A.b ""c""", now());
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT * FROM audit_as_of(NULL::"A.b ""c""", now());
INSERT INTO "A.b ""c""" VALUES (2, 'q');
SELECT * FROM audit_as_of(NULL::"A.b ""c""", now());
SELECT operation, new_row FROM audit_history(NULL::"A.b ""c""", '{"Id.x": 2}');
COMMIT;
DROP OWNED BY regress_reader;
DROP ROLE regress_reader;
SET client_min_messages = warning;
DROP SCHEMA IF EXISTS copies CASCADE;
RESET client_min_messages;
CREATE SCHEMA copies;
CREATE TABLE kept (t oid, label text, copy text, size bigint, PRIMARY KEY (t, label));
-- Makes a checkpoint and a copy of a table, whose columns are named by their numbers.
CREATE FUNCTION keep(t regclass, label text) RETURNS void LANGUAGE plpgsql SET client_min_messages = warning AS $$
DECLARE
    size bigint := split_part(audit_checkpoint(), E'\n', 2);
    copy text := format('copies.%I', t::oid || label);
BEGIN
    EXECUTE format('CREATE TABLE %s AS SELECT %s FROM %s', copy,
        (SELECT string_agg(format('%I AS c%s', attname, attnum), ', ') FROM pg_attribute
         WHERE attrelid = t AND attnum > 0 AND NOT attisdropped), t);
    INSERT INTO kept VALUES (t, label, copy, size);
END $$;
-- The rows that a copy and the state as of its checkpoint do not share.
CREATE FUNCTION differ(of regclass) RETURNS TABLE (label text, side text, r text) LANGUAGE plpgsql AS $$
DECLARE
    copy text;
    size bigint;
BEGIN
    FOR label, copy, size IN SELECT kept.label, kept.copy, kept.size FROM kept WHERE kept.t = of ORDER BY kept.size, kept.label LOOP
        RETURN QUERY EXECUTE (SELECT format('WITH was AS (SELECT ROW(%s)::text r FROM %s), log AS (SELECT ROW(%s)::text r FROM audit_as_of(NULL::%s, %s))
                (SELECT %6$L, ''missing'', r FROM (SELECT r FROM was EXCEPT ALL SELECT r FROM log) x) UNION ALL
                       (SELECT %6$L, ''surplus'', r FROM (SELECT r FROM log EXCEPT ALL SELECT r FROM was) x)',
                string_agg(coalesce(c.attname, 'NULL'), ', ' ORDER BY n.attnum), copy,
                string_agg(format('%I', n.attname), ', ' ORDER BY n.attnum), of, size, label)
            FROM pg_attribute n LEFT JOIN pg_attribute c ON c.attrelid = copy::regclass AND c.attname = 'c' || n.attnum
            WHERE n.attrelid = of AND n.attnum > 0 AND NOT n.attisdropped);
    END LOOP;
END $$;
-- Values that were not recorded are null, and told. A document that looks like what stands for them is one.
CREATE TABLE o (id int PRIMARY KEY, secret text, hidden text, doc json, docb jsonb, big text);
ALTER TABLE o ALTER big SET STORAGE EXTERNAL;
SELECT audit_enable('o', exclude_columns => '{hidden}', mask_columns => '{secret}');
INSERT INTO o VALUES (1, 's', 'h', '{"masked":true}', '{"masked":true}', 'b'), (2, NULL, NULL, '{"bytes":"\\x41"}', '{"bytes":"\\x41"}', NULL);
INSERT INTO o VALUES (3, 's', 'h', '{"sha256":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","length":5}', '{"sha256":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","length":5}', 'b');
SET audit_chain.max_value_size = '1kB';
INSERT INTO o VALUES (4, 's', 'h', NULL, NULL, repeat('x', 1100));
UPDATE o SET docb = '1' WHERE id = 4;
RESET audit_chain.max_value_size;
SELECT keep('o', '1');
SELECT * FROM audit_as_of(NULL::o, now());
SELECT audit_enable('o', mask_columns => '{hidden}');
UPDATE o SET secret = 's2', hidden = 'h2' WHERE id = 1;
SELECT * FROM audit_as_of(NULL::o, now());
SELECT operation, old_row, new_row FROM audit_history(NULL::o, '{"id": 1}');
-- Erased entries. How many, and of when, is told.
CREATE TABLE er (id int PRIMARY KEY, v text, w text);
SELECT audit_enable('er');
INSERT INTO er SELECT g, 'v' || g, 'w' || g FROM generate_series(1, 5) g;
UPDATE er SET v = v || '+';
SELECT keep('er', '1');

SET client_min_messages = warning;
SELECT e.state, e.entries FROM audit_erase('er', '{"id": 1}', 'by law', dry_run => false) e;

SELECT e.state, e.entries FROM audit_log l, LATERAL audit_erase_entry(l.chain, l.seq, 'payload', 'by law', dry_run => false) e  WHERE l.table_name = 'er' AND l.operation = 'UPDATE' AND row_key->>'id' = '2';
SELECT * FROM audit_as_of(NULL::er, now());
SELECT operation, row_key, old_row, new_row FROM audit_history(NULL::er);
SELECT operation, row_key, changed FROM audit_history('er', '{"id": 1}');
SELECT operation, row_key, changed FROM audit_history('er', '{"id": 2}');
SELECT keep('er', '2');
SELECT * FROM audit_diff(NULL::er, (SELECT size FROM kept WHERE t = 'er'::regclass AND label = '1'), (SELECT size FROM kept WHERE t = 'er'::regclass AND label = '2'));
-- Without a baseline, rows appear with their first change. Disabled, and enabled again.
CREATE TABLE nb (id int PRIMARY KEY, v text);
INSERT INTO nb VALUES (1, 'a'), (2, 'b'), (3, 'c'), (4, 'd');
SELECT audit_enable('nb');
SELECT keep('nb', '1');
UPDATE nb SET v = 'new' WHERE id = 1;
DELETE FROM nb WHERE id = 2;
UPDATE nb SET id = 10 WHERE id = 3;
SELECT keep('nb', '2');
SELECT * FROM differ('nb') ORDER BY 1, 3, 2;
SELECT audit_disable('nb', 'why');
INSERT INTO nb VALUES (5, 'unseen');
UPDATE nb SET v = 'unseen' WHERE id = 1;
SELECT keep('nb', '3');
SELECT audit_enable('nb', baseline => true);
UPDATE nb SET v = 'seen' WHERE id = 1;
SELECT keep('nb', '4');
SELECT * FROM differ('nb') ORDER BY 1, 3, 2;
TRUNCATE nb;
INSERT INTO nb VALUES (1, 'after');
SELECT keep('nb', '5');
BEGIN; INSERT INTO nb VALUES (2, 'x'); TRUNCATE nb; INSERT INTO nb VALUES (2, 'y'); SELECT keep('nb', '6'); SAVEPOINT a; TRUNCATE nb; ROLLBACK TO a; INSERT INTO nb VALUES (3, 'y'); COMMIT;
SELECT keep('nb', '7');
SELECT * FROM differ('nb') WHERE label > '3' ORDER BY 1, 3, 2;
RESET client_min_messages;
-- Without a key, rows are known by their content; so if the key has changed.
CREATE TABLE nk (a int, v text);
SELECT audit_enable('nk');
INSERT INTO nk VALUES (1, 'a'), (1, 'a'), (2, 'b');
SELECT keep('nk', '1');
ALTER TABLE nk ADD id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY;
SELECT keep('nk', '2');
UPDATE nk SET v = 'changed' WHERE id = 1;
SELECT keep('nk', '3');
ALTER TABLE nk DROP CONSTRAINT nk_pkey;
UPDATE nk SET v = 'changed2' WHERE id = 2;
SELECT keep('nk', '4');
SELECT * FROM differ('nk') ORDER BY 1, 3, 2;
SELECT operation, row_key, old_row, new_row FROM audit_history(NULL::nk, '{"a": 1}');
-- Disabled, and enabled again: a baseline, or that the table is empty, ends what was known before. In the last state both were not so.
SET client_min_messages = warning;
CREATE TABLE again (id int PRIMARY KEY, v text);
CREATE TABLE again_no_key (v text);
SELECT audit_enable('again'), audit_enable('again_no_key');
INSERT INTO again VALUES (1, 'a'), (2, 'b'), (3, 'c'), (4, 'd');
INSERT INTO again_no_key VALUES ('a'), ('a'), ('b'), ('c');
SELECT keep('again', '1'), keep('again_no_key', '1');
SELECT audit_disable('again', 'why'), audit_disable('again_no_key', 'why');
DELETE FROM again WHERE id = 2; DELETE FROM again_no_key WHERE v = 'b';
SELECT audit_enable('again', baseline => true), audit_enable('again_no_key', baseline => true);
SELECT keep('again', '2'), keep('again_no_key', '2');
SELECT audit_enable('again', mask_columns => '{v}', baseline => true), audit_enable('again_no_key', mask_columns => '{v}', baseline => true);
SELECT audit_enable('again', mask_columns => '{}', baseline => true), audit_enable('again_no_key', baseline => true);
SELECT keep('again', '3'), keep('again_no_key', '3');
SELECT audit_disable('again', 'why'), audit_disable('again_no_key', 'why');
DELETE FROM again; DELETE FROM again_no_key;
SELECT audit_enable('again'), audit_enable('again_no_key');
SELECT keep('again', '4'), keep('again_no_key', '4');
INSERT INTO again VALUES (1, 'a2'); INSERT INTO again_no_key VALUES ('a2');
SELECT keep('again', '5'), keep('again_no_key', '5');
SELECT audit_disable('again', 'why'), audit_disable('again_no_key', 'why');
DELETE FROM again; DELETE FROM again_no_key; INSERT INTO again VALUES (8, 'x'); INSERT INTO again_no_key VALUES ('x');
SELECT audit_enable('again'), audit_enable('again_no_key');
INSERT INTO again VALUES (1, 'a2'); INSERT INTO again_no_key VALUES ('a2');
SELECT keep('again', '6'), keep('again_no_key', '6');
SELECT * FROM differ('again') ORDER BY 1, 3, 2;
SELECT * FROM differ('again_no_key') ORDER BY 1, 3, 2;
RESET client_min_messages;
-- A row that has had many keys, one of them twice: all that it went through, under each of them.
CREATE TABLE wanders (id int PRIMARY KEY, v text);
SELECT audit_enable('wanders');
INSERT INTO wanders VALUES (1, 'a'), (10, 'other');
UPDATE wanders SET v = 'b' WHERE id = 1;
UPDATE wanders SET id = 2 WHERE id = 1;
UPDATE wanders SET v = 'c' WHERE id = 2;
UPDATE wanders SET id = 3 WHERE id = 2;
UPDATE wanders SET v = 'd' WHERE id = 3;
UPDATE wanders SET id = 4 WHERE id = 3;
UPDATE wanders SET v = 'e' WHERE id = 4;
SELECT operation, row_key, changed FROM audit_history('wanders', '{"id": 4}');
SELECT operation, old_row, new_row FROM audit_history(NULL::wanders, '{"id": 3}');
UPDATE wanders SET id = 1 WHERE id = 4;
UPDATE wanders SET id = 2, v = 'f' WHERE id = 1;
UPDATE wanders SET id = 1 WHERE id = 2;
UPDATE wanders SET id = 4 WHERE id = 10;
SELECT operation, row_key, changed FROM audit_history('wanders', '{"id": 1}');
SELECT count(*) AS of_the_other FROM audit_history('wanders', '{"id": 4}') WHERE changed::text ~ 'other|10';
-- A key that is in the log with another text.
CREATE TABLE scales (id numeric, f float8, v int, PRIMARY KEY (id, f));
SELECT audit_enable('scales');
INSERT INTO scales VALUES (1.0, 0, 1), (2, 0, 2);
UPDATE scales SET id = 1.00 WHERE id = 1;
SELECT operation, row_key, changed FROM audit_history('scales', '{"id": 1, "f": "-0"}');
SELECT operation, row_key, changed FROM audit_history('scales', '{"id": 2.000, "f": 0}');
SELECT operation, row_key, changed FROM audit_history('scales', '{"id": 3, "f": 0}');
SET client_min_messages = warning;
DROP SCHEMA copies CASCADE;
