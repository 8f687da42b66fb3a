-- Databases that are not in UTF-8: entries are hashed as UTF-8; where that cannot be, the extension refuses to be installed.
\getenv srcdir PG_ABS_SRCDIR
\set setup :srcdir '/setup.sql'
SET client_min_messages = warning;
DROP DATABASE IF EXISTS regress_latin1;
DROP DATABASE IF EXISTS regress_eucjp;
DROP DATABASE IF EXISTS regress_ascii;
RESET client_min_messages;
SELECT current_database() AS home \gset
CREATE DATABASE regress_latin1 ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0;
CREATE DATABASE regress_eucjp ENCODING 'EUC_JP' LOCALE 'C' TEMPLATE template0;
CREATE DATABASE regress_ascii ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0;

\c regress_latin1
\i :setup
SET client_encoding = 'UTF8';
CREATE TABLE "Käufer" ("größe" text PRIMARY KEY, doc json, docb jsonb);
SELECT audit_enable('"Käufer"');
SET audit_chain.actor = 'Zoë';
SET application_name = 'ascii only';
INSERT INTO "Käufer" VALUES ('Łódź', '{}', '{}');
INSERT INTO "Käufer" VALUES ('naïve "déjà" vu', '{"é": "è"}', '{"é": "è"}');
UPDATE "Käufer" SET "größe" = 'ß';
SELECT audit_event('événement', '{"é": "è"}');
SELECT operation, table_name, actor, row_key, old_row, new_row, detail -> 'data' AS data FROM audit_log ORDER BY seq;
SELECT valid, problems FROM audit_verify();
-- Names, values and people in the history, and what became of columns.
SELECT "table", row_key, changed FROM audit_by('Zoë') WHERE operation = 'UPDATE';
SELECT who, "table", changed FROM audit_changes WHERE operation = 'UPDATE';
SELECT "table", changed FROM audit_transaction((SELECT max(xid) FROM audit_log WHERE operation = 'UPDATE'));
ALTER TABLE "Käufer" RENAME "größe" TO "maß";
ALTER TABLE "Käufer" ADD "übrig" text DEFAULT 'naïf';
ALTER TABLE "Käufer" DROP "übrig";
ALTER TABLE "Käufer" RENAME "maß" TO "größe";
SELECT detail -> 'columns' AS columns FROM audit_log WHERE operation = 'DDL' ORDER BY seq;
SELECT audit_disable('"Käufer"', 'Schluß');
SELECT detail ->> 'reason' AS reason FROM audit_log WHERE operation = 'DISABLE';
SELECT audit_enable('"Käufer"', exclude_columns => '{docb}', mask_columns => '{doc}');
INSERT INTO "Käufer" VALUES ('ÿ', '{}', '{}');
SELECT new_row FROM audit_log ORDER BY seq DESC LIMIT 1;
\set VERBOSITY sqlstate
SELECT audit_enable('"Käufer"', exclude_columns => '{größ}');
ALTER TABLE "Käufer" DISABLE TRIGGER ALL;
\set VERBOSITY default
DROP TABLE "Käufer";
SELECT operation, table_name, detail ->> 'object' AS object FROM audit_log ORDER BY seq DESC LIMIT 1;
SELECT valid, problems FROM audit_verify();

\c regress_eucjp
\i :setup
SET client_encoding = 'UTF8';
CREATE TABLE "表" (id int PRIMARY KEY, "名前" text);
SELECT audit_enable('"表"');
INSERT INTO "表" VALUES (1, '山田 "太郎" \');
SELECT table_name, new_row FROM audit_log ORDER BY seq;
SELECT valid, problems FROM audit_verify();

\c regress_ascii
\set SHOW_CONTEXT never
CREATE EXTENSION audit_chain;
\set SHOW_CONTEXT errors
\set VERBOSITY sqlstate
CREATE EXTENSION audit_chain;
\set VERBOSITY default
SELECT count(*) FROM pg_extension WHERE extname = 'audit_chain';

\c :home
DROP DATABASE regress_latin1;
DROP DATABASE regress_eucjp;
DROP DATABASE regress_ascii;
