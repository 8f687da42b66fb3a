-- Segments: rotation, sealing, and everything that reads the log through several segments.
\getenv srcdir PG_ABS_SRCDIR
\set setup :srcdir '/setup.sql'
\i :setup

SET audit_chain.keep_chain = off;
\set VERBOSITY terse
SELECT audit_rotate();
CREATE TABLE t (id int PRIMARY KEY, v text);
SELECT audit_enable('t');
INSERT INTO t VALUES (1, 'one');
SELECT segment, state, table_name FROM audit_segments;

-- A new segment begins with an entry that names the one before.
SELECT audit_rotate();
SELECT segment, state, table_name, opened_at IS NOT NULL AS opened, chains, entries FROM audit_segments;
INSERT INTO t VALUES (2, 'two');
SELECT tableoid::regclass, chain, seq, operation FROM audit_log ORDER BY chain, seq;
SELECT detail ->> 'segment' AS segment, detail #> '{previous,segment}' AS previous, detail #> '{previous,entries}' AS entries,
       detail #> '{previous,chains}' AS chains, length(detail #>> '{previous,heads}') AS heads
    FROM audit_log WHERE operation = 'SEGMENT';
SELECT valid, entries, chains, summary FROM audit_verify();
SELECT table_schema, table_name, audited, state FROM audit_coverage WHERE table_schema <> 'kept';
\d audit_log_0002
SELECT tgname, tgenabled FROM pg_trigger WHERE tgrelid = 'audit_log_0002'::regclass ORDER BY tgname COLLATE "C";

-- A transaction under way goes on in its segment; entries before a rotation belong to the segment before.
BEGIN;
INSERT INTO t VALUES (3, 'three');
SELECT audit_rotate();
ROLLBACK;
-- A rotation that is rolled back leaves nothing.
BEGIN;
SELECT audit_rotate();
INSERT INTO t VALUES (3, 'three');
SELECT tableoid::regclass, operation FROM audit_log WHERE row_key ->> 'id' = '3';
ROLLBACK;
BEGIN;
SAVEPOINT s;
SELECT audit_rotate();
INSERT INTO t VALUES (3, 'three');
ROLLBACK TO s;
INSERT INTO t VALUES (4, 'four');
SAVEPOINT s2;
SAVEPOINT s3;
INSERT INTO t VALUES (5, 'five');
ROLLBACK TO s2;
COMMIT;
BEGIN;
SAVEPOINT s;
SELECT audit_rotate();
RELEASE s;
SAVEPOINT s;
INSERT INTO t VALUES (6, 'six');
ROLLBACK TO s;
INSERT INTO t VALUES (7, 'seven');
COMMIT;
SELECT tableoid::regclass, chain, seq, operation, row_key FROM audit_log ORDER BY chain, seq;
SELECT valid, entries, summary FROM audit_verify();
SELECT count(*) FROM pg_class WHERE relname ~ '^audit_log_\d{4}$';
BEGIN READ ONLY;
SELECT audit_rotate();
ROLLBACK;

-- Sealing.
SELECT audit_seal(9);
SELECT audit_seal(0);
SELECT audit_seal(3);
SELECT audit_seal(1);
SELECT audit_seal(1);
SELECT audit_seal();
SELECT audit_seal();
SELECT segment, state, chains, entries, first_at <= last_at AS at, sealed_at IS NOT NULL AS sealed FROM audit_segments;
SELECT detail ->> 'segment' AS segment, detail ->> 'entries' AS entries, detail ->> 'first_leaf' AS first_leaf,
       detail ->> 'last_leaf' AS last_leaf, detail ->> 'tree_size' AS tree_size
    FROM audit_log WHERE operation = 'SEAL' ORDER BY chain, seq;
SELECT chains, entries, unsealed_entries FROM audit_status;
SELECT count(*), count(DISTINCT chain) FROM audit_log;
SELECT valid, entries, checkpoints, summary FROM audit_verify(checkpoint => (SELECT note FROM audit_checkpoint_log ORDER BY tree_size LIMIT 1));
SELECT valid, entries FROM audit_verify(only_chain => 65536);
SELECT valid, entries FROM audit_verify(since => '2000-01-01');
SELECT length(audit_checkpoint()) > 100 AS note;
INSERT INTO t VALUES (8, 'eight');
SELECT valid, entries FROM audit_verify(since_checkpoint => (SELECT note FROM audit_checkpoint_log ORDER BY tree_size LIMIT 1));
CALL audit_verify_in_slices();
SELECT audit_inclusion_proof(0, 1) LIKE '%audit_chain%' AS proof, audit_inclusion_proof(65536, 2) IS NOT NULL AS proof2;
SELECT valid FROM audit_verify_and_record();
SELECT scope, verdict FROM audit_verification_log;

-- Upkeep: constraints by which the planner leaves sealed segments out.
CALL audit_maintain();
SELECT conrelid::regclass, conname, convalidated, connoinherit FROM pg_constraint
    WHERE conname ~ '^audit_log_\d+_(at|chain)$' ORDER BY conname COLLATE "C";
