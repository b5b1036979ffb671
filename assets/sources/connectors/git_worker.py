"""The process that reads a Git repository: `python -m assets.sources.connectors.git_worker`.

It reads objects only: it checks nothing out, so no hook, filter or submodule is ever run and no name of a
file becomes one on this machine's disk, and it starts no process. It has bounds on its memory and on what it
writes, for a pack can hold an object of any size in a few bytes.
"""

import contextlib
import os
import re
import resource
import shutil
import stat
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote_from_bytes, unquote_to_bytes

import pyarrow as pa
import urllib3
from dulwich.client import HTTPUnauthorized, Urllib3HttpGitClient
from dulwich.errors import GitProtocolError, HangupException, NotGitRepository
from dulwich.object_store import BaseObjectStore
from dulwich.objects import S_ISGITLINK, Blob, Commit, ObjectID, Tag
from dulwich.refs import HEADREF, Ref
from dulwich.repo import Repo

from assets.sources.connectors.git_history import BranchCommit, FileVersion, file_commits, first_parents
from assets.sources.connectors.git_protocol import GIT_FILE_SCHEMA, GitFault, GitRequest
from assets.sources.source_config import compile_source_glob
from assets.sources.source_schemas import UNREACHABLE
from common.counts import counted

MAX_FETCHED_BYTES = 16 << 30
"""The largest file that is written: a pack of what was fetched."""
MAX_FILES = 2_000_000
"""More files than a branch may have: a few trees that hold one another would make any number of paths."""

_CONNECT_TIMEOUT_S, _READ_TIMEOUT_S = 20.0, 120.0
_BATCH_BYTES = 16 << 20
_MIRROR_REF = Ref(b"refs/heads/headwater")
_LFS = b"version https://git-lfs.github.com/spec/"
_MAX_POINTER_BYTES = 1024


class Unreadable(Exception):
    """The repository can not be read; the message says why and what to do."""


def run_git_worker(request: GitRequest) -> None:
    """Reads a repository, and writes its files to `request.answer`.

    Raises:
        Unreadable: It can not be read.
    """
    with contextlib.closing(_opened(request)) as repository:
        if request.wanted == "branch" and not request.location.startswith("/"):
            return  # that it is there is known, and what its files are would have to be fetched
        head = _head(repository, request)
        entries = _entries(repository.object_store, head, request.glob)
        if request.wanted == "branch":
            return
        known = {unquote_to_bytes(path): commit for path, commit in request.known.items()}
        history = first_parents(repository.object_store, head)
        commits = file_commits(repository.object_store, history, entries.keys(), known)
        again = {unquote_to_bytes(path) for path in request.read_again}
        rows = _rows(repository.object_store, entries, commits.last, commits.between, known, again, request)
        with pa.ipc.new_stream(request.answer, GIT_FILE_SCHEMA) as answer:
            held, held_bytes = list[dict[str, object]](), 0
            for row in rows:
                held.append(row)
                body = row["body"]
                held_bytes += 256 + (len(body) if isinstance(body, bytes) else 0)
                if held_bytes >= _BATCH_BYTES:
                    answer.write_batch(pa.RecordBatch.from_pylist(held, GIT_FILE_SCHEMA))
                    held, held_bytes = [], 0
            answer.write_batch(pa.RecordBatch.from_pylist(held, GIT_FILE_SCHEMA))


def _opened(request: GitRequest) -> Repo:
    """Returns the repository, or for a URL the mirror of it with what is new fetched."""
    if request.location.startswith("/"):
        try:
            return Repo(request.location)
        except NotGitRepository as error:
            raise Unreadable(f"there is no Git repository in {request.location}: check the path") from error
    mirror = Path(request.mirror)
    try:
        return _fetched(request, mirror)
    except (KeyError, AssertionError, NotGitRepository, OSError) as error:
        if isinstance(error, Unreadable) or not mirror.exists():
            raise
        # A mirror that a killed run or a full disk left broken is only a copy.
        shutil.rmtree(mirror)
        return _fetched(request, mirror)


