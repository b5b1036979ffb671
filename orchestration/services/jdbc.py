"""The JDBC endpoint's user, password and start (`python -m orchestration.services.jdbc`).

Spark's Thrift server runs in a process (`jdbc_server`) that knows neither the settings nor the password: this
one makes the password, and becomes the other with an environment that holds no setting.
"""

import hashlib
import logging
import os
import secrets
import shutil
import sys
from pathlib import Path

from pydantic import BaseModel

from assets.lake.spark import REVEALED, NoSparkSession, SparkConfig
from common.atomic_files import PRIVATE_UMASK, atomic_file
from orchestration.environment.spark_guard import require_spark_guard
from orchestration.services.confinement import confined_environment
from orchestration.services.processes import is_port_free, port_holder
from orchestration.settings import Settings

logger = logging.getLogger(__name__)

JDBC_USER = "headwater"
"""The one user of the JDBC endpoint."""

_SERVER_MODULE = "orchestration.services.jdbc_server"


class JdbcServerConfig(BaseModel):
    """What the server's process is told, as JSON on its standard input.

    Attributes:
        lake_root: The folder of the tables.
        scratch: An empty folder, the only one that the process may write to.
        port: The port of loopback to listen on.
        spark: The Spark settings.
        password_sha256: SHA-256 (hex) of `user:password`.
        log_format: As in the settings.
    """

    lake_root: str
    scratch: Path
    port: int
    spark: SparkConfig
    password_sha256: str
    log_format: str


def jdbc_password_file(home: Path) -> Path:
    """Returns the file of a state folder that holds the JDBC password, in one line."""
    return home / "jdbc.password"


def read_jdbc_password(home: Path) -> str:
    """Returns the JDBC password of a state folder, which is made if there is none; it stays the same."""
    file = jdbc_password_file(home)
    if not file.exists():
        with atomic_file(file) as fresh:
            fresh.touch(mode=0o600)
            fresh.write_text(secrets.token_urlsafe(32) + "\n")
    return file.read_text().strip()


def start_jdbc_server(settings: Settings) -> None:
    """Becomes the server's process; does not return.

    Args:
        settings: The settings of the state folder.

    Raises:
        OSError: The port is taken.
        NoSparkSession: Spark's guard is not in the environment.
    """
    require_spark_guard()
    if not is_port_free(settings.thrift_port):
        raise OSError(
            f"port {settings.thrift_port} of 127.0.0.1 is taken by {port_holder(settings.thrift_port)}: "
            "stop that, or set HEADWATER_THRIFT_PORT to a free port"
        )
    scratch = settings.home / "thrift"
    shutil.rmtree(scratch, ignore_errors=True)
    (scratch / "tmp").mkdir(parents=True)
    known = f"{JDBC_USER}:{read_jdbc_password(settings.home)}"
    config = JdbcServerConfig(
        lake_root=settings.lake_root,
        scratch=scratch,
        port=settings.thrift_port,
        spark=settings.spark.model_copy(update={"driver_memory": settings.thrift_memory}),
        password_sha256=hashlib.sha256(known.encode()).hexdigest(),
        log_format=settings.log_format,
    )
    environment = confined_environment(scratch / "tmp")
    environment["JDK_JAVA_OPTIONS"] += f' -Dderby.system.home="{scratch}"'
    source, target = os.pipe()
    os.write(target, config.model_dump_json(context=REVEALED).encode())
    os.close(target)
    os.dup2(source, 0)
    os.chdir(scratch)
    # Not a child: the pid file names this process, and its environment can be read in /proc.
    os.execve(sys.executable, [sys.executable, "-P", "-m", _SERVER_MODULE], environment)  # noqa: S606


if __name__ == "__main__":
    os.umask(PRIVATE_UMASK)
    try:
        start_jdbc_server(Settings())
    except (OSError, NoSparkSession) as error:
        sys.exit(f"error: {error}")
