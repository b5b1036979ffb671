"""Runs the command line and acts at one of its effects: its writes to tables of the lake and to PostgreSQL.

    python effects.py record FILE ARGUMENTS…              writes the names of the effects to a file, in order
    python effects.py ACTION WHICH MOMENT ARGUMENTS…      acts at one effect

ACTION is `kill` (SIGKILL to this process), `stop` (SIGSTOP to this process), `server` (SIGKILL to the
embedded PostgreSQL), `jvm` (SIGKILL to Spark's JVM) or `full` (the state folder's disk is filled but for
EFFECTS_LEAVE bytes).

WHICH is the number of an effect, or a part of a name for the first effect of that name. MOMENT is `before`,
`inside` or `after`. Inside means: the new files of a table are written and the commit is not; a statement is
sent and not answered; half of a piece of a COPY is written.

With EFFECTS_SPARK, Spark does all writing. With EFFECTS_QUERIES, statements that only read are effects too.

The product does not know this file, which wraps calls of the libraries.
"""

import errno
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

_INITDB_S = 0.2
"""The delay of an action inside initdb, which takes about a second."""

_lock = threading.Lock()
_seen = 0


def home() -> Path:
    return Path(os.environ["HEADWATER_HOME"]).resolve()


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def kill_server() -> None:
    os.kill(int((home() / "postgres" / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)


def kill_jvm() -> None:
    import psutil

    for child in psutil.Process().children(recursive=True):
        if child.name() == "java":
            child.kill()


def fill_disk() -> None:
    size = 1 << 20
    with (home() / "ballast").open("wb", buffering=0) as file:
        while size:
            try:
                file.write(bytes(size))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                size //= 2
        left = int(os.environ.get("EFFECTS_LEAVE", "0"))
        file.truncate(file.tell() - left)


ACTIONS = {"kill": kill, "stop": stop, "server": kill_server, "jvm": kill_jvm, "full": fill_disk}


class Watch:
    """Called at each effect: records its name, or acts if it is the chosen one."""

    def __init__(self, arguments: list[str]) -> None:
        self.file: Path | None = None
        self.which, self.moment = "", ""
        if arguments[0] == "record":
            self.file, self.command = Path(arguments[1]), arguments[2:]
            self.file.write_text("")
        else:
            self.act = ACTIONS[arguments[0]]
            self.which, self.moment, self.command = arguments[1], arguments[2], arguments[3:]

    def __call__(self, name: str, call: Callable[[], Any], inside: Callable[[Callable[[], Any]], Any]) -> Any:
        global _seen
        with _lock:
            number, _seen = _seen, _seen + 1
            if self.file:
                with self.file.open("a") as file:
                    file.write(f"{name}\n")
        if not self.which or (int(self.which) != number if self.which.isdigit() else self.which not in name):
            return call()
        self.which = ""  # once
        sys.stderr.write(f"effect: {name}\n")
        sys.stderr.flush()
        if self.moment == "inside":
            return inside(self.act)
        if self.moment == "before":
            self.act()
        result = call()
        if self.moment == "after":
            self.act()
        return result


def wrap(
    owner: Any,
    method: str,
    watch: Watch,
    name: Callable[..., str | None],
    inside: Callable[..., Any],
) -> None:
    """Wraps a method so that the watch is called for each call that `name` returns a name for.

    `inside` is called with the action, the original method, and the arguments of the call.
    """
    original = getattr(owner, method)

    @wraps(original)
    def watched(*args: Any, **kwargs: Any) -> Any:
        called = name(*args, **kwargs)
        if called is None:
            return original(*args, **kwargs)
        return watch(
            called,
            lambda: original(*args, **kwargs),
            lambda act: inside(act, original, *args, **kwargs),
        )

    setattr(owner, method, watched)


# Tables.

_merged_by_spark = ""


def table(path: str) -> str:
    return "/".join(path.rstrip("/").split("/")[-2:])


def once_files_are_there(
    path_of: Callable[..., str], act: Callable[[], Any], original: Any, *args: Any, **kwargs: Any
) -> Any:
    """Acts when the call has written a file of a table outside its log, which is before the commit."""
    folder = Path(path_of(*args, **kwargs).removeprefix("file://"))

    def files() -> set[Path]:
        return {path for path in folder.rglob("*") if "_delta_log" not in path.parts and path.is_file()}

    before, ended = files(), threading.Event()

    def look() -> None:
        while not ended.is_set():
            if files() - before:
                act()
                return
            time.sleep(0.0005)

    threading.Thread(target=look, daemon=True).start()
    result = original(*args, **kwargs)
    ended.set()
    act()  # the commit has no files: act after it
    return result


def half_way(delay_s: float) -> Callable[..., Any]:
    def inside(act: Callable[[], Any], original: Any, *args: Any, **kwargs: Any) -> Any:
        threading.Timer(delay_s, act).start()
        return original(*args, **kwargs)

    return inside


# PostgreSQL.

_wrote: set[int] = set()
_sent: Callable[[], Any] | None = None
_WRITES = re.compile(
    r"\s*(INSERT|UPDATE|DELETE|CREATE|ALTER|DROP|COPY|VACUUM|ANALYZE|MERGE|TRUNCATE|WITH now_closed)\b", re.I
)


def statement(cursor: Any, query: Any, *_: Any, **__: Any) -> str | None:
    if isinstance(query, bytes):
        query = query.decode()
    text = query if isinstance(query, str) else query.as_string(cursor)
    words = " ".join(line for line in text.split("\n") if not line.startswith("--"))
    words = " ".join(words.split()).replace('"', "")
    if not _WRITES.match(words):
        return f"query {words[:2000]}" if os.environ.get("EFFECTS_QUERIES") else None
    _wrote.add(id(cursor.connection))
    return f"sql {words[:70]}"


def once_sent(act: Callable[[], Any], original: Any, *args: Any, **kwargs: Any) -> Any:
    global _sent
    _sent = act
    return original(*args, **kwargs)


def commit(connection: Any) -> str | None:
    """Returns the name of a commit, if the connection has written."""
    if id(connection) not in _wrote:
        return None
    _wrote.discard(id(connection))
    return "sql commit"


def once_commit_is_sent(act: Callable[[], Any], _: Any, connection: Any) -> None:
    steps = connection._commit_gen()
    next(steps)  # sends the commit, up to the point where psycopg waits for the answer
    act()
    connection.rollback()


def half_a_piece(act: Callable[[], Any], original: Any, copy: Any, piece: Any) -> Any:
    piece = memoryview(piece)
    original(copy, piece[: len(piece) // 2])
    act()
    return original(copy, piece[len(piece) // 2 :])


def install(watch: Watch) -> None:
    import delta.tables
    import deltalake.table
    import psycopg
    from pyspark.sql.readwriter import DataFrameWriter

    import assets.lake.lake
    import retrieval.store.embedded_server

    if os.environ.get("EFFECTS_SPARK"):
        from spark_only import LIMITS

        for module, name, value in LIMITS:
            setattr(module, name, value)

    def files(path_of: Callable[..., str]) -> Callable[..., Any]:
        return lambda *args, **kwargs: once_files_are_there(path_of, *args, **kwargs)

    wrap(
        assets.lake.lake, "write_deltalake", watch,
        lambda target, *_, **__: f"append {table(target.table_uri)}",
        files(lambda target, *_, **__: target.table_uri),
    )  # fmt: skip
    wrap(
        deltalake.table.TableMerger, "execute", watch,
        lambda merger: f"merge {table(merger._table.table_uri())}",
        files(lambda merger: merger._table.table_uri()),
    )  # fmt: skip
    wrap(
        DataFrameWriter, "save", watch,
        lambda _, path=None, **__: f"spark append {table(str(path))}",
        files(lambda _, path=None, **__: str(path)),
    )  # fmt: skip

    found = delta.tables.DeltaTable.forPath

    def for_path(spark: Any, path: str, *args: Any) -> Any:
        global _merged_by_spark
        _merged_by_spark = path
        return found(spark, path, *args)

    delta.tables.DeltaTable.forPath = for_path
    wrap(
        delta.tables.DeltaMergeBuilder, "execute", watch,
        lambda _: f"spark merge {table(_merged_by_spark)}",
        files(lambda _: _merged_by_spark),
    )  # fmt: skip

    wrap(
        retrieval.store.embedded_server.EmbeddedServer,
        "_initdb",
        watch,
        lambda *_: "initdb",
        half_way(_INITDB_S),
    )
    wrap(psycopg.Cursor, "execute", watch, statement, once_sent)
    wrap(psycopg.Copy, "write", watch, lambda *_: "copy a piece", half_a_piece)
    wrap(psycopg.Connection, "commit", watch, commit, once_commit_is_sent)

    send = psycopg.Cursor._execute_send

    def sent(*args: Any, **kwargs: Any) -> None:
        global _sent
        send(*args, **kwargs)
        if _sent is not None:
            act, _sent = _sent, None
            act()

    psycopg.Cursor._execute_send = sent  # type: ignore[method-assign]


def headwater(arguments: list[str]) -> None:
    """Runs the command line, watched if the first argument is `record` or an action."""
    if arguments[0] in ("record", *ACTIONS):
        watch = Watch(arguments)
        install(watch)
        arguments = watch.command
    from orchestration.cli.main import main

    sys.argv = ["headwater", *arguments]
    main()


if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[at]) for at in (2, 1)]
    headwater(sys.argv[1:])