def _fetched(request: GitRequest, mirror: Path) -> Repo:
    mirror.parent.mkdir(parents=True, exist_ok=True)
    local = Repo(str(mirror)) if mirror.exists() else Repo.init_bare(str(mirror), mkdir=True)
    base, _, name = request.location.rpartition("/")
    # Of our own, so that no configuration of a user, no stored password and no proxy has a say. A redirect
    # is an error: the host was named by whoever added the source, and no other is asked in its place.
    pool = urllib3.PoolManager(
        timeout=urllib3.Timeout(connect=_CONNECT_TIMEOUT_S, read=_READ_TIMEOUT_S),
        retries=urllib3.Retry(3, redirect=0, raise_on_redirect=False),
        headers={"User-Agent": "git/headwater"},  # some hosts speak Git only to what calls itself git
    )
    user = request.options.user or ("git" if request.password else None)
    client = Urllib3HttpGitClient(
        f"{base}/", pool_manager=pool, username=user, password=request.password, quiet=True
    )
    wanted = list[ObjectID]()

    def new_of(refs: Mapping[Ref, ObjectID], depth: int | None = None) -> list[ObjectID]:
        if client.dumb:
            raise Unreadable(
                f"{request.location} serves its files, but does not speak Git's smart protocol: clone it "
                "yourself, and add the folder of the clone"
            )
        wanted.append(_branch(refs, request))
        return [] if request.wanted == "branch" or wanted[0] in local.object_store else wanted

    try:
        client.fetch(name, local, determine_wants=new_of)
    except HTTPUnauthorized as error:
        raise Unreadable(
            f"{request.location} wants a user and a password, or refuses these: --user and --password-env"
        ) from error
    except NotGitRepository as error:
        raise Unreadable(f"there is no Git repository at {request.location}: check the address") from error
    except (GitProtocolError, HangupException, urllib3.exceptions.HTTPError) as error:
        # urllib3 tells of its retries, and last of what failed.
        if cause := re.search(r"Caused by \w+\(.*?([^:\"']+)[\"']?\)+$", str(error)):
            reason = cause[1].strip(" ()")
            raise Unreadable(
                f"{request.location} can not be reached ({reason}): check the address, and that this machine "
                "may connect to it"
            ) from error
        raise Unreadable(f"can not fetch {request.location} ({error}): check the address") from error
    if request.wanted != "branch":
        local.refs[_MIRROR_REF] = wanted[0]
    return local


def _branch(refs: Mapping[Ref, ObjectID], request: GitRequest) -> ObjectID:
    branch = request.options.branch
    wanted = HEADREF if branch is None else Ref(b"refs/heads/" + branch.encode())
    if not (found := refs.get(wanted)):
        names = sorted(ref[11:].decode(errors="replace") for ref in refs if ref.startswith(b"refs/heads/"))
        shown = ", ".join(names[:10]) or "none: it is empty"
        missing = f"branch {branch}" if branch else "HEAD that leads to a branch"
        raise Unreadable(
            f"{request.location} has no {missing}; its branches are {shown}: name one with --branch"
        )
    return found


def _head(repository: Repo, request: GitRequest) -> ObjectID:
    if not request.location.startswith("/"):
        return repository.refs[_MIRROR_REF]
    found = _branch(repository.get_refs(), request)
    while isinstance(tag := repository.object_store[found], Tag):
        found = tag.object[1]
    return found


def _entries(store: BaseObjectStore, head: ObjectID, glob: str) -> dict[bytes, tuple[int, ObjectID]]:
    """Returns mode and blob of every file of a commit that the glob matches and that is not hidden."""
    commit = store[head]
    if not isinstance(commit, Commit):
        raise Unreadable("the branch leads to no commit")
    matches = compile_source_glob(glob).fullmatch
    found = dict[bytes, tuple[int, ObjectID]]()
    seen = 0
    for entry in store.iter_tree_contents(commit.tree):
        seen += 1
        if seen > MAX_FILES:
            raise Unreadable(f"the branch has more than {MAX_FILES:,} files")
        hidden = any(part.startswith((b".", b"_")) for part in entry.path.split(b"/"))
        if not hidden and matches(os.fsdecode(entry.path)):
            found[entry.path] = (entry.mode, entry.sha)
    if not found and seen:
        raise Unreadable(f"of its {counted(seen, 'file')} none matches the glob {glob!r}, or all are hidden")
    return found


