-- Random changes of tables with partitions, or children, that are detached, attached, renamed and altered, with a checkpoint and copies
-- after each: as of every checkpoint, the log has what the copies have.
\getenv srcdir PG_ABS_SRCDIR
\set setup :srcdir '/setup.sql'
\i :setup
SET client_min_messages = warning;
DROP SCHEMA IF EXISTS copies, other CASCADE;
CREATE SCHEMA copies;
CREATE SCHEMA other;
-- The same numbers on every server.
CREATE FUNCTION rnd(below int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    state bigint := (current_setting('test.random')::bigint * 1103515245 + 12345) % 2147483648;
BEGIN
    PERFORM set_config('test.random', state::text, false);
    RETURN (state / 65536) % below;
END $$;
CREATE FUNCTION named(t oid) RETURNS text LANGUAGE sql AS $$
    SELECT format('%I.%I', nspname, relname) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE c.oid = t
$$;
CREATE VIEW columns AS
    SELECT attrelid AS t, attnum AS number, attname AS name FROM pg_attribute WHERE attnum > 0 AND NOT attisdropped;
CREATE FUNCTION some_column(of oid) RETURNS text LANGUAGE sql AS $$
    SELECT quote_ident(name) FROM columns WHERE t = of AND name <> 'id' ORDER BY name COLLATE "C"
    OFFSET rnd((SELECT count(*)::int FROM columns WHERE t = of AND name <> 'id')) LIMIT 1
$$;
-- The tables that come and go, with the least key that they take.
CREATE TABLE members (root oid, member oid, least int, is_attached boolean);
CREATE TABLE kept (root oid, t oid, step int, copy text, size bigint, did text);

-- One random command; returns what it did.
CREATE FUNCTION act(of oid, is_partitioned boolean) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    t text := named(of);
    col text := some_column(of);
    id int := rnd(40);
    m members;
    command text;
    preparation text;
    attaches boolean := false;
BEGIN
    SELECT * INTO m FROM members WHERE root = of ORDER BY least OFFSET rnd(4) LIMIT 1;
    command := CASE rnd(21)
        WHEN 0 THEN format('INSERT INTO %s (id, %s) SELECT g, ''i%s'' FROM generate_series(%s, %s) g WHERE g NOT IN (SELECT id FROM %1$s)',
                           t, col, rnd(9), id, id + rnd(4))
        WHEN 1 THEN format('INSERT INTO %s (id, %s) SELECT g, ''m%s'' FROM generate_series(%s, %s) g WHERE g NOT IN (SELECT id FROM %1$s)',
                           named(m.member), some_column(m.member), rnd(9), m.least, m.least + rnd(9))
        WHEN 2 THEN format('UPDATE %s SET %s = ''u%s'' WHERE id %% 3 = %s', t, col, rnd(9), rnd(3))
        WHEN 3 THEN format('UPDATE %s SET id = %s WHERE id = %s AND NOT EXISTS (SELECT FROM %1$s WHERE id = %2$s)', t, rnd(40), id)
        WHEN 4 THEN format('DELETE FROM %s WHERE id BETWEEN %s AND %s', t, id, id + 2)
        WHEN 5 THEN format('UPDATE %s SET %s = ''d%s''', named(m.member), some_column(m.member), rnd(9))
        WHEN 6 THEN CASE rnd(6) WHEN 0 THEN format('TRUNCATE %s', t) WHEN 1 THEN format('TRUNCATE %s', named(m.member)) END
        WHEN 7 THEN format('ALTER TABLE %s RENAME TO %I', named(m.member), 'member ' || m.member || ' ' || rnd(100))
        WHEN 8 THEN format('ALTER TABLE %s SET SCHEMA %I', named(m.member), CASE rnd(2) WHEN 0 THEN 'app' ELSE 'other' END)
        WHEN 9 THEN CASE WHEN m.is_attached THEN format('ALTER TABLE %s RENAME %s TO %I', t, col, 'c' || rnd(6))
                    ELSE format('ALTER TABLE %s RENAME %s TO %I', named(m.member), some_column(m.member), 'c' || rnd(6)) END
        WHEN 10 THEN format('ALTER TABLE %s ADD %I text DEFAULT %L', t, 'c' || rnd(6), 'def' || rnd(9))
        WHEN 11 THEN CASE WHEN (SELECT count(*) FROM columns WHERE columns.t = of) > 2 THEN format('ALTER TABLE %s DROP %s', t, col) END
        WHEN 12 THEN format('ALTER TABLE %s RENAME TO %I', t, 'root ' || of || ' ' || rnd(100))
        WHEN 13 THEN format('SELECT audit_enable(%L, skip_unchanged => %L)', t, rnd(2) = 0)
    END;
    IF command IS NULL THEN
        attaches := true;
        command := CASE
            WHEN is_partitioned AND m.is_attached THEN format('ALTER TABLE %s DETACH PARTITION %s', t, named(m.member))
            WHEN is_partitioned THEN
                format('ALTER TABLE %s ATTACH PARTITION %s FOR VALUES FROM (%s) TO (%s)', t, named(m.member), m.least, m.least + 10)
            WHEN m.is_attached THEN format('ALTER TABLE %s NO INHERIT %s', named(m.member), t)
            ELSE format('ALTER TABLE %s INHERIT %s', named(m.member), t)
        END;
        -- It gets the columns that the table has by now.
        IF NOT m.is_attached THEN
            SELECT string_agg(line || '; ', '') INTO preparation FROM (
                SELECT format('ALTER TABLE %s ADD %I text DEFAULT ''added''', named(m.member), name) AS line FROM columns WHERE columns.t = of
                    AND name NOT IN (SELECT name FROM columns WHERE columns.t = m.member)
                UNION ALL SELECT format('ALTER TABLE %s DROP %I', named(m.member), name) FROM columns WHERE is_partitioned
                    AND columns.t = m.member AND name NOT IN (SELECT name FROM columns WHERE columns.t = of)) lines;
            command := coalesce(preparation, '') || command;
        END IF;
    END IF;
    EXECUTE command;
    IF attaches THEN
        UPDATE members SET is_attached = NOT is_attached WHERE member = m.member;
    END IF;
    RETURN command;
EXCEPTION WHEN unique_violation OR duplicate_column OR duplicate_table OR check_violation THEN
    -- A savepoint rolled back.
    RETURN 'undone: ' || command;
END $$;

CREATE PROCEDURE run(name text, is_partitioned boolean, seed int, steps int) LANGUAGE plpgsql AS $$
DECLARE
    top oid;
    child oid;
    did text;
    copy text;
    size bigint;
BEGIN
    PERFORM set_config('test.random', seed::text, false);
    EXECUTE format('CREATE TABLE app.%I (id int PRIMARY KEY, v text, w text)%s', name,
                   CASE WHEN is_partitioned THEN ' PARTITION BY RANGE (id)' END);
    top := format('app.%I', name)::regclass;
    FOR number IN 0..3 LOOP
        EXECUTE format('CREATE TABLE app.%I (w text, id int PRIMARY KEY, x int, v text); ALTER TABLE app.%1$I DROP x', name || number);
        child := format('app.%I', name || number)::regclass;
        -- One is audited by itself before it is attached; one is not attached at first.
        IF number = 2 THEN
            PERFORM audit_enable(child::regclass, skip_unchanged => true);
        END IF;
        IF number < 3 THEN
            EXECUTE CASE WHEN is_partitioned THEN
                format('ALTER TABLE %s ATTACH PARTITION %s FOR VALUES FROM (%s) TO (%s)', named(top), named(child), number * 10, number * 10 + 10)
                ELSE format('ALTER TABLE %s INHERIT %s', named(child), named(top)) END;
        END IF;
        INSERT INTO members VALUES (top, child, number * 10, number < 3);
    END LOOP;
    -- What is below one of them, or a partition that has partitions.
    EXECUTE CASE WHEN is_partitioned THEN format('CREATE TABLE app.%I PARTITION OF %s FOR VALUES FROM (40) TO (60) PARTITION BY RANGE (id);
        CREATE TABLE app.%I PARTITION OF app.%1$I FOR VALUES FROM (40) TO (50)', name || 4, named(top), name || 5)
        ELSE format('CREATE TABLE app.%I (PRIMARY KEY (id)) INHERITS (app.%I)', name || 4, name || 1) END;
    PERFORM audit_enable(top::regclass), audit_enable(child::regclass);
    COMMIT;
    FOR step IN 1..steps LOOP
        did := act(top, is_partitioned);
        IF rnd(3) = 0 THEN
            BEGIN
                did := did || E'\nundone: ' || act(top, is_partitioned);
                RAISE division_by_zero;
            EXCEPTION WHEN division_by_zero THEN NULL;
            END;
        END IF;
        IF rnd(3) > 0 THEN
            COMMIT;
        END IF;
        size := split_part(audit_checkpoint(), E'\n', 2);
        FOR child IN SELECT top UNION ALL SELECT member FROM members WHERE root = top LOOP
            copy := format('copies.%I', child || '_' || step);
            EXECUTE format('CREATE TABLE %s AS SELECT %s FROM %s', copy,
                (SELECT string_agg(format('%I AS c%s', columns.name, number), ', ') FROM columns WHERE t = child), named(child));
            INSERT INTO kept VALUES (top, child, step, copy, size, did);
        END LOOP;
    END LOOP;
    COMMIT;
END $$;

-- How many rows of a copy and of the state as of its checkpoint differ.
CREATE FUNCTION differences(OUT of text, OUT step int, OUT missing bigint, OUT surplus bigint, OUT did text) RETURNS SETOF record
LANGUAGE plpgsql AS $$
DECLARE
    k kept;
BEGIN
    FOR k IN SELECT * FROM kept ORDER BY kept.step LOOP
        of := named(k.t);
        step := k.step;
        did := k.did;
        EXECUTE (SELECT format('WITH was AS (SELECT ROW(%s)::text r FROM %s), log AS (SELECT ROW(%s)::text r FROM audit_as_of(NULL::%s, %s))
                SELECT (SELECT count(*) FROM (SELECT r FROM was EXCEPT ALL SELECT r FROM log) x),
                       (SELECT count(*) FROM (SELECT r FROM log EXCEPT ALL SELECT r FROM was) x)',
                string_agg(coalesce(c.name, 'NULL'), ', ' ORDER BY n.number), k.copy,
                string_agg(format('%I', n.name), ', ' ORDER BY n.number), of, k.size)
            FROM columns n LEFT JOIN columns c ON c.t = k.copy::regclass AND c.name = 'c' || n.number WHERE n.t = k.t)
            INTO missing, surplus;
        IF missing > 0 OR surplus > 0 THEN
            RETURN NEXT;
        END IF;
    END LOOP;
END $$;
CALL run('partitioned', true, 4, 40);
CALL run('inherited', false, 22, 40);
SELECT * FROM differences();
SELECT named(t), problem, row_key FROM (SELECT DISTINCT t FROM kept) tables, audit_check_table(t);
SELECT count(DISTINCT (root, step)) AS steps, count(*) AS copies,
       bool_or(did ~ 'DETACH') AND bool_or(did ~ 'ATTACH P') AND bool_or(did ~ ' INHERIT') AND bool_or(did ~ 'NO INHERIT') AS moved,
       bool_or(did ~ 'RENAME c') AND bool_or(did ~ 'DROP') AND bool_or(did ~ 'RENAME TO') AS altered
FROM kept;
SELECT valid, problems FROM audit_verify();
DROP SCHEMA copies, other CASCADE;
