"""The serving database itself: its server, its schema, and what its serving role may do."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from index_rows import DIMENSION, NO_DETAILS, NO_LINEAGE, Chunk, batch, policy_reader
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from pydantic import SecretStr

from retrieval.index.index import Index
from retrieval.index.rows import MAX_FIELD_BYTES
from retrieval.index.types import IndexState
from retrieval.search.searcher import Searcher
from retrieval.search.snapshot import read_snapshot
from retrieval.store.embedded_server import EmbeddedServer, EmbeddedServerConfig, EmbeddedServerError
from retrieval.store.postgres import (
    DatabaseError,
    DatabaseUnavailable,
    Postgres,
    PostgresConfig,
    fetch_postgres_value,
)
from retrieval.store.schema import SCHEMA_VERSION

SMALL = EmbeddedServerConfig(shared_buffers_mb=16, maintenance_work_mem_mb=16, max_connections=10)


@pytest.fixture(scope="module")
def state(postgres: Postgres) -> IndexState:
    rows = [
        Chunk(f"{tenant}-{i}", f"word{i} of {tenant}", tenant=tenant) for tenant in "xy" for i in range(200)
    ]
    return Index(postgres).build("model of roles", "chunker", DIMENSION, [batch(rows)], NO_LINEAGE)


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    with tempfile.TemporaryDirectory() as folder:
        # So long that its socket's path would not fit a socket address.
        server = EmbeddedServer(Path(folder) / ('it\'s a "long" $HOME folder ' * 5) / "postgres", SMALL)
        yield server
        server.stop()


def one(conninfo: str, query: str) -> object:
    with psycopg.connect(conninfo) as connection:
        row = connection.execute(query).fetchone()
        return row[0] if row else None


def kill(server: EmbeddedServer) -> int:
    pid = int((server.data / "postmaster.pid").read_text().split()[0])
    os.kill(pid, signal.SIGKILL)
    deadline_s = time.monotonic() + 10
    while server.running():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    time.sleep(0.3)  # its workers notice a moment later
    return pid


def run_as(postgres: Postgres, *statements: str) -> None:
    with postgres.serving("x") as connection:
        for statement in statements:
            connection.execute(statement)


def test_the_server_survives_kill_and_starts_on_what_was_committed(server: EmbeddedServer) -> None:
    conninfo = server.start()
    assert server.start() == conninfo
    with psycopg.connect(conninfo) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS value")
    pid = kill(server)
    # The stale file now names a process that is alive and no server: this one.
    pid_file = server.data / "postmaster.pid"
    pid_file.write_text(pid_file.read_text().replace(str(pid), str(os.getpid()), 1))
    assert not server.running()
    assert one(server.start(), "SELECT value FROM kept") == 7
    server.stop()
    assert not server.running()
    server.stop()


def test_a_start_after_a_kill_waits_for_the_new_server(server: EmbeddedServer) -> None:
    """The file that the killed one left says that it is ready."""
    server.start()
    killed = kill(server)
    if server._child:
        server._child.wait()  # else its number would still be taken
    conninfo = server.start()
    assert int((server.data / "postmaster.pid").read_text().split()[0]) != killed
    assert one(conninfo, "SELECT 7") == 7


def test_who_finds_a_server_that_is_starting_waits_for_it(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever started it was killed meanwhile."""
    server.start()
    kill(server)
    with monkeypatch.context() as patch:
        patch.setattr(server, "_wait_until_ready", lambda pid, lives: True)
        with contextlib.suppress(EmbeddedServerError):  # what is in its file by then
            server.start()
    deadline_s = time.monotonic() + 30
    while not server.running():
        assert time.monotonic() < deadline_s
    other = EmbeddedServer(server.place, SMALL)
    assert one(other.start(), "SELECT 7") == 7


def test_a_process_goes_on_after_its_server_was_killed() -> None:
    with tempfile.TemporaryDirectory() as state:
        mine = Postgres(Path(state), PostgresConfig(server=SMALL, pool_timeout_s=1))
        try:
            with mine.owner() as connection:
                connection.execute("CREATE TABLE headwater.kept AS SELECT 7 AS value")
            assert mine.server
            kill(mine.server)
            with mine.owner() as connection:
                assert connection.execute("SELECT value FROM headwater.kept").fetchone() == (7,)
        finally:
            mine.stop()


