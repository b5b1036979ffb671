"""The archive of Java classes from which later JVMs start faster (class-data sharing, JEP 350).

Spark loads some twenty thousand classes before it writes its first row. An archive holds them parsed and
verified; a JVM of another build, or with other jars, passes it over.
"""

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

from pydantic import SecretStr

from assets.lake.spark import (
    CLASS_ARCHIVE,
    JARS,
    SPARK_GUARD,
    SparkConfig,
    spark_java_options,
    spark_session,
)
from orchestration.environment.java import JavaInstallation


def class_archive_key(java: JavaInstallation, jars: Path = JARS) -> str:
    """Returns a digest of what an archive depends on: the JVM, Spark, and the jars beside it."""
    import pyspark

    parts = [str(java.program.resolve()), java.version, pyspark.__version__]
    # The JVM compares times and sizes of jars too: a package that was installed again has new ones.
    core = (Path(pyspark.__path__[0]) / "jars").glob("spark-core_*.jar")
    for path in sorted([*jars.glob("*.jar"), *jars.parent.glob(SPARK_GUARD.name), *core]):
        parts += [path.name, str(path.stat().st_size), str(path.stat().st_mtime_ns)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def make_class_archive(java: JavaInstallation, target: Path = CLASS_ARCHIVE) -> bool:
    """Makes the class archive unless there is one for this JVM and these jars.

    A separate process does a little of everything that Headwater does with Spark; its JVM writes the archive
    when it ends.

    Args:
        java: The Java installation that will use the archive.
        target: The archive; its key is in the file beside it, `.key`.

    Returns:
        Whether the archive exists now. Without it Spark only starts more slowly, so a JVM that can not make
        one is no error.
    """
    key, key_file = class_archive_key(java), target.with_suffix(".key")
    if target.is_file() and key_file.is_file() and key_file.read_text() == key:
        return True
    fresh = target.with_suffix(".new.jsa")
    for path in (key_file, target, fresh):
        path.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="headwater-archive-") as scratch:
        command = [sys.executable, "-m", "orchestration.environment.class_archive", str(fresh), scratch]
        done = subprocess.run(command, capture_output=True, timeout=600, check=False)
    if done.returncode or not _loads(java, fresh):
        fresh.unlink(missing_ok=True)
        return False
    fresh.replace(target)
    key_file.write_text(key)
    return True


def _loads(java: JavaInstallation, archive: Path) -> bool:
    """Returns whether the JVM starts from an archive: one that a full disk cut off would crash it."""
    command = [str(java.program), f"-XX:SharedArchiveFile={archive}", "-Xshare:auto", "-version"]
    return archive.is_file() and not subprocess.run(command, capture_output=True, check=False).returncode


def load_classes_to_archive(archive: Path, scratch: Path) -> None:
    """Uses Spark as the assets do, in a JVM that archives what it loaded once it ends.

    Args:
        archive: The file that the JVM writes when it ends.
        scratch: An empty folder for what it writes meanwhile.
    """
    import pyarrow as pa
    from delta.tables import DeltaTable as SparkDeltaTable
    from deltalake import DeltaTable, Schema
    from pyspark import SparkContext

    config = SparkConfig(driver_memory="1g")
    # It ends before the optimising compiler would pay.
    options = f'{spark_java_options(config)} "-XX:ArchiveClassesAtExit={archive}" -XX:TieredStopAtLevel=1'
    config.conf["spark.driver.extraJavaOptions"] = SecretStr(options)
    spark = spark_session(config, scratch / "spark")
    table = str(scratch / "table")
    schema = pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("number", pa.int32()),
            pa.field("body", pa.binary()),
            pa.field("at", pa.timestamp("us", tz="UTC")),
            pa.field("many", pa.list_(pa.int64())),
        ]
    )
    changes = {"delta.enableChangeDataFeed": "true", "delta.enableDeletionVectors": "false"}
    DeltaTable.create(table, schema=Schema.from_arrow(schema), configuration=changes)
    rows = spark.createDataFrame([("a", 1), ("b", 2)], "id string, number int").selectExpr(
        "id", "number", "cast(id AS binary) AS body", "current_timestamp() AS at", "array(1L, 2L) AS many"
    )
    rows = rows.mapInArrow(lambda batches: batches, rows.schema)
    for step in range(2):
        changed = rows.withColumn("number", rows.number + step)
        merge = SparkDeltaTable.forPath(spark, table).alias("t").merge(changed.alias("s"), "t.id = s.id")
        merge = merge.whenMatchedUpdateAll("t.number IS DISTINCT FROM s.number").whenNotMatchedInsertAll()
        merge.whenNotMatchedBySourceDelete("t.number > 9").execute()
    rows.write.format("delta").mode("append").save(table)
    read = spark.read.format("delta").option("readChangeFeed", "true").option("startingVersion", 0)
    feed = read.load(table)
    exploded = feed.selectExpr("id", "sha2(cast(number AS string), 256) AS hash", "explode(many) AS one")
    exploded.join(rows, "id", "left_anti").union(exploded).groupBy("id").agg({"one": "max"}).toPandas()
    exploded.join(rows, "id").selectExpr("row_number() OVER (PARTITION BY id ORDER BY hash) AS n").toArrow()
    # The gateway's JVM ends when its standard input does, and writes the archive before that.
    gateway = SparkContext._gateway
    spark.stop()
    if gateway is not None:
        gateway.proc.stdin.close()
        gateway.proc.wait()


if __name__ == "__main__":
    load_classes_to_archive(Path(sys.argv[1]), Path(sys.argv[2]))
