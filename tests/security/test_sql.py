"""`headwater sql` reads, whatever a statement says, within bounds of time and memory."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import duckdb
import pytest
from forked_commands import run_forked
from pyspark.errors import ParseException
from pyspark.sql import SparkSession

from assets.lake.audits import record_audit
from assets.lake.commits import LINEAGE_SCHEMA
from assets.lake.lake import Lake
from assets.lake.tables import TABLES
from orchestration.environment.spark_plan import SqlPlanRefused, checked_sql_frame
from orchestration.operations.sql import (
    InvalidSqlStatement,
    SqlStatementRefused,
    explain_sql_error,
    query_with_duckdb,
    query_with_spark,
)
from orchestration.settings import Settings, open_configured_lake

HEADWATER = str(Path(sys.executable).parent / "headwater")
COUNT = "select count(*) as n from ops.audits"


def sql(home: Path, statement: str, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    surroundings = os.environ | {"HEADWATER_HOME": str(home)} | environment
    return run_forked(["sql", statement, *options], surroundings, timeout_s=240)


def refused(done: subprocess.CompletedProcess[str], *said: str) -> None:
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    for words in said:
        assert words in done.stderr, done.stderr


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def lake(module_folder: Path) -> Lake:
    """A lake with one row in `ops.audits`."""
    opened = open_configured_lake(Settings(home=module_folder / "state"))
    opened.ensure()
    record_audit(opened, "gold.chunks", 0, passed=True, failed=[], run_id="r")
    return opened


@pytest.fixture(scope="module")
def home(lake: Lake) -> Path:
    return Path(lake.root).parent


def writes(lake: Lake, folder: Path) -> list[str]:
    data = Path(lake.delta("ops.audits").file_uris()[0])
    into = [data, data.with_name("more.parquet"), Path(lake.root).parent / "sources.json", folder / "out.csv"]
    return [f"explain analyze copy (select 1 as a) to '{path}' (format csv)" for path in into]


def test_duckdb_writes_no_file(lake: Lake, home: Path, module_folder: Path) -> None:
    before = contents(Path(lake.root))
    for statement in writes(lake, module_folder):
        refused(sql(home, statement), "the lake is read-only")
    assert contents(Path(lake.root)) == before
    assert not (home / "sources.json").exists()
    assert not (module_folder / "out.csv").exists()
    assert json.loads(sql(home, COUNT, "--json").stdout) == [{"n": 1}]
    for engine in ("duckdb", "spark"):
        shown = json.loads(sql(home, "SHOW TABLES;", "--engine", engine, "--json").stdout)
        assert [each["name"] for each in shown] == sorted([*TABLES, "ops.lineage"])


def answer(lake: Lake, statement: str, scratch: Path) -> list[dict[str, object]]:
    """The rows of a query, in this process and without the system's bounds."""
    try:
        found = query_with_duckdb(
            lake, statement, LINEAGE_SCHEMA.empty_table(), 1 << 30, scratch, confined=False
        )
        return found.read_all().to_pylist()
    except duckdb.Error as error:
        raise explain_sql_error(error, statement) from error


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("select * from gold.nothing", r"no table gold\.nothing\nTables: bronze\.raw_documents"),
        ("select * from chunks", r"no table chunks; did you mean gold\.chunks\?"),
        ("select * from gold.chunk", r"no table gold\.chunk; did you mean gold\.chunks\?"),
        ("select * from documents@3", r"syntax error at or near \"@\"\n.*documents@3\n {25}\^"),
        ("select * from ops.audits@99", r"ops\.audits has no version 99: the newest is \d$"),
        (
            "select * from ops.audits@99999999999999999999",
            r"ops\.audits has no version 9+: the newest is \d$",
        ),
        (
            "select * from ops.audits@-1",
            r"audits@-1 names no version: .* 0 to \d, such as ops\.audits@\d$",
        ),
        ("select * from ops.audits@newest", "audits@newest names no version"),
        ("select * from gold.nothing@0", r"no table gold\.nothing"),
        ("select * from ops.lineage@0", "has no versions"),
        ("select runid from ops.audits@0", r"no column runid; did you mean run_id\?\n.*describe ops\.audits"),
        ('select * from ops.audits where run_id = "r"', r"no column r\W.*in single quotes: 'r'"),
        ("select a.what from ops.audits a", r"no column what\n.*describe ops\.audits"),
        ("select * from ops.audits join gold.chunks using (x)", "no column x\n"),
        ("select status from ops.audits", r"no column status\n.*describe ops\.audits"),
        ("select rond(1)", r"^Scalar Function with name rond does not exist; did you mean round\?$"),
        ("selec 1", r'^syntax error at or near "selec"\n  selec 1\n  \^+$'),
        (
            "select * from ops.audits@0 where",
            r'^syntax error at or near "where"\n  .*audits@0 where\n {29}\^+$',
        ),
        ("select passed from ops.audits\ngroup by run_id", "^column .* must appear in the GROUP BY"),
        ("select cast('x' as int)", r"^Could not convert string 'x' to INT32\n  select"),
        ("", "the query is empty"),
    ],
)
def test_a_wrong_statement_is_told_what_is_wrong_where_and_what_helps(
    lake: Lake, statement: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidSqlStatement, match=said) as caught:
        answer(lake, statement, tmp_path)
    for inner in ("Error:", "LINE 1", "$", "source_"):
        assert inner not in str(caught.value)


