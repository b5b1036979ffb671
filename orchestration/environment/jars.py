"""Jars from Maven, such as Delta's: fetched once, at set-up, and checked against pinned digests."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

DELTA_PACKAGE = "io.delta:delta-spark_4.1_2.13:4.4.0"
"""For Spark 4.1 and its Scala; its version is that of the Python package `delta-spark`."""

PINNED_JARS = {
    f"io.delta_{name}-4.4.0.jar": sha256
    for name, sha256 in (
        ("delta-spark_4.1_2.13", "75a9400986853c061f5109f012547de2545a5759e5e752e5ef633dabe16a4f10"),
        ("delta-storage", "c46735481fa8e326b0957be02b4420cbcab4b325bb08009b7f2045a95133f1cc"),
        ("delta-kernel-api", "ee9b5a14ac3b7efdff4d61a58478fe8eb0e5a3fbca43889dca7290795fe79a11"),
        ("delta-kernel-defaults", "225c975199e4718b38ee5b7e6da7f19e9585024262b2cec2656b32151a856b0b"),
    )
}
"""SHA-256 by file name. What else the package asks for is inside pyspark, in versions that must not be
shadowed, or for Unity Catalog, which Headwater does not use. (The kernel's two serve Delta's newer connector:
reading, MERGE and the change feed pass without them.)"""

_NOT_NEEDED = (
    "org.apache.hadoop:hadoop-client-api",
    "org.apache.hadoop:hadoop-client-runtime",
    "com.fasterxml.jackson.core:jackson-databind",
    "com.fasterxml.jackson.core:jackson-core",
    "com.fasterxml.jackson.core:jackson-annotations",
    "com.fasterxml.jackson.datatype:jackson-datatype-jdk8",
    "org.apache.parquet:parquet-hadoop",
    "org.apache.logging.log4j:log4j-slf4j2-impl",
    "org.apache.logging.log4j:log4j-core",
    "org.apache.logging.log4j:log4j-api",
    "org.slf4j:slf4j-api",
    "org.roaringbitmap:RoaringBitmap",
    "com.google.code.findbugs:jsr305",
    "io.delta:delta-kernel-unitycatalog",
    "io.unitycatalog:unitycatalog-client",
    "io.unitycatalog:unitycatalog-hadoop",
)
"""Not even fetched: sixty of the seventy-five megabytes that the package would pull."""


class JarError(RuntimeError):
    """The jars could not be fetched, or are not the pinned ones."""


def jar_faults(folder: Path, pinned: Mapping[str, str] = PINNED_JARS) -> list[str]:
    """Returns a sentence for each jar in a folder that is missing, differs, or is not pinned."""
    faults = []
    for name, expected in pinned.items():
        path = folder / name
        if not path.is_file():
            faults.append(f"{name} is missing")
        elif (found := hashlib.sha256(path.read_bytes()).hexdigest()) != expected:
            faults.append(f"{name} has sha256 {found} and not the pinned {expected}")
    faults += [
        f"{path.name} does not belong there" for path in folder.glob("*.jar") if path.name not in pinned
    ]
    return faults


def fetch_jars(
    target: Path,
    package: str = DELTA_PACKAGE,
    not_needed: Sequence[str] = _NOT_NEEDED,
    pinned: Mapping[str, str] = PINNED_JARS,
) -> None:
    """Fetches pinned jars through Spark's own resolver and puts them into a folder.

    The resolver reads its proxies and mirrors from where it always does (`DEFAULT_ARTIFACT_REPOSITORY`,
    `JAVA_TOOL_OPTIONS`). Its cache is a throw-away one: a machine's own can hold other versions.

    Args:
        target: The folder; replaced as a whole, and only by jars that are as pinned.
        package: The Maven coordinates.
        not_needed: Those of what the package asks for and is not fetched, without versions.
        pinned: SHA-256 by file name.

    Raises:
        JarError: The jars could not be fetched, or are not the pinned ones.
    """
    import pyspark

    with tempfile.TemporaryDirectory(prefix="headwater-ivy-") as scratch:
        script = Path(scratch) / "nothing.py"
        script.touch()
        command: list[str | Path] = [
            Path(pyspark.__path__[0]) / "bin" / "spark-submit", "--master", "local[1]",
            "--packages", package, "--exclude-packages", ",".join(not_needed),
            "--conf", f"spark.jars.ivy={scratch}/ivy", "--conf", f"spark.local.dir={scratch}", script,
        ]  # fmt: skip
        environment = os.environ | {"PYSPARK_PYTHON": sys.executable, "PYSPARK_DRIVER_PYTHON": sys.executable}
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, errors="replace", check=False
        )
        fetched = Path(scratch) / "ivy" / "jars"
        if done.returncode or not fetched.is_dir():
            raise JarError(f"{package} could not be fetched:\n{(done.stdout + done.stderr)[-4000:]}")
        if faults := jar_faults(fetched, pinned):
            raise JarError(f"what was fetched for {package} is not what is pinned: {'; '.join(faults)}")
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = target.with_name(target.name + ".new")
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.copytree(fetched, fresh)
        shutil.rmtree(target, ignore_errors=True)
        fresh.rename(target)
