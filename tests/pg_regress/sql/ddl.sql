-- DDL on audited tables, on the log and on the extension's own objects is an entry, in the same transaction.
\getenv srcdir PG_ABS_SRCDIR
\set setup :srcdir '/setup.sql'
\i :setup

CREATE ROLE regress_ddl;
CREATE TABLE t (id int PRIMARY KEY, a text, b text);
CREATE TABLE plain (id int);
SELECT audit_enable('t');
CREATE FUNCTION ddl() RETURNS TABLE (op text, on_table text, tag text, object text) LANGUAGE plpgsql AS $$
DECLARE
    seen bigint := coalesce(nullif(current_setting('test.ddl', true), ''), '0');
BEGIN
    PERFORM set_config('test.ddl', coalesce(max(seq), 0)::text, false) FROM public.audit_log;
    RETURN QUERY SELECT l.operation, l.table_schema || '.' || l.table_name, l.detail ->> 'tag', l.detail ->> 'object'
        FROM public.audit_log l WHERE l.seq > seen ORDER BY l.seq;
END
$$;
SELECT * FROM ddl();
ALTER TABLE t ADD c int;
ALTER TABLE t DROP c;
ALTER TABLE t RENAME b TO bee;
ALTER TABLE t ALTER a SET NOT NULL;
SELECT * FROM ddl();
CREATE INDEX t_a ON t (a);
ALTER TABLE t OWNER TO regress_ddl;
ALTER TABLE t OWNER TO CURRENT_USER;
GRANT SELECT ON t TO regress_ddl;
REVOKE ALL ON t FROM regress_ddl;
SELECT * FROM ddl();
CREATE TRIGGER other BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
ALTER TABLE t DISABLE TRIGGER other;
DROP TRIGGER other ON t;
ALTER TABLE t ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON t USING (true);
ALTER POLICY p ON t USING (false);
DROP POLICY p ON t;
CREATE RULE r AS ON INSERT TO t WHERE false DO ALSO NOTHING;
DROP RULE r ON t;
COMMENT ON TABLE t IS 'audited';
SELECT * FROM ddl();
-- What is dropped by itself, concurrently, in a function, or as something that it uses goes.
DROP INDEX t_a;
CREATE INDEX t_a ON t (a);
DROP INDEX CONCURRENTLY t_a;
CREATE STATISTICS t_statistics ON a, bee FROM t;
DROP STATISTICS t_statistics;
BEGIN;
CREATE INDEX t_a ON t (a);
DO $$ BEGIN DROP INDEX t_a; CREATE INDEX t_a ON t (bee); DROP INDEX t_a; END $$;
COMMIT;
SELECT * FROM ddl();
CREATE FUNCTION used(text) RETURNS text IMMUTABLE LANGUAGE sql RETURN $1 || '!';
CREATE TYPE colour AS ENUM ('red', 'green');
CREATE TABLE target (id int PRIMARY KEY);
CREATE SEQUENCE numbers;
ALTER TABLE t ADD paint colour, ADD shade colour, ADD number int DEFAULT nextval('numbers'),
    ADD ref int CONSTRAINT t_ref REFERENCES target, ADD CONSTRAINT t_used CHECK (used(a) <> '!'), ADD again int REFERENCES target;