CALL audit_maintain();
EXPLAIN (COSTS OFF) SELECT * FROM audit_log WHERE at >= '2199-01-01';
SET enable_seqscan = off;
EXPLAIN (COSTS OFF) SELECT * FROM audit_log WHERE chain = 131072 AND seq = 1;
RESET enable_seqscan;
BEGIN;
CALL audit_maintain();
ROLLBACK;

-- The guard protects every segment.
UPDATE audit_log SET actor = 'x';
UPDATE audit_log_0002 SET actor = 'x';
DELETE FROM ONLY audit_log_0002;
TRUNCATE audit_log_0002;
INSERT INTO audit_log_0002 SELECT * FROM audit_log_0002 LIMIT 1;
DROP TABLE audit_log_0002;
ALTER TABLE audit_log_0002 NO INHERIT audit_log;
ALTER TABLE audit_log_0002 RENAME TO other;
ALTER TABLE audit_log_0002 DISABLE TRIGGER ALL;
ALTER TABLE audit_log_0002 ADD COLUMN c int;
ALTER TABLE audit_log_0002 DROP CONSTRAINT audit_log_0002_pkey;
ALTER TABLE audit_log_0002 SET SCHEMA pg_catalog;
DROP TRIGGER "!audit_chain_refuse" ON audit_log_0002;
CREATE RULE r AS ON UPDATE TO audit_log_0002 DO INSTEAD NOTHING;
CREATE TABLE public.audit_log_0009 () INHERITS (audit_log);
-- An application's table may have such a name.
CREATE TABLE public.audit_log_0010 (a int PRIMARY KEY);
INSERT INTO audit_log_0010 VALUES (1);
UPDATE audit_log_0010 SET a = 2;
ALTER TABLE audit_log_0010 ADD b int;
SELECT audit_enable('audit_log_0010');
DELETE FROM audit_log_0010;
ALTER TABLE audit_log_0010 ADD c int;
DROP TABLE audit_log_0010;
CREATE TABLE public.audit_log_0011 (LIKE audit_log INCLUDING ALL);
ALTER TABLE audit_log_0011 INHERIT audit_log;
DROP TABLE audit_log_0011;
SELECT audit_enable_schema('public');
SELECT audit_disable_schema('public', 'a test');
SELECT audit_enable('audit_log_0002');
ALTER TABLE audit_log_0002 SET (fillfactor = 90);
SELECT table_name, state FROM audit_coverage WHERE table_schema <> 'kept';
CREATE INDEX ON audit_log (at);
SELECT audit_rotate();
CREATE INDEX ON audit_log ((row_key ->> 'id'), table_name) WHERE operation <> 'SEGMENT';
CALL audit_maintain();
CALL audit_maintain();
SELECT indexname FROM pg_indexes WHERE tablename ~ '^audit_log' AND indexname ~ '^audit_log_(\d|at|pk)' ORDER BY 1;
SELECT valid, summary FROM audit_verify();

-- Rights: who may read the log reads all segments, and verifies them; a new segment can be dumped by who may dump the log.
CREATE ROLE regress_segment_reader;
GRANT SELECT ON audit_log, audit_log_identity, audit_checkpoint_log, audit_checkpoint_span, audit_tile TO regress_segment_reader;
GRANT SELECT ON audit_segment, audit_pruned_leaf TO regress_segment_reader;
SELECT audit_rotate();
SET ROLE regress_segment_reader;
SELECT count(*) > 5 FROM audit_log;
SELECT valid FROM audit_verify();
CALL audit_verify_in_slices();
SELECT count(*) FROM audit_log_0005;
SELECT count(*) FROM audit_log_0002;
SELECT audit_rotate();
SELECT audit_seal();
CALL audit_maintain();
RESET ROLE;

-- Nothing else becomes a part of a segment, and no segment one of another extension, which pg_dump would leave out.
CREATE TABLE child () INHERITS (audit_log_0002);
CREATE TEMPORARY TABLE child () INHERITS (audit_log_0002);
CREATE TABLE likeness (LIKE audit_log_0002 INCLUDING ALL);
ALTER TABLE likeness INHERIT audit_log_0002;
ALTER EXTENSION plpgsql ADD TABLE audit_log_0002;
ALTER EXTENSION plpgsql ADD TABLE likeness;
ALTER EXTENSION plpgsql DROP TABLE likeness;
DROP TABLE likeness;

-- The segments are dropped with the extension, if they are named, or with CASCADE.
DROP EXTENSION audit_chain;
SELECT pg_catalog.count(*) FROM pg_class WHERE relname ~ '^audit_log' AND relnamespace = 'public'::regnamespace;
DROP EXTENSION audit_chain CASCADE;
SELECT pg_catalog.count(*) FROM pg_class WHERE relname ~ '^audit_log' AND relnamespace = 'public'::regnamespace;
DROP OWNED BY regress_segment_reader;
DROP ROLE regress_segment_reader;
