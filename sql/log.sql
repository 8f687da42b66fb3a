-- The log: an ordinary table, which pg_dump dumps. docs/format.md says what its hashes cover.

DO $$
BEGIN
    IF pg_catalog.getdatabaseencoding() IN ('SQL_ASCII', 'MULE_INTERNAL') THEN
        RAISE EXCEPTION 'audit_chain cannot be installed in database "%": its encoding % has no conversion to UTF-8',
                pg_catalog.current_database(), pg_catalog.getdatabaseencoding()
            USING ERRCODE = 'feature_not_supported',
                  HINT = 'Entries are hashed as UTF-8. Create the database with another encoding, best UTF8.';
    END IF;
END
$$;

-- Whoever may create objects in the extension's schema can put a function or operator there that is called
-- instead of one of the extension's, and its owner can drop it with the log.
DO $$
DECLARE
    others text;
BEGIN
    SELECT pg_catalog.string_agg(
               CASE a.role WHEN 0::pg_catalog.oid THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.role)) END,
               ', ' ORDER BY a.role)
        INTO others
        FROM pg_catalog.pg_namespace n
        -- The members of pg_database_owner are the database's owner.
        CROSS JOIN LATERAL (
            SELECT DISTINCT CASE WHEN g.role = 'pg_database_owner'::pg_catalog.regrole::pg_catalog.oid THEN d.datdba ELSE g.role END AS role
            FROM (SELECT n.nspowner AS role
                  UNION
                  SELECT x.grantee FROM pg_catalog.aclexplode(n.nspacl) x WHERE x.privilege_type = 'CREATE') g
            JOIN pg_catalog.pg_database d ON d.datname = pg_catalog.current_database()
        ) a
        LEFT JOIN pg_catalog.pg_roles r ON r.oid = a.role
        WHERE n.nspname = pg_catalog.current_schema() AND r.rolname IS DISTINCT FROM current_user
          AND r.rolsuper IS DISTINCT FROM true;
    IF others IS NOT NULL THEN
        RAISE WARNING 'roles that are not superusers may create objects in schema "%" of extension audit_chain: %',
                pg_catalog.current_schema(), others
            USING HINT = 'Install the extension in a schema of its own: CREATE SCHEMA audit; '
                'CREATE EXTENSION audit_chain SCHEMA audit.';
    END IF;
END
$$;

CREATE TABLE audit_log (
    -- The place is (chain, seq); chain is placed where it needs no padding. src/log/columns.rs knows this
    -- order.
    seq              bigint      NOT NULL CHECK (seq >= 1),
    at               timestamptz NOT NULL,
    xid              xid8        NOT NULL,
    chain            integer     NOT NULL CHECK (chain >= 0),
    operation        text        NOT NULL,
    table_schema     text,
    table_name       text,
    session_role     text,
    effective_role   text,
    actor            text,
    application_name text,
    client_addr      inet,
    who_salt         bytea       CHECK (length(who_salt) = 16),
    who_digest       bytea       CHECK (length(who_digest) = 32),
    row_key          json,
    old_row          json,
    new_row          json,
    detail           json,
    statement        text,
    salt             bytea       CHECK (length(salt) = 16),
    payload_digest   bytea       CHECK (length(payload_digest) = 32),
    prev_hash        bytea       NOT NULL CHECK (length(prev_hash) = 32),
    hash             bytea       NOT NULL CHECK (length(hash) = 32),
    -- Each chain grows at its end only, so no page needs free space for later entries.
    PRIMARY KEY (chain, seq) WITH (fillfactor = 100),
    -- This table is the first segment of the log (sql/segment.sql); the others inherit from it.
    CONSTRAINT audit_log_0001_chain CHECK (chain <= 65535) NO INHERIT,
    -- An entry has either its payload with the salt, or the digest of its erased payload.
    CHECK ((salt IS NULL) = (payload_digest IS NOT NULL)),
    -- It has either its who-part with the salt, or the digest of its erased who-part.
    CHECK (CASE WHEN who_digest IS NULL
                THEN who_salt IS NOT NULL AND session_role IS NOT NULL AND effective_role IS NOT NULL
                ELSE who_salt IS NULL AND session_role IS NULL AND effective_role IS NULL AND actor IS NULL
                    AND application_name IS NULL AND client_addr IS NULL END)
);

