"""The JDBC endpoint: Spark's Thrift server on loopback (`python -m orchestration.services.jdbc`).

What clients can do: read every table as `layer.table`, also at a version (`VERSION AS OF`); what they make
themselves is gone with the server. On Linux the server's process may write nowhere but in its scratch folder,
so a statement that changes a table of the lake fails whatever it says. Elsewhere, and for a lake in an object
store, only the rights of this process's user hold it back. There are no users or tenants here: whoever may
connect to loopback on this machine reads every tenant's rows.
"""

import logging
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr
from pyspark import SparkContext

from assets.lake.spark import SparkConfig, spark_session
from assets.lake.tables import TABLES
from orchestration.services.landlock import restrict_process_files
from orchestration.services.logs import JsonLogFormatter
from orchestration.services.processes import is_port_free, port_holder
from orchestration.settings import Settings
from retrieval.atomic_files import PRIVATE_UMASK

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

logger = logging.getLogger(__name__)

_LOOK_AGAIN_S = 20.0
"""Seconds between two looks for new tables."""


def jdbc_spark_config(spark: SparkConfig, memory: str, port: int, scratch: Path) -> SparkConfig:
    """Returns the Spark settings of the JDBC server.

    Args:
        spark: The Spark settings of runs, whose master and further settings are kept.
        memory: The memory of its driver, in Java's notation.
        port: The port of loopback to listen on.
        scratch: A folder for what clients create.
    """
    return spark.model_copy(
        update={
            "driver_memory": memory,
            "conf": {
                name: SecretStr(value)
                for name, value in {
                    "spark.sql.hive.thriftServer.async": "true",
                    "spark.hadoop.hive.server2.thrift.bind.host": "127.0.0.1",
                    "spark.hadoop.hive.server2.thrift.port": str(port),
                    "spark.hadoop.hive.server2.transport.mode": "binary",
                    "spark.hadoop.hive.exec.scratchdir": str(scratch / "hive"),
                    "spark.hadoop.hive.exec.local.scratchdir": str(scratch / "hive-local"),
                    "spark.hadoop.hive.downloaded.resources.dir": str(scratch / "hive-resources"),
                    "spark.hadoop.hive.server2.logging.operation.log.location": str(scratch / "hive-log"),
                    # Derby, which only holds what the Hive classes want to see on starting.
                    "spark.hadoop.javax.jdo.option.ConnectionURL": "jdbc:derby:memory:metastore;create=true",
                }.items()
            }
            | spark.conf,
        }
    )


def register_jdbc_tables(spark: "SparkSession", root: str, names: Iterable[str]) -> list[str]:
    """Registers tables of the lake in Spark's catalog, under their names.

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
        spark.sql(f"CREATE DATABASE IF NOT EXISTS {name.partition('.')[0]}")
        location = path.replace("\\", "\\\\").replace("'", "\\'")
        spark.sql(f"CREATE TABLE IF NOT EXISTS {name} USING delta LOCATION '{location}'")
        known.append(name)
    return known


def serve_jdbc(settings: Settings, stopping: threading.Event) -> None:
    """Runs the JDBC server until it is told to stop.

    Args:
        settings: The settings of the state folder.
        stopping: An event that ends the server when it is set.

    Raises:
        OSError: The port is taken.
    """
    if not is_port_free(settings.thrift_port):
        raise OSError(
            f"port {settings.thrift_port} of 127.0.0.1 is taken by {port_holder(settings.thrift_port)}: "
            "stop that, or set HEADWATER_THRIFT_PORT to a free port"
        )
    scratch = settings.home / "thrift"
    shutil.rmtree(scratch, ignore_errors=True)
    (scratch / "tmp").mkdir(parents=True)
    # Java's, Hive's and native libraries' temporary files too.
    os.environ["TMPDIR"] = os.environ["SPARK_LOCAL_DIRS"] = str(scratch / "tmp")
    os.environ["JDK_JAVA_OPTIONS"] = f'-Djava.io.tmpdir="{scratch / "tmp"}" -Dderby.system.home="{scratch}"'
    os.chdir(scratch)
    if restrict_process_files([scratch, Path("/dev/null")]):
        logger.info("this process may write to %s and nowhere else", scratch)
    else:
        logger.warning("this system has no Landlock: clients may change tables as far as this user may")
    config = jdbc_spark_config(settings.spark, settings.thrift_memory, settings.thrift_port, scratch)
    spark = spark_session(config, scratch / "spark")
    logger.info("%d tables", len(register_jdbc_tables(spark, settings.lake_root, TABLES)))
    package: Any = getattr(SparkContext._jvm, "org.apache.spark.sql.hive.thriftserver")
    server = package.HiveThriftServer2.startWithContext(spark._jsparkSession.sqlContext())
    logger.info("listening on jdbc:hive2://127.0.0.1:%d", settings.thrift_port)
    while not stopping.wait(_LOOK_AGAIN_S):
        for name in register_jdbc_tables(spark, settings.lake_root, TABLES):
            logger.info("new table %s", name)
    server.stop()
    spark.stop()


def run_jdbc_server() -> None:
    """Runs the JDBC server of the state folder that the environment names, until SIGTERM."""
    os.umask(PRIVATE_UMASK)
    settings = Settings()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    if settings.log_format == "json":
        logging.getLogger().handlers[0].setFormatter(JsonLogFormatter())
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    try:
        serve_jdbc(settings, stopping)
    except OSError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    run_jdbc_server()
