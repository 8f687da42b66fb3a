-- Exports a log as JSON lines: first {"log_id": …}, then one object for each entry. The schema of audit_chain must be
-- in search_path. Run it so:
--
--     psql -X -d DATABASE -f export.sql > log.jsonl
--     PGOPTIONS='-c search_path=audit' psql -X -d DATABASE -f export.sql > log.jsonl
--     python3 audit_chain_format.py verify --log-id UUID log.jsonl
--
-- * psql prints the rows, unaligned and without headings, because COPY … TO STDOUT would double every backslash. An
--   object is one line: inside JSON strings PostgreSQL escapes line ends.
-- * The json columns are cast to text, so that they travel as strings and no byte of them changes.
-- * client_addr is not cast: inet::text would append a mask, the output function that json_build_object uses does not.
-- * `at` is numeric on the way, so that times that a bigint cannot hold, and infinity, go out too and are reported.
-- * All of it is one snapshot, fetched in parts.

\set ON_ERROR_STOP on
\set QUIET on
\set FETCH_COUNT 10000
\encoding UTF8
\pset format unaligned
\pset tuples_only on
\pset pager off

BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY;

SELECT json_build_object('log_id', log_id) FROM audit_log_identity WHERE forked_from IS NULL;

SELECT json_build_object(
  'chain', chain,
  'seq', seq,
  'at', trunc(extract(epoch FROM at) * 1000000),
  'xid', xid::text,
  'operation', operation::text,
  'table_schema', table_schema::text,
  'table_name', table_name::text,
  'session_role', session_role::text,
  'effective_role', effective_role::text,
  'actor', actor::text,
  'application_name', application_name::text,
  'client_addr', client_addr,
  'who_salt', encode(who_salt, 'hex'),
  'who_digest', encode(who_digest, 'hex'),
  'row_key', row_key::text,
  'old_row', old_row::text,
  'new_row', new_row::text,
  'detail', detail::text,
  'statement', statement::text,
  'salt', encode(salt, 'hex'),
  'payload_digest', encode(payload_digest, 'hex'),
  'prev_hash', encode(prev_hash, 'hex'),
  'hash', encode(hash, 'hex'))
FROM audit_log
ORDER BY chain, seq;

COMMIT;
