-- The indexes by which the history of rows is found: the ids that they store, and which segments have them.
\getenv srcdir PG_ABS_SRCDIR
\set setup :srcdir '/setup.sql'
\i :setup

SET audit_chain.keep_chain = off;
\set VERBOSITY terse
SHOW audit_chain.history_index;
SET audit_chain.history_index = 'all';

-- Ids. Every role may compute them.
CREATE ROLE regress_reader;
GRANT USAGE ON SCHEMA app TO regress_reader;
SET ROLE regress_reader;
SELECT audit_row_id('public', 'accounts', '{"id":1}') AS id, audit_row_id('public', 'accounts', '{"number":"1"}') AS renamed,
       audit_row_id('public', 'accounts', '{"id":2}') AS other, audit_row_id('public', 'accounts', NULL) AS without_key,
       audit_row_id('public', 'account', '{"id":1}') AS other_table;
SELECT audit_left_row_id('public', 'accounts', '{"id":2}', '{"id":1,"v":"x"}') = audit_row_id('public', 'accounts', '{"id":1}') AS has_left,
       audit_left_row_id('public', 'accounts', '{"a":1,"b":2}', '{"b":3}') = audit_row_id('public', 'accounts', '{"a":1,"b":3}') AS composite;
SELECT audit_left_row_id('public', 'accounts', '{"id":2}', '{"v":"x"}') AS unchanged,
       audit_left_row_id('public', 'accounts', '{"id":2}', NULL) AS no_old, audit_left_row_id('public', 'accounts', NULL, '{"id":2}') AS no_key;
-- Odd input is no error.
SELECT audit_row_id(NULL, 'accounts', '{"id":1}') AS no_schema, audit_row_id('public', NULL, '{"id":1}') AS no_table,
       audit_row_id('', '', '{}') IS NOT NULL AS empty, audit_row_id('s', 't', '[1]') = audit_row_id('s', 't', NULL) AS no_object,
       audit_row_id('s', 't', '{"id":"\ud800"}') <> audit_row_id('s', 't', '{"id":"\ud801"}') AS half_a_character,
       audit_left_row_id('s', 't', '[1]', '{"id":1}') AS odd, audit_left_row_id('s', 't', '{"id":1}', '"id"') AS odd_too,
       audit_left_row_id(NULL, NULL, NULL, NULL) AS nothing;
SELECT audit_row_id('s', 't', (repeat('[', 4000) || repeat(']', 4000))::json) = audit_row_id('s', 't', NULL) AS deep;
RESET ROLE;
SELECT p.oid::regprocedure AS function, p.provolatile, p.proparallel, p.proisstrict, obj_description(p.oid, 'pg_proc') IS NOT NULL AS described
FROM pg_proc p WHERE p.proname ~ '^audit_(left_)?row_id$' ORDER BY 1;

-- Entries of every kind.
CREATE TABLE t (id int PRIMARY KEY, v text);
CREATE TABLE no_key (v text);
CREATE TABLE pair (a text, b int, PRIMARY KEY (a, b));
SELECT audit_enable('t'), audit_enable('no_key'), audit_enable('pair');
INSERT INTO t SELECT g, 'v' || g FROM generate_series(1, 5) g;
UPDATE t SET id = 6, v = 'moved' WHERE id = 5;
UPDATE t SET v = 'changed' WHERE id = 6;
DELETE FROM t WHERE id = 6;
INSERT INTO no_key VALUES ('a'), ('b');
INSERT INTO pair VALUES ('x', 1), ('y', 1);
UPDATE pair SET b = 2 WHERE a = 'x';
TRUNCATE no_key;
ALTER TABLE t ADD w int;
SELECT audit_event('nothing of a table', '{}');
CREATE VIEW ids AS
    SELECT operation, table_name, row_key ->> 'id' AS id, audit_row_id(table_schema, table_name, row_key) AS row_id,
           audit_left_row_id(table_schema, table_name, row_key, old_row) AS left_id
    FROM audit_log ORDER BY chain, seq;
SELECT operation, table_name, id, length(row_id) = 8 AS without_key, row_id IS NULL AS no_table, left_id IS NOT NULL AS has_left FROM ids;
SELECT count(DISTINCT substr(row_id, 1, 8)) AS tables FROM ids;
SELECT (SELECT array_agg(operation) FROM ids WHERE row_id = audit_row_id('app', 't', '{"id":5}')) AS as_5,
       (SELECT array_agg(operation) FROM ids WHERE row_id = audit_row_id('app', 't', '{"id":6}')) AS as_6,
       (SELECT array_agg(operation) FROM ids WHERE left_id = audit_row_id('app', 't', '{"id":5}')) AS left_5;

-- Sealed segments get them, the open one does not.
CREATE VIEW indexes AS
    SELECT tablename, indexname, regexp_replace(indexdef, '^.* USING ', '') AS definition FROM pg_indexes
    WHERE tablename ~ '^audit_log(_\d+)?$' AND indexname !~ 'pkey' ORDER BY tablename, indexname;
CALL audit_maintain();
SELECT * FROM indexes;
SELECT audit_rotate();
UPDATE t SET v = 'second' WHERE id = 1;
SELECT audit_rotate();
UPDATE t SET v = 'third' WHERE id = 1;
SELECT audit_seal();
SELECT * FROM indexes;
CALL audit_maintain();
SELECT * FROM indexes;
CREATE TABLE first AS SELECT indexrelid FROM pg_index WHERE indrelid::regclass::text ~ '^audit_log';
CALL audit_maintain();
SELECT count(*) AS made_again FROM pg_index WHERE indrelid::regclass::text ~ '^audit_log' AND indexrelid NOT IN (SELECT indexrelid FROM first);
-- What the extension makes is no entry.
SELECT operation, detail ->> 'tag' AS tag, detail ->> 'object' AS object FROM audit_log WHERE operation = 'DDL' ORDER BY chain, seq;
-- audit_log has them as the first segment: another one does not inherit them.
SELECT audit_rotate();
SELECT count(*) FROM indexes WHERE tablename = 'audit_log_0004';
SELECT valid, problems FROM audit_verify();

