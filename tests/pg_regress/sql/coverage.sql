-- audit_coverage: every user table; audited or not; and when its triggers were taken away by force.
\getenv srcdir PG_ABS_SRCDIR
\set setup :srcdir '/setup.sql'
\i :setup

CREATE TABLE audited (id int PRIMARY KEY, note text);
CREATE TABLE not_audited (id int);
CREATE TABLE p (id int) PARTITION BY RANGE (id);
CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
CREATE TEMP TABLE temporary (id int);
CREATE ROLE regress_coverage;
ALTER TABLE p OWNER TO regress_coverage;
GRANT USAGE ON SCHEMA app TO regress_coverage;
CREATE VIEW covered AS SELECT table_name, audited, state, enabled_by IS NOT NULL AS known, since <= now() AS begun, options
    FROM audit_coverage WHERE table_schema = 'app' ORDER BY table_name;
TABLE covered;
SELECT audit_enable('audited', exclude_columns => '{note}');
SET ROLE regress_coverage;
SELECT audit_enable('p');
RESET ROLE;
TABLE covered;
SELECT table_name, enabled_by FROM audit_coverage WHERE table_schema = 'app' AND table_name LIKE 'p%' ORDER BY 1;
-- Since when: from the first ENABLE on, whatever options came later; after a pause, from the next.
SELECT since AS first FROM audit_coverage WHERE table_name = 'audited' \gset
SELECT pg_sleep(0.01);
SELECT audit_enable('audited');
SELECT since = :'first' AS same FROM audit_coverage WHERE table_name = 'audited';
SELECT audit_disable('audited', 'pause');
SELECT audited, since, options FROM audit_coverage WHERE table_name = 'audited';
SELECT pg_sleep(0.01);
SELECT audit_enable('audited');
SELECT since > :'first' AS later FROM audit_coverage WHERE table_name = 'audited';
-- Nothing of the system's, nothing of ours.
SELECT count(*) FROM audit_coverage WHERE table_schema IN ('pg_catalog', 'information_schema') OR table_name LIKE 'audit\_%' OR table_name = 'temporary';
SELECT summary LIKE '%audit_coverage%' AS mentioned FROM audit_verify();
-- By force: the event triggers off, then the capture triggers.
ALTER EVENT TRIGGER audit_chain_ddl_start DISABLE;
ALTER EVENT TRIGGER audit_chain_ddl_end DISABLE;
ALTER EVENT TRIGGER audit_chain_drop DISABLE;
CREATE TABLE dropped (id int); CREATE TABLE half (id int);
SELECT audit_enable('dropped'), audit_enable('half');
ALTER TABLE audited DISABLE TRIGGER ALL;
DROP TRIGGER "!audit_chain_row" ON half;
DROP TRIGGER "!audit_chain_row" ON p1;
DROP TRIGGER "!audit_chain_statement" ON p;
DROP TABLE dropped;
ALTER EVENT TRIGGER audit_chain_ddl_start ENABLE ALWAYS;
ALTER EVENT TRIGGER audit_chain_ddl_end ENABLE ALWAYS;
ALTER EVENT TRIGGER audit_chain_drop ENABLE ALWAYS;
SELECT table_name, audited, state FROM covered;
-- That is not tampering with the log: it is intact, and the summary says whose auditing was ended.
SELECT valid, problems, substring(summary FROM '; the auditing.*') AS mentioned FROM audit_verify();
-- Put right.
SELECT audit_enable('audited'), audit_enable('half'), audit_enable('p');
SELECT table_name, audited, state FROM covered;
INSERT INTO audited VALUES (1, 'x');
INSERT INTO p VALUES (1);
SELECT operation, table_name FROM audit_log WHERE operation = 'INSERT' ORDER BY seq;
-- audit_status.
SELECT chains, entries = (SELECT count(*) FROM audit_log) AS entries, newest_entry = (SELECT max(at) FROM audit_log) AS newest FROM audit_status;
DROP TABLE p;
REVOKE ALL ON SCHEMA app FROM regress_coverage;
DROP ROLE regress_coverage;
SELECT valid, problems FROM audit_verify();
