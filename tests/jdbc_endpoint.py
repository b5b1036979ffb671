"""A lake with a few rows, and its JDBC endpoint."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from deltalake import write_deltalake
from free_ports import free_ports

from assets.lake.audits import record_audit
from assets.lake.lake import Lake
from assets.lake.tables import TABLES
from orchestration.services.processes import (
    start_process,
    stop_process_group,
    wait_until_healthy,
)
from orchestration.services.supervision.questions import port_answers
from orchestration.settings import Settings, open_configured_lake

PLANTED = "planted-secret-of-an-object-store"


@dataclass(frozen=True)
class Endpoint:
    """A running endpoint; `pid` is that of the process that its pid file names."""

    home: Path
    lake: Lake
    port: int
    pid: int
    log: Path


@contextmanager
def running_endpoint(folder: Path) -> Iterator[Endpoint]:
    """Serves a lake with three rows in `silver.quarantine` and one in `ops.audits`."""
    home = folder / "state of it's lake"  # characters that SQL must quote
    home.mkdir(mode=0o700)
    lake = open_configured_lake(Settings(home=home))
    lake.ensure()
    record_audit(lake, "gold.chunks", 0, passed=True, failed=[], run_id="r")
    schema = TABLES["silver.quarantine"].schema
    rows = [{name: f"{name} {number}" for name in schema.names} for number in range(3)]
    path = lake.path("silver.quarantine")
    write_deltalake(path, pa.Table.from_pylist(rows, schema=schema), mode="append")
    [port] = free_ports(1)
    environment = os.environ | {
        "HEADWATER_HOME": str(home),
        "HEADWATER_THRIFT_PORT": str(port),
        "HEADWATER_SPARK__CONF": f'{{"spark.hadoop.fs.s3a.secret.key": "{PLANTED}"}}',
    }
    log, pid_file = folder / "thrift.log", folder / "thrift.pid"
    started = start_process([sys.executable, "-m", "orchestration.services.jdbc"], pid_file, log, environment)
    try:
        wait_until_healthy(lambda: port_answers(port, 5), started, log, timeout_s=180)
        yield Endpoint(home, lake, port, started.pid, log)
    finally:
        stop_process_group(pid_file)
