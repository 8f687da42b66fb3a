-- Pruning: the oldest segments leave the log by policy, and what remains proves itself.
\getenv srcdir PG_ABS_SRCDIR
\set setup :srcdir '/setup.sql'
\i :setup
SET client_min_messages = warning;
SET search_path = app, public;

-- Waits until the policy lets the oldest segment go, and prunes it.
CREATE PROCEDURE app.prune_when_due() LANGUAGE plpgsql AS $$
BEGIN
    WHILE NOT EXISTS (SELECT FROM audit_prune(dry_run => true)) LOOP
        PERFORM pg_sleep(0.02);
    END LOOP;
    PERFORM audit_prune(reason => 'due');
END
$$;

CREATE TABLE t (id int PRIMARY KEY, v text, secret text);
CREATE TABLE gone (id int PRIMARY KEY);
SELECT audit_enable('t', exclude_columns => '{secret}');
SELECT audit_enable('gone');
INSERT INTO t SELECT g, 'row ' || g FROM generate_series(1, 300) g;
SELECT since AS t_since FROM audit_coverage WHERE table_name = 't' \gset
-- Out of line.
INSERT INTO t SELECT 1000, string_agg(md5(g::text), '') FROM generate_series(1, 2000) g;
SELECT valid FROM audit_verify_and_record();

-- What is missing.
SELECT audit_prune();
SELECT audit_prune(reason => '');
SELECT audit_prune(NULL, NULL, NULL, 'x');
SELECT audit_prune(reason => 'x');
SELECT audit_retention('1 year', reason => 'test') IS NOT NULL;
SELECT audit_prune(1, reason => 'x');
SELECT audit_prune(0, reason => 'x');
SELECT audit_prune(2, reason => 'x');
SELECT audit_prune(-1, reason => 'x');
SELECT audit_prune(1, export => 'abc', reason => 'x');
SELECT audit_prune(1, export => repeat('g', 64), reason => 'x');
SELECT audit_prune(export => repeat('0', 64), reason => 'x');
SELECT audit_rotate();
INSERT INTO t SELECT g, 'row ' || g FROM generate_series(301, 900) g;
SELECT audit_prune(1, reason => 'x');
SELECT audit_seal();
SELECT audit_prune(2, reason => 'x');
\set VERBOSITY sqlstate
SELECT audit_prune(1, reason => 'too young');
\set VERBOSITY default
SELECT audit_retention('1 microsecond', needs_published => true, reason => 'test') IS NOT NULL;
-- The clock must go on, whatever the server is doing.
DO $$ BEGIN WHILE clock_timestamp() < (SELECT last_at FROM audit_segments WHERE segment = 1) + interval '1 s' LOOP PERFORM pg_sleep(0.02); END LOOP; END $$;
SELECT audit_prune(1, reason => 'not published');
SELECT audit_retention(needs_published => false, reason => 'test') IS NOT NULL;
SELECT audit_prune(1, reason => 'not exported');
SELECT audit_prune(reason => 'not exported');
SELECT audit_hold('matter', 'a letter');
SELECT audit_prune(1, disposable => true, reason => 'held');
SELECT audit_prune(dry_run => true);
SELECT audit_release('matter', 'settled');
CREATE ROLE regress_records;
GRANT USAGE ON SCHEMA app TO regress_records;
GRANT EXECUTE ON FUNCTION audit_prune(integer, text, boolean, text, boolean), _audit_prune_segment(integer, text, boolean, text, boolean)
    TO regress_records;
GRANT EXECUTE ON PROCEDURE audit_finish_pruning() TO regress_records;
SET ROLE regress_records;
SELECT audit_prune(1, disposable => true, reason => 'x');
SELECT audit_prune(dry_run => true);
CALL audit_finish_pruning();
RESET ROLE;
BEGIN READ ONLY;
SELECT audit_prune(1, disposable => true, reason => 'x');
ROLLBACK;
BEGIN;
DECLARE open_cursor CURSOR FOR SELECT * FROM audit_log;
FETCH 0 FROM open_cursor;
SELECT audit_prune(1, disposable => true, reason => 'x');
ROLLBACK;
-- Nothing is half done.
SELECT count(*) FROM audit_log WHERE operation = 'PRUNE';
SELECT segment, state FROM audit_segments ORDER BY 1;
SELECT valid, problems FROM audit_verify();

