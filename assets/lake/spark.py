"""The one Spark session of a process, configured for Delta on this machine or on a cluster."""

from __future__ import annotations

import logging
import os
import shlex
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, Field, SecretStr, SerializationInfo, field_serializer

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

JARS = Path(sys.prefix) / "share" / "headwater" / "jars"
"""Where set-up put the Delta jars: in the environment, shared by every state folder."""

SPARK_GUARD = JARS.with_name("spark-guard.jar")
"""Where set-up put the compiled guard, which refuses statements that do more than read."""

CLASS_ARCHIVE = JARS.with_name("spark.jsa")
"""Where set-up put the JVM's archive of parsed and verified classes: a fifth of a short run's work."""


_MOST_LOG_BYTES = 1 << 20

REVEALED = {"secrets": "revealed"}
"""The context with which `model_dump_json` writes secret settings, for a pipe to a process of ours."""


class SparkConfig(BaseModel):
    """The configuration of Spark. To use a cluster instead of this machine, only `master` has to change."""

    master: str = "local[*]"
    driver_memory: str = "3g"
    partitions: int = Field(default_factory=lambda: max(2, os.cpu_count() or 2))
    """Shuffle partitions; near the core count, for the default of 200 makes small work slow."""
    conf: dict[str, SecretStr] = {}
    """Any further Spark setting, such as file-system credentials; shown nowhere, and on no command line."""

    @property
    def is_local(self) -> bool:
        """Whether the master is this machine's cores, and not a cluster."""
        return self.master.startswith("local")

    @field_serializer("conf", when_used="json")
    def _conf_for_a_process_of_ours(
        self, conf: dict[str, SecretStr], info: SerializationInfo
    ) -> dict[str, str]:
        """Returns the values where JSON is made for the standard input of a process, else masks them."""
        revealed = info.context == REVEALED
        return {name: value.get_secret_value() if revealed else str(value) for name, value in conf.items()}


class NoSparkSession(RuntimeError):
    """Spark can not start: the environment was not set up, or its JVM ended; the message says why."""


def spark_java_options(config: SparkConfig) -> str:
    """Returns the options of the driver's JVM."""
    # An archive of another JVM, or of jars that have changed, is passed over and need not be talked about.
    options = "-Xshare:auto -Xlog:disable"
    if not config.is_local:
        return options
    # All work is in this JVM, for a minute: bytecode that is compiled twice as fast matters more than its
    # peak speed, and with few cores a collector of one thread takes half the memory for the same time.
    collector = "Serial" if (os.cpu_count() or 1) <= 4 else "Parallel"
    # One tier alone would get room for 48 MB of it, which Spark's generated classes fill in an hour of work.
    return f"{options} -XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m -XX:+Use{collector}GC"


def _not_of_py4j(record: logging.LogRecord) -> bool:
    return "py4j" not in record.pathname


def _quiet(server: object, request: object, client_address: object) -> None:
    """Says nothing of a connection that broke."""


