-- What is audited follows the table, not its name; and what partitions and inheriting tables have from those above them.
\pset null -
\getenv srcdir PG_ABS_SRCDIR
\set setup :srcdir '/setup.sql'
\i :setup
CREATE SCHEMA heirs;
SET search_path = heirs, public;
CREATE VIEW covered AS
    SELECT table_name, state, options FROM audit_coverage WHERE table_schema = 'heirs' ORDER BY 1, 2;
CREATE FUNCTION news() RETURNS TABLE (operation text, table_name text, reason text, options text, previous text, new_row text)
LANGUAGE sql AS $$
    SELECT operation, table_name, detail ->> 'reason', detail ->> 'options', detail ->> 'previous_options', new_row::text
    FROM audit_log WHERE table_schema = 'heirs' AND seq > current_setting('test.seen')::bigint ORDER BY seq
$$;
CREATE PROCEDURE seen() LANGUAGE sql AS $$
    SELECT set_config('test.seen', coalesce(max(seq), 0)::text, false) FROM audit_log
$$;

-- A child keeps what it leaves out, whatever is enabled above it.
CREATE TABLE parent (id int, note text);
CREATE TABLE child (ssn text, pin text) INHERITS (parent);
SELECT audit_enable('child', exclude_columns => '{ssn}', mask_columns => '{pin}');
CALL seen();
SELECT audit_enable('parent');
SELECT audit_enable('parent', exclude_columns => '{note}');
INSERT INTO child VALUES (1, 'n', 'ssn1', 'pin1');
SELECT * FROM news();
-- So does a schema's.
SELECT audit_enable_schema('heirs');
-- Ending the parent's auditing does not end the child's own.
SELECT audit_disable('parent', 'test');
INSERT INTO child VALUES (2, 'n', 'ssn2', 'pin2');
TABLE covered;

-- A temporary table below an audited one is not audited, and in nobody's way.
CREATE TABLE lasting (id int);
CREATE TEMP TABLE fleeting () INHERITS (lasting);
SELECT audit_enable('lasting');
CREATE TEMP TABLE fleeting2 () INHERITS (lasting);
INSERT INTO fleeting VALUES (1);
SELECT count(*) AS triggers FROM pg_trigger WHERE tgname ~ '!audit' AND tgrelid::regclass::text ~ 'fleeting';
SELECT audit_disable('lasting', 'test');
DROP TABLE fleeting, fleeting2, lasting;

-- Both of two parents count, and a child stays audited as long as one is.
CREATE TABLE p1 (id int, a text, b text);
CREATE TABLE p2 (id int, a text, b text);
SELECT audit_enable('p1', exclude_columns => '{a}'), audit_enable('p2', mask_columns => '{b}');
CALL seen();
CREATE TABLE shared () INHERITS (p1, p2);
INSERT INTO shared VALUES (1, 'a', 'b');
SELECT * FROM news();
SELECT audit_disable('shared', 'test');
SELECT audit_disable('p1', 'test');
CALL seen();
INSERT INTO shared VALUES (2, 'a', 'b');
SELECT * FROM news();
SELECT audit_disable('p2', 'test');
INSERT INTO shared VALUES (3, 'a', 'b');
SELECT state FROM audit_coverage WHERE table_schema = 'heirs' AND table_name = 'shared';
SELECT audit_disable('p1', ' ');

-- A partition is created, attached and detached by an owner who is no superuser, and keeps what it leaves out.
CREATE ROLE regress_heirs;
GRANT ALL ON SCHEMA heirs TO regress_heirs;
SET ROLE regress_heirs;
CREATE TABLE root (id int, note text, secret text) PARTITION BY RANGE (id);
SELECT audit_enable('root', exclude_columns => '{secret}');
RESET ROLE;
CALL seen();
SET ROLE regress_heirs;
CREATE TABLE root_1 PARTITION OF root FOR VALUES FROM (0) TO (10);
CREATE TABLE root_2 (id int, note text, secret text);
SELECT audit_enable('root_2', mask_columns => '{note}');
ALTER TABLE root ATTACH PARTITION root_2 FOR VALUES FROM (10) TO (20);
CREATE TABLE root_3 PARTITION OF root FOR VALUES FROM (20) TO (30) PARTITION BY RANGE (id);
CREATE TABLE root_3_1 PARTITION OF root_3 FOR VALUES FROM (20) TO (25);
INSERT INTO root VALUES (1, 'n', 's'), (11, 'n', 's'), (21, 'n', 's');
SELECT audit_enable('root_1');
ALTER TABLE root DETACH PARTITION root_1;
INSERT INTO root_1 VALUES (2, 'n', 's');
ALTER TABLE root ATTACH PARTITION root_2 FOR VALUES FROM (30) TO (40);
RESET ROLE;
SELECT * FROM news();
SELECT tgrelid::regclass, tgname FROM pg_trigger WHERE tgname ~ '!audit' AND tgrelid::regclass::text ~ '^root' ORDER BY 1, 2;

-- Names are swapped, and used again.
CREATE TABLE live (id int);
CREATE TABLE next (id int);
SELECT audit_enable('live'), audit_enable('next');
ALTER TABLE live RENAME TO old;
ALTER TABLE next RENAME TO live;
ALTER TABLE old RENAME TO next;
ALTER TABLE live RENAME TO kept;
CREATE TABLE live (id int);
SET quote_all_identifiers = on;
ALTER TABLE kept RENAME TO kept2;
RESET quote_all_identifiers;
SELECT table_name, state FROM covered WHERE table_name IN ('live', 'next', 'old', 'kept', 'kept2');

-- Options change while a transaction has pending events and open cursors.
CREATE TABLE orders (id int PRIMARY KEY);
CREATE TABLE items (id int REFERENCES orders DEFERRABLE INITIALLY DEFERRED, secret text);
SELECT audit_enable('items', exclude_columns => '{secret}');
BEGIN;
INSERT INTO items VALUES (1, 's');
DECLARE c CURSOR FOR SELECT * FROM items;
FETCH c;
ALTER TABLE items RENAME secret TO secret2;
CLOSE c;
ALTER TABLE items RENAME secret2 TO hidden;
INSERT INTO orders VALUES (1);
COMMIT;
INSERT INTO items VALUES (1, 's');
SELECT table_name, options FROM covered WHERE table_name = 'items';

-- What was left out since when.
CREATE TABLE narrowed (id int, note text);
SELECT audit_enable('narrowed');
SELECT audit_enable('narrowed', exclude_columns => '{note}', skip_unchanged => true);
SELECT audit_enable('narrowed');
SELECT options, json_array_length(left_out) AS periods, left_out -> 0 ->> 'options' AS left_out,
       (left_out -> 0 ->> 'since') < (left_out -> 0 ->> 'until') AS ended
FROM audit_coverage WHERE table_schema = 'heirs' AND table_name = 'narrowed';

SELECT count(*) AS leaks FROM audit_log WHERE table_schema = 'heirs' AND concat(row_key, old_row, new_row) ~ 'ssn[0-9]|pin[0-9]|"secret"|"hidden"';
SELECT valid, problems FROM audit_verify();

RESET search_path;
DROP SCHEMA heirs CASCADE;
DROP ROLE regress_heirs;
DROP EXTENSION audit_chain CASCADE;
