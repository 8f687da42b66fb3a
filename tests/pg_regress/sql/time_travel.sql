-- audit_time_travel(): temporary views of the audited tables' names, so that unchanged queries see the past.
\getenv srcdir PG_ABS_SRCDIR
\set setup :srcdir '/setup.sql'
\i :setup
-- Notices have times.
SET client_min_messages = warning;
CREATE TABLE accounts (id int PRIMARY KEY, owner text, balance numeric(5, 2));
CREATE TABLE moves (id int PRIMARY KEY, account int REFERENCES accounts, amount numeric);
CREATE TABLE plain (v text);
SELECT audit_enable('accounts'), audit_enable('moves');
INSERT INTO accounts VALUES (1, 'Ada', 10), (2, 'Bob', 5);
INSERT INTO moves VALUES (1, 1, 10);
INSERT INTO plain VALUES ('now');
SELECT split_part(audit_checkpoint(), E'\n', 2) AS first \gset
UPDATE accounts SET balance = 99 WHERE id = 1;
DELETE FROM moves;
DELETE FROM accounts WHERE id = 2;
SELECT split_part(audit_checkpoint(), E'\n', 2) AS second \gset
INSERT INTO accounts VALUES (3, 'Cy', 1);

-- Prepared, and planned, before.
CREATE VIEW totals AS SELECT sum(balance) AS total FROM accounts;
CREATE FUNCTION sql_total() RETURNS numeric LANGUAGE sql AS 'SELECT sum(balance) FROM accounts';
CREATE FUNCTION plpgsql_total() RETURNS numeric LANGUAGE plpgsql AS $$ BEGIN RETURN (SELECT sum(balance) FROM accounts); END $$;
SET plan_cache_mode = force_generic_plan;
PREPARE total AS SELECT sum(balance) FROM accounts;
EXECUTE total;
SELECT sql_total(), plpgsql_total();

SELECT audit_time_travel(:first::bigint);
SELECT * FROM accounts ORDER BY id;
SELECT a.owner, m.amount FROM accounts a JOIN moves m ON m.account = a.id;
SELECT owner, count(*) OVER () FROM accounts WHERE balance > (SELECT avg(amount) FROM moves) / 3 ORDER BY 1;
EXECUTE total;
SELECT sql_total(), plpgsql_total();
-- What is named with its schema, a view, and what is not audited are as they are now.
SELECT * FROM app.accounts ORDER BY id;
SELECT * FROM totals;
SELECT * FROM plain;
-- Nothing can be written there.
INSERT INTO accounts VALUES (4, 'Di', 0);
UPDATE accounts SET balance = 0;
DELETE FROM accounts;
TRUNCATE accounts;
-- Again, to another moment.
SELECT audit_time_travel(:'second');
SELECT * FROM accounts ORDER BY id;
EXECUTE total;
SELECT count(*) FROM moves;
SELECT audit_time_travel_end();
SELECT * FROM accounts ORDER BY id;
EXECUTE total;
SELECT sql_total(), plpgsql_total();
RESET client_min_messages;
SELECT audit_time_travel_end();
SET client_min_messages = warning;
-- A plan that was made while nothing of it was temporary, in a session that has a temporary schema already.
EXECUTE total;
SELECT audit_time_travel(:first::bigint);
EXECUTE total;
SELECT sql_total(), plpgsql_total();
BEGIN;
SELECT audit_time_travel_end();
EXECUTE total;
SELECT plpgsql_total();
ROLLBACK;
EXECUTE total;
SELECT plpgsql_total();
BEGIN;
SAVEPOINT s;
SELECT audit_time_travel_end();
EXECUTE total;
ROLLBACK TO s;
EXECUTE total;
COMMIT;
SELECT audit_time_travel_end();
DEALLOCATE total;
RESET plan_cache_mode;

-- A transaction that is rolled back leaves nothing behind; nor does a savepoint.
BEGIN;
SELECT audit_time_travel(:first::bigint);
SAVEPOINT s;
SELECT audit_time_travel_end();
SELECT sum(balance) FROM accounts;
ROLLBACK TO s;
SELECT sum(balance) FROM accounts;
ROLLBACK;
SELECT sum(balance) FROM accounts;
SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema();
-- DISCARD TEMP ends it.
SELECT audit_time_travel(:first::bigint);
DISCARD TEMP;
SELECT sum(balance) FROM accounts;
SELECT audit_time_travel(:first::bigint);
DISCARD ALL;
SET search_path = app, public;
SET client_min_messages = warning;
SELECT sum(balance) FROM accounts;
-- No entry was made of the views.
SELECT operation, detail ->> 'command' AS command, count(*) FROM audit_log WHERE operation = 'DDL' GROUP BY 1, 2;

