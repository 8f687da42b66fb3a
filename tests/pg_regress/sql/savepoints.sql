-- Savepoints, EXCEPTION blocks and errors: chains without gaps, one entry for each change that commits, none else.
\getenv srcdir PG_ABS_SRCDIR
\set setup :srcdir '/setup.sql'
\i :setup

CREATE TABLE t (id int PRIMARY KEY, v text);
CREATE TABLE other (id int UNIQUE DEFERRABLE INITIALLY DEFERRED, v text);
SELECT audit_enable('t'), audit_enable('other');
-- Each row of the table has the one INSERT entry, and there is no other.
CREATE FUNCTION exact() RETURNS text LANGUAGE sql AS $$
    SELECT format('%s rows, %s entries, %s without the other; seq 1 to %s without a gap: %s',
        (SELECT count(*) FROM t) + (SELECT count(*) FROM other),
        (SELECT count(*) FROM audit_log WHERE operation = 'INSERT'),
        (SELECT count(*) FROM (TABLE t UNION ALL TABLE other) r(id, v)
             FULL JOIN (SELECT new_row ->> 'id', new_row ->> 'v' FROM audit_log WHERE operation = 'INSERT') e(id, v)
             ON r.id::text = e.id AND r.v = e.v WHERE r.id IS NULL OR e.id IS NULL),
        max(seq), count(*) = max(seq) AND count(DISTINCT chain) = 1) FROM audit_log
$$;
SELECT exact();

-- Rolled back, released, nested.
BEGIN;
INSERT INTO t VALUES (1, 'kept');
SAVEPOINT a;
INSERT INTO t VALUES (2, 'lost');
SAVEPOINT b;
INSERT INTO t VALUES (3, 'lost');
RELEASE b;
INSERT INTO t VALUES (4, 'lost');
ROLLBACK TO a;
INSERT INTO t VALUES (5, 'kept');
SAVEPOINT c;
SAVEPOINT d;
INSERT INTO t VALUES (6, 'kept');
RELEASE d;
SAVEPOINT e;
INSERT INTO t VALUES (7, 'lost');
ROLLBACK TO e;
INSERT INTO t VALUES (8, 'kept');
RELEASE c;
INSERT INTO t VALUES (9, 'kept');
COMMIT;
SELECT * FROM news();
SELECT exact();

-- The first entry of the transaction in a savepoint that is rolled back: the chain stays taken, the head goes back.
BEGIN;
SAVEPOINT a;
INSERT INTO t VALUES (10, 'lost');
ROLLBACK TO a;
COMMIT;
BEGIN;
SAVEPOINT a;
INSERT INTO t VALUES (11, 'lost');
ROLLBACK TO a;
INSERT INTO t VALUES (12, 'kept');
SAVEPOINT a;
INSERT INTO t VALUES (13, 'lost');
ROLLBACK TO a;
ROLLBACK TO a;
INSERT INTO t VALUES (14, 'kept');
COMMIT;
SELECT * FROM news();
-- All of it rolled back.
BEGIN;
INSERT INTO t VALUES (15, 'lost');
SAVEPOINT a;
INSERT INTO t VALUES (16, 'lost');
RELEASE a;
ROLLBACK;
SELECT * FROM news();
SELECT exact();
-- Deep nesting, everything at once.
DO $$
BEGIN
    INSERT INTO t VALUES (20, 'kept');
    BEGIN
        INSERT INTO t VALUES (21, 'kept');
        BEGIN
            INSERT INTO t VALUES (22, 'lost');
            BEGIN
                INSERT INTO t VALUES (23, 'lost');
            END;
            BEGIN
                INSERT INTO t VALUES (24, 'lost');
                INSERT INTO t VALUES (20, 'lost');
            EXCEPTION WHEN unique_violation THEN
                INSERT INTO t VALUES (25, 'lost');
            END;
            INSERT INTO t VALUES (26, 'lost');
            RAISE division_by_zero;
        EXCEPTION WHEN division_by_zero THEN
            INSERT INTO t VALUES (27, 'kept');
        END;
        INSERT INTO t VALUES (28, 'kept');
    EXCEPTION WHEN others THEN
        INSERT INTO t VALUES (29, 'not reached');
    END;
END
$$;
SELECT * FROM news();
SELECT exact();

