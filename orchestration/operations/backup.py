"""Backup of a whole state folder to one file, and its restoration.

The index is dumped first and the tables are copied second, so that the lineage of the index points at
versions that the copy has, whatever a run writes meanwhile. A run after a restore continues from there.
"""

import hashlib
import io
import os
import shutil
import sqlite3
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Self

from pydantic import BaseModel

from assets.lake.lake import Lake
from assets.lake.tables import CHUNKS
from orchestration.migrations import STATE_VERSION
from orchestration.settings import Settings, open_lake
from retrieval.index.index import Index
from retrieval.store.postgres import Postgres

_DUMP = "postgres.dump"
_MANIFEST = "manifest.json"


class Manifest(BaseModel):
    """What a backup says of itself, in its last entry: a file that was cut off has none.

    Attributes:
        state_version: The version of the state folder; see `orchestration.migrations`.
        headwater: The version of the program.
        made_at: When it was made, in ISO 8601.
        release: The id of the live release; None before the first.
        sha256: The digest (hex) of each file, by its path in the state folder.
    """

    state_version: int
    headwater: str
    made_at: str
    release: str | None
    sha256: dict[str, str]

    @classmethod
    def of_now(cls, release: str | None, sha256: dict[str, str]) -> Self:
        """Returns the manifest of a backup that is made now."""
        return cls(
            state_version=STATE_VERSION,
            headwater=version("headwater"),
            made_at=datetime.now(UTC).isoformat(timespec="seconds"),
            release=release,
            sha256=sha256,
        )


@dataclass(frozen=True)
class BackupWritten:
    """A backup that was written; `release` is the id of the live release, None before the first."""

    file: str
    size_bytes: int
    files: int
    release: str | None


@dataclass(frozen=True)
class BackupRestored:
    """A backup that was restored; `chunks` is how many the live release serves."""

    release: str | None
    files: int
    chunks: int


class BackupError(RuntimeError):
    """A backup can not be made or restored; the message says why and what to do."""


