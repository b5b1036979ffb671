"""Real JDBC clients read the lake through Spark's Thrift server, and find its tables and columns."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from jdbc_client import beeline, jdbc
from jdbc_endpoint import Endpoint, running_endpoint

from assets.columns import column_comment
from assets.lake.audits import record_audit
from assets.lake.commits import LINEAGE_SCHEMA
from assets.lake.tables import TABLES
from orchestration.services.jdbc import JDBC_USER, jdbc_password_file, read_jdbc_password

pytestmark = pytest.mark.slow

DBT = os.environ.get("HEADWATER_TEST_DBT") or shutil.which("dbt")


@pytest.fixture(scope="module")
def endpoint(module_folder: Path) -> Iterator[Endpoint]:
    with running_endpoint(module_folder) as started:
        yield started


def test_beeline_reads_tables_by_name_and_version(endpoint: Endpoint) -> None:
    done = beeline(
        endpoint.port,
        *("-n", JDBC_USER, "-w", str(jdbc_password_file(endpoint.home))),
        *("-e", "SELECT stage, doc_id FROM silver.quarantine ORDER BY stage"),
        *("-e", "SELECT count(*) FROM silver.quarantine VERSION AS OF 0"),
        *("-e", "SHOW TABLES IN ops"),
        *("-e", "INSERT INTO silver.quarantine SELECT * FROM silver.quarantine"),
    )
    lines = [re.sub(r"^\d: jdbc:\S+> ", "", line) for line in done.stdout.splitlines()]
    assert [line for line in lines if line.strip("\0 ")] == [
        "stage 0,doc_id 0",
        "stage 1,doc_id 1",
        "stage 2,doc_id 2",
        "0",
        "ops,answer_ratings,false",
        "ops,audits,false",
        "ops,drift,false",
        "ops,engine_releases,false",
        "ops,lineage,false",
        "ops,quarantine_decisions,false",
        "ops,releases,false",
    ]
    [error] = re.findall(r"^Error: .*", done.stderr, re.MULTILINE)
    assert error.startswith("Error: InsertIntoStatement was refused: the lake is read-only here")
    assert error.endswith("(state=25006,code=0)")
    assert "\tat " not in done.stderr


def test_schema_browsers_find_tables_and_columns_with_their_comments(endpoint: Endpoint) -> None:
    """The calls that DBeaver makes to fill its tree."""
    kinds = ["TABLE", "VIEW"]
    product, schemas, table_types, tables, none, keys, foreign, indexes, types, *columns = jdbc(
        endpoint.port,
        endpoint.home,
        [
            ["getDatabaseProductName"],
            ["getSchemas"],
            ["getTableTypes"],
            ["getTables", None, "%", "%", kinds],
            ["getTables", None, "silver", "nothing%", None],
            ["getPrimaryKeys", None, "silver", "quarantine"],
            ["getImportedKeys", None, "silver", "quarantine"],
            ["getIndexInfo", None, "silver", "quarantine", False, True],
            ["getTypeInfo"],
            ["getColumns", None, "silver", "quarantine", "%"],
            ["getColumns", None, "gold", "chunks", "char%"],
            ["getColumns", None, "ops", "lineage", "%"],
        ],
        "silver",
    )
    assert product == [{"": "Spark SQL"}]
    layers = {"bronze", "silver", "gold", "ops"}
    assert {row["TABLE_SCHEM"] for row in rows(schemas)} == layers | {"default", "global_temp"}
    assert {row["TABLE_TYPE"] for row in rows(table_types)} == set(kinds)
    found = {f"{row['TABLE_SCHEM']}.{row['TABLE_NAME']}": row["REMARKS"] for row in rows(tables)}
    assert found.pop("ops.lineage")
    assert found == {name: table.about for name, table in TABLES.items()}
    assert none == keys == foreign == indexes == []
    assert {"STRING", "BIGINT", "TIMESTAMP"} <= {row["TYPE_NAME"] for row in rows(types)}
    quarantine, offsets, lineage = map(rows, columns)
    declared = TABLES["silver.quarantine"].schema
    assert [(row["COLUMN_NAME"], row["REMARKS"]) for row in quarantine] == [
        (field.name, column_comment(field)) for field in declared
    ]
    assert all(row["REMARKS"] for row in quarantine)
    assert {(row["COLUMN_NAME"], row["TYPE_NAME"], row["DATA_TYPE"]) for row in offsets} == {
        ("char_start", "INT", "4"),
        ("char_end", "INT", "4"),
    }
    assert [row["COLUMN_NAME"] for row in lineage] == LINEAGE_SCHEMA.names
    assert all(row["REMARKS"] for row in lineage)


def test_lineage_is_a_table_and_follows_the_lake(endpoint: Endpoint) -> None:
    query = "select `table`, run_id, inputs['gold.chunks'] as input from ops.lineage order by version"
    first = {"table": "ops.audits", "run_id": "r", "input": "0"}
    assert jdbc(endpoint.port, endpoint.home, [query]) == [[first]]
    record_audit(endpoint.lake, "gold.chunks", 0, passed=True, failed=[], run_id="later")
    [waited] = jdbc(endpoint.port, endpoint.home, [["until", query, "later"]])
    assert waited == [first, first | {"run_id": "later"}]


def test_queries_of_tools_are_answered(endpoint: Endpoint) -> None:
    answers = jdbc(
        endpoint.port,
        endpoint.home,
        [
            "use silver",
            "/* a tool */ select count(*) as n from quarantine",
            "select current_database() as d, typeof(inputs) as t from spark_catalog.ops.lineage limit 1",
            "with x as (select stage from quarantine) select count(distinct stage) as n from x",
            "select stage from quarantine q join ops.audits a on a.run_id = 'r' where doc_id = 'doc_id 1'",
            "from quarantine |> where stage = 'stage 2' |> select doc_id",
            "show databases",
            "show columns in silver.quarantine",
            "show table extended in silver like 'quar*'",
            "describe extended silver.quarantine",
            "describe database silver",
            "set time zone 'Europe/Zurich'",
            "select current_timezone() as zone",
            "explain select * from silver.quarantine",
        ],
    )
    assert [each for each in answers if isinstance(each, str)] == []
    assert answers[1] == [{"n": "3"}]
    assert answers[2] == [{"d": "silver", "t": "map<string,bigint>"}]
    assert answers[3] == [{"n": "3"}]
    assert answers[4] == [{"stage": "stage 1"}]
    assert answers[5] == [{"doc_id": "doc_id 2"}]
    assert answers[12] == [{"zone": "Europe/Zurich"}]


def test_pyhive_reads(endpoint: Endpoint) -> None:
    """The driver of dbt-spark and of SQLAlchemy, with the setting that dbt-spark asks for."""
    script = """
