"""Reads a branch of a Git repository: a document per file, a revision per commit that changed it.

The URI of a file is `git+`, the address of the repository, `/` and its path: no branch and no commit, for a
document stays the same one when it changes. The commit is the revision's `source_version`, its time the
revision's `file_modified_at`.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from assets.lake.tables import RAW_DOCUMENTS
from assets.parsing.sandbox import ParserLimits
from assets.sources.connector_options import MissingPassword
from assets.sources.connectors.git_protocol import GitFault, GitRequest, GitWanted
from assets.sources.connectors.reading import ConnectorPreview, ConnectorReading, ContentSpool
from assets.sources.file_contents import source_file_contents
from assets.sources.local_files import MAX_SOURCE_FILE_BYTES
from assets.sources.source_config import Source, SourceEmpty, SourceUnreachable
from assets.sources.source_schemas import (
    SOURCE_CONTENT_SCHEMA,
    ListedFile,
    SourceContent,
    path_to_source_uri,
    source_content_batch,
    source_listing_table,
)
from common.redaction import redact_secrets

MAX_MEMORY_BYTES = 6 << 30
"""The largest address space of the process that reads a repository; its packs are mapped into it."""

_WORKER = "assets.sources.connectors.git_worker"
_TIMEOUT_S = 6 * 3600.0
"""No repository takes longer: a server that trickles would hold the run for ever."""
_EARLIER_BYTES = 64 << 20
"""What documents were between two readings is held in memory; beyond this size it is left out."""
_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "SSL_CERT_FILE")


def git_mirrors(cache_dir: Path) -> Path:
    """Returns the folder of the copies of repositories that are read by URL; each can be fetched again."""
    return cache_dir / "repositories"


def git_mirror(cache_dir: Path, source: Source) -> Path:
    """Returns the folder in which the copy of a source's repository is kept."""
    name = hashlib.sha256(f"{source.tenant}\x1f{source.name}\x1f{source.location}".encode()).hexdigest()
    return git_mirrors(cache_dir) / name[:32]


def remove_unclaimed_mirrors(cache_dir: Path, sources: Iterable[Source]) -> None:
    """Deletes the copies of repositories that no source has any more."""
    claimed = {git_mirror(cache_dir, source) for source in sources if source.git is not None}
    if git_mirrors(cache_dir).is_dir():
        for folder in git_mirrors(cache_dir).iterdir():
            if folder not in claimed:
                shutil.rmtree(folder, ignore_errors=True)


def git_uri_prefix(location: str) -> str:
    """Returns the beginning of the URIs of a repository's files."""
    return f"git+{path_to_source_uri(location) if location.startswith('/') else location}/"


def read_git_repository(
    source: Source,
    state: pa.Table,
    again: pa.Table,
    limits: ParserLimits,
    cache_dir: Path,
    scratch: Path,
    read_all: bool = False,
) -> ConnectorReading:
    """Fetches a repository if it is elsewhere, and reads the files that changed since the lake read them.

    Args:
        source: The source.
        state: The lake's newest revisions of its documents that are there, with the columns of `STATE`.
        again: The rows among them whose file is read though it has not changed.
        limits: The bounds on opening archives and messages.
        cache_dir: The local folder for cached files, in which the copy of a repository is kept.
        scratch: An empty folder for what is read.
        read_all: Whether files that have not changed are read too.

    Raises:
        SourceUnreachable: The repository can not be read.
        SourceEmpty: The branch has no file.
    """
    answer = scratch / "files.arrow"
    _run_worker(source, state, again, git_mirror(cache_dir, source), answer, "contents", read_all)
    listed, read_uris, earlier = list[ListedFile](), list[str](), list[SourceContent]()
    earlier_bytes = 0
    spool = ContentSpool(scratch)

    def documents() -> Iterator[SourceContent]:
        nonlocal earlier_bytes
        for row in _rows(answer):
            file = ListedFile(
                git_uri_prefix(source.location) + row["path"], None, row["committed_at"], row["commit"]
            )
            if not row["newest"]:
                found = list(source_file_contents(file, row["body"], limits))
                earlier_bytes += len(row["body"])
                # An archive is many documents, of which only the newest are kept.
                if len(found) == 1 and found[0].uri == file.uri and earlier_bytes <= _EARLIER_BYTES:
                    earlier.append(found[0])
                continue
            listed.append(file)
            if not row["read"]:
                continue
            read_uris.append(file.uri)
            if row["error"] is not None:
                yield SourceContent.failed(file, row["error"])
            else:
                yield from source_file_contents(file, row["body"], limits)

    spool.write(documents())
    answer.unlink()
    if not listed:
        raise SourceEmpty(f"source {source.name}: the branch of {source.location} has no files")
    warnings = []
    if earlier_bytes > _EARLIER_BYTES:
        warnings.append(
            f"source {source.name}: what its files were between the last reading and now is more than "
            f"{_EARLIER_BYTES >> 20} MiB: some of it was left out, and all files are as they are now"
        )
    history = pa.Table.from_batches([source_content_batch(earlier)], SOURCE_CONTENT_SCHEMA)
    return ConnectorReading(source_listing_table(listed), spool, read_uris, history, warnings)


