-- Nothing is written in a read-only transaction.
\getenv srcdir PG_ABS_SRCDIR
\set setup :srcdir '/setup.sql'
\i :setup

CREATE TABLE t (id int);
SELECT audit_enable('t');
SELECT count(*) AS before FROM audit_log \gset
BEGIN READ ONLY;
SELECT audit_event('x');
ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE;
SELECT audit_event('x');
ROLLBACK;
SET default_transaction_read_only = on;
SELECT audit_event('x');
INSERT INTO t VALUES (1);
CREATE TABLE u (id int);
SELECT audit_enable('t', skip_unchanged => true);
SELECT audit_disable('t', 'reason');
-- Reading is no writing: the log may be looked at and verified.
SELECT count(*) - :before AS new FROM audit_log;
SELECT valid, problems FROM audit_verify();
RESET default_transaction_read_only;
-- Read-only from the second statement on: what was written before stays.
BEGIN;
SELECT audit_event('kept');
SET TRANSACTION READ ONLY;
SAVEPOINT a;
SELECT audit_event('lost');
ROLLBACK TO a;
COMMIT;
SELECT detail ->> 'action' AS action FROM audit_log WHERE operation = 'EVENT';
\set VERBOSITY sqlstate
BEGIN READ ONLY;
SELECT audit_event('x');
ROLLBACK;
\set VERBOSITY default
SELECT valid, problems FROM audit_verify();
