"""Reads a query of a database: a document per row.

All of it is read in one transaction that can not write, from one state of the database where it has such a
thing (PostgreSQL, SQLite): first the ids of all rows, from which follows what is new and what is gone, then
the rows that are new or whose cursor column has another value, a few at a time.

The URI of a row is what its URL column says, else the database's address, the source's name and the row's id.
"""

import re
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import NoSuchModuleError, SQLAlchemyError

from assets.parsing.content_type import UTF8_TEXT, detect_media_type
from assets.sources.connector_options import MissingPassword, SqlOptions
from assets.sources.connectors.known_documents import KnownDocument, known_documents
from assets.sources.connectors.reading import ConnectorPreview, ConnectorReading, ContentSpool
from assets.sources.local_files import MAX_SOURCE_FILE_BYTES, source_too_large_error
from assets.sources.source_config import Source, SourceEmpty, SourceUnreachable, UnreadableTabularFile
from assets.sources.source_schemas import ListedFile, SourceContent, source_listing_table
from common.redaction import redact_secrets

_CONNECT_TIMEOUT_S = 20
_FETCHED_ROWS = 500
_WHOLE_SHARE = 0.2
"""Above this share of new rows the whole query is read: looking them up by their ids would take longer."""
_SQLITE_STEPS = 10_000
"""Steps of SQLite's machine between two looks at the clock."""


@dataclass(frozen=True)
class _Row:
    """A row as it was listed: its id as the database has it, and the document that it is."""

    key: Any
    file: ListedFile


def read_sql_query(
    source: Source, state: pa.Table, scratch: Path, read_all: bool = False
) -> ConnectorReading:
    """Reads the rows of a query that are new or changed.

    Args:
        source: The source.
        state: The lake's newest revisions of its documents that are there, with the columns of `STATE`.
        scratch: An empty folder for what is read.
        read_all: Whether rows that have not changed are read too.

    Raises:
        SourceUnreachable: The database can not be reached or refuses the query.
        UnreadableTabularFile: Rows have no id, or share one.
        SourceEmpty: The query has no rows.
    """
    options, spool, read_uris = _options(source), ContentSpool(scratch), list[str]()
    known = known_documents(state)
    with _transaction(source) as connection:
        _check_columns(connection, source)
        rows = _listed(connection, source)
        new = [row for row in rows if read_all or _is_new(row, options, known)]

        def documents() -> Iterator[SourceContent]:
            by_uri = {row.file.uri: row.file for row in new}
            for values in _contents(connection, options, rows, new):
                file = by_uri.get(_uri(source, values))
                if file is None:
                    continue
                content = _document(file, options, values)
                before = known.get(file.uri)
                if before is None or not before.is_same_as(content):
                    read_uris.append(file.uri)
                    yield content

        spool.write(documents())
    return ConnectorReading(source_listing_table(row.file for row in rows), spool, read_uris)


def preview_sql_query(source: Source, state: pa.Table) -> ConnectorPreview:
    """Returns what `read_sql_query` would read; without a cursor column that is every row.

    Raises:
        SourceUnreachable: As `read_sql_query`.
        UnreadableTabularFile: As `read_sql_query`.
        SourceEmpty: As `read_sql_query`.
    """
    known = known_documents(state)
    with _transaction(source) as connection:
        _check_columns(connection, source)
        rows = _listed(connection, source)
    new = [row.file for row in rows if _is_new(row, _options(source), known)]
    return ConnectorPreview(source_listing_table(row.file for row in rows), source_listing_table(new))


def check_sql_query(source: Source, timeout_s: float) -> None:
    """Asks the database for the columns of the query, and no row of it.

    Raises:
        SourceUnreachable: The database can not be reached, refuses the query, or has not answered within so
            many seconds.
        UnreadableTabularFile: The query lacks a column that the source names.
    """
    options = _options(source)
    bounded = options.model_copy(update={"statement_timeout_s": min(timeout_s, options.statement_timeout_s)})
    source = source.model_copy(update={"sql": bounded})
    with _transaction(source) as connection:
        _check_columns(connection, source)


def _check_columns(connection: Connection, source: Source) -> None:
    options = _options(source)
    rows = _query(options).columns().subquery("source_rows")
    statement: sa.Select[Any] = (
        sa.select(sa.literal_column("*")).select_from(rows).where(sa.literal_column("1=0"))
    )
    columns = list(connection.execute(statement).keys())
    # PostgreSQL tells the cases of a column's name apart; others do not, or tell their driver another.
    folded = (lambda name: name) if connection.dialect.name == "postgresql" else str.lower
    there = set(map(folded, columns))
    if missing := [name for name in options.columns if folded(name) not in there]:
        raise UnreadableTabularFile(
            f"source {source.name}: its query has no column {', '.join(missing)}; its columns are "
            f"{', '.join(columns) or 'none'}: name one of these with --id-column, --text-column and the "
            "like, or have the query select it; nothing was changed"
        )


