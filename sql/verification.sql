-- Recorded verifications. Each is an entry of the log, so that nobody can claim later that the log was
-- verified.

-- The places of the VERIFY entries, so that nobody need search the log for them: those about the whole log
-- apart.
CREATE TABLE audit_verification_place (
    whole boolean     NOT NULL,
    at    timestamptz NOT NULL,
    chain integer     NOT NULL,
    seq   bigint      NOT NULL,
    PRIMARY KEY (whole, at, chain, seq)
);
COMMENT ON TABLE audit_verification_place IS 'audit_chain: the places of the entries about verifications';
COMMENT ON COLUMN audit_verification_place.whole IS 'whether the whole log was verified';
COMMENT ON COLUMN audit_verification_place.at IS 'when the verification ended: the time of the entry';
COMMENT ON COLUMN audit_verification_place.chain IS 'the chain of the entry';
COMMENT ON COLUMN audit_verification_place.seq IS 'the place of the entry in it';

SELECT pg_catalog.pg_extension_config_dump('audit_verification_place', '');

CREATE FUNCTION audit_verify_and_record(
    only_chain       integer     DEFAULT NULL,
    since            timestamptz DEFAULT NULL,
    until            timestamptz DEFAULT NULL,
    checkpoint       text        DEFAULT NULL,
    public_key       text        DEFAULT NULL,
    since_checkpoint text        DEFAULT NULL,
    OUT valid boolean, OUT entries bigint, OUT chains integer, OUT checkpoints integer, OUT problems bigint,
    OUT summary text
) RETURNS record
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'audit_chain_verify_and_record';
COMMENT ON FUNCTION audit_verify_and_record(integer, timestamptz, timestamptz, text, text, text) IS
    'audit_chain: audit_verify(), recorded by an entry of the log';
REVOKE ALL ON FUNCTION audit_verify_and_record(integer, timestamptz, timestamptz, text, text, text) FROM PUBLIC;

-- A role that may read the log's tables may call it, except with record.
CREATE PROCEDURE audit_verify_in_slices(
    checkpoint text    DEFAULT NULL,
    public_key text    DEFAULT NULL,
    record     boolean DEFAULT false,
    INOUT valid boolean DEFAULT NULL, INOUT entries bigint DEFAULT NULL, INOUT chains integer DEFAULT NULL,
    INOUT checkpoints integer DEFAULT NULL, INOUT problems bigint DEFAULT NULL, INOUT summary text DEFAULT NULL
)
    LANGUAGE c AS 'MODULE_PATHNAME', 'audit_chain_verify_in_slices';
COMMENT ON PROCEDURE audit_verify_in_slices(text, text, boolean, boolean, bigint, integer, integer, bigint, text) IS
    'audit_chain: verifies the whole log in many short transactions, which hold back no vacuum; records it if asked to';

CREATE VIEW audit_verification_log AS
SELECT (l.detail ->> 'started'::text)::timestamptz AS started_at, l.at AS finished_at, l.effective_role AS verified_by, l.session_role,
       CASE WHEN l.detail #> '{of,since_checkpoint}'::text[] IS NOT NULL THEN 'what follows a checkpoint'
            WHEN l.detail #> '{of,since}'::text[] IS NOT NULL OR l.detail #> '{of,until}'::text[] IS NOT NULL
                THEN 'a range of time'
            WHEN l.detail #> '{of,only_chain}'::text[] IS NOT NULL THEN 'one chain'
            ELSE 'the whole log' END AS scope,
       (l.detail #>> '{of,only_chain}'::text[])::integer AS only_chain,
       (l.detail #>> '{of,since}'::text[])::timestamptz AS since,
       (l.detail #>> '{of,until}'::text[])::timestamptz AS until,
       (l.detail #>> '{of,checkpoint}'::text[])::bigint AS checkpoint,
       (l.detail #>> '{of,since_checkpoint}'::text[])::bigint AS since_checkpoint,
       (l.detail #>> '{of,public_keys}'::text[])::integer AS public_keys,
       coalesce((l.detail ->> 'in_slices'::text)::boolean, false) AS in_slices,
       (l.detail ->> 'entries'::text)::bigint AS entries, (l.detail ->> 'chains'::text)::integer AS chains,
       (l.detail ->> 'checkpoints'::text)::integer AS checkpoints, (l.detail ->> 'tree_size'::text)::bigint AS tree_size,
       l.detail ->> 'verdict'::text AS verdict, (l.detail ->> 'problems'::text)::bigint AS problems,
       l.detail ->> 'summary'::text AS summary,
       pg_catalog.make_interval(secs => (l.detail ->> 'milliseconds'::text)::double precision / 1000::double precision) AS duration,
       l.chain, l.seq
FROM (SELECT r.chain, r.seq, r.at, r.operation, r.session_role, r.effective_role, r.detail::json AS detail
      FROM pg_catalog.jsonb_to_recordset(_audit_recorded('verification')) AS r(
          chain integer, seq bigint, at timestamptz, operation text, session_role text, effective_role text, detail text)) l
WHERE l.operation = 'VERIFY'::text;
COMMENT ON VIEW audit_verification_log IS 'audit_chain: the recorded verifications, each an entry of the log';
COMMENT ON COLUMN audit_verification_log.started_at IS 'when the verification began';
COMMENT ON COLUMN audit_verification_log.finished_at IS 'when it ended and was recorded';
COMMENT ON COLUMN audit_verification_log.verified_by IS 'the role that verified; null if that has been erased';
COMMENT ON COLUMN audit_verification_log.session_role IS 'the role that had logged in; null if that has been erased';
COMMENT ON COLUMN audit_verification_log.scope IS 'what was verified: the whole log, or which part';
COMMENT ON COLUMN audit_verification_log.only_chain IS 'the one chain that was verified';
COMMENT ON COLUMN audit_verification_log.since IS 'the beginning of the range of time that was verified';
COMMENT ON COLUMN audit_verification_log.until IS 'the end of that range';
COMMENT ON COLUMN audit_verification_log.checkpoint IS 'how many entries the supplied checkpoint seals; null if none was supplied';
COMMENT ON COLUMN audit_verification_log.since_checkpoint IS
    'how many entries the trusted checkpoint seals, after which the verification began';
COMMENT ON COLUMN audit_verification_log.public_keys IS 'with how many keys signatures were checked; null if they were not';
COMMENT ON COLUMN audit_verification_log.in_slices IS 'whether it was made in many short transactions';
COMMENT ON COLUMN audit_verification_log.entries IS 'how many entries were checked';
COMMENT ON COLUMN audit_verification_log.chains IS 'how many chains they belong to';
COMMENT ON COLUMN audit_verification_log.checkpoints IS 'how many recorded checkpoints were compared with the entries';
COMMENT ON COLUMN audit_verification_log.tree_size IS 'how many entries the log''s newest checkpoint sealed then';
COMMENT ON COLUMN audit_verification_log.verdict IS 'intact, tampered or unchecked';
COMMENT ON COLUMN audit_verification_log.problems IS 'how many problems were found';
COMMENT ON COLUMN audit_verification_log.summary IS 'the summary';
COMMENT ON COLUMN audit_verification_log.duration IS 'how long it took';
COMMENT ON COLUMN audit_verification_log.chain IS 'the chain of the entry that records it';
COMMENT ON COLUMN audit_verification_log.seq IS 'the place of that entry in the chain';
