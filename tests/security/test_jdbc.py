"""JDBC lets in one user, who reads the lake and does nothing else, whatever they send."""

import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from jdbc_client import Answer, Request, jdbc
from jdbc_endpoint import PLANTED, Endpoint, running_endpoint

from orchestration.services.jdbc import JDBC_USER, jdbc_password_file, read_jdbc_password

pytestmark = pytest.mark.slow

READ_ONLY = "the lake is read-only here"

HOSTILE = [
    # What changes tables.
    "drop table silver.quarantine",
    "drop table if exists silver.nothing",
    "drop view if exists silver.quarantine",
    "drop database silver cascade",
    "delete from silver.quarantine",
    "delete from delta.`{lake}/silver/quarantine`",
    "update silver.quarantine set stage = 'x'",
    "insert into silver.quarantine select * from silver.quarantine",
    "insert overwrite silver.quarantine select * from silver.quarantine",
    "insert into silver.quarantine values (1)",
    "merge into silver.quarantine a using ops.audits b on true when matched then delete",
    "truncate table silver.quarantine",
    "alter table silver.quarantine set tblproperties ('delta.appendOnly' = 'true')",
    "alter table silver.quarantine rename to silver.other",
    "alter table silver.quarantine add column more string",
    "comment on table silver.quarantine is 'x'",
    "create table silver.copy using delta as select 1 as a",
    "create table silver.copy shallow clone silver.quarantine",
    "create table silver.passwd using text location '/etc/passwd'",
    "create external table silver.passwd (a string) location '/etc'",
    "create view silver.seen as select 1 as a",
    "create temporary view passwd using text options (path '/etc/passwd')",
    "create database more location '{outside}'",
    "optimize silver.quarantine",
    "vacuum silver.quarantine retain 0 hours",
    "restore table silver.quarantine to version as of 0",
    "convert to delta parquet.`{outside}`",
    "generate symlink_format_manifest for table silver.quarantine",
    "refresh table silver.quarantine",
    "analyze table silver.quarantine compute statistics",
    "msck repair table silver.quarantine",
    "load data local inpath '/etc/passwd' into table silver.quarantine",
    "cache table silver.quarantine",
    "explain insert into silver.quarantine select * from silver.quarantine",
    "/* select 1 */ -- \\\ndrop table silver.quarantine",
    # What writes or reads files of the machine.
    "insert overwrite directory '{outside}' using csv select 1",
    "insert overwrite local directory '{outside}' select 1",
    "select * from text.`/etc/shadow`",
    "select * from csv.`file:/etc/passwd`",
    "select * from parquet.`{home}`",
    "select * from binaryFile.`{home}/jdbc.password`",
    "select * from delta.`{lake}/silver/quarantine`",
    "select * from spark_catalog.text.`/etc/passwd`",
    "select * from silver.quarantine with (path = '/etc')",
    "select * from identifier('text.`/etc/passwd`')",
    "select (select max(value) from text.`/etc/passwd`)",
    "with x as (select * from text.`/etc/passwd`) select 1",
    "select * from silver.quarantine timestamp as of (select max(value) from text.`/etc/passwd`)",
    "select * from table_changes_by_path('{lake}/silver/quarantine', 0)",
    "describe detail delta.`{lake}/silver/quarantine`",
    "describe text.`/etc/passwd`",
    "select input_file_name() from silver.quarantine",
    "select from_protobuf(cast('' as binary), 'A', '/etc/passwd')",
    "select xpath_string('<!DOCTYPE a [<!ENTITY b SYSTEM \"file:///etc/passwd\">]><a>&b;</a>', 'a')",
    # What runs programs and code.
    "select transform(stage) using 'id' as (a string) from silver.quarantine",
    "from (from silver.quarantine map stage using 'touch {outside}' as a) select a",
    "from silver.quarantine reduce stage using 'touch {outside}' as a",
    "select reflect('java.lang.System', 'getProperty', 'user.name')",
    "select java_method('java.lang.System', 'getProperty', 'user.name')",
    "select try_reflect('java.lang.System', 'getProperty', 'user.name')",
    "select identifier('reflect')('java.lang.System', 'getProperty', 'user.name')",
    "select 1 where exists (select reflect('java.lang.System', 'getProperty', 'user.name'))",
    "select transform(array(1), x -> reflect('java.lang.System', 'getProperty', 'user.name'))",
    "explain select reflect('java.lang.System', 'getProperty', 'user.name')",
    "create function f as 'java.lang.System'",
    "create temporary function f as 'java.lang.System' using jar '/tmp/x.jar'",
    "create temporary function f() returns int return 1",
    "add jar '/tmp/x.jar'",
    "add file '/etc/passwd'",
    "add archive '/tmp/x.zip'",
    "list jars",
    "list files",
    "execute immediate 'drop table silver.quarantine'",
    "begin drop table silver.quarantine; end",
    "call system.anything()",
    # What changes the session or the server.
    "set",
    "set -v",
    "set spark.sql.variable.substitute = true",
    "set spark.sql.runSQLOnFiles = true",
    "set spark.sql.catalog.silver = org.apache.spark.sql.execution.datasources.v2.jdbc.JDBCTableCatalog",
    "set spark.hadoop.fs.s3a.secret.key",
    "set system:java.io.tmpdir = /tmp",
    "reset",
    "declare variable v = 1",
    "use text",
    "set catalog other",
    "show tables in other.schema",
    "kill query 1",
]