def test_a_restart_in_the_middle_of_a_query_is_an_error_that_says_so_and_no_more() -> None:
    with tempfile.TemporaryDirectory() as state, ThreadPoolExecutor(1) as pool:
        mine = Postgres(Path(state), PostgresConfig(server=SMALL, pool_timeout_s=5))
        asking = threading.Event()

        def ask() -> None:
            with mine.serving("x") as connection:
                asking.set()
                connection.execute("SELECT pg_sleep(60)")

        try:
            answer = pool.submit(ask)
            assert asking.wait(30)
            assert mine.server
            mine.server.stop()
            with pytest.raises(DatabaseUnavailable, match=r"before it had answered.*ask again"):
                answer.result(timeout=30)
            mine.server.start()
            with mine.serving("x") as connection:
                assert fetch_postgres_value(connection, "SELECT 7") == 7
        finally:
            mine.stop()


def test_the_server_listens_on_no_network_and_lets_nobody_else_in(server: EmbeddedServer) -> None:
    conninfo = server.start()
    assert one(conninfo, "SHOW listen_addresses") == ""
    assert one(conninfo, "SHOW fsync") == "on"
    assert server.data.stat().st_mode & 0o077 == 0
    socket_folder = conninfo_to_dict(conninfo)["host"]
    assert Path(str(socket_folder)).stat().st_mode & 0o077 == 0


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    data = tmp_path / "postgres"
    data.mkdir()
    (data / "thesis.txt").write_text("mine")
    with pytest.raises(EmbeddedServerError, match="not empty and holds no PostgreSQL data"):
        EmbeddedServer(data, SMALL).start()
    assert (data / "thesis.txt").read_text() == "mine"


def test_processes_share_one_server_that_outlives_them(postgres: Postgres) -> None:
    assert postgres.server
    postgres.server.start()
    pid = (postgres.server.data / "postmaster.pid").read_text().split()[0]
    script = (
        "import sys; from pathlib import Path; from retrieval.store.postgres import Postgres\n"
        "with Postgres(Path(sys.argv[1])).owner() as c:\n"
        "    print(c.execute('SELECT max(version) FROM headwater.schema_version').fetchone()[0])"
    )
    command = [sys.executable, "-c", script, str(postgres.server.place.parent)]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [run.communicate(timeout=60)[0].strip() for run in runs] == [str(SCHEMA_VERSION)] * 2
    assert (postgres.server.data / "postmaster.pid").read_text().split()[0] == pid


def test_a_url_reaches_a_server_that_somebody_else_runs(server: EmbeddedServer, tmp_path: Path) -> None:
    url = server.start()
    serving = make_conninfo(url, user="headwater_serving", password="of the administrator's choice")
    config = PostgresConfig(url=SecretStr(url), serving_url=SecretStr(serving))
    mine = Postgres(tmp_path / "state", config)
    try:
        with mine.owner():
            pass
        with psycopg.connect(url, dbname="postgres") as connection:
            connection.execute("ALTER ROLE headwater_serving PASSWORD 'of the administrator''s choice'")
        state = Index(mine).build("model", "chunker", DIMENSION, [batch([Chunk("a", "text")])], NO_LINEAGE)
        with mine.serving("acme") as connection:
            assert read_snapshot(connection, state).chunk_count == 1
        assert state.epoch == 1
        assert not (tmp_path / "state").exists()
        with mine.owner() as connection:
            connection.execute("UPDATE headwater.schema_version SET version = version + 1")
        mine.close()
        with pytest.raises(DatabaseError, match="update Headwater"), mine.owner():
            pass
    finally:
        mine.stop()
    assert server.running()


def test_a_database_that_does_not_answer_is_named(tmp_path: Path) -> None:
    nowhere = Postgres(tmp_path, PostgresConfig(url=SecretStr(f"postgresql:///x?host={tmp_path}")))
    with pytest.raises(DatabaseError, match=str(tmp_path)), nowhere.owner():
        pass


