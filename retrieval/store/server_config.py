"""The configuration of the embedded PostgreSQL server: the resources that it may use, as its own settings."""

import os
from pathlib import Path

import psutil
from pydantic import BaseModel, Field

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  only asked for its size


def _an_eighth_of_memory_mb() -> int:
    return max(256, min(2048, psutil.virtual_memory().total >> 23))


class EmbeddedServerConfig(BaseModel):
    """The resources that the embedded server may use; the defaults suit 2 cores and 8 GiB or more."""

    shared_buffers_mb: int = Field(default_factory=_an_eighth_of_memory_mb)
    """Memory for the server's cache of pages, used as it fills; by default an eighth of the machine's memory,
    at most 2,048. The operating system's cache holds the rest."""
    maintenance_work_mem_mb: int = 1024
    """Memory for building one index. An HNSW graph that does not fit is built many times slower."""
    max_connections: int = 60
    """The most connections of all processes together; each process holds a pool of a few."""
    idle_stop_s: float = Field(default=600, gt=0)
    """After so many seconds in which no process used it, the server stops itself; the next use starts it."""
    start_timeout_s: int = 120
    """The longest time that a start may take; after a crash, the write-ahead log is replayed first."""

    def postgres_settings(self, socket_folder: Path) -> dict[str, str | int | float]:
        """Returns PostgreSQL's settings by name, their values quoted where PostgreSQL wants quotes.

        Args:
            socket_folder: The folder of the Unix socket.
        """
        shared_memory = os.statvfs(_SHARED_MEMORY) if _SHARED_MEMORY.is_dir() else None
        shared_mb = shared_memory.f_bavail * shared_memory.f_frsize >> 20 if shared_memory else 0
        # A list of quoted names inside a quoted string: each kind of quote is doubled.
        quoted_folder = str(socket_folder).replace('"', '""').replace("'", "''")
        return {
            "listen_addresses": "''",
            "unix_socket_directories": f"'\"{quoted_folder}\"'",
            "unix_socket_permissions": "0700",
            "max_connections": self.max_connections,
            "shared_buffers": f"{self.shared_buffers_mb}MB",
            "effective_cache_size": f"{self.shared_buffers_mb * 4}MB",
            "maintenance_work_mem": f"{self.maintenance_work_mem_mb}MB",
            "work_mem": "32MB",
            # A parallel HNSW build keeps its graph in shared memory; containers often have 64 MB of it.
            "dynamic_shared_memory_type": "posix" if shared_mb > 2 * self.maintenance_work_mem_mb else "mmap",
            "max_parallel_maintenance_workers": max(1, (os.cpu_count() or 2) // 2),
            "max_parallel_workers_per_gather": 0,  # queries are milliseconds: starting a worker costs more
            "jit": "off",
            "random_page_cost": 1.1,
            "max_wal_size": "4GB",
            "checkpoint_timeout": "15min",
            "wal_compression": "pglz",
            # There is no replica to feed: without one a new generation's bytes are written once, not twice.
            "wal_level": "minimal",
            "max_wal_senders": 0,
            "client_connection_check_interval": "5s",  # a killed builder's statement ends
            "log_min_messages": "warning",
            "log_statement": "none",
            # Statements and details carry documents' text: not for a log.
            "log_min_error_statement": "panic",
            "log_error_verbosity": "terse",
        }
