"""The lineage in a table's commits, and the fencing token by which a writer that was overtaken is refused."""

import hashlib
import importlib
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from deltalake import CommitProperties, Transaction

from assets.columns import Table
from common.lineage import Lineage
from common.rooms import ROOMS, STANDALONE


def _code_version() -> str:
    """Returns the package version and a digest of the code that makes rows."""
    names = [name for name in (*ROOMS, *STANDALONE) if name != "orchestration"]
    folders = [Path(folder) for name in names for folder in importlib.import_module(name).__path__]
    files = [
        path for folder in folders for path in sorted(folder.rglob("*")) if path.suffix in (".py", ".sql")
    ]
    digest = hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()
    return f"{version('headwater')}+{digest[:12]}"


CODE_VERSION = _code_version()


@dataclass(frozen=True)
class Commit:
    """One commit of a Delta table that Headwater made."""

    table: str
    version: int
    committed_at: datetime
    operation: str
    metrics: dict[str, Any]
    lineage: Lineage


class WriteConflict(RuntimeError):
    """Another writer committed to the table since this one took its fencing token."""


def fencing_writer_id(table: Table) -> str:
    """Returns the Delta application id under which a table's writers take fencing tokens."""
    return f"headwater/{table.name}"


def commit_properties(table: Table, lineage: Lineage) -> CommitProperties:
    """Returns the delta-rs properties of a commit: its lineage, and its fencing token if it has one."""
    return CommitProperties(
        custom_metadata={"userMetadata": lineage.model_dump_json()},
        app_transactions=[Transaction(fencing_writer_id(table), lineage.fence)] if lineage.fence else None,
    )


def write_conflict(table: Table, lineage: Lineage) -> WriteConflict:
    """Returns the error to raise when another writer was faster."""
    return WriteConflict(
        f"{table.name}: another run has written since this one began (fencing token {lineage.fence}); "
        f"nothing was written: run again"
    )