def _options(source: Source) -> SqlOptions:
    assert source.sql is not None  # noqa: S101 - of a source of this kind
    return source.sql


def _is_new(row: _Row, options: SqlOptions, known: dict[str, KnownDocument]) -> bool:
    before = known.get(row.file.uri)
    if before is None or options.cursor_column is None:
        return True
    return row.file.source_version is None or row.file.source_version != before.source_version


def _listed(connection: Connection, source: Source) -> list[_Row]:
    """Returns all rows of the query, without their texts."""
    options = _options(source)
    named = [each for each in (options.id_column, options.url_column, options.cursor_column) if each]
    rows, uris = list[_Row](), set[str]()
    for values in _fetched(connection, _selected(options, named)):
        key = values[options.id_column]
        if key is None:
            raise UnreadableTabularFile(
                f"source {source.name}: a row of its query has no {options.id_column}: leave such rows out "
                "with a condition; nothing was changed"
            )
        uri = _uri(source, values)
        if uri in uris:
            column = options.url_column or options.id_column
            raise UnreadableTabularFile(
                f"source {source.name}: two rows of its query have the same {column}, {str(key)[:100]!r}: "
                "name a column that tells all rows apart; nothing was changed"
            )
        uris.add(uri)
        cursor = values[options.cursor_column] if options.cursor_column else None
        version = None if cursor is None else _text(cursor)
        rows.append(_Row(key, ListedFile(uri, None, _time(cursor), version)))
    if not rows:
        raise SourceEmpty(
            f"source {source.name}: its query has no rows. To remove the documents that came from it: "
            f"headwater source remove {source.name}"
        )
    return rows


def _contents(
    connection: Connection, options: SqlOptions, rows: Sequence[_Row], new: Sequence[_Row]
) -> Iterator[dict[str, Any]]:
    """Yields the rows that are new, and others too where reading all takes less time."""
    if len(new) > _WHOLE_SHARE * len(rows):
        yield from _fetched(connection, _selected(options, options.columns))
        return
    for first in range(0, len(new), _FETCHED_ROWS):
        keys = [row.key for row in new[first : first + _FETCHED_ROWS]]
        yield from _fetched(connection, _selected(options, options.columns, keys))


def _selected(options: SqlOptions, names: Sequence[str], keys: Sequence[Any] | None = None) -> sa.Select[Any]:
    """Returns the statement for some columns of the query's rows, of all or of those with some ids."""
    columns: list[sa.ColumnClause[Any]] = [sa.column(name) for name in dict.fromkeys(names)]
    rows = _query(options).columns(*columns).subquery("source_rows")
    statement = sa.select(*(rows.c[column.name] for column in columns))
    return statement if keys is None else statement.where(rows.c[options.id_column].in_(keys))


def _query(options: SqlOptions) -> sa.TextClause:
    # A colon is none of a parameter: the query has none.
    return sa.text(re.sub(r"(?=:)", r"\\", options.query.strip().rstrip(";")))


def _fetched(connection: Connection, statement: sa.Select[Any]) -> Iterator[dict[str, Any]]:
    """Yields the rows of a statement, a few at a time from a cursor of the server's where it has one."""
    result = connection.execution_options(stream_results=True, yield_per=_FETCHED_ROWS).execute(statement)
    names = list(result.keys())
    for part in result.partitions(_FETCHED_ROWS):
        for row in part:
            yield dict(zip(names, row, strict=True))


def _document(file: ListedFile, options: SqlOptions, values: dict[str, Any]) -> SourceContent:
    found = [values[name] for name in options.text_columns]
    title = values[options.title_column] if options.title_column else None
    if len(found) == 1 and isinstance(found[0], bytes | memoryview):
        body = bytes(found[0])
        media_type = detect_media_type(body, file.uri)
    else:
        texts = [_text(value) for value in found if value is not None]
        body = "\n\n".join(text for text in texts if text).encode(errors="replace")
        media_type = UTF8_TEXT
    if len(body) > MAX_SOURCE_FILE_BYTES:
        return SourceContent.failed(file, f"oversize: {source_too_large_error(len(body))}")
    return SourceContent.of(file, body, media_type, None if title is None else _text(title))


def _text(value: Any) -> str:
    if isinstance(value, bytes | memoryview):
        return bytes(value).decode(errors="replace")
    if isinstance(value, datetime | date):
        return value.isoformat()
    return str(value)


def _time(cursor: Any) -> datetime | None:
    if not isinstance(cursor, datetime):
        return None
    return cursor.replace(tzinfo=UTC) if cursor.tzinfo is None else cursor.astimezone(UTC)


