-- audit_verify() and audit_problems(): their arguments, and every kind of tampering found.
\getenv srcdir PG_ABS_SRCDIR
\set setup :srcdir '/setup.sql'
\i :setup

-- An empty log is valid.
SELECT valid, entries, chains, problems FROM audit_verify();
SELECT * FROM audit_problems();
SELECT valid, entries, chains, problems FROM audit_verify(only_chain => 3);
SELECT valid, entries, chains, problems FROM audit_verify(since => 'infinity');

CREATE TABLE t (id int PRIMARY KEY, v text);
SELECT audit_enable('t');
SELECT valid, entries, chains, problems FROM audit_verify();
-- Three chains: a prepared transaction holds each of the first two while the next is begun.
SET audit_chain.actor = 'alice';
SET application_name = 'verify test';
BEGIN;
INSERT INTO t SELECT i, 'a' FROM generate_series(1, 9) i;
PREPARE TRANSACTION 'regress 1';
BEGIN;
INSERT INTO t SELECT i, 'b' FROM generate_series(11, 20) i;
PREPARE TRANSACTION 'regress 2';
INSERT INTO t SELECT i, 'c' FROM generate_series(21, 30) i;
COMMIT PREPARED 'regress 1';
COMMIT PREPARED 'regress 2';
SELECT chain, count(*), min(seq), max(seq) FROM audit_log GROUP BY chain ORDER BY chain;
SELECT valid, entries, chains, problems FROM audit_verify();
SELECT valid, entries, chains, problems FROM audit_verify(3);
SELECT valid, entries, chains, problems FROM audit_verify(only_chain => NULL);
SELECT valid, entries, chains, problems FROM audit_verify(only_chain => 7);
SELECT count(*) AS events FROM (SELECT pg_sleep(0.002), audit_event('a later one') FROM generate_series(1, 5)) e;
SELECT at AS noon FROM audit_log WHERE operation = 'EVENT' ORDER BY seq OFFSET 2 LIMIT 1 \gset
SELECT valid, entries, chains, problems FROM audit_verify(since => :'noon');
SELECT valid, entries, chains, problems FROM audit_verify(until => :'noon');
SELECT valid, entries, chains, problems FROM audit_verify(since => :'noon', until => :'noon');
SELECT valid, entries, chains, problems FROM audit_verify(only_chain => 1, since => :'noon');
SELECT valid, entries, chains, problems FROM audit_verify(since => :'noon', until => '2000-01-01');

-- The verdict in words.
SELECT summary FROM audit_verify(only_chain => 3);
SELECT summary LIKE 'intact: 35 entries in 3 chains%' AS intact FROM audit_verify();