CREATE INDEX t_used ON t (used(a));
CREATE INDEX t_shade ON t (shade);
CREATE POLICY t_policy ON t USING (used(a) <> '');
CREATE TRIGGER t_when BEFORE UPDATE ON t FOR EACH ROW WHEN (used(new.a) = '') EXECUTE FUNCTION suppress_redundant_updates_trigger();
SELECT audit_enable('t', exclude_columns => '{paint}', mask_columns => '{shade}');
SELECT count(*) FROM ddl();
SET client_min_messages = warning;
DROP FUNCTION used CASCADE;
DROP SEQUENCE numbers CASCADE;
DROP TABLE target CASCADE;
SELECT * FROM ddl() ORDER BY tag, object;
-- Options follow a column that goes this way.
DROP TYPE colour CASCADE;
RESET client_min_messages;
SELECT * FROM ddl() ORDER BY op, object;
SELECT options FROM audit_coverage WHERE table_name = 't';
INSERT INTO t VALUES (0, 'a', 'b', 1, 2, 3);
DELETE FROM t;
SELECT new_row FROM audit_log WHERE new_row IS NOT NULL ORDER BY seq DESC LIMIT 1;
SELECT count(*) FROM ddl();
-- A constraint that goes with an index of another table's.
CREATE TABLE target (id int CONSTRAINT target_key PRIMARY KEY);
ALTER TABLE t ADD CONSTRAINT t_ref FOREIGN KEY (ref) REFERENCES target;
SET client_min_messages = warning;
ALTER TABLE target DROP CONSTRAINT target_key CASCADE;
RESET client_min_messages;
ALTER TABLE t DROP number, DROP ref, DROP again, DROP COLUMN bee;
ALTER TABLE t ADD b text;
DROP TABLE target;
SELECT * FROM ddl();
-- The table's name, and its schema's.
ALTER TABLE t RENAME TO u;
INSERT INTO u VALUES (1, 'a', 'b');
CREATE SCHEMA IF NOT EXISTS ddl_other;
ALTER TABLE u SET SCHEMA ddl_other;
INSERT INTO ddl_other.u VALUES (2, 'a', 'b');
ALTER SCHEMA ddl_other RENAME TO ddl_renamed;
INSERT INTO ddl_renamed.u VALUES (3, 'a', 'b');
SELECT * FROM ddl();
SELECT table_schema, table_name, audited, state FROM audit_coverage WHERE table_name IN ('t', 'u');
-- On the log, and on the extension.
GRANT SELECT ON audit_log TO regress_ddl;
REVOKE SELECT ON audit_log FROM regress_ddl;
GRANT EXECUTE ON FUNCTION audit_event(text, json) TO regress_ddl;
REVOKE EXECUTE ON FUNCTION audit_event(text, json) FROM regress_ddl;
CREATE INDEX log_index ON audit_log (at);
COMMENT ON TABLE audit_log IS 'ours';
COMMENT ON EXTENSION audit_chain IS 'ours';
DROP INDEX CONCURRENTLY log_index;
CREATE INDEX log_index ON audit_log (at);
DROP INDEX log_index;
SELECT * FROM ddl();
-- Nothing of what is not audited.
ALTER TABLE plain ADD x int;
GRANT SELECT ON plain TO regress_ddl;
CREATE INDEX plain_x ON plain (x);
DROP INDEX plain_x;
DROP TABLE plain;
CREATE TEMP TABLE temporary (id int);
DROP TABLE temporary;
CREATE FUNCTION whatever() RETURNS void LANGUAGE sql AS '';
DROP FUNCTION whatever();
SELECT * FROM ddl();
-- In the same transaction, and gone with it.
BEGIN;
ALTER TABLE ddl_renamed.u ADD d int;
DROP TABLE ddl_renamed.u;
ROLLBACK;
SELECT * FROM ddl();
-- The statement stands in the entry.
ALTER TABLE ddl_renamed.u ADD e int /* a remark */;
SELECT detail ->> 'statement' AS statement, statement FROM audit_log ORDER BY seq DESC LIMIT 1;
-- The drop of an audited table: by DROP TABLE, DROP SCHEMA, DROP OWNED, of several at once, and of a partition.
CREATE TABLE d1 (id int); CREATE TABLE d2 (id int); CREATE TABLE d3 (id int); CREATE TABLE d4 (id int PRIMARY KEY) PARTITION BY RANGE (id);
CREATE TABLE d4_1 PARTITION OF d4 FOR VALUES FROM (0) TO (1);
ALTER TABLE d3 OWNER TO regress_ddl;
SELECT audit_enable('d1'), audit_enable('d2'), audit_enable('d3'), audit_enable('d4');
SELECT count(*) FROM ddl();
DROP TABLE d1, d2;
DROP OWNED BY regress_ddl;
DROP TABLE d4_1;
DROP TABLE d4;
SELECT * FROM ddl() ORDER BY on_table;
SET client_min_messages = warning;
DROP SCHEMA ddl_renamed CASCADE;
RESET client_min_messages;
SELECT * FROM ddl();
SELECT table_schema, table_name, state FROM audit_coverage ORDER BY 1, 2;
DROP ROLE regress_ddl;
SELECT valid, problems FROM audit_verify();