def test_a_database_of_the_last_schema_is_brought_to_this_one() -> None:
    with tempfile.TemporaryDirectory() as state:
        mine = Postgres(Path(state), PostgresConfig(server=SMALL))
        try:
            index = Index(mine)
            rows = [Chunk("a", "river of x", "x"), Chunk("b", "river of y", "y")]
            built = index.build("m", "c", DIMENSION, [batch(rows)], NO_LINEAGE)
            index.release("r1", built, None, NO_DETAILS)
            index.release("r1b", built, "r1", NO_DETAILS)
            key = mine._access_key()
            with mine.owner() as connection:
                # Version 4 had no quarantine, and took the clock's word for what was live when. Version 5
                # listed no scope without groups, and its serving role selected from the tables.
                connection.execute(
                    "DROP TABLE headwater.quarantine, headwater.graphs; "
                    "ALTER TABLE headwater.chunks DROP COLUMN scope_key, DROP COLUMN training_fit; "
                    "TRUNCATE headwater.scopes; "
                    "ALTER TABLE headwater.scopes DROP COLUMN scope_key; "
                    "GRANT SELECT ON headwater.chunks, headwater.postings TO headwater_serving; "
                    "UPDATE headwater.schema_version SET version = 4"
                )
                # Version 8 had a pointer and its history, in which r1 was gone back to.
                connection.execute(
                    "DROP VIEW headwater.live; DROP TABLE headwater.release_log; "
                    "CREATE TABLE headwater.live (only_row boolean PRIMARY KEY DEFAULT true, "
                    "release_id text REFERENCES headwater.releases, "
                    "held_by text, held_because text, held_since timestamptz); "
                    "CREATE TABLE headwater.live_history (live_since timestamptz, release_id text); "
                    "INSERT INTO headwater.live VALUES (true, 'r1b', 'ada', 'an audit', now()); "
                    "INSERT INTO headwater.live_history SELECT now() + n * interval '1 second', name "
                    "FROM unnest(array['r1', 'r1b', 'r1', 'r1b']) WITH ORDINALITY AS of (name, n)"
                )
            mine.close()
            hits = Searcher(mine).search("x", "river", None, 9, "lexical")
            assert [hit.text for hit in hits] == ["river of x"]
            near = Searcher(mine).search("x", "", [1.0] * DIMENSION, 9, "vector", model_digest="m")
            assert [hit.text for hit in near] == ["river of x"]
            with (
                pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied"),
                mine.serving("x") as connection,
            ):
                connection.execute("SELECT text FROM headwater.chunks")
            assert mine._access_key() == key
            moves = [(each.digest, each.decision) for each in index.log.decisions("index")]
            assert moves == [
                ("r1", "released"),
                ("r1b", "released"),
                ("r1", "rolled_back"),
                ("r1b", "released"),
            ]
            assert [each.digest for each in index.log.way_back("index")] == ["r1"]
            hold = index.end_hold()
            assert (hold and (hold.held_by, hold.reason, hold.release_id)) == ("ada", "an audit", "r1b")
            too_long = Chunk("c", "x" * (MAX_FIELD_BYTES + 1))
            changed = index.apply(built, [batch([too_long])], [rows[1].chunk_id], NO_LINEAGE)
            assert index.release("r2", changed, "r1b", NO_DETAILS).release_id == "r2"
            assert [chunk.chunk_id for chunk in index.quarantined(changed)] == [too_long.chunk_id]
        finally:
            mine.stop()


def test_a_database_older_than_any_release_is_refused(module_folder: Path) -> None:
    folder = module_folder / "version 3"
    folder.mkdir()
    old = Postgres(folder)
    try:
        with old.owner() as connection:
            connection.execute("UPDATE headwater.schema_version SET version = 3")
        old.close()
        with pytest.raises(DatabaseError, match=r"version 3, which no release had: drop its schema"):
            Index(old).live()
    finally:
        old.stop()