-- The search path.
CREATE SCHEMA other;
CREATE TABLE other.accounts (id int PRIMARY KEY);
CREATE TABLE other.only_there (id int PRIMARY KEY);
SELECT audit_enable('other.accounts'), audit_enable('other.only_there');
SELECT pg_sleep(0.001);
INSERT INTO other.accounts VALUES (77);
INSERT INTO other.only_there VALUES (5);
SELECT split_part(audit_checkpoint(), E'\n', 2) AS third \gset
DELETE FROM other.accounts;
DELETE FROM other.only_there;
SELECT audit_time_travel(:third::bigint);
SELECT count(*) FROM accounts;
SELECT * FROM only_there;
SELECT audit_time_travel_end();
SET search_path = app, other, public, pg_temp;
SELECT audit_time_travel(:third::bigint);
SHOW search_path;
SELECT * FROM only_there;
SELECT count(*) FROM accounts;
SELECT audit_time_travel_end();
SET search_path = other, public;
SELECT audit_time_travel(:third::bigint);
SELECT * FROM accounts;
SET search_path = app, public;
SELECT * FROM accounts;
SELECT audit_time_travel_end();
SET search_path = app, public;
SET search_path = "$user", app, public, "odd ""schema", pg_temp;
SELECT audit_time_travel(:third::bigint);
SHOW search_path;
SELECT audit_time_travel_end();
-- Of the transaction only.
SET search_path = app, public, pg_temp;
BEGIN;
SELECT audit_time_travel(:third::bigint);
SHOW search_path;
ROLLBACK;
SHOW search_path;
SET search_path = app, public;
DROP SCHEMA other CASCADE;

-- A temporary relation of the name is there: nothing is half done.
CREATE TEMPORARY TABLE moves (mine int);
SELECT audit_time_travel(:first::bigint);
SELECT sum(balance) FROM accounts;
SELECT * FROM moves;
DROP TABLE pg_temp.moves;
CREATE TEMPORARY VIEW moves AS SELECT 'mine' AS v;
SELECT audit_time_travel(:first::bigint);
SELECT audit_time_travel_end();
SELECT * FROM moves;
DROP VIEW moves;

-- Names and types.
DROP TABLE accounts, moves CASCADE;
DROP FUNCTION sql_total(), plpgsql_total();
CREATE SCHEMA "Odd ""S";
CREATE TYPE "Odd ""S".mood AS ENUM ('sad', 'ok');
CREATE DOMAIN "Odd ""S".positive AS int CHECK (VALUE > 0);
CREATE TYPE "Odd ""S".pair AS (a int, b text);
CREATE TABLE "Odd ""S"."Tab ""le; --" (
    id int PRIMARY KEY, "Col ""umn" text COLLATE "C", gone int, e "Odd ""S".mood, p "Odd ""S".positive, c "Odd ""S".pair, es "Odd ""S".mood[], v varchar(3),
    n numeric(5, 2), ch char, ch3 char(3), qc "char", b bit(3), i interval day to second(2), ts timestamptz(3), iv int[], g int GENERATED ALWAYS AS (id * 2) STORED,
    j json, jb jsonb, x pg_lsn, nm name, tr tstzrange);
ALTER TABLE "Odd ""S"."Tab ""le; --" DROP COLUMN gone;
SET search_path = "Odd ""S", app, public;
SELECT audit_enable('"Tab ""le; --"');
INSERT INTO "Tab ""le; --" VALUES (1, 'é', 'ok', 1, '(1,"x y")', '{sad,ok}', 'abc', 1.5, 'c', 'cc', 'q', '101', '1 day 02:03:04.05', '2026-01-02 03:04:05.678+00',
    '{1,NULL}', DEFAULT, '{"a": 1 }', '{"a": 1}', '16/B374D848', 'nm', '[2026-01-01,2026-01-02)');
CREATE TEMPORARY TABLE before AS SELECT * FROM "Tab ""le; --";
SELECT split_part(audit_checkpoint(), E'\n', 2) AS fourth \gset
UPDATE "Tab ""le; --" SET "Col ""umn" = 'later', iv = NULL;
SELECT audit_time_travel(:fourth::bigint);
SELECT row(b.*)::text = row(t.*)::text AS same FROM before b, "Tab ""le; --" t;
SELECT "Col ""umn" < 'f' AS by_c, pg_collation_for("Col ""umn"), e > 'sad', (c).b, g FROM "Tab ""le; --";
SELECT a.attname, format_type(a.atttypid, a.atttypmod), v.attname = a.attname AND v.atttypid = a.atttypid AND v.atttypmod = a.atttypmod
    AND v.attcollation = a.attcollation AS same
FROM pg_attribute a JOIN pg_class t ON t.oid = a.attrelid AND t.relkind = 'r' JOIN pg_class w ON w.relname = t.relname AND w.relkind = 'v'
    LEFT JOIN pg_attribute v ON v.attrelid = w.oid AND v.attname = a.attname