@pytest.fixture(scope="module")
def endpoint(module_folder: Path) -> Iterator[Endpoint]:
    with running_endpoint(module_folder) as started:
        yield started


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_hostile_statements_are_refused_and_change_nothing(endpoint: Endpoint, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    sent: list[Request] = [
        statement.format(lake=endpoint.lake.root, home=endpoint.home, outside=outside)
        for statement in HOSTILE
    ]
    before = contents(Path(endpoint.lake.root))
    harmless: list[Request] = [
        "select count(*) as n from silver.quarantine",
        # What is the environment's for Hive is only text here.
        "select '${env:PATH}${system:user.name}' as a",
    ]
    wrong: list[Request] = [
        "select * from nothing",
        "select nothing from silver.quarantine",
        "select count(*) from silver.quarantine timestamp as of '2030-01-01'",
        "select raise_error('mine')",
    ]
    *answers, missing, column, later, raised = jdbc(endpoint.port, endpoint.home, [*sent, *harmless, *wrong])
    said = dict(zip(sent, answers[: len(sent)], strict=True))
    assert {statement: answer for statement, answer in said.items() if isinstance(answer, list)} == {}
    assert {statement: answer for statement, answer in said.items() if not plain(answer)} == {}
    # What Spark can not parse has its own error.
    other = {
        statement
        for statement, answer in said.items()
        if READ_ONLY not in answer and "PARSE_SYNTAX_ERROR" not in answer
    }
    assert other == set()
    assert answers[len(sent) :] == [[{"n": "3"}], [{"a": "${env:PATH}${system:user.name}"}]]
    assert all(plain(error) for error in (missing, column, later, raised)), (missing, column, later, raised)
    assert "`nothing`" in missing
    assert "`nothing`" in column
    assert "2030-01-01" in later
    assert "mine" in raised
    assert contents(Path(endpoint.lake.root)) == before
    assert not outside.exists()


def plain(answer: Answer) -> bool:
    """Whether an error is a sentence for people: no Java trace, no class."""
    return not re.search(r"\tat |\wException", str(answer))


def hive(endpoint: Endpoint, script: str) -> str:
    """What a script with PyHive prints; `connect(auth, username, password, configuration)` is there."""
    head = f"""
import sys
from pyhive import hive
from TCLIService import ttypes
PASSWORD = sys.stdin.read()
def connect(auth="CUSTOM", username={JDBC_USER!r}, password=PASSWORD, configuration=None):
    return hive.connect("127.0.0.1", {endpoint.port}, auth=auth, username=username, password=password,
                        configuration=configuration).cursor()
"""
    done = subprocess.run(
        [sys.executable, "-c", head + script],
        input=read_jdbc_password(endpoint.home),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.stdout + done.stderr


def test_no_session_without_the_user_and_the_password(endpoint: Endpoint) -> None:
    said = hive(
        endpoint,
        """
import socket
socket.setdefaulttimeout(20)
tries = {
    "no password": {"password": ""},
    "a wrong password": {"password": "wrong"},
    "a longer password": {"password": PASSWORD + "x"},
    "no user": {"username": "", "password": ""},
    "anonymous": {"username": "anonymous", "password": "anonymous"},
    "another user": {"username": "root"},
    "no SASL": {"auth": "NOSASL", "password": None},
    "SASL without a password": {"auth": "NONE", "password": None},
    "all is right": {},
}
for name, given in tries.items():
    try:
        connect(**given).execute("select 1")
        print("opened:", name)
    except Exception as error:
        print("refused:", name, type(error).__name__, error)
""",
    )
    assert re.findall("opened: .*", said) == ["opened: all is right"], said
    assert len(re.findall("^refused: ", said, re.MULTILINE)) == 8, said
    assert len(re.findall("TTransportException Bad status: 3 .*Error validating the login", said)) == 7, said


def test_a_session_is_opened_with_no_setting_that_reaches_further(endpoint: Endpoint) -> None:
    hostile = {
        "spark.sql.variable.substitute": "true",
        "set:hiveconf:spark.sql.runSQLOnFiles": "true",
        "set:hiveconf:spark.sql.catalog.silver": "org.apache.spark.sql.connector.catalog.Anything",
        "set:hiveconf:spark.sql.session.timeZone": "${system:user.name}",
        "set:system:headwater.planted": "x",
        "set:hivevar:x": "y",
        "set:metaconf:x": "y",
        "use:database": "silver; drop table silver.quarantine",
        "hive.server2.proxy.user": "root",
    }
    said = hive(
        endpoint,
        f"""
for name, value in {hostile!r}.items():
    try:
        connect(configuration={{name: value}}).execute("select 1")
        print("opened", name)
    except hive.OperationalError as error:
        print("refused", error.args[0].status.errorMessage)
""",
    )
    assert "opened" not in said, said
    assert said.count(READ_ONLY) == len(hostile), said


def test_the_password_is_nowhere_but_in_its_file(endpoint: Endpoint) -> None:
    file, password = jdbc_password_file(endpoint.home), read_jdbc_password(endpoint.home)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(password) >= 32
    assert read_jdbc_password(endpoint.home) == password
    jdbc(endpoint.port, endpoint.home, ["select 1"])
    # The server removes folders of sessions meanwhile; unlike `rglob`, `walk` passes over them.
    files = [Path(folder, name) for folder, _, names in os.walk(endpoint.home) for name in names]
    for path in [endpoint.log, *files]:
        if path.is_file() and path != file:
            assert password.encode() not in path.read_bytes(), path
    processes = [psutil.Process(endpoint.pid), *psutil.Process(endpoint.pid).children(recursive=True)]
    assert any("java" in process.name() for process in processes)
    for process in processes:
        if process.status() == psutil.STATUS_ZOMBIE:
            continue
        shown = f"{process.cmdline()} {process.environ()}"
        assert password not in shown
        assert PLANTED not in shown  # nor any setting, which `/proc` would show the server itself
        assert "HEADWATER_" not in shown


def test_the_process_reads_the_lake_and_nothing_else_of_the_user(endpoint: Endpoint, tmp_path: Path) -> None:
    """What Landlock allows the process, without Spark's guard."""
    if "nowhere else" not in endpoint.log.read_text():
        pytest.skip("this system has no Landlock")
    secrets = [jdbc_password_file(endpoint.home)]
    for name in ("postgres.pgpass", "backup.key", "sources.json"):
        (endpoint.home / name).write_text("s")
        secrets.append(endpoint.home / name)
    user = tmp_path / "home-of-the-user"
    user.mkdir()
    (user / ".netrc").write_text("s")
    secrets += [user / ".netrc", Path("/etc/shadow")]
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    script = f"""
import pathlib
from orchestration.services.jdbc_server import restrict_jdbc_process
assert restrict_jdbc_process({endpoint.lake.root!r}, pathlib.Path({str(scratch)!r}))
def tried(action):
    try:
        action()
        return "yes"
    except PermissionError:
        return "no"
data = next(pathlib.Path({endpoint.lake.root!r}).rglob("*.parquet"))
print(tried(data.read_bytes), tried((scratch := pathlib.Path({str(scratch)!r}) / "new").touch))
print(tried(lambda: data.open("ab")), tried(data.unlink))
print(*[tried(pathlib.Path(secret).read_bytes) for secret in {[*map(str, secrets)]!r}])
print(tried(lambda: pathlib.Path("/proc/{os.getpid()}/environ").read_bytes()))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["yes", "yes", "no", "no", *["no"] * len(secrets), "no"], done.stderr
