"""A JVM that starts says nothing amid a command's output, and why where it does not start."""

import subprocess
import sys
from pathlib import Path

START = """
from pathlib import Path
from assets.lake.spark import SparkConfig, spark_session
spark = spark_session(SparkConfig(master="local[1]", driver_memory="{memory}"), Path("scratch").absolute())
print(spark.range(3).count())
"""


def started(folder: Path, memory: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", START.format(memory=memory)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_what_spark_says_at_its_start_is_in_a_file(tmp_path: Path) -> None:
    done = started(tmp_path, "512m")
    assert (done.returncode, done.stdout, done.stderr) == (0, "3\n", "")
    assert "WARN" in (tmp_path / "scratch" / "jvm.log").read_text()


def test_a_jvm_that_does_not_start_says_why(tmp_path: Path) -> None:
    done = started(tmp_path, "9000000g")
    assert done.returncode == 1
    assert "NoSparkSession: Spark's JVM did not start:" in done.stderr
    assert "Could not reserve enough space" in done.stderr
