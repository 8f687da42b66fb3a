-- Checkpoints: what they seal, what they prove, and how the log is measured by them.
\getenv srcdir PG_ABS_SRCDIR
\set setup :srcdir '/setup.sql'
\i :setup
SET client_min_messages = warning;
CREATE TABLE account (id integer PRIMARY KEY, balance integer);
SELECT audit_checkpoint();
SELECT audit_enable('account');
INSERT INTO account SELECT g, 0 FROM generate_series(1, 600) g;
SELECT * FROM audit_verify();

-- Three lines: the log's name, the number of entries, the root.
SET client_min_messages = notice;
SELECT audit_checkpoint() AS first \gset
SET client_min_messages = warning;
SELECT split_part(:'first', E'\n', 1) = 'audit_chain/' || log_id AS named, split_part(:'first', E'\n', 2) AS size,
       length(decode(split_part(:'first', E'\n', 3), 'base64')) AS root
FROM audit_log_identity;
-- Nothing new: the same again.
SELECT audit_checkpoint() = :'first' AS same;
UPDATE account SET balance = 1 WHERE id <= 100;
SELECT audit_checkpoint() AS second \gset
SELECT tree_size, note = :'second' AS newest FROM audit_checkpoint_log ORDER BY tree_size;
SELECT leaf_index, chain, first_seq, last_seq FROM audit_checkpoint_span ORDER BY leaf_index;
SELECT level, index, length(hashes) FROM audit_tile ORDER BY level, index;

-- Each has an entry about itself, which it seals too: the last one of its chain.
SELECT c.tree_size, l.operation, l.table_name, (l.detail ->> 'tree_size')::bigint = c.tree_size AS fits,
       (l.detail ->> 'snapshot')::pg_snapshot IS NOT NULL AS snapshot,
       (SELECT max(b.at) FROM audit_log b WHERE (b.chain, b.seq) < (l.chain, l.seq)) = (l.detail ->> 'last_at')::timestamptz AS newest_before
FROM audit_checkpoint_log c JOIN audit_log l USING (chain, seq) ORDER BY tree_size;
SELECT count(*) FROM audit_log WHERE operation = 'CHECKPOINT';
SELECT unsealed_entries FROM audit_status;

-- What it seals had committed; of the transaction that makes it, what is before its entry. In any isolation level.
BEGIN ISOLATION LEVEL REPEATABLE READ;
INSERT INTO account VALUES (701, 0);
SELECT split_part(audit_checkpoint(), E'\n', 2) AS own \gset
INSERT INTO account VALUES (702, 0);
SAVEPOINT s;
INSERT INTO account VALUES (703, 0);
SELECT split_part(audit_checkpoint(), E'\n', 2) AS lost \gset
ROLLBACK TO s;
INSERT INTO account VALUES (704, 0);
SELECT split_part(audit_checkpoint(), E'\n', 2) AS next \gset
SELECT operation, row_key, detail ->> 'tree_size' AS size, audit_sealed(602, chain, seq) AS first, audit_sealed(703, chain, seq) AS second,
       audit_sealed(:own, chain, seq) AS own, audit_sealed(:next, chain, seq) AS next
FROM audit_log WHERE seq IN (602, 603, 703) OR seq > 703 ORDER BY seq;
ROLLBACK;
SELECT audit_sealed(703, 0, 1), audit_sealed(703, 1, 703), audit_sealed(703, 1, 704), audit_sealed(703, -1, 1);
SELECT audit_sealed(701, 1, 1);
SELECT audit_sealed(-1, 1, 1);
SELECT audit_sealed(NULL, 1, 1);

-- In a trigger's savepoint, the row's own entry is still to be written: the checkpoint has no entry, and seals what is there.
CREATE FUNCTION seal() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    BEGIN PERFORM audit_checkpoint(); EXCEPTION WHEN division_by_zero THEN NULL; END;
    RETURN NULL;
END $$;
CREATE FUNCTION seal_here() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM audit_checkpoint(); RETURN NULL; END $$;
BEGIN;
INSERT INTO account VALUES (701, 0);
CREATE TRIGGER seal AFTER INSERT ON account FOR EACH ROW EXECUTE FUNCTION seal();
INSERT INTO account VALUES (702, 0);
DROP TRIGGER seal ON account;
CREATE TRIGGER seal_here AFTER INSERT ON account FOR EACH ROW EXECUTE FUNCTION seal_here();
INSERT INTO account VALUES (703, 0), (704, 0);
SELECT operation, row_key FROM audit_log WHERE seq > 703 ORDER BY seq;
SELECT tree_size, chain, seq FROM audit_checkpoint_log WHERE tree_size > 703 ORDER BY tree_size;
SELECT row_key FROM audit_log WHERE seq > 703 AND operation = 'INSERT' AND audit_sealed(705, chain, seq) ORDER BY seq;
SELECT valid, checkpoints FROM audit_verify();
ROLLBACK;
DROP FUNCTION seal(), seal_here();

-- All or nothing.
BEGIN;
UPDATE account SET balance = 2 WHERE id <= 10;
SELECT split_part(audit_checkpoint(), E'\n', 2) AS size;
SELECT valid, checkpoints FROM audit_verify();
ROLLBACK;
SELECT max(tree_size) FROM audit_checkpoint_log;

-- Verification compares them all, and one that was kept elsewhere.
SELECT * FROM audit_verify();
SELECT * FROM audit_verify(checkpoint => :'first');
SELECT * FROM audit_verify(checkpoint => rtrim(:'second', E'\n'));
SELECT * FROM audit_verify(only_chain => 1);
UPDATE account SET balance = 3 WHERE id <= 10;
SELECT * FROM audit_verify(since_checkpoint => :'first');
SELECT * FROM audit_verify(since_checkpoint => :'second');
SELECT * FROM audit_verify(since_checkpoint => :'first', checkpoint => :'second');