import sys
from pyhive import hive
cursor = hive.connect(
    "127.0.0.1", int(sys.argv[1]), auth="CUSTOM", username=sys.argv[2], password=sys.stdin.read(),
    configuration={"spark.sql.ansi.enabled": "false"},
).cursor()
cursor.execute("select count(*), cast('x' as int) from silver.quarantine")
print(cursor.fetchall())
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(endpoint.port), JDBC_USER],
        input=read_jdbc_password(endpoint.home),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "[(3, None)]", done.stderr


@pytest.mark.skipif(DBT is None, reason="no dbt with dbt-spark; HEADWATER_TEST_DBT names one")
def test_dbt_reads_and_is_refused_to_write(endpoint: Endpoint, tmp_path: Path) -> None:
    """dbt-core holds pathspec below 0.13, so it is in an environment of its own, not in ours."""
    (tmp_path / "models").mkdir()
    (tmp_path / "dbt_project.yml").write_text("name: probe\nversion: '1.0'\nprofile: probe\n")
    (tmp_path / "profiles.yml").write_text(
        f"probe: {{target: lake, outputs: {{lake: {{type: spark, method: thrift, host: 127.0.0.1, "
        f"port: {endpoint.port}, auth: CUSTOM, user: {JDBC_USER}, schema: silver, "
        "password: \"{{ env_var('DBT_ENV_SECRET_JDBC') }}\"}}}\n"
    )
    (tmp_path / "models" / "sources.yml").write_text(
        "version: 2\nsources: [{name: silver, tables: [{name: quarantine, columns: "
        "[{name: doc_id, data_tests: [unique, not_null]}]}]}]\n"
    )
    (tmp_path / "models" / "stages.sql").write_text(
        "select stage, count(*) as n from {{ source('silver', 'quarantine') }} group by stage"
    )

    def dbt(*arguments: str) -> subprocess.CompletedProcess[str]:
        secret = {"DBT_ENV_SECRET_JDBC": read_jdbc_password(endpoint.home)}
        return subprocess.run(
            [str(DBT), *arguments, "--no-use-colors", "--profiles-dir", "."],
            env=os.environ | secret | {"DBT_SEND_ANONYMOUS_USAGE_STATS": "false"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

    assert "All checks passed!" in dbt("debug").stdout
    assert "PASS=2 WARN=0 ERROR=0" in dbt("test").stdout
    assert "| stage 1 | 1 |" in dbt("show", "--select", "stages").stdout
    refused = dbt("run")
    assert refused.returncode == 1
    assert "CreateView was refused: the lake is read-only here" in refused.stdout


def rows(answer: list[dict[str, str]] | str) -> list[dict[str, str]]:
    assert not isinstance(answer, str), answer
    return answer
