"""Runs the command line and counts its effects: every write to a table of the lake or to PostgreSQL.

    python effects.py record FILE ARGUMENTS…           writes the effects' names to a file, in order
    python effects.py kill WHICH MOMENT ARGUMENTS…     dies by SIGKILL before, during or after one of them

WHICH is an effect's number, or a part of its name for the first of that name.

Nothing of the product knows of this file: it wraps the libraries' own calls.
"""

import os
import re
import signal
import sys
import threading
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

# About the middle of a small write here.
_DURING_S = 0.02

_lock = threading.Lock()
_seen = 0


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Watch:
    """What to do at each effect: write its name down, or die at one."""

    def __init__(self, arguments: list[str]) -> None:
        self.file: Path | None = None
        self.which, self.moment = "", ""
        if arguments[0] == "record":
            self.file, self.command = Path(arguments[1]), arguments[2:]
            self.file.write_text("")
        else:
            self.which, self.moment, self.command = arguments[1], arguments[2], arguments[3:]

    def __call__(self, name: str, call: Callable[[], Any]) -> Any:
        global _seen
        with _lock:
            number, _seen = _seen, _seen + 1
            if self.file:
                with self.file.open("a") as file:
                    file.write(f"{name}\n")
        if not self.which or (int(self.which) != number if self.which.isdigit() else self.which not in name):
            return call()
        if self.moment == "before":
            die()
        if self.moment == "during":
            threading.Timer(_DURING_S, die).start()
        result = call()
        die()
        return result


def table(path: str) -> str:
    return "/".join(path.rstrip("/").split("/")[-2:])


_wrote: set[int] = set()
_WRITES = re.compile(
    r"\s*(INSERT|UPDATE|DELETE|CREATE|ALTER|DROP|COPY|VACUUM|ANALYZE|MERGE|TRUNCATE)\b", re.I
)


def wrap(owner: Any, method: str, watch: Watch, name: Callable[..., str | None]) -> None:
    """Puts the watch around a method, for calls that have a name."""
    original = getattr(owner, method)

    @wraps(original)
    def watched(*args: Any, **kwargs: Any) -> Any:
        called = name(*args, **kwargs)
        return (
            original(*args, **kwargs) if called is None else watch(called, lambda: original(*args, **kwargs))
        )

    setattr(owner, method, watched)


def statement(cursor: Any, query: Any, *_: Any, **__: Any) -> str | None:
    if isinstance(query, bytes):
        query = query.decode()
    text = query if isinstance(query, str) else query.as_string(cursor)
    words = " ".join(text.split())
    if not _WRITES.match(words) and "swap_live(" not in words:
        return None
    _wrote.add(id(cursor.connection))
    return f"sql {words[:60]}"


def commit(connection: Any) -> str | None:
    """A commit of a connection that wrote."""
    if id(connection) not in _wrote:
        return None
    _wrote.discard(id(connection))
    return "sql commit"


def install(watch: Watch) -> None:
    import deltalake.table
    import psycopg
    from pyspark.sql.readwriter import DataFrameWriter

    import assets.lake

    wrap(assets.lake, "write_deltalake", watch, lambda path, *_, **__: f"append {table(str(path))}")
    wrap(
        deltalake.table.TableMerger, "execute", watch,
        lambda merger: f"merge {table(merger._table.table_uri())}",
    )  # fmt: skip
    wrap(DataFrameWriter, "save", watch, lambda _, path=None, **__: f"spark append {table(str(path))}")
    wrap(psycopg.Cursor, "execute", watch, statement)
    wrap(psycopg.Copy, "write", watch, lambda *_: "copy a piece")
    wrap(psycopg.Connection, "commit", watch, commit)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    watch = Watch(sys.argv[1:])
    install(watch)
    from orchestration.cli import main

    sys.argv = ["headwater", *watch.command]
    main()
