-- A baseline of the design that supa_audit 0.3.1 documents: one table of jsonb images, a UUID computed from the row's
-- key, four indexes, and a PL/pgSQL row trigger that looks up the key's columns for each row. It is written from that
-- description; it is not supa_audit.

CREATE EXTENSION IF NOT EXISTS "uuid-ossp";

CREATE TABLE record_version (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  record_id uuid,
  old_record_id uuid,
  op text NOT NULL,
  ts timestamptz NOT NULL DEFAULT now(),
  table_oid oid NOT NULL,
  table_schema name NOT NULL,
  table_name name NOT NULL,
  record jsonb,
  old_record jsonb
);
CREATE INDEX ON record_version (record_id) WHERE record_id IS NOT NULL;
CREATE INDEX ON record_version (old_record_id) WHERE old_record_id IS NOT NULL;
CREATE INDEX ON record_version USING brin (ts);
CREATE INDEX ON record_version (table_oid);

CREATE FUNCTION key_columns(relation oid) RETURNS text[] LANGUAGE sql STABLE AS $$
  SELECT coalesce(array_agg(a.attname::text ORDER BY a.attnum), '{}')
  FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
  WHERE i.indrelid = relation AND i.indisprimary
$$;

-- Null for a table without a primary key, which supa_audit would refuse to track.
CREATE FUNCTION record_uuid(relation oid, key_columns text[], image jsonb) RETURNS uuid LANGUAGE sql STABLE AS $$
  SELECT CASE WHEN image IS NULL OR key_columns = '{}' THEN NULL ELSE
    uuid_generate_v5(uuid_ns_oid(),
      (SELECT jsonb_build_array(relation) || jsonb_agg(image ->> c ORDER BY n) FROM unnest(key_columns) WITH ORDINALITY k(c, n))::text)
  END
$$;

CREATE FUNCTION record_change() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
  keys text[] = key_columns(TG_RELID);
  after_image jsonb = CASE WHEN TG_OP = 'DELETE' THEN NULL ELSE to_jsonb(NEW) END;
  before_image jsonb = CASE WHEN TG_OP = 'INSERT' THEN NULL ELSE to_jsonb(OLD) END;
BEGIN
  INSERT INTO record_version (record_id, old_record_id, op, table_oid, table_schema, table_name, record, old_record)
  VALUES (record_uuid(TG_RELID, keys, after_image), record_uuid(TG_RELID, keys, before_image), TG_OP,
          TG_RELID, TG_TABLE_SCHEMA, TG_TABLE_NAME, after_image, before_image);
  RETURN NULL;
END
$$;
