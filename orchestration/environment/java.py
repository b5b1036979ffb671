"""The Java that Spark will use: finding it, and saying what to do if it is missing or not supported.

Set-up runs this file before any package is installed: it imports nothing but the standard library.
"""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

SUPPORTED_JAVA = (17, 21)
"""The versions that Spark 4.1 runs on."""

_CURE = (
    "install Java 17 or 21 (Debian, Ubuntu: `apt-get install openjdk-17-jre-headless`; macOS: "
    "`brew install openjdk@17`; Fedora: `dnf install java-21-openjdk-headless`) and point JAVA_HOME at it, "
    "or put its `java` first on PATH"
)


class UnsupportedJava(RuntimeError):
    """There is no Java, or none that Spark runs on; the message says what to do."""


@dataclass(frozen=True)
class JavaInstallation:
    """One Java installation.

    Attributes:
        program: The path of its `java`.
        version: As it calls itself, such as `17.0.15`.
    """

    program: Path
    version: str

    @property
    def major(self) -> int:
        """The feature release: 17 for `17.0.15`, 8 for `1.8.0_402`."""
        numbers = [int(number) for number in re.findall(r"\d+", self.version)]
        return numbers[1] if numbers[0] == 1 and len(numbers) > 1 else numbers[0]


def parse_java_version(said: str) -> str | None:
    """Returns the version in the output of `java -version`, or None if there is none.

    Args:
        said: Its output; the first line is like `openjdk version "17.0.15" 2025-04-15`, and lines of the
            JVM about picked-up options may come before it.
    """
    found = re.search(r'^\S+ version "(\d[^"]*)"', said, re.MULTILINE)
    return found.group(1) if found else None


def find_java() -> JavaInstallation:
    """Returns the Java that Spark's launcher would use: that of JAVA_HOME if it is set, else that on PATH.

    Raises:
        UnsupportedJava: There is none, or it does not run. The version is not checked.
    """
    home = os.environ.get("JAVA_HOME")
    named = Path(home) / "bin" / "java" if home else None
    program = shutil.which(named) if named else shutil.which("java")
    if program is None:
        where = f"JAVA_HOME is {home}, and {named} is no program" if named else "no `java` on PATH"
        raise UnsupportedJava(f"Java was not found: {where}; {_CURE}")
    try:
        done = subprocess.run(
            [program, "-version"], capture_output=True, text=True, errors="replace", timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnsupportedJava(f"{program} does not run ({error}); {_CURE}") from error
    version = parse_java_version(done.stderr + done.stdout)
    if done.returncode or version is None:
        said = (done.stderr + done.stdout).strip()[:300]
        raise UnsupportedJava(
            f"`{program} -version` answered {said!r} (exit status {done.returncode}); {_CURE}"
        )
    return JavaInstallation(Path(program), version)


def require_java() -> JavaInstallation:
    """Returns the Java that Spark will use.

    Raises:
        UnsupportedJava: There is none, or Spark does not run on its version.
    """
    java = find_java()
    if java.major not in SUPPORTED_JAVA:
        raise UnsupportedJava(
            f"Java {java.version} ({java.program}) is not one that Spark 4.1 runs on; {_CURE}"
        )
    return java


if __name__ == "__main__":
    try:
        require_java()
    except UnsupportedJava as error:
        sys.exit(f"error: {error}")
