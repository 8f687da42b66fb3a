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
SELECT * FROM audit_problems(checkpoint => replace(:'second', E'\n701\n', E'\n9000\n'));
SELECT * FROM audit_problems(checkpoint => replace(:'second', E'\n701\n', E'\n700\n'));
SELECT * FROM audit_problems(since_checkpoint => replace(:'second', E'\n701\n', E'\n700\n'));
SELECT * FROM audit_problems(since_checkpoint => replace(:'second', E'\n701\n', E'\n9000\n'));

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
SELECT p LIKE '%' || :'first' AS ends_with_note FROM audit_inclusion_proof(1, 5, 601) p;
SELECT split_part(p, E'\n', 1) AS old, p LIKE '%' || :'second' AS ends_with_note FROM audit_consistency_proof(601) p;
SELECT audit_inclusion_proof(1, 650, 601);
SELECT audit_inclusion_proof(1, 705);
SELECT audit_inclusion_proof(1, 9999);
SELECT audit_inclusion_proof(1, 1, 5);
SELECT audit_inclusion_proof(NULL, 1);
SELECT audit_consistency_proof(5);
SELECT audit_consistency_proof(701, 601);
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
RESET ROLE;
GRANT SELECT ON audit_log, audit_log_identity, audit_checkpoint_log, audit_checkpoint_span, audit_tile TO checkpoint_auditor;
SET ROLE checkpoint_auditor;
SELECT valid, checkpoints FROM audit_verify(checkpoint => :'first');
SELECT length(audit_inclusion_proof(1, 5)) > 0 AS proved;
RESET ROLE;

-- A key that cannot be used.
SET audit_chain.signing_key_file = '/does/not/exist';
SELECT audit_checkpoint();
RESET audit_chain.signing_key_file;
SET ROLE checkpoint_auditor;
SET audit_chain.signing_key_file = '/etc/passwd';
RESET ROLE;

DROP EXTENSION audit_chain CASCADE;
DROP TABLE account;
DROP OWNED BY checkpoint_auditor;
DROP ROLE checkpoint_auditor;
