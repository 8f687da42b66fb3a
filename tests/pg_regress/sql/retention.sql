-- Retention: the policy, and legal holds.
\getenv srcdir PG_ABS_SRCDIR
\set setup :srcdir '/setup.sql'
\i :setup

-- Without a policy nothing is shown, and nothing can be set without saying how long, and why.
SELECT * FROM audit_retention();
SELECT audit_retention(locked => true, reason => 'no time given');
SELECT audit_retention('1 year');
SELECT audit_retention('1 year', reason => ' ');
SELECT audit_retention('0', reason => 'x');
SELECT audit_retention('-1 day', reason => 'x');
SELECT audit_retention('1 year -1 day', reason => 'x');
SELECT audit_retention('-1 month 365 days', reason => 'x');
SELECT audit_retention('1 day -1 microsecond', reason => 'x');
SELECT audit_retention('1001 years', reason => 'x');
SELECT audit_retention('178000000 years', reason => 'x');
SELECT audit_retention('9223372036854775807 microseconds', reason => 'x');
SELECT count(*) FROM audit_log;

-- The longest that an interval can last, compared with the calendar: no interval from any day of 50 years lasts longer, and one
-- day lasts exactly as long. What is stored does not depend on the session's settings.
SET TimeZone = 'America/New_York';
SET IntervalStyle = 'sql_standard';
CREATE TABLE lasts (keep interval, seconds bigint);
DO $$
DECLARE
    months int;
BEGIN
    FOREACH months IN ARRAY ARRAY[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 23, 24, 36, 48, 60, 61, 84, 120, 121] LOOP
        PERFORM audit_retention(pg_catalog.make_interval(months => months), reason => 'tried');
    END LOOP;
END
$$;
INSERT INTO lasts SELECT keep, keep_seconds FROM audit_retention_policy;
WITH calendar AS (
    SELECT keep, seconds, max(extract(epoch FROM (day + keep) - day)) AS longest
    FROM lasts, generate_series(timestamp '1996-01-01', timestamp '2046-01-01', '1 day') AS day
    GROUP BY keep, seconds)
SELECT count(*) AS intervals, count(*) FILTER (WHERE longest > seconds) AS too_short,
       -- Years and months together may be given some days more.
       max(seconds - longest) <= 3 * 86400 AS close,
       count(*) FILTER (WHERE seconds = longest AND (extract(month FROM keep) = 0 OR keep < '1 year')) AS exact
FROM calendar;
RESET IntervalStyle;
RESET TimeZone;
DROP TABLE lasts;
SELECT detail ->> 'keep' AS keep, detail ->> 'keep_seconds' AS seconds FROM audit_log
WHERE operation = 'RETENTION' ORDER BY chain, seq DESC LIMIT 2;

-- What is not given stays; what is the same adds no entry, unless a reason alone is given.
SELECT keep FROM audit_retention('00:00:00.5', needs_published => true, reason => 'half a second');
SELECT * FROM audit_retention('7 years', reason => 'commercial law') \gset set_
SELECT :'set_keep', :'set_locked', :'set_needs_export', :'set_needs_published';
SELECT count(*) AS before FROM audit_log \gset
SELECT keep FROM audit_retention('7 years', reason => 'once more');
SELECT count(*) - :before AS added FROM audit_log;
SELECT keep FROM audit_retention(reason => 'recorded again');
SELECT count(*) - :before AS added FROM audit_log;
SELECT detail FROM audit_log WHERE operation = 'RETENTION' ORDER BY chain, seq DESC LIMIT 1;

-- A policy that is not locked may be lowered; a locked one only raised, by nobody.
SELECT keep, locked FROM audit_retention('1 month', reason => 'a trial');
SELECT keep, locked FROM audit_retention('6 years', locked => true, reason => 'HIPAA');
SELECT audit_retention('5 years', reason => 'too costly');
SELECT audit_retention('6 years -1 microsecond', reason => 'too costly');
SELECT audit_retention('2191 days', reason => 'six years have 2192 days if two of them are leap years');
SELECT audit_retention('71 months', reason => 'x');
SELECT audit_retention(locked => false, reason => 'x');
SELECT audit_retention('10 years', locked => false, reason => 'x');
SELECT audit_retention('10 years', needs_export => false, reason => 'x');
SELECT audit_retention('10 years', needs_published => false, reason => 'x');
SELECT keep, locked FROM audit_retention('2192 days', reason => 'as long');
SELECT keep, locked FROM audit_retention('72 months', reason => 'as long');
SELECT keep, locked FROM audit_retention('7 years', reason => 'PCI, and one more');
SELECT version, keep, keep_seconds / 86400.0 AS days, locked FROM audit_retention_policy ORDER BY version DESC LIMIT 4;

