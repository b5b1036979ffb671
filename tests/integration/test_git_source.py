"""A Git repository as a source: commits become revisions, and no repository makes the reader do anything."""

import base64
import io
import re
import stat
import threading
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIServer, make_server

import pytest
from bronze_runs import SourcesRead, raw_rows, read_sources
from dulwich.repo import Repo
from dulwich.server import BackendRepo, DictBackend
from dulwich.web import HTTPGitApplication, WSGIRequestHandlerLogger
from git_repositories import FIRST_TIME, LINK, SUBMODULE, GitRepository, Special

from assets.sources.connector_options import GitOptions
from assets.sources.connectors import git_repository
from assets.sources.connectors.git_repository import git_mirror, git_mirrors, preview_git_repository
from assets.sources.revisions import STATE
from assets.sources.source_check import check_connected_source
from assets.sources.source_config import Source, SourceUnreachable
from assets.sources.source_reader import preview_connected_source
from assets.sources.source_registry import SourceRegistry
from orchestration.settings import Settings, open_configured_lake

PASSWORD = "correct horse battery staple"


def run(settings: Settings) -> SourcesRead:
    outcome = read_sources(settings)
    assert outcome.failure is None
    return outcome


def revisions(settings: Settings) -> dict[str, list[dict[str, Any]]]:
    """The revisions of each document, by its path in the repository."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in raw_rows(settings, "repo"):
        found.setdefault(row["uri"].partition("repo.git/")[2], []).append(row)
    return found


def errors(settings: Settings) -> dict[str, str | None]:
    return {path: rows[-1]["error"] for path, rows in revisions(settings).items()}


@pytest.fixture
def repo(tmp_path: Path) -> GitRepository:
    return GitRepository(tmp_path / "repo.git")


@pytest.fixture
def settings(tmp_path: Path, repo: GitRepository) -> Settings:
    """A state folder with the repository as its source, read at its second commit."""
    settings = Settings(home=tmp_path / "home")
    repo.commit({"a.md": b"# A\n\nThe first text.", "docs/b.md": b"# B\n\nIt stays."})
    repo.commit({"a.md": b"# A\n\nThe second text.", "docs/b.md": b"# B\n\nIt stays."})
    SourceRegistry(settings.sources_file).add(Source(name="repo", location=str(repo.path), git=GitOptions()))
    run(settings)
    return settings


def test_each_commit_is_a_revision_of_the_files_that_it_changed(
    settings: Settings, repo: GitRepository
) -> None:
    first = revisions(settings)
    assert {path: [row["revision"] for row in rows] for path, rows in first.items()} == {
        "a.md": [1],
        "docs/b.md": [1],
    }
    assert first["a.md"][0]["source_version"] == repo.head
    assert first["a.md"][0]["file_modified_at"] == datetime.fromtimestamp(FIRST_TIME + 3600, UTC)
    assert first["docs/b.md"][0]["file_modified_at"] == datetime.fromtimestamp(FIRST_TIME, UTC)
    assert first["a.md"][0]["uri"] == f"git+file://{repo.path}/a.md"
    stays: dict[str | bytes, bytes | Special] = {"docs/b.md": b"# B\n\nIt stays."}
    third = repo.commit({"a.md": b"# A\n\nThe third text.", **stays})
    fourth = repo.commit({"a.md": b"# A\n\nThe second text.", "c.md": b"New.", **stays})
    run(settings)
    now = revisions(settings)
    assert [(row["body"], row["source_version"]) for row in now["a.md"][1:]] == [
        (b"# A\n\nThe third text.", third),
        (b"# A\n\nThe second text.", fourth),
    ]
    assert [row["revision"] for row in now["a.md"]] == [1, 2, 3]
    assert now["docs/b.md"] == first["docs/b.md"]
    assert [row["source_version"] for row in now["c.md"]] == [fourth]


def test_a_run_without_a_new_commit_writes_none(settings: Settings, repo: GitRepository) -> None:
    lake = open_configured_lake(settings)
    before = lake.version("bronze.raw_documents")
    run(settings)
    repo.commit({"a.md": b"# A\n\nThe second text.", "docs/b.md": b"# B\n\nIt stays.", ".hidden": b"x"})
    run(settings)
    assert lake.version("bronze.raw_documents") == before


def test_what_can_not_be_read_is_unchanged_as_long_as_its_bytes_are(
    settings: Settings, repo: GitRepository
) -> None:
    """An archive with files that are quarantined, a link, a submodule and a pointer of Git LFS."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("a.md", "It can be read.")
        packed.writestr("../b.md", "Its name leads up.")
    repo.commit(
        {
            "docs.zip": archive.getvalue(),
            "link": Special(LINK, b"docs.zip"),
            "sub": Special(SUBMODULE, b"1" * 40),
            "model.bin": b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64,
        }
    )
    run(settings)
    errors_found = {error for error in errors(settings).values() if error}
    assert {error.partition(":")[0] for error in errors_found} >= {"link", "submodule", "lfs_pointer"}
    lake = open_configured_lake(settings)
    state, version = (
        lake.query(STATE, raw=lake.delta("bronze.raw_documents")),
        lake.version("bronze.raw_documents"),
    )
    [source] = SourceRegistry(settings.sources_file).list()
    found = preview_connected_source(source, state)
    assert (found.listing.num_rows, found.read.num_rows) == (4, 0)
    run(settings)
    assert lake.version("bronze.raw_documents") == version


