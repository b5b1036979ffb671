-- The roles, the extension and the schema. The owner writes. The serving role owns nothing, selects from nothing and
-- executes functions of the reader's, who may select, by the policies of access.sql.
-- Applied as the administrator; running it again changes nothing.

DO $$
DECLARE
    name regprocedure;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'headwater_owner') THEN
        CREATE ROLE headwater_owner NOLOGIN NOINHERIT;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'headwater_serving') THEN
        CREATE ROLE headwater_serving LOGIN NOINHERIT NOBYPASSRLS NOCREATEDB NOCREATEROLE;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'headwater_reader') THEN
        CREATE ROLE headwater_reader NOLOGIN NOINHERIT NOBYPASSRLS;
    END IF;
    EXECUTE format('GRANT headwater_owner, headwater_reader TO %I', current_user);
    EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO headwater_owner', current_database());
    EXECUTE format(
        'ALTER ROLE headwater_serving IN DATABASE %I SET default_transaction_read_only = on', current_database()
    );
    -- By default everybody may end sessions of their own role, store large objects, take advisory locks, of which each
    -- of ours has one, and read counters, sizes, locks and the sessions of all. Only a superuser can take that away.
    IF current_setting('is_superuser') = 'on' THEN
        REVOKE EXECUTE ON FUNCTION pg_terminate_backend(integer, bigint), pg_cancel_backend(integer),
            lo_creat(integer), lo_create(oid), lo_from_bytea(oid, bytea) FROM PUBLIC;
        GRANT EXECUTE ON FUNCTION pg_terminate_backend(integer, bigint), pg_cancel_backend(integer)
            TO pg_signal_backend;
        FOR name IN
            SELECT oid::regprocedure FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace AND (
                proname ~ '^pg_(try_)?advisory_(xact_)?lock' OR proname ~ '^pg_stat_get_'
                OR proname ~ '^pg_(relation|total_relation|table|indexes|database|tablespace)_size$'
                OR proname IN ('pg_lock_status', 'pg_blocking_pids', 'pg_safe_snapshot_blocking_pids')
            )
        LOOP
            EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', name);
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO headwater_owner', name);
        END LOOP;
        -- It tells how many rows and pages each table and index has.
        REVOKE SELECT ON pg_catalog.pg_class FROM PUBLIC;
        GRANT SELECT ON pg_catalog.pg_class TO headwater_owner, headwater_reader;
    END IF;
END
$$;

REVOKE CREATE ON SCHEMA public FROM PUBLIC;

CREATE EXTENSION IF NOT EXISTS vector SCHEMA public;

CREATE SCHEMA IF NOT EXISTS headwater AUTHORIZATION headwater_owner;
GRANT USAGE ON SCHEMA headwater TO headwater_reader;
-- The functions have a schema of their own: where the serving role can't look a table up, no plan of it is made that a
-- setting could print before the permission is checked.
CREATE SCHEMA IF NOT EXISTS headwater_search AUTHORIZATION headwater_reader;
GRANT USAGE ON SCHEMA headwater_search TO headwater_serving;
REVOKE USAGE ON SCHEMA headwater FROM headwater_serving;

-- What the files after this one make belongs to the owner.
SET LOCAL ROLE headwater_owner;
