-- audit_event(): what the application has to say, in the same log.
\getenv srcdir PG_ABS_SRCDIR
\set setup :srcdir '/setup.sql'
\i :setup

SET audit_chain.actor = 'alice';
SELECT audit_event('user.login', '{"ip": "192.0.2.1",  "ok":true}');
SELECT audit_event('api.call');
SELECT audit_event(action => 'named', detail => '[1, 2.50, null, "x"]');
SELECT audit_event('scalar', '"text"'), audit_event('number', '1e400'), audit_event('null', 'null');
SELECT audit_event(E'odd "name" \\ \n ☃', '{"\u0041": "\u2603"}');
-- Data stands as it was given, byte for byte.
SELECT seq, operation, table_schema, table_name, row_key, old_row, new_row, actor, detail FROM audit_log ORDER BY seq;
SELECT detail -> 'action' AS action, detail -> 'data' AS data FROM audit_log ORDER BY seq;
SELECT count(*) FROM audit_log WHERE detail ->> 'action' = E'odd "name" \\ \n ☃';

-- Refused: no name, no data, no JSON.
SELECT audit_event('');
SELECT audit_event(E' \t\n');
SELECT audit_event(NULL);
SELECT audit_event('x', NULL);
SELECT audit_event('x', '{"a":');
\set VERBOSITY sqlstate
SELECT audit_event('');
SELECT audit_event(NULL);
\set VERBOSITY default
SELECT max(seq), count(*) FROM audit_log;

-- It is as transactional as everything else.
BEGIN;
SELECT audit_event('lost');
ROLLBACK;
BEGIN;
SELECT audit_event('kept 1');
SAVEPOINT a;
SELECT audit_event('lost');
ROLLBACK TO a;
SELECT audit_event('kept 2');
COMMIT;
SELECT seq, detail ->> 'action' AS action FROM audit_log WHERE seq > 7 ORDER BY seq;
-- From functions, triggers, and for each row of a query.
SELECT count(*) FROM (SELECT audit_event('row ' || i, json_build_object('i', i)) FROM generate_series(1, 2500) i) t;
SELECT count(*), min((detail -> 'data' ->> 'i')::int), max((detail -> 'data' ->> 'i')::int) FROM audit_log WHERE detail ->> 'action' LIKE 'row %';
-- Large ones.
SELECT audit_event('large', to_json(repeat('x', 10000000)));
SELECT length(detail #>> '{data}') FROM audit_log WHERE detail ->> 'action' = 'large';
SELECT audit_event(repeat('n', 100000));
-- With auditing of a table, in one transaction: in order, in one chain.
CREATE TABLE t (id int);
SELECT audit_enable('t');
BEGIN;
SELECT audit_event('begin');
INSERT INTO t VALUES (1);
SELECT audit_event('between');
INSERT INTO t VALUES (2);
COMMIT;
SELECT operation, coalesce(detail ->> 'action', new_row ->> 'id') AS what FROM audit_log ORDER BY seq DESC LIMIT 4;
-- An event never names a table.
SELECT count(*) FROM audit_log WHERE operation = 'EVENT' AND (table_schema IS NOT NULL OR table_name IS NOT NULL);
SELECT valid, problems FROM audit_verify();
