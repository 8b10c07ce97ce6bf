
-- What promotion by pgweir needs: to stop and point receivers, to hold up writes for a
-- switchover, to end the old primary's sessions, to promote.
DO $do$
BEGIN
    IF pg_catalog.current_setting('server_version_num')::int < 150000 THEN
        RAISE EXCEPTION 'before PostgreSQL 15 the right to ALTER SYSTEM cannot be granted'
            USING HINT = 'Promotion by pgweir needs a superuser as its monitor here; run setup-sql without --promote otherwise.';
    END IF;
    EXECUTE 'GRANT ALTER SYSTEM ON PARAMETER primary_conninfo, default_transaction_read_only TO ' || pg_catalog.quote_ident(:'role');
END
$do$;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_promote(boolean, integer) TO :role;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_reload_conf() TO :role;
GRANT pg_signal_backend TO :role;
ALTER ROLE :role REPLICATION;