def write_backup(settings: Settings, target: Path, progress: Callable[[str], None]) -> BackupWritten:
    """Writes everything that a state folder holds to one tar file, whole or not at all.

    Args:
        settings: Of the state folder.
        target: The file; it must not exist yet.
        progress: Called with the name of each part before it is copied.

    Raises:
        BackupError: The file exists already, or a part of the state is not in the folder.
    """
    if target.exists():
        raise BackupError(f"{target} is there already: name another file, or move it away")
    if settings.postgres.url or settings.lake:
        raise BackupError("the tables or PostgreSQL are not in the state folder: back them up where they are")
    open_lake(settings)
    postgres = Postgres(settings.home, settings.postgres)
    unfinished = target.with_name(target.name + ".unfinished")
    try:
        with (
            tempfile.TemporaryDirectory(prefix="headwater-backup-", dir=settings.home) as scratch,
            open(unfinished, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file_,
            tarfile.open(fileobj=file_, mode="w") as archive,
        ):
            digests: dict[str, str] = {}
            live = Index(postgres).live()
            progress("the index")
            postgres.dump(Path(scratch) / _DUMP)
            _add(archive, Path(scratch) / _DUMP, _DUMP, digests)
            progress("the tables")
            for file in _tables(settings.home / "lake"):
                _add(archive, file, str(file.relative_to(settings.home)), digests)
            for file in (
                settings.sources_file,
                settings.home / "state.json",
                *sorted(settings.user_suites_folder.glob("*.json")),
            ):
                if file.is_file():
                    _add(archive, file, str(file.relative_to(settings.home)), digests)
            progress("the runs")
            for file in sorted(settings.dagster_home.rglob("*.db")):
                copy = Path(scratch) / "copy.db"
                _copy_sqlite(file, copy)
                _add(archive, copy, str(file.relative_to(settings.home)), digests)
                copy.unlink()
            manifest = Manifest.of_now(live.release_id if live else None, digests)
            body = manifest.model_dump_json(indent=1).encode()
            entry = tarfile.TarInfo(_MANIFEST)
            entry.size = len(body)
            archive.addfile(entry, io.BytesIO(body))
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
    return BackupWritten(str(target), target.stat().st_size, len(digests), manifest.release)


def restore_backup(settings: Settings, source: Path, progress: Callable[[str], None]) -> BackupRestored:
    """Makes a state folder from a backup, whole or not at all.

    Args:
        settings: Of the state folder, which must be empty or missing.
        source: What `write_backup` wrote.
        progress: Called with the name of each part before it is restored.

    Raises:
        BackupError: The folder is in use, the file is not a whole backup, or its parts do not agree.
    """
    home = settings.home
    # A command that failed has left its log in a folder that is otherwise empty.
    if home.exists() and {path.name for path in home.iterdir()} - {"logs"}:
        raise BackupError(f"{home} is not empty: name another folder with HEADWATER_HOME, or move it away")
    if not source.is_file():
        raise BackupError(f"there is no file {source}")
    beside = home.with_name(home.name + ".restoring")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(mode=0o700, parents=True)
    aside = settings.model_copy(update={"home": beside})
    postgres = Postgres(beside, settings.postgres)
    try:
        progress("the tables")
        manifest = _unpack(source, beside)
        progress("the index")
        postgres.restore(beside / _DUMP)
        (beside / _DUMP).unlink()
        chunks = _served(open_lake(aside), Index(postgres))
        postgres.stop()
        shutil.rmtree(home, ignore_errors=True)
        beside.rename(home)
        if server := Postgres(home, settings.postgres).server:
            server.settle()
    except BaseException:
        postgres.remove()
        shutil.rmtree(beside, ignore_errors=True)
        raise
    return BackupRestored(manifest.release, len(manifest.sha256), chunks)


def _tables(lake: Path) -> list[Path]:
    """Returns the files of the tables, logs first: whatever a log names was written before it."""
    files = [path for path in sorted(lake.rglob("*")) if path.is_file()]
    return sorted(files, key=lambda path: "_delta_log" not in path.parts)


def _add(archive: tarfile.TarFile, file: Path, name: str, digests: dict[str, str]) -> None:
    with file.open("rb") as body:
        digests[name] = hashlib.file_digest(body, "sha256").hexdigest()
    archive.add(file, name, recursive=False)


def _copy_sqlite(file: Path, copy: Path) -> None:
    """Copies a database consistently, also while others write to it."""
    with sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True) as live, sqlite3.connect(copy) as made:
        live.backup(made)
    made.close()
    live.close()


def _unpack(source: Path, folder: Path) -> Manifest:
    try:
        with tarfile.open(source) as archive:
            archive.extractall(folder, filter="data")  # nothing lands outside the folder
    except (tarfile.TarError, OSError, EOFError) as error:
        raise BackupError(f"{source} is not a whole backup: {error}") from error
    if not (folder / _MANIFEST).is_file():
        raise BackupError(f"{source} is not a whole backup: it has no {_MANIFEST}, which is written last")
    manifest = Manifest.model_validate_json((folder / _MANIFEST).read_text())
    for name, digest in manifest.sha256.items():
        with (folder / name).open("rb") as body:
            if hashlib.file_digest(body, "sha256").hexdigest() != digest:
                raise BackupError(f"{source}: {name} is not what was backed up (its SHA-256 differs)")
    (folder / _MANIFEST).unlink()
    return manifest


def _served(lake: Lake, index: Index) -> int:
    """Returns how many chunks the live release serves.

    Raises:
        BackupError: Some of them are not in the version of the table that the release pins.
    """
    live = index.live()
    if live is None:
        return 0
    served = index.rows_at(live).select(["chunk_id"])
    lost = lake.query(
        "select count(*) as n from served anti join chunks using (chunk_id)",
        served=served,
        chunks=lake.delta(CHUNKS.name, live.details.versions[CHUNKS.name]),
    )["n"][0].as_py()
    if lost:
        raise BackupError(f"release {live.release_id} serves {lost} chunks that the tables do not have")
    return served.num_rows
