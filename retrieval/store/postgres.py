"""Connections to the serving database: as the owner, who writes the index, or for a tenant, who reads it."""

import contextlib
import re
import threading
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import psycopg
from pgvector import HalfVector
from pgvector.psycopg.halfvec import HalfVectorBinaryDumper
from psycopg import Connection, sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg_pool import ConnectionPool, PoolTimeout
from pydantic import BaseModel, Field, SecretStr, field_validator

from retrieval.access import (
    ACCESS_KEY_BYTES,
    access_token,
    checked_tenant,
    encode_access_groups,
)
from retrieval.store.embedded_server import SERVING_ROLE, EmbeddedServer, EmbeddedServerConfig
from retrieval.store.password_file import is_scram_verifier_of, read_role_password, scram_verifier
from retrieval.store.schema import SchemaMismatch, apply_schema

_DATABASE = "headwater"
_BEGIN_ATTEMPTS = 5
DatabaseRow = tuple[Any, ...]


class DatabaseError(RuntimeError):
    """The serving database can not be used; the message says why."""


class DatabaseUnavailable(DatabaseError):
    """No connection became free in time, or the connection was lost."""


class PostgresConfig(BaseModel):
    """How to reach the serving database: by a URL, else the embedded server in the state folder."""

    url: SecretStr | None = None
    """The URL of an administrator, who makes the schema and roles and writes. The server needs
    PostgreSQL >= 16 and pgvector >= 0.8."""
    serving_url: SecretStr | None = None
    """The URL of the role `headwater_serving`; by default `url` with that user and no password (pgpass)."""
    access_key: SecretStr | None = None
    """The secret of `headwater.access_key`, in hex, for a process that only serves: with it and `serving_url`
    no administrator's `url` is needed. Other processes read the secret as the owner."""

    @field_validator("url", "serving_url")
    @classmethod
    def _connection_string(cls, url: SecretStr | None) -> SecretStr | None:
        try:
            conninfo_to_dict(url.get_secret_value() if url else "")
        except psycopg.Error:
            # What libpq says of it would repeat a part of it.
            raise ValueError(
                "it is no URL of PostgreSQL: is a character of the password not escaped?"
            ) from None
        return url

    @field_validator("access_key")
    @classmethod
    def _hex(cls, key: SecretStr | None) -> SecretStr | None:
        if key and not re.fullmatch(rf"[0-9a-fA-F]{{{2 * ACCESS_KEY_BYTES}}}", key.get_secret_value()):
            raise ValueError(f"the access key is {2 * ACCESS_KEY_BYTES} hex digits")
        return key

    pool_size: int = Field(default=4, ge=1)
    """Connections per process and role."""
    pool_timeout_s: float = Field(default=10.0, gt=0)
    """How long to wait for a free connection before an error says so."""
    statement_timeout_s: float = Field(default=30.0, gt=0)
    """The longest time that one serving query may run."""
    server: EmbeddedServerConfig = EmbeddedServerConfig()
    """What the embedded server may take of the machine."""