-- A segment that is not intact is evidence. It stays. What was erased by record is intact.
SELECT entries FROM audit_erase('t', '{"id": 5}', 'request', dry_run => false);
BEGIN;
ALTER EVENT TRIGGER audit_chain_ddl_start DISABLE;
ALTER EVENT TRIGGER audit_chain_ddl_end DISABLE;
ALTER TABLE audit_log DISABLE TRIGGER ALL;
SAVEPOINT s;
UPDATE ONLY audit_log SET new_row = '{}' WHERE table_name = 't' AND row_key::jsonb = '{"id": 7}';
SELECT audit_prune(1, disposable => true, reason => 'x');
ROLLBACK TO s;
DELETE FROM ONLY audit_log WHERE table_name = 't' AND row_key::jsonb = '{"id": 300}';
SELECT audit_prune(1, disposable => true, reason => 'x');
ROLLBACK TO s;
UPDATE ONLY audit_log SET seq = 100000 WHERE seq = 300;
SELECT audit_prune(1, disposable => true, reason => 'x');
ROLLBACK TO s;
ALTER TABLE audit_erasure DISABLE TRIGGER ALL;
DELETE FROM audit_erasure;
SELECT audit_prune(1, disposable => true, reason => 'x');
ROLLBACK TO s;
-- Nor is one about which something else was noted, so that it seems to be old enough.
ALTER TABLE audit_segment DISABLE TRIGGER ALL;
UPDATE audit_segment SET first_at = first_at - interval '1 year', last_at = last_at - interval '1 year';
SELECT audit_prune(1, disposable => true, reason => 'x');
ROLLBACK TO s;
INSERT INTO audit_log SELECT (jsonb_populate_record(l, '{"seq": 10000}')).* FROM ONLY audit_log l WHERE seq = 300;
SELECT audit_prune(1, disposable => true, reason => 'x');
ROLLBACK;

-- One that is undone has not happened.
BEGIN;
SAVEPOINT s;
SELECT pruned_segment FROM audit_prune(1, disposable => true, reason => 'undone');
SELECT count(*) FROM ONLY audit_log;
SELECT valid, problems FROM audit_verify();
ROLLBACK TO s;
SELECT count(*) FROM ONLY audit_log;
INSERT INTO t VALUES (2000);
COMMIT;
BEGIN;
SELECT pruned_segment FROM audit_prune(1, disposable => true, reason => 'undone');
ROLLBACK;
SELECT count(*) FROM ONLY audit_log;
SELECT count(*) FROM pg_class WHERE relname = 'audit_log_0001';
SELECT valid, problems FROM audit_verify();

-- An auditing that ends in a later segment, and one that goes on.
SELECT audit_disable('gone', 'not needed any more');
SELECT pruned_segment, entries, chains, minimum_index, published, pruned FROM audit_prune(1, disposable => true, dry_run => true);
SELECT pruned_segment, entries, chains, minimum_index, published, pruned
    FROM audit_prune(1, export => repeat('AB', 32), reason => 'the first');
SELECT detail - '{at,first_at,last_at,root,checkpoint,pruned}'::text[] AS detail, detail #>> '{pruned,entries}' AS entries
    FROM (SELECT detail::jsonb FROM audit_log WHERE operation = 'PRUNE') p;
