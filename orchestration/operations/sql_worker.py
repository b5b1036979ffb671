"""The process that answers one query: `python -P -m orchestration.operations.sql_worker`.

It reads a `SqlRequest` in JSON from standard input, gives up the right to all files but those it needs, and
writes the rows or the error into its scratch folder. It ends with its standard input, whatever it is doing.
"""

import contextlib
import os
import resource
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel

from assets.lake.spark import SparkConfig
from orchestration.services.confinement import program_files
from orchestration.services.landlock import restrict_process_files

if TYPE_CHECKING:
    import pyarrow as pa

LINEAGE, ROWS, ERROR, LOG = "lineage.parquet", "rows.arrow", "error.json", "log.txt"
"""Files of the scratch folder: `ops.lineage`, what was found, what was wrong, and what libraries said."""

_OVERHEAD_BYTES = 1 << 30
"""What the interpreter, its libraries and one batch of rows may take beside the engine's own memory."""


class SqlRequest(BaseModel):
    """The query that the worker answers, as JSON on its standard input."""

    lake_root: str
    engine: Literal["duckdb", "spark"]
    statement: str
    memory_bytes: int
    spark: SparkConfig


class SqlError(BaseModel):
    """The error that ended a query."""

    kind: Literal["refused", "invalid"]
    message: str


def run_sql_worker() -> None:
    """Runs the worker: answers the request on standard input."""
    request = SqlRequest.model_validate_json(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    scratch = Path.cwd()
    local = "://" not in request.lake_root
    confined = restrict_process_files(
        [scratch, Path("/dev/null")], [Path(request.lake_root), *program_files()] if local else None
    )
    if request.engine == "duckdb":
        with contextlib.suppress(ValueError, OSError):  # macOS has no such bound
            most = request.memory_bytes + _OVERHEAD_BYTES
            resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    error = _answer(request, scratch, confined)
    if error is not None:
        (scratch / ERROR).write_text(error.model_dump_json(), encoding="utf-8")
    sys.stdout.flush()
    os._exit(0)  # the end of a JVM or a thread need not be waited for


def _answer(request: SqlRequest, scratch: Path, confined: bool) -> SqlError | None:
    import duckdb
    import pyarrow.parquet as pq

    from assets.lake.commits import LINEAGE_SCHEMA
    from assets.lake.lake import Lake
    from orchestration.operations.sql import (
        InvalidSqlStatement,
        SqlStatementRefused,
        explain_sql_error,
        query_with_duckdb,
        query_with_spark,
    )

    lineage = pq.read_table(scratch / LINEAGE, schema=LINEAGE_SCHEMA)
    lake = Lake(request.lake_root, request.spark, scratch / "spark", scratch)
    try:
        try:
            if request.engine == "spark":
                _keep_rows(query_with_spark(lake, request.statement, lineage).to_reader(), scratch, request)
            else:
                spill = scratch / "spill"
                spill.mkdir()
                found = query_with_duckdb(
                    lake, request.statement, lineage, request.memory_bytes, spill, confined
                )
                _keep_rows(found, scratch, request)
        except (duckdb.Error, OSError) as error:
            raise explain_sql_error(error, request.statement) from error
        except KeyError as error:  # a table that the lake has lost
            raise InvalidSqlStatement(str(error.args[0])) from error
        except MemoryError as error:
            raise InvalidSqlStatement("the query took more memory than HEADWATER_SQL__MEMORY") from error
    except SqlStatementRefused as error:
        return SqlError(kind="refused", message=str(error))
    except InvalidSqlStatement as error:
        return SqlError(kind="invalid", message=str(error))
    return None


def _keep_rows(found: "pa.RecordBatchReader", scratch: Path, request: SqlRequest) -> None:
    """Writes the rows where the parent looks for them, as far as it may hold them in memory."""
    import pyarrow as pa

    from orchestration.operations.sql import InvalidSqlStatement

    size_bytes = 0
    with pa.OSFile(str(scratch / ROWS), "wb") as file, pa.ipc.new_stream(file, found.schema) as rows:
        for batch in found:
            size_bytes += batch.nbytes
            if size_bytes > request.memory_bytes:
                raise InvalidSqlStatement(
                    f"the answer is larger than {request.memory_bytes >> 20:,} MiB: name fewer columns, add "
                    "a LIMIT, or raise HEADWATER_SQL__MEMORY"
                )
            rows.write_batch(batch)


def _end_with_parent() -> None:
    """Ends this process and its JVM when the other end of standard input is closed."""
    sys.stdin.buffer.read()
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    run_sql_worker()