COMMENT ON TABLE audit_log IS 'audit_chain: every change of every audited table, append-only, chained by hash';
COMMENT ON COLUMN audit_log.chain IS 'the chain; there are as many as sessions that wrote at the same time';
COMMENT ON COLUMN audit_log.seq IS 'the place in the chain: 1, 2, 3, ... without gaps';
COMMENT ON COLUMN audit_log.at IS 'when the entry was captured';
COMMENT ON COLUMN audit_log.xid IS 'the top-level transaction';
COMMENT ON COLUMN audit_log.operation IS 'INSERT, UPDATE, DELETE, TRUNCATE, BASELINE, EVENT, DDL, ENABLE, DISABLE, VERIFY, UNDO, CHECKPOINT, SEGMENT, SEAL, RESTORE, PROMOTE, CLONE, UPGRADE, FORK, RESUME, RETENTION, HOLD, RELEASE, PRUNE or ERASE';
COMMENT ON COLUMN audit_log.table_schema IS 'the schema of the table that the entry is about, as it was called then';
COMMENT ON COLUMN audit_log.table_name IS 'the table that the entry is about, as it was called then';
COMMENT ON COLUMN audit_log.session_role IS 'the role that logged in; null if the who-part has been erased';
COMMENT ON COLUMN audit_log.effective_role IS 'the role that the statement ran as; null if the who-part has been erased';
COMMENT ON COLUMN audit_log.actor IS 'the application''s user, as claimed by the application (audit_chain.actor)';
COMMENT ON COLUMN audit_log.application_name IS 'the session''s application_name';
COMMENT ON COLUMN audit_log.client_addr IS 'the client''s address; null for a local connection';
COMMENT ON COLUMN audit_log.who_salt IS
    '16 random bytes, hashed with session_role, effective_role, actor, application_name and client_addr';
COMMENT ON COLUMN audit_log.who_digest IS 'null, unless these five (the who-part) have been erased';
COMMENT ON COLUMN audit_log.row_key IS 'the columns of the primary key, after the change; for DELETE, before it';
COMMENT ON COLUMN audit_log.old_row IS 'UPDATE: the old values of the columns that changed; DELETE: the whole row';
COMMENT ON COLUMN audit_log.new_row IS 'INSERT, UPDATE, BASELINE: the row; UPDATE omits out-of-line values that it did not change, if the table has a primary key';
COMMENT ON COLUMN audit_log.detail IS 'what else is known: the root of a partition, an event''s data, the command of a DDL entry, the options of ENABLE';
COMMENT ON COLUMN audit_log.statement IS 'the client''s query, if audit_chain.log_statement is on';
COMMENT ON COLUMN audit_log.payload_digest IS 'null, unless the payload has been erased';
COMMENT ON COLUMN audit_log.salt IS '16 random bytes, hashed with the payload';
COMMENT ON COLUMN audit_log.prev_hash IS 'the hash of the entry before in the chain; for its first entry, one that follows from log_id and chain';
COMMENT ON COLUMN audit_log.hash IS 'SHA-256 over the content of the entry, prev_hash included';

-- The log's identities: that of its first entry, and one for each audit_fork(). It has no row until the first
-- entry is written, so that a restored dump brings its own.
CREATE TABLE audit_log_identity (
    log_id      uuid        PRIMARY KEY,
    created_at  timestamptz NOT NULL,
    forked_from uuid        UNIQUE,
    forked_at   bigint      CHECK (forked_at >= 0),
    CHECK ((forked_from IS NULL) = (forked_at IS NULL)),
    -- At most one first identity. A constraint, because its index cannot be dropped without altering the
    -- table.
    CONSTRAINT audit_log_identity_single EXCLUDE USING btree ((true) WITH =) WHERE (forked_from IS NULL)
);
COMMENT ON TABLE audit_log_identity IS 'audit_chain: the identity from which the chains of this log begin, and those that audit_fork() gave it';
COMMENT ON COLUMN audit_log_identity.log_id IS 'random; the first entry of every chain depends on the first one, the name of checkpoints on the newest';
COMMENT ON COLUMN audit_log_identity.created_at IS 'when the first entry was written, or audit_fork() was called';
COMMENT ON COLUMN audit_log_identity.forked_from IS 'the identity before; null for the first one';
COMMENT ON COLUMN audit_log_identity.forked_at IS 'how many entries checkpoints of the identity before seal; null for the first one';

