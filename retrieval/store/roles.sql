-- The two roles, the extension and the schema. The owner writes; the serving role owns nothing and may only read.
-- Applied as the administrator; running it again changes nothing.

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'headwater_owner') THEN
        CREATE ROLE headwater_owner NOLOGIN NOINHERIT;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'headwater_serving') THEN
        CREATE ROLE headwater_serving LOGIN NOINHERIT NOBYPASSRLS NOCREATEDB NOCREATEROLE;
    END IF;
    EXECUTE format('GRANT headwater_owner TO %I', current_user);
    EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO headwater_owner', current_database());
    EXECUTE format(
        'ALTER ROLE headwater_serving IN DATABASE %I SET default_transaction_read_only = on', current_database()
    );
    -- By default everybody may end sessions of their own role, and store large objects.
    IF current_setting('is_superuser') = 'on' THEN
        REVOKE EXECUTE ON FUNCTION pg_terminate_backend(integer, bigint), pg_cancel_backend(integer),
            lo_creat(integer), lo_create(oid), lo_from_bytea(oid, bytea) FROM PUBLIC;
        GRANT EXECUTE ON FUNCTION pg_terminate_backend(integer, bigint), pg_cancel_backend(integer)
            TO pg_signal_backend;
    END IF;
END
$$;

REVOKE CREATE ON SCHEMA public FROM PUBLIC;

CREATE EXTENSION IF NOT EXISTS vector SCHEMA public;

CREATE SCHEMA IF NOT EXISTS headwater AUTHORIZATION headwater_owner;
GRANT USAGE ON SCHEMA headwater TO headwater_serving;

-- What the files after this one make belongs to the owner.
SET LOCAL ROLE headwater_owner;
