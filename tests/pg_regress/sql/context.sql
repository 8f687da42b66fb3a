-- Who and where from: the roles, the application's user, the application.
\getenv srcdir PG_ABS_SRCDIR
\set setup :srcdir '/setup.sql'
\i :setup

CREATE ROLE regress_login;
CREATE ROLE regress_group;
CREATE ROLE regress_owner;
GRANT regress_group TO regress_login;
GRANT USAGE ON SCHEMA app TO PUBLIC;
CREATE TABLE t (id int PRIMARY KEY, who text);
CREATE TABLE sub (id int REFERENCES t ON DELETE CASCADE);
ALTER TABLE t OWNER TO regress_owner;
ALTER TABLE sub OWNER TO regress_owner;
GRANT ALL ON t TO regress_login, regress_group;
GRANT CREATE, USAGE ON SCHEMA app TO regress_owner;
SELECT audit_enable('t'), audit_enable('sub');
SET ROLE regress_owner;
CREATE FUNCTION put_as_owner(int) RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = app
    AS 'INSERT INTO t VALUES ($1, current_user)';
CREATE VIEW v AS SELECT * FROM t;
GRANT ALL ON v TO regress_login;
RESET ROLE;
SET application_name = 'context test';

SET SESSION AUTHORIZATION regress_login;
INSERT INTO t VALUES (1, current_user);
SET ROLE regress_group;
INSERT INTO t VALUES (2, current_user);
RESET ROLE;
SELECT put_as_owner(3);
INSERT INTO v VALUES (4, current_user);
RESET SESSION AUTHORIZATION;
SELECT row_key ->> 'id' AS id, session_role, effective_role, new_row ->> 'who' AS "current_user", application_name
FROM audit_log WHERE operation = 'INSERT' ORDER BY seq;
-- A cascade runs as the owner of the referencing table; the entry tells who logged in. (The effective role depends on
-- PostgreSQL's version: from 18 on triggers run as the role that queued them.)
INSERT INTO sub VALUES (1);
SET SESSION AUTHORIZATION regress_login;
DELETE FROM t WHERE id = 1;
RESET SESSION AUTHORIZATION;
SELECT operation, table_name, session_role, effective_role IN ('regress_login', 'regress_owner') AS effective_role
FROM audit_log WHERE operation = 'DELETE' ORDER BY seq;
-- The role that called audit_enable() stands in its entry, though the triggers are made by the extension's owner.
CREATE TABLE own (id int);
ALTER TABLE own OWNER TO regress_owner;
SET SESSION AUTHORIZATION regress_owner;
SELECT audit_enable('own');
RESET SESSION AUTHORIZATION;
SELECT session_role, effective_role FROM audit_log WHERE operation = 'ENABLE' AND table_name = 'own';

-- The application's user.
SET audit_chain.actor = 'alice@example.org';
UPDATE t SET who = 'a' WHERE id = 2;
BEGIN;
SET LOCAL audit_chain.actor = 'bob';
UPDATE t SET who = 'b' WHERE id = 2;
SAVEPOINT s;
SET LOCAL audit_chain.actor = 'carol';
UPDATE t SET who = 'c' WHERE id = 2;
ROLLBACK TO s;
UPDATE t SET who = 'd' WHERE id = 2;
COMMIT;
UPDATE t SET who = 'e' WHERE id = 2;
SET audit_chain.actor = '';
UPDATE t SET who = 'f' WHERE id = 2;
SET audit_chain.actor = 'Zoë ☃';
SET application_name = '';
UPDATE t SET who = 'g' WHERE id = 2;
SELECT new_row ->> 'who' AS who, actor, application_name FROM audit_log WHERE operation = 'UPDATE' ORDER BY seq;
-- Bounded: 8192 bytes fit; a longer one is cut, with a mark.
SELECT set_config('audit_chain.actor', repeat('x', 8192), false) IS NOT NULL AS fits;
UPDATE t SET who = 'h' WHERE id = 2;
SELECT set_config('audit_chain.actor', repeat('x', 8193), false) IS NOT NULL AS fits;
UPDATE t SET who = 'h2' WHERE id = 2;
SELECT length(actor), right(actor, 30) AS actor FROM audit_log ORDER BY seq DESC LIMIT 2;
RESET audit_chain.actor;
-- The prefix is reserved: a mistyped name is an error.
SET audit_chain.actr = 'x';
-- Whoever may not write settings for superusers may still set the actor.
SET SESSION AUTHORIZATION regress_login;
SET audit_chain.actor = 'dave';
UPDATE t SET who = 'i' WHERE id = 2;
SET audit_chain.log_statement = on;
SET audit_chain.max_chains = 1;
RESET SESSION AUTHORIZATION;
SELECT actor, session_role FROM audit_log ORDER BY seq DESC LIMIT 1;
RESET audit_chain.actor;

-- The statement, where it is wanted.
SELECT count(statement) FROM audit_log;
SET audit_chain.log_statement = on;
UPDATE t SET who = 'j' WHERE id = 2 /* a comment */;
RESET audit_chain.log_statement;
UPDATE t SET who = 'k' WHERE id = 2;
SELECT new_row ->> 'who' AS who, statement FROM audit_log ORDER BY seq DESC LIMIT 2;

-- A role renamed in the course of a session, and of a transaction that is undone.
SET ROLE regress_group;
INSERT INTO t VALUES (8, 'before');
RESET ROLE;
ALTER ROLE regress_group RENAME TO regress_renamed;
SET ROLE regress_renamed;
INSERT INTO t VALUES (9, 'renamed');
RESET ROLE;
BEGIN;
ALTER ROLE regress_renamed RENAME TO regress_undone;
SET ROLE regress_undone;
INSERT INTO t VALUES (10, 'within');
RESET ROLE;
SELECT effective_role FROM audit_log ORDER BY seq DESC LIMIT 1;
ROLLBACK;
SET ROLE regress_renamed;
INSERT INTO t VALUES (10, 'after');
RESET ROLE;
SELECT effective_role, new_row ->> 'who' AS who FROM audit_log WHERE operation = 'INSERT' ORDER BY seq DESC LIMIT 3;

SELECT count(DISTINCT xid) = 1 AS one_transaction FROM audit_log WHERE actor IN ('bob');
SELECT valid, problems FROM audit_verify();

-- The salt of the who-part is one for a transaction as long as the who-part does not change. Shown is which entries share one.
CREATE FUNCTION salts() RETURNS TABLE (who text, actor text, salt bigint) LANGUAGE sql AS $$
    SELECT l.new_row ->> 'who', l.actor, dense_rank() OVER (ORDER BY l.first) FROM (
        SELECT *, min(seq) OVER (PARTITION BY who_salt) AS first FROM audit_log WHERE new_row ->> 'who' LIKE 'salt, %'
    ) l ORDER BY l.seq $$;
BEGIN;
INSERT INTO t VALUES (20, 'salt, first'), (21, 'salt, first');
INSERT INTO t VALUES (22, 'salt, first');
SAVEPOINT s;
INSERT INTO t VALUES (23, 'salt, first, undone');
SET LOCAL audit_chain.actor = 'erin';
INSERT INTO t VALUES (24, 'salt, erin, undone');
ROLLBACK TO s;
INSERT INTO t VALUES (26, 'salt, nobody again');
SET LOCAL audit_chain.actor = 'erin';
INSERT INTO t VALUES (27, 'salt, erin'), (28, 'salt, erin');
SET LOCAL application_name = 'salted';
INSERT INTO t VALUES (29, 'salt, application');
SET LOCAL ROLE regress_renamed;
INSERT INTO t VALUES (30, 'salt, role');
RESET ROLE;
INSERT INTO t VALUES (31, 'salt, no role');
-- A look-up of names that finds the same ones changes nothing.
ALTER ROLE regress_renamed RENAME TO regress_renamed2;
ALTER ROLE regress_renamed2 RENAME TO regress_renamed;
INSERT INTO t VALUES (32, 'salt, no role');
COMMIT;
INSERT INTO t VALUES (33, 'salt, next transaction');
INSERT INTO t VALUES (34, 'salt, next but one');
SELECT * FROM salts();
-- Each row is written as another role than the one before.
CREATE TABLE roles (id int);
SELECT audit_enable('roles');
CREATE FUNCTION add_role(int) RETURNS void LANGUAGE sql AS 'INSERT INTO roles VALUES ($1)';
CREATE FUNCTION add_as_owner(int) RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = app AS 'INSERT INTO roles VALUES ($1)';
GRANT INSERT ON roles TO regress_owner;
ALTER FUNCTION add_as_owner(int) OWNER TO regress_owner;
SELECT count(*) FROM (SELECT add_role(g), add_as_owner(g) FROM generate_series(1, 2) g) f;
SELECT count(*) AS entries, count(DISTINCT who_salt) AS salts, count(DISTINCT effective_role) AS roles, count(DISTINCT xid) AS transactions
FROM audit_log WHERE table_name = 'roles' AND operation = 'INSERT';
SELECT valid, problems FROM audit_verify();
SET client_min_messages = warning;
DROP SCHEMA app CASCADE;
DROP OWNED BY regress_login, regress_renamed, regress_owner;
DROP ROLE regress_login, regress_renamed, regress_owner;