-- Queries use them.
SET enable_seqscan = off;
SET enable_sort = off;
CREATE FUNCTION uses(query text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    line text;
BEGIN
    FOR line IN EXECUTE 'EXPLAIN (COSTS OFF) ' || query LOOP
        RETURN QUERY SELECT m[1] FROM regexp_match(line, 'Index Scan (?:using|on) (audit_log_0\w+)') m WHERE m IS NOT NULL;
    END LOOP;
END
$$;
SELECT uses($$SELECT * FROM audit_log_0002 WHERE audit_row_id(table_schema, table_name, row_key) = '\x01' AND table_name = 't'$$);
SELECT uses($$SELECT * FROM audit_log_0002 WHERE audit_left_row_id(table_schema, table_name, row_key, old_row) = '\x01'
              AND audit_left_row_id(table_schema, table_name, row_key, old_row) IS NOT NULL$$);
SELECT uses($$SELECT * FROM audit_log_0002 WHERE at > '2000-01-01' AND at < '2199-01-02' ORDER BY at$$);
SELECT uses($$SELECT * FROM audit_log_0002 WHERE xid = '9'$$);
SELECT uses($$SELECT * FROM audit_log_0002 WHERE actor = 'x' AND octet_length(actor) <= 2000 ORDER BY at$$);
SELECT uses($$SELECT * FROM audit_log_0002 WHERE session_role = 'x' ORDER BY at$$);
SELECT uses($$SELECT * FROM audit_log_0002 WHERE effective_role = 'x' AND effective_role <> session_role ORDER BY at$$);
RESET enable_seqscan;
RESET enable_sort;

-- A DBA's index serves as well, whatever it is called, with storage options and further columns; one of fewer entries, of other columns
-- or another order does not.
DROP INDEX audit_log_0002_xid, audit_log_0002_at, audit_log_0002_actor, audit_log_0002_session_role, audit_log_0002_effective_role;
CREATE INDEX "a USING b" ON audit_log_0002 (xid) INCLUDE (seq) WITH (fillfactor = 70);
CREATE INDEX ON audit_log_0002 (at) WHERE actor IS NOT NULL;
CREATE INDEX every_actor ON audit_log_0002 (actor, at);
CREATE INDEX audit_log_0002_session_role ON audit_log_0002 (session_role, at DESC);
CREATE INDEX ON audit_log_0002 (effective_role, at) WHERE effective_role <> session_role OR actor IS NULL;
CALL audit_maintain();
SELECT * FROM indexes WHERE tablename = 'audit_log_0002';
-- One of audit_log is a DBA's, unless it has the extension's name. It is added to all segments.
CREATE INDEX ON audit_log (table_name);
CREATE INDEX "b USING c" ON audit_log (at, seq);
CALL audit_maintain();
CALL audit_maintain();
SELECT audit_rotate();
SELECT tablename, definition FROM indexes WHERE definition ~ 'table_name\)$|seq';
SELECT tablename, count(*) FROM indexes GROUP BY 1 ORDER BY 1;
SELECT valid, problems FROM audit_verify();

-- An actor that is too long for an index is in none, and is found.
CREATE FUNCTION of_length(n integer) RETURNS text IMMUTABLE LANGUAGE sql AS $$
    SELECT left(string_agg(md5(g::text), ''), n) FROM generate_series(1, 300) g
$$;
SELECT n, set_config('audit_chain.actor', of_length(n), false) IS NOT NULL AS set, audit_event('long', to_json(n))
FROM unnest('{2000, 2001, 2700, 8192, 8193}'::integer[]) n;
RESET audit_chain.actor;
SELECT audit_rotate() > 0 AS rotated;
CALL audit_maintain();
SELECT count(*) FROM indexes WHERE tablename = (SELECT max(tablename) FROM indexes WHERE definition ~ 'octet_length');
SELECT n, count(*) FROM unnest('{2000, 2001, 2700, 8192}'::integer[]) n, audit_by(of_length(n)) GROUP BY 1 ORDER BY 1;
SELECT valid, problems FROM audit_verify();

-- The names of the extension's schema may be any.
SET client_min_messages = warning;
DROP EXTENSION audit_chain CASCADE;
CREATE SCHEMA "Odd ""schema";
CREATE EXTENSION audit_chain SCHEMA "Odd ""schema";
RESET client_min_messages;
SET search_path = app, "Odd ""schema";
SET quote_all_identifiers = on;
SELECT audit_enable('t');
INSERT INTO t VALUES (9, 'odd');
SELECT audit_rotate();
INSERT INTO t VALUES (10, 'odd');
SELECT audit_seal();
CALL audit_maintain();
CALL audit_maintain();
SELECT tablename, count(*) FROM pg_indexes WHERE schemaname ~ 'Odd' AND tablename ~ '^audit_log(_\d+)?$' GROUP BY 1 ORDER BY 1;
ALTER SCHEMA "Odd ""schema" RENAME TO plain;
SET search_path = app, plain;
CALL audit_maintain();
SELECT tablename, count(*) FROM pg_indexes WHERE schemaname = 'plain' AND tablename ~ '^audit_log(_\d+)?$' GROUP BY 1 ORDER BY 1;
SELECT valid, problems FROM audit_verify();
SET client_min_messages = warning;
DROP EXTENSION audit_chain CASCADE;
DROP SCHEMA app, plain CASCADE;
DROP ROLE regress_reader;