SELECT audit_prune(1, disposable => true, reason => 'once more');
SELECT segment, state, table_name, entries FROM audit_segments ORDER BY 1;
SELECT count(*) FROM ONLY audit_log;
SELECT min(chain) >= 65536 AS no_old_chains FROM audit_log;
SELECT valid, problems, summary ~ 'pruned' AS says_so FROM audit_verify();
SELECT * FROM audit_problems();
SELECT table_name, state, since = :'t_since' AS as_before, enabled_by, options, left_out #>> '{0,options}' AS left_out,
       (left_out #>> '{0,since}')::timestamptz = :'t_since' AS since_then
    FROM audit_coverage WHERE table_name IN ('t', 'gone') ORDER BY 1;
-- The rows' entries are gone with the segment: nothing says any more that all rows are in the log.
SELECT table_name, detail ->> 'carried' AS carried, detail ->> 'complete' AS complete FROM audit_log WHERE operation = 'ENABLE' ORDER BY 1;
SELECT count(*) FROM audit_verification_log;
SELECT segments, pruned_segments, pruned_entries, unsealed_entries >= 0 AS unsealed, keep, holds FROM audit_status;
SELECT keep, since IS NOT NULL AS since FROM audit_retention();

-- What is left of it is guarded, until it is gone.
SELECT relname, relkind, pg_relation_size(oid) > 0 AS has_rows FROM pg_class WHERE relname = 'audit_log_0001';
INSERT INTO public.audit_log_0001 SELECT * FROM audit_log LIMIT 1;
DELETE FROM public.audit_log_0001;
TRUNCATE public.audit_log_0001;
DROP TABLE public.audit_log_0001;
\set VERBOSITY sqlstate
ALTER TABLE public.audit_log_0001 INHERIT audit_log;
\set VERBOSITY default
BEGIN;
CALL audit_finish_pruning();
ROLLBACK;
CALL audit_finish_pruning();
SELECT count(*) FROM pg_class WHERE relname = 'audit_log_0001';
-- An application's table of that name is another one.
CREATE TABLE public.audit_log_0001 (id int PRIMARY KEY);
SELECT audit_enable('public.audit_log_0001');
INSERT INTO public.audit_log_0001 VALUES (1);
CALL audit_finish_pruning();
TABLE public.audit_log_0001;
DROP TABLE public.audit_log_0001;

-- Proofs of what remains; what is gone is said to be pruned.
DO $$ BEGIN PERFORM audit_checkpoint(); END $$;
SELECT audit_inclusion_proof(0, 1);
SELECT audit_inclusion_proof(0, 1000000);
SELECT audit_consistency_proof(100);
SELECT count(*) FILTER (WHERE audit_inclusion_proof(chain, seq) ~ '^c2sp.org/tlog-proof') > 600 AS proved FROM audit_log;
SELECT bool_and(audit_consistency_proof(tree_size) IS NOT NULL) AS consistent FROM audit_checkpoint_log;

-- More segments: small ones, some of which end within a tile, and one whose transaction goes on beyond the rotation.
SELECT audit_retention(needs_export => false, reason => 'test') IS NOT NULL;
CREATE PROCEDURE app.segments(sizes int[]) LANGUAGE plpgsql AS $$
DECLARE
    size int;
BEGIN
    FOREACH size IN ARRAY sizes LOOP
        FOR i IN 1..size LOOP
            PERFORM audit_event('e' || i);
        END LOOP;
        COMMIT;
        PERFORM audit_rotate();
        COMMIT;
        PERFORM audit_seal();
        COMMIT;
        CALL app.prune_when_due();
        COMMIT;
        IF NOT (SELECT valid FROM audit_verify()) THEN
            RAISE EXCEPTION '% after a segment of %', (SELECT summary FROM audit_verify()), size;
        END IF;
        PERFORM audit_checkpoint();
        COMMIT;
        IF NOT (SELECT valid FROM audit_verify()) THEN
            RAISE EXCEPTION '% after a segment of %, and a checkpoint', (SELECT summary FROM audit_verify()), size;
        END IF;
    END LOOP;
END
$$;
CALL app.segments('{1, 3, 250, 2, 256, 600}');
CALL audit_finish_pruning();
SELECT segment, state FROM audit_segments ORDER BY 1;
SELECT valid, problems FROM audit_verify();
CALL audit_verify_in_slices();
SELECT valid, problems FROM audit_verify(since => '-infinity', until => now());
SELECT valid, problems FROM audit_verify(only_chain => 0);
SELECT bool_and((audit_verify(only_chain => chain)).valid) FROM (SELECT DISTINCT chain FROM audit_log) c;
SELECT bool_and((audit_verify(checkpoint => note)).valid) AS supplied, bool_and((audit_verify(since_checkpoint => note)).valid) AS trusted
    FROM audit_checkpoint_log;
SELECT segments, pruned_segments FROM audit_status;
SELECT bool_and(audit_consistency_proof(tree_size) IS NOT NULL) AS consistent FROM audit_checkpoint_log;
SELECT count(*) FILTER (WHERE audit_inclusion_proof(l.chain, l.seq) IS NOT NULL) > 0 AS proved
    FROM audit_log l JOIN audit_checkpoint_span s ON s.chain = l.chain AND l.seq BETWEEN s.first_seq AND s.last_seq;
SELECT count(*) < 256 AS few FROM audit_pruned_leaf;
SELECT table_name, state, since = :'t_since' AS as_before FROM audit_coverage WHERE table_name = 't';
REVOKE ALL ON FUNCTION audit_prune(integer, text, boolean, text, boolean), _audit_prune_segment(integer, text, boolean, text, boolean)
    FROM regress_records;
REVOKE ALL ON PROCEDURE audit_finish_pruning() FROM regress_records;
REVOKE ALL ON SCHEMA app FROM regress_records;
DROP ROLE regress_records;
-- What is left of a pruned segment goes with the extension.
SELECT audit_retention('1 microsecond', reason => 'test') IS NOT NULL;
SELECT audit_rotate();
SELECT audit_seal();
CALL app.prune_when_due();
SELECT count(*) FROM pg_class WHERE relname ~ '^audit_log_[0-9]+$' AND relkind = 'r';
SET client_min_messages = error;
DROP EXTENSION audit_chain CASCADE;
SELECT count(*) FROM pg_class WHERE relname ~ '^audit_log_[0-9]+$' AND relkind = 'r';