def test_a_version_is_read_by_its_number(lake: Lake, tmp_path: Path) -> None:
    newest = lake.version("ops.audits")
    counts = f"select count(*) as n, min(ops.audits@{newest}.run_id) as r from ops.audits@{newest}"
    assert answer(lake, counts, tmp_path) == [{"n": 1, "r": "r"}]
    both = "select (select count(*) from OPS.audits@0) as earlier, count(*) as now from ops.Audits"
    assert answer(lake, both, tmp_path) == [{"earlier": 0, "now": 1}]
    assert answer(lake, "select 'ops.audits@9' as text -- gold.chunks@9", tmp_path) == [
        {"text": "ops.audits@9"}
    ]


def test_duckdb_writes_no_file_where_the_system_does_not_keep_it_from_it(lake: Lake, tmp_path: Path) -> None:
    before = contents(Path(lake.root))
    for statement in writes(lake, tmp_path):
        with pytest.raises((SqlStatementRefused, InvalidSqlStatement), match="read"):
            answer(lake, statement, tmp_path / "spill")
    assert contents(Path(lake.root)) == before
    assert answer(lake, COUNT, tmp_path) == [{"n": 1}]
    assert answer(lake, f"{COUNT} where passed and run_id = 'r'", tmp_path) == [{"n": 1}]


