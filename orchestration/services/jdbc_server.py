"""The JDBC endpoint's process: Spark's Thrift server on loopback, which reads the lake and nothing else.

Clients read every table as `layer.table`, also at a version (`VERSION AS OF`), of every tenant. Spark's guard
lets through only statements that read, and only the user of the state folder. On Linux the system restricts
the process as well: it may write nowhere but in its scratch folder, and for a lake on this machine it may
read nothing but the lake and its own programs.
"""

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deltalake import DeltaTable, write_deltalake
from pydantic import SecretStr
from pyspark import SparkContext

from assets.lake.commits import LINEAGE_SCHEMA, table_commits
from assets.lake.lake import Lake
from assets.lake.spark import SparkConfig, spark_session
from assets.lake.tables import LAYERS, TABLES
from common.atomic_files import PRIVATE_UMASK
from orchestration.services.confinement import program_files
from orchestration.services.jdbc import JdbcServerConfig
from orchestration.services.landlock import restrict_process_files
from orchestration.services.logs import JsonLogFormatter

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

logger = logging.getLogger(__name__)

_LOOK_AGAIN_S = 20.0
"""Seconds between two looks for new tables and new commits."""
_LINEAGE = "ops.lineage"
_FILES_KEPT = 100
"""So often it is written before older files of it are removed."""


def jdbc_spark_config(spark: SparkConfig, port: int, scratch: Path) -> SparkConfig:
    """Returns the Spark settings of the JDBC server.

    Args:
        spark: The Spark settings of runs, whose master and further settings are kept; not those that guard.
        port: The port of loopback to listen on.
        scratch: A folder for what Spark and Hive write.
    """
    settings = {
        "spark.sql.hive.thriftServer.async": "true",
        "spark.hadoop.hive.exec.scratchdir": str(scratch / "hive"),
        "spark.hadoop.hive.exec.local.scratchdir": str(scratch / "hive-local"),
        "spark.hadoop.hive.downloaded.resources.dir": str(scratch / "hive-resources"),
        "spark.hadoop.hive.server2.logging.operation.log.location": str(scratch / "hive-log"),
        # Derby, which only holds what the Hive classes want to see on starting.
        "spark.hadoop.javax.jdo.option.ConnectionURL": "jdbc:derby:memory:metastore;create=true",
    }
    guarding = {
        "spark.sql.extensions": (
            "io.delta.sql.DeltaSparkSessionExtension,org.apache.spark.sql.headwater.SparkGuard"
        ),
        "spark.hadoop.hive.server2.authentication": "CUSTOM",
        "spark.hadoop.hive.server2.enable.doAs": "false",
        "spark.hadoop.hive.server2.transport.mode": "binary",
        "spark.hadoop.hive.server2.thrift.bind.host": "127.0.0.1",
        "spark.hadoop.hive.server2.thrift.port": str(port),
        # `${env:NAME}` in a statement would be the environment's NAME.
        "spark.sql.variable.substitute": "false",
        "spark.sql.runSQLOnFiles": "false",
        # The catalog keeps columns and comments of tables, which clients list.
        "spark.databricks.delta.catalog.update.enabled": "true",
    }
    conf = {name: SecretStr(value) for name, value in settings.items()} | spark.conf
    return spark.model_copy(
        update={"conf": conf | {name: SecretStr(value) for name, value in guarding.items()}}
    )


def register_jdbc_tables(spark: "SparkSession", root: str, names: Iterable[str]) -> list[str]:
    """Registers tables of the lake in Spark's catalog, under their names, with their columns and comments.

    Args:
        spark: The session, whose catalog all sessions of clients share.
        root: The folder of the tables.
        names: The names of the tables, as `layer.table`.

    Returns:
        The names that are new in the catalog; a table without a commit is left for the next call.
    """
    from delta.tables import DeltaTable

    known = []
    for name in names:
        path = f"{root}/{name.replace('.', '/')}"
        if spark.catalog.tableExists(name) or not DeltaTable.isDeltaTable(spark, path):
            continue
        about = TABLES[name].about if name in TABLES else "Every commit of the lake: its run and its inputs."
        spark.sql(f"CREATE TABLE {name} USING delta LOCATION {_literal(path)} COMMENT {_literal(about)}")
        known.append(name)
    return known


