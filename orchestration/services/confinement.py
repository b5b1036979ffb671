"""What a process that executes other people's SQL is given: files of programs to read, and an environment."""

import importlib
import os
import shutil
import sys
from pathlib import Path

from common.rooms import ROOMS, STANDALONE

_SYSTEM = (
    *("/usr", "/lib", "/lib64", "/bin", "/proc", "/sys", "/dev/urandom", "/dev/random", "/dev/zero"),
    *("/etc/ld.so.cache", "/etc/localtime", "/etc/timezone", "/etc/ssl", "/etc/pki", "/etc/alternatives"),
    # Java asks for this user's name and this host's address.
    *("/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/etc/hosts", "/etc/host.conf", "/etc/resolv.conf"),
    *("/etc/gai.conf", "/etc/hostname"),
)


def program_files() -> list[Path]:
    """Returns the files of the system, of Python, of Java and of this project; nothing of a state folder."""
    java = os.environ.get("JAVA_HOME") or shutil.which("java")
    homes: list[str | Path] = [
        sys.prefix,
        sys.base_prefix,
        sys.exec_prefix,
        *_SYSTEM,
        *Path("/etc").glob("java*"),
    ]
    if java:
        path = Path(java).resolve()
        homes.append(str(path if path.is_dir() else path.parents[1]))
    homes += [part for part in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep) if part]
    # Found now: their parent folder cannot be listed later.
    for package in (*ROOMS, *STANDALONE):
        homes += importlib.import_module(package).__path__
    # Where packages of Python lie that are in no environment.
    homes += [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    return [Path(home) for home in homes]


def confined_environment(scratch: Path) -> dict[str, str]:
    """Returns the environment of such a process: without our settings, which hold secrets.

    Args:
        scratch: An existing folder for temporary files of the process and of its JVM.
    """
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith("HEADWATER_")}
    options = f'-Djava.io.tmpdir="{scratch}" -XX:-UsePerfData'
    return kept | {
        "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path),
        "TMPDIR": str(scratch),
        "SPARK_LOCAL_DIRS": str(scratch),
        "JDK_JAVA_OPTIONS": f"{kept.get('JDK_JAVA_OPTIONS', '')} {options}".strip(),
    }
