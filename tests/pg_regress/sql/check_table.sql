-- audit_check_table(): a table against the log.
\getenv srcdir PG_ABS_SRCDIR
\set setup :srcdir '/setup.sql'
\i :setup
-- Changes that are not captured: a superuser turns the guard and the triggers off.
CREATE FUNCTION app.unseen(on_table regclass, sql text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    guard name;
    capture name;
BEGIN
    FOR guard IN SELECT evtname FROM pg_event_trigger WHERE evtname LIKE 'audit\_chain\_%' LOOP
        EXECUTE format('ALTER EVENT TRIGGER %I DISABLE', guard);
    END LOOP;
    EXECUTE format('ALTER TABLE %s DISABLE TRIGGER ALL', on_table);
    EXECUTE sql;
    FOR capture IN SELECT tgname FROM pg_trigger WHERE tgrelid = on_table AND tgname LIKE '!audit\_chain\_%' LOOP
        EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', on_table, capture);
    END LOOP;
    FOR guard IN SELECT evtname FROM pg_event_trigger WHERE evtname LIKE 'audit\_chain\_%' LOOP
        EXECUTE format('ALTER EVENT TRIGGER %I ENABLE ALWAYS', guard);
    END LOOP;
END $$;
CREATE VIEW app.entry AS SELECT chain, seq, operation, new_row FROM public.audit_log;
-- The differences of a table; the place is that of the entry.
CREATE FUNCTION app.differences(regclass) RETURNS TABLE (problem text, row_key json, columns text[], in_table json, in_log json, entry text)
LANGUAGE sql AS $$
    SELECT c.problem, c.row_key, c.columns, c.in_table, c.in_log, e.operation || ' ' || e.new_row
    FROM public.audit_check_table($1) c LEFT JOIN app.entry e USING (chain, seq)
    ORDER BY 1, c.row_key::text, c.in_table::text, c.in_log::text
$$;

-- Changed, added, removed.
CREATE TABLE accounts (id int PRIMARY KEY, owner text, balance numeric(12, 2));
SELECT audit_enable('accounts');
INSERT INTO accounts VALUES (1, 'Ada', 100), (2, 'Bob', 5), (3, 'Cy', 7), (4, 'Di', 0);
UPDATE accounts SET balance = balance + 1 WHERE id = 1;
UPDATE accounts SET id = 30 WHERE id = 3;
DELETE FROM accounts WHERE id = 4;
SELECT * FROM differences('accounts');
SELECT unseen('accounts', 'UPDATE accounts SET balance = 1000000 WHERE id = 1');
SELECT * FROM differences('accounts');
SELECT unseen('accounts', 'UPDATE accounts SET balance = 101 WHERE id = 1');
SELECT * FROM differences('accounts');
SELECT unseen('accounts', 'INSERT INTO accounts VALUES (3, ''Cy'', 7), (4, ''Di'', 0), (5, ''Eve'', 1); DELETE FROM accounts WHERE id = 2');
SELECT * FROM differences('accounts');
SELECT unseen('accounts', 'DELETE FROM accounts WHERE id IN (3, 4, 5); INSERT INTO accounts VALUES (2, ''Bob'', 5.00)');
SELECT * FROM differences('accounts');
SELECT unseen('accounts', 'UPDATE accounts SET id = 31 WHERE id = 30');
SELECT * FROM differences('accounts');
SELECT unseen('accounts', 'UPDATE accounts SET id = 30 WHERE id = 31');
SELECT unseen('accounts', 'UPDATE accounts SET owner = NULL, balance = NULL WHERE id = 30');
SELECT * FROM differences('accounts');
SELECT unseen('accounts', 'UPDATE accounts SET owner = ''Cy'', balance = 7 WHERE id = 30');
SELECT unseen('accounts', 'TRUNCATE accounts');
SELECT * FROM differences('accounts');
-- A new change is an entry: it says how the row is from then on.
INSERT INTO accounts VALUES (1, 'Ada', 101);
SELECT * FROM differences('accounts');
TRUNCATE accounts;
SELECT * FROM differences('accounts');
DROP TABLE accounts;

-- What this transaction has done, in savepoints too.
CREATE TABLE t (id int PRIMARY KEY, v text);
SELECT audit_enable('t');
BEGIN;
INSERT INTO t SELECT g, 'v' FROM generate_series(1, 5) g;
SELECT * FROM differences('t');
SAVEPOINT a;
UPDATE t SET v = 'a' WHERE id = 1;
SELECT * FROM differences('t');
SAVEPOINT b;
SELECT * FROM differences('t');
DELETE FROM t WHERE id = 2;
UPDATE t SET id = 10 WHERE id = 3;
SELECT * FROM differences('t');
ROLLBACK TO b;
SELECT * FROM differences('t');
RELEASE a;
DO $$ BEGIN
    PERFORM FROM differences('t');
    UPDATE t SET v = 'do';
    PERFORM FROM differences('t');
EXCEPTION WHEN division_by_zero THEN NULL;
END $$;
SELECT * FROM differences('t');
TRUNCATE t;
SELECT * FROM differences('t');
INSERT INTO t VALUES (1, 'again');
SELECT * FROM differences('t');
ROLLBACK;
SELECT * FROM differences('t');
BEGIN ISOLATION LEVEL REPEATABLE READ;
INSERT INTO t VALUES (1, 'a'), (2, 'b');
UPDATE t SET v = 'c' WHERE id = 2;
SELECT * FROM differences('t');
SAVEPOINT s;
TRUNCATE t;
SELECT * FROM differences('t');
ROLLBACK TO s;
SELECT * FROM differences('t');
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY;
SELECT * FROM differences('t');
COMMIT;
-- Not while a statement changes the table: its entries are not all there.
CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM FROM audit_check_table('app.t'); RETURN NULL; END $$;
CREATE TRIGGER look AFTER UPDATE ON t FOR EACH ROW EXECUTE FUNCTION look();
UPDATE t SET v = 'd';
DROP TRIGGER look ON t;
DROP FUNCTION look();
DROP TABLE t;

-- A row left its key, and was changed, or deleted, by a trigger under its new one: that is recorded first.
CREATE TABLE moved (id int PRIMARY KEY, n int);
SELECT audit_enable('moved');
CREATE FUNCTION act() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF NEW.n = 1 THEN DELETE FROM moved WHERE id = NEW.id + 1; ELSIF NEW.n = 2 THEN UPDATE moved SET n = 3 WHERE id = NEW.id + 1; END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER act AFTER UPDATE OF id ON moved FOR EACH ROW EXECUTE FUNCTION act();
INSERT INTO moved VALUES (1, 1), (2, 0), (11, 2), (12, 0);
UPDATE moved SET id = id + 100;
SELECT * FROM differences('moved');
SELECT id, n FROM audit_as_of(NULL::moved, 'infinity') ORDER BY 1;
DROP TABLE moved;
DROP FUNCTION act();

-- A key of several columns, key-less tables, partitions with rows that move, inheritance.
CREATE TABLE pair (a text, b numeric, v text, PRIMARY KEY (b, a));
CREATE TABLE plain (a int, b text);
CREATE TABLE part (id int, region text, v text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE part_n PARTITION OF part FOR VALUES IN ('n');
CREATE TABLE part_s PARTITION OF part FOR VALUES IN ('s') PARTITION BY RANGE (id);
CREATE TABLE part_s_1 PARTITION OF part_s FOR VALUES FROM (0) TO (10);
CREATE TABLE parent (id int PRIMARY KEY, v text);
CREATE TABLE child (extra int, PRIMARY KEY (id)) INHERITS (parent);
SELECT audit_enable('pair'), audit_enable('plain'), audit_enable('part'), audit_enable('parent');
INSERT INTO pair VALUES ('x', 1.0, 'a'), ('x', 2, 'b'), ('y"z', 1, 'c');
INSERT INTO plain VALUES (1, 'a'), (1, 'a'), (2, 'b'), (NULL, NULL);
INSERT INTO part VALUES (1, 'n', 'a'), (2, 's', 'b'), (3, 's', 'c');
UPDATE part SET region = 's' WHERE id = 1;
UPDATE pair SET b = 1.00 WHERE a = 'x' AND b = 1;
UPDATE plain SET b = 'c' WHERE a = 1;
INSERT INTO parent VALUES (1, 'p');
INSERT INTO child VALUES (1, 'c', 2);
SELECT * FROM differences('pair');
SELECT * FROM differences('plain');
SELECT * FROM differences('part');
SELECT * FROM differences('part_s');
SELECT * FROM differences('parent');
SELECT unseen('pair', 'UPDATE pair SET v = ''!'' WHERE a = ''y"z''');
SELECT unseen('plain', 'DELETE FROM plain WHERE ctid = (SELECT min(ctid) FROM plain WHERE a = 1); UPDATE plain SET b = ''?'' WHERE a = 2');
SELECT unseen('part_s_1', 'UPDATE part_s_1 SET v = ''!'' WHERE id = 1; DELETE FROM part_s_1 WHERE id = 2');
SELECT unseen('child', 'UPDATE child SET extra = 3');
SELECT * FROM differences('pair');
SELECT * FROM differences('plain');
SELECT * FROM differences('part');
SELECT * FROM differences('part_s');
SELECT * FROM differences('part_n');
SELECT * FROM differences('parent');
DROP TABLE pair, plain, part, child, parent;

-- Options: what is not recorded is not compared.
CREATE TABLE secret (id int PRIMARY KEY, name text, password text, note text);
SELECT audit_enable('secret', exclude_columns => '{note}', mask_columns => '{password}');
INSERT INTO secret VALUES (1, 'a', 'p', 'n'), (2, 'b', 'q', 'm');
SELECT * FROM differences('secret');
SELECT unseen('secret', 'UPDATE secret SET password = ''!'', note = ''!'' WHERE id = 1; UPDATE secret SET name = ''!'' WHERE id = 2');
SELECT * FROM differences('secret');
UPDATE secret SET name = 'b' WHERE id = 2;
SELECT audit_enable('secret', mask_columns => '{name}');
SELECT * FROM differences('secret');
UPDATE secret SET note = 'new' WHERE id = 1;
SELECT audit_enable('secret');
SELECT * FROM differences('secret');
SELECT audit_enable('secret', skip_unchanged => true);
UPDATE secret SET name = name;
SELECT * FROM differences('secret');
DROP TABLE secret;
-- A document that looks like what stands for a value is no mask.
CREATE TABLE document (id int PRIMARY KEY, j json);
SELECT audit_enable('document');
INSERT INTO document VALUES (1, '{"price":5}'), (2, '{"masked":true}');
SELECT unseen('document', $$UPDATE document SET j = CASE id WHEN 1 THEN '{"masked":true}' ELSE '{"price":1}' END::json$$);
SELECT * FROM differences('document');
SELECT unseen('document', format('UPDATE document SET j = %L WHERE id = 1',
    json_build_object('sha256', encode(sha256('{"price":5}'), 'hex'), 'length', 11)::text));
SELECT problem, row_key, columns FROM differences('document');
DROP TABLE document;

-- Large values: the digest is compared.
CREATE TABLE large (id int PRIMARY KEY, v text, b bytea, j json, n int);
ALTER TABLE large ALTER v SET STORAGE EXTERNAL, ALTER b SET STORAGE EXTERNAL;
SELECT audit_enable('large');
SET audit_chain.max_value_size = '1kB';
INSERT INTO large VALUES (1, repeat('ü', 2000), decode(repeat('ab', 2000), 'hex'), to_json(repeat('x', 3000)), 0);
SET audit_chain.max_value_size = '1MB';
INSERT INTO large VALUES (2, repeat('ü', 2000), decode(repeat('ab', 2000), 'hex'), to_json(repeat('x', 3000)), 0);
-- The entry lacks the values that are out of line.
UPDATE large SET n = 1;
SELECT problem, row_key, columns FROM differences('large');
SET audit_chain.max_value_size = '1kB';
SELECT problem, row_key, columns FROM differences('large');
UPDATE large SET n = 2;
RESET audit_chain.max_value_size;
SELECT problem, row_key, columns FROM differences('large');
SELECT unseen('large', $$UPDATE large SET v = overlay(v PLACING 'u' FROM 1000), b = set_byte(b, 1000, 0)$$);
SELECT problem, row_key, columns FROM differences('large');
SET audit_chain.max_value_size = '1kB';
SELECT problem, row_key, columns FROM differences('large');
RESET audit_chain.max_value_size;
DROP TABLE large;

-- Columns that came, went, were renamed, or got another type.
CREATE TABLE altered (id int PRIMARY KEY, a int, b text, c text, d varchar(10));
SELECT audit_enable('altered');
INSERT INTO altered VALUES (1, 1, 'b1', 'c1', 'd1'), (2, 2, 'b2', '3', 'd2');
ALTER TABLE altered DROP COLUMN b;
ALTER TABLE altered RENAME COLUMN c TO b;
ALTER TABLE altered ADD COLUMN e int DEFAULT 7, ADD COLUMN f text;
SELECT problem, row_key, columns, in_log FROM differences('altered');
SELECT unseen('altered', 'UPDATE altered SET e = 8, f = ''x'' WHERE id = 1');
SELECT problem, row_key, columns, in_log FROM differences('altered');
SELECT unseen('altered', 'UPDATE altered SET e = 7, f = NULL WHERE id = 1');
ALTER TABLE altered ADD COLUMN g timestamptz DEFAULT clock_timestamp(),
    ADD COLUMN h int GENERATED ALWAYS AS (id * 2) STORED;
SELECT problem, row_key, columns, in_log FROM differences('altered');
ALTER TABLE altered ALTER d TYPE text, ALTER a TYPE bigint;
SELECT problem, row_key, columns, in_log FROM differences('altered');
ALTER TABLE altered ALTER a TYPE numeric(10, 1), ALTER d TYPE char(5);
SELECT problem, row_key, columns, in_log FROM differences('altered');
ALTER TABLE altered ALTER b TYPE int USING length(b);
SELECT problem, row_key, columns, in_log FROM differences('altered');
SELECT unseen('altered', 'UPDATE altered SET d = ''x'' WHERE id = 2');
SELECT problem, row_key, columns, in_log FROM differences('altered');
SELECT unseen('altered', 'UPDATE altered SET d = ''d2'' WHERE id = 2');
ALTER TABLE altered RENAME TO changed;
ALTER TABLE changed SET SCHEMA public;
SELECT problem, row_key, columns, in_log FROM differences('public.changed');
UPDATE public.changed SET e = 1;
SELECT problem, row_key, columns, in_log FROM differences('public.changed');
-- The key's type, name and columns.
ALTER TABLE public.changed RENAME COLUMN id TO number;
SELECT problem, row_key, columns, in_log FROM differences('public.changed');
ALTER TABLE public.changed DROP COLUMN h;
ALTER TABLE public.changed ALTER number TYPE numeric(5, 1);
SELECT problem, row_key, columns, in_log FROM differences('public.changed');
UPDATE public.changed SET e = 2;
ALTER TABLE public.changed DROP CONSTRAINT altered_pkey, ADD PRIMARY KEY (e, number);
SELECT problem, row_key, columns, in_log FROM differences('public.changed');
INSERT INTO public.changed (number, e) VALUES (5, 5);
SELECT problem, row_key, columns, in_log FROM differences('public.changed');
DROP TABLE public.changed;
-- An enum's label was renamed.
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE TABLE moods (id int PRIMARY KEY, m mood, r regclass);
SELECT audit_enable('moods');
CREATE TABLE named ();
INSERT INTO moods VALUES (1, 'sad', 'named'), (2, 'ok', 'moods');
ALTER TYPE mood RENAME VALUE 'sad' TO 'unhappy';
ALTER TABLE named RENAME TO other;
SELECT problem, row_key, columns, in_log FROM differences('moods');
SELECT unseen('moods', 'UPDATE moods SET m = ''unhappy'' WHERE id = 2');
SELECT problem, row_key, columns, in_log FROM differences('moods');
DROP TABLE moods, other;
-- Rows that only an out-of-line value tells apart, without a key, or with one that is not recorded as a whole.
CREATE TABLE jobs (state text, payload text);
CREATE TABLE masked_jobs (id int, state text, payload text);
ALTER TABLE jobs ALTER payload SET STORAGE EXTERNAL;
ALTER TABLE masked_jobs ALTER payload SET STORAGE EXTERNAL;
SELECT audit_enable('jobs'), audit_enable('masked_jobs', mask_columns => '{id}');
ALTER TABLE masked_jobs ADD PRIMARY KEY (id);
INSERT INTO jobs VALUES ('new', repeat('a', 3000)), ('new', repeat('b', 3000));
INSERT INTO masked_jobs SELECT ascii(payload), * FROM jobs;
UPDATE jobs SET state = 'done' WHERE payload LIKE 'b%';
UPDATE masked_jobs SET state = 'done' WHERE payload LIKE 'b%';
SELECT problem, in_log FROM audit_check_table('jobs') UNION ALL SELECT problem, in_log FROM audit_check_table('masked_jobs');
SELECT state, left(payload, 1) AS payload FROM audit_as_of(NULL::jobs, now()) ORDER BY 1;
SELECT state, left(payload, 1) AS payload FROM audit_as_of(NULL::masked_jobs, now()) ORDER BY 1;
DROP TABLE jobs, masked_jobs;
-- The same for rows that are known by their content.
CREATE TABLE rows (a int, b text, secret text);
SELECT audit_enable('rows');
INSERT INTO rows VALUES (1, 'x', 's'), (2, 'y', 't');
ALTER TABLE rows ADD COLUMN c int DEFAULT 3, ADD COLUMN d float8 DEFAULT random();
ALTER TABLE rows RENAME COLUMN b TO bb;
SELECT problem, in_table::jsonb - 'd' AS in_table, in_log FROM audit_check_table('rows');
ALTER TABLE rows ALTER a TYPE numeric(5, 1);
SELECT audit_enable('rows', mask_columns => '{secret}');
SELECT problem, in_table::jsonb - 'd' AS in_table, in_log FROM audit_check_table('rows');
SELECT unseen('rows', 'UPDATE rows SET bb = ''z'' WHERE bb = ''y''');
SELECT problem, in_table::jsonb - 'd' AS in_table, in_log FROM audit_check_table('rows');
DROP TABLE rows;

-- Rows that the log cannot know of.
CREATE TABLE old (id int PRIMARY KEY, v text);
INSERT INTO old VALUES (1, 'a'), (2, 'b'), (3, 'c');
SELECT audit_enable('old');
UPDATE old SET v = 'B' WHERE id = 2;
DELETE FROM old WHERE id = 3;
SELECT * FROM differences('old');
SELECT unseen('old', 'INSERT INTO old VALUES (3, ''c''), (4, ''d''); UPDATE old SET v = ''!'' WHERE id = 2');
SELECT problem, row_key, columns, in_log FROM differences('old');
SELECT unseen('old', 'DELETE FROM old WHERE id = 3; UPDATE old SET v = ''B'' WHERE id = 2');
-- Auditing was interrupted.
SELECT audit_disable('old', 'a pause');
SELECT * FROM differences('old');
UPDATE old SET v = 'unseen' WHERE id = 2;
DELETE FROM old WHERE id = 1;
INSERT INTO old VALUES (3, 'unseen');
SELECT audit_enable('old');
SELECT * FROM differences('old');
SELECT audit_disable('old', 'a pause');
UPDATE old SET v = 'unseen again' WHERE id = 2;
SELECT audit_enable('old', baseline => true);
SELECT * FROM differences('old');
SELECT unseen('old', 'UPDATE old SET v = ''!'' WHERE id = 2; INSERT INTO old VALUES (5, ''e''); DELETE FROM old WHERE id = 3');
SELECT problem, row_key, columns, in_log FROM differences('old');
-- Attached with its rows.
CREATE TABLE whole (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
SELECT audit_enable('whole');
CREATE TABLE piece (id int PRIMARY KEY, v text);
INSERT INTO piece VALUES (1, 'a'), (2, 'b');
ALTER TABLE whole ATTACH PARTITION piece FOR VALUES FROM (0) TO (10);
UPDATE whole SET v = 'c' WHERE id = 2;
SELECT * FROM differences('whole');
SELECT unseen('piece', 'UPDATE piece SET v = ''!''');
SELECT problem, row_key, columns, in_log FROM differences('whole');
DROP TABLE old, whole;
-- Erased entries.
CREATE TABLE person (id int PRIMARY KEY, v text);
SELECT audit_enable('person');
INSERT INTO person VALUES (1, 'a'), (2, 'b');
UPDATE person SET v = 'c';
-- The notices have times.
SET client_min_messages = warning;
SELECT state FROM audit_erase('person', '{"id": 1}', 'asked for it', dry_run => false);
SELECT * FROM differences('person');
SELECT unseen('person', 'UPDATE person SET v = ''!''');
SELECT problem, row_key, columns, in_log FROM differences('person');
RESET client_min_messages;
DROP TABLE person;

-- Every type.
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TYPE inner_pair AS (n numeric, t text);
CREATE TABLE types (id int PRIMARY KEY, f float8, r real, n numeric, m money, ts timestamptz, i interval, bits bit(3), e mood, p positive,
    c inner_pair, a int[], tr tstzrange, x pg_lsn, u uuid, net inet, ch char(4), jb jsonb, rc regclass, o oid, by bytea, tv tsvector, arr mood[]);
SELECT audit_enable('types');
SET DateStyle = 'German';
SET IntervalStyle = 'iso_8601';
SET extra_float_digits = 0;
SET bytea_output = 'escape';
INSERT INTO types VALUES (1, 0.1::float8 + 0.2::float8, 0.1, 1.10, 5, '2026-02-03 04:05:06.789+00', '1 day 2 hours', '101', 'ok', 1, '(1.0,"a b")', '{1,NULL}',
    '[2026-01-01,2026-02-01)', '16/B374D848', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '10.0.0.1/8', 'ab', '{"b": 1, "a": 1.0}', 'types', 7, '\x00ff', 'a:1', '{ok}');
INSERT INTO types VALUES (2);
SET DateStyle = 'ISO, MDY';
SET TimeZone = 'Asia/Tokyo';
RESET IntervalStyle;
RESET extra_float_digits;
RESET bytea_output;
SET search_path = pg_catalog;
SELECT * FROM app.differences('app.types');
SET search_path = app, public;
RESET TimeZone;
SELECT unseen('types', 'UPDATE types SET n = 1.1, a = ''{1}'', f = 0.3 WHERE id = 1');
SELECT problem, row_key, columns FROM differences('types');

-- Who may: who may read the log and the table, whose rows no policy hides.
CREATE VIEW a_view AS SELECT 1;
CREATE TABLE never (id int PRIMARY KEY);
CREATE TABLE mine (id int PRIMARY KEY, v text);
SELECT audit_enable('mine');
INSERT INTO mine VALUES (1, 'a');
SELECT * FROM audit_check_table('a_view');
SELECT * FROM audit_check_table('never');
SELECT * FROM audit_check_table(NULL);
SELECT * FROM audit_check_table(0);
SELECT * FROM audit_check_table('mine_pkey'::regclass);
SET client_min_messages = warning;
CREATE ROLE regress_checker;
GRANT USAGE ON SCHEMA app TO regress_checker;
SET ROLE regress_checker;
SELECT * FROM audit_check_table('mine');
RESET ROLE;
GRANT SELECT ON audit_log TO regress_checker;
SET ROLE regress_checker;
SELECT * FROM audit_check_table('mine');
RESET ROLE;
GRANT SELECT ON mine TO regress_checker;
RESET client_min_messages;
SET ROLE regress_checker;
SELECT * FROM audit_check_table('mine');
RESET ROLE;
ALTER TABLE mine ENABLE ROW LEVEL SECURITY;
SET ROLE regress_checker;
SELECT * FROM audit_check_table('mine');
RESET ROLE;
SET client_min_messages = warning;
DROP OWNED BY regress_checker;
DROP ROLE regress_checker;