-- Another log's, a larger one, another root.
SELECT valid, problems FROM audit_verify(checkpoint => regexp_replace(:'first', '^.*?\n', E'audit_chain/another\n'));
SELECT kind, chain, seq, regexp_replace(detail, '[0-9a-f-]{36}', 'ID', 'g') AS detail
FROM audit_problems(checkpoint => regexp_replace(:'first', '^.*?\n', E'audit_chain/another\n'));
SELECT * FROM audit_problems(checkpoint => replace(:'second', E'\n703\n', E'\n9000\n'));
SELECT * FROM audit_problems(checkpoint => replace(:'second', E'\n703\n', E'\n702\n'));
SELECT * FROM audit_problems(since_checkpoint => replace(:'second', E'\n703\n', E'\n702\n'));
SELECT * FROM audit_problems(since_checkpoint => replace(:'second', E'\n703\n', E'\n9000\n'));

-- Signatures. The key is an example: nobody signed with it.
\set key 'example.com/log+dc7340ee+AZDaTVRjrK06shluzrRdOUwZjQ6axIi3pcbkAMKEuHIP'
SELECT kind, detail FROM audit_problems(checkpoint => :'second', public_key => :'key');
SELECT audit_verify(checkpoint => :'second', public_key => 'no key');
SELECT audit_verify(checkpoint => :'second', public_key => '');
SELECT audit_verify(checkpoint => 'no checkpoint');
SELECT audit_verify(checkpoint => '');
SELECT audit_verify(checkpoint => repeat('x', 2000000));
SELECT audit_verify(since_checkpoint => E'a\n-1\nb');
SELECT audit_verify(only_chain => 1, checkpoint => :'second');
SELECT audit_verify(since => now(), since_checkpoint => :'second');

-- Proofs: of an entry, against the newest checkpoint or a named one; that one checkpoint continues another.
SELECT split_part(p, E'\n', 1) AS version, split_part(p, E'\n', 3) AS index, p LIKE '%' || :'second' AS ends_with_note
FROM audit_inclusion_proof(1, 650) p;
SELECT p LIKE '%' || :'first' AS ends_with_note FROM audit_inclusion_proof(1, 5, 602) p;
SELECT split_part(p, E'\n', 1) AS old, p LIKE '%' || :'second' AS ends_with_note FROM audit_consistency_proof(602) p;
SELECT audit_inclusion_proof(1, 650, 602);
SELECT audit_inclusion_proof(1, 707);
SELECT audit_inclusion_proof(1, 9999);
SELECT audit_inclusion_proof(1, 1, 5);
SELECT audit_inclusion_proof(NULL, 1);
SELECT audit_consistency_proof(5);
SELECT audit_consistency_proof(703, 602);
SELECT audit_consistency_proof(NULL);

-- They are guarded as the log is.
UPDATE audit_checkpoint_log SET note = '';
DELETE FROM audit_checkpoint_span;
TRUNCATE audit_tile;
DROP TABLE audit_tile;
ALTER TABLE audit_checkpoint_log DISABLE TRIGGER ALL;
BEGIN READ ONLY; SELECT audit_checkpoint(); ROLLBACK;

-- Only who was granted it makes checkpoints; whoever may read the tables verifies and proves.
CREATE ROLE checkpoint_auditor;
SET ROLE checkpoint_auditor;
SELECT audit_checkpoint();
SELECT audit_verify();
SELECT audit_sealed(703, 1, 5);
RESET ROLE;
GRANT SELECT ON audit_log, audit_log_identity, audit_checkpoint_log, audit_checkpoint_span, audit_tile TO checkpoint_auditor;
SET ROLE checkpoint_auditor;
SELECT valid, checkpoints FROM audit_verify(checkpoint => :'first');
SELECT length(audit_inclusion_proof(1, 5)) > 0 AS proved;
SELECT audit_sealed(703, 1, 5);
RESET ROLE;

-- A key that cannot be used.
SET audit_chain.signing_key_file = '/does/not/exist';
SELECT audit_checkpoint();
RESET audit_chain.signing_key_file;
SET ROLE checkpoint_auditor;
SET audit_chain.signing_key_file = '/etc/passwd';
RESET ROLE;

-- Of all entries and checkpoints, the tree and the snapshots say the same.
DO $$
BEGIN
    FOR n IN 1..30 LOOP
        UPDATE account SET balance = n WHERE id <= n % 4;
        PERFORM audit_checkpoint();
        COMMIT;
    END LOOP;
END $$;
SELECT count(*) > 10000 AS many,
       count(*) FILTER (WHERE sealed <> EXISTS (
           SELECT FROM audit_checkpoint_span s
           WHERE s.chain = l.chain AND l.seq BETWEEN s.first_seq AND s.last_seq AND s.leaf_index < c.tree_size)) AS against_the_tree,
       count(*) FILTER (WHERE sealed <> CASE WHEN l.xid = own.xid THEN l.seq <= own.seq
                                             ELSE pg_visible_in_snapshot(l.xid, (own.detail ->> 'snapshot')::pg_snapshot) END) AS against_the_snapshot
FROM audit_checkpoint_log c JOIN audit_log own USING (chain, seq) CROSS JOIN audit_log l
CROSS JOIN LATERAL audit_sealed(c.tree_size, l.chain, l.seq) sealed;

DROP EXTENSION audit_chain CASCADE;
DROP TABLE account;
DROP OWNED BY checkpoint_auditor;
DROP ROLE checkpoint_auditor;