def _rows(
    store: BaseObjectStore,
    entries: Mapping[bytes, tuple[int, ObjectID]],
    last: Mapping[bytes, BranchCommit],
    between: Mapping[bytes, list[FileVersion]],
    known: Mapping[bytes, str],
    again: set[bytes],
    request: GitRequest,
) -> Iterator[dict[str, object]]:
    """Yields a row of `GIT_FILE_SCHEMA` per file, and before it those of its earlier versions."""
    for path, (mode, blob) in sorted(entries.items()):
        commit = last[path]
        if known.get(path) == commit.id and path not in again and not request.read_all:
            yield _row(path, commit, read=False)
            continue
        for version in between.get(path, ()) if request.wanted == "contents" else ():
            row = _row(path, version.commit, newest=False) | _content(
                store, version.mode, version.blob, request
            )
            if row["error"] is None:
                yield row
        yield _row(path, commit) | _content(store, mode, blob, request)


def _row(path: bytes, commit: BranchCommit, newest: bool = True, read: bool = True) -> dict[str, object]:
    return {
        "path": quote_from_bytes(path),
        "commit": commit.id,
        "committed_at": commit.committed_at,
        "newest": newest,
        "read": read,
        "size_bytes": None,
        "body": None,
        "error": None,
    }


def _content(store: BaseObjectStore, mode: int, blob: ObjectID, request: GitRequest) -> dict[str, object]:
    """Returns the size and the bytes of a file, or why it has none."""
    if S_ISGITLINK(mode):
        return {"error": f"submodule: It is a submodule, at commit {blob.decode()}."}
    try:
        found = store[blob]
        body = found.as_raw_string()
    except KeyError:
        return {"error": f"{UNREACHABLE}The repository lacks its bytes: it is a partial clone, or damaged."}
    except MemoryError:
        needed = f"It needs more memory than the {request.memory_bytes >> 20:,} MiB of the reader."
        return {"error": f"{UNREACHABLE}{needed}"}
    except Exception as error:  # a damaged object, or one that unpacks to more than the library takes
        return {"error": f"{UNREACHABLE}{type(error).__name__}: {str(error)[:200]}"}
    if not isinstance(found, Blob):
        return {"error": "unreadable: It is not a file."}
    if stat.S_ISLNK(mode):
        target = os.fsdecode(body[:200]).encode("unicode_escape").decode()
        return {"error": f"link: It is a symbolic link to {target}, and links are not followed."}
    if len(body) > request.max_file_bytes:
        too_large = f"It has {len(body):,} bytes, more than the {request.max_file_bytes:,} that are read."
        return {"size_bytes": len(body), "error": f"oversize: {too_large}"}
    if len(body) <= _MAX_POINTER_BYTES and body.startswith(_LFS):
        return {"error": "lfs_pointer: Git LFS keeps this file elsewhere: the repository has a pointer only."}
    return {"size_bytes": len(body), "body": body if request.wanted == "contents" else None}


def _confine(memory_bytes: int) -> None:
    bounds = {
        resource.RLIMIT_AS: memory_bytes,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: MAX_FETCHED_BYTES,
    }
    for kind, bound in bounds.items():
        with contextlib.suppress(ValueError, OSError):  # macOS has no bound on address space
            resource.setrlimit(kind, (bound, bound))


def main() -> None:
    """Answers the request on standard input; a fault is JSON on standard output."""
    request = GitRequest.model_validate_json(sys.stdin.buffer.read())
    _confine(request.memory_bytes)
    try:
        run_git_worker(request)
    except MemoryError:
        fault = f"it needs more memory than the {request.memory_bytes >> 20:,} MiB that reading it may take"
    except Unreadable as error:
        fault = str(error)
    except Exception as error:  # what a hostile repository does to the library is this repository's fault
        fault = f"{type(error).__name__}: {error}"
    else:
        return
    sys.stdout.write(GitFault(fault=fault).model_dump_json())


if __name__ == "__main__":
    main()
