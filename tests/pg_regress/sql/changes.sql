-- History for people: what a transaction did, what somebody did, and the newest changes.
\getenv srcdir PG_ABS_SRCDIR
\set setup :srcdir '/setup.sql'
\i :setup
-- The times of the log are not told.
\set VERBOSITY terse

CREATE ROLE regress_alice;
CREATE ROLE regress_reader;
CREATE ROLE regress_nobody;
GRANT USAGE ON SCHEMA app TO PUBLIC;
CREATE TABLE t (id int PRIMARY KEY, a text, n numeric, big text, hidden text, secret text);
ALTER TABLE t ALTER big SET STORAGE EXTERNAL;
CREATE TABLE "T 2" (x int, y int, PRIMARY KEY (y, x));
GRANT ALL ON t, "T 2" TO regress_alice;
SELECT audit_enable('t', mask_columns => '{hidden}', exclude_columns => '{secret}');
SELECT audit_enable('"T 2"');

-- A transaction with savepoints, several tables and kinds of entries; also before it ends, and by each type of its ID.
BEGIN;
SELECT pg_current_xact_id() AS xid \gset
INSERT INTO t VALUES (1, 'a', 1.50, repeat('x', 3000), 'h', 's'), (2, E'"\u00e9\n', 'NaN', NULL, 'h', 's');
SAVEPOINT one;
UPDATE t SET a = 'b', n = 1.500, hidden = 'other' WHERE id = 1;
INSERT INTO "T 2" VALUES (1, 2);
SAVEPOINT two;
DELETE FROM t;
ROLLBACK TO two;
RELEASE one;
UPDATE t SET n = n WHERE id = 2;
SELECT operation, row_key FROM audit_transaction(:'xid');
DELETE FROM t WHERE id = 2;
SELECT audit_event('said', '{"why": "x"}');
TRUNCATE "T 2";
ALTER TABLE "T 2" ADD z int;
COMMIT;
SELECT operation, "table", row_key, replace(changed::text, repeat('x', 3000), '...') AS changed, detail ->> 'object' AS object
FROM audit_transaction(:xid);
SELECT count(*) FROM audit_transaction(:'xid'::xid8);
SELECT count(*) FROM audit_transaction(:'xid'::text);
SELECT bool_and(seq = first + n - 1) AS in_order, count(*) FROM
    (SELECT seq, min(seq) OVER () AS first, n FROM audit_transaction(:xid) WITH ORDINALITY
     AS r(at, operation, "table", row_key, changed, actor, session_role, effective_role, client_addr, application_name, detail,
          chain, seq, n)) e;
SELECT (changed -> 'n' ->> 'new')::numeric, changed -> 'hidden' AS hidden, changed -> 'big' IS NULL AS left_as_it_was, changed -> 'secret' AS secret
FROM audit_transaction(:xid) WHERE operation = 'UPDATE' LIMIT 1;
SELECT session_role = session_user AS session_role, effective_role = current_user AS effective_role, client_addr, application_name
FROM audit_transaction(:xid) LIMIT 1;

-- What is no transaction here, and what is none at all.
BEGIN;
SELECT pg_current_xact_id() AS undone \gset
INSERT INTO t VALUES (3);
ROLLBACK;
SET client_min_messages = warning;
SELECT count(*) FROM audit_transaction(:undone);
RESET client_min_messages;
SELECT count(*) FROM audit_transaction('18446744073709551615');
SELECT count(*) FROM audit_transaction(0);
SELECT count(*) FROM audit_transaction(-1);
SELECT count(*) FROM audit_transaction('18446744073709551616');
SELECT count(*) FROM audit_transaction('x');
SELECT count(*) FROM audit_transaction('');
SELECT count(*) FROM audit_transaction(NULL::bigint);
SELECT count(*) FROM audit_transaction(NULL::text);
SELECT count(*) FROM audit_transaction(NULL::xid8);

