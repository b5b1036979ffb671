"""Who may read what Headwater writes, and who may connect to its database: their owner, and nobody else."""

import errno
import json
import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from orchestration.migrations import STATE_VERSION
from orchestration.operations.backup import write_backup
from orchestration.settings import Settings, open_configured_lake
from retrieval.store.embedded_server import EmbeddedServer, EmbeddedServerConfig
from retrieval.store.password_file import read_role_password
from retrieval.store.postgres import Postgres, PostgresConfig
from retrieval.store.server_data import (
    OUTSIDE_FOLDER,
    EmbeddedServerError,
    abandoned_server_data,
    chown_server_data,
)

ROOT = Path(__file__).parents[2]
AS_ROOT = os.geteuid() == 0
SMALL = EmbeddedServerConfig(shared_buffers_mb=16, maintenance_work_mem_mb=16, max_connections=10)
only_root = pytest.mark.skipif(not AS_ROOT, reason="what root's server needs")


def headwater(home: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "orchestration.cli.main", *arguments],
        env=os.environ | {"HEADWATER_HOME": str(home), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        umask=0o022,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def open_to_others(folder: Path) -> list[str]:
    """What in a folder its group or others have any right to."""
    paths = [path for path in (folder, *folder.rglob("*")) if not path.is_symlink()]
    return [f"{path.lstat().st_mode & 0o777:o} {path}" for path in paths if path.lstat().st_mode & 0o077]


def connect(socket_folder: str, user: str, password: str | None) -> None:
    psycopg.connect(
        host=socket_folder, user=user, dbname="headwater", password=password, passfile="/dev/null"
    ).close()


def server_data(home: Path) -> Path:
    return (home / "postgres").resolve()


@pytest.fixture(scope="module")
def closed_folder(module_folder: Path) -> Path:
    """A folder that nobody but its owner may enter, as /root is."""
    folder = module_folder / "closed"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture(scope="module")
def home(closed_folder: Path) -> Iterator[Path]:
    """A state folder that the command line made, with a release, from an umask that lets all read."""
    docs = closed_folder / "docs"
    docs.mkdir()
    (docs / "bees.md").write_text("# Bees\n\nThe waggle dance tells the workers where the flowers are.\n")
    home = closed_folder / "state" / "home"
    headwater(home, "ingest", str(docs), "--json")
    headwater(home, "ask", "What does the waggle dance tell?", "--json")
    # Spark's JVM writes with modes of its own.
    headwater(home, "sql", "--engine", "spark", "select count(*) from silver.documents")
    yield home
    Postgres(home).remove()


def test_only_the_owner_may_read_a_state_folder(home: Path) -> None:
    assert list((home / "lake").rglob("*.parquet"))
    assert open_to_others(home) == []
    assert open_to_others(server_data(home)) == []


def test_spark_writes_for_the_owner_only(home: Path, spark: object, module_folder: Path) -> None:
    from pyspark.sql import SparkSession

    assert isinstance(spark, SparkSession)
    before = os.umask(0o077)
    try:
        spark.range(3).write.format("delta").save(str(module_folder / "written by spark"))
    finally:
        os.umask(before)
    assert open_to_others(module_folder / "written by spark") == []


def test_no_folder_above_is_opened(home: Path, closed_folder: Path) -> None:
    assert stat.S_IMODE(closed_folder.stat().st_mode) == 0o700
    if AS_ROOT:
        assert stat.S_IMODE(home.parent.stat().st_mode) == 0o700
        assert not server_data(home).is_relative_to(home)


@only_root
def test_the_servers_user_reaches_its_data_and_not_the_state_folder(home: Path) -> None:
    data = server_data(home)
    user = data.stat().st_uid
    with pytest.raises(KeyError):
        pwd.getpwuid(user)
    assert {path.lstat().st_uid for path in data.rglob("*")} == {user}
    for folder, may in ((data, True), (home, False)):
        command = ["setpriv", f"--reuid={user}", "--regid=pgserver", "--clear-groups", "ls", str(folder)]
        assert (subprocess.run(command, capture_output=True, check=False).returncode == 0) is may


@only_root
def test_no_lakes_server_reaches_anothers_data(tmp_path: Path) -> None:
    """Nor does whoever took over the one as its administrator."""
    one, other = (EmbeddedServer(tmp_path / name / "postgres", SMALL) for name in ("one", "other"))
    try:
        address = one.start()
        other.start()
        with psycopg.connect(address, autocommit=True) as connection:
            version = "SELECT pg_read_file(%s)"
            assert connection.execute(version, [str(one.data / "PG_VERSION")]).fetchone() == ("18\n",)
            for read, path in ((version, other.data / "PG_VERSION"), ("SELECT pg_ls_dir(%s)", other.data)):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(read, [str(path)])
            pid = (other.data / "postmaster.pid").read_text().split()[0]
            with pytest.raises(psycopg.errors.ExternalRoutineException):
                connection.execute(f"COPY (SELECT 1) TO PROGRAM 'kill -0 {pid}'")
    finally:
        one.remove()
        other.remove()


@only_root
@pytest.mark.parametrize("cut_off", [False, True])
def test_a_server_of_the_shared_user_gets_one_of_its_own(tmp_path: Path, cut_off: bool) -> None:
    """An older version's, or one whose start was cut off while its password was set."""
    server = EmbeddedServer(tmp_path / "postgres", SMALL)
    try:
        with psycopg.connect(server.start()) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 7 AS value")
        server.stop()
        chown_server_data(server.data, "pgserver")
        if cut_off:
            (server.data / "pg_hba.conf").write_text("local all all reject\n")
        with psycopg.connect(server.start()) as connection:
            assert connection.execute("SELECT value FROM kept").fetchone() == (7,)
        user = server.data.stat().st_uid
        assert user not in (0, pwd.getpwnam("pgserver").pw_uid)
        assert {path.lstat().st_uid for path in server.data.rglob("*")} == {user}
    finally:
        server.remove()


@only_root
def test_a_servers_user_is_given_nothing_of_roots(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("root's\n")
    server = EmbeddedServer(tmp_path / "home" / "postgres", SMALL)
    try:
        server.start()
        server.stop()
        for name, target in (("folder", tmp_path), ("file", tmp_path / "secret")):
            (server.data / name).symlink_to(target)
            os.lchown(server.data / name, server.data.stat().st_uid, -1)
        shutil.copy(tmp_path / "secret", server.data / "base" / "hard")  # as a hard link would be: root's
        chown_server_data(server.data, "pgserver")
        assert (tmp_path / "secret").stat().st_uid == 0
        assert (server.data / "base" / "hard").stat().st_uid == 0
        assert (server.data / "file").lstat().st_uid == pwd.getpwnam("pgserver").pw_uid
        (server.data / "postgresql.conf").unlink()
        (server.data / "postgresql.conf").symlink_to(tmp_path / "secret")
        with pytest.raises(OSError, match=r"postgresql\.conf"):
            server.start()
    finally:
        server.remove()


@only_root
@pytest.mark.parametrize(
    ("mapped", "users"),
    [
        ("0 0 4294967295", range(2_000_300_000, 2_147_000_000)),
        ("0 100000 65536", range(61_184, 65_520)),
        ("0 1000 1\n1 100000 10000", None),
    ],
)
def test_the_user_is_one_that_the_container_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mapped: str, users: range | None
) -> None:
    from retrieval.store import server_data

    (tmp_path / "uid_map").write_text(mapped + "\n")
    monkeypatch.setattr(server_data, "_USER_MAP", tmp_path / "uid_map")
    server = EmbeddedServer(tmp_path / "home" / "postgres", SMALL)
    try:
        psycopg.connect(server.start()).close()
        user = server.data.stat().st_uid
        assert user in users if users else user == pwd.getpwnam("pgserver").pw_uid
    finally:
        server.remove()


@only_root
def test_another_user_runs_the_same(tmp_path: Path) -> None:
    """Not root: the data lies in the state folder, and all of it is theirs alone."""
    tmp_path.chmod(0o755)
    for folder in tmp_path.parents[: len(tmp_path.relative_to(tempfile.gettempdir()).parts) - 1]:
        folder.chmod(folder.stat().st_mode | 0o011)  # pytest's own, and a worker's; not a user's
    work = tmp_path / "work"
    work.mkdir(mode=0o700)
    shutil.chown(work, "nobody")
    script = (
        "import os, sys; os.umask(0o022)\n"
        "from pathlib import Path; from retrieval.store.postgres import Postgres\n"
        "postgres = Postgres(Path(sys.argv[1]))\n"
        "with postgres.owner() as c: print(c.execute('SELECT 7').fetchone()[0])\n"
        "with postgres.serving('x') as c: print(c.execute('SELECT current_user').fetchone()[0])\n"
        "print(postgres.server.data); postgres.stop()"
    )
    done = subprocess.run(
        [
            "setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups",
            sys.executable, "-c", script, str(work / "home"),
        ],
        env=os.environ | {"PYTHONPATH": str(ROOT), "HOME": str(work)},
        cwd=work, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["7", "headwater_serving", str(work / "home" / "postgres")], done.stderr
    assert open_to_others(work / "home" / "postgres") == []
    assert stat.S_IMODE((work / "home" / "postgres.pgpass").stat().st_mode) == 0o600


def test_who_has_no_password_does_not_connect(home: Path) -> None:
    server = EmbeddedServer(home / "postgres", SMALL)
    address = conninfo_to_dict(server.start())
    assert stat.S_IMODE(server.password_file.stat().st_mode) == 0o600
    for user in ("postgres", "headwater_serving"):
        for password in (None, "", "guessed"):
            with pytest.raises(psycopg.OperationalError, match=r"password|SCRAM"):
                connect(str(address["host"]), user, password)
        connect(str(address["host"]), user, read_role_password(server.password_file, user))


def test_the_passwords_are_in_one_file_only(home: Path) -> None:
    with Postgres(home).owner():
        pass
    passwords = [
        read_role_password(home / "postgres.pgpass", role) for role in ("postgres", "headwater_serving")
    ]
    assert len(set(passwords)) == 2
    for folder in (home, server_data(home)):
        for path in folder.rglob("*"):
            if path.is_file() and path.name != "postgres.pgpass":
                body = path.read_bytes()
                assert not [password for password in passwords if password.encode() in body], path
    for process in psutil.process_iter():
        try:
            seen = " ".join([*process.cmdline(), *process.environ().values()])
        except psutil.Error:
            continue
        assert not [password for password in passwords if password in seen], process


def test_a_serving_session_that_changes_its_password_locks_nobody_out_for_long(home: Path) -> None:
    postgres = Postgres(home)
    with postgres.serving("default") as connection:
        connection.execute("COMMIT; BEGIN READ WRITE; ALTER ROLE headwater_serving PASSWORD 'mine'; COMMIT")
    postgres.close()
    with Postgres(home).serving("default") as connection:
        assert connection.execute("SELECT 7").fetchone() == (7,)


def test_a_backup_is_the_owners_alone(home: Path, module_folder: Path) -> None:
    file = module_folder / "backup.tar"
    before = os.umask(0o022)
    try:
        write_backup(Settings(home=home), file, print)
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_an_open_state_folder_is_closed(tmp_path: Path) -> None:
    home = tmp_path / "home"
    open_configured_lake(Settings(home=home))
    (home / "state.json").write_text(json.dumps({"version": 3}))
    outside = tmp_path / "outside"
    outside.touch(mode=0o644)
    (home / "link").symlink_to(outside)
    for path in (home, *(path for path in home.rglob("*") if not path.is_symlink())):
        path.chmod(0o755 if path.is_dir() else 0o644)
    open_configured_lake(Settings(home=home))
    assert json.loads((home / "state.json").read_text()) == {"version": STATE_VERSION}
    assert open_to_others(home / "lake") == []
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert stat.S_IMODE(outside.stat().st_mode) == 0o644


@pytest.mark.parametrize("running", [False, True])
def test_a_lake_of_an_older_headwater_opens(tmp_path: Path, running: bool) -> None:
    """Its data is in the state folder, and lets in every process that may enter it."""
    older = Postgres(tmp_path, PostgresConfig(server=SMALL))
    with older.owner() as connection:
        connection.execute("CREATE TABLE headwater.kept AS SELECT 7 AS value")
    older.stop()
    assert older.server
    data = older.server.data
    (data / "pg_hba.conf").write_text("local all all trust\n")
    older.server.password_file.unlink()
    if AS_ROOT:
        (tmp_path / "postgres").unlink()
        data.with_name(data.name + ".state-folder").unlink()
        shutil.move(data, tmp_path / "postgres")
    if running:
        if AS_ROOT:
            pytest.skip("the older server could only run where every folder is open")
        subprocess.Popen([older.server.programs / "postgres", "-D", data], cwd=data)
        while not (data / "postmaster.pid").exists() or "ready" not in (data / "postmaster.pid").read_text():
            time.sleep(0.05)
    postgres = Postgres(tmp_path, PostgresConfig(server=SMALL))
    try:
        with postgres.owner() as connection:
            assert connection.execute("SELECT value FROM headwater.kept").fetchone() == (7,)
        with postgres.serving("x") as connection:
            assert connection.execute("SELECT current_user").fetchone() == ("headwater_serving",)
        assert postgres.server
        assert (tmp_path / "postgres").is_symlink() == AS_ROOT
        assert "scram" in (postgres.server.data / "pg_hba.conf").read_text()
        assert not (tmp_path / "postgres.moving").exists()
    finally:
        postgres.remove()


@only_root
def test_a_moved_state_folder_keeps_its_data_and_a_copied_one_is_refused(tmp_path: Path) -> None:
    first, moved, copied = tmp_path / "first", tmp_path / "moved", tmp_path / "copied"
    postgres = Postgres(first, PostgresConfig(server=SMALL))
    with postgres.owner() as connection:
        connection.execute("CREATE TABLE headwater.kept AS SELECT 7 AS value")
    postgres.stop()
    first.rename(moved)
    postgres = Postgres(moved, PostgresConfig(server=SMALL))
    assert postgres.server
    assert postgres.server.data in abandoned_server_data()
    try:
        with postgres.owner() as connection:
            assert connection.execute("SELECT value FROM headwater.kept").fetchone() == (7,)
        assert postgres.server.data not in abandoned_server_data()
        postgres.stop()
        shutil.copytree(moved, copied, symlinks=True)
        with pytest.raises(EmbeddedServerError, match=f"a copy of {moved}.*remove {copied}"):
            EmbeddedServer(copied / "postgres", SMALL).start()
    finally:
        postgres.remove()
    assert not postgres.server.data.exists()


@only_root
def test_a_copied_state_folder_has_no_part_in_a_running_server(tmp_path: Path) -> None:
    """Also where the original was moved while its server ran."""
    first, moved, copied = tmp_path / "first", tmp_path / "moved", tmp_path / "copied"
    EmbeddedServer(first / "postgres", SMALL).start()
    first.rename(moved)
    original, copy = EmbeddedServer(moved / "postgres", SMALL), EmbeddedServer(copied / "postgres", SMALL)
    try:
        original.start()
        shutil.copytree(moved, copied, symlinks=True)
        assert not copy.running()
        for use in (copy.start, copy.stop, copy.remove):
            with pytest.raises(EmbeddedServerError, match=f"a copy of {moved}.*remove {copied}"):
                use()
        assert original.running()
        psycopg.connect(original.start()).close()
    finally:
        original.remove()


@only_root
@pytest.mark.parametrize("across_file_systems", [False, True])
@pytest.mark.parametrize("moved", [False, True])
def test_a_move_of_older_data_that_was_cut_off_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moved: bool, across_file_systems: bool
) -> None:
    """Cut off right before the data is in place, and right after."""
    older = EmbeddedServer(tmp_path / "postgres", SMALL)
    older.start()
    older.stop()
    data = older.data
    older.place.unlink()
    data.with_name(data.name + ".state-folder").unlink()
    shutil.copytree(data, older.place)  # root's
    shutil.rmtree(data)
    rename = Path.rename

    def cut_off(path: Path, target: Path) -> Path:
        if Path(target).parent != OUTSIDE_FOLDER:
            return rename(path, target)
        if across_file_systems and path.name == "postgres.moving":
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        if moved:
            rename(path, target)
        raise KeyboardInterrupt

    server = EmbeddedServer(tmp_path / "postgres", SMALL)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(Path, "rename", cut_off)
            with pytest.raises(KeyboardInterrupt):
                server.start()
        assert (server.data / "PG_VERSION").exists() == moved
        psycopg.connect(server.start()).close()
        assert not (tmp_path / "postgres.moving").exists()
    finally:
        server.remove()


@only_root
def test_programs_that_the_servers_user_can_not_reach_are_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from retrieval.store import embedded_server, server_data

    closed = tmp_path / "closed" / "site-packages"
    closed.mkdir(parents=True)
    closed.parent.chmod(0o700)
    package = server_data.installed_postgres_programs().parents[1]
    for folder in (package, package.with_name(package.name + ".libs")):
        if folder.exists():
            shutil.copytree(folder, closed / folder.name)
    monkeypatch.setattr(
        embedded_server, "installed_postgres_programs", lambda: closed / package.name / "pginstall18" / "bin"
    )
    outside = Path("/var/lib") / f"headwater-test-{os.getpid()}"
    monkeypatch.setattr(server_data, "OUTSIDE_FOLDER", outside)
    server = EmbeddedServer(tmp_path / "home" / "postgres", SMALL)
    try:
        psycopg.connect(server.start()).close()
        assert stat.S_IMODE(closed.parent.stat().st_mode) == 0o700
    finally:
        server.remove()
        shutil.rmtree(outside)


@only_root
def test_a_start_that_has_no_place_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from retrieval.store import server_data

    monkeypatch.setattr(server_data, "OUTSIDE_FOLDER", tmp_path / "nobody's" / "headwater")
    with pytest.raises(EmbeddedServerError, match="run as another user, or set HEADWATER_POSTGRES__URL"):
        EmbeddedServer(tmp_path / "home" / "postgres", SMALL).start()


def test_down_stops_the_server_where_it_runs(home: Path) -> None:
    with Postgres(home).owner():
        pass
    assert "postgres" in json.loads(headwater(home, "down", "--json"))["stopped"]
    assert not EmbeddedServer(home / "postgres", SMALL).running()
    assert not (server_data(home) / "postmaster.pid").exists()
