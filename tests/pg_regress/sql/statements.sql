-- Every statement that changes rows: one entry for each row change that commits, none for what does not.
\getenv srcdir PG_ABS_SRCDIR
\set setup :srcdir '/setup.sql'
\i :setup

CREATE TABLE t (id int PRIMARY KEY, v text);
CREATE TABLE source (id int, v text);
SELECT audit_enable('t');
SELECT count(*) FROM news();

-- MERGE: each action by what it did.
INSERT INTO t VALUES (1, 'one'), (2, 'two'), (3, 'three');
INSERT INTO source VALUES (1, 'uno'), (2, NULL), (4, 'cuatro'), (5, 'skip');
MERGE INTO t USING source s ON t.id = s.id
    WHEN MATCHED AND s.v IS NULL THEN DELETE
    WHEN MATCHED THEN UPDATE SET v = s.v
    WHEN NOT MATCHED AND s.v = 'skip' THEN DO NOTHING
    WHEN NOT MATCHED THEN INSERT VALUES (s.id, s.v);
SELECT * FROM news();
-- COPY.
COPY t FROM stdin;
10	ten
11	\N
12	back\\slash
\.
SELECT * FROM news();
COPY t (v, id) FROM stdin WHERE id > 20;
skipped	20
kept	21
\.
COPY t FROM stdin;
22	lost
10	a duplicate
\.
SELECT * FROM news();
COPY (UPDATE t SET v = 'copied' WHERE id = 21 RETURNING id) TO stdout;
SELECT * FROM news();
-- ON CONFLICT: an entry for what was done, not for what was tried.
INSERT INTO t VALUES (1, 'conflict'), (30, 'new') ON CONFLICT DO NOTHING;
INSERT INTO t VALUES (1, 'conflict'), (31, 'new') ON CONFLICT (id) DO UPDATE SET v = excluded.v || ' with ' || t.v;
INSERT INTO t VALUES (1, 'conflict') ON CONFLICT (id) DO UPDATE SET v = 'never' WHERE t.id > 1;
SELECT * FROM news();
-- Writable CTEs, one on top of the other; RETURNING.
WITH gone AS (DELETE FROM t WHERE id >= 30 RETURNING *),
     moved AS (INSERT INTO t SELECT id + 100, v FROM gone RETURNING *)
UPDATE t SET v = 'and this' FROM moved WHERE t.id = 1 AND moved.id = 130 RETURNING t.id;
SELECT * FROM news() ORDER BY op, key::text;
-- UPDATE … FROM and DELETE … USING that join a row more than once change it once.
UPDATE t SET v = 'once' FROM generate_series(1, 3) WHERE t.id = 1;
DELETE FROM t USING generate_series(1, 3) g WHERE t.id > 100;
SELECT * FROM news();
-- Through views: simple, nested, with check option; by INSTEAD OF triggers; by rules.
CREATE VIEW low AS SELECT id AS number, v AS word FROM t WHERE id < 100 WITH CHECK OPTION;
CREATE VIEW lower AS SELECT * FROM low WHERE number < 50;
INSERT INTO lower VALUES (40, 'through two views');
UPDATE lower SET word = 'changed' WHERE number = 40;
INSERT INTO lower VALUES (200, 'refused');
DELETE FROM lower WHERE number = 40;
SELECT * FROM news();
CREATE VIEW pairs AS SELECT a.id, a.v, b.v AS w FROM t a JOIN t b ON b.id = a.id + 1;
CREATE FUNCTION instead() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO t VALUES (NEW.id, NEW.v), (NEW.id + 1, NEW.w);
    RETURN NEW;
END
$$;
CREATE TRIGGER instead INSTEAD OF INSERT ON pairs FOR EACH ROW EXECUTE FUNCTION instead();
INSERT INTO pairs VALUES (50, 'a', 'b');
SELECT * FROM news();
CREATE RULE also AS ON INSERT TO source WHERE NEW.id > 1000 DO ALSO INSERT INTO t VALUES (NEW.id, 'by rule');
INSERT INTO source VALUES (1001, 'x'), (6, 'y');
SELECT * FROM news();
DROP RULE also ON source;
-- From functions and DO; dynamic SQL; EXECUTE of prepared statements; cursors; EXPLAIN ANALYZE.
CREATE FUNCTION f(int) RETURNS int LANGUAGE sql AS 'INSERT INTO t VALUES ($1, ''sql function'') RETURNING id';
SELECT f(60) + f(61);
DO $$ BEGIN EXECUTE 'UPDATE t SET v = $1 WHERE id = $2' USING 'dynamic', 60; END $$;
PREPARE p(int) AS DELETE FROM t WHERE id = $1;
EXECUTE p(61);
BEGIN;
DECLARE c CURSOR FOR SELECT * FROM t WHERE id = 60 FOR UPDATE;
MOVE c;
UPDATE t SET v = 'current' WHERE CURRENT OF c;
COMMIT;
DO $$ DECLARE line text; BEGIN FOR line IN EXPLAIN ANALYZE DELETE FROM t WHERE id = 60 LOOP NULL; END LOOP; END $$;
SELECT * FROM news();
-- A generic plan that was made before auditing began, and one before it ended.
CREATE TABLE late (id int);
PREPARE q AS INSERT INTO late VALUES (1);
EXECUTE q; EXECUTE q; EXECUTE q; EXECUTE q; EXECUTE q; EXECUTE q;
SELECT audit_enable('late');
EXECUTE q;
SELECT audit_disable('late', 'test');
EXECUTE q;
SELECT op, new FROM news();
-- BEFORE triggers that change the row, and that suppress it: what was stored is recorded.
CREATE FUNCTION before() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN RETURN NULL; END IF;
    IF NEW.v = 'suppressed' THEN RETURN NULL; END IF;
    NEW.v := upper(NEW.v);
    RETURN NEW;
