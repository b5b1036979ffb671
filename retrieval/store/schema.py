"""The schema of the serving database: its version, and its migration to the present version."""

from importlib import resources
from typing import Any

from psycopg import Connection

from retrieval.access import new_access_key

SCHEMA_VERSION = 10
"""Raised with every change of the SQL files that an existing database has to take over."""

OLDEST_SCHEMA_VERSION = 4
"""The oldest version that can be brought to this one."""

_FILES = (
    "roles.sql",
    "tables.sql",
    "lexemes.sql",
    "access.sql",
    "search.sql",
    "lexical_search.sql",
    "grants.sql",
)
"""The SQL files in the order in which they are applied. Each makes what is not there and leaves the rest; a
new version adds to them what an existing database needs beyond that."""

_LOCK = 0x48656164  # an advisory lock's key, the same in every process


class SchemaMismatch(RuntimeError):
    """The database's schema has a version that this Headwater can not use."""


def apply_schema(connection: Connection[Any]) -> None:
    """Brings the schema and roles to `SCHEMA_VERSION` in one transaction, or does nothing if they have it.

    Raises:
        SchemaMismatch: The database was made by a newer Headwater, or by one older than any release.
        psycopg.Error: The connection's role lacks the rights, or pgvector is missing.
    """
    with connection.transaction():
        # Most often there is nothing to do: then nobody who holds the lock is waited for.
        if _schema_version(connection) == SCHEMA_VERSION:
            return
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        version = _schema_version(connection)
        if version == SCHEMA_VERSION:
            return
        if version is not None and version > SCHEMA_VERSION:
            raise SchemaMismatch(
                f"the serving database has schema version {version} and this Headwater knows "
                f"{SCHEMA_VERSION}: update Headwater"
            )
        if version is not None and version < OLDEST_SCHEMA_VERSION:
            raise SchemaMismatch(
                f"the serving database has schema version {version}, which no release had: drop its schema "
                "`headwater`, then `headwater run` builds the index anew"
            )
        for name in _FILES:
            connection.execute((resources.files("retrieval.store") / name).read_bytes())
        connection.execute(
            "INSERT INTO headwater.access_key (secret, inner_pad, outer_pad) VALUES (%s, %s, %s) "
            "ON CONFLICT DO NOTHING",
            new_access_key(),
        )
        connection.execute("INSERT INTO headwater.schema_version (version) VALUES (%s)", (SCHEMA_VERSION,))


def restore_pointer_tables(connection: Connection[Any]) -> None:
    """Makes the tables that said what is live before schema version 9, for the rows of an older backup."""
    connection.execute(
        "DROP VIEW headwater.live; "
        "CREATE TABLE headwater.live (only_row boolean, release_id text, held_by text, held_because text, "
        "held_since timestamptz); "
        "CREATE TABLE headwater.live_history (live_since timestamptz NOT NULL, release_id text NOT NULL)"
    )


def log_pointer_tables(connection: Connection[Any]) -> None:
    """Has the release log say what these tables say, which go, as the migration to version 9 does."""
    connection.execute((resources.files("retrieval.store") / "tables.sql").read_bytes())
    connection.execute("GRANT SELECT ON headwater.live TO headwater_reader")


def _schema_version(connection: Connection[Any]) -> int | None:
    """Returns the version that the database has, None where it has no schema yet."""
    row = connection.execute("SELECT to_regclass('headwater.schema_version')").fetchone()
    if not row or row[0] is None:
        return None
    row = connection.execute("SELECT coalesce(max(version), 0) FROM headwater.schema_version").fetchone()
    return int(row[0]) if row else None