def test_waiting_for_a_connection_is_bounded(postgres: Postgres) -> None:
    assert postgres.server
    config = PostgresConfig(pool_size=1, pool_timeout_s=0.3)
    narrow = Postgres(postgres.server.place.parent, config)
    try:
        with (
            narrow.serving("x"),
            pytest.raises(DatabaseUnavailable, match=r"within 0\.3 s: all 1"),
            narrow.serving("x"),
        ):
            pass
        with narrow.serving("x"):
            pass
    finally:
        narrow.close()


def test_without_a_tenant_the_database_itself_refuses(postgres: Postgres, state: IndexState) -> None:
    for nobody in ("", "a\0b"):
        with pytest.raises(ValueError, match="no tenant"), postgres.serving(nobody):
            pass
    nothing = "SELECT set_config('headwater.access', '', true)"
    for table in ("chunks", "postings", "frequencies", "statistics", "scopes"):
        with policy_reader(postgres, "x") as connection:
            connection.execute(nothing)
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="no tenant is set"):
                connection.execute(f"SELECT count(*) FROM headwater.{table}")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="no tenant is set"):
        run_as(postgres, nothing, f"SELECT headwater_search.read_snapshot({state.generation}, {state.epoch})")


def test_a_tenant_sees_its_own_rows_and_no_others(postgres: Postgres, state: IndexState) -> None:
    for tenant in "xy":
        with policy_reader(postgres, tenant) as connection:
            for table in ("chunks", "postings", "frequencies", "statistics"):
                query = f"SELECT DISTINCT scope FROM headwater.{table} WHERE generation = {state.generation}"
                assert connection.execute(query).fetchall() == [(tenant,)]
            # Asked for by name, through an index, another tenant's postings are not there.
            other = connection.execute(
                "SELECT count(*) FROM headwater.postings WHERE scope <> %s OR lexeme = 'nobody'", (tenant,)
            )
            assert other.fetchone() == (0,)
    with policy_reader(postgres, "nobody") as connection:
        assert connection.execute("SELECT count(*) FROM headwater.chunks").fetchone() == (0,)
    # The tenant of one transaction does not last into the next of the same connection.
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="no tenant is set"):
        run_as(
            postgres, "COMMIT", f"SELECT headwater_search.read_snapshot({state.generation}, {state.epoch})"
        )


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM headwater.chunks",
        "SELECT * FROM headwater.postings",
        "SELECT * FROM headwater.frequencies",
        "SELECT * FROM headwater.statistics",
        "SELECT * FROM headwater.scopes",
        "SELECT * FROM headwater.graphs",
        "SELECT * FROM headwater.live",
        "SELECT * FROM headwater.text_configs",
        "SELECT headwater.visible_scopes()",
        "SELECT headwater.terms('en', 'text', true)",
        "SET ROLE headwater_reader",
        "INSERT INTO headwater.release_log DEFAULT VALUES",
        "SELECT * FROM headwater.release_log",
        "DELETE FROM headwater.chunks",
        "UPDATE headwater.chunks SET text = ''",
        "SELECT * FROM headwater.chunks_g{generation}",
        "SELECT * FROM headwater.postings_g{generation}",
        "SELECT * FROM headwater.frequencies_g{generation}",
        "SELECT lineage FROM headwater.index_state",
        "SELECT details FROM headwater.releases",
        "CREATE TABLE public.mine (x int)",
        "CREATE TEMPORARY TABLE mine (x int)",
        "CREATE SCHEMA mine",
        "ALTER TABLE headwater.chunks DISABLE ROW LEVEL SECURITY",
        "DROP POLICY tenant_reads ON headwater.chunks",
        "TRUNCATE headwater.chunks",
        "SET ROLE headwater_owner",
        "SET SESSION AUTHORIZATION postgres",
        "COPY headwater.live TO PROGRAM 'cat'",
    ],
)
def test_the_serving_role_selects_from_nothing(postgres: Postgres, state: IndexState, statement: str) -> None:
    # As a hostile query would: what holds are the grants, not the read-only default.
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        run_as(
            postgres,
            "COMMIT",
            "BEGIN READ WRITE",
            statement.format(generation=state.generation),
        )


