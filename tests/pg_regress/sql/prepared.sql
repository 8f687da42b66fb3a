-- PREPARE TRANSACTION: its chain stays taken until COMMIT PREPARED or ROLLBACK PREPARED, and nobody waits for it.
\getenv srcdir PG_ABS_SRCDIR
\set setup :srcdir '/setup.sql'
\i :setup

CREATE TABLE t (id int PRIMARY KEY);
SELECT audit_enable('t');
CREATE VIEW entries AS SELECT chain, seq, operation, row_key FROM audit_log ORDER BY chain, seq;
SHOW max_prepared_transactions;

BEGIN;
INSERT INTO t VALUES (1);
SAVEPOINT a;
INSERT INTO t VALUES (2);
ROLLBACK TO a;
INSERT INTO t VALUES (3);
PREPARE TRANSACTION 'regress kept';
-- The backend goes on at once, in another chain.
INSERT INTO t VALUES (4);
TABLE entries;
SELECT valid, problems FROM audit_verify();
COMMIT PREPARED 'regress kept';
TABLE entries;
SELECT valid, problems FROM audit_verify();

BEGIN;
INSERT INTO t VALUES (5);
PREPARE TRANSACTION 'regress lost';
BEGIN;
INSERT INTO t VALUES (6);
PREPARE TRANSACTION 'regress kept';
INSERT INTO t VALUES (7);
ROLLBACK PREPARED 'regress lost';
TABLE entries;
-- Committed from another connection.
\c -
SET search_path = app, public;
COMMIT PREPARED 'regress kept';
TABLE entries;
INSERT INTO t VALUES (8);
TABLE entries;
SELECT valid, problems FROM audit_verify();

-- Entries not yet written when the transaction is prepared: those of a deferred trigger, and of an open cursor.
CREATE TABLE late (id int);
SELECT audit_enable('late');
CREATE FUNCTION later() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO late VALUES (NEW.id); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER later AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION later();
BEGIN ISOLATION LEVEL SERIALIZABLE;
INSERT INTO t VALUES (9);
SELECT audit_event('in a prepared transaction');
PREPARE TRANSACTION 'regress late';
COMMIT PREPARED 'regress late';
SELECT operation, table_name, new_row FROM audit_log WHERE xid = (SELECT max(xid::text::bigint)::text::xid8 FROM audit_log) ORDER BY seq;
-- audit_enable() and audit_disable() in prepared transactions.
CREATE TABLE u (id int);
BEGIN;
SELECT audit_enable('u');
PREPARE TRANSACTION 'regress enable';
COMMIT PREPARED 'regress enable';
INSERT INTO u VALUES (1);
BEGIN;
SELECT audit_disable('u', 'rolled back');
PREPARE TRANSACTION 'regress disable';
ROLLBACK PREPARED 'regress disable';
INSERT INTO u VALUES (2);
SELECT operation, new_row FROM audit_log WHERE table_name = 'u' ORDER BY at, chain, seq;
-- A failed PREPARE leaves nothing.
BEGIN;
INSERT INTO u VALUES (3);
PREPARE TRANSACTION 'regress twice';
BEGIN;
INSERT INTO u VALUES (4);
PREPARE TRANSACTION 'regress twice';
INSERT INTO u VALUES (5);
COMMIT PREPARED 'regress twice';
SELECT operation, new_row FROM audit_log WHERE table_name = 'u' AND operation = 'INSERT' ORDER BY new_row ->> 'id';
SELECT count(*) FROM pg_locks WHERE locktype = 'advisory';
SELECT valid, problems FROM audit_verify();
