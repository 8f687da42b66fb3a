-- Every kind of table: partitioned, inheriting, unlogged, without a key, wide, oddly named, and altered while audited.
\getenv srcdir PG_ABS_SRCDIR
\set setup :srcdir '/setup.sql'
\i :setup

-- Partitioned, two levels; enabled on the root. A partition's entry names the partition, and its root.
CREATE TABLE sales (region text, day date, amount numeric, PRIMARY KEY (region, day)) PARTITION BY LIST (region);
CREATE TABLE sales_north PARTITION OF sales FOR VALUES IN ('north');
CREATE TABLE sales_south PARTITION OF sales FOR VALUES IN ('south') PARTITION BY RANGE (day);
CREATE TABLE sales_south_old PARTITION OF sales_south FOR VALUES FROM (MINVALUE) TO ('2026-01-01');
SELECT audit_enable('sales');
CREATE VIEW entries AS SELECT seq, operation, table_name, row_key, old_row, new_row, detail ->> 'partition_of' AS root FROM audit_log
    WHERE operation IN ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE');
INSERT INTO sales VALUES ('north', '2026-01-01', 1), ('south', '2025-01-01', 2);
-- Partitions made, attached, detached later.
CREATE TABLE sales_south_new PARTITION OF sales_south FOR VALUES FROM ('2026-01-01') TO (MAXVALUE);
CREATE TABLE sales_east (region text NOT NULL, day date NOT NULL, amount numeric);
ALTER TABLE sales ATTACH PARTITION sales_east FOR VALUES IN ('east');
INSERT INTO sales VALUES ('south', '2026-05-05', 3), ('east', '2026-05-05', 4);
-- A leaf, written directly.
UPDATE sales_south_new SET amount = 33;
INSERT INTO sales_east VALUES ('east', '2026-06-06', 5);
DELETE FROM sales_north;
TRUNCATE sales_east;
-- A row that moves to another partition: PostgreSQL deletes and inserts.
UPDATE sales SET region = 'north' WHERE region = 'south' AND day < '2026-01-01';
SELECT * FROM entries ORDER BY seq;
SELECT max(seq) AS seen FROM audit_log \gset
-- A detached partition stays audited; TRUNCATE of the root is one entry for each table.
ALTER TABLE sales DETACH PARTITION sales_north;
INSERT INTO sales_north VALUES ('north', '2026-07-07', 6);
TRUNCATE sales;
SELECT * FROM entries WHERE seq > :seen ORDER BY operation, table_name;
SELECT audit_enable('sales_south_new');
SELECT audit_disable('sales_south_new', 'a part');
SELECT audit_disable('sales', 'the whole');
SELECT c.relname, count(*) FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid WHERE t.tgname LIKE '!audit%' AND c.relname LIKE 'sales%' GROUP BY 1;
-- A table that was audited before it is attached; its former life stands in the log.
CREATE TABLE sales_west (region text NOT NULL, day date NOT NULL, amount numeric);
SELECT audit_enable('sales_west');
SELECT audit_enable('sales');
ALTER TABLE sales ATTACH PARTITION sales_west FOR VALUES IN ('west');
SELECT max(seq) AS seen FROM audit_log \gset
INSERT INTO sales VALUES ('west', '2026-08-08', 7);
SELECT * FROM entries WHERE seq > :seen;

-- Inheritance: what inherits is audited with its parent, also what comes later, with the columns that it has besides.
CREATE TABLE animals (id int PRIMARY KEY, name text);
CREATE TABLE dogs (breed text) INHERITS (animals);
SELECT audit_enable('animals');
CREATE TABLE cats (lives int) INHERITS (animals);
CREATE TABLE birds (id int NOT NULL, name text);
ALTER TABLE birds INHERIT animals;
SELECT max(seq) AS seen FROM audit_log \gset
INSERT INTO animals VALUES (1, 'any');
INSERT INTO dogs VALUES (2, 'Rex', 'collie');
INSERT INTO cats VALUES (3, 'Tom', 9);
INSERT INTO birds VALUES (4, 'Polly');
UPDATE animals SET name = upper(name) WHERE id > 1;
TRUNCATE ONLY animals;
SELECT operation, table_name, old_row, new_row FROM entries WHERE seq > :seen ORDER BY operation, (new_row ->> 'id')::int;

-- Unlogged; without a key; a composite key, in the key's order; a key that an UPDATE changes; no column at all.
CREATE UNLOGGED TABLE fleeting (id int);
CREATE TABLE keyless (a int, b int);
CREATE TABLE composite (a int, b text, c int, PRIMARY KEY (c, a));
CREATE TABLE included (a int, b text, PRIMARY KEY (a) INCLUDE (b));
CREATE TABLE columnless ();
SELECT audit_enable('fleeting'), audit_enable('keyless'), audit_enable('composite'), audit_enable('included'), audit_enable('columnless');
SELECT max(seq) AS seen FROM audit_log \gset
INSERT INTO fleeting VALUES (1);
INSERT INTO keyless VALUES (1, 2), (1, 2);
UPDATE keyless SET b = 3;
DELETE FROM keyless;
INSERT INTO composite VALUES (1, 'x', 2);
UPDATE composite SET a = 10, b = 'y';
INSERT INTO included VALUES (1, 'x');
INSERT INTO columnless DEFAULT VALUES;
DELETE FROM columnless;
SELECT operation, table_name, row_key, old_row, new_row FROM entries WHERE seq > :seen ORDER BY seq;

