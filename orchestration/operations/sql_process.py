"""Runs one query over the lake in a process of its own, within bounds of time and memory."""

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from assets.lake.commits import LINEAGE_SCHEMA, lineage_table
from assets.lake.spark import REVEALED
from orchestration.environment.spark_guard import require_spark_guard
from orchestration.operations.sql import InvalidSqlStatement, SqlStatementRefused
from orchestration.operations.sql_worker import ERROR, LINEAGE, LOG, ROWS, SqlError, SqlRequest
from orchestration.services.confinement import confined_environment
from orchestration.settings import Settings, open_configured_lake

_WORKER_MODULE = "orchestration.operations.sql_worker"
_LOG_BYTES = 2000


class SqlTimeout(RuntimeError):
    """The query took too long and was stopped."""


def run_sql_query(settings: Settings, statement: str, engine: Literal["duckdb", "spark"]) -> pa.Table:
    """Answers one query over the lake.

    Args:
        settings: The settings of the state folder.
        statement: One SELECT, DESCRIBE, SHOW or EXPLAIN; `layer.table@N` is a table as of version N.
        engine: What answers it.

    Raises:
        SqlStatementRefused: It would write, or is more than one statement.
        InvalidSqlStatement: It can not be answered as it is written, or takes too much memory.
        SqlTimeout: It took longer than `HEADWATER_SQL__TIMEOUT_S`.
        NoSparkSession: Spark's guard is not in the environment.
    """
    lake = open_configured_lake(
        settings
    )  # brings an older state folder up to date, which the other process may not
    if engine == "spark":
        require_spark_guard()
    limits = settings.sql
    request = SqlRequest(
        lake_root=lake.root,
        engine=engine,
        statement=statement,
        memory_bytes=limits.memory_bytes,
        spark=settings.spark.model_copy(update={"driver_memory": limits.memory}),
    )
    with _scratch_folder(settings.home / "sql") as (scratch, lock):
        named = "ops.lineage" in statement.lower()
        lineage = lineage_table(lake) if named else LINEAGE_SCHEMA.empty_table()
        pq.write_table(lineage, scratch / LINEAGE)
        status = _run(request, scratch, lock, limits.timeout_s)
        return _outcome(scratch, status, limits.memory)


@contextlib.contextmanager
def _scratch_folder(folder: Path) -> Iterator[tuple[Path, int]]:
    """Makes a folder for one query, after removing those of commands that were killed.

    A lock tells whether a folder is in use. Unlike a pid, the kernel lets go of it, it means the same in
    every container that shares the state folder, and the worker inherits it. It is beside the folder, where
    the worker may not write.

    Yields:
        The folder, and the open file of its lock.
    """
    folder.mkdir(exist_ok=True)
    with contextlib.ExitStack() as stack:
        with (folder / "sweep.lock").open("w") as sweep:  # a folder that is not locked yet looks left behind
            fcntl.flock(sweep, fcntl.LOCK_EX)
            _remove_abandoned(folder)
            made = tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True)
            scratch = Path(stack.enter_context(made))
            lock = stack.enter_context(_lock_file(scratch).open("w"))
            stack.callback(_lock_file(scratch).unlink)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield scratch, lock.fileno()


def _remove_abandoned(folder: Path) -> None:
    for left in folder.iterdir():
        if left.is_dir():
            with _lock_file(left).open("w") as lock, contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
                _lock_file(left).unlink()


def _lock_file(scratch: Path) -> Path:
    return scratch.with_name(scratch.name + ".lock")


def _run(request: SqlRequest, scratch: Path, lock: int, timeout_s: float) -> int:
    """Runs the worker to its end and returns its exit status; nothing that it started stays."""
    with (scratch / LOG).open("wb") as log:
        worker = subprocess.Popen(
            [sys.executable, "-P", "-m", _WORKER_MODULE],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            cwd=scratch,
            env=confined_environment(scratch),
            start_new_session=True,  # an interrupt at the terminal is ours to handle
            pass_fds=[lock],
        )
    assert worker.stdin is not None  # noqa: S101 - it is a pipe
    try:
        with contextlib.suppress(BrokenPipeError):  # it ended already; its status says how
            worker.stdin.write(request.model_dump_json(context=REVEALED).encode() + b"\n")
            worker.stdin.flush()
        return worker.wait(timeout_s)
    except subprocess.TimeoutExpired as error:
        raise SqlTimeout(
            f"the query had not finished after {timeout_s:g} s and was stopped: narrow it, or raise "
            "HEADWATER_SQL__TIMEOUT_S"
        ) from error
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
        with contextlib.suppress(BrokenPipeError):
            worker.stdin.close()


def _outcome(scratch: Path, status: int, memory: str) -> pa.Table:
    if (scratch / ERROR).is_file():
        error = SqlError.model_validate_json((scratch / ERROR).read_bytes())
        raise (SqlStatementRefused if error.kind == "refused" else InvalidSqlStatement)(error.message)
    if status != 0:
        said = (scratch / LOG).read_text(encoding="utf-8", errors="replace")[-_LOG_BYTES:].strip()
        how = signal.Signals(-status).name if status < 0 else f"status {status}"
        raise InvalidSqlStatement(
            f"the process of the query ended ({how}), perhaps for want of memory: HEADWATER_SQL__MEMORY is "
            f"{memory}. It said last:\n{said}"
        )
    with pa.OSFile(str(scratch / ROWS)) as file:
        return pa.ipc.open_stream(file).read_all()