class JdbcLineage:
    """`ops.lineage` for JDBC: a Delta table in the scratch folder, written again when there are new commits.

    Args:
        lake: The lake.
        root: The folder in which the table lies, as `ops/lineage`.
    """

    def __init__(self, lake: Lake, root: Path) -> None:
        self._lake = lake
        self._path = root / _LINEAGE.replace(".", "/")
        self._versions: dict[str, int] = {}

    def refresh(self, names: Iterable[str]) -> bool:
        """Writes the commits of some tables if they have new ones; returns whether it did."""
        versions = {name: self._lake.version(name) for name in names}
        if versions == self._versions:
            return False
        import pyarrow as pa

        commits = [table_commits(self._lake, name) for name in versions]
        rows = pa.concat_tables([LINEAGE_SCHEMA.empty_table(), *commits])
        write_deltalake(self._path, rows, mode="overwrite")
        written = DeltaTable(self._path)
        if written.version() % _FILES_KEPT == 0:
            # No query is an hour behind.
            written.vacuum(retention_hours=1, dry_run=False, enforce_retention_duration=False)
        self._versions = versions
        return True


def restrict_jdbc_process(lake_root: str, scratch: Path) -> bool:
    """Restricts this process to the files that it needs; returns whether the system can do that.

    Args:
        lake_root: The folder of the tables; for one in an object store only writing is restricted, for the
            credentials of its client may lie anywhere.
        scratch: The folder that it may write to.
    """
    readable = [Path(lake_root), *program_files()] if "://" not in lake_root else None
    return restrict_process_files([scratch, Path("/dev/null")], readable)


def serve_jdbc(config: JdbcServerConfig, stopping: threading.Event) -> None:
    """Runs the JDBC server until it is told to stop.

    Args:
        config: What the server is told.
        stopping: An event that ends the server when it is set.
    """
    scratch = config.scratch
    if restrict_jdbc_process(config.lake_root, scratch):
        logger.info("this process may write to %s and nowhere else", scratch)
    else:
        logger.warning("this system has no Landlock: only Spark's guard holds clients back")
    spark = spark_session(jdbc_spark_config(config.spark, config.port, scratch), scratch / "spark")
    jvm: Any = SparkContext._jvm
    jvm.org.apache.spark.sql.headwater.StatementCheck.trust(spark._jsparkSession)
    for layer in LAYERS:
        spark.sql(f"CREATE DATABASE IF NOT EXISTS {layer}")
    lake = Lake(config.lake_root, config.spark, scratch / "commits", scratch)
    lineage = JdbcLineage(lake, scratch)
    served = register_jdbc_tables(spark, config.lake_root, TABLES)
    lineage.refresh(served)
    register_jdbc_tables(spark, str(scratch), [_LINEAGE])
    logger.info("%d tables", len(served))
    package: Any = getattr(jvm, "org.apache.spark.sql.hive.thriftserver")
    server = package.GuardedThriftServer.start(spark._jsparkSession, config.password_sha256)
    logger.info("listening on jdbc:hive2://127.0.0.1:%d", config.port)
    while not stopping.wait(_LOOK_AGAIN_S):
        for name in register_jdbc_tables(spark, config.lake_root, TABLES):
            logger.info("new table %s", name)
            served.append(name)
        try:
            lineage.refresh(served)
        except (OSError, KeyError) as error:  # the next look tries again
            logger.warning("%s is not brought up to date: %s", _LINEAGE, error)
    server.stop()
    spark.stop()


def run_jdbc_server() -> None:
    """Runs the JDBC server that standard input describes, until SIGTERM."""
    os.umask(PRIVATE_UMASK)
    config = JdbcServerConfig.model_validate_json(sys.stdin.buffer.read())
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    if config.log_format == "json":
        logging.getLogger().handlers[0].setFormatter(JsonLogFormatter())
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    serve_jdbc(config, stopping)


def _literal(text: str) -> str:
    """Returns a text as a literal of Spark's SQL."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


if __name__ == "__main__":
    run_jdbc_server()