-- Errors in the middle of a statement: none of its rows has an entry.
INSERT INTO t SELECT i, 'lost' FROM generate_series(30, 39) i UNION ALL SELECT 1, 'lost';
INSERT INTO t SELECT 1000 + i, (100 / (3000 - i))::text FROM generate_series(1, 3000) i;
BEGIN;
INSERT INTO t VALUES (30, 'kept');
SAVEPOINT a;
INSERT INTO t SELECT i, 'lost' FROM generate_series(31, 2500) i UNION ALL SELECT 1, 'lost';
ROLLBACK TO a;
INSERT INTO t VALUES (31, 'kept');
COMMIT;
SELECT exact();
-- An error at commit, by a deferred constraint.
INSERT INTO other VALUES (100, 'kept');
BEGIN;
INSERT INTO other VALUES (101, 'lost');
INSERT INTO other VALUES (100, 'lost');
COMMIT;
SELECT exact();

-- A trigger that catches errors, between the rows of a statement: the rows before and after keep their entries.
CREATE FUNCTION mirror() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    BEGIN
        INSERT INTO other VALUES (NEW.id, 'mirror');
        IF NEW.id % 2 = 0 THEN
            RAISE 'even';
        END IF;
    EXCEPTION WHEN raise_exception THEN
        NULL;
    END;
    RETURN NULL;
END
$$;
CREATE TRIGGER mirror AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION mirror();
INSERT INTO t SELECT i, 'kept' FROM generate_series(40, 43) i;
SELECT * FROM news() WHERE (new ->> 'id')::int >= 40;
SELECT exact();
-- So many that entries are written before the statement ends.
INSERT INTO t SELECT i, 'kept' FROM generate_series(10001, 12500) i;
SELECT exact();
-- And in a savepoint that is rolled back.
BEGIN;
SAVEPOINT a;
INSERT INTO t SELECT i, 'lost' FROM generate_series(20001, 22500) i;
ROLLBACK TO a;
INSERT INTO t SELECT i, 'kept' FROM generate_series(20001, 20003) i;
COMMIT;
SELECT exact();

-- A function with an EXCEPTION block that writes in the middle of a statement that writes.
DROP TRIGGER mirror ON t;
CREATE FUNCTION put(i int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO other VALUES (i, 'from put');
    IF i % 3 = 0 THEN
        RAISE 'a third';
    END IF;
    RETURN i;
EXCEPTION WHEN raise_exception THEN
    RETURN -i;
END
$$;
INSERT INTO t SELECT put(i), 'kept' FROM generate_series(30001, 32003) i;
SELECT count(*) FILTER (WHERE id < 0) AS caught, count(*) FROM t WHERE abs(id) > 30000;
SELECT exact();
-- A trigger that fails in the middle of a statement that is inside a savepoint, after one that went well.
CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.v = 'bad' THEN RAISE 'bad'; END IF; RETURN NEW; END $$;
CREATE TRIGGER fail AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION fail();
BEGIN;
SAVEPOINT a;
INSERT INTO t VALUES (50, 'kept');
SAVEPOINT b;
INSERT INTO t VALUES (51, 'fine but lost'), (52, 'bad');
ROLLBACK TO b;
INSERT INTO t VALUES (53, 'kept');
RELEASE a;
COMMIT;
SELECT exact();
-- A cursor held over a savepoint, and a transaction that goes on after it was closed in an aborted one.
BEGIN;
DECLARE c CURSOR FOR SELECT put(i) FROM generate_series(60, 64) i;
FETCH 2 FROM c;
SAVEPOINT a;
FETCH 1 FROM c;
ROLLBACK TO a;
INSERT INTO t VALUES (65, 'kept');
COMMIT;
SELECT exact();
-- Procedures that end transactions.
CREATE PROCEDURE steps() LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 70 .. 75 LOOP
        INSERT INTO t VALUES (i, 'kept or lost');
        IF i % 2 = 0 THEN COMMIT; ELSE ROLLBACK; END IF;
    END LOOP;
END
$$;
CALL steps();
SELECT count(*) FROM t WHERE id BETWEEN 70 AND 75;
SELECT exact();
-- COMMIT AND CHAIN.
BEGIN ISOLATION LEVEL REPEATABLE READ;
INSERT INTO t VALUES (80, 'kept');
COMMIT AND CHAIN;
INSERT INTO t VALUES (81, 'kept');
ROLLBACK AND CHAIN;
INSERT INTO t VALUES (82, 'kept');
COMMIT;
SELECT exact();
-- Every isolation level.
BEGIN ISOLATION LEVEL SERIALIZABLE;
INSERT INTO t VALUES (83, 'kept');
SAVEPOINT a;
INSERT INTO t VALUES (84, 'lost');
ROLLBACK TO a;
COMMIT;
SELECT exact();
SELECT valid, problems FROM audit_verify();