def test_the_worker_reads_the_lake_and_no_other_file_of_the_state_folder(lake: Lake, home: Path) -> None:
    """What Landlock allows, without DuckDB's own rules."""
    secret, probe = home / "secret", home / "sql" / "probe"
    secret.write_text("s")
    probe.mkdir(parents=True, exist_ok=True)
    script = f"""
import pathlib, sys
from orchestration.services.confinement import program_files
from orchestration.services.landlock import restrict_process_files
scratch = pathlib.Path({str(probe)!r})
if not restrict_process_files([scratch], [pathlib.Path({lake.root!r}), *program_files()]):
    sys.exit(9)
def tried(action):
    try:
        action()
        return "yes"
    except PermissionError:
        return "no"
data = next(pathlib.Path({lake.root!r}).rglob("*.parquet"))
print(
    tried(data.read_bytes),
    tried((scratch / "new").touch),
    tried(pathlib.Path({str(secret)!r}).read_bytes),
    tried(pathlib.Path("/etc/shadow").read_bytes),
    tried(lambda: data.open("ab")),
    tried(lambda: data.unlink()),
    tried(lambda: pathlib.Path({str(home / "new")!r}).touch()),
)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    if done.returncode == 9:
        pytest.skip("this system has no Landlock")
    assert done.stdout.split() == ["yes", "yes", "no", "no", "no", "no", "no"], done.stderr


HOSTILE = [
    "delete from delta.`{lake}/ops/audits`",
    # A comment goes on in the next line for Spark, and a line comment ends it for DuckDB.
    "-- \\\nselect 1 /*\ndelete from delta.`{lake}/ops/audits` -- */",
    "insert into delta.`{lake}/ops/audits` select * from headwater_audits",
    "merge into delta.`{lake}/ops/audits` a using headwater_audits b on true when matched then delete",
    "update delta.`{lake}/ops/audits` set run_id = 'x'",
    "vacuum delta.`{lake}/ops/audits` retain 0 hours",
    "optimize delta.`{lake}/ops/audits`",
    "create table t using parquet location '{outside}' as select 1 as a",
    "insert overwrite directory '{outside}' using csv select 1",
    "create or replace temporary view headwater_audits as select 1",
    "cache table headwater_audits",
    "drop table headwater_audits",
    "explain delete from delta.`{lake}/ops/audits`",
    "explain select reflect('java.lang.System', 'getProperty', 'user.name')",
    "select transform(run_id) using 'id' as (a string) from headwater_audits",
    "from (from headwater_audits map run_id using 'touch {outside}' as a) select a",
    "select reflect('java.lang.System', 'getProperty', 'user.name')",
    "select java_method('java.lang.System', 'getProperty', 'user.name')",
    "select try_reflect('java.lang.System', 'getProperty', 'user.name')",
    "select identifier('reflect')('java.lang.System', 'getProperty', 'user.name')",
    "select 1 where exists (select reflect('java.lang.System', 'getProperty', 'user.name'))",
    "with x as (select reflect('java.lang.System', 'getProperty', 'user.name')) select * from x",
    "with x as (select * from text.`/etc/passwd`) select 1",
    "select (select max(value) from text.`/etc/passwd`)",
    "select * from values (reflect('java.lang.System', 'getProperty', 'user.name'))",
    "select transform(array(1), x -> reflect('java.lang.System', 'getProperty', 'user.name'))",
    "select * from text.`/etc/passwd`",
    "select * from csv.`file:/etc/passwd`",
    "select * from identifier('text.`/etc/passwd`')",
    "select * from table_changes_by_path('{lake}/ops/audits', 0)",
    "describe detail delta.`{lake}/ops/audits`",
    "describe text.`/etc/passwd`",
    "add jar '/tmp/x.jar'",
    "list jars",
    "set spark.sql.variable.substitute = true",
    "execute immediate 'select 1'",
    "begin select 1; end",
    "refresh table headwater_audits",
    "create function f as 'java.lang.System'",
    "create temporary function f() returns int return 1",
    "declare variable v = 1",
    "use text",
    "use spark_catalog.nowhere",
    "select * from headwater_audits with (path = '/etc')",
    "select * from stream headwater_audits",
    "set",
    "set spark.sql.catalog.silver = org.apache.spark.sql.execution.datasources.v2.jdbc.JDBCTableCatalog",
    "explain extended select * from csv.`/etc/passwd`",
    "show create table headwater_audits",
    "analyze table headwater_audits compute statistics",
    "from_json(1)",
]


def test_spark_executes_nothing_but_queries(lake: Lake, spark: SparkSession, tmp_path: Path) -> None:
    spark.read.format("delta").load(lake.path("ops.audits")).createOrReplaceTempView("headwater_audits")
    before, outside = contents(Path(lake.root)), tmp_path / "outside"
    executed = {}
    for statement in HOSTILE:
        try:
            executed[statement] = checked_sql_frame(
                spark, statement.format(lake=lake.root, outside=outside)
            ).collect()
        except SqlPlanRefused:
            continue
        except ParseException:  # what Spark can not read it does not execute
            continue
    assert executed == {}
    assert contents(Path(lake.root)) == before
    assert not outside.exists()


@pytest.mark.parametrize(
    ("statement", "rows"),
    [
        ("select count(*), max(run_id) from headwater_audits where passed", [(1, "r")]),
        ("with x as (select 1 as a) select a from x where a in (select 1) and exists (select 1)", [(1,)]),
        (
            "select a, row_number() over w from values (2), (1) t(a) window w as (order by a)",
            [(1, 1), (2, 2)],
        ),
        ("select transform(array(1, 2), x -> x + 1) as t, upper('a')", [([2, 3], "A")]),
        ("select x from headwater_audits lateral view explode(array(7)) as x", [(7,)]),
        ("select sum(id) from range(4) group by id > 9 having count(*) > 1", [(6,)]),
        ("select 1 union all select 2 except select 2", [(1,)]),
        ("select * from (select 1 a, 2 b) pivot (sum(b) for a in (1))", [(2,)]),
        ("select '${env:PATH}'", [("${env:PATH}",)]),
        (
            "with recursive r(n) as (select 1 union all select n + 1 from r where n < 3) select n from r",
            [(1,), (2,), (3,)],
        ),
        ("describe headwater_audits", None),
        ("use default", []),
        ("explain select * from headwater_audits", None),
        ("show tables", None),
    ],
)
def test_spark_answers_queries(
    lake: Lake, spark: SparkSession, statement: str, rows: list[object] | None
) -> None:
    spark.read.format("delta").load(lake.path("ops.audits")).createOrReplaceTempView("headwater_audits")
    found = [tuple(row) for row in checked_sql_frame(spark, statement).collect()]
    assert found == rows if rows is not None else found


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("select * from gold.nothing", r"^there is no table gold\.nothing\nTables: "),
        ("select * from ops.audits@99", r"^ops\.audits has no version 99: the newest is \d$"),
        ("select runid from ops.audits@0", "`runid` cannot be resolved.*`run_id`"),
        ("select * from chunks", "`chunks` cannot be found"),
        ("selec 1", "Syntax error at or near 'selec'"),
        ("select a.passed from ops.audits as b", "`a`.`passed` cannot be resolved"),
    ],
)
def test_a_wrong_statement_on_spark_is_told_by_the_names_of_the_query(
    lake: Lake, spark: SparkSession, statement: str, said: str
) -> None:
    with pytest.raises(InvalidSqlStatement, match=said) as caught:
        query_with_spark(lake, statement, LINEAGE_SCHEMA.empty_table())
    assert not re.search(r"headwater_|SQLSTATE|^\[", str(caught.value))


def test_ports_of_spark_ask_for_a_secret(spark: SparkSession) -> None:
    """Beside JDBC a JVM of Spark listens on loopback, and takes objects of Java there."""
    jvm: Any = spark._jvm
    assert jvm.org.apache.spark.SparkEnv.get().securityManager().isAuthenticationEnabled()


def test_the_command_refuses_on_spark_what_duckdb_takes_for_a_query(lake: Lake, home: Path) -> None:
    statement = f" -- \\\nselect 1 /*\ndelete from delta.`{lake.root}/ops/audits` -- */"
    refused(sql(home, statement, "--engine", "spark"), "the lake is read-only")
    # Settings of Spark, which can be credentials, reach the process as they are.
    answered = sql(
        home,
        "select count(*) as n, current_timezone() as zone from ops.audits",
        *("--engine", "spark", "--json"),
        HEADWATER_SPARK__CONF='{"spark.sql.session.timeZone": "Asia/Tokyo"}',
    )
    assert json.loads(answered.stdout) == [{"n": 1, "zone": "Asia/Tokyo"}], answered.stderr


@pytest.mark.parametrize("engine", ["duckdb", "spark"])
def test_lineage_is_a_table_for_both_engines(home: Path, engine: str) -> None:
    answered = sql(
        home,
        'select "table" as t, run_id from ops.lineage'.replace('"', "`" if engine == "spark" else '"'),
        "--engine",
        engine,
        "--json",
    )
    assert json.loads(answered.stdout) == [{"t": "ops.audits", "run_id": "r"}], answered.stderr


def test_a_query_without_end_is_stopped(home: Path) -> None:
    endless = "select count(*) from range(10000000) a, range(100000000) b"
    refused(sql(home, endless, HEADWATER_SQL__TIMEOUT_S="3"), "after 3 s", "HEADWATER_SQL__TIMEOUT_S")
    assert list((home / "sql").glob("tmp*")) == []


@pytest.mark.parametrize(
    "statement",
    [
        "select list(range) from range(1000000000)",
        "select repeat('x', 4000000000)",
        "select repeat('x', 1000) as x from range(1000000)",
    ],
)
def test_a_query_takes_no_more_memory_than_it_is_given(home: Path, statement: str) -> None:
    refused(sql(home, statement, HEADWATER_SQL__MEMORY="200m"), "HEADWATER_SQL__MEMORY")


def test_an_interrupt_ends_the_query_and_its_process(home: Path) -> None:
    endless = "select count(*) from range(10000000) a, range(100000001) b"
    started = subprocess.Popen(
        [HEADWATER, "sql", endless],
        env=os.environ | {"HEADWATER_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    spill, deadline = None, time.monotonic() + 60
    while spill is None and time.monotonic() < deadline:
        spill = next((home / "sql").glob("tmp*/spill"), None)
        time.sleep(0.1)
    assert spill is not None
    [worker] = [
        int(pid)
        for pid in subprocess.run(
            ["pgrep", "-P", str(started.pid)], capture_output=True, text=True, check=True
        ).stdout.split()
    ]
    started.send_signal(signal.SIGINT)
    said = started.communicate(timeout=20)
    assert started.returncode == 130, said
    assert "Traceback" not in said[1]
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)


def test_what_a_killed_query_left_is_removed_by_the_next_and_nothing_else(home: Path) -> None:
    endless = [HEADWATER, "sql", "select count(*) from range(10000000) a, range(100000001) b"]
    environment = os.environ | {"HEADWATER_HOME": str(home)}
    folders: list[Path] = []
    running: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(2):
            running.append(subprocess.Popen(endless, env=environment, stderr=subprocess.DEVNULL))
            deadline = time.monotonic() + 60
            while len(folders) < len(running) and time.monotonic() < deadline:
                folders += [
                    each.parent for each in (home / "sql").glob("*/spill") if each.parent not in folders
                ]
                time.sleep(0.1)
        killed, alive = folders
        older = home / "sql" / "tmp_of_an_older_headwater"
        older.mkdir()
        running[0].kill()
        running[0].wait()
        assert killed.is_dir()
        deadline = time.monotonic() + 20
        while (killed.exists() or older.exists()) and time.monotonic() < deadline:  # its worker ends too
            assert sql(home, COUNT).returncode == 0
        assert not killed.exists()
        assert not older.exists()
        assert (alive / "spill").is_dir()
    finally:
        for process in running:
            process.send_signal(signal.SIGINT)
            process.wait()
    assert [each.name for each in (home / "sql").iterdir()] == ["sweep.lock"]
