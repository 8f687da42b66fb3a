-- The usual home-made hash chain, in PL/pgSQL with pgcrypto's digest. There is one chain. An advisory lock, held until
-- commit, keeps concurrent writers from forking it.

CREATE EXTENSION IF NOT EXISTS pgcrypto;

CREATE TABLE audit_trail (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at timestamptz NOT NULL,
  op text NOT NULL,
  table_name text NOT NULL,
  old_row jsonb,
  new_row jsonb,
  prev_hash bytea NOT NULL,
  hash bytea NOT NULL
);

CREATE FUNCTION chain_change() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
  after_image jsonb = CASE WHEN TG_OP = 'DELETE' THEN NULL ELSE to_jsonb(NEW) END;
  before_image jsonb = CASE WHEN TG_OP = 'INSERT' THEN NULL ELSE to_jsonb(OLD) END;
  moment timestamptz;
  head bytea;
BEGIN
  PERFORM pg_advisory_xact_lock(7040);
  moment := clock_timestamp();
  SELECT hash INTO head FROM audit_trail ORDER BY id DESC LIMIT 1;
  head := coalesce(head, '\x00');
  INSERT INTO audit_trail (at, op, table_name, old_row, new_row, prev_hash, hash)
  VALUES (moment, TG_OP, TG_TABLE_NAME, before_image, after_image, head,
          digest(encode(head, 'hex') || moment || TG_OP || TG_TABLE_NAME
                 || coalesce(before_image::text, '') || coalesce(after_image::text, ''), 'sha256'));
  RETURN NULL;
END
$$;
