-- The past of tables through triggers that change rows of the statement, swapped keys, and DDL: as of every checkpoint, the log has what a
-- copy has that was made then.
\getenv srcdir PG_ABS_SRCDIR
\set setup :srcdir '/setup.sql'
\i :setup
\set VERBOSITY terse
\pset null '-'
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
-- A trigger that changes the next row of the statement: the key that this one left is empty, or not.
CREATE TABLE t (id int PRIMARY KEY, v text);
CREATE FUNCTION act() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN
    IF NEW.v = ''key next'' THEN UPDATE t SET id = id + 100, v=''moved'' WHERE id = NEW.id + 1;
    ELSIF NEW.v = ''delete next'' THEN DELETE FROM t WHERE id = NEW.id + 1;
    ELSIF NEW.v = ''back next'' THEN UPDATE t SET id = NEW.id - 9, v = ''was back'' WHERE id = NEW.id + 1;
    ELSIF NEW.v = ''take next'' THEN UPDATE t SET id = id+100, v = ''away'' WHERE id = NEW.id + 1; INSERT INTO t VALUES (NEW.id - 9, ''took'');
    END IF;
    RETURN NULL; END';
CREATE TRIGGER act AFTER INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION act();
SELECT audit_enable('t');
INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c');
UPDATE t SET id = id + 10, v = CASE id WHEN 1 THEN 'key next' ELSE 'x' END WHERE id < 3;
SELECT keep('t', '1');
TRUNCATE t;
INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c');
UPDATE t SET id = id + 10, v = CASE id WHEN 1 THEN 'delete next' ELSE 'x' END WHERE id < 3;
SELECT keep('t', '2');
TRUNCATE t;
INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c');
UPDATE t SET id = id + 10, v = CASE id WHEN 1 THEN 'back next' ELSE 'x' END WHERE id < 3;
SELECT keep('t', '3');
TRUNCATE t;
INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c');
UPDATE t SET id = id + 10, v = CASE id WHEN 1 THEN 'take next' ELSE 'x' END WHERE id < 3;
SELECT keep('t', '4');
SELECT * FROM differ('t') ORDER BY 1, 3, 2;
SELECT operation, row_key, old_row, new_row FROM audit_history(NULL::t, '{"id": 2}');
-- A key that may be taken before it is left: DEFERRABLE.
CREATE TABLE d (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, v text);
SELECT audit_enable('d');
INSERT INTO d VALUES (1, 'a'), (2, 'b'), (3, 'c');
SELECT keep('d', '1');
BEGIN;
INSERT INTO d VALUES (1, 'new one');
DELETE FROM d WHERE v = 'a';
COMMIT;
SELECT keep('d', '2');
BEGIN;
UPDATE d SET id = 2, v = 'c to 2' WHERE id = 3;
UPDATE d SET id = 3, v = 'b to 3' WHERE v = 'b';
COMMIT;
SELECT keep('d', '3');
BEGIN;
UPDATE d SET id = 2, v = 'to 2' WHERE id = 3;
UPDATE d SET v = 'never mind' WHERE id = 2 AND v = 'to 2';
DELETE FROM d WHERE id = 2 AND v <> 'never mind';
COMMIT;
SELECT keep('d', '4');
UPDATE d SET id = 3 - id;
SELECT keep('d', '5');
WITH gone AS (DELETE FROM d RETURNING *) INSERT INTO d SELECT id, v || ' again' FROM gone;
SELECT keep('d', '6');
WITH x AS (UPDATE d SET id = id + 10 RETURNING *) INSERT INTO d SELECT id - 10, 'in place' FROM x;
SELECT keep('d', '7');
SELECT * FROM differ('d') ORDER BY 1, 3, 2;
SELECT operation, row_key, old_row, new_row FROM audit_history(NULL::d, '{"id": 2}');
-- Types. What a command computed is not known; what the type of now writes in another way is told. The copies are not changed.
CREATE TABLE r (id int PRIMARY KEY, a text, b int, c numeric(10,2), d timestamp);
SELECT audit_enable('r');
INSERT INTO r VALUES (1, 'a', 1, 1.25, '2020-01-01 12:00'), (2, 'b', 2, 2.25, '2020-01-01 12:00');
SELECT keep('r', '0');
ALTER TABLE r ALTER b TYPE bigint USING b * 10;
SELECT keep('r', '1');
ALTER TABLE r ALTER a TYPE varchar(20) USING upper(a);
SELECT keep('r', '2');
ALTER TABLE r ALTER b TYPE text;
SELECT keep('r', '3');
ALTER TABLE r ALTER c TYPE numeric(10,1);
SELECT keep('r', '4');
ALTER TABLE r ALTER d TYPE timestamptz;
SELECT keep('r', '5');
SELECT * FROM differ('r') ORDER BY 1, 3, 2;
SELECT detail ->> 'columns' AS columns FROM audit_log WHERE operation = 'DDL' AND table_name = 'r' ORDER BY chain, seq;
UPDATE r SET a = 'c', b = 'x' WHERE id = 1;
ALTER TABLE r ALTER b TYPE int USING length(b);
SELECT keep('r', '6');
SELECT * FROM differ('r') ORDER BY 1, 3, 2;
-- Columns that were added, dropped, and added again by the same name.
CREATE TABLE ad (id int PRIMARY KEY, a text);
SELECT audit_enable('ad');
INSERT INTO ad VALUES (1, 'a'), (2, 'b');
SELECT keep('ad', '0');
ALTER TABLE ad ADD b int DEFAULT 5, ADD c timestamptz DEFAULT '2020-01-01', ADD d text DEFAULT 'x' NOT NULL, ADD e text[] DEFAULT '{a,b}';
SELECT keep('ad', '1');
INSERT INTO ad VALUES (3, 'c');
ALTER TABLE ad ADD r float DEFAULT random() * 0, ADD g int GENERATED ALWAYS AS (id * 2) STORED, ADD i int GENERATED ALWAYS AS IDENTITY;
SELECT keep('ad', '2');
UPDATE ad SET a = 'z' WHERE id = 1;
SELECT keep('ad', '3');
ALTER TABLE ad DROP b; 
ALTER TABLE ad ADD b int DEFAULT 9;
SELECT keep('ad', '4');
ALTER TABLE ad DROP a, ADD a text DEFAULT 'new a', ALTER b TYPE bigint;
SELECT keep('ad', '5');
SELECT * FROM differ('ad') ORDER BY 1, 3, 2;
-- Tables that swap their names, move to another schema, and leave their names to others; a name with control characters.
CREATE TABLE s1 (id int PRIMARY KEY, v text);
CREATE TABLE s2 (id int PRIMARY KEY, v text);
SELECT audit_enable('s1'), audit_enable('s2');
INSERT INTO s1 VALUES (1, 's1');
INSERT INTO s2 VALUES (1, 's2'), (2, 's2');
SELECT keep('s1', '1'), keep('s2', '1');
ALTER TABLE s1 RENAME TO sx; ALTER TABLE s2 RENAME TO s1; ALTER TABLE sx RENAME TO s2;
SELECT keep('s1', '2'), keep('s2', '2');
UPDATE s1 SET v = 'changed';
UPDATE s2 SET v = 'changed two';
SELECT keep('s1', '3'), keep('s2', '3');
BEGIN;
ALTER TABLE s1 RENAME TO sx; UPDATE sx SET v = 'as sx'; INSERT INTO s2 VALUES (9, 'n'); ALTER TABLE s2 RENAME TO s1; ALTER TABLE sx RENAME TO s2; UPDATE s2 SET id = id + 100;
COMMIT;
SELECT keep('s1', '4'), keep('s2', '4');
SELECT * FROM differ('s1') ORDER BY 1, 3, 2;
SELECT * FROM differ('s2') ORDER BY 1, 3, 2;
CREATE SCHEMA sch;
ALTER TABLE s1 SET SCHEMA sch;
ALTER SCHEMA sch RENAME TO "Sch.2";
UPDATE "Sch.2".s1 SET v = 'in sch';
SELECT keep('"Sch.2".s1', '5');
ALTER TABLE "Sch.2".s1 RENAME TO "a
	b\";