def _uri(source: Source, values: dict[str, Any]) -> str:
    options = _options(source)
    address = values[options.url_column] if options.url_column else None
    if address:
        # What comes after # would be taken for a part of the document.
        return re.sub(r"[\x00-\x20#\x7f]", lambda found: f"%{ord(found[0]):02X}", _text(address))
    return f"{sql_uri_prefix(source)}{quote(_text(values[options.id_column]), safe='')}"


def sql_uri_prefix(source: Source) -> str:
    """Returns the beginning of the URIs of a query's rows that have no URL of their own."""
    url = make_url(source.location)
    port = f":{url.port}" if url.port else ""
    database = quote(url.database or "")
    return f"{url.get_backend_name()}://{url.host or ''}{port}/{database.lstrip('/')}/{source.name}/"


@contextmanager
def _transaction(source: Source) -> Iterator[Connection]:
    """Yields a connection in a transaction that is rolled back, whatever happens.

    Raises:
        SourceUnreachable: The database can not be reached or refuses a statement.
    """
    options = _options(source)
    try:
        password = options.password()
    except MissingPassword as error:
        raise SourceUnreachable(f"source {source.name}: {error}; nothing was changed") from error
    connected = False
    try:
        with _engine(source, password).connect() as connection, connection.begin() as transaction:
            connected = True
            if connection.dialect.name == "postgresql":
                timeout_ms = str(max(1, round(options.statement_timeout_s * 1000)))
                set_timeout = sa.select(sa.func.set_config("statement_timeout", timeout_ms, True))
                connection.execute(set_timeout)
            try:
                yield connection
            finally:
                transaction.rollback()
    except (SQLAlchemyError, sqlite3.Error, ImportError) as error:
        raise SourceUnreachable(_fault(source, error, password, connected)) from None


def _engine(source: Source, password: str | None) -> sa.Engine:
    options, url = _options(source), make_url(source.location)
    if url.get_backend_name() == "sqlite":
        return _sqlite_engine(url, options.statement_timeout_s)
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")  # the driver that is installed with Headwater
    arguments: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    if url.get_backend_name() == "postgresql":
        arguments = {"connect_timeout": _CONNECT_TIMEOUT_S, "application_name": "headwater"}
        settings = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    return sa.create_engine(
        url.set(username=options.user, password=password),
        poolclass=sa.NullPool,
        hide_parameters=True,
        connect_args=arguments,
        execution_options=settings,
    )


def _sqlite_engine(url: URL, statement_timeout_s: float) -> sa.Engine:
    """Returns an engine for a file that is opened for reading only, and whose statements have a deadline."""

    def connected() -> sqlite3.Connection:
        opened = sqlite3.connect(
            f"file:{quote(str(url.database))}?mode=ro",
            uri=True,
            timeout=_CONNECT_TIMEOUT_S,
            isolation_level=None,
        )
        opened.execute("PRAGMA query_only = ON")
        opened.execute("PRAGMA trusted_schema = OFF")
        opened.execute("BEGIN")  # all statements see one state of the file
        return opened

    engine = sa.create_engine("sqlite://", creator=connected, poolclass=sa.NullPool, hide_parameters=True)

    @sa.event.listens_for(engine, "before_cursor_execute")
    def set_deadline(connection: Connection, *_: object) -> None:
        deadline = time.monotonic() + statement_timeout_s
        opened = connection.connection.driver_connection
        assert isinstance(opened, sqlite3.Connection)  # noqa: S101 - of this engine
        opened.set_progress_handler(lambda: time.monotonic() > deadline, _SQLITE_STEPS)

    return engine


def _fault(source: Source, error: Exception, password: str | None, connected: bool) -> str:
    """Returns why a database was not read, without the statement, its values and the password."""
    if isinstance(error, NoSuchModuleError | ImportError):
        kind = make_url(source.location).drivername
        reason = f"there is no driver for {kind} in this environment ({error}): install the one it names"
    else:
        said = str(getattr(error, "orig", None) or error).strip()
        first = (said.splitlines() or ["no word"])[0].rstrip(".")
        if "interrupted" in said or "statement timeout" in said:
            reason = f"{source.location} had not answered after {_options(source).statement_timeout_s:g} s"
            reason += ", the longest that a statement may take: --statement-timeout"
        elif "not a database" in first or "unable to open" in first:  # a file of SQLite
            reason = f"{source.location} can not be opened ({first}): check the path"
        elif connected:
            reason = f"{source.location} refuses the query ({first}): mend it (--query)"
        elif re.search("password|authentication|role ", first):
            reason = f"{source.location} refuses the login ({first}): --user and --password-env"
        else:
            reason = (
                f"{source.location} can not be opened ({first}): check that the URL is right and that the "
            )
            reason += "database runs and may be reached from here"
    reason = redact_secrets(reason, [password] if password else [])
    return f"source {source.name}: {reason}; nothing was changed"
