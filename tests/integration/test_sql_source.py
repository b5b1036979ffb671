"""A query of a database as a source: PostgreSQL and SQLite, real ones."""

import socket
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from bronze_runs import raw_rows, read_sources
from psycopg import sql

from assets.sources.connector_options import SqlOptions
from assets.sources.connectors import sql_query
from assets.sources.connectors.sql_query import preview_sql_query
from assets.sources.revisions import STATE
from assets.sources.source_check import check_connected_source
from assets.sources.source_config import Source, SourceError
from assets.sources.source_registry import SourceRegistry
from orchestration.settings import Settings, open_configured_lake
from retrieval.store.postgres import Postgres

PASSWORD = "pa:ss/wörd@1"
OPTIONS = SqlOptions(
    query="select * from source_test.articles;",
    id_column="id",
    text_columns=("body",),
    title_column="title",
    cursor_column="changed_at",
    user="source_reader",
    password_env="ARTICLES_PASSWORD",
)


@dataclass
class Articles:
    """The table `source_test.articles` of the embedded server, and the URL that reads it."""

    administrator: psycopg.Connection
    url: str

    def execute(self, statement: str) -> None:
        self.administrator.execute(statement.encode())

    def count(self) -> int:
        [row] = self.administrator.execute("select count(*) from source_test.articles").fetchall()
        return int(row[0])


