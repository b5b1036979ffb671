"""A real JDBC client reads the lake through the Thrift server and can not change it."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyspark
import pytest
from deltalake import DeltaTable, Schema, write_deltalake
from free_ports import free_ports

from assets.lake.tables import TABLES
from orchestration.environment.java import require_java
from orchestration.services.processes import (
    is_listening,
    start_process,
    stop_process_group,
    wait_until_healthy,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def lake(module_folder: Path) -> Path:
    root = module_folder / "lake"
    for name in ("gold.chunks", "silver.quarantine"):
        path = root / name.replace(".", "/")
        DeltaTable.create(path, schema=Schema.from_arrow(TABLES[name].schema))
    schema = TABLES["silver.quarantine"].schema
    rows = [{name: f"{name} {number}" for name in schema.names} for number in range(3)]
    write_deltalake(root / "silver/quarantine", pa.Table.from_pylist(rows, schema=schema), mode="append")
    return root


@pytest.fixture(scope="module")
def port(lake: Path) -> Iterator[int]:
    home = lake.parent
    [number] = free_ports(1)
    environment = os.environ | {"HEADWATER_HOME": str(home), "HEADWATER_THRIFT_PORT": str(number)}
    log, pid_file = home / "thrift.log", home / "thrift.pid"
    started = start_process([sys.executable, "-m", "orchestration.services.jdbc"], pid_file, log, environment)
    try:
        wait_until_healthy(lambda: is_listening(number), started, log, timeout_s=180)
        yield number
    finally:
        stop_process_group(pid_file)


def beeline(port: int, *statements: str) -> subprocess.CompletedProcess[str]:
    command = [
        str(require_java().program), "-cp", f"{Path(pyspark.__path__[0])}/jars/*",
        "org.apache.hive.beeline.BeeLine", "-u", f"jdbc:hive2://127.0.0.1:{port}/", "--silent=true",
        "--force=true", "--outputformat=csv2", "--showHeader=false",
    ]  # fmt: skip
    for statement in statements:
        command += ["-e", statement]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_tables_are_there_by_name_and_version(port: int) -> None:
    done = beeline(
        port,
        "SELECT stage, doc_id FROM silver.quarantine ORDER BY stage",
        "SELECT count(*) FROM silver.quarantine VERSION AS OF 0",
        "SHOW TABLES IN gold",
    )
    assert done.returncode == 0
    lines = [re.sub(r"^\d: jdbc:\S+> ", "", line) for line in done.stdout.splitlines()]
    assert [line for line in lines if line.strip()] == [
        "stage 0,doc_id 0",
        "stage 1,doc_id 1",
        "stage 2,doc_id 2",
        "0",
        "gold,chunks,false",
    ]


def test_nothing_in_the_lake_can_be_changed(port: int, lake: Path) -> None:
    if "nowhere else" not in (lake.parent / "thrift.log").read_text():
        pytest.skip("this system has no Landlock")
    before = {path: path.stat().st_mtime_ns for path in lake.rglob("*")}
    forbidden = (
        "DELETE FROM silver.quarantine",
        "INSERT INTO silver.quarantine SELECT * FROM silver.quarantine",
        f"UPDATE delta.`{lake}/silver/quarantine` SET stage = 'changed'",
        "ALTER TABLE silver.quarantine SET TBLPROPERTIES ('delta.appendOnly' = 'true')",
        f"INSERT OVERWRITE DIRECTORY '{lake}/gold' USING parquet SELECT 1",
    )
    # Dropping is of the server's own catalog: the table stays, and comes back by itself.
    done = beeline(port, *forbidden, "DROP TABLE silver.quarantine")
    assert len(re.findall(r"^Error: ", done.stderr, re.MULTILINE)) == len(forbidden), done.stderr
    assert {path: path.stat().st_mtime_ns for path in lake.rglob("*")} == before


def test_writes_are_restricted_to_the_folders_named(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "file").write_text("kept")
    script = """
import sys
from pathlib import Path
from orchestration.services.landlock import restrict_process_files
mine, theirs = Path(sys.argv[1]), Path(sys.argv[2])
if not restrict_process_files([mine, Path("/dev/null")]):
    sys.exit(3)
(mine / "new").write_text("x")
(mine / "new").rename(mine / "newer")
Path("/dev/null").write_text("x")
assert (theirs / "file").read_text() == "kept"
refused = 0
for change in (
    lambda: (theirs / "new").write_text("x"),
    lambda: (theirs / "file").write_text("x"),
    lambda: (theirs / "file").unlink(),
    lambda: (theirs / "file").rename(mine / "file"),
    lambda: (theirs / "folder").mkdir(),
):
    try:
        change()
    except OSError:
        refused += 1
sys.exit(0 if refused == 5 else 4)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "mine"), str(tmp_path / "theirs")],
        cwd=Path(__file__).parents[2],
    )
    if done.returncode == 3:
        pytest.skip("this system has no Landlock")
    assert done.returncode == 0