-- By an actor, by the role that logged in, by the role that acted.
SET audit_chain.actor = 'Zoë "x"';
INSERT INTO t VALUES (10);
SET ROLE regress_alice;
INSERT INTO t VALUES (11);
RESET audit_chain.actor;
INSERT INTO t VALUES (12);
RESET ROLE;
SET audit_chain.actor = 'regress_alice';
INSERT INTO t VALUES (13);
SET ROLE regress_alice;
INSERT INTO t VALUES (14);
RESET ROLE;
RESET audit_chain.actor;
SELECT row_key, actor, effective_role = current_user AS own FROM audit_by('Zoë "x"');
SELECT row_key, actor, effective_role FROM audit_by('regress_alice') WHERE row_key IS NOT NULL;
SELECT count(*) = (SELECT count(*) FROM audit_log) AS all FROM audit_by(session_user);
SELECT * FROM audit_by('regress_ali');
SELECT * FROM audit_by('');
SELECT * FROM audit_by(NULL);
-- A time: from its beginning on, and before its end.
SELECT at FROM audit_by('regress_alice') WHERE (row_key ->> 'id') = '12' \gset
SELECT at AS end FROM audit_by('regress_alice') WHERE (row_key ->> 'id') = '14' \gset
SELECT row_key FROM audit_by('regress_alice', :'at', :'end');
SELECT row_key FROM audit_by('regress_alice', :'at');
SELECT row_key FROM audit_by('regress_alice', until => :'at');
SELECT row_key FROM audit_by('regress_alice', :'end', :'at');
SELECT count(*) FROM audit_by('regress_alice', '-infinity', 'infinity');
SELECT count(*) FROM audit_by('regress_alice', 'infinity');
SELECT count(*) FROM audit_by('regress_alice', until => '-infinity');

-- In segments: open, closed, sealed without indexes, sealed with them. The answers are the same.
SET client_min_messages = warning;
CREATE TABLE answers AS
    SELECT 'open' AS state, 'transaction' AS what, array_agg(format('%s %s %s', chain, seq, changed)) AS answer FROM audit_transaction(:xid)
    UNION ALL SELECT 'open', 'alice', array_agg(format('%s %s %s', chain, seq, xid)) FROM audit_by('regress_alice')
    UNION ALL SELECT 'open', 'time', array_agg(format('%s %s %s', chain, seq, xid)) FROM audit_by('regress_alice', :'at', :'end')
    UNION ALL SELECT 'open', 'none', (SELECT array_agg(seq::text) FROM audit_transaction(:undone));
CREATE FUNCTION same(now text, xid bigint, undone bigint, since timestamptz, until timestamptz) RETURNS TABLE (what text, same boolean)
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO app.answers
        SELECT now, 'transaction', array_agg(format('%s %s %s', chain, seq, changed)) FROM audit_transaction(xid)
        UNION ALL SELECT now, 'alice', array_agg(format('%s %s %s', r.chain, r.seq, r.xid)) FROM audit_by('regress_alice') r
        UNION ALL SELECT now, 'time', array_agg(format('%s %s %s', r.chain, r.seq, r.xid)) FROM audit_by('regress_alice', since, until) r
        UNION ALL SELECT now, 'none', (SELECT array_agg(seq::text) FROM audit_transaction(undone));
    RETURN QUERY SELECT a.what, a.answer IS NOT DISTINCT FROM o.answer FROM app.answers a JOIN app.answers o USING (what)
        WHERE a.state = now AND o.state = 'open' ORDER BY 1;
END
$$;
SELECT what, cardinality(answer) FROM answers ORDER BY 1;
SELECT audit_rotate();
SELECT * FROM same('closed', :xid, :undone, :'at', :'end');
INSERT INTO t VALUES (20);
SELECT audit_seal();
DROP INDEX IF EXISTS audit_log_0001_xid, audit_log_0001_actor, audit_log_0001_session_role, audit_log_0001_effective_role;
SELECT * FROM same('sealed', :xid, :undone, :'at', :'end');
-- An index that only has the name is not used.
CREATE INDEX audit_log_0001_xid ON ONLY audit_log (seq);
CREATE INDEX audit_log_0001_actor ON ONLY audit_log (at, actor);
SELECT * FROM same('odd', :xid, :undone, :'at', :'end');
DROP INDEX audit_log_0001_xid, audit_log_0001_actor;
CREATE INDEX audit_log_0001_xid ON ONLY audit_log (xid);
SELECT * FROM same('xid', :xid, :undone, :'at', :'end');
CREATE INDEX audit_log_0001_actor ON ONLY audit_log (actor, at) WHERE octet_length(actor) <= 2000;
CREATE INDEX audit_log_0001_session_role ON ONLY audit_log (session_role, at);
CREATE INDEX audit_log_0001_effective_role ON ONLY audit_log (effective_role, at) WHERE effective_role <> session_role;
SELECT * FROM same('indexed', :xid, :undone, :'at', :'end');
SELECT operation, row_key FROM audit_by(session_user) ORDER BY at DESC LIMIT 1;
SELECT xid AS newest FROM audit_by(session_user) WHERE row_key ->> 'id' = '20' \gset
SELECT operation, row_key FROM audit_transaction(:newest);