@pytest.fixture
def articles(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> Iterator[Articles]:
    monkeypatch.setenv("ARTICLES_PASSWORD", PASSWORD)
    assert postgres.server
    with psycopg.connect(postgres.server.start(), autocommit=True) as connection:
        connection.execute(
            """
            create schema source_test;
            create table source_test.articles
                (id bigint, title text, body text, changed_at timestamptz, link text);
            insert into source_test.articles
                select n, 'Title ' || n, 'What article ' || n || ' says: 10:30.',
                    '2026-01-01Z'::timestamptz + n * interval '1 minute', 'https://example.org/a#' || n
                from generate_series(1, 3) as n
            """
        )
        role = sql.SQL("create role source_reader login password {}").format(sql.Literal(PASSWORD))
        connection.execute(role)
        connection.execute("grant usage on schema source_test to source_reader")
        connection.execute("grant select on source_test.articles to source_reader")
        info = connection.info
        url = f"postgresql:///{info.dbname}?host={quote(info.host, safe='')}&port={info.port}"
        try:
            yield Articles(connection, url)
        finally:
            connection.execute("drop schema source_test cascade")
            connection.execute("drop role source_reader")


def added(home: Path, location: str, options: SqlOptions) -> Settings:
    settings = Settings(home=home)
    SourceRegistry(settings.sources_file).add(Source(name="articles", location=location, sql=options))
    return settings


def bodies(settings: Settings) -> dict[str, list[bytes | None]]:
    """The body of each revision, by the id of the row; None for a tombstone."""
    found: dict[str, list[bytes | None]] = {}
    for row in raw_rows(settings, "articles"):
        assert row["error"] is None
        found.setdefault(row["uri"].rpartition("/")[2], []).append(row["body"])
    return found


def test_rows_are_read_once_and_again_when_their_cursor_moves(
    tmp_path: Path, articles: Articles, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = added(tmp_path, articles.url, OPTIONS)
    assert read_sources(settings).failure is None
    assert bodies(settings) == {str(n): [b"What article %d says: 10:30." % n] for n in (1, 2, 3)}
    first = raw_rows(settings, "articles")[0]
    assert first["title"] == "Title 1"
    assert first["file_modified_at"] == datetime(2026, 1, 1, 0, 1, tzinfo=UTC)
    assert first["source_version"] == "2026-01-01T00:01:00+00:00"
    assert first["uri"].endswith("/articles/1")
    version = open_configured_lake(settings).version("bronze.raw_documents")
    assert read_sources(settings).failure is None
    assert open_configured_lake(settings).version("bronze.raw_documents") == version
    articles.execute("update source_test.articles set body = 'Unseen.' where id = 1")
    articles.execute("update source_test.articles set body = 'Changed.', changed_at = now() where id = 2")
    articles.execute("delete from source_test.articles where id = 3")
    # Late: it committed after others with a later time were read.
    articles.execute("insert into source_test.articles values (4, 'Late', 'It came late.', '2020-01-01Z')")
    asked: list[int] = []
    contents = sql_query._contents

    def counted(*arguments: Any) -> Iterator[dict[str, Any]]:
        asked.append(len(arguments[3]))
        yield from contents(*arguments)

    monkeypatch.setattr(sql_query, "_contents", counted)
    monkeypatch.setattr(sql_query, "_WHOLE_SHARE", 1.0)  # rows are looked up by their ids
    assert read_sources(settings).failure is None
    assert asked == [2]
    assert bodies(settings) == {
        "1": [b"What article 1 says: 10:30."],
        "2": [b"What article 2 says: 10:30.", b"Changed."],
        "3": [b"What article 3 says: 10:30.", None],
        "4": [b"It came late."],
    }
    SourceRegistry(settings.sources_file).remove("articles")
    SourceRegistry(settings.sources_file).add(Source(name="rest", location=str(tmp_path / "state.json")))
    assert read_sources(settings).failure is None
    assert all(texts[-1] is None for texts in bodies(settings).values())


def test_without_a_cursor_all_rows_are_compared(tmp_path: Path, articles: Articles) -> None:
    options = OPTIONS.model_copy(
        update={"cursor_column": None, "url_column": "link", "text_columns": ("title", "body")}
    )
    settings = added(tmp_path, articles.url, options)
    assert read_sources(settings).failure is None
    rows = raw_rows(settings, "articles")
    assert [row["uri"] for row in rows] == [f"https://example.org/a%23{n}" for n in (1, 2, 3)]
    assert rows[0]["body"] == b"Title 1\n\nWhat article 1 says: 10:30."
    version = open_configured_lake(settings).version("bronze.raw_documents")
    assert read_sources(settings).failure is None
    assert open_configured_lake(settings).version("bronze.raw_documents") == version
    articles.execute("update source_test.articles set body = null where id = 1")
    assert read_sources(settings).failure is None
    assert [row["body"] for row in raw_rows(settings, "articles")[:2]] == [rows[0]["body"], b"Title 1"]


def test_the_password_is_nowhere(
    tmp_path: Path, articles: Articles, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = added(tmp_path, articles.url, OPTIONS)
    monkeypatch.setenv("ARTICLES_PASSWORD", "a wrong " + PASSWORD)
    failure = read_sources(settings).failure or ""
    assert "password authentication failed" in failure
    monkeypatch.delenv("ARTICLES_PASSWORD")
    assert "ARTICLES_PASSWORD" in (read_sources(settings).failure or "")
    monkeypatch.setenv("ARTICLES_PASSWORD", PASSWORD)
    assert read_sources(settings).failure is None
    stored = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    output = "".join(capfd.readouterr())
    for secret in (PASSWORD, quote(PASSWORD, safe="")):
        assert not [body for body in stored if secret.encode() in body]
        assert secret not in failure + output


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("select * from source_test.nothing", "does not exist"),
        ("select id, title, changed_at from source_test.articles", "body"),
        ("delete from source_test.articles returning *", "error"),
        ("select 1; drop table source_test.articles", "error"),
        (
            "with gone as (delete from source_test.articles returning *) select * from gone",
            "WITH clause containing a data-modifying statement",
        ),
        ("select *, pg_sleep(20) from source_test.articles", "--statement-timeout"),
        ("select null::int as id, title, body, changed_at from source_test.articles", "has no id"),
        ("select 7 as id, title, body, changed_at from source_test.articles", "the same id"),
        ("select * from source_test.articles where false", "has no rows"),
    ],
)
def test_a_query_that_is_no_source_is_refused_and_changes_nothing(
    tmp_path: Path, articles: Articles, query: str, reason: str
) -> None:
    options = OPTIONS.model_copy(update={"query": query, "statement_timeout_s": 0.5})
    assert reason in (read_sources(added(tmp_path, articles.url, options)).failure or "")
    assert articles.count() == 3


def test_the_transaction_can_not_write(tmp_path: Path, articles: Articles) -> None:
    """Also where a function of the database would."""
    articles.execute(
        "create function source_test.write() returns bigint language sql security definer as "
        "$$ insert into source_test.articles values (9, 'x', 'x', now()) returning id $$"
    )
    query = "select source_test.write() as id, 't' as title, 'b' as body, now() as changed_at"
    settings = added(tmp_path, articles.url, OPTIONS.model_copy(update={"query": query}))
    assert "read-only transaction" in (read_sources(settings).failure or "")


def test_too_many_deletions_stop_the_source(tmp_path: Path, articles: Articles) -> None:
    articles.execute(
        "insert into source_test.articles select n, 't', 'Text ' || n, now() from generate_series(4, 40) as n"
    )
    settings = added(tmp_path, articles.url, OPTIONS)
    assert read_sources(settings).failure is None
    articles.execute("delete from source_test.articles where id > 1")
    assert "39 of its 40 documents are gone" in (read_sources(settings).failure or "")
    assert read_sources(settings.model_copy(update={"max_shrink": 1.0})).failure is None
    assert bodies(settings)["40"][-1] is None


@pytest.mark.parametrize(
    ("changed", "reasons"),
    [
        ({}, []),
        ({"query": "select * from source_test.nothing"}, ["refuses the query", "does not exist", "--query"]),
        ({"query": "selec 1"}, ["refuses the query", "syntax error"]),
        ({"text_columns": ("boddy",)}, ["has no column boddy", "id, title, body, changed_at, link"]),
        ({"cursor_column": "Changed_At"}, ["has no column Changed_At"]),
        ({"user": "nobody"}, ["refuses the login", "--password-env"]),
        ({"password_env": "NOT_SET"}, ["NOT_SET", "is not set"]),
    ],
)
def test_a_query_is_tried_before_it_is_added(
    articles: Articles, changed: dict[str, Any], reasons: list[str]
) -> None:
    source = Source(name="articles", location=articles.url, sql=OPTIONS.model_copy(update=changed))
    if not reasons:
        check_connected_source(source)
        return
    with pytest.raises(SourceError) as refused:
        check_connected_source(source)
    for reason in reasons:
        assert reason in str(refused.value)
    assert PASSWORD not in str(refused.value)


def test_a_database_that_does_not_answer_is_refused_in_bounded_time(tmp_path: Path, database: Path) -> None:
    nowhere = OPTIONS.model_copy(update={"password_env": None})
    source = Source(name="a", location="postgresql://127.0.0.1:9/shop", sql=nowhere)
    with pytest.raises(SourceError, match=r"can not be opened .*check that the URL is right"):
        check_connected_source(source)
    # A server that takes the connection and says nothing.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        source = Source(name="a", location=f"postgresql://127.0.0.1:{port}/shop", sql=nowhere)
        with pytest.raises(SourceError, match=r"had not answered after 0\.5 s"):
            check_connected_source(source, timeout_s=0.5)
    notes = Source(name="n", location=f"sqlite:///{database}", sql=NOTES)
    check_connected_source(notes)
    (tmp_path / "text.db").write_text("This is no database at all, but a text of some length. " * 30)
    for name, reason in (("none.db", "unable to open"), ("text.db", "not a database")):
        source = Source(name="n", location=f"sqlite:///{tmp_path}/{name}", sql=NOTES)
        with pytest.raises(SourceError, match=f"{reason}.*check the path"):
            check_connected_source(source)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "a b#%.db"
    with sqlite3.connect(path) as connection:
        connection.execute("create table notes (key text, body, at text)")
        connection.executemany(
            "insert into notes values (?, ?, ?)",
            [("ä/1#2", "It says: a:b and 5%.", "1"), ("pdf", b"%PDF-1.4 no more", "1"), ("3", 42, "1")],
        )
    connection.close()
    return path


NOTES = SqlOptions(query="select * from notes", id_column="key", text_columns=("body",), cursor_column="at")


def test_a_file_of_sqlite_is_read(tmp_path: Path, database: Path) -> None:
    settings = added(tmp_path / "home", f"sqlite:///{database}", NOTES)
    assert read_sources(settings).failure is None
    rows = {row["uri"].rpartition("/")[2]: row for row in raw_rows(settings, "articles")}
    assert {key: row["body"] for key, row in rows.items()} == {
        "%C3%A4%2F1%232": b"It says: a:b and 5%.",
        "pdf": b"%PDF-1.4 no more",
        "3": b"42",
    }
    assert rows["pdf"]["media_type"] == "application/pdf"
    with sqlite3.connect(database) as connection:
        connection.execute("update notes set body = 'Another.', at = '2' where key = '3'")
        connection.execute("insert into notes select 'n' || value, 'Text', '1' from json_each('[1,2,3,4]')")
    connection.close()
    lake = open_configured_lake(settings)
    state = lake.query(STATE, raw=lake.delta("bronze.raw_documents"))
    [source] = SourceRegistry(settings.sources_file).list()
    assert preview_sql_query(source, state).read.num_rows == 5
    assert read_sources(settings).failure is None
    assert bodies(settings)["3"] == [b"42", b"Another."]


def test_sqlite_can_not_be_written_and_has_a_deadline(tmp_path: Path, database: Path) -> None:
    endless = (
        "with recursive n(i) as (select 1 union all select i + 1 from n) "
        "select i as key, 'x' as body, 1 as at from n where i < 0"
    )
    options = NOTES.model_copy(update={"query": endless, "statement_timeout_s": 0.3})
    settings = added(tmp_path / "home", f"sqlite:///{database}", options)
    assert "--statement-timeout" in (read_sources(settings).failure or "")
    missing = added(tmp_path / "other", f"sqlite:///{tmp_path}/none.db", NOTES)
    assert "unable to open database file" in (read_sources(missing).failure or "")
    assert not (tmp_path / "none.db").exists()


@pytest.mark.parametrize(
    "location",
    [
        "postgresql://me:secret@host/db", "postgresql://me@host/db", "postgresql:///db?password=secret",
        "sqlite://", "sqlite:///:memory:", "sqlite:///file:x?mode=rwc", "no url",
    ],
)  # fmt: skip
def test_a_url_with_credentials_or_of_no_database_is_refused(location: str) -> None:
    with pytest.raises(ValueError, match=r"password-env|is a file|no URL") as refused:
        Source(name="s", location=location, sql=NOTES)
    assert "secret" not in str(refused.value)
