-- What is recorded: exclude_columns, mask_columns, skip_unchanged, large values; and what the application adds.
\getenv srcdir PG_ABS_SRCDIR
\set setup :srcdir '/setup.sql'
\i :setup

CREATE TABLE people (id int PRIMARY KEY, name text, password text, card text, note text);
SELECT audit_enable('people', exclude_columns => '{password}', mask_columns => '{card}', skip_unchanged => true);
SELECT detail -> 'options' AS options FROM audit_log;
SELECT count(*) FROM news();
INSERT INTO people VALUES (1, 'Ann', 'secret1', '4111', 'x'), (2, 'Bob', 'secret2', NULL, NULL);
UPDATE people SET name = 'Anne' WHERE id = 1;
-- Of a masked column: that it changed. Of an excluded one: nothing, and with skip_unchanged not even that.
UPDATE people SET card = '4222' WHERE id = 1;
UPDATE people SET password = 'secret3';
UPDATE people SET name = name, card = card, note = note;
UPDATE people SET password = 'secret4', note = 'y' WHERE id = 1;
DELETE FROM people WHERE id = 1;
SELECT * FROM news();
-- Without skip_unchanged a change of nothing recorded is an entry.
SELECT audit_enable('people', exclude_columns => '{password}', mask_columns => '{card}');
UPDATE people SET password = 'secret5' WHERE id = 2;
SELECT * FROM news();
SELECT count(*) AS leaks FROM audit_log WHERE concat(row_key, old_row, new_row, detail, statement) ~ 'secret|4111|4222';
-- Columns renamed, dropped, swapped: what must not be recorded is not, under its new name.
ALTER TABLE people RENAME password TO passphrase;
UPDATE people SET passphrase = 'secret6' WHERE id = 2;
ALTER TABLE people RENAME card TO account;
UPDATE people SET account = '4333' WHERE id = 2;
SELECT operation, new_row, detail -> 'options' AS options, detail ->> 'reason' AS reason FROM audit_log WHERE operation IN ('ENABLE', 'UPDATE') ORDER BY seq DESC LIMIT 4;
BEGIN;
ALTER TABLE people RENAME name TO tmp;
ALTER TABLE people RENAME passphrase TO name;
ALTER TABLE people RENAME tmp TO passphrase;
UPDATE people SET name = 'secret7', passphrase = 'public' WHERE id = 2;
COMMIT;
SELECT new_row FROM audit_log ORDER BY seq DESC LIMIT 1;
BEGIN;
ALTER TABLE people RENAME name TO other;
UPDATE people SET other = 'secret8';
ROLLBACK;
UPDATE people SET name = 'secret9';
ALTER TABLE people DROP name;
ALTER TABLE people ADD name text;
UPDATE people SET name = 'public again';
SELECT new_row FROM audit_log ORDER BY seq DESC LIMIT 1;
SELECT count(*) AS leaks FROM audit_log WHERE concat(row_key, old_row, new_row, detail, statement) ~ 'secret|4111|4222|4333';
-- Past the event triggers (a superuser's force): followed at the commit where the library is loaded; otherwise capture fails closed.
SELECT audit_enable('people', exclude_columns => '{note}');
ALTER EVENT TRIGGER audit_chain_ddl_start DISABLE;
ALTER EVENT TRIGGER audit_chain_ddl_end DISABLE;
ALTER TABLE people RENAME note TO comment;
UPDATE people SET comment = 'secret9';
\c -
SET search_path = app, public;
ALTER TABLE people RENAME comment TO remark;
ALTER EVENT TRIGGER audit_chain_ddl_start ENABLE ALWAYS;
ALTER EVENT TRIGGER audit_chain_ddl_end ENABLE ALWAYS;
UPDATE people SET remark = 'secret10';
SELECT audit_enable('people', exclude_columns => '{remark}');
UPDATE people SET remark = 'secret11';
SELECT count(*) AS leaks FROM audit_log WHERE concat(row_key, old_row, new_row, detail, statement) ~ 'secret';
-- Excluded from a partitioned and from an inheriting table: everywhere.
CREATE TABLE parts (id int, secret text, PRIMARY KEY (id)) PARTITION BY RANGE (id);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
CREATE TABLE base (id int PRIMARY KEY, secret text);
CREATE TABLE derived (more text) INHERITS (base);
SELECT audit_enable('parts', exclude_columns => '{secret}'), audit_enable('base', exclude_columns => '{secret}');
CREATE TABLE parts_2 (secret text, id int NOT NULL);
ALTER TABLE parts ATTACH PARTITION parts_2 FOR VALUES FROM (10) TO (20);
CREATE TABLE derived2 () INHERITS (base);
SELECT max(seq) AS seen FROM audit_log \gset
INSERT INTO parts VALUES (1, 'secret12'), (11, 'secret13');
INSERT INTO derived VALUES (1, 'secret14', 'm');
INSERT INTO derived2 VALUES (1, 'secret15');
ALTER TABLE parts RENAME secret TO hidden;
ALTER TABLE base RENAME secret TO hidden;
INSERT INTO parts VALUES (2, 'secret16'), (12, 'secret17');
INSERT INTO derived VALUES (2, 'secret18', 'm');
INSERT INTO derived2 VALUES (2, 'secret19');
SELECT table_name, new_row FROM audit_log WHERE operation = 'INSERT' AND seq > :seen ORDER BY seq;
SELECT count(*) AS leaks FROM audit_log WHERE concat(row_key, old_row, new_row, detail, statement) ~ 'secret[0-9]';

-- Values beyond audit_chain.max_value_size: their digest and length. Of a bytea its bytes, of all else its text.
CREATE TABLE large (id int PRIMARY KEY, t text, b bytea, j jsonb, a int[]);
SELECT audit_enable('large');
SET audit_chain.max_value_size = '1kB';
INSERT INTO large VALUES (1, repeat('x', 1024), repeat('x', 1024)::bytea, '{}', '{}'), (2, repeat('x', 1025), repeat('x', 1025)::bytea, NULL, NULL);
INSERT INTO large VALUES (3, 'small', '\x00', jsonb_build_object('k', repeat('y', 2000)), array_fill(1, ARRAY[1000]));
SELECT length(new_row ->> 't') AS t, length(new_row ->> 'b') AS b FROM audit_log WHERE table_name = 'large' AND row_key ->> 'id' = '1';
SELECT new_row FROM audit_log WHERE table_name = 'large' AND row_key ->> 'id' IN ('2', '3') ORDER BY seq;
SELECT new_row #>> '{t,sha256}' = encode(sha256(convert_to(t, 'UTF8')), 'hex') AS t, new_row #>> '{b,sha256}' = encode(sha256(b), 'hex') AS b
FROM large, audit_log WHERE id = 2 AND table_name = 'large' AND row_key ->> 'id' = '2';
SELECT new_row #>> '{j,sha256}' = encode(sha256(convert_to(j::text, 'UTF8')), 'hex') AS j, new_row #>> '{a,sha256}' = encode(sha256(convert_to(a::text, 'UTF8')), 'hex') AS a
FROM large, audit_log WHERE id = 3 AND table_name = 'large' AND row_key ->> 'id' = '3';
UPDATE large SET t = 'now small' WHERE id = 2;
SELECT old_row, new_row -> 't' AS t FROM audit_log ORDER BY seq DESC LIMIT 1;
RESET audit_chain.max_value_size;

-- The application's context: an object that stands in every entry's detail.
CREATE TABLE t (id int PRIMARY KEY);
SELECT audit_enable('t');
SET audit_chain.context = '{"request": "7f3a", "ip": "192.0.2.1"}';
INSERT INTO t VALUES (1);
SELECT audit_event('called', '{"n": 1}');
INSERT INTO parts VALUES (3, 'hidden');
BEGIN;
SET LOCAL audit_chain.context = '{"request": "local"}';
INSERT INTO t VALUES (2);
COMMIT;
RESET audit_chain.context;
INSERT INTO t VALUES (3);
SELECT operation, table_name, detail FROM audit_log ORDER BY seq DESC LIMIT 5;
SET audit_chain.context = '[1]';
SET audit_chain.context = '"text"';
SET audit_chain.context = 'nonsense';
SET audit_chain.context = '';
INSERT INTO t VALUES (4);
SELECT detail FROM audit_log ORDER BY seq DESC LIMIT 1;
SELECT set_config('audit_chain.context', format('{"x":"%s"}', repeat('x', 70000)), false) IS NULL;
-- The actor from another setting.
SET audit_chain.actor_setting = 'request.jwt.claims';
INSERT INTO t VALUES (5);
SET request.jwt.claims = '{"sub":"alice"}';
INSERT INTO t VALUES (6);
SET audit_chain.actor = 'explicit';
INSERT INTO t VALUES (7);
RESET audit_chain.actor;
-- A long one is cut: a write is never refused because of it.
SELECT set_config('request.jwt.claims', repeat('x', 8191) || 'ÄÄ', false) IS NOT NULL;
INSERT INTO t VALUES (8);
RESET audit_chain.actor_setting;
SELECT row_key ->> 'id' AS id, right(actor, 40) AS actor FROM audit_log
WHERE table_name = 't' AND (row_key ->> 'id')::int > 4 ORDER BY seq;
-- The actor from a JSON document in another setting.
CREATE TABLE claims (id int GENERATED ALWAYS AS IDENTITY, path text, document text);
GRANT SELECT ON claims TO PUBLIC;
INSERT INTO claims (path, document) VALUES
    ('request.jwt.claims ->> sub', '{"sub":"alice","big":1e400,"half":"\ud834","other":{"sub":"x"}}'),
    ('request.jwt.claims->>sub', ' { "sub" : "caf\u00e9 \"x\"" } '),
    ('request.jwt.claims -> user -> names ->> last', '{"user":{"names":{"first":"A","last":"B"}}}'),
    ('request.jwt.claims->''a b''->>''it''''s -> "x"''', '{"a b":{"it''s -> \"x\"":"found"}}'),
    ('request.jwt.claims ->> sub', '{"sub":"first","sub":"last"}'),
    ('request.jwt.claims ->> n', '{"n":1.50}'), ('request.jwt.claims ->> n', '{"n":true}'),
    ('request.jwt.claims ->> n', '{"n":null}'), ('request.jwt.claims ->> n', '{"n":""}'),
    ('request.jwt.claims ->> n', '{"n":{"a" :1}}'), ('request.jwt.claims ->> n', '{"m":1}'),
    ('request.jwt.claims ->> sub', '{"sub":"a\u0000b"}'),
    ('request.jwt.claims ->> sub', '{"sub":"x"} trailing'), ('request.jwt.claims ->> sub', '{"sub":"x"'),
    ('request.jwt.claims ->> sub', '["sub"]'), ('request.jwt.claims ->> sub', 'x'), ('request.jwt.claims ->> sub', ''),
    ('request.jwt.claims -> a ->> b', '{"a":1}'), ('other.setting ->> sub', '{"sub":"x"}'),
    ('request.jwt.claims ->> sub', '{"pad":"' || repeat('x', 20000) || '","sub":"behind much"}'),
    ('request.jwt.claims ->> sub', '{"sub":"' || repeat('y', 8193) || '"}');
DO $$
DECLARE
    c record;
BEGIN
    FOR c IN SELECT * FROM claims ORDER BY id LOOP
        PERFORM set_config('audit_chain.actor_setting', c.path, true), set_config('request.jwt.claims', c.document, true);
        INSERT INTO t VALUES (c.id + 100), (c.id + 200);
    END LOOP;
END
$$;
SELECT c.id, c.path, left(c.document, 60) AS document, right(l.actor, 50) AS actor
FROM claims c JOIN audit_log l ON l.table_name = 't' AND (l.row_key ->> 'id')::int = c.id + 200 ORDER BY c.id;
SELECT count(*) FROM audit_log a JOIN audit_log b ON (b.row_key ->> 'id')::int = (a.row_key ->> 'id')::int + 100
WHERE a.table_name = 't' AND b.table_name = 't' AND (a.row_key ->> 'id')::int BETWEEN 101 AND 199
  AND a.actor IS DISTINCT FROM b.actor;
-- A path that is none is refused when it is set.
SET audit_chain.actor_setting = 'a.b ->> ';
SET audit_chain.actor_setting = 'a.b -> c';
SET audit_chain.actor_setting = 'a.b ->> c ->> d';
SET audit_chain.actor_setting = ' ->> c';
SET audit_chain.actor_setting = 'a b';
SET audit_chain.actor_setting = 'a.b ->> c d';
SET audit_chain.actor_setting = 'a.b ->> ''c';
SET audit_chain.actor_setting = '{"a":1}';
SHOW audit_chain.actor_setting;
-- A statement and a name that are too long.
SET audit_chain.log_statement = on;
SELECT format('INSERT INTO t VALUES (300) /* %s */', repeat('é', 600000)) AS query \gset
:query;
RESET audit_chain.log_statement;
SELECT left(statement, 30), octet_length(statement), right(statement, 40)
FROM audit_log WHERE (row_key ->> 'id')::int = 300;
SELECT audit_event(repeat('x', 1048577));
SELECT audit_disable('t', repeat('x', 8193));
SELECT audit_enable_schema('app', exclude_tables => ARRAY[repeat('x', 40000), repeat('y', 40000)]);
SELECT valid, problems FROM audit_verify();

-- A column that is not recorded becomes the key, or a part of it: the DDL goes on, with a warning, and is told.
CREATE TABLE keyed (id int, ssn text, note text, UNIQUE (ssn));
CREATE TABLE keyed_child () INHERITS (keyed);
SELECT audit_enable('keyed', exclude_columns => '{ssn}', mask_columns => '{note}');
ALTER TABLE keyed ADD PRIMARY KEY (id, ssn) INCLUDE (note);
INSERT INTO keyed VALUES (1, 'secret', 'x');
SELECT row_key FROM audit_log WHERE operation = 'INSERT' AND table_name = 'keyed';
SELECT detail -> 'key_left_out' AS key_left_out FROM audit_log WHERE operation = 'DDL' AND table_name = 'keyed' ORDER BY seq;
SELECT table_name, state, key_left_out FROM audit_coverage WHERE table_name LIKE 'keyed%' ORDER BY 1;
-- No warning for other DDL, nor for a key that is recorded.
ALTER TABLE keyed ADD x int, ADD CHECK (x > 0);
ALTER TABLE keyed DROP CONSTRAINT keyed_pkey;
CREATE UNIQUE INDEX masked ON keyed (note);
ALTER TABLE keyed ALTER note SET NOT NULL;
ALTER TABLE keyed ADD CONSTRAINT keyed_pkey PRIMARY KEY USING INDEX masked;
SELECT table_name, key_left_out FROM audit_coverage WHERE table_name = 'keyed';
SELECT audit_enable('keyed', mask_columns => '{note}');
SELECT audit_enable('keyed');
SELECT table_name, key_left_out FROM audit_coverage WHERE table_name = 'keyed';
-- A table gets options from one above it that leave out its own key.
ALTER TABLE keyed_child ADD PRIMARY KEY (ssn);
SELECT audit_enable('keyed', exclude_columns => '{ssn}');
SELECT table_name, key_left_out FROM audit_coverage WHERE table_name LIKE 'keyed%' ORDER BY 1;
SELECT valid, problems FROM audit_verify();