class Postgres:
    """The serving database, embedded in a state folder or reached by URL.

    The first request for a connection starts the embedded server and brings the schema up to date. There is
    one object per process, which threads may share.

    Args:
        state: The state folder; the embedded server's data is in `state/postgres`.
        config: Where the database is and how many connections to hold.
    """

    def __init__(self, state: Path, config: PostgresConfig | None = None) -> None:
        self.config = config or PostgresConfig()
        self.server = None if self.config.url else EmbeddedServer(state / "postgres", self.config.server)
        self._opening = threading.Lock()
        self._administrator: str | None = None
        self._pools: dict[str, ConnectionPool[Connection[DatabaseRow]]] = {}
        self._key: bytes | None = None
        self._use = contextlib.ExitStack()

    @contextlib.contextmanager
    def owner(self) -> Iterator[Connection[DatabaseRow]]:
        """Yields a connection of the owner in a transaction, which is committed, or rolled back on an error.

        Raises:
            DatabaseUnavailable: No connection was free, or the database did not answer, in `pool_timeout_s`.
            DatabaseError: The schema could not be applied.
        """
        with self._pooled("headwater_owner") as connection:
            yield connection

    @contextlib.contextmanager
    def maintenance(self) -> Iterator[Connection[DatabaseRow]]:
        """Yields a new connection of the owner, outside transactions: for VACUUM and session locks."""
        with psycopg.connect(self._conninfo("headwater_owner"), autocommit=True) as connection:
            yield connection

    @contextlib.contextmanager
    def serving(self, tenant: str, groups: Collection[str] = ()) -> Iterator[Connection[DatabaseRow]]:
        """Yields a read-only connection that reads for one tenant, in one repeatable-read transaction.

        Its role executes the functions of search.sql and selects from nothing. The access token holds for
        this transaction only, so that no SQL sent through the connection can read another tenant's rows
        (docs/security.md).

        Args:
            tenant: The tenant whose rows are seen.
            groups: The user's groups; rows of other groups are not seen.

        Raises:
            ValueError: The tenant or a group is no valid name.
            DatabaseUnavailable: As in `owner`.
        """
        checked_tenant(tenant)
        encode_access_groups(groups)
        key = self._access_key()
        with self._pooled("headwater_serving") as connection:
            try:
                token = access_token(key, _begin_reading(connection), tenant, groups)
                connection.execute("SELECT set_config('headwater.access', %s, true)", (token,))
                yield connection
            finally:
                if not connection.closed:
                    _end_session(connection)

    def _access_key(self) -> bytes:
        if self._key is None:
            if self.config.access_key:
                self._key = bytes.fromhex(self.config.access_key.get_secret_value())
            else:
                with self.owner() as connection:
                    self._key = fetch_postgres_value(connection, "SELECT secret FROM headwater.access_key")
        return self._key or b""

    def close(self) -> None:
        """Closes this process's connections; an embedded server keeps running for other processes."""
        with self._opening:
            pools, self._pools, self._administrator, self._key = list(self._pools.values()), {}, None, None
            use, self._use = self._use, contextlib.ExitStack()
        for pool in pools:
            pool.close()
        use.close()

    def remove(self) -> None:
        """Closes the connections, stops the embedded server and deletes its data."""
        self.close()
        if self.server:
            self.server.remove()

    def stop(self) -> None:
        """Closes the connections, and stops the server if it is the embedded one."""
        self.close()
        if self.server:
            self.server.stop()

    @contextlib.contextmanager
    def _pooled(self, role: str) -> Iterator[Connection[DatabaseRow]]:
        try:
            pool = self._pool(role)
            connection = pool.getconn()
        except PoolTimeout as error:
            if self.server is None or self.server.running():
                raise DatabaseUnavailable(
                    f"no connection to PostgreSQL within {self.config.pool_timeout_s:g} s: all "
                    f"{self.config.pool_size} of this process are in use, or it does not answer"
                ) from error
            # The server was killed, or stopped by another process: start it again.
            self.close()
            pool = self._pool(role)
            connection = pool.getconn()
        try:
            with connection:
                yield connection
        except psycopg.OperationalError as error:
            if connection.broken:
                raise DatabaseUnavailable(
                    "PostgreSQL ended the connection before it had answered; it may be restarting: ask again"
                ) from error
            raise
        finally:
            # `with connection` ended its transaction; it closes only what it opened itself.
            pool.putconn(connection)

    def _pool(self, role: str) -> ConnectionPool[Connection[DatabaseRow]]:
        with self._opening:
            pool = self._pools.get(role)
        if pool is not None:
            return pool
        conninfo = self._conninfo(role)
        with self._opening:
            if role not in self._pools:
                self._pools[role] = ConnectionPool(
                    conninfo,
                    min_size=0,
                    max_size=self.config.pool_size,
                    timeout=self.config.pool_timeout_s,
                    configure=_configure_serving if role == "headwater_serving" else _configure,
                    check=ConnectionPool.check_connection,
                    open=True,
                    name=role,
                )
            return self._pools[role]

    def _conninfo(self, role: str) -> str:
        settings = "-c search_path=headwater,public"
        if role == "headwater_owner":
            return make_conninfo(
                self._administrator_conninfo(), options=f"{settings} -c role=headwater_owner"
            )
        # Given here they hold against what the role may set as its own defaults.
        timeout_ms = round(self.config.statement_timeout_s * 1000)
        settings += (
            f" -c statement_timeout={timeout_ms} -c default_transaction_read_only=on -c row_security=on"
        )
        if self.config.serving_url:
            if not self.config.access_key:
                self._administrator_conninfo()  # makes the schema where it is not there yet
            return make_conninfo(self.config.serving_url.get_secret_value(), options=settings)
        parts: dict[str, Any] = dict(conninfo_to_dict(self._administrator_conninfo()))
        parts.pop("password", None)
        return make_conninfo(**{**parts, "user": role, "options": settings})

    def _administrator_conninfo(self) -> str:
        with self._opening:
            if self._administrator is None:
                if self.config.url:
                    conninfo = self.config.url.get_secret_value()
                elif self.server:
                    self._use.enter_context(self.server.used())
                    conninfo = _with_database(self.server.start())
                try:
                    with psycopg.connect(conninfo, connect_timeout=10) as connection:
                        apply_schema(connection)
                        if self.server:
                            _set_serving_password(connection, self.server.password_file)
                except SchemaMismatch as error:
                    raise DatabaseError(str(error)) from error
                except psycopg.Error as error:
                    host = conninfo_to_dict(conninfo).get("host")
                    raise DatabaseError(f"the serving database at {host} can not be used: {error}") from error
                self._administrator = conninfo
            return self._administrator


