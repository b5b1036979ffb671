"""Backup of a whole state folder to one file, and its restoration.

The index's rows are written first and the tables are copied second, so that the lineage of the index points
at versions that the copy has, whatever a run writes meanwhile. A run after a restore continues from there.

A backup is signed with the installation's key (`backup.key` in the state folder): HMAC-SHA-256 over the
manifest, which lists each file with its digest. A restore reads nothing that its key did not sign.
"""

import hashlib
import hmac
import io
import os
import re
import secrets
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
from common.atomic_files import atomic_file
from common.counts import counted
from common.progress import Progress
from orchestration.migrations import STATE_VERSION
from orchestration.settings import Settings, open_configured_lake
from retrieval.index.dump import IndexDump, InvalidIndexDump
from retrieval.index.index import Index
from retrieval.store.postgres import Postgres

BACKUP_KEY_FILE = "backup.key"
"""The file in a state folder that its backups are signed with: 64 hex digits. No backup holds it."""

_INDEX = "index-rows"
_MANIFEST = "manifest.json"
_SIGNATURE = "manifest.hmac-sha256"
_MOST_MANIFEST_BYTES = 256 << 20


class BackupManifest(BaseModel):
    """A backup's manifest, which is written last, so that a truncated file has none.

    Attributes:
        state_version: The version of the state folder; see `orchestration.migrations`.
        headwater: The version of the program.
        made_at: When it was made, in ISO 8601.
        release: The id of the live release; None before the first.
        sha256: The digest (hex) of each file, by its path in the state folder.
        index: What the files of the index's rows hold.
    """

    state_version: int
    headwater: str
    made_at: str
    release: str | None
    sha256: dict[str, str]
    index: IndexDump

    @classmethod
    def of_now(cls, release: str | None, sha256: dict[str, str], index: IndexDump) -> Self:
        """Returns the manifest of a backup made at this moment."""
        return cls(
            state_version=STATE_VERSION,
            headwater=version("headwater"),
            made_at=datetime.now(UTC).isoformat(timespec="seconds"),
            release=release,
            sha256=sha256,
            index=index,
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
        settings: The settings of the state folder.
        target: The file; it must not exist yet.
        progress: Called with the name of each part before it is copied.

    Raises:
        BackupError: The file exists already, or a part of the state is not in the folder.
    """
    if target.exists():
        raise BackupError(f"{target} is there already: name another file, or move it away")
    if settings.postgres.url or settings.lake:
        raise BackupError("the tables or PostgreSQL are not in the state folder: back them up where they are")
    open_configured_lake(settings)
    postgres = Postgres(settings.home, settings.postgres)
    unfinished = target.with_name(target.name + ".unfinished")
    # What a killed backup left, or what another user put into a folder that all may write to, to read it.
    unfinished.unlink(missing_ok=True)
    try:
        with (
            tempfile.TemporaryDirectory(prefix="headwater-backup-", dir=settings.home) as scratch,
            open(unfinished, "xb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file_,
            tarfile.open(fileobj=file_, mode="w") as archive,
        ):
            digests: dict[str, str] = {}
            live = Index(postgres).live()
            progress("the index")
            dump = Index(postgres).dump(Path(scratch))
            for name in dump.files():
                _add(archive, Path(scratch) / name, f"{_INDEX}/{name}", digests)
                (Path(scratch) / name).unlink()
            progress("the tables")
            tables = _tables(settings.home / "lake")
            copied = Progress("files of the tables copied", len(tables))
            for file in tables:
                _add(archive, file, str(file.relative_to(settings.home)), digests)
                copied.advance()
            for file in (
                settings.sources_file,
                settings.home / "state.json",
                *sorted(settings.user_suites_folder.glob("*.json")),
                # Asked again, an endpoint could give vectors of another identity: all would be embedded anew.
                *sorted((settings.models_folder / "endpoints").glob("*.json")),
                *_models(settings.models_folder),
                # How jobs ended, and their curves. The checkpoints of unfinished ones are several times a
                # model's size, and of no use on another machine.
                *sorted(settings.training_place.jobs.glob("*/*.json")),
                *sorted(settings.batches_dir.glob("*/*.json*")),
                *sorted(settings.datasets_folder.glob("*/*.json*")),
                *sorted(settings.datasets_folder.glob("*/[!.]*/*")),
            ):
                if file.is_file():
                    _add(archive, file, str(file.relative_to(settings.home)), digests)
            progress("the runs")
            for file in sorted(settings.dagster_home.rglob("*.db")):
                copy = Path(scratch) / "copy.db"
                _copy_sqlite(file, copy)
                _add(archive, copy, str(file.relative_to(settings.home)), digests)
                copy.unlink()
            manifest = BackupManifest.of_now(live.release_id if live else None, digests, dump)
            body = manifest.model_dump_json(indent=1).encode()
            signature = hmac.digest(_own_key(settings.home), body, "sha256").hex().encode()
            for name, content in ((_MANIFEST, body), (_SIGNATURE, signature)):
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode = len(content), 0o600
                archive.addfile(entry, io.BytesIO(content))
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
    return BackupWritten(str(target), target.stat().st_size, len(digests), manifest.release)


def restore_backup(
    settings: Settings, source: Path, progress: Callable[[str], None], key_file: Path | None = None
) -> BackupRestored:
    """Makes a state folder from a backup, whole or not at all.

    Args:
        settings: The settings of the state folder, which must be empty or missing.
        source: What `write_backup` wrote.
        progress: Called with the name of each part before it is restored.
        key_file: The key that signed the backup; by default `backup.key` in the state folder, which may hold
            nothing else then.

    Raises:
        BackupError: The folder is in use, there is no key or the backup was not signed with it, the file is
            not a whole backup, or its parts do not agree.
    """
    home = settings.home
    # A command that failed has left its log in a folder that is otherwise empty.
    if home.exists() and {path.name for path in home.iterdir()} - {"logs", BACKUP_KEY_FILE}:
        raise BackupError(f"{home} is not empty: name another folder with HEADWATER_HOME, or move it away")
    if not source.is_file():
        raise BackupError(f"there is no file {source}")
    key = _read_key(key_file or home / BACKUP_KEY_FILE)
    beside = home.with_name(home.name + ".restoring")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(mode=0o700, parents=True)
    aside = settings.model_copy(update={"home": beside})
    postgres = Postgres(beside, settings.postgres)
    try:
        progress("the tables")
        manifest = _unpack(source, beside, key)
        progress("the index")
        try:
            Index(postgres).restore(beside / _INDEX, manifest.index)
        except InvalidIndexDump as error:
            raise BackupError(f"{source}: {error}") from error
        shutil.rmtree(beside / _INDEX)
        _write_key(beside / BACKUP_KEY_FILE, key)
        chunks = _served(open_configured_lake(aside), Index(postgres))
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


def _models(models: Path) -> list[Path]:
    """Returns the files of the registry and the keys that sign it, without what is being written just now.

    Converted models, digests and MLflow's copy are not among them: they are made from these again.
    """
    versions = sorted((models / "registry").rglob("*"))
    whole = [path for path in versions if not any(part[0] == "." for part in path.relative_to(models).parts)]
    return [*sorted(models.glob("signing-key.*")), *whole]


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


def _own_key(home: Path) -> bytes:
    """Returns the key of this installation, made by its first backup."""
    file = home / BACKUP_KEY_FILE
    if not file.exists():
        _write_key(file, secrets.token_bytes(32))
    return _read_key(file)


def _write_key(file: Path, key: bytes) -> None:
    with atomic_file(file) as fresh:
        fresh.touch(mode=0o600)
        fresh.write_text(key.hex() + "\n")


def _read_key(file: Path) -> bytes:
    try:
        text = file.read_text().strip()
    except OSError as error:
        raise BackupError(
            f"a backup is restored with the key that signed it, and {file} can not be read "
            f"({error.strerror}): give the {BACKUP_KEY_FILE} of the state folder that it was made from with "
            "--key"
        ) from error
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise BackupError(f"{file} is no key of backups: it is one line of 64 hex digits")
    return bytes.fromhex(text)


def _unpack(source: Path, folder: Path, key: bytes) -> BackupManifest:
    """Takes out what the manifest lists, once its signature holds; anything else is an error."""
    try:
        with tarfile.open(source, "r:") as archive:
            members = archive.getmembers()
            entries = {member.name: member for member in members}
            manifest = _signed_manifest(source, archive, entries, key)
            strange = entries.keys() - manifest.sha256.keys() - {_MANIFEST, _SIGNATURE}
            if strange or len(entries) != len(members):
                raise BackupError(
                    f"{source} holds files that its manifest does not list: {', '.join(sorted(strange)[:5])}"
                )
            unpacked = Progress("files unpacked and compared with their digests", len(manifest.sha256))
            for name, digest in manifest.sha256.items():
                unpacked.advance()
                if name not in entries:
                    raise BackupError(f"{source} is not a whole backup: {name} is missing")
                _require_file(source, entries[name])
                private = entries[name].replace(mode=0o600, deep=False)
                archive.extract(private, folder, filter="data")  # nothing lands outside the folder
                with (folder / name).open("rb") as body:
                    if hashlib.file_digest(body, "sha256").hexdigest() != digest:
                        raise BackupError(f"{source}: {name} is not what was backed up (its SHA-256 differs)")
    except (tarfile.TarError, OSError, EOFError) as error:
        raise BackupError(f"{source} is not a whole backup: {error}") from error
    return manifest


def _signed_manifest(
    source: Path, archive: tarfile.TarFile, entries: dict[str, tarfile.TarInfo], key: bytes
) -> BackupManifest:
    texts = []
    for name in (_MANIFEST, _SIGNATURE):
        if name not in entries:
            raise BackupError(f"{source} is not a whole backup: it has no {name}, which is written last")
        _require_file(source, entries[name])
        body = archive.extractfile(entries[name])
        texts.append(body.read(_MOST_MANIFEST_BYTES) if body else b"")
    if not hmac.compare_digest(hmac.digest(key, texts[0], "sha256").hex().encode(), texts[1]):
        raise BackupError(
            f"{source} was not signed with this key: another installation made it, whose {BACKUP_KEY_FILE} "
            "is to be given with --key, or it was changed since"
        )
    return BackupManifest.model_validate_json(texts[0])


def _require_file(source: Path, member: tarfile.TarInfo) -> None:
    if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse():
        raise BackupError(f"{source}: {member.name} is no plain file")


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
        raise BackupError(f"release {live.release_id} serves {counted(lost, 'chunk')} that the tables lack")
    return served.num_rows
