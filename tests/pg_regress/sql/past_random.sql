-- Random changes of tables, with a checkpoint and a copy of the table after each: as of every checkpoint, the log has what the copy has.
\getenv srcdir PG_ABS_SRCDIR
\set setup :srcdir '/setup.sql'
\i :setup
SET client_min_messages = warning;
DROP SCHEMA IF EXISTS copies CASCADE;
CREATE SCHEMA copies;
-- What is compared: a copy's columns are named by their numbers, so that it does not matter what was renamed.
CREATE TABLE taken (kind text, seed int, copy text, size bigint, did text);
-- The same numbers on every server.
CREATE FUNCTION rnd(below int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    state bigint := (current_setting('test.random')::bigint * 1103515245 + 12345) % 2147483648;
BEGIN
    PERFORM set_config('test.random', state::text, false);
    RETURN (state / 65536) % below;
END $$;
-- The name of a column now; null if it was dropped.
CREATE FUNCTION col(number int) RETURNS text LANGUAGE sql AS $$
    SELECT quote_ident(attname) FROM pg_attribute WHERE attrelid = current_setting('test.table')::oid::regclass AND attnum = number AND NOT attisdropped
$$;
-- Some column that is no key: v, n, big, or one that was added.
CREATE FUNCTION some_column() RETURNS int LANGUAGE sql AS $$
    SELECT attnum FROM pg_attribute WHERE attrelid = current_setting('test.table')::oid::regclass AND attnum > 2 AND NOT attisdropped
    ORDER BY attnum OFFSET rnd(
        (SELECT count(*)::int FROM pg_attribute WHERE attrelid = current_setting('test.table')::oid::regclass AND attnum > 2 AND NOT attisdropped)) LIMIT 1
$$;
CREATE FUNCTION some_value(number int) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    RETURN CASE
        WHEN rnd(8) = 0 THEN 'NULL'
        WHEN (SELECT atttypid = 'text'::regtype FROM pg_attribute
              WHERE attrelid = current_setting('test.table')::oid::regclass AND attnum = number) THEN
            CASE WHEN rnd(3) = 0 OR number = 5 THEN format('repeat(%L, %s)', chr(97 + rnd(26)), 2500 + rnd(3)) ELSE quote_literal('v' || rnd(5)) END
        ELSE rnd(4)::text
    END;
END $$;

-- One random command; returns what it did.
CREATE FUNCTION act(kind text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    t text := current_setting('test.table')::oid::regclass;
    c int := some_column();
    d int := some_column();
    id int := rnd(25);
    choice int := rnd(CASE WHEN current_setting('test.ddl')::bool AND rnd(3) = 0 THEN 29 ELSE 21 END);
    command text;
BEGIN
    command := CASE
        WHEN choice < 5 THEN
            format('INSERT INTO %s (%s, %s, %s, %s) SELECT g, %L, %s, %s FROM generate_series(%s, %s) g WHERE %L OR g NOT IN (SELECT %2$s FROM %1$s)',
                   t, col(1), col(2), col(3), col(5), 'k' || rnd(2), some_value(3), some_value(5), id, id + rnd(4), kind = 'none')
        WHEN choice < 9 THEN
            format('UPDATE %s SET %s = %s WHERE %s %% %s = %s', t, col(c), some_value(c), col(1), 2 + rnd(6), rnd(3))
        WHEN choice = 9 THEN
            format('UPDATE %s SET %s = %s, %s = %s WHERE %s BETWEEN %s AND %s', t,
                   col(3), some_value(3), col(5), some_value(5), col(1), id, id + rnd(3))
        WHEN choice = 10 THEN
            format('UPDATE %s SET %s = %s WHERE %s < %s', t, col(c), col(c), col(1), id)
        -- Keys: all move on, two are swapped, one moves away, one comes back with a change.
        WHEN choice = 11 AND kind <> 'composite' THEN
            format('UPDATE %s SET %s = %2$s + 1', t, col(1))
        WHEN choice IN (11, 12) AND kind IN ('single', 'none') THEN
            format('UPDATE %s SET %s = %s - %2$s WHERE %2$s IN (%4$s, %5$s)', t, col(1), 2 * id + 1, id, id + 1)
        WHEN choice IN (11, 12, 13) THEN
            format('UPDATE %s SET %s = %2$s + 50 WHERE %2$s = %s', t, col(1), id)
        WHEN choice = 14 THEN
            format('UPDATE %s o SET %s = %2$s - 50, %s = %s WHERE %2$s >= 50 AND NOT EXISTS (SELECT FROM %1$s i WHERE i.%2$s = o.%2$s - 50)',
                   t, col(1), col(c), some_value(c))
        WHEN choice = 15 THEN
            format('UPDATE %s SET %s = ''k'' || (1 - right(%2$s, 1)::int) WHERE %s = %s AND %2$s ~ ''[01]$''', t, col(2), col(1), id)
        WHEN choice < 19 THEN
            format('DELETE FROM %s WHERE %s BETWEEN %s AND %s', t, col(1), id, id + rnd(3))
        WHEN choice = 19 THEN
            format('WITH gone AS (DELETE FROM %s WHERE %s = %s RETURNING *) UPDATE %1$s SET %4$s = %5$s WHERE %2$s = %6$s', t, col(1), id,
                   col(c), some_value(c), id + 1)
        WHEN choice = 20 THEN
            CASE rnd(3) WHEN 0 THEN format('TRUNCATE %s', t) ELSE format('DELETE FROM %s; INSERT INTO %1$s (%s, %s) VALUES (%s, ''k0'')', t, col(1), col(2), id) END
        WHEN choice = 21 THEN
            format('ALTER TABLE %s RENAME %s TO %I', t, col(c), 'c' || c || '_' || rnd(100))
        WHEN choice = 22 AND c <> d THEN
            format('ALTER TABLE %1$s RENAME %2$s TO swapped; ALTER TABLE %1$s RENAME %3$s TO %2$s; ALTER TABLE %1$s RENAME swapped TO %3$s',
                   t, col(c), col(d))
        WHEN choice = 23 THEN
            format('ALTER TABLE %s ADD %I %s', t, 'a' || rnd(4),
                   CASE rnd(4) WHEN 0 THEN 'text' WHEN 1 THEN 'int DEFAULT 7' WHEN 2 THEN 'text NOT NULL DEFAULT ''d''' ELSE 'text DEFAULT repeat(''q'', 2600)' END)
        WHEN choice = 24 AND c NOT IN (3, 5) THEN
            format('ALTER TABLE %s DROP %s', t, col(c))
        WHEN choice = 25 THEN
            format('ALTER TABLE %s RENAME TO %I', t, 't ' || rnd(1000))
        WHEN choice = 26 THEN
            format('ALTER TABLE %s RENAME %s TO %I', t, col(1), 'id' || rnd(100))
        WHEN choice = 27 THEN
            format('ALTER TABLE %s ALTER %s TYPE %s', t, col(1), CASE WHEN rnd(2) = 0 THEN 'bigint' ELSE 'int' END)
        WHEN choice = 28 THEN
            format('ALTER TABLE %s SET SCHEMA %I', t, CASE rnd(2) WHEN 0 THEN 'app' ELSE 'other "schema".x' END)
    END;
    IF command IS NULL THEN
        RETURN 'nothing';
    END IF;
    EXECUTE command;
    RETURN command;
EXCEPTION WHEN unique_violation OR duplicate_column OR duplicate_table OR not_null_violation OR numeric_value_out_of_range THEN
    -- A savepoint rolled back.
    RETURN 'undone: ' || command;
END $$;

CREATE PROCEDURE run(kind text, seed int, steps int, ddl boolean DEFAULT true) LANGUAGE plpgsql AS $$
DECLARE
    did text;
    copy text;
    size bigint;
BEGIN
    EXECUTE format('CREATE TABLE app.%I (id int, k text, v text, n int, big text%s)', 't_' || kind || seed,
        CASE kind WHEN 'single' THEN ', PRIMARY KEY (id) DEFERRABLE' WHEN 'composite' THEN ', PRIMARY KEY (k, id)' WHEN 'none' THEN ''
                  WHEN 'text' THEN ', PRIMARY KEY (k, id) DEFERRABLE' END);
    PERFORM set_config('test.table', format('app.%I', 't_' || kind || seed)::regclass::oid::text, false);
    PERFORM set_config('test.random', seed::text, false);
    PERFORM set_config('test.ddl', ddl::text, false);
    EXECUTE format('ALTER TABLE %s ALTER big SET STORAGE EXTERNAL, ALTER v SET STORAGE EXTERNAL', current_setting('test.table')::oid::regclass);
    PERFORM audit_enable(current_setting('test.table')::oid::regclass);
    FOR step IN 1..steps LOOP
        did := act(kind);
        IF rnd(4) = 0 THEN
            BEGIN
                did := did || E'\nundone: ' || act(kind);
                did := did || E'\nundone: ' || act(kind);
                RAISE division_by_zero;
            EXCEPTION WHEN division_by_zero THEN NULL;
            END;
        END IF;
        IF rnd(3) = 0 THEN
            did := did || E'\n' || act(kind);
        END IF;
        IF rnd(3) > 0 THEN
            COMMIT;
        END IF;
        IF rnd(25) = 0 THEN
            COMMIT;
            PERFORM audit_rotate();
            COMMIT;
        END IF;
        size := split_part(audit_checkpoint(), E'\n', 2);
        copy := format('copies.%I', kind || seed || '_' || step);
        EXECUTE format('CREATE TABLE %s AS SELECT %s FROM %s', copy,
            (SELECT string_agg(format('%I AS c%s', attname, attnum), ', ') FROM pg_attribute
             WHERE attrelid = current_setting('test.table')::oid::regclass AND attnum > 0 AND NOT attisdropped),
            current_setting('test.table')::oid::regclass);
        INSERT INTO taken VALUES (kind, seed, copy, size, did);
    END LOOP;
    COMMIT;
END $$;

-- How many rows of a copy and of the state as of its checkpoint differ.
CREATE FUNCTION differences(run_kind text, run_seed int) RETURNS TABLE (copy text, size bigint, missing bigint, surplus bigint, did text)
LANGUAGE plpgsql AS $$
DECLARE
    t oid := current_setting('test.table')::oid;
BEGIN
    FOR copy, size, did IN SELECT taken.copy, taken.size, taken.did FROM taken WHERE kind = run_kind AND seed = run_seed ORDER BY taken.size LOOP
        EXECUTE (SELECT format('WITH was AS (SELECT ROW(%s)::text r FROM %s), log AS (SELECT ROW(%s)::text r FROM audit_as_of(NULL::%s, %s))
                SELECT (SELECT count(*) FROM (SELECT r FROM was EXCEPT ALL SELECT r FROM log) x),
                       (SELECT count(*) FROM (SELECT r FROM log EXCEPT ALL SELECT r FROM was) x)',
                string_agg(coalesce(c.attname, 'NULL'), ', ' ORDER BY n.attnum), copy,
                string_agg(format('%I', n.attname), ', ' ORDER BY n.attnum), t::regclass, size)
            FROM pg_attribute n LEFT JOIN pg_attribute c ON c.attrelid = copy::regclass AND c.attname = 'c' || n.attnum
            WHERE n.attrelid = t AND n.attnum > 0 AND NOT n.attisdropped)
            INTO missing, surplus;
        IF missing > 0 OR surplus > 0 THEN
            RETURN NEXT;
        END IF;
    END LOOP;
END $$;

-- How many rows audit_diff() gives otherwise than the states as of two checkpoints: how many pairs were compared, how many differ.
CREATE FUNCTION diffs(run_kind text, run_seed int, OUT pairs int, OUT changes bigint, OUT differing int) LANGUAGE plpgsql AS $$
DECLARE
    t regclass := current_setting('test.table')::oid;
    since bigint;
    until bigint;
    wrong bigint;
    rows bigint;
BEGIN
    pairs := 0;
    changes := 0;
    differing := 0;
    FOR since, until IN SELECT taken.size, lead(taken.size, 3) OVER (ORDER BY taken.size) FROM taken WHERE kind = run_kind AND seed = run_seed
        ORDER BY taken.size LOOP
        CONTINUE WHEN until IS NULL OR rnd(3) > 0;
        EXECUTE format('WITH a AS (SELECT r::text AS r FROM audit_as_of(NULL::%1$s, $1) r), b AS (SELECT r::text AS r FROM audit_as_of(NULL::%1$s, $2) r),
                d AS MATERIALIZED (SELECT old_row::text AS o, new_row::text AS n FROM audit_diff(NULL::%1$s, $1, $2)),
                gone AS (SELECT r FROM a EXCEPT ALL SELECT r FROM b), come AS (SELECT r FROM b EXCEPT ALL SELECT r FROM a),
                o AS (SELECT o FROM d WHERE o IS NOT NULL EXCEPT ALL SELECT n FROM d WHERE n IS NOT NULL),
                n AS (SELECT n FROM d WHERE n IS NOT NULL EXCEPT ALL SELECT o FROM d WHERE o IS NOT NULL)
            SELECT (SELECT count(*) FROM ((TABLE gone EXCEPT ALL TABLE o) UNION ALL (TABLE o EXCEPT ALL TABLE gone)
                                          UNION ALL (TABLE come EXCEPT ALL TABLE n) UNION ALL (TABLE n EXCEPT ALL TABLE come)) x),
                   (SELECT count(*) FROM d)', t) USING since, until INTO wrong, rows;
        pairs := pairs + 1;
        changes := changes + rows;
        differing := differing + (wrong > 0)::int;
    END LOOP;
END $$;

CREATE SCHEMA "other ""schema"".x";
-- As of each checkpoint, first by a log that is partly sealed, then by sealed segments with indexes; with little memory, so that the
-- keys are read in several ranges.
CALL run('single', 100, 46);
SELECT * FROM differences('single', 100);
SELECT pairs > 0 AS compared, changes > 0 AS changed, differing FROM diffs('single', 100);
CALL run('composite', 2, 40);
SELECT * FROM differences('composite', 2);
SELECT pairs > 0 AS compared, changes > 0 AS changed, differing FROM diffs('composite', 2);
SELECT audit_rotate() IS NOT NULL AS rotated;
CALL audit_maintain();
SELECT count(*) > 1 AS indexed FROM pg_indexes WHERE indexname ~ '^audit_log_.*_left_row$';
SELECT * FROM differences('composite', 2);
CALL run('text', 102, 34);
SELECT * FROM differences('text', 102);
SELECT pairs > 0 AS compared, changes > 0 AS changed, differing FROM diffs('text', 102);
CALL run('none', 4, 40);
SELECT * FROM differences('none', 4);
SELECT pairs > 0 AS compared, changes > 0 AS changed, differing FROM diffs('none', 4);
CALL run('single', 108, 12, ddl => false);
INSERT INTO app.t_single108 (id, k, v, big) SELECT g, 'many', 'v' || g, CASE WHEN g % 100 = 0 THEN repeat('m', 2600) END FROM generate_series(100, 9000) g;
UPDATE app.t_single108 SET k = 'changed' WHERE id % 3 = 0;
UPDATE app.t_single108 SET id = 20000 - id WHERE id > 8000;
DO $$ BEGIN
    EXECUTE format('CREATE TABLE copies.many AS SELECT %s FROM app.t_single108', (SELECT string_agg(format('%I AS c%s', attname, attnum), ', ')
        FROM pg_attribute WHERE attrelid = 'app.t_single108'::regclass AND attnum > 0));
END $$;
INSERT INTO taken VALUES ('many', 108, 'copies.many', split_part(audit_checkpoint(), E'\n', 2)::bigint, 'many');
TRUNCATE app.t_single108;
SELECT * FROM differences('single', 108);
SET maintenance_work_mem = '1MB';
SELECT * FROM differences('many', 108);
SELECT audit_rotate() IS NOT NULL AS rotated;
CALL audit_maintain();
SELECT * FROM differences('many', 108);
SELECT kind, seed, count(*), count(*) FILTER (WHERE did ~ 'ALTER') AS ddl FROM taken GROUP BY 1, 2 ORDER BY 2, 1;
DROP SCHEMA copies, "other ""schema"".x" CASCADE;
