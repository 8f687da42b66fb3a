-- What an entry holds of INSERT, UPDATE, DELETE and TRUNCATE, and in which order entries come.
\getenv srcdir PG_ABS_SRCDIR
\set setup :srcdir '/setup.sql'
\i :setup

CREATE TABLE accounts (id int PRIMARY KEY, owner text, balance numeric(10,2), active boolean DEFAULT true);
SELECT audit_enable('accounts');
SELECT op, on_table FROM news();

INSERT INTO accounts VALUES (1, 'Ann', 10, true), (2, 'Bob "the \ builder"', -20.5, false), (3, NULL, NULL, NULL);
SELECT * FROM news();
-- An UPDATE's entry: the whole new row, and the old values of the columns that changed, only.
UPDATE accounts SET balance = balance + 1 WHERE id < 3;
SELECT * FROM news();
UPDATE accounts SET owner = 'Cid', balance = 0, active = false WHERE id = 3;
UPDATE accounts SET owner = NULL WHERE id = 3;
SELECT * FROM news();
-- One that changes nothing is an entry, too.
UPDATE accounts SET owner = owner WHERE id = 1;
SELECT * FROM news();
-- 11 and 11.00 are the same number and not the same value: what the row holds is what is recorded.
CREATE TABLE numbers (n numeric, f float8);
SELECT audit_enable('numbers');
INSERT INTO numbers VALUES (11, 0.0);
UPDATE numbers SET n = 11.00, f = '-0';
SELECT * FROM news();
-- A changed key: the entry's key is the new one, its old values have the old one.
UPDATE accounts SET id = 30 WHERE id = 3;
SELECT * FROM news();
DELETE FROM accounts WHERE id >= 2;
SELECT * FROM news();
TRUNCATE accounts;
SELECT * FROM news();
TRUNCATE accounts;
SELECT * FROM news();
-- Statements that touch no row make no entry.
UPDATE accounts SET balance = 0;
DELETE FROM accounts;
INSERT INTO accounts SELECT * FROM accounts;
SELECT * FROM news();

-- Entries are there as soon as the statement is done, for the transaction itself.
BEGIN;
INSERT INTO accounts VALUES (4, 'Dan', 1);
SELECT * FROM news();
COMMIT;

-- Large values. An unchanged one that lies out of line is neither recorded again nor fetched.
CREATE TABLE documents (id int PRIMARY KEY, title text, body text)
    WITH (autovacuum_enabled = off, toast.autovacuum_enabled = off);
ALTER TABLE documents ALTER body SET STORAGE EXTERNAL;
SELECT audit_enable('documents');
INSERT INTO documents VALUES (1, 'draft', repeat('x', 100000)), (2, 'short', 'in line');
SELECT op, key, length(new ->> 'body') AS body FROM news();
SET stats_fetch_consistency = none;
SELECT pg_stat_force_next_flush();
SELECT coalesce(toast_blks_read, 0) + coalesce(toast_blks_hit, 0) AS before FROM pg_statio_user_tables WHERE relname = 'documents' \gset
UPDATE documents SET title = 'final';
SELECT * FROM news();
SELECT pg_stat_force_next_flush();
SELECT coalesce(toast_blks_read, 0) + coalesce(toast_blks_hit, 0) - :before AS toast_blocks FROM pg_statio_user_tables WHERE relname = 'documents';
-- Set to an equal value: stored anew, and so recorded, but not as a change.
UPDATE documents SET body = repeat('x', 100000) WHERE id = 1;
SELECT op, key, old, length(new ->> 'body') AS body FROM news();
UPDATE documents SET body = repeat('x', 99999) || 'y' WHERE id = 1;
SELECT op, key, length(old ->> 'body') AS old_body, right(old ->> 'body', 1), length(new ->> 'body') AS body,
       right(new ->> 'body', 1) FROM news();
DELETE FROM documents WHERE id = 1;
SELECT op, key, length(old ->> 'body') AS old_body FROM news();
-- Compressed in line, and compressed out of line.
ALTER TABLE documents ALTER body SET STORAGE EXTENDED;
INSERT INTO documents VALUES (3, 'compressed', repeat('abc', 2000)),
    (4, 'both', (SELECT string_agg(md5(i::text), '') FROM generate_series(1, 1000) i));
SELECT op, key, length(new ->> 'body') AS body,
       new ->> 'body' = (SELECT body FROM documents d WHERE d.id = (key ->> 'id')::int) AS same FROM news();
UPDATE documents SET title = 'again' WHERE id > 2;
SELECT op, key, old, (new ->> 'body') IS NOT NULL AS with_body FROM news();

-- A row's own change comes before the changes that its cascades and its other triggers make. (PostgreSQL fires the
-- triggers of what a cascade did after the statement's own.)
CREATE TABLE parents (id int PRIMARY KEY);
CREATE TABLE children (id int PRIMARY KEY, parent int REFERENCES parents ON DELETE CASCADE ON UPDATE CASCADE);
CREATE TABLE notes (what text);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO notes VALUES (TG_WHEN || ' ' || TG_OP || ' ' || TG_NAME);
    RETURN coalesce(NEW, OLD);
END
$$;
CREATE TRIGGER "#first" AFTER INSERT OR UPDATE OR DELETE ON parents FOR EACH ROW EXECUTE FUNCTION note();
CREATE TRIGGER zz AFTER INSERT OR UPDATE OR DELETE ON parents FOR EACH ROW EXECUTE FUNCTION note();
CREATE TRIGGER early BEFORE INSERT ON parents FOR EACH ROW EXECUTE FUNCTION note();
SELECT audit_enable('parents'), audit_enable('children'), audit_enable('notes');
SELECT count(*) FROM news();
INSERT INTO parents VALUES (1), (2);
SELECT * FROM news();
INSERT INTO children VALUES (10, 1), (11, 1), (20, 2);
UPDATE parents SET id = 3 WHERE id = 2;
SELECT * FROM news();
DELETE FROM parents;
SELECT * FROM news();

-- The rest of an entry: its hashes' lengths, and times that do not go back.
SELECT count(*) FILTER (WHERE length(hash) <> 32 OR length(prev_hash) <> 32 OR length(salt) <> 16) AS odd_lengths,
       count(DISTINCT salt) = count(*) AS fresh_salts, count(payload_digest) AS erased FROM audit_log;
SELECT count(*) FILTER (WHERE length(who_salt) <> 16) AS odd_lengths, count(who_digest) AS erased,
       count(*) FILTER (WHERE salt = who_salt) AS salts_used_twice,
       count(DISTINCT who_salt) = count(DISTINCT xid) AS one_for_each_transaction FROM audit_log;
SELECT count(*) AS not_in_order FROM (SELECT at < lag(at) OVER (PARTITION BY chain ORDER BY seq) AS back FROM audit_log) t WHERE back;
SELECT valid, problems FROM audit_verify();
