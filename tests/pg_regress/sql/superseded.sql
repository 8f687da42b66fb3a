-- A trigger, or a function within a statement, that changes other rows of the same statement: its change is recorded first, and the
-- statement's own change of such a row says that it is superseded. All other entries are in the order of the row's versions.
\getenv srcdir PG_ABS_SRCDIR
\set setup :srcdir '/setup.sql'
\i :setup
CREATE TABLE t (id int PRIMARY KEY, v text);
SELECT audit_enable('t');
CREATE VIEW log AS
    SELECT chain, seq, table_name, operation, old_row, CASE operation WHEN 'DELETE' THEN row_key ELSE new_row END AS row, detail
    FROM audit_log WHERE operation IN ('INSERT', 'UPDATE', 'DELETE');
-- The entries since the last call.
CREATE TABLE seen (seq bigint);
INSERT INTO seen SELECT max(seq) FROM audit_log;
CREATE FUNCTION entries() RETURNS TABLE (what text, old_row json, new_row json, superseded text, old_key_in_use text) LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY SELECT l.table_name || ' ' || l.operation, l.old_row, l.row, l.detail ->> 'superseded', l.detail ->> 'old_key_in_use'
        FROM log l, seen WHERE l.seq > seen.seq ORDER BY l.chain, l.seq;
    UPDATE seen SET seq = (SELECT max(l.seq) FROM audit_log l);
END $$;
-- The value of a row says what is done to the rows after it.
CREATE FUNCTION act() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    last record;
BEGIN
    EXECUTE format(CASE NEW.v
        WHEN 'update' THEN 'UPDATE %1$I SET v = v || ''+'' WHERE id > %2$s AND v !~ ''update'''
        WHEN 'update next' THEN 'UPDATE %1$I SET v = ''update'' WHERE id = %2$s + 1'
        WHEN 'delete' THEN 'DELETE FROM %1$I WHERE id > %2$s'
        WHEN 'insert again' THEN 'DELETE FROM %1$I WHERE id = %2$s + 1; INSERT INTO %1$I VALUES (%2$s + 1, ''again'')'
        WHEN 'lock' THEN 'SELECT FROM %1$I WHERE id > %2$s FOR UPDATE'
        WHEN 'key' THEN 'UPDATE %1$I SET id = id + 100 WHERE id = %2$s + 1'
        ELSE 'SELECT' END, TG_TABLE_NAME, NEW.id);
    IF NEW.v ~ 'and back' THEN
        PERFORM FROM t WHERE id > NEW.id FOR KEY SHARE;
        BEGIN
            UPDATE t SET v = 'never' WHERE id > NEW.id;
            RAISE EXCEPTION USING ERRCODE = 'division_by_zero';
        EXCEPTION WHEN division_by_zero THEN NULL;
        END;
    ELSIF NEW.v ~ 'in a savepoint' THEN
        PERFORM FROM t WHERE id > NEW.id FOR KEY SHARE;
        BEGIN
            UPDATE t SET v = v || '+' WHERE id > NEW.id;
        EXCEPTION WHEN division_by_zero THEN NULL;
        END;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER act AFTER INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION act();

INSERT INTO t VALUES (1, 'update'), (2, 'a'), (3, 'b');
SELECT * FROM entries();
UPDATE t SET v = CASE id WHEN 1 THEN 'update' ELSE 'c' END;
SELECT * FROM entries();
-- Recursion: the change of a row by a trigger that a trigger has fired.
UPDATE t SET v = CASE id WHEN 1 THEN 'update next' WHEN 2 THEN 'd' ELSE 'e' END;
SELECT * FROM entries();
-- Deleted, and inserted again: the superseded entry is that of the old row.
UPDATE t SET v = CASE id WHEN 1 THEN 'insert again' ELSE 'f' END;
SELECT * FROM entries();
UPDATE t SET v = CASE id WHEN 1 THEN 'delete' ELSE 'g' END;
SELECT * FROM entries();
-- The key changes.
INSERT INTO t VALUES (2, 'key'), (3, 'h');
SELECT * FROM entries();
-- What only locks the rows supersedes nothing, nor does what was undone.
TRUNCATE t;
INSERT INTO t VALUES (1, 'lock'), (2, 'a');
INSERT INTO t VALUES (3, 'and back'), (4, 'a');
UPDATE t SET v = CASE id WHEN 1 THEN 'and back, lock' ELSE 'b' END;
SELECT * FROM entries();
-- A savepoint that was not undone, after a lock by the transaction itself.
INSERT INTO t VALUES (11, 'in a savepoint'), (12, 'a');
SELECT * FROM entries();
-- Other statements.
TRUNCATE t;
COPY t FROM stdin WITH (DELIMITER ',');
1,update
2,a
3,update
4,b
\.
SELECT * FROM entries();
INSERT INTO t VALUES (1, 'new'), (2, 'new'), (5, 'new') ON CONFLICT (id) DO UPDATE SET v = CASE t.id WHEN 1 THEN 'update' ELSE 'changed' END;
SELECT * FROM entries();
MERGE INTO t USING (VALUES (1, 'update'), (2, 'merged'), (6, 'merged')) AS s(id, v) ON s.id = t.id
    WHEN MATCHED THEN UPDATE SET v = s.v WHEN NOT MATCHED THEN INSERT VALUES (s.id, s.v);