-- Where this log was written: a row for each database, server and timeline that wrote entries
-- (src/log/incarnation.rs). A dump does not contain it, so that a restored database knows that it is a copy.
-- As long as it is empty, a dump can be restored.
CREATE TABLE audit_incarnation (
    incarnation       uuid        PRIMARY KEY,
    previous          uuid,
    kind              text        NOT NULL,
    publishes         boolean     NOT NULL,
    system_identifier bigint      NOT NULL,
    database_oid      oid         NOT NULL,
    timeline          integer     NOT NULL,
    server_version    integer     NOT NULL,
    at                timestamptz NOT NULL
);
COMMENT ON TABLE audit_incarnation IS 'audit_chain: the databases, servers and timelines that wrote this log, and whether they may publish checkpoints';
COMMENT ON COLUMN audit_incarnation.incarnation IS 'a UUID of version 7; checkpoints name it';
COMMENT ON COLUMN audit_incarnation.previous IS 'the incarnation before, if it is known';
COMMENT ON COLUMN audit_incarnation.kind IS 'how it began: first, restore (of a dump), clone, timeline, upgrade, fork or resume';
COMMENT ON COLUMN audit_incarnation.publishes IS 'whether it makes checkpoints; a copy does not until audit_fork() or audit_resume()';
COMMENT ON COLUMN audit_incarnation.system_identifier IS 'the server''s system identifier (pg_control_system())';
COMMENT ON COLUMN audit_incarnation.database_oid IS 'the database''s OID';
COMMENT ON COLUMN audit_incarnation.timeline IS 'the timeline of the server''s WAL';
COMMENT ON COLUMN audit_incarnation.server_version IS 'the major version of PostgreSQL';
COMMENT ON COLUMN audit_incarnation.at IS 'when it began';

-- The places of the ENABLE and DISABLE entries, so that audit_coverage need not search the log for them.
CREATE TABLE audit_lifecycle (
    chain integer NOT NULL,
    seq   bigint  NOT NULL,
    PRIMARY KEY (chain, seq)
);
COMMENT ON TABLE audit_lifecycle IS 'audit_chain: the places of the entries about the auditing of a table, and about its columns';
COMMENT ON COLUMN audit_lifecycle.chain IS 'the chain of the entry';
COMMENT ON COLUMN audit_lifecycle.seq IS 'the place of the entry in it';

-- The schemas that are audited as a whole, by name, because OIDs do not survive a dump. A change adds a row.
CREATE TABLE audit_schema_policy (
    version        bigint  PRIMARY KEY,
    schema_name    text    NOT NULL,
    exclude_tables text[]  NOT NULL,
    skip_unchanged boolean NOT NULL,
    ended          boolean NOT NULL,
    include_foreign_tables boolean NOT NULL
);
COMMENT ON TABLE audit_schema_policy IS
    'audit_chain: schemas whose tables are audited, those created later included; of each schema, the row of the newest version counts';
COMMENT ON COLUMN audit_schema_policy.version IS 'the number of the change: 1, 2, 3, ...';
COMMENT ON COLUMN audit_schema_policy.schema_name IS 'the schema';
COMMENT ON COLUMN audit_schema_policy.exclude_tables IS 'LIKE patterns of the names of tables that are not audited';
COMMENT ON COLUMN audit_schema_policy.skip_unchanged IS 'whether an UPDATE that changes nothing makes no entry';
COMMENT ON COLUMN audit_schema_policy.ended IS 'whether the policy ended with this change, and audits no table that is created later';
COMMENT ON COLUMN audit_schema_policy.include_foreign_tables IS 'whether foreign tables are audited too';

SELECT pg_catalog.pg_extension_config_dump('audit_lifecycle', '');
SELECT pg_catalog.pg_extension_config_dump('audit_schema_policy', '');
SELECT pg_catalog.pg_extension_config_dump('audit_log', '');
SELECT pg_catalog.pg_extension_config_dump('audit_log_identity', '');