-- Odd names: quotes, dots, Unicode, 63 bytes.
CREATE SCHEMA IF NOT EXISTS "odd ""schema"".with.dots";
SET client_min_messages = warning;
DROP TABLE IF EXISTS "odd ""schema"".with.dots"."ünïcode ""täble"" ☃";
RESET client_min_messages;
CREATE TABLE "odd ""schema"".with.dots"."ünïcode ""täble"" ☃" ("id" int PRIMARY KEY, "a ""b"" c" int, "back\slash" int, "SELECT" int, "new
line" int, "😀.😀" int, a12345678901234567890123456789012345678901234567890123456789012 int, "!audit" int);
SELECT audit_enable('"odd ""schema"".with.dots"."ünïcode ""täble"" ☃"', exclude_columns => ARRAY['!audit', 'back\slash'], mask_columns => ARRAY['a "b" c', '😀.😀']);
INSERT INTO "odd ""schema"".with.dots"."ünïcode ""täble"" ☃" VALUES (1, 2, 3, 4, 5, 6, 7, 8);
SELECT table_schema, table_name, new_row FROM audit_log ORDER BY seq DESC LIMIT 1;
SELECT audit_disable('"odd ""schema"".with.dots"."ünïcode ""täble"" ☃"', 'done');
SET client_min_messages = warning;
DROP SCHEMA "odd ""schema"".with.dots" CASCADE;
RESET client_min_messages;

-- 1600 columns.
DO $$ BEGIN EXECUTE (SELECT format('CREATE TABLE wide (%s)', string_agg(format('c%s int', i), ', ' ORDER BY i)) FROM generate_series(1, 1600) i); END $$;
SELECT audit_enable('wide');
INSERT INTO wide (c1, c1600) VALUES (1, 1600);
UPDATE wide SET c800 = 800;
SELECT operation, old_row, (SELECT count(*) FROM json_object_keys(new_row)) AS columns, new_row -> 'c1600' AS last FROM audit_log
WHERE table_name = 'wide' AND operation <> 'ENABLE' ORDER BY seq;

-- A table that changes while it is audited, in one session, whose plans and shapes are cached.
CREATE TABLE changing (id int PRIMARY KEY, a text, b text);
SELECT audit_enable('changing');
SELECT max(seq) AS seen FROM audit_log \gset
PREPARE put AS INSERT INTO changing (id) VALUES ((SELECT coalesce(max(id), 0) + 1 FROM changing));
EXECUTE put;
ALTER TABLE changing ADD c int DEFAULT 7;
EXECUTE put;
ALTER TABLE changing DROP a;
EXECUTE put;
ALTER TABLE changing RENAME b TO bee;
EXECUTE put;
ALTER TABLE changing ALTER c TYPE text USING 'seven';
UPDATE changing SET c = 'eight' WHERE id = 1;
ALTER TABLE changing DROP CONSTRAINT changing_pkey;
EXECUTE put;
ALTER TABLE changing ADD PRIMARY KEY (c, id);
ALTER TABLE changing ALTER c SET DEFAULT 'nine';
EXECUTE put;
ALTER TABLE changing RENAME TO changed;
INSERT INTO changed (id) VALUES (7);
ALTER TABLE changed SET SCHEMA public;
INSERT INTO public.changed (id) VALUES (8);
SELECT table_name, row_key, old_row, new_row FROM entries WHERE seq > :seen ORDER BY seq;
SELECT table_schema, table_name FROM audit_log ORDER BY seq DESC LIMIT 1;
-- In one transaction, with a rollback in the middle.
SELECT max(seq) AS seen FROM audit_log \gset
BEGIN;
SAVEPOINT a;
ALTER TABLE public.changed ADD extra int DEFAULT 1;
INSERT INTO public.changed (id) VALUES (100);
ROLLBACK TO a;
INSERT INTO public.changed (id) VALUES (101);
ALTER TABLE public.changed DROP bee;
INSERT INTO public.changed (id) VALUES (102);
COMMIT;
SELECT row_key, new_row FROM entries WHERE seq > :seen ORDER BY seq;
DROP TABLE public.changed;
-- Rewritten: VACUUM FULL, CLUSTER, ALTER TYPE.
SELECT max(seq) AS seen FROM audit_log \gset
INSERT INTO composite VALUES (1, 'z', 3);
VACUUM FULL composite;
CLUSTER composite USING composite_pkey;
UPDATE composite SET b = 'zz' WHERE c = 3;
SELECT row_key, old_row, new_row FROM entries WHERE seq > :seen ORDER BY seq;
SELECT valid, problems FROM audit_verify();
