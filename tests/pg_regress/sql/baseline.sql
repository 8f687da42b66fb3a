-- baseline => true: the rows that are there already.
\getenv srcdir PG_ABS_SRCDIR
\set setup :srcdir '/setup.sql'
\i :setup

CREATE TABLE t (id int PRIMARY KEY, v text, secret text, gone int);
INSERT INTO t SELECT i, 'row ' || i, 'secret' || i, i FROM generate_series(1, 5) i;
ALTER TABLE t DROP gone;
DELETE FROM t WHERE id = 3;
SELECT audit_enable('t', exclude_columns => '{secret}', baseline => true);
SELECT * FROM news();
-- Enabled already: no second baseline, and it is said.
SELECT audit_enable('t', exclude_columns => '{secret}', baseline => true);
-- Of an empty table; of a large one, with large values.
CREATE TABLE empty (id int);
SELECT audit_enable('empty', baseline => true);
CREATE TABLE large AS SELECT i AS id, repeat(md5(i::text), CASE WHEN i % 1000 = 0 THEN 10000 ELSE 1 END) AS v FROM generate_series(1, 5000) i;
SELECT audit_enable('large', baseline => true);
SELECT count(*), count(DISTINCT new_row ->> 'id') FROM audit_log WHERE table_name = 'large' AND operation = 'BASELINE';
SELECT count(*) FROM large l JOIN audit_log a ON a.table_name = 'large' AND a.operation = 'BASELINE' AND (a.new_row ->> 'id')::int = l.id AND a.new_row ->> 'v' = l.v;
-- Partitions and what inherits, each under its own name.
CREATE TABLE p (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
CREATE TABLE p2 (v text, x int, id int NOT NULL);
ALTER TABLE p2 DROP x;
ALTER TABLE p ATTACH PARTITION p2 FOR VALUES FROM (10) TO (20);
INSERT INTO p VALUES (1, 'a'), (11, 'b');
CREATE TABLE base (id int PRIMARY KEY);
CREATE TABLE derived (more text) INHERITS (base);
INSERT INTO base VALUES (1);
INSERT INTO derived VALUES (2, 'more');
SELECT count(*) FROM news();
SELECT audit_enable('p', baseline => true);
SELECT audit_enable('base', baseline => true);
SELECT * FROM news();
-- Under settings that would change the text; generated columns; row-level security does not hide rows from it.
CREATE TABLE guarded (id int PRIMARY KEY, at timestamptz, twice int GENERATED ALWAYS AS (id * 2) STORED);
INSERT INTO guarded VALUES (1, '2026-02-03 04:05:06+00'), (2, 'infinity');
CREATE ROLE regress_baseline;
ALTER TABLE guarded OWNER TO regress_baseline;
ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
ALTER TABLE guarded FORCE ROW LEVEL SECURITY;
CREATE POLICY none ON guarded USING (false);
GRANT USAGE ON SCHEMA app TO regress_baseline;
SET ROLE regress_baseline;
SET DateStyle = 'German';
SELECT count(*) FROM guarded;
SELECT audit_enable('guarded', baseline => true);
RESET DateStyle;
RESET ROLE;
SELECT * FROM news();
SELECT DISTINCT effective_role FROM audit_log WHERE table_name = 'guarded';
-- In a transaction that has changed the table itself, and rolled back.
CREATE TABLE own (id int);
BEGIN;
INSERT INTO own VALUES (1), (2);
SELECT audit_enable('own', baseline => true);
INSERT INTO own VALUES (3);
COMMIT;
SELECT * FROM news();
BEGIN;
SELECT audit_disable('own', 'test');
SELECT audit_enable('own', baseline => true);
ROLLBACK;
SELECT * FROM news();
ALTER TABLE guarded OWNER TO CURRENT_USER;
DROP OWNED BY regress_baseline;
DROP ROLE regress_baseline;
SELECT valid, problems FROM audit_verify();
