-- The same row gives the same bytes, whatever the session's settings.
\getenv srcdir PG_ABS_SRCDIR
\set setup :srcdir '/setup.sql'
\i :setup

CREATE TYPE pair AS (at timestamptz, price money);
CREATE DOMAIN day AS date;
CREATE TABLE things (
    d date, dd day, t time, tz timetz, ts timestamp, tstz timestamptz, i interval, b bytea, f4 float4, f8 float8, m money,
    cls regclass, typ regtype, proc regproc, procedure regprocedure, r tstzrange, mr tstzmultirange, a timestamptz[],
    ma money[], ba bytea[], ca regclass[], c pair, cc pair[], dr daterange, j json, jb jsonb
);
SELECT audit_enable('things');
CREATE FUNCTION put() RETURNS void LANGUAGE sql SET DateStyle = 'ISO, YMD' SET TimeZone = 'UTC' SET lc_monetary = 'C'
    SET search_path = app, public SET IntervalStyle = postgres
BEGIN ATOMIC
    INSERT INTO things VALUES (
        '2026-02-03', '2026-02-03', '04:05:06.789', '04:05:06+05:30', '2026-02-03 04:05:06.789', '2026-02-03 04:05:06.789+00',
        '1 year -2 days 03:04:05.6', '\x00ff5c27', 0.1, 1.0/3, '1234.50'::numeric::money,
        'app.things', 'app.pair', 'app.news', 'app.news()', '[2026-02-03 00:00+00,)', '{[2026-02-03 00:00+00,)}',
        '{2026-02-03 04:05:06+00,infinity,-infinity}', ARRAY[12.5::numeric::money], '{"\\xff"}', '{app.things,pg_class}',
        ROW('2026-02-03 04:05:06+00', 7.25::numeric::money), ARRAY[ROW('2026-02-03 04:05:06+00', 7.25::numeric::money)::pair],
        '[2026-02-03,2026-02-05)', '{"a" :1}', '{"a" :1}');
END;
-- put() has settings of its own while it runs, so the row also goes through plain statements.
SELECT put();
SET DateStyle = 'SQL, DMY'; SELECT put(); INSERT INTO things SELECT * FROM things LIMIT 1;
SET DateStyle = 'German'; SELECT put(); INSERT INTO things SELECT * FROM things LIMIT 1;
SET DateStyle = 'Postgres, MDY'; INSERT INTO things SELECT * FROM things LIMIT 1;
SET TimeZone = 'Asia/Kathmandu'; INSERT INTO things SELECT * FROM things LIMIT 1;
SET TimeZone = 'America/St_Johns'; INSERT INTO things SELECT * FROM things LIMIT 1;
SET IntervalStyle = 'iso_8601'; INSERT INTO things SELECT * FROM things LIMIT 1;
SET IntervalStyle = 'sql_standard'; INSERT INTO things SELECT * FROM things LIMIT 1;
SET bytea_output = 'escape'; INSERT INTO things SELECT * FROM things LIMIT 1;
SET extra_float_digits = -15; INSERT INTO things SELECT * FROM things LIMIT 1;
SET extra_float_digits = 3; INSERT INTO things SELECT * FROM things LIMIT 1;
SET search_path = pg_catalog; INSERT INTO app.things SELECT * FROM app.things LIMIT 1;
SET search_path = app; INSERT INTO app.things SELECT * FROM app.things LIMIT 1;
SET search_path = ''; INSERT INTO app.things SELECT * FROM app.things LIMIT 1;
SET quote_all_identifiers = on; INSERT INTO app.things SELECT * FROM app.things LIMIT 1;
RESET quote_all_identifiers;
SET search_path = app, public;
-- Another currency, where the machine has the locale.
DO $$
BEGIN
    SET lc_monetary = 'de_DE.UTF-8';
EXCEPTION WHEN invalid_parameter_value THEN
    NULL;
END
$$;
INSERT INTO things SELECT * FROM things LIMIT 1;
RESET lc_monetary;
UPDATE things SET d = d WHERE ctid = '(0,1)';
DELETE FROM things WHERE ctid = '(0,2)';
SELECT operation, count(*), count(DISTINCT coalesce(new_row, old_row)::text) FROM audit_log
WHERE operation <> 'ENABLE' GROUP BY 1 ORDER BY 1;
SELECT count(DISTINCT coalesce(new_row, old_row)::text) AS texts FROM audit_log WHERE operation <> 'ENABLE';
-- Columns that have more than one text: none.
SELECT key, min(value::text), max(value::text) FROM audit_log, json_each(coalesce(new_row, old_row)) GROUP BY key HAVING count(DISTINCT value::text) > 1;
SELECT key, value FROM json_each((SELECT new_row FROM audit_log WHERE operation = 'INSERT' ORDER BY seq LIMIT 1));

-- extra_float_digits, which is at its most while values are written, does not change the text of the float types.
CREATE TABLE floats (id int, f4 float4, f8 float8);
SELECT audit_enable('floats');
SELECT setseed(0.5);
INSERT INTO floats SELECT g, (random() - 0.5) * 10.0 ^ (random() * 70 - 35), (random() - 0.5) * 10.0 ^ (random() * 600 - 300)
FROM generate_series(1, 2000) g;
SET extra_float_digits = 1;
SELECT count(*) AS recorded, count(*) FILTER (WHERE new_row ->> 'f4' = f4::text AND new_row ->> 'f8' = f8::text) AS shortest,
       count(*) FILTER (WHERE (new_row ->> 'f4')::float4 = f4 AND (new_row ->> 'f8')::float8 = f8) AS exact
FROM audit_log JOIN floats ON id = (new_row ->> 'id')::int WHERE table_name = 'floats';
SET extra_float_digits = 3;

-- Capture leaves the session's settings as they were.
SELECT name, setting FROM pg_settings
WHERE name IN ('DateStyle', 'TimeZone', 'IntervalStyle', 'bytea_output', 'extra_float_digits', 'search_path') ORDER BY name;
SELECT d, tstz, i, b, f8 FROM things LIMIT 1;
RESET ALL;
SET search_path = app, public;
SELECT valid, problems FROM audit_verify();
-- Verification does not depend on them either.
SET DateStyle = 'German'; SET TimeZone = 'Asia/Kathmandu'; SET bytea_output = 'escape'; SET extra_float_digits = -15;
SELECT valid, problems FROM audit_verify();