-- Whoever gets past the guard is found. A superuser can; here each attempt is rolled back.
ALTER EVENT TRIGGER audit_chain_ddl_start DISABLE;
ALTER EVENT TRIGGER audit_chain_ddl_end DISABLE;
ALTER EVENT TRIGGER audit_chain_drop DISABLE;
ALTER TABLE audit_log DISABLE TRIGGER ALL;
-- The constraints: an entry has its who-part with the salt, or a digest.
CREATE FUNCTION pg_temp.refused(change text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE 'UPDATE audit_log SET ' || change || ' WHERE (chain, seq) = (3, 5)';
    RAISE 'not refused: %', change;
EXCEPTION WHEN check_violation THEN RETURN change;
END
$$;
SELECT pg_temp.refused(change) FROM unnest(ARRAY[
    $$who_salt = NULL$$, $$who_salt = '\x00'$$, $$who_digest = sha256('x')$$, $$session_role = NULL$$, $$effective_role = NULL$$,
    $$who_salt = NULL, who_digest = '\x00', session_role = NULL, effective_role = NULL, actor = NULL, application_name = NULL$$]) change;
SELECT pg_temp.refused('who_salt = NULL, who_digest = sha256(''x''), ' || string_agg(c || ' = ' || CASE
    WHEN c <> kept THEN 'NULL' WHEN c = 'client_addr' THEN '''192.0.2.1''' ELSE '''x''' END, ', ' ORDER BY n))
FROM unnest('{session_role,effective_role,actor,application_name,client_addr}'::text[]) kept,
    unnest('{session_role,effective_role,actor,application_name,client_addr}'::text[]) WITH ORDINALITY AS o(c, n) GROUP BY kept ORDER BY kept;
ALTER TABLE audit_log DROP CONSTRAINT audit_log_check;
ALTER TABLE audit_log DROP CONSTRAINT audit_log_check1;
ALTER TABLE audit_log_identity DISABLE TRIGGER ALL;
-- (Whether entries that change places are dated wrong as well depends on the clock's resolution.)
CREATE FUNCTION attempt(tampering text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    found text[];
    verdict record;
BEGIN
    BEGIN
        EXECUTE tampering;
        found := ARRAY(SELECT format('%s (%s, %s) %s', kind, chain, seq, table_name) FROM audit_problems()
                       WHERE kind <> 'clock' OR tampering LIKE '%hour%');
        SELECT * INTO verdict FROM audit_verify();
        RAISE 'undo' USING ERRCODE = 'XX999';
    EXCEPTION WHEN SQLSTATE 'XX999' THEN
        IF verdict.valid OR verdict.problems < cardinality(found) THEN
            RETURN NEXT format('audit_verify() says %s, %s problems', verdict.valid, verdict.problems);
        END IF;
        RETURN QUERY SELECT unnest(found);
    END;
END
$$;
-- Any field of an entry.
SELECT attempt($$UPDATE audit_log SET at = at + interval '1 microsecond' WHERE (chain, seq) = (3, 5)$$);
SELECT attempt($$UPDATE audit_log SET at = at - interval '1 hour' WHERE (chain, seq) = (3, 5)$$);
SELECT attempt($$UPDATE audit_log SET xid = '42' WHERE (chain, seq) = (3, 5)$$);
SELECT attempt($$UPDATE audit_log SET operation = 'UPDATE' WHERE (chain, seq) = (3, 5)$$);
SELECT attempt($$UPDATE audit_log SET table_schema = 'App' WHERE (chain, seq) = (3, 5)$$);
SELECT attempt($$UPDATE audit_log SET table_name = NULL WHERE (chain, seq) = (3, 5)$$);
SELECT attempt($$UPDATE audit_log SET session_role = '' WHERE (chain, seq) = (3, 5)$$);
SELECT attempt($$UPDATE audit_log SET effective_role = 'mallory' WHERE (chain, seq) = (3, 5)$$);
SELECT attempt($$UPDATE audit_log SET actor = NULL WHERE (chain, seq) = (3, 5)$$);
SELECT attempt($$UPDATE audit_log SET actor = '' WHERE (chain, seq) = (3, 5)$$);
SELECT attempt($$UPDATE audit_log SET application_name = 'Verify test' WHERE (chain, seq) = (3, 5)$$);
SELECT attempt($$UPDATE audit_log SET client_addr = '192.0.2.1' WHERE (chain, seq) = (3, 5)$$);
SELECT attempt($$UPDATE audit_log SET who_salt = decode(md5('x'), 'hex') WHERE (chain, seq) = (3, 5)$$);
SELECT attempt($$UPDATE audit_log SET who_digest = sha256('x') WHERE (chain, seq) = (3, 5)$$);
SELECT attempt($$UPDATE audit_log SET row_key = '{"id": 15}' WHERE (chain, seq) = (3, 5)$$);
SELECT attempt($$UPDATE audit_log SET old_row = '{}' WHERE (chain, seq) = (3, 5)$$);
SELECT attempt($$UPDATE audit_log SET new_row = replace(new_row::text, 'b', 'B')::json WHERE (chain, seq) = (3, 5)$$);
SELECT attempt($$UPDATE audit_log SET new_row = NULL WHERE (chain, seq) = (3, 5)$$);
SELECT attempt($$UPDATE audit_log SET detail = '{}' WHERE (chain, seq) = (3, 5)$$);
SELECT attempt($$UPDATE audit_log SET statement = 'x' WHERE (chain, seq) = (3, 5)$$);
SELECT attempt($$UPDATE audit_log SET salt = decode(md5('x'), 'hex') WHERE (chain, seq) = (3, 5)$$);
SELECT attempt($$UPDATE audit_log SET payload_digest = sha256('x') WHERE (chain, seq) = (3, 5)$$);
SELECT attempt($$UPDATE audit_log SET prev_hash = sha256('x') WHERE (chain, seq) = (3, 5)$$);
SELECT attempt($$UPDATE audit_log SET hash = sha256('x') WHERE (chain, seq) = (3, 5)$$);
SELECT attempt($$UPDATE audit_log SET chain = 7 WHERE (chain, seq) = (3, 5)$$);
SELECT attempt($$UPDATE audit_log SET seq = 50 WHERE (chain, seq) = (3, 5)$$);
-- Contents moved between columns.
SELECT attempt($$UPDATE audit_log SET old_row = new_row, new_row = NULL WHERE (chain, seq) = (3, 5)$$);
SELECT attempt($$UPDATE audit_log SET table_schema = table_name, table_name = table_schema WHERE (chain, seq) = (3, 5)$$);
SELECT attempt($$UPDATE audit_log SET actor = application_name, application_name = actor WHERE (chain, seq) = (3, 5)$$);
-- Entries removed, exchanged, added.
SELECT attempt($$DELETE FROM audit_log WHERE (chain, seq) = (3, 5)$$);
SELECT attempt($$DELETE FROM audit_log WHERE chain = 3 AND seq IN (4, 5, 8)$$);
SELECT attempt($$DELETE FROM audit_log WHERE (chain, seq) = (3, 1)$$);
SELECT attempt($$DELETE FROM audit_log WHERE chain = 3 AND seq < 4$$);
SELECT attempt($$UPDATE audit_log SET seq = CASE seq WHEN 5 THEN 106 ELSE 105 END WHERE chain = 3 AND seq IN (5, 6);
                 UPDATE audit_log SET seq = seq - 100 WHERE seq > 100$$);
SELECT attempt($$ALTER TABLE audit_log DROP CONSTRAINT audit_log_pkey;
                 INSERT INTO audit_log SELECT * FROM audit_log WHERE (chain, seq) = (3, 5)$$);
SELECT attempt($$INSERT INTO audit_log SELECT seq + 1, at, xid, chain, operation, table_schema, table_name, session_role, effective_role, actor,
    application_name, client_addr, who_salt, who_digest, row_key, old_row, new_row, detail, statement, salt, payload_digest, prev_hash, hash
    FROM audit_log WHERE (chain, seq) = (3, 10)$$);
-- A chain moved to another place, a log that is not this one's.
SELECT attempt($$UPDATE audit_log SET chain = 9 WHERE chain = 5 AND seq = 1$$);
SELECT attempt($$UPDATE audit_log_identity SET log_id = gen_random_uuid()$$);
SELECT attempt($$DELETE FROM audit_log_identity$$);
-- Erased payloads: what the digest stands for cannot be checked, and that is said; the rest can.
SELECT attempt($$UPDATE audit_log SET payload_digest = sha256('x'), new_row = NULL, row_key = NULL WHERE (chain, seq) = (3, 5)$$);
-- Erased who-parts, likewise.
SELECT attempt($$UPDATE audit_log SET who_digest = sha256('x'), who_salt = NULL, actor = NULL WHERE (chain, seq) = (3, 5)$$);
SELECT attempt($$UPDATE audit_log SET who_digest = sha256('x'), who_salt = NULL, session_role = NULL, effective_role = NULL, actor = NULL,
    application_name = NULL WHERE (chain, seq) = (3, 5)$$);
SELECT attempt($$UPDATE audit_log SET who_salt = NULL, session_role = NULL WHERE (chain, seq) = (3, 5)$$);
BEGIN;
-- By the digest of format.md, section 2, in SQL. No entry tells of the erasure.
CREATE FUNCTION blob(bytea) RETURNS bytea LANGUAGE sql AS $$SELECT coalesce(int4send(length($1)) || $1, '\xffffffff')$$;
UPDATE audit_log SET who_digest = sha256('audit_chain who v1' || who_salt || blob(session_role::bytea) || blob(effective_role::bytea)
        || blob(actor::bytea) || blob(application_name::bytea) || blob(host(client_addr)::bytea)),
    who_salt = NULL, session_role = NULL, effective_role = NULL, actor = NULL, application_name = NULL, client_addr = NULL
WHERE chain = 3 AND seq IN (5, 6);
SELECT valid, regexp_replace(summary, ';.*', '') AS summary FROM audit_verify();
ROLLBACK;
-- With arguments only what they ask for is looked at.
BEGIN;
UPDATE audit_log SET actor = 'mallory' WHERE (chain, seq) = (3, 5);
SELECT valid, entries, problems FROM audit_verify(1);
SELECT valid, entries, problems, summary FROM audit_verify(3);
SELECT valid, problems FROM audit_verify(since => :'noon');
SELECT kind, chain, seq, table_name, detail FROM audit_problems(only_chain => 3);
SELECT kind FROM audit_problems(only_chain => 1);
ROLLBACK;

ALTER TABLE audit_log ENABLE ALWAYS TRIGGER "!audit_chain_refuse";
ALTER TABLE audit_log ENABLE ALWAYS TRIGGER "!audit_chain_check_insert";
ALTER TABLE audit_log_identity ENABLE ALWAYS TRIGGER "!audit_chain_refuse";
ALTER EVENT TRIGGER audit_chain_ddl_start ENABLE ALWAYS;
ALTER EVENT TRIGGER audit_chain_ddl_end ENABLE ALWAYS;
ALTER EVENT TRIGGER audit_chain_drop ENABLE ALWAYS;

-- In parallel, and in any physical order.
INSERT INTO t SELECT i, repeat('x', 200) FROM generate_series(100, 5000) i;
SET max_parallel_workers_per_gather = 4;
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
SELECT valid, entries, problems FROM audit_verify();
-- (The new index is an entry, too.)
CREATE INDEX shuffled ON audit_log (hash);
CLUSTER audit_log USING shuffled;
SELECT valid, entries, problems FROM audit_verify();
SET max_parallel_workers_per_gather = 0;
SELECT valid, entries, problems FROM audit_verify();
SELECT valid, problems FROM audit_verify();

-- The aggregate takes the columns of the log, in their order.
SELECT (SELECT array_agg(attname::text || ' ' || atttypid::regtype ORDER BY attnum) FROM pg_attribute
        WHERE attrelid = 'audit_log'::regclass AND attnum > 0)
     = (SELECT array_agg(name || ' ' || type::regtype ORDER BY place)
        FROM pg_proc, unnest(proargnames, proargtypes::oid[]) WITH ORDINALITY AS argument(name, type, place)
        WHERE proname = '_audit_check') AS same_columns;

-- The aggregate is for roles that may read the log, and for no more chains than a log can have.
CREATE ROLE regress_reader;
GRANT USAGE ON SCHEMA app TO regress_reader;
SET ROLE regress_reader;
SELECT _audit_check(1, now(), '7', g, 'EVENT', NULL, NULL, 'x', 'x', NULL, NULL, NULL, '', NULL, NULL, NULL, NULL, NULL, NULL, '', NULL, '', '')
    IS NOT NULL AS checked FROM generate_series(1, 10) g;
RESET ROLE;
GRANT SELECT ON audit_log TO regress_reader;
SET ROLE regress_reader;
SELECT _audit_check(1, now(), '7', g, 'EVENT', NULL, NULL, 'x', 'x', NULL, NULL, NULL, '', NULL, NULL, NULL, NULL, NULL, NULL, '', NULL, '', '')
    IS NOT NULL AS checked FROM generate_series(1, 65536) g;
SELECT _audit_check(1, now(), '7', g, 'EVENT', NULL, NULL, 'x', 'x', NULL, NULL, NULL, '', NULL, NULL, NULL, NULL, NULL, NULL, '', NULL, '', '')
    IS NOT NULL AS checked FROM generate_series(1, 1048577) g;
RESET ROLE;
-- Rights on all columns are enough.
REVOKE SELECT ON audit_log FROM regress_reader;
DO $$ BEGIN EXECUTE (SELECT format('GRANT SELECT (%s) ON audit_log TO regress_reader', string_agg(attname, ', '))
    FROM pg_attribute WHERE attrelid = 'audit_log'::regclass AND attnum > 0); END $$;
GRANT SELECT ON audit_log_identity, audit_checkpoint_log, audit_checkpoint_span, audit_tile TO regress_reader;
SET ROLE regress_reader;
SELECT problems IS NOT NULL AS checked FROM audit_verify();
RESET ROLE;
DROP OWNED BY regress_reader;
DROP ROLE regress_reader;
