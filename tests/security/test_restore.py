"""A backup that somebody changed: nothing of it is read, and what is read can only be rows."""

import hmac
import io
import json
import os
import stat
import tarfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from index_rows import DIMENSION, NO_DETAILS, NO_LINEAGE, Chunk, batch

from orchestration.operations.backup import BACKUP_KEY_FILE, BackupError, restore_backup, write_backup
from orchestration.settings import Settings
from retrieval.index.index import Index
from retrieval.search.searcher import Searcher
from retrieval.store.postgres import Postgres

FUNCTIONS = (
    "SELECT proname, pg_get_functiondef(oid) FROM pg_proc "
    "WHERE pronamespace = 'headwater'::regnamespace ORDER BY 1"
)
MANIFEST, SIGNATURE = "manifest.json", "manifest.hmac-sha256"


@pytest.fixture(scope="module")
def settings(module_folder: Path) -> Iterator[Settings]:
    """A state folder with two generations of an index, the second live and changed since it was built."""
    made = Settings(home=module_folder / "home")
    postgres = Postgres(made.home)
    index = Index(postgres)
    rows = [Chunk(f"{tenant}-{i}", f"river {i} of {tenant}", tenant) for tenant in "xy" for i in range(5)]
    index.release("r1", index.build("m", "c", DIMENSION, [batch(rows)], NO_LINEAGE), None, NO_DETAILS)
    built = index.build("m", "c2", DIMENSION, [batch(rows)], NO_LINEAGE)
    changed = index.apply(built, [batch([Chunk("x-new", "a new river", "x")])], ["y-0"], NO_LINEAGE)
    index.release("r2", changed, "r1", NO_DETAILS)
    yield made
    postgres.remove()


@pytest.fixture(scope="module")
def backup(settings: Settings, module_folder: Path) -> Path:
    write_backup(settings, module_folder / "backup.tar", print)
    return module_folder / "backup.tar"


def test_a_backup_is_written_to_no_file_that_somebody_prepared(settings: Settings, tmp_path: Path) -> None:
    """In a folder that all may write to, whoever made the file before would read the backup in it."""
    theirs = tmp_path / "theirs"
    for name in ("file.tar", "link.tar"):
        prepared = tmp_path / f"{name}.unfinished"
        if name == "file.tar":
            prepared.touch(mode=0o666)
        else:
            prepared.symlink_to(theirs)
        with prepared.open("ab") as held:
            write_backup(settings, tmp_path / name, print)
            assert os.fstat(held.fileno()).st_size == 0
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


def entries(backup: Path) -> dict[str, bytes]:
    with tarfile.open(backup) as archive:
        bodies = {member.name: archive.extractfile(member) for member in archive}
        return {name: body.read() for name, body in bodies.items() if body}


def write(file: Path, bodies: dict[str, bytes], links: dict[str, str] | None = None) -> Path:
    with tarfile.open(file, "w") as archive:
        for name, body in bodies.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(body)
            archive.addfile(entry, io.BytesIO(body))
        for name, target in (links or {}).items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            archive.addfile(entry)
    return file


def signed(bodies: dict[str, bytes], key: bytes) -> dict[str, bytes]:
    """The entries with a manifest that is right about them."""
    manifest = json.loads(bodies[MANIFEST])
    rest = {name: body for name, body in bodies.items() if name not in (MANIFEST, SIGNATURE)}
    manifest["sha256"] = {name: sha256(body).hexdigest() for name, body in rest.items()}
    text = json.dumps(manifest).encode()
    return rest | {MANIFEST: text, SIGNATURE: hmac.digest(key, text, "sha256").hex().encode()}


def refused(backup: Path, key: Path, reason: str) -> None:
    home = backup.parent / "refused"
    with pytest.raises(BackupError, match=reason):
        restore_backup(Settings(home=home), backup, print, key)
    assert not home.exists()
    assert not home.with_name("refused.restoring").exists()