RESET client_min_messages;

-- A transaction with many entries.
CREATE TABLE many (id int PRIMARY KEY);
SELECT audit_enable('many');
INSERT INTO many SELECT g FROM generate_series(1, 300) g;
SELECT count(*), min(seq) + 300 > max(seq) AS contiguous FROM audit_transaction((SELECT xid FROM audit_log WHERE table_name = 'many' AND operation = 'INSERT' LIMIT 1));

-- Erased entries remain, without what was erased.
SELECT state, erased, entries FROM audit_erase('t', '{"id": 14}', 'test', dry_run => false);
SELECT operation, "table", row_key, changed, effective_role FROM audit_by('regress_alice', :'end');
SELECT state, erased, entries FROM audit_erase_actor('regress_alice', reason => 'test', dry_run => false);
SELECT operation, row_key, actor FROM audit_by('regress_alice');

-- The newest changes.
SELECT who = session_user AS own, operation, "table", key, changed FROM audit_changes WHERE operation IN ('INSERT', 'UPDATE', 'DELETE') AND
    "table" = 'app.t' LIMIT 2;
SELECT who, key FROM audit_changes WHERE who <> session_user ORDER BY at;
SELECT bool_and(at <= before) AS newest_first FROM (SELECT at, lag(at) OVER () AS before FROM audit_changes) c;
SELECT string_agg(format('%s %s', operation, changed), E'\n' ORDER BY chain, seq) =
    (SELECT string_agg(format('%s %s', operation, changed), E'\n') FROM audit_transaction(:xid)) AS same FROM audit_changes WHERE xid = :'xid'::xid8;
\d audit_changes
-- The newest ones come from the indexes of the segments.
CREATE INDEX ON audit_log (at);
CREATE INDEX ON audit_log_0002 (at);
SET enable_seqscan = off;
SET enable_sort = off;
EXPLAIN (COSTS OFF) SELECT * FROM audit_changes LIMIT 20;
RESET enable_seqscan;
RESET enable_sort;
SELECT _audit_changed(NULL, NULL), _audit_changed('[1]', NULL), _audit_changed('{"a": 1.50}', '{"b": 1, "a": [2]}');

-- Whoever may read the log may call the functions and read the view; nobody else. A right on the view alone gives nothing.
SET ROLE regress_nobody;
SELECT * FROM audit_transaction(:xid);
SELECT * FROM audit_by('regress_alice');
SELECT * FROM audit_changes;
RESET ROLE;
GRANT SELECT ON audit_log TO regress_reader;
SET ROLE regress_reader;
SELECT count(*) FROM audit_transaction(:xid);
SELECT count(*) > 0 AS reads FROM audit_by('regress_alice');
SELECT count(*) > 0 AS reads FROM audit_changes;
RESET ROLE;
REVOKE SELECT ON audit_log FROM regress_reader;
GRANT SELECT (at, chain, seq) ON audit_log TO regress_reader;
SET ROLE regress_reader;
SELECT count(*) FROM audit_transaction(:xid);
RESET ROLE;
DROP OWNED BY regress_alice, regress_reader;
DROP ROLE regress_alice, regress_reader, regress_nobody;

-- A document that is nested deeply is compared as its text.
CREATE TABLE nested (doc jsonb);
SELECT audit_enable('nested');
INSERT INTO nested SELECT (repeat('{"a": [', n) || '1' || repeat(']}', n))::jsonb FROM (VALUES (2), (2000)) v(n);
SELECT length(new_row::text) FROM audit_log WHERE table_name = 'nested' AND operation = 'INSERT' ORDER BY chain, seq;
SELECT n, (SELECT count(*) FROM audit_history('nested',
        jsonb_build_object('doc', (repeat('{"a": [', n) || value || repeat(']}', n))::jsonb))) AS changes
    FROM (VALUES (1, '{}'), (2, '1'), (2, '2'), (2000, '1'), (2000, '2')) v(n, value);
SELECT entries FROM audit_erase('nested', jsonb_build_object('doc', (repeat('{"a": [', 2000) || '1' || repeat(']}', 2000))::jsonb), 'reason',
    by_content => true);
DROP TABLE nested;

-- So is no context: whoever reads the detail of an entry reads all of it.
SELECT set_config('audit_chain.context', repeat('{"a": ', 100) || '1' || repeat('}', 100), false) IS NOT NULL AS is_set;
SELECT audit_event('deep');
SELECT set_config('audit_chain.context', repeat('{"a": ', 101) || '1' || repeat('}', 101), false);
RESET audit_chain.context;