END
$$;
CREATE TRIGGER before BEFORE INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION before();
SELECT op FROM news();
INSERT INTO t VALUES (70, 'raised'), (71, 'suppressed');
UPDATE t SET v = 'again' WHERE id = 70;
UPDATE t SET v = 'suppressed' WHERE id = 70;
DELETE FROM t WHERE id = 70;
SELECT * FROM news();
DROP TRIGGER before ON t;
-- Foreign keys: CASCADE, SET NULL, SET DEFAULT, several levels, self-referencing.
CREATE TABLE parent (id int PRIMARY KEY, up int REFERENCES parent ON DELETE CASCADE);
CREATE TABLE c_cascade (id int PRIMARY KEY, p int REFERENCES parent ON DELETE CASCADE ON UPDATE CASCADE);
CREATE TABLE c_null (id int PRIMARY KEY, p int REFERENCES parent ON DELETE SET NULL);
CREATE TABLE c_default (id int PRIMARY KEY, p int DEFAULT 0 REFERENCES parent ON DELETE SET DEFAULT);
CREATE TABLE grandchild (id int PRIMARY KEY, c int REFERENCES c_cascade ON DELETE CASCADE);
SELECT audit_enable('parent'), audit_enable('c_cascade'), audit_enable('c_null'), audit_enable('c_default'), audit_enable('grandchild');
INSERT INTO parent VALUES (0, NULL), (1, NULL), (2, 1);
INSERT INTO c_cascade VALUES (1, 1), (2, 2);
INSERT INTO c_null VALUES (1, 2);
INSERT INTO c_default VALUES (1, 2);
INSERT INTO grandchild VALUES (1, 2);
SELECT count(*) FROM news();
DELETE FROM parent WHERE id = 1;
SELECT * FROM news() ORDER BY on_table, key::text;
-- A cascade whose parent is not audited.
SELECT audit_disable('parent', 'test');
INSERT INTO c_cascade VALUES (3, 0);
SELECT count(*) FROM news();
DELETE FROM c_default;
DELETE FROM parent;
SELECT * FROM news();
-- TRUNCATE: several tables, CASCADE to audited and other ones, RESTART IDENTITY; an entry for each audited table.
CREATE TABLE one (id int PRIMARY KEY);
CREATE TABLE two (id serial PRIMARY KEY, r int REFERENCES one);
CREATE TABLE unaudited (r int REFERENCES two);
SELECT audit_enable('one'), audit_enable('two');
INSERT INTO one VALUES (1);
INSERT INTO two (r) VALUES (1);
SELECT count(*) FROM news();
TRUNCATE one;
TRUNCATE one, two CASCADE;
SELECT * FROM news() ORDER BY on_table;
TRUNCATE one RESTART IDENTITY CASCADE;
SELECT * FROM news() ORDER BY on_table;
TRUNCATE unaudited;
BEGIN;
TRUNCATE one, two, unaudited;
ROLLBACK;
SELECT * FROM news();
-- session_replication_role = replica: ordinary triggers sleep, capture does not.
SET session_replication_role = replica;
INSERT INTO t VALUES (80, 'replica');
UPDATE t SET v = 'replica again' WHERE id = 80;
DELETE FROM t WHERE id = 80;
TRUNCATE one, two, unaudited;
RESET session_replication_role;
SELECT * FROM news() ORDER BY on_table DESC, op DESC;
-- Deferred constraint triggers that write at commit, and SET CONSTRAINTS IMMEDIATE.
CREATE FUNCTION at_commit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO t VALUES (NEW.id + 1, 'at commit');
    RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON source DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION at_commit();
BEGIN;
INSERT INTO source VALUES (90);
SELECT count(*) FROM news();
SAVEPOINT a;
INSERT INTO source VALUES (92);
ROLLBACK TO a;
INSERT INTO source VALUES (94);
COMMIT;
SELECT * FROM news();
BEGIN;
INSERT INTO source VALUES (96);
SET CONSTRAINTS ALL IMMEDIATE;
SELECT op, key FROM news();
COMMIT;
-- One that fails at commit, after it wrote.
INSERT INTO source VALUES (98), (90);
SELECT * FROM news();
-- CREATE TABLE AS makes a table that nobody has asked to audit.
CREATE TABLE copied AS SELECT * FROM t;
SELECT count(*) FROM news();
SELECT valid, problems FROM audit_verify();