def test_a_backup_that_was_changed_is_not_read(settings: Settings, backup: Path, tmp_path: Path) -> None:
    key, bodies = settings.home / BACKUP_KEY_FILE, entries(backup)
    rows = next(name for name in bodies if name.startswith("index-rows/chunks"))
    changed = bodies | {rows: bodies[rows].replace(b"river", b"money")}
    refused(write(tmp_path / "1.tar", changed), key, "SHA-256")
    refused(write(tmp_path / "2.tar", signed(changed, b"guess")), key, "not signed with this key")
    unsigned = {name: body for name, body in changed.items() if name != SIGNATURE}
    refused(write(tmp_path / "3.tar", unsigned), key, "not a whole backup")
    refused(write(tmp_path / "4.tar", bodies | {SIGNATURE: b""}), key, "not signed with this key")
    (tmp_path / "other.key").write_text("0" * 64)
    refused(backup, tmp_path / "other.key", "not signed with this key")
    (tmp_path / "no.key").write_text("secret")
    refused(backup, tmp_path / "no.key", "64 hex digits")
    refused(backup, tmp_path / "missing.key", "--key")


def test_what_the_manifest_does_not_list_is_refused(settings: Settings, backup: Path, tmp_path: Path) -> None:
    key, bodies = settings.home / BACKUP_KEY_FILE, entries(backup)
    strange = bodies | {"dagster/sitecustomize.py": b"print(1)"}
    refused(write(tmp_path / "1.tar", strange), key, "does not list: dagster/sitecustomize.py")
    refused(write(tmp_path / "2.tar", bodies, {"lake/out": "/etc"}), key, "does not list: lake/out")
    missing = {name: body for name, body in bodies.items() if name != "state.json"}
    refused(write(tmp_path / "3.tar", missing), key, r"state\.json is missing")
    linked = signed(bodies, bytes.fromhex(key.read_text()))
    del linked["state.json"]
    refused(write(tmp_path / "4.tar", linked, {"state.json": "/etc/passwd"}), key, "no plain file")
    with tarfile.open(write(tmp_path / "5.tar", bodies), "a") as archive:
        archive.addfile(tarfile.TarInfo("state.json"))
    refused(tmp_path / "5.tar", key, "does not list")


def test_rows_that_are_none_are_refused_whoever_signed_them(
    settings: Settings, backup: Path, tmp_path: Path
) -> None:
    key, bodies = settings.home / BACKUP_KEY_FILE, entries(backup)
    secret = bytes.fromhex(key.read_text())
    for name in ("index-rows/chunks_g1.copy", "index-rows/scopes.copy"):
        program = bodies | {name: b"COPY (SELECT 1) TO PROGRAM 'touch /tmp/owned';"}
        refused(write(tmp_path / "1.tar", signed(program, secret)), key, "do not fit the index's tables")
    manifest = json.loads(bodies[MANIFEST])
    manifest["index"]["columns"]["releases"] = ["release_id) FROM PROGRAM 'id'; --"]
    named = bodies | {MANIFEST: json.dumps(manifest).encode()}
    refused(write(tmp_path / "2.tar", signed(named, secret)), key, "other columns")


def test_a_functions_body_is_ours_whatever_was_backed_up(settings: Settings, module_folder: Path) -> None:
    """Of the database that is backed up, only rows come back."""
    source = Postgres(settings.home)
    with source.owner() as connection:
        ours = connection.execute(FUNCTIONS).fetchall()
        connection.execute(
            "CREATE OR REPLACE FUNCTION headwater.keep_no_statistics(of regclass) RETURNS void "
            "LANGUAGE plpgsql AS 'BEGIN END'; "
            "CREATE FUNCTION headwater.mine() RETURNS integer LANGUAGE sql AS 'SELECT 1'; "
            "CREATE TABLE headwater.strange AS SELECT 1 AS one"
        )
    rows = module_folder / "rows"
    rows.mkdir()
    restored = Postgres(module_folder / "restored")
    try:
        Index(restored).restore(rows, Index(source).dump(rows))
        with restored.owner() as connection:
            assert connection.execute(FUNCTIONS).fetchall() == ours
            assert connection.execute("SELECT to_regclass('headwater.strange')").fetchone() == (None,)
        for release in ("r1", "r2"):
            point = next(each for each in Index(source).releases() if each.release_id == release)
            assert Index(restored).rows_at(point).equals(Index(source).rows_at(point))
        for tenant in "xy":
            found = [
                Searcher(each).search(tenant, "river", None, 9, "lexical") for each in (source, restored)
            ]
            assert [(hit.chunk_id, hit.score) for hit in found[0]] == [
                (hit.chunk_id, hit.score) for hit in found[1]
            ]
            assert found[0]
        assert restored._access_key() == source._access_key()
        newest = Index(restored).build("m", "c3", DIMENSION, [batch([Chunk("z", "z")])], NO_LINEAGE)
        assert newest.generation == 3
    finally:
        restored.remove()