def preview_git_repository(source: Source, state: pa.Table, again: pa.Table) -> ConnectorPreview:
    """Returns what `read_git_repository` would read; one by URL is fetched to a folder that goes.

    Raises:
        SourceUnreachable: The repository can not be read.
    """
    with tempfile.TemporaryDirectory(prefix="headwater-git-") as folder:
        mirror, answer = Path(folder) / "mirror", Path(folder) / "files.arrow"
        _run_worker(source, state, again, mirror, answer, "sizes")
        rows = [row for row in _rows(answer) if row["newest"]]
    prefix = git_uri_prefix(source.location)
    files = [
        (ListedFile(prefix + row["path"], row["size_bytes"], row["committed_at"], row["commit"]), row["read"])
        for row in rows
    ]
    return ConnectorPreview(
        source_listing_table(file for file, _ in files),
        source_listing_table(file for file, is_read in files if is_read),
    )


def check_git_repository(source: Source, timeout_s: float) -> None:
    """Looks for a repository and its branch, and in a folder of this machine for files that the glob matches.

    Raises:
        SourceUnreachable: The repository can not be read, or has not answered within so many seconds.
    """
    nothing = RAW_DOCUMENTS.schema.empty_table()
    with tempfile.TemporaryDirectory(prefix="headwater-git-") as folder:
        mirror, answer = Path(folder) / "mirror", Path(folder) / "files.arrow"
        _run_worker(source, nothing, nothing, mirror, answer, "branch", timeout_s=timeout_s)


def _rows(answer: Path) -> Iterator[dict[str, Any]]:
    with pa.memory_map(str(answer)) as file, pa.ipc.open_stream(file) as stream:
        for batch in stream:
            yield from batch.to_pylist()


def _run_worker(
    source: Source,
    state: pa.Table,
    again: pa.Table,
    mirror: Path,
    answer: Path,
    wanted: GitWanted,
    read_all: bool = False,
    timeout_s: float = _TIMEOUT_S,
) -> None:
    assert source.git is not None  # noqa: S101 - of a source of this kind
    try:
        password = source.git.password()
    except MissingPassword as error:
        raise SourceUnreachable(f"source {source.name}: {error}; nothing was changed") from error
    prefix = git_uri_prefix(source.location)
    files = pc.list_element(pc.split_pattern(state["uri"], "#", max_splits=1), 0)
    paths = pc.utf8_slice_codeunits(files, len(prefix)).to_pylist()
    request = GitRequest(
        location=source.location,
        options=source.git,
        password=password,
        mirror=str(mirror),
        glob=source.glob,
        known={
            path: commit
            for path, commit in zip(paths, state["source_version"].to_pylist(), strict=True)
            if commit is not None
        },
        read_again=[uri.partition("#")[0][len(prefix) :] for uri in again["uri"].to_pylist()],
        read_all=read_all,
        wanted=wanted,
        max_file_bytes=MAX_SOURCE_FILE_BYTES,
        memory_bytes=MAX_MEMORY_BYTES,
        answer=str(answer),
    )
    environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    environment["PYTHONPATH"] = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
    # Whatever a user's or the machine's configuration of Git says is not this source's.
    environment |= {"HOME": str(answer.parent), "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull}
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", _WORKER],
            input=request.model_dump_json().encode(),  # the password is in no argument and no environment
            capture_output=True,
            env=environment,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise SourceUnreachable(
            f"source {source.name}: {source.location} was not read within {timeout_s:,.0f} s; nothing was "
            "changed"
        ) from error
    if done.stdout:
        fault = GitFault.model_validate_json(done.stdout).fault
    elif done.returncode:
        last = (done.stderr.decode(errors="replace").strip().splitlines() or ["no word"])[-1]
        fault = f"the process that reads {source.location} ended with {done.returncode} ({last})"
    else:
        return
    fault = redact_secrets(fault, [password] if password else [])
    raise SourceUnreachable(f"source {source.name}: {fault}; nothing was changed")
