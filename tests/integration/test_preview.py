"""`--dry-run`, and what an upgrade makes a run do again: said beforehand, and nothing is written."""

import hashlib
import json
import shlex
import sqlite3
import tarfile
from pathlib import Path

import pytest
from bronze_runs import read_sources
from git_repositories import GitRepository
from typer.testing import CliRunner
from web_site import Page, web_site

from assets import pending_rebuilds
from assets.parsing.parse import PARSER_CHANGES, PARSER_VERSION
from assets.recipe import Recipe
from assets.silver import documents_digest
from assets.sources.connector_options import GitOptions, SitemapOptions, SqlOptions
from assets.sources.source_config import Source
from assets.sources.source_registry import SourceRegistry
from orchestration.cli.main import app
from orchestration.operations.ingest import ingest_sources
from orchestration.operations.runs import execute_run
from orchestration.preview.run_preview import KindPreview, preview_run, rebuild_lines
from orchestration.preview.text_shares import TextShares, measured_text_shares
from orchestration.settings import Settings, open_configured_lake

DOCS = Path(__file__).parents[2] / "docs" / "sources.md"
STATE_0 = Path(__file__).parent / "state-0.tar.gz"


def contents(folder: Path) -> dict[str, str]:
    """The digest of every file under a folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def folder_of(path: Path, **texts: str) -> Path:
    path.mkdir()
    for name, text in texts.items():
        (path / f"{name}.md").write_text(text)
    return path


def test_a_dry_run_of_a_folder_makes_no_state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docs = folder_of(tmp_path / "docs", a="12345", b="123")
    (docs / "c.txt").write_text("1")
    monkeypatch.setenv("HEADWATER_HOME", str(tmp_path / "home"))
    done = CliRunner().invoke(app, ["ingest", str(docs), "--dry-run", "--json"])
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    assert (found["files"], found["size_bytes"], found["rebuilds"]) == (3, 9, [])
    assert found["sources"][0]["by_kind"] == {
        ".md": {"files": 2, "size_bytes": 8},
        ".txt": {"files": 1, "size_bytes": 1},
    }
    assert found["seconds"] > 0
    assert found["basis"].startswith("assumed")
    shown = CliRunner().invoke(app, ["ingest", str(docs), "--dry-run"])
    assert "nothing was written" in shown.stdout
    assert not (tmp_path / "home").exists()
    missing = CliRunner().invoke(app, ["ingest", str(tmp_path / "none"), "--dry-run"])
    assert missing.exit_code == 1
    assert not (tmp_path / "home").exists()


def test_a_dry_run_says_what_is_new_changed_and_deleted(tmp_path: Path) -> None:
    docs = folder_of(tmp_path / "docs", same="Same.", edited="Old.", gone="Gone.")
    repo = GitRepository(tmp_path / "repo.git")
    repo.commit({"a.md": b"A.", "b.md": b"B."})
    with sqlite3.connect(tmp_path / "notes.db") as database:
        database.execute("create table notes as select 1 as id, 'Text.' as body, 1 as at")
    database.close()
    settings = Settings(home=tmp_path / "home")
    registry = SourceRegistry(settings.sources_file)
    registry.add(Source(name="docs", location=str(docs)))
    registry.add(Source(name="repo", location=str(repo.path), git=GitOptions()))
    registry.add(Source(name="away", location=str(folder_of(tmp_path / "away", a="Text."))))
    query = SqlOptions(
        query="select * from notes", id_column="id", text_columns=("body",), cursor_column="at"
    )
    registry.add(Source(name="notes", location=f"sqlite:///{tmp_path}/notes.db", sql=query))
    with web_site() as site:
        site.pages = {"/sitemap.xml": site.sitemap("/x"), "/x": Page(b"<p>A page.</p>")}
        options = SitemapOptions(pages_per_second=100)
        registry.add(Source(name="site", location=site.url, sitemap=options))
        assert read_sources(settings).unread == {}
        (docs / "edited.md").write_text("New and longer.")
        (docs / "gone.md").unlink()
        (docs / "new.rst").write_text("New.")
        (tmp_path / "away").rename(tmp_path / "elsewhere")
        repo.commit({"a.md": b"A.", "c.md": b"It is new."})
        with sqlite3.connect(tmp_path / "notes.db") as database:
            database.execute("insert into notes select 2, 'More.', 1")
        database.close()
        fresh = folder_of(tmp_path / "fresh", a="Fresh.", b="Too.")
        before = contents(tmp_path)
        found = {each.name: each for each in preview_run(settings, registry.list()).sources}
        left = [each for each in registry.list() if each.name in ("docs", "notes")]
        of_paths = preview_run(settings, left, ingest_sources(left, [str(docs), str(fresh)], "default"))
        assert contents(tmp_path) == before
    # Of paths that are given nothing else is told, and neither of what was removed.
    assert [(each.name, each.new) for each in of_paths.sources] == [("docs", 1), ("fresh", 2)]
    assert (of_paths.files, of_paths.other_sources) == (4, ["notes"])
    assert {"repo", "away", "site"} < {each.name for each in preview_run(settings, left).sources}
    counts = {
        name: (each.new, each.changed, each.again, each.unchanged, each.deleted)
        for name, each in found.items()
        if each.fault is None
    }
    assert counts == {
        "docs": (1, 1, 0, 1, 1),
        "repo": (1, 0, 0, 1, 1),
        "notes": (1, 0, 0, 1, 0),
        "site": (0, 1, 0, 0, 0),  # only the site knows whether it has changed
    }
    assert found["docs"].by_kind == {".md": KindPreview(1, 15), ".rst": KindPreview(1, 4)}
    assert found["repo"].size_bytes == 10
    assert found["site"].size_bytes is None
    assert "can not list" in str(found["away"].fault)


def test_time_and_disk_are_measured_where_a_run_was_large_enough(tmp_path: Path) -> None:
    docs = folder_of(tmp_path / "docs", a="A sentence of the text. " * 20_000)
    settings = Settings(home=tmp_path / "home")
    registry = SourceRegistry(settings.sources_file)
    registry.add(Source(name="docs", location=str(docs)))
    assert read_sources(settings).failure is None
    one = preview_run(settings, registry.list())
    assert (one.files, one.disk_bytes) == (0, 0)
    (docs / "b.md").write_text("Another sentence. " * 60_000)
    two = preview_run(settings, registry.list())
    assert two.basis.startswith("measured: a run of this lake read 0.5 MB of text")
    assert two.seconds > one.seconds
    assert two.disk_bytes > 0


@pytest.fixture
def old(tmp_path: Path) -> Settings:
    """A state folder that a Headwater of before there were versions made."""
    with tarfile.open(STATE_0) as archive:
        archive.extractall(tmp_path, filter="data")
    return Settings(home=tmp_path)


def test_a_lake_from_before_says_what_is_done_again(old: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(old.home)
    *lines, duration = rebuild_lines(old)
    assert any("documents are parsed again" in line for line in lines)
    assert "that takes about 1 minute" in duration
    monkeypatch.setenv("HEADWATER_HOME", str(old.home))
    done = CliRunner().invoke(app, ["run", "--dry-run", "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout)["rebuilds"] == lines
    assert contents(old.home) == before


def test_a_change_of_the_readers_alone_is_named() -> None:
    newest, _, rest = PARSER_VERSION.partition("+")
    assert int(newest) in PARSER_CHANGES, "say what this version of the parser changed"
    recipe = Recipe()
    said = pending_rebuilds._what_readers_changed(
        recipe, documents_digest(recipe, f"{int(newest) - 2}+{rest}")
    )
    assert said == "; ".join(PARSER_CHANGES[version] for version in (int(newest) - 1, int(newest)))
    assert pending_rebuilds._what_readers_changed(recipe, "another") is None


def test_the_examples_of_the_documentation_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_HOME", str(tmp_path / "home"))
    text = DOCS.read_text().replace("\\\n", " ")
    commands = [line for line in text.splitlines() if line.startswith("headwater source add ")]
    for command in commands:
        done = CliRunner().invoke(app, [*shlex.split(command)[1:], "--no-check"])
        assert done.exit_code == 0, (command, done.output)
    shown = CliRunner().invoke(app, ["source", "list"]).stdout
    for configured in (
        *(
            "branch main",
            "files docs/**/*.md",
            "select * from articles",
            "text in body",
            "cursor in changed_at",
        ),
        *("as reader", "password in SHOP_DB", "at most 2,000 pages, 2 per second", "everybody", "not known"),
    ):
        assert configured in shown
    listed = json.loads(CliRunner().invoke(app, ["source", "list", "--json"]).stdout)
    assert [source["kind"] for source in listed] == ["git", "sql", "sitemap"]
    assert "SHOP_DB" in (tmp_path / "home" / "sources.json").read_text()
    handbook = tmp_path / "handbook"
    handbook.mkdir()
    # A first word that names no kind is the name of a source, as it always was.
    done = CliRunner().invoke(app, ["source", "add", "folder", str(handbook), "--tenant", "acme"])
    assert done.exit_code == 0
    done = CliRunner().invoke(app, ["source", "add", "--tenant", "acme", "other", str(handbook)])
    assert done.exit_code == 0


def test_time_goes_by_text(tmp_path: Path) -> None:
    """Of pictures nothing is expected, and of other kinds what was found in those that were parsed."""
    docs = folder_of(tmp_path / "docs", a="A sentence of the text. " * 1_000)
    settings = Settings(home=tmp_path / "home")
    source = Source(name="docs", location=str(docs))
    few = preview_run(settings, [source])
    assert few.text_bytes == few.size_bytes == 24_000
    (docs / "film.mp4").write_bytes(bytes(50_000_000))
    (docs / "picture.png").write_bytes(bytes(50_000_000))
    many = preview_run(settings, [source])
    assert (many.size_bytes, many.text_bytes) == (100_024_000, 24_000)
    assert many.seconds == few.seconds
    assert many.disk_bytes == few.disk_bytes + 100_000_000
    shares = TextShares({".pdf": 0.01, ".png": 0.5, ".gz": 3.0})
    assert shares.text_bytes({".pdf": 1000, ".png": 10, ".gz": 10, ".md": 7, ".exe": 9, ".jpg": 9}) == 52


def test_the_share_of_text_is_what_was_parsed(tmp_path: Path) -> None:
    docs = folder_of(tmp_path / "docs", a="The harbour is closed on Mondays, and open on all others. " * 20)
    (docs / "page.html").write_text(
        f"<html><body><!--{'x' * 9_000}--><p>{'A short text. ' * 30}</p></body></html>"
    )
    (docs / "noise.dat").write_bytes(bytes(range(256)) * 20)
    settings = Settings(home=tmp_path / "home")
    SourceRegistry(settings.sources_file).add(Source(name="docs", location=str(docs)))
    assert execute_run(settings, 'key:"bronze/raw_documents" or key:"silver/documents"', print).failures == []
    shares = measured_text_shares(open_configured_lake(settings)).measured
    assert shares[".md"] == pytest.approx(1, abs=0.05)
    assert 0.01 < shares[".html"] < 0.1
    assert shares[".dat"] == 0