def test_the_serving_role_owns_nothing_and_bypasses_nothing(postgres: Postgres) -> None:
    with postgres.owner() as connection:
        role = connection.execute(
            "SELECT rolsuper, rolbypassrls, rolcreaterole, rolcreatedb, rolinherit FROM pg_roles "
            "WHERE rolname = 'headwater_serving'"
        ).fetchone()
        owned = connection.execute(
            "SELECT count(*) FROM pg_class JOIN pg_roles r ON r.oid = relowner "
            "WHERE rolname = 'headwater_serving'"
        ).fetchone()
        forced = connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'headwater'::regnamespace "
            "AND (relname ~ '^(chunks|postings|frequencies)(_g[0-9]+)?$' "
            "OR relname IN ('statistics', 'scopes')) "
            "AND relkind IN ('r', 'p') AND NOT (relrowsecurity AND relforcerowsecurity)"
        ).fetchall()
    assert role == (False, False, False, False, False)
    assert owned == (0,)
    assert forced == []


def test_postings_are_found_through_their_index_under_row_level_security(
    postgres: Postgres, state: IndexState
) -> None:
    with policy_reader(postgres, "x") as connection:
        connection.execute("SET LOCAL enable_seqscan = off")  # the table is tiny: a scan of it is as cheap
        rows = connection.execute(
            "EXPLAIN SELECT unnest(chunk_nos), unnest(counts) FROM headwater.postings "
            f"WHERE generation = {state.generation} AND lexeme = ANY(%s)",
            (["word1", "word2"],),
        ).fetchall()
    plan = "\n".join(row[0] for row in rows)
    condition = next(line for line in plan.splitlines() if "Index Cond" in line)
    assert "scope = ANY" in condition
    assert "lexeme = ANY" in condition
    assert plan.count("  InitPlan") == 1  # the tenant is looked up once, not once a row
    assert "_g" + str(state.generation) in plan


def test_a_dump_of_a_schema_without_a_release_log_is_restored_with_what_was_live(module_folder: Path) -> None:
    """As a backup has it that an earlier version made: the one there is when the upgrade goes wrong."""
    folders = [module_folder / name for name in ("before the log", "restored", "older dump")]
    for folder in folders:
        folder.mkdir()
    old, new = (Postgres(folder, PostgresConfig(server=SMALL)) for folder in folders[:2])
    try:
        index = Index(old)
        built = index.build("m", "c", DIMENSION, [batch([Chunk("a", "river of x", "x")])], NO_LINEAGE)
        index.release("r1", built, None, NO_DETAILS)
        index.release("r2", built, "r1", NO_DETAILS)
        dump = index.dump(folders[2])
        (folders[2] / "release_log.copy").unlink()
        columns = {name: each for name, each in dump.columns.items() if name != "release_log"}
        with old.owner() as connection:
            connection.execute(
                "CREATE TEMPORARY TABLE live (only_row, release_id, held_by, held_because, held_since) AS "
                "SELECT true, 'r2', 'ada', 'an audit', now(); "
                "CREATE TEMPORARY TABLE live_history (live_since, release_id) AS "
                "SELECT now() + n * interval '1 second', name "
                "FROM unnest(array['r1', 'r2']) WITH ORDINALITY AS of (name, n)"
            )
            for table in ("live", "live_history"):
                rows = connection.execute(f"SELECT * FROM {table}")
                columns[table] = tuple(each.name for each in rows.description or ())
                with (
                    (folders[2] / f"{table}.copy").open("wb") as file,
                    connection.cursor() as cursor,
                    cursor.copy(f"COPY {table} TO STDOUT WITH (FORMAT binary)") as stream,
                ):
                    file.writelines(stream)
        restored = Index(new)
        restored.restore(folders[2], dump.model_copy(update={"columns": columns}))
        live, hold = restored.live(), restored.live_hold()
        assert live is not None
        assert (live.release_id, hold and (hold.held_by, hold.reason)) == ("r2", ("ada", "an audit"))
        assert [each.digest for each in restored.log.way_back("index")] == ["r1"]
        restored.end_hold()
        assert restored.rollback(None).release_id == "r1"
        hits = Searcher(new).search("x", "river", None, 9, "lexical")
        assert [hit.text for hit in hits] == ["river of x"]
    finally:
        old.remove()
        new.remove()