WHERE t.relname LIKE 'Tab%' AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum;
SELECT audit_time_travel_end();
SET search_path = app, public;
DROP SCHEMA "Odd ""S" CASCADE;

-- What was not audited then.
CREATE TABLE later (id int PRIMARY KEY);
SELECT audit_enable('later');
SELECT audit_time_travel(:fourth::bigint);
\set VERBOSITY sqlstate
SELECT * FROM later;
\set VERBOSITY default
SELECT audit_time_travel_end();
-- Times.
INSERT INTO later VALUES (1);
SELECT now() AS then \gset
SELECT pg_sleep(0.002);
INSERT INTO later VALUES (2);
SELECT audit_time_travel(:'then'::timestamptz, exact => false);
SELECT * FROM later;
SELECT audit_time_travel(:'then', false);
SELECT * FROM later;
SELECT audit_time_travel(now());
SELECT audit_time_travel('tomorrow'::timestamptz);
SELECT audit_time_travel(NULL::timestamptz);
SELECT audit_time_travel(:'then'::timestamptz, NULL);
SELECT audit_time_travel(-1);
SELECT audit_time_travel(1234567);
SELECT audit_time_travel('nonsense');
-- It was not ended by these.
SELECT * FROM later;
SELECT audit_time_travel_end();

-- Not audited any more: what is known of it is shown.
CREATE TABLE former (id int PRIMARY KEY);
SELECT audit_enable('former');
INSERT INTO former VALUES (1);
SELECT split_part(audit_checkpoint(), E'\n', 2) AS earlier \gset
SELECT audit_disable('former', 'a test');
INSERT INTO former VALUES (2);
SELECT audit_time_travel(:earlier::bigint);
SELECT * FROM former;
SELECT audit_time_travel_end();
DROP TABLE former;

-- Partitions, tables that inherit: the whole and its parts.
CREATE TABLE part (id int PRIMARY KEY) PARTITION BY RANGE (id);
CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM (0) TO (10);
CREATE TABLE part_2 PARTITION OF part FOR VALUES FROM (10) TO (20);
SELECT audit_enable('part');
INSERT INTO part VALUES (1), (11);
SELECT split_part(audit_checkpoint(), E'\n', 2) AS fifth \gset
DELETE FROM part;
SELECT audit_time_travel(:fifth::bigint);
SELECT * FROM part ORDER BY id;
SELECT * FROM part_1;
-- Tables are renamed, altered and dropped meanwhile.
ALTER TABLE app.part_1 RENAME TO part_one;
SELECT * FROM part_1;
SELECT * FROM part ORDER BY id;
ALTER TABLE app.part ADD COLUMN extra text, ADD COLUMN more int;
SELECT * FROM part ORDER BY id;
DROP TABLE app.later;
SELECT * FROM later;
SELECT audit_time_travel_end();

-- Who may.
CREATE TABLE mine (id int PRIMARY KEY);
CREATE TABLE secured (id int PRIMARY KEY);
CREATE TABLE hidden (id int PRIMARY KEY);
SELECT audit_enable('mine'), audit_enable('secured'), audit_enable('hidden');
INSERT INTO mine VALUES (1);
INSERT INTO secured VALUES (1);
INSERT INTO hidden VALUES (1);
SELECT split_part(audit_checkpoint(), E'\n', 2) AS sixth \gset
INSERT INTO mine VALUES (2);
ALTER TABLE secured ENABLE ROW LEVEL SECURITY;
CREATE ROLE regress_traveller;
GRANT USAGE ON SCHEMA app TO regress_traveller;
GRANT SELECT ON mine, secured TO regress_traveller;
SET ROLE regress_traveller;
SELECT audit_time_travel(:sixth::bigint);
RESET ROLE;
GRANT SELECT ON audit_log TO regress_traveller;
SET ROLE regress_traveller;
SELECT audit_time_travel(:sixth::bigint);
SELECT * FROM mine;
SELECT * FROM secured;
SELECT * FROM hidden;
RESET ROLE;
-- Rights are those of who reads, when it reads.
REVOKE SELECT ON app.mine FROM regress_traveller;
SELECT * FROM pg_temp.mine;
SET ROLE regress_traveller;
SELECT * FROM mine;
RESET ROLE;
SELECT audit_time_travel_end();
BEGIN READ ONLY;
SELECT audit_time_travel(:sixth::bigint);
ROLLBACK;
-- The views in a transaction that is read-only.
SELECT audit_time_travel(:sixth::bigint);
BEGIN READ ONLY;
SELECT * FROM mine;
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE;
SELECT * FROM mine;
COMMIT;
SELECT audit_time_travel_end();
DROP OWNED BY regress_traveller;
DROP ROLE regress_traveller;