def test_what_is_deleted_or_renamed_becomes_a_tombstone(settings: Settings, repo: GitRepository) -> None:
    repo.commit({"moved/a.md": b"# A\n\nThe second text."})
    run(settings)
    found = revisions(settings)
    assert {path: rows[-1]["deleted"] for path, rows in found.items()} == {
        "a.md": True,
        "docs/b.md": True,
        "moved/a.md": False,
    }
    repo.commit({"a.md": b"It came back."})
    run(settings)
    rows = revisions(settings)["a.md"]
    assert [(row["revision"], row["deleted"], row["body"]) for row in rows[1:]] == [
        (2, True, None),
        (3, False, b"It came back."),
    ]


def test_a_history_that_was_written_anew_is_read_as_it_is_now(
    settings: Settings, repo: GitRepository
) -> None:
    root = repo.commit({"a.md": b"Of another history.", "docs/b.md": b"# B\n\nIt stays."}, parents=())
    run(settings)
    found = revisions(settings)
    assert found["a.md"][-1]["body"] == b"Of another history."
    assert found["a.md"][-1]["source_version"] == root
    assert not found["docs/b.md"][-1]["deleted"]
    assert found["docs/b.md"][-1]["source_version"] == root
    assert [row["body"] for row in found["docs/b.md"]] == [b"# B\n\nIt stays.", None]


def test_what_a_merge_brought_in_is_the_merges_change(settings: Settings, repo: GitRepository) -> None:
    main = repo.head
    assert main
    side = repo.commit({"a.md": b"On a side branch.", "docs/b.md": b"# B\n\nIt stays."})
    merge = repo.commit({"a.md": b"Merged.", "docs/b.md": b"# B\n\nIt stays."}, parents=(main, side))
    run(settings)
    assert [(row["source_version"], row["body"]) for row in revisions(settings)["a.md"][1:]] == [
        (merge, b"Merged.")
    ]


def test_too_many_deletions_stop_the_source(settings: Settings, repo: GitRepository) -> None:
    repo.commit({f"{number}.md": b"Text %d." % number for number in range(30)})
    run(settings)
    repo.commit({"0.md": b"Text 0."})
    failure = read_sources(settings).failure or ""
    assert "29 of its 30 documents are gone" in failure
    assert not revisions(settings)["1.md"][-1]["deleted"]
    run(settings.model_copy(update={"max_shrink": 1.0}))
    assert revisions(settings)["1.md"][-1]["deleted"]


def test_a_repository_that_went_away_keeps_its_documents(settings: Settings, repo: GitRepository) -> None:
    repo.path.rename(repo.path.with_name("away"))
    assert "there is no Git repository in" in (read_sources(settings).failure or "")
    assert not any(rows[-1]["deleted"] for rows in revisions(settings).values())


def test_a_branch_is_read_and_one_that_is_missing_is_named(tmp_path: Path) -> None:
    repo = GitRepository(tmp_path / "repo.git", branch="release/1")
    repo.commit({"a.md": b"Of the release."})
    settings = Settings(home=tmp_path / "home")
    registry = SourceRegistry(settings.sources_file)
    registry.add(Source(name="none", location=str(repo.path), git=GitOptions(branch="main")))
    failure = read_sources(settings).failure or ""
    assert "has no branch main; its branches are release/1" in failure
    registry.add(Source(name="repo", location=str(repo.path), git=GitOptions(branch="release/1")))
    assert run(settings).unread.keys() == {"none"}
    assert revisions(settings)["a.md"][0]["body"] == b"Of the release."


