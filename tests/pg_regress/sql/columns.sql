-- DDL entries say what a command did to the columns and the key of audited tables, whichever command it was.
\getenv srcdir PG_ABS_SRCDIR
\set setup :srcdir '/setup.sql'
\i :setup

CREATE FUNCTION said() RETURNS TABLE (op text, on_table text, columns text, key text, rest text) LANGUAGE plpgsql AS $$
DECLARE
    seen bigint := coalesce(nullif(current_setting('test.said', true), ''), '0');
BEGIN
    PERFORM set_config('test.said', coalesce(max(seq), 0)::text, false) FROM public.audit_log;
    RETURN QUERY SELECT l.operation, l.table_name, l.detail ->> 'columns', l.detail ->> 'key',
            nullif(jsonb_strip_nulls(jsonb_build_object('except', l.detail -> 'except', 'complete', l.detail -> 'complete',
                                                        'options', nullif(l.detail -> 'options' #>> '{}', '{}'))), '{}')::text
        FROM public.audit_log l WHERE l.seq > seen AND l.operation IN ('DDL', 'ENABLE') ORDER BY l.seq;
END
$$;
CREATE TABLE t (id int PRIMARY KEY, a text, b varchar(10), c numeric);
INSERT INTO t VALUES (1, 'a', 'b', 1.50);
SELECT audit_enable('t');
SELECT * FROM said();

-- Each kind of change, and what is none.
ALTER TABLE t RENAME a TO "A ""quoted""";
ALTER TABLE t ADD d int;
ALTER TABLE t DROP c;
ALTER TABLE t ALTER b TYPE varchar(20);
ALTER TABLE t ALTER b TYPE text USING upper(b);
ALTER TABLE t ALTER b SET NOT NULL, ALTER b SET DEFAULT 'x', ALTER b SET STATISTICS 5, ALTER d SET STORAGE PLAIN;
ALTER TABLE t ADD IF NOT EXISTS d int;
ALTER TABLE t ALTER d TYPE int;
COMMENT ON COLUMN t.d IS 'said';
SELECT * FROM said();
-- Several in one command; a column that takes the place of another.
ALTER TABLE t DROP d, ADD d text DEFAULT 'new', ADD e int, ALTER b TYPE varchar(30);
ALTER TABLE t ADD f int, DROP e, ADD CONSTRAINT positive CHECK (f > 0);
SELECT * FROM said();
-- What the existing rows have, if it is one constant. A default that is set in the same command is another one.
ALTER TABLE t ADD v1 numeric DEFAULT 1.50, ADD v2 timestamptz DEFAULT '2020-01-01 12:00 UTC', ADD v3 bytea DEFAULT '\x00ff',
    ADD v4 jsonb DEFAULT '{"a": [1, 2.0]}', ADD v5 text DEFAULT E'\u00e9"\\\n', ADD v6 boolean DEFAULT NULL,
    ADD v7 numeric DEFAULT 'NaN', ADD v8 int DEFAULT 5, ALTER v8 SET DEFAULT 6, ADD v9 text DEFAULT repeat('x', 10),
    ADD v10 int NOT NULL DEFAULT 7;
SELECT * FROM said();
SELECT v1, v3, v4, v8, v10 FROM t;
SET audit_chain.max_value_size = '1kB';
ALTER TABLE t ADD v11 text DEFAULT repeat('x', 2000);
RESET audit_chain.max_value_size;
SELECT * FROM said();
-- What each row has is computed. A table that is rewritten no longer says what the constant was.
CREATE SEQUENCE numbers;
CREATE DOMAIN with_default AS int DEFAULT 11;
CREATE DOMAIN checked AS int CHECK (VALUE > 0);
CREATE DOMAIN plain AS int;
ALTER TABLE t ADD w1 int DEFAULT nextval('numbers'), ADD w2 int GENERATED ALWAYS AS IDENTITY,
    ADD w3 int GENERATED ALWAYS AS (id + 1) STORED, ADD w4 serial;
ALTER TABLE t ADD w5 with_default;
ALTER TABLE t ADD w6 checked;
ALTER TABLE t ADD w7 plain;
SELECT w5 = 11 AS of_domain, w6 IS NULL AS of_checked, w7 IS NULL AS of_plain FROM t;
ALTER TABLE t ADD w8 int, ALTER f TYPE bigint;
ALTER TABLE t ADD w9 int DEFAULT 5, ALTER f TYPE int;
SELECT w8 IS NULL AS null, w9 FROM t;
SELECT * FROM said();
DROP TABLE t;
SELECT * FROM said();
-- Another expression, from PostgreSQL 17 on, and what is none.
CREATE TABLE t (id int PRIMARY KEY, s int GENERATED ALWAYS AS (id + 2) STORED);
INSERT INTO t VALUES (1);
SELECT audit_enable('t');
ALTER TABLE t ALTER id SET DEFAULT 5;
ALTER TABLE t ALTER id DROP DEFAULT;
SELECT * FROM said();
SELECT current_setting('server_version_num')::int >= 170000 AS has_set_expression \gset
\if :has_set_expression
ALTER TABLE t ALTER s SET EXPRESSION AS (id + 3);
\endif
SELECT CASE WHEN :'has_set_expression' THEN string_agg(columns, ' ') ELSE '{"computed":["s"]}' END AS said FROM said();
ALTER TABLE t ALTER s DROP EXPRESSION;
SELECT columns FROM said();
DROP TABLE t;
SELECT FROM said();

-- A swap; in functions and DO blocks; in savepoints.
CREATE TABLE t (id int PRIMARY KEY, a int, b int);
SELECT audit_enable('t');
BEGIN;
ALTER TABLE t RENAME a TO swap;
ALTER TABLE t RENAME b TO a;
ALTER TABLE t RENAME swap TO b;
COMMIT;
SELECT * FROM said();
DO $$
BEGIN
    ALTER TABLE t RENAME a TO c;
    INSERT INTO t VALUES (1, 2, 3);
    ALTER TABLE t RENAME c TO d;
    BEGIN
        ALTER TABLE t ADD gone int;
        RAISE EXCEPTION 'undone';
    EXCEPTION WHEN raise_exception THEN
        ALTER TABLE t ADD e int DEFAULT 1;
    END;
    EXECUTE 'ALTER TABLE t DROP e';
END
$$;
SELECT * FROM said();
BEGIN;
SAVEPOINT s;
ALTER TABLE t RENAME d TO e;
ROLLBACK TO s;
ALTER TABLE t RENAME d TO f;
RELEASE s;
COMMIT;
SELECT * FROM said();

-- The key: whatever gives, changes or takes it.
ALTER TABLE t DROP CONSTRAINT t_pkey;
ALTER TABLE t ADD PRIMARY KEY (f, id);
ALTER TABLE t RENAME f TO k;
ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (id, k);
ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (id, k);
ALTER TABLE t ALTER k TYPE bigint;
ALTER TABLE t DROP k;
CREATE UNIQUE INDEX t_id ON t (id);
ALTER TABLE t ADD CONSTRAINT t_key PRIMARY KEY USING INDEX t_id;
ALTER TABLE t RENAME CONSTRAINT t_key TO t_pkey;
ALTER TABLE t ADD UNIQUE (b);
ALTER TABLE t ADD n int CONSTRAINT other_key UNIQUE, DROP CONSTRAINT t_pkey, ADD CONSTRAINT t_pkey PRIMARY KEY (n);
TRUNCATE t;
ALTER TABLE t ADD n int CONSTRAINT other_key UNIQUE, DROP CONSTRAINT t_pkey, ADD CONSTRAINT t_pkey PRIMARY KEY (n);
SELECT * FROM said();
DROP TABLE t;

-- By the type of a column; by the type of the table; domains and enums that change change no column.
CREATE TYPE colour AS ENUM ('red', 'green');
CREATE TABLE t (id colour PRIMARY KEY, a colour[], b with_default);
SELECT audit_enable('t');
ALTER TYPE colour RENAME VALUE 'red' TO 'rouge';
ALTER TYPE colour RENAME TO color;
ALTER DOMAIN with_default SET DEFAULT 12;
SELECT * FROM said();
DROP TYPE color CASCADE;
DROP DOMAIN with_default CASCADE;
SELECT * FROM said();
DROP TABLE t;
CREATE TYPE shape AS (a int, b text);
CREATE TABLE t OF shape (PRIMARY KEY (a));
INSERT INTO t VALUES (1, 'b');
SELECT audit_enable('t');
ALTER TYPE shape ADD ATTRIBUTE c int CASCADE;
ALTER TYPE shape RENAME ATTRIBUTE b TO bee CASCADE;
ALTER TYPE shape ALTER ATTRIBUTE bee TYPE varchar(9) CASCADE;
ALTER TYPE shape DROP ATTRIBUTE a CASCADE;
SELECT * FROM said();
ALTER TABLE t NOT OF;
DROP TYPE shape;
SELECT * FROM said();
DROP TABLE t;

-- Partitions: said of the table that is named, for all that are audited with it.
CREATE TABLE p (id int, a text, PRIMARY KEY (id)) PARTITION BY RANGE (id);
CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20) PARTITION BY RANGE (id);
CREATE TABLE p21 PARTITION OF p2 FOR VALUES FROM (10) TO (20);
INSERT INTO p VALUES (1, 'a'), (11, 'b');
SELECT audit_enable('p');
ALTER TABLE p ADD b int DEFAULT 3;
ALTER TABLE p RENAME a TO c;
ALTER TABLE p ALTER c TYPE varchar(5);
ALTER TABLE p DROP c, ADD c numeric;
ALTER TABLE p DROP CONSTRAINT p_pkey;
ALTER TABLE p ADD PRIMARY KEY (id);
SELECT * FROM said();
-- A key of one partition, then of all.
ALTER TABLE p DROP CONSTRAINT p_pkey;
ALTER TABLE p1 ADD CONSTRAINT p1_key PRIMARY KEY (id);
ALTER TABLE p ADD PRIMARY KEY (id);
SELECT * FROM said();
-- Attaching gives a table that is audited by itself a key.
CREATE TABLE p3 (id int NOT NULL, b int DEFAULT 3, c numeric);
INSERT INTO p3 VALUES (21, 1, 1);
SELECT audit_enable('p3', baseline => true);
ALTER TABLE p ATTACH PARTITION p3 FOR VALUES FROM (20) TO (30);
ALTER TABLE p ADD d int;
SELECT * FROM said();
ALTER TABLE p DETACH PARTITION p3;
ALTER TABLE p3 DROP d;
ALTER TABLE p DROP d;
SELECT * FROM said();
DROP TABLE p, p3;
SELECT FROM said();

-- Children: what has become of them may be something else than what has become of the table above them.
CREATE TABLE parent (id int PRIMARY KEY, a text, b int);
CREATE TABLE child (b int, own text) INHERITS (parent);
CREATE TABLE grandchild () INHERITS (child);
INSERT INTO child VALUES (1, 'a', 2, 'o');
SELECT audit_enable('parent');
ALTER TABLE parent ADD own text DEFAULT 'p';
ALTER TABLE parent RENAME a TO aa;
ALTER TABLE ONLY parent DROP b;
ALTER TABLE parent DROP CONSTRAINT parent_pkey;
ALTER TABLE child DROP b;
ALTER TABLE ONLY child RENAME own TO mine;
ALTER TABLE child RENAME own TO mine;
ALTER TABLE child ADD more int;
SELECT * FROM said();
-- Below two tables that are audited each.
CREATE TABLE other (id int, x int);
SELECT audit_enable('other');
ALTER TABLE grandchild INHERIT other;
ALTER TABLE grandchild ADD x int;
ALTER TABLE grandchild INHERIT other;
ALTER TABLE other RENAME x TO y;
ALTER TABLE parent RENAME own TO mine;
SELECT * FROM said();
-- A table above them that is not audited.
CREATE TABLE top (id int, z int);
CREATE TABLE below () INHERITS (top);
SELECT audit_enable('below');
ALTER TABLE top RENAME z TO zz;
ALTER TABLE top ADD y int;
SELECT * FROM said();
DROP TABLE parent, other, top CASCADE;
SELECT FROM said();

-- Excluded and masked columns are followed.
CREATE TABLE t (id int PRIMARY KEY, secret text, hidden text);
SELECT audit_enable('t', exclude_columns => '{secret}', mask_columns => '{hidden}');
ALTER TABLE t RENAME secret TO s;
ALTER TABLE t RENAME hidden TO secret;
ALTER TABLE t RENAME s TO hidden;
SELECT * FROM said();
INSERT INTO t VALUES (1, 'masked', 'excluded');
SELECT new_row FROM audit_log WHERE operation = 'INSERT' ORDER BY seq DESC LIMIT 1;
-- An event trigger alters the table that a command alters. Its command ends first.
CREATE FUNCTION alter_again() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('test.again', true) <> '' THEN
        SET test.again = '';
        BEGIN
            ALTER TABLE t ADD gone int;
            RAISE EXCEPTION 'undone';
        EXCEPTION WHEN raise_exception THEN
            NULL;
        END;
        ALTER TABLE t RENAME x TO xx;
        ALTER TABLE t ADD added int DEFAULT 9;
    END IF;
END
$$;
CREATE EVENT TRIGGER again ON ddl_command_end EXECUTE FUNCTION alter_again();
CREATE EVENT TRIGGER aa_again ON ddl_command_end WHEN TAG IN ('ALTER TABLE') EXECUTE FUNCTION alter_again();
DROP EVENT TRIGGER again;
SET test.again = 'yes';
ALTER TABLE t RENAME hidden TO x;
SELECT * FROM said();
INSERT INTO t VALUES (2, 'masked', 'excluded');
SELECT new_row FROM audit_log WHERE operation = 'INSERT' ORDER BY seq DESC LIMIT 1;
DROP EVENT TRIGGER aa_again;
DROP TABLE t;

-- ENABLE entries: complete if all rows are in the log.
SELECT FROM said();
CREATE TABLE e (id int PRIMARY KEY);
CREATE TABLE f (id int PRIMARY KEY);
INSERT INTO f VALUES (1);
SELECT audit_enable('e');
SELECT audit_enable('f');
SELECT audit_enable('f', skip_unchanged => true);
SELECT audit_enable('f', baseline => true);
ALTER TABLE f RENAME TO g;
ALTER TABLE g RENAME TO f;
SELECT * FROM said();
DELETE FROM f;
SELECT audit_enable('f', skip_unchanged => true);
INSERT INTO f VALUES (1);
SELECT audit_enable('f');
SELECT * FROM said();
CREATE TABLE fp (id int) PARTITION BY RANGE (id);
CREATE TABLE fp1 PARTITION OF fp FOR VALUES FROM (0) TO (10);
SELECT audit_enable('fp');
CREATE TABLE fp2 PARTITION OF fp FOR VALUES FROM (10) TO (20);
CREATE TABLE fp3 (id int);
INSERT INTO fp3 VALUES (21);
ALTER TABLE fp ATTACH PARTITION fp3 FOR VALUES FROM (20) TO (30);
ALTER TABLE fp DETACH PARTITION fp2;
SELECT * FROM said();
SELECT audit_disable('fp', 'test');
SELECT audit_enable('fp');
SELECT * FROM said();
CREATE SCHEMA s;
SELECT audit_enable_schema('s');
CREATE TABLE s.new (id int);
CREATE TABLE s.filled AS SELECT 1 AS id;
CREATE TABLE moved (id int);
INSERT INTO moved VALUES (1);
ALTER TABLE moved SET SCHEMA s;
CREATE TABLE emptied (id int);
INSERT INTO emptied VALUES (1);
DELETE FROM emptied;
ALTER TABLE emptied SET SCHEMA s;
SELECT * FROM said();
SELECT valid, problems FROM audit_verify();

-- Commands that no event trigger announces: said when the transaction commits.
CREATE TABLE u (id int PRIMARY KEY, a text, b text, c text);
SELECT audit_enable('u', exclude_columns => '{a}');
SELECT FROM said();
ALTER EVENT TRIGGER audit_chain_ddl_start DISABLE;
ALTER EVENT TRIGGER audit_chain_ddl_end DISABLE;
ALTER EVENT TRIGGER audit_chain_drop DISABLE;
BEGIN;
ALTER TABLE u RENAME a TO x;
SAVEPOINT s;
ALTER TABLE u ADD y int DEFAULT 4;
ROLLBACK TO s;
ALTER TABLE u ADD z int DEFAULT 4;
RELEASE s;
ALTER TABLE u DROP c;
COMMIT;
ALTER TABLE u DROP b;
INSERT INTO u VALUES (1, 'excluded', 2);
SELECT * FROM said();
SELECT new_row FROM audit_log WHERE operation = 'INSERT' ORDER BY seq DESC LIMIT 1;
ALTER EVENT TRIGGER audit_chain_ddl_start ENABLE ALWAYS;
ALTER EVENT TRIGGER audit_chain_ddl_end ENABLE ALWAYS;
ALTER EVENT TRIGGER audit_chain_drop ENABLE ALWAYS;
SELECT valid, problems FROM audit_verify();
DROP SCHEMA s CASCADE;