def _set_serving_password(connection: Connection[DatabaseRow], password_file: Path) -> None:
    """Sets the serving role's password where it is another: the role itself may have changed it."""
    password = read_role_password(password_file, SERVING_ROLE)
    query = "SELECT rolpassword FROM pg_authid WHERE rolname = %s"
    if is_scram_verifier_of(fetch_postgres_value(connection, query, SERVING_ROLE), password):
        return
    with connection.transaction():
        connection.execute("LOCK TABLE headwater.access_key IN EXCLUSIVE MODE")  # one process at a time
        connection.execute(
            sql.SQL("ALTER ROLE {} PASSWORD {}").format(
                sql.Identifier(SERVING_ROLE), sql.Literal(scram_verifier(password))
            )
        )


def _configure(connection: Connection[DatabaseRow]) -> None:
    # Plans differ by tenant and generation; a generic plan would not know which partition it reads.
    connection.prepare_threshold = None


def _configure_serving(connection: Connection[DatabaseRow]) -> None:
    _configure(connection)
    # `serving` begins and ends its transaction itself, in one message with the other statements of that
    # moment.
    connection.autocommit = True
    # As text, each number of a vector would be formatted and parsed.
    connection.adapters.register_dumper(HalfVector, HalfVectorBinaryDumper)
    # Loads pgvector into the session: until then, its settings are accepted unchecked.
    connection.execute("SELECT '[1]'::public.halfvec")


def _begin_reading(connection: Connection[DatabaseRow]) -> str:
    """Begins the transaction of a search; returns what its proof has to name."""
    for attempt in range(_BEGIN_ATTEMPTS):
        try:
            *_, begun = connection.execute(
                "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY; SELECT headwater_search.begin_reading()"
            ).results()
            (transaction,) = begun.fetchone() or ("",)
            return str(transaction)
        except psycopg.errors.SerializationFailure:  # a generation was dropped at this moment
            connection.execute("ROLLBACK")
            if attempt == _BEGIN_ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable")


def _end_session(connection: Connection[DatabaseRow]) -> None:
    """Ends a read-only transaction and clears what it could leave to the next: settings, cursors, locks.

    Like `DISCARD ALL`, but it keeps the plans of our own functions. A session that fails to is closed.
    """
    try:
        connection.execute(
            "ROLLBACK; RESET SESSION AUTHORIZATION; RESET ALL; CLOSE ALL; DEALLOCATE ALL; UNLISTEN *; "
            "SELECT pg_advisory_unlock_all()"
        )
    except psycopg.Error:
        connection.close()


def _with_database(server: str) -> str:
    with psycopg.connect(server, autocommit=True) as connection:
        if not fetch_postgres_value(connection, "SELECT true FROM pg_database WHERE datname = %s", _DATABASE):
            with contextlib.suppress(psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(_DATABASE)))
    return make_conninfo(server, dbname=_DATABASE)


def fetch_postgres_value(connection: Connection[DatabaseRow], query: Any, *values: Any) -> Any:
    """Returns the first column of a query's first row, or None if there is no row."""
    row = connection.execute(query, values or None).fetchone()
    return row[0] if row else None