def spark_session(config: SparkConfig, scratch: Path) -> SparkSession:
    """Starts the process's Spark session, or returns the one that runs.

    Args:
        config: The master, memory and further settings.
        scratch: A folder of this state for shuffle files.

    Raises:
        NoSparkSession: When the Delta jars are not in the environment, or the JVM does not start.
    """
    from pyspark import SparkContext
    from pyspark.accumulators import AccumulatorTCPServer
    from pyspark.sql import SparkSession

    jars = sorted(str(jar) for jar in JARS.glob("*.jar"))
    if not jars:
        raise NoSparkSession(f"no Delta jars in {JARS}: run `make setup`")
    # Workers would otherwise be whatever `python3` the PATH names.
    os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    # Nor do workers import from the folder that this process was started in.
    os.environ["PYTHONSAFEPATH"] = "1"
    # Java loses the names of files that its locale can not spell.
    os.environ["LC_ALL"] = "C.UTF-8"
    scratch.mkdir(parents=True, exist_ok=True)
    # Of a JVM that dies Py4J, beside raising an error, writes tracebacks to the root logger, and a thread of
    # PySpark's prints one.
    logging.getLogger().addFilter(_not_of_py4j)
    AccumulatorTCPServer.handle_error = _quiet  # type: ignore[assignment,method-assign]
    options = spark_java_options(config)
    if CLASS_ARCHIVE.is_file():
        options += f' "-XX:SharedArchiveFile={CLASS_ARCHIVE}"'
    settings = {
        # Not by `spark.jars` alone: what comes later than the JVM's own class path is in no archive, and
        # sessions of the Thrift server do not see it.
        "spark.driver.extraClassPath": os.pathsep.join([*jars, str(SPARK_GUARD)]),
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.driver.memory": config.driver_memory,
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.ui.enabled": "false",  # it listens on every interface
        "spark.ui.showConsoleProgress": "false",
        "spark.local.dir": str(scratch),
        "spark.sql.warehouse.dir": str(scratch / "warehouse"),
        "spark.sql.shuffle.partitions": str(config.partitions),
        "spark.sql.adaptive.enabled": "true",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        # Bodies are large: a batch of the default 10,000 rows would hold gigabytes.
        "spark.sql.execution.arrow.maxRecordsPerBatch": "512",
        "spark.sql.session.timeZone": "UTC",
        # The default of 50 tasks to read a table's log makes every small commit slow.
        "spark.databricks.delta.snapshotPartitions": "2",
        "spark.databricks.delta.optimizeWrite.enabled": "false",
        # delta-rs and DuckDB read the tables too, and neither reads deletion vectors.
        "spark.databricks.delta.properties.defaults.enableDeletionVectors": "false",
        "spark.databricks.delta.properties.defaults.enableChangeDataFeed": "true",
        "spark.driver.extraJavaOptions": options,
        "spark.log.level": "ERROR",
        # Hadoop gives files modes of its own, whatever the process's umask is.
        "spark.hadoop.fs.permissions.umask-mode": "077",
    }
    if config.is_local:
        # Spark's own ports take objects of Java from whoever connects; here it makes a secret for itself.
        settings["spark.authenticate"] = "true"
    else:
        settings["spark.jars"] = ",".join(jars)  # for the executors
    private = {name: value.get_secret_value() for name, value in config.conf.items()}
    builder = SparkSession.builder.appName("headwater").master(config.master)
    for name, value in settings.items():
        if name not in private:
            builder = builder.config(name, value)
    if SparkContext._gateway is not None:  # the JVM runs: no command line is made of it
        for name, value in private.items():
            builder = builder.config(name, value)
        return builder.getOrCreate()
    with _submitted_privately(private, scratch), _jvm_output_in(scratch / "jvm.log"):
        return builder.getOrCreate()


@contextmanager
def _jvm_output_in(log: Path) -> Iterator[None]:
    """Has a JVM that starts in the block write what it says into a file, and not amid a command's output.

    Raises:
        NoSparkSession: It did not start; the message has what it said last.
    """
    from pyspark.errors import PySparkRuntimeError

    full = log.exists() and log.stat().st_size > _MOST_LOG_BYTES
    sys.stdout.flush()
    sys.stderr.flush()
    with log.open("w+b" if full else "a+b") as file:
        begun = file.seek(0, os.SEEK_END)
        kept = {descriptor: os.dup(descriptor) for descriptor in (1, 2)}
        try:
            for descriptor in kept:
                os.dup2(file.fileno(), descriptor)
            yield
        except PySparkRuntimeError as error:
            file.seek(begun)
            said = file.read().decode(errors="replace").strip() or str(error)
            raise NoSparkSession(f"Spark's JVM did not start: {said}") from error
        finally:
            for descriptor, copy in kept.items():
                os.dup2(copy, descriptor)
                os.close(copy)


@contextmanager
def _submitted_privately(conf: dict[str, str], scratch: Path) -> Iterator[None]:
    """Hands settings to a JVM that starts in the block by a file; PySpark puts them on a command line."""
    if not conf:
        yield
        return
    # Java's form of properties; PySpark splits the arguments as a shell does.
    escaped = {
        name: value.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
        for name, value in conf.items()
    }
    before = os.environ.get("PYSPARK_SUBMIT_ARGS")
    with tempfile.NamedTemporaryFile("w", prefix="spark-", dir=scratch, encoding="utf-8") as file:
        file.writelines(f"{name}={value}\n" for name, value in escaped.items())
        file.flush()
        os.environ["PYSPARK_SUBMIT_ARGS"] = (
            f"--properties-file {shlex.quote(file.name)} --load-spark-defaults {before or 'pyspark-shell'}"
        )
        try:
            yield
        finally:
            if before is None:
                del os.environ["PYSPARK_SUBMIT_ARGS"]
            else:
                os.environ["PYSPARK_SUBMIT_ARGS"] = before