SELECT * FROM entries();
-- A function that changes a row which the same statement has just made.
CREATE FUNCTION change(of int) RETURNS void LANGUAGE sql AS $$ UPDATE t SET v = 'by function' WHERE id = of $$;
WITH made AS (INSERT INTO t VALUES (21, 'a') RETURNING id) SELECT change(id) FROM made;
SELECT * FROM entries();
-- One statement after the other supersedes nothing.
BEGIN;
INSERT INTO t VALUES (31, 'a');
UPDATE t SET v = 'b' WHERE id = 31;
DELETE FROM t WHERE id = 31;
COMMIT;
SELECT * FROM entries();

-- A key that another row has got before its row's own DELETE or UPDATE is recorded.
TRUNCATE t;
INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c');
SELECT FROM entries();
CREATE FUNCTION act_on_delete() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.id = 1 THEN INSERT INTO t VALUES (2, 'by trigger'), (4, 'by trigger'); END IF;
    IF OLD.id = 5 THEN INSERT INTO t VALUES (6, 'gone again'); DELETE FROM t WHERE id = 6; END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER act_on_delete AFTER DELETE ON t FOR EACH ROW EXECUTE FUNCTION act_on_delete();
DELETE FROM t;
SELECT * FROM entries();
INSERT INTO t VALUES (5, 'a'), (6, 'b');
SELECT FROM entries();
DELETE FROM t WHERE id IN (5, 6);
SELECT * FROM entries();
CREATE FUNCTION act_on_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.id = 12 THEN INSERT INTO t VALUES (4, 'by trigger'); END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER act_on_update AFTER UPDATE ON t FOR EACH ROW EXECUTE FUNCTION act_on_update();
UPDATE t SET id = id + 10;
SELECT * FROM entries();
SELECT row, detail FROM log WHERE detail ->> 'old_key_in_use' IS NOT NULL ORDER BY seq;
DROP TRIGGER act_on_delete ON t;
DROP TRIGGER act_on_update ON t;
-- In one statement, too: the row of the greater key goes first.
TRUNCATE t;
INSERT INTO t VALUES (2, 'b'), (1, 'a');
UPDATE t SET id = id + 1;
SELECT row, old_row, detail FROM log WHERE old_row ->> 'id' IS NOT NULL AND row ->> 'id' IN ('2', '3') ORDER BY seq;
-- Keys of several columns, of other types and collations. What is equal and written in another way is another key.
CREATE TABLE wide (a text COLLATE "C", b timestamptz, c numeric, note text, PRIMARY KEY (c, a, b));
SELECT audit_enable('wide');
CREATE FUNCTION act_on_wide() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.note = 'first' THEN INSERT INTO wide VALUES ('x', '2020-01-01', 2, 'by trigger'), ('y', '2020-01-01', 2.0, 'by trigger'); END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER act AFTER DELETE ON wide FOR EACH ROW EXECUTE FUNCTION act_on_wide();
INSERT INTO wide VALUES ('x', '2020-01-01', 1, 'first'), ('x', '2020-01-01', 2, 'second'), ('y', '2020-01-01', 2, 'third');
DELETE FROM wide;
SELECT row, detail FROM log WHERE table_name = 'wide' AND operation = 'DELETE' ORDER BY seq;

-- Foreign keys: a check locks the row that it finds, and supersedes nothing. A cascade comes after the row's own change.
CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES child ON UPDATE CASCADE ON DELETE CASCADE);
SELECT audit_enable('child');
INSERT INTO child VALUES (1, 1), (2, 1), (3, 2);
SELECT * FROM entries();
UPDATE child SET id = id + 10 WHERE id = 1;
SELECT * FROM entries();
DELETE FROM child;
SELECT * FROM entries();

-- Partitions: the entry names the root, and rows that move are deleted and inserted.
CREATE TABLE parted (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
CREATE TABLE parted_low PARTITION OF parted FOR VALUES FROM (0) TO (100);
CREATE TABLE parted_high PARTITION OF parted FOR VALUES FROM (100) TO (200);
SELECT audit_enable('parted');
CREATE FUNCTION act_on_parted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.v = 'update' THEN UPDATE parted SET v = 'by trigger' WHERE id <> NEW.id; END IF;
    IF NEW.v = 'move' THEN UPDATE parted SET id = id + 100 WHERE id > NEW.id AND id < 100; END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER act AFTER INSERT OR UPDATE ON parted FOR EACH ROW EXECUTE FUNCTION act_on_parted();
INSERT INTO parted VALUES (1, 'update'), (2, 'a'), (101, 'b');
SELECT * FROM entries();
UPDATE parted SET v = CASE id WHEN 1 THEN 'move' ELSE 'c' END WHERE id < 100;
SELECT * FROM entries();
SELECT detail FROM log WHERE detail ->> 'superseded' IS NOT NULL AND table_name ~ 'parted' ORDER BY seq LIMIT 1;
UPDATE parted SET id = 199 - id, v = CASE id WHEN 1 THEN 'update' ELSE 'd' END WHERE id IN (1, 101);
SELECT * FROM entries();
SELECT * FROM parted ORDER BY id;

-- The context is beside it.
SET audit_chain.context = '{"request":7}';
INSERT INTO t VALUES (41, 'update'), (42, 'a');
RESET audit_chain.context;
SELECT row ->> 'id' AS id, detail FROM log WHERE row ->> 'id' IN ('41', '42') ORDER BY seq;
SELECT valid, problems FROM audit_verify();

SET client_min_messages = warning;
DROP EXTENSION audit_chain CASCADE;
DROP SCHEMA app CASCADE;
