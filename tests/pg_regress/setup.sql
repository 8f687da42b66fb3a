\set ECHO none
-- Every test begins here: a fresh extension in schema public, an empty schema "app", and news(), which shows the entries
-- that came since it was called last. Run by \i, with the path from PG_ABS_SRCDIR.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS audit_chain CASCADE;
DROP SCHEMA IF EXISTS app CASCADE;
CREATE EXTENSION audit_chain SCHEMA public;
CREATE SCHEMA app;
SET search_path = app, public;
CREATE FUNCTION app.news() RETURNS TABLE (op text, on_table text, key json, old json, new json)
LANGUAGE plpgsql AS $$
DECLARE
    seen bigint := coalesce(nullif(current_setting('test.seen', true), ''), '0');
BEGIN
    PERFORM set_config('test.seen', coalesce(max(seq), 0)::text, false) FROM public.audit_log;
    RETURN QUERY SELECT l.operation, l.table_name, l.row_key, l.old_row, l.new_row
        FROM public.audit_log l WHERE l.seq > seen ORDER BY l.chain, l.seq;
END
$$;
RESET client_min_messages;
\set ECHO all
