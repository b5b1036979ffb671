"""Runs one query over the lake in a process of its own, within bounds of time and memory."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from assets.lake.commits import LINEAGE_SCHEMA, lineage_table
from orchestration.operations.sql import InvalidSqlStatement, SqlStatementRefused
from orchestration.operations.sql_worker import ERROR, LINEAGE, LOG, ROWS, SqlError, SqlRequest
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
    """
    lake = open_configured_lake(
        settings
    )  # brings an older state folder up to date, which the other process may not
    limits = settings.sql
    request = SqlRequest(
        lake_root=lake.root,
        engine=engine,
        statement=statement,
        memory_bytes=limits.memory_bytes,
        spark=settings.spark.model_copy(update={"driver_memory": limits.memory}),
    )
    folder = settings.home / "sql"
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as scratch:
        named = "ops.lineage" in statement.lower()
        lineage = lineage_table(lake) if named else LINEAGE_SCHEMA.empty_table()
        pq.write_table(lineage, Path(scratch) / LINEAGE)
        status = _run(request, Path(scratch), limits.timeout_s)
        return _outcome(Path(scratch), status, limits.memory)


def _run(request: SqlRequest, scratch: Path, timeout_s: float) -> int:
    """Runs the worker to its end and returns its exit status; nothing that it started stays."""
    with (scratch / LOG).open("wb") as log:
        worker = subprocess.Popen(
            [sys.executable, "-P", "-m", _WORKER_MODULE],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            cwd=scratch,
            env=_environment(scratch),
            start_new_session=True,  # an interrupt at the terminal is ours to handle
        )
    assert worker.stdin is not None  # noqa: S101 - it is a pipe
    try:
        with contextlib.suppress(BrokenPipeError):  # it ended already; its status says how
            worker.stdin.write(request.model_dump_json().encode() + b"\n")
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


def _environment(scratch: Path) -> dict[str, str]:
    """Returns the worker's environment: without our settings, which hold secrets."""
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith("HEADWATER_")}
    options = f'-Djava.io.tmpdir="{scratch}" -XX:-UsePerfData'
    return kept | {
        "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path),
        "TMPDIR": str(scratch),
        "SPARK_LOCAL_DIRS": str(scratch),
        "JDK_JAVA_OPTIONS": f"{kept.get('JDK_JAVA_OPTIONS', '')} {options}".strip(),
    }


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
