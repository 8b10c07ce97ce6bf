-- What pgweir needs on the servers: the role that watches the nodes and looks up the secrets of
-- users. Run it as a superuser on the primary, in the database that the monitor connects to
-- (monitor.dbname, "postgres" unless configured); standbys get it by replication. It may be run
-- again at any time. Afterwards give the role a password, for example in psql:
--     \password pgweir

BEGIN;

DO $do$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'pgweir') THEN
        CREATE ROLE pgweir NOLOGIN;
    END IF;
END
$do$;
ALTER ROLE pgweir LOGIN;

-- Positions, receivers, settings and everybody's activity: what the probes read.
GRANT pg_monitor TO pgweir;

-- Secrets of users, so that everybody who may log in to the server may log in through pgweir.
-- Superusers and roles with REPLICATION are left out: they come in by auth.file or users only.
CREATE SCHEMA IF NOT EXISTS pgweir;
ALTER SCHEMA pgweir OWNER TO CURRENT_USER;
REVOKE ALL ON SCHEMA pgweir FROM PUBLIC;
GRANT USAGE ON SCHEMA pgweir TO pgweir;

-- One that somebody without the rights of a superuser made first would keep the grants he gave.
DO $do$
BEGIN
    IF EXISTS (SELECT FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_roles r ON r.oid = p.proowner
               WHERE p.oid = pg_catalog.to_regprocedure('pgweir.user_lookup(text)') AND NOT r.rolsuper) THEN
        DROP FUNCTION pgweir.user_lookup(text);
    END IF;
END
$do$;
CREATE OR REPLACE FUNCTION pgweir.user_lookup(name text, OUT usename text, OUT passwd text)
    RETURNS SETOF record
    LANGUAGE sql STABLE STRICT SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $body$
    SELECT rolname::text, rolpassword
    FROM pg_catalog.pg_authid
    WHERE rolname = name
      AND rolcanlogin
      AND NOT rolsuper
      AND NOT rolreplication
      AND rolpassword IS NOT NULL
      AND (rolvaliduntil IS NULL OR rolvaliduntil > pg_catalog.clock_timestamp())
$body$;
ALTER FUNCTION pgweir.user_lookup(text) OWNER TO CURRENT_USER;
REVOKE ALL ON FUNCTION pgweir.user_lookup(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgweir.user_lookup(text) TO pgweir;
COMMENT ON FUNCTION pgweir.user_lookup(text) IS 'secret of a user who may log in through pgweir';

COMMIT;
