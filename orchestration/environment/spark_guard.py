"""Compiles Spark's guard (`spark_guard.scala`), by the Scala compiler that PySpark brings: a JRE has none."""

import hashlib
import os
import subprocess
from pathlib import Path

from assets.lake.spark import SPARK_GUARD, NoSparkSession
from orchestration.environment.java import JavaInstallation

_SOURCE = Path(__file__).with_suffix(".scala")


class SparkGuardError(RuntimeError):
    """The guard could not be compiled."""


def compile_spark_guard(java: JavaInstallation, target: Path = SPARK_GUARD) -> None:
    """Compiles the guard into a jar, unless the jar there is of this source and this Spark.

    Args:
        java: The Java installation that runs the compiler.
        target: The jar; what it was made from is in the file beside it, `.key`.

    Raises:
        SparkGuardError: The compiler refused the source.
    """
    if _is_current(target):
        return
    jars = _spark_jars()
    target.parent.mkdir(parents=True, exist_ok=True)
    key_file, fresh = target.with_suffix(".key"), target.with_suffix(".new.jar")
    for path in (key_file, target, fresh):
        path.unlink(missing_ok=True)
    command = [
        str(java.program), "-XX:TieredStopAtLevel=1", "-cp", f"{jars}/*", "scala.tools.nsc.Main",
        "-cp", os.pathsep.join(map(str, sorted(jars.glob("*.jar")))), "-d", str(fresh), str(_SOURCE),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode or not fresh.is_file():
        raise SparkGuardError(f"{_SOURCE} was not compiled:\n{(done.stdout + done.stderr)[-4000:]}")
    fresh.replace(target)
    key_file.write_text(_key())


def require_spark_guard() -> None:
    """Makes sure that the guard of this source is in the environment.

    Raises:
        NoSparkSession: It is not.
    """
    if not _is_current(SPARK_GUARD):
        raise NoSparkSession(f"{SPARK_GUARD} is missing or was made from another source: run `make setup`")


def _is_current(target: Path) -> bool:
    key_file = target.with_suffix(".key")
    return target.is_file() and key_file.is_file() and key_file.read_text() == _key()


def _key() -> str:
    """Returns a digest of what the jar depends on: the source and the versions of Spark and Scala."""
    import pyspark

    compiler = [path.name for path in _spark_jars().glob("scala-compiler-*.jar")]
    parts = [_SOURCE.read_text(encoding="utf-8"), pyspark.__version__, *compiler]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _spark_jars() -> Path:
    import pyspark

    return Path(pyspark.__path__[0]) / "jars"