def test_a_repository_is_tried_before_it_is_added(tmp_path: Path, repo: GitRepository, server: str) -> None:
    repo.commit({"a.md": b"Text."})
    closed = server.rpartition(":")[0] + ":9"

    def tried(location: str, branch: str | None = None, glob: str = "**/*") -> None:
        check_connected_source(Source(name="r", location=location, glob=glob, git=GitOptions(branch=branch)))

    tried(str(repo.path), "main")
    for location, branch, glob, reason in (
        (str(tmp_path / "none"), None, "**/*", "there is no Git repository in"),
        (str(repo.path), "mian", "**/*", "has no branch mian; its branches are main: name one with --branch"),
        (str(repo.path), None, "**/*.rst", "of its 1 file none matches the glob"),
        (f"{server}/repo.git", None, "**/*", "wants a user and a password"),
        (f"{closed}/repo.git", None, "**/*", "can not be reached (.*refused.*): check the address"),
    ):
        with pytest.raises(SourceUnreachable, match=re.escape(reason).replace(r"\.\*", ".*")):
            tried(location, branch, glob)


def test_a_hostile_repository_is_only_read(
    tmp_path: Path, settings: Settings, repo: GitRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "ran"
    for hook in ("post-checkout", "post-merge", "reference-transaction", "pre-auto-gc"):
        (repo.path / "hooks").mkdir(exist_ok=True)
        (repo.path / "hooks" / hook).write_text(f"#!/bin/sh\ntouch '{marker}'\n")
        (repo.path / "hooks" / hook).chmod(stat.S_IRWXU)
    with (repo.path / "config").open("a") as config:
        config.write(
            f"[core]\n\tfsmonitor = touch {marker}\n\tsshCommand = touch {marker}\n\tpager = touch {marker}\n"
            f'[filter "x"]\n\tsmudge = touch {marker}\n\tprocess = touch {marker}\n'
            f'[remote "origin"]\n\turl = ext::touch {marker}\n\tpromisor = true\n'
        )
    monkeypatch.setattr(git_repository, "MAX_SOURCE_FILE_BYTES", 1_000_000)
    secret = tmp_path / "secret"
    secret.write_text("not of this repository")
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 9\n"
    repo.commit(
        {
            "a.md": b"# A\n\nIt is still read.",
            "*.md attributes": b"x",
            "attributes": b"* filter=x",
            "out": Special(LINK, str(secret).encode()),
            "up": Special(LINK, b"../../../../etc/passwd"),
            "sub": Special(SUBMODULE, b"1" * 40),
            "modules": f'[submodule "sub"]\n\turl = ext::touch {marker}\n'.encode(),
            "big.txt": b"x" * 1_000_001,
            "model.bin": pointer,
            "..": b"a name that leads up",
            "-rf": b"a name that looks like an option",
            "a\nb;$(touch ran).txt": b"a name of two lines",
            b"\xff\xfe.txt": b"a name that is no UTF-8",
            "a#b?c%20d.txt": b"a name with marks of a URI",
            "../../escape.txt": b"a path that leads up",
        }
    )
    run(settings)
    assert not marker.exists()
    assert not (tmp_path / "escape.txt").exists()
    found = errors(settings)
    assert {path: error for path, error in found.items() if error is None}.keys() == {
        *("a.md", "*.md%20attributes".replace("*", "%2A"), "attributes", "modules", "-rf"),
        *("a%0Ab%3B%24%28touch%20ran%29.txt", "%FF%FE.txt", "a%23b%3Fc%2520d.txt", "docs/b.md"),
    }
    assert "links are not followed" in str(found["out"])
    assert "links are not followed" in str(found["up"])
    assert "a submodule, at commit 1111" in str(found["sub"])
    assert "1,000,001 bytes" in str(found["big.txt"])
    assert str(found["model.bin"]).startswith("lfs_pointer: ")
    bodies = [row["body"] for rows in revisions(settings).values() for row in rows if row["body"]]
    assert not any(b"not of this repository" in body or b"root:" in body for body in bodies)


def test_an_object_of_any_size_takes_bounded_memory(
    settings: Settings, repo: GitRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A blob of a gigabyte of zeros is a megabyte in the repository."""
    monkeypatch.setattr(git_repository, "MAX_MEMORY_BYTES", 1 << 30)
    repo.commit({"a.md": b"Still here.", "zeros.txt": bytes(600 << 20)})
    run(settings)
    assert str(errors(settings)["zeros.txt"]).startswith("unreachable: ")
    assert revisions(settings)["a.md"][-1]["body"] == b"Still here."


class _Quiet(WSGIRequestHandlerLogger):
    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


@pytest.fixture
def server(repo: GitRepository) -> Iterator[str]:
    """The address of the repository on a real HTTP server, which wants a password and can redirect."""
    backends: dict[str, BackendRepo] = {"/repo.git": Repo(str(repo.path))}
    git = HTTPGitApplication(DictBackend(backends))

    def application(environ: dict[str, Any], start: Any) -> Any:
        path = environ["PATH_INFO"]
        if path.startswith("/moved.git"):
            moved = path.replace("moved", "repo")
            to = f"http://localhost:{served.server_port}{moved}?service=git-upload-pack"
            start("302 Found", [("Location", to)])
            return [b""]
        if path.startswith("/files.git"):
            start("200 OK", [("Content-Type", "text/plain")])
            return [b"0" * 40 + b"\trefs/heads/main\n"]
        wanted = "Basic " + base64.b64encode(f"reader:{PASSWORD}".encode()).decode()
        if environ.get("HTTP_AUTHORIZATION") != wanted:
            start("401 Unauthorized", [("WWW-Authenticate", 'Basic realm="git"')])
            return [b""]
        return git(environ, start)

    served = make_server("127.0.0.1", 0, application, server_class=WSGIServer, handler_class=_Quiet)
    thread = threading.Thread(target=served.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{served.server_port}"
    served.shutdown()
    served.server_close()


def test_a_repository_by_url_is_fetched_with_a_password_that_is_nowhere(
    tmp_path: Path, repo: GitRepository, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = repo.commit({"a.md": b"The first text."})
    settings = Settings(home=tmp_path / "home")
    registry = SourceRegistry(settings.sources_file)
    login = GitOptions(user="reader", password_env="REPO_PASSWORD")
    source = Source(name="repo", location=f"{server}/repo.git", git=login)
    registry.add(source)
    failure = read_sources(settings).failure or ""
    assert "REPO_PASSWORD" in failure
    assert "is not set" in failure
    monkeypatch.setenv("REPO_PASSWORD", "a wrong one")
    failure = read_sources(settings).failure or ""
    assert "wants a user and a password, or refuses these" in failure
    monkeypatch.setenv("REPO_PASSWORD", PASSWORD)
    run(settings)
    second = repo.commit({"a.md": b"The second text."})
    run(settings)
    rows = revisions(settings)["a.md"]
    assert [(row["source_version"], row["body"]) for row in rows] == [
        (first, b"The first text."),
        (second, b"The second text."),
    ]
    assert rows[0]["uri"] == f"git+{server}/repo.git/a.md"
    mirror = git_mirror(open_configured_lake(settings).cache_dir, source)
    assert mirror.is_dir()
    stored = [path for path in settings.home.rglob("*") if path.is_file()]
    assert not [path for path in stored if PASSWORD.encode() in path.read_bytes()]
    (mirror / "HEAD").unlink()  # as a killed run may leave it
    repo.commit({"a.md": b"The third text."})
    run(settings)
    assert revisions(settings)["a.md"][-1]["body"] == b"The third text."
    registry.remove("repo")
    registry.add(Source(name="other", location=str(repo.path), git=GitOptions()))
    run(settings)
    assert revisions(settings)["a.md"][-1]["deleted"]
    assert list(git_mirrors(open_configured_lake(settings).cache_dir).iterdir()) == []


@pytest.mark.parametrize(
    ("path", "reason"), [("moved.git", "302"), ("files.git", "does not speak Git's smart protocol")]
)
def test_a_server_that_leads_elsewhere_is_refused(
    tmp_path: Path, repo: GitRepository, server: str, path: str, reason: str
) -> None:
    repo.commit({"a.md": b"Text."})
    settings = Settings(home=tmp_path / "home")
    SourceRegistry(settings.sources_file).add(
        Source(name="repo", location=f"{server}/{path}", git=GitOptions())
    )
    failure = read_sources(settings).failure or ""
    assert reason in failure


def test_a_preview_fetches_and_writes_nothing(
    tmp_path: Path, repo: GitRepository, settings: Settings
) -> None:
    lake = open_configured_lake(settings)
    state = lake.query(STATE, raw=lake.delta("bronze.raw_documents"))
    repo.commit({"a.md": b"12345", "docs/b.md": b"# B\n\nIt stays."})
    [source] = SourceRegistry(settings.sources_file).list()
    found = preview_git_repository(source, state, state.slice(0, 0))
    assert found.listing.num_rows == 2
    assert found.read["file_size_bytes"].to_pylist() == [5]


@pytest.mark.parametrize(
    "location",
    [
        "ext::sh -c 'touch ran'", "ssh://host/repo", "git@host:repo", "git://host/repo", "file:///etc",
        "https://user:secret@host/repo", "https://host/repo?a=b",
    ],
)  # fmt: skip
def test_other_transports_and_passwords_in_urls_are_refused(location: str) -> None:
    with pytest.raises(ValueError, match=r"add the folder of the clone|password-env|no address") as refused:
        Source(name="repo", location=location, git=GitOptions())
    assert "secret" not in str(refused.value)