-- Holds.
SELECT audit_hold(NULL, 'x');
SELECT audit_hold('matter', NULL);
SELECT audit_hold(' ', 'x');
SELECT audit_hold('matter', '');
SELECT audit_hold(repeat('x', 2000), 'x');
SELECT audit_release('matter 1', 'x');
SELECT audit_hold('matter 1', 'a letter of the court');
SELECT audit_hold('matter 1', 'again');
SELECT audit_hold('Sache "2"', 'another letter');
SELECT name, placed_by = current_user AS by_me, reason, since IS NOT NULL AS since FROM audit_holds ORDER BY name;
SELECT audit_release('matter 3', 'x');
SELECT audit_release('matter 1', 'settled');
SELECT audit_release('matter 1', 'settled twice');
SELECT audit_hold('matter 1', 'reopened');
SELECT name, reason FROM audit_holds ORDER BY name;
SELECT keep, holds FROM audit_status;
SELECT operation, detail FROM audit_log WHERE operation IN ('HOLD', 'RELEASE') ORDER BY chain, seq;

-- One that is undone was none.
BEGIN;
SELECT audit_hold('matter 4', 'undone');
SAVEPOINT s;
SELECT audit_release('matter 1', 'undone');
SELECT name FROM audit_holds ORDER BY name;
ROLLBACK TO s;
SELECT name FROM audit_holds ORDER BY name;
ROLLBACK;
SELECT name FROM audit_holds ORDER BY name;

-- Nobody else than the extension's owner, whatever they were granted; nothing in a read-only transaction.
CREATE ROLE regress_records;
GRANT EXECUTE ON FUNCTION audit_retention(interval, boolean, boolean, boolean, text), audit_hold(text, text),
    audit_release(text, text) TO regress_records;
SET ROLE regress_records;
SELECT audit_retention('8 years', reason => 'x');
SELECT audit_hold('mine', 'x');
SELECT audit_release('matter 1', 'x');
SELECT * FROM audit_holds;
RESET ROLE;
BEGIN READ ONLY;
SELECT audit_retention('8 years', reason => 'x');
ROLLBACK;
BEGIN READ ONLY;
SELECT audit_hold('mine', 'x');
ROLLBACK;
BEGIN READ ONLY;
SELECT keep, locked FROM audit_retention();
COMMIT;

-- The tables are append-only, and a locked policy that was lowered by force is found.
INSERT INTO audit_retention_policy VALUES (100, '1 s', 1, false, false, false, 0, 1, now());
UPDATE audit_retention_policy SET keep_seconds = 1;
DELETE FROM audit_hold_log;
TRUNCATE audit_hold_log;
DROP TABLE audit_hold_log;
BEGIN;
ALTER EVENT TRIGGER audit_chain_ddl_start DISABLE;
ALTER EVENT TRIGGER audit_chain_ddl_end DISABLE;
ALTER TABLE audit_retention_policy DISABLE TRIGGER ALL;
SAVEPOINT s;
UPDATE audit_retention_policy SET keep_seconds = 1 WHERE version = (SELECT max(version) FROM audit_retention_policy);
SELECT keep FROM audit_retention();
ROLLBACK TO s;
UPDATE audit_retention_policy SET keep_seconds = 1 WHERE version = (SELECT max(version) FROM audit_retention_policy);
SELECT audit_retention('8 years', reason => 'x');
ROLLBACK TO s;
DELETE FROM audit_retention_policy WHERE version = 1;
SELECT audit_retention('8 years', reason => 'x');
ROLLBACK TO s;
ALTER TABLE audit_hold_log DISABLE TRIGGER ALL;
DELETE FROM audit_hold_log WHERE version = 2;
SELECT keep, holds FROM audit_status;
SELECT audit_hold('matter 9', 'x');
ROLLBACK;
SELECT valid, problems FROM audit_verify();
REVOKE ALL ON FUNCTION audit_retention(interval, boolean, boolean, boolean, text), audit_hold(text, text),
    audit_release(text, text) FROM regress_records;
DROP ROLE regress_records;