UPDATE "Sch.2"."a
	b\" SET id = id + 10;
SELECT keep('"Sch.2"."a
	b\"', '6');
CREATE TABLE s1 (id int PRIMARY KEY, v text);
SELECT audit_enable('s1');
INSERT INTO s1 VALUES (77, 'other');
SELECT keep('"Sch.2"."a
	b\"', '7'), keep('s1', '7');
SELECT * FROM differ('"Sch.2"."a
	b\"') ORDER BY 1, 3, 2;
SELECT * FROM differ('s1') ORDER BY 1, 3, 2;
DROP TABLE s1;
CREATE TABLE s1 (id int PRIMARY KEY, v text, w int);
SELECT audit_enable('s1');
INSERT INTO s1 VALUES (78, 'other');
SELECT keep('s1', '8');
SELECT * FROM differ('s1') ORDER BY 1, 3, 2;
-- As of then it was the table that had the name.
SELECT * FROM audit_as_of(NULL::s1, (SELECT max(size) FROM kept WHERE label = '7'));
-- Partitions, attached with and without rows and auditing of their own, detached, dropped; partitions of partitions.
CREATE TABLE p (id int, k text, v text, PRIMARY KEY (id, k)) PARTITION BY LIST (k);
CREATE TABLE p_a PARTITION OF p FOR VALUES IN ('a');
CREATE TABLE p_b PARTITION OF p FOR VALUES IN ('b') PARTITION BY RANGE (id);
CREATE TABLE p_b1 PARTITION OF p_b FOR VALUES FROM (0) TO (10);
CREATE TABLE p_b2 PARTITION OF p_b FOR VALUES FROM (10) TO (20);
SELECT audit_enable('p');
INSERT INTO p VALUES (1, 'a', 'one'), (1, 'b', 'two'), (11, 'b', 'three'), (2, 'a', 'four');
SELECT keep('p', '1');
UPDATE p SET k = 'b' WHERE v = 'four';
UPDATE p SET id = 15 WHERE v = 'two';
SELECT keep('p', '2');
CREATE TABLE p_c (id int, k text, v text, PRIMARY KEY (id, k));
INSERT INTO p_c VALUES (1, 'c', 'before');
ALTER TABLE p ATTACH PARTITION p_c FOR VALUES IN ('c');
SELECT keep('p', '3');
CREATE TABLE p_d (id int, k text, v text, PRIMARY KEY (id, k));
SELECT audit_enable('p_d');
INSERT INTO p_d VALUES (1, 'd', 'audited before');
SELECT keep('p', '4');
ALTER TABLE p ATTACH PARTITION p_d FOR VALUES IN ('d');
SELECT keep('p', '5');
UPDATE p SET v = v || '+' WHERE k IN ('c', 'd');
SELECT keep('p', '6');
ALTER TABLE p DETACH PARTITION p_a;
SELECT keep('p', '7');
UPDATE p_a SET v = 'detached';
SELECT keep('p', '8'), keep('p_a', '8');
ALTER TABLE p ATTACH PARTITION p_a FOR VALUES IN ('a');
SELECT keep('p', '9');
ALTER TABLE p RENAME v TO w;
ALTER TABLE p ADD x int DEFAULT 4;
UPDATE p SET w = w || '*' WHERE k = 'a';
SELECT keep('p', '10');
ALTER TABLE p_b RENAME TO p_bb;
ALTER TABLE p_b1 RENAME TO p_bb1;
UPDATE p SET w = w || '*' WHERE k = 'b';
SELECT keep('p', '11'), keep('p_bb', '11');
TRUNCATE p_bb1;
SELECT keep('p', '12');
DROP TABLE p_d;
SELECT keep('p', '13');
ALTER TABLE p DETACH PARTITION p_bb;
SELECT keep('p', '14');
INSERT INTO p_bb VALUES (3, 'b', 'again', 7);
SELECT keep('p', '15'), keep('p_bb', '15');
ALTER TABLE p ATTACH PARTITION p_bb FOR VALUES IN ('b');
SELECT keep('p', '16');
TRUNCATE p;
INSERT INTO p VALUES (1, 'a', 'one'), (1, 'b', 'two');
SELECT keep('p', '17');
-- One partition had rows when it was attached: a notice says since when it has been audited.
SET client_min_messages = warning;
SELECT * FROM differ('p') ORDER BY 1, 3, 2;
RESET client_min_messages;
SELECT * FROM differ('p_a') ORDER BY 1, 3, 2;
SELECT * FROM differ('p_bb') ORDER BY 1, 3, 2;
SELECT operation, "table", old_row, new_row FROM audit_history(NULL::p);
-- Inheritance.
CREATE TABLE par (id int PRIMARY KEY, v text);
CREATE TABLE kid (extra int, PRIMARY KEY (id)) INHERITS (par);
SELECT audit_enable('par');
INSERT INTO par VALUES (1, 'p');
INSERT INTO kid VALUES (1, 'k', 5);
SELECT keep('par', '1'), keep('kid', '1');
CREATE TABLE kid2 (PRIMARY KEY (id)) INHERITS (par);
INSERT INTO kid2 VALUES (9, 'k2');
SELECT keep('par', '2');
UPDATE par SET v = v || '+';
SELECT keep('par', '3'), keep('kid', '3');
ALTER TABLE kid2 NO INHERIT par;
SELECT keep('par', '4');
UPDATE kid2 SET v = 'alone';
ALTER TABLE par ADD z int DEFAULT 3;
SELECT keep('par', '5'), keep('kid2', '5');
ALTER TABLE kid2 ADD z int;
ALTER TABLE kid2 INHERIT par;
SELECT keep('par', '6');
SELECT * FROM differ('par') ORDER BY 1, 3, 2;
SELECT * FROM differ('kid') ORDER BY 1, 3, 2;
SELECT * FROM differ('kid2') ORDER BY 1, 3, 2;
-- A table below two audited tables is below both, until it is taken from one; what is below it, too.
SET client_min_messages = warning;
CREATE TABLE one (id int PRIMARY KEY, x text);
CREATE TABLE two (id int, y text);
CREATE TABLE mixed (z int, PRIMARY KEY (id)) INHERITS (one, two);
CREATE TABLE below_mixed (PRIMARY KEY (id)) INHERITS (mixed);
SELECT audit_enable('one');
SELECT audit_enable('two');
CREATE TABLE mixed_later (PRIMARY KEY (id)) INHERITS (two, one);
CREATE TABLE by_itself (id int PRIMARY KEY, x text, y text);
SELECT audit_enable('by_itself');
ALTER TABLE by_itself INHERIT one;
ALTER TABLE by_itself INHERIT two;
INSERT INTO one VALUES (1, 'one');
INSERT INTO two VALUES (2, 'two');
INSERT INTO mixed VALUES (3, 'mixed', 'mixed', 3);
INSERT INTO below_mixed VALUES (4, 'below', 'below', 4);
INSERT INTO mixed_later VALUES (5, 'later', 'later');
INSERT INTO by_itself VALUES (6, 'itself', 'itself');
SELECT keep('one', '1'), keep('two', '1');
ALTER TABLE one RENAME x TO xx;
ALTER TABLE two ADD w int DEFAULT 5;
ALTER TABLE by_itself RENAME TO by_another_name;
UPDATE one SET id = id + 10;
SELECT keep('one', '2'), keep('two', '2');
ALTER TABLE mixed NO INHERIT two;
ALTER TABLE mixed_later NO INHERIT one;
ALTER TABLE by_another_name NO INHERIT one;
UPDATE one SET xx = xx || '!';
UPDATE two SET y = y || '!';
SELECT keep('one', '3'), keep('two', '3');
SELECT problem, row_key FROM audit_check_table('one') UNION ALL SELECT problem, row_key FROM audit_check_table('two');
ALTER TABLE mixed INHERIT two;
ALTER TABLE mixed_later INHERIT one;
ALTER TABLE by_another_name INHERIT one;
UPDATE mixed SET z = 33;
SELECT keep('one', '4'), keep('two', '4');
SELECT * FROM differ('one') ORDER BY 1, 3, 2;
SELECT * FROM differ('two') ORDER BY 1, 3, 2;
SELECT count(*) FROM audit_as_of(NULL::one, now());
SELECT count(*) FROM audit_as_of(NULL::two, now());
-- A partition that was audited before it was attached, and is renamed; its options change, and a column's name.
CREATE TABLE whole (id int PRIMARY KEY, v text, w text) PARTITION BY RANGE (id);
CREATE TABLE part (id int PRIMARY KEY, v text, w text);
SELECT audit_enable('whole');
SELECT audit_enable('part', mask_columns => '{w}');
ALTER TABLE whole ATTACH PARTITION part FOR VALUES FROM (0) TO (10);
INSERT INTO whole VALUES (1, 'a');
ALTER TABLE part RENAME TO part_renamed;
INSERT INTO whole VALUES (2, 'b');
SELECT keep('whole', '1');
ALTER TABLE whole RENAME w TO ww;
INSERT INTO whole VALUES (3, 'c');
SELECT keep('whole', '2');
ALTER TABLE part_renamed SET SCHEMA "Sch.2";
UPDATE whole SET v = 'd' WHERE id = 3;
SELECT keep('whole', '3');
ALTER SCHEMA "Sch.2" RENAME TO "Sch.3";
UPDATE whole SET v = 'e' WHERE id = 3;
SELECT keep('whole', '4');
ALTER TABLE whole DETACH PARTITION "Sch.3".part_renamed;
INSERT INTO "Sch.3".part_renamed VALUES (4, 'alone');
SELECT keep('whole', '5'), keep('"Sch.3".part_renamed', '5');
SELECT * FROM differ('whole') ORDER BY 1, 3, 2;
SELECT * FROM differ('"Sch.3".part_renamed') ORDER BY 1, 3, 2;
SELECT count(*) FROM audit_as_of(NULL::whole, (SELECT size FROM kept WHERE t = 'whole'::regclass AND label = '4'));
-- Columns that change their types more than once. What text a type has made that another one reads is not known.
CREATE TABLE retyped (id int PRIMARY KEY, n int, m numeric(8,2), v text);
CREATE TABLE retyped_no_key (n int, v text);
SELECT audit_enable('retyped'), audit_enable('retyped_no_key');
INSERT INTO retyped VALUES (1, 1, 1.5, 'same'), (2, 2, 2.5, 'same'), (3, NULL, NULL, 'same');
INSERT INTO retyped_no_key VALUES (1, 'same'), (2, 'same'), (NULL, 'same');
ALTER TABLE retyped ALTER n TYPE numeric, ALTER m TYPE numeric(9,2);
ALTER TABLE retyped ALTER n TYPE text, ALTER m TYPE numeric(9,3);
ALTER TABLE retyped_no_key ALTER n TYPE numeric;
SELECT keep('retyped', '1'), keep('retyped_no_key', '1');
-- A key: rows are known by their content from here on.
ALTER TABLE retyped ALTER id TYPE text;
ALTER TABLE retyped_no_key ALTER n TYPE text;
SELECT keep('retyped', '2'), keep('retyped_no_key', '2');
UPDATE retyped SET v = 'other' WHERE id = '2';
UPDATE retyped_no_key SET v = 'other' WHERE n = '2';
DELETE FROM retyped WHERE id = '1';
SELECT keep('retyped', '3'), keep('retyped_no_key', '3');
SELECT * FROM differ('retyped') ORDER BY 1, 3, 2;
SELECT * FROM differ('retyped_no_key') ORDER BY 1, 3, 2;
SELECT problem, row_key FROM audit_check_table('retyped') UNION ALL SELECT problem, row_key FROM audit_check_table('retyped_no_key');
CREATE TABLE padded (id int PRIMARY KEY, n int);
SELECT audit_enable('padded');
INSERT INTO padded VALUES (1, 1);
ALTER TABLE padded ALTER n TYPE numeric(8,2);
SELECT keep('padded', '1');
RESET client_min_messages;
SELECT * FROM audit_as_of(NULL::padded, now());
ALTER TABLE padded ALTER n TYPE text;
SELECT * FROM padded;
SELECT * FROM audit_as_of(NULL::padded, now());
-- A partition that was taken from its table before the table's columns changed: its rows of then have the columns of then.
SET client_min_messages = warning;
CREATE TABLE months (id int PRIMARY KEY, v text, w text, x text) PARTITION BY RANGE (id);
CREATE TABLE month_1 PARTITION OF months FOR VALUES FROM (0) TO (10);
CREATE TABLE month_2 PARTITION OF months FOR VALUES FROM (10) TO (20);
ALTER TABLE month_1 ALTER v SET STORAGE EXTERNAL;
SELECT audit_enable('months');
INSERT INTO months VALUES (1, repeat('long', 1000), 'w', 'x'), (11, 'v', 'w', 'x');
UPDATE months SET x = 'y';
SELECT keep('months', '1');
ALTER TABLE months DETACH PARTITION month_1;
ALTER TABLE month_1 RENAME w TO other;
ALTER TABLE month_1 ADD w text DEFAULT 'not meant';
ALTER TABLE months RENAME v TO vv;
ALTER TABLE months RENAME w TO v;
ALTER TABLE months DROP x, ADD x text;
SELECT keep('months', '2');
DROP TABLE month_1;
SELECT keep('months', '3');
SELECT * FROM differ('months') ORDER BY 1, 3, 2;
SELECT id, left(vv, 4), v, x FROM audit_as_of(NULL::months, (SELECT size FROM kept WHERE t = 'months'::regclass AND label = '1')) ORDER BY id;
SELECT change, columns, (old_row).id, left((old_row).vv, 4), (old_row).v
FROM audit_diff(NULL::months, (SELECT size FROM kept WHERE t = 'months'::regclass AND label = '1'),
                (SELECT size FROM kept WHERE t = 'months'::regclass AND label = '3'));
SET client_min_messages = warning;
DROP SCHEMA copies, "Sch.3" CASCADE;
