-- audit_enable() and audit_disable(): what they install, what they record, and what they refuse.
\getenv srcdir PG_ABS_SRCDIR
\set setup :srcdir '/setup.sql'
\i :setup

CREATE TABLE accounts (id int PRIMARY KEY, owner text, balance numeric, note text);
SELECT audit_enable('accounts');
SELECT tgname, tgenabled FROM pg_trigger WHERE tgrelid = 'accounts'::regclass ORDER BY tgname;
SELECT seq, operation, table_schema, table_name, row_key, old_row, new_row, detail -> 'options' AS options
FROM audit_log ORDER BY seq;

-- Again with the same options: nothing changes, and it says so.
SELECT audit_enable('accounts');
SELECT audit_enable('accounts', exclude_columns => '{}', skip_unchanged => false);
SELECT count(*) FROM audit_log;

-- With others: they change, and the entry holds the old ones too.
SELECT audit_enable('accounts', exclude_columns => '{note}');
SELECT operation, detail -> 'options' AS options, detail -> 'previous_options' AS previous FROM audit_log ORDER BY seq;
-- The order in which columns are named, and naming one twice, do not matter.
SELECT audit_enable('accounts', exclude_columns => '{owner,note}');
SELECT audit_enable('accounts', exclude_columns => '{note,owner,note}');
SELECT count(*) FROM audit_log WHERE operation = 'ENABLE';
INSERT INTO accounts VALUES (1, 'Ann', 10, 'secret');
SELECT operation, new_row FROM audit_log WHERE operation = 'INSERT';

-- The end, with its reason.
SELECT audit_disable('accounts', 'end of the test');
SELECT operation, table_schema, table_name, detail -> 'reason' AS reason, detail -> 'options' AS options
FROM audit_log WHERE operation = 'DISABLE';
SELECT count(*) FROM pg_trigger WHERE tgrelid = 'accounts'::regclass;
INSERT INTO accounts VALUES (2, 'Bob', 20, 'not audited');
SELECT count(*) FROM audit_log WHERE operation = 'INSERT';
SELECT audit_disable('accounts', 'once more');
-- And on again.
SELECT audit_enable('accounts');
INSERT INTO accounts VALUES (3, 'Cid', 30, 'audited again');
SELECT operation, row_key FROM audit_log ORDER BY seq;

-- All of it is transactional.
BEGIN;
SELECT audit_disable('accounts', 'rolled back');
INSERT INTO accounts VALUES (4, 'Dan', 40, NULL);
ROLLBACK;
SELECT count(*) FROM pg_trigger WHERE tgrelid = 'accounts'::regclass;
SELECT count(*) FROM audit_log WHERE operation = 'DISABLE';

-- Bad input. Nothing is half enabled, nothing is recorded.
SELECT max(seq) AS before FROM audit_log \gset
CREATE VIEW a_view AS SELECT * FROM accounts;
CREATE MATERIALIZED VIEW a_matview AS SELECT * FROM accounts;
CREATE SEQUENCE a_sequence;
CREATE TYPE a_type AS (a int);
CREATE TEMP TABLE a_temp_table (id int);
SELECT audit_enable('a_view');
SELECT audit_enable('a_matview');
SELECT audit_enable('a_sequence');
SELECT audit_enable('a_type');
SELECT audit_enable('accounts_pkey');
SELECT audit_enable('a_temp_table');
SELECT audit_enable('pg_catalog.pg_class');
SELECT audit_enable('information_schema.sql_features');
SELECT audit_enable('audit_log');
SELECT audit_enable('audit_log_identity');
SELECT audit_enable('no_such_table');
SELECT audit_enable(0);
SELECT audit_enable(NULL);
SELECT audit_enable('accounts', exclude_columns => NULL);
SELECT audit_enable('accounts', exclude_columns => '{note,NULL}');
SELECT audit_enable('accounts', skip_unchanged => NULL);
SELECT audit_enable('accounts', exclude_columns => '{no_such_column}');
SELECT audit_enable('accounts', exclude_columns => '{Note}');
SELECT audit_enable('accounts', exclude_columns => '{xmin}');
SELECT audit_enable('accounts', exclude_columns => '{id}');
SELECT audit_enable('accounts', mask_columns => '{id}');
SELECT audit_enable('accounts', mask_columns => '{no_such_column}');
SELECT audit_enable('accounts', exclude_columns => '{note}', mask_columns => '{note}');
SELECT audit_disable(NULL, 'reason');
-- A reason that nobody can read is none: spaces of all kinds, and characters that leave no mark.
DO $$
DECLARE
    blank text;
BEGIN
    FOREACH blank IN ARRAY ARRAY['', ' ', E'\t\r\n\x0b\f', U&'\00A0\1680\2000\2003\2028\2029\202F\205F\3000', U&'\200B\200C\200D\2060\FEFF',
            U&'\00AD\034F\061C\180E\200E\202E\2064', U&'\115F\3164\FFA0\2800', U&'\FE0F\+0E0020', E'\x01\x7f']
    LOOP
        BEGIN
            PERFORM audit_disable('accounts', blank);
            RAISE NOTICE 'not refused: %', encode(convert_to(blank, 'UTF8'), 'hex');
        EXCEPTION WHEN invalid_parameter_value THEN
        END;
        BEGIN
            PERFORM audit_disable_schema('app', blank);
            RAISE NOTICE 'not refused: %', encode(convert_to(blank, 'UTF8'), 'hex');
        EXCEPTION WHEN invalid_parameter_value THEN
        END;
        BEGIN
            PERFORM audit_event(blank);
            RAISE NOTICE 'not refused: %', encode(convert_to(blank, 'UTF8'), 'hex');
        EXCEPTION WHEN invalid_parameter_value THEN
        END;
    END LOOP;
END
$$;
SELECT audit_disable('accounts', NULL);
CREATE ROLE regress_enable_other;
GRANT USAGE ON SCHEMA app TO regress_enable_other;
GRANT ALL ON accounts TO regress_enable_other;
SET ROLE regress_enable_other;
SELECT audit_enable('accounts', exclude_columns => '{note}');
SELECT audit_disable('accounts', 'I may not');
RESET ROLE;
-- Their SQLSTATEs.
\set VERBOSITY sqlstate
SELECT audit_enable('a_view');
SELECT audit_enable(NULL);
SELECT audit_enable('accounts', exclude_columns => '{no_such_column}');
SELECT audit_enable('accounts', exclude_columns => '{id}');
SET ROLE regress_enable_other;
SELECT audit_enable('accounts');
RESET ROLE;
\set VERBOSITY default
SELECT max(seq) = :before AS nothing_recorded FROM audit_log;
-- Options lost nothing in all this.
SELECT audit_enable('accounts');
DROP OWNED BY regress_enable_other;
DROP ROLE regress_enable_other;
SELECT valid, problems FROM audit_verify();
-- What is not there.
SELECT audit_enable(0), audit_enable(1::regclass);
SELECT audit_disable(0, 'none');
SELECT audit_enable_schema(0);
SELECT audit_disable_schema(0, 'none');
