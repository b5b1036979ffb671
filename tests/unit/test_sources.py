"""Sources: what they may be, where they are remembered, and how a folder of this machine is listed."""

import json
import os
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from assets.sources.local_files import list_local_files
from assets.sources.revisions import check_source_shrink
from assets.sources.source_config import (
    DuplicateSource,
    Source,
    SourceEmpty,
    SourceError,
    SourceShrunk,
    SourceUnreachable,
    UnknownSource,
    compile_source_glob,
)
from assets.sources.source_registry import SourceRegistry
from assets.sources.source_schemas import (
    SOURCE_LISTING_SCHEMA,
    path_to_source_uri,
    source_listing_digest,
    source_uri_to_path,
)

NAMES = st.binary(min_size=1, max_size=40).filter(lambda name: b"/" not in name and b"\0" not in name)


def source(folder: Path, **settings: Any) -> Source:
    return Source(name="docs", location=str(folder), **settings)


def names(listing: pa.Table) -> list[str]:
    return [Path(source_uri_to_path(uri)).name for uri in listing["uri"].to_pylist()]


def test_kind_follows_from_location_and_text_column(tmp_path: Path) -> None:
    assert source(tmp_path).kind == "files"
    assert source(tmp_path / "rows.jsonl").kind == "files"
    assert source(tmp_path / "rows.jsonl", text_column="text").kind == "rows"
    assert Source(name="demo", location="python-environment").kind == "python-environment"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"name": "a b"}, "pattern"),
        ({"name": ""}, "pattern"),
        ({"location": ""}, "at least 1"),
        ({"tenant": "a\x1fb"}, "pattern"),
        ({"glob": "[a"}, "not complete"),
        ({"glob": "{a"}, "not complete"),
        ({"glob": "*.md", "location": "/docs/*.txt"}, "wildcards"),
        ({"id_column": "id"}, "--text-column"),
        ({"location": "/rows.parquet"}, "--text-column"),
        ({"location": "python-environment", "text_column": "x", "kind": "rows"}, "can not be at"),
        ({"kind": "rows"}, "--text-column"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_source_that_makes_no_sense_is_refused(settings: Any, said: str | None) -> None:
    settings = {"name": "docs", "location": "/docs"} | settings
    if said is None:
        assert Source(**settings)  # an open bracket is a character, as in a shell
        return
    with pytest.raises(ValidationError, match=said):
        Source(**settings)


def test_relative_home_and_file_uri_locations_become_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")
    assert Source(name="a", location="docs/").location == str(tmp_path / "docs")
    assert Source(name="a", location="~/docs").location == "/home/someone/docs"
    assert Source(name="a", location="file:///a%20b/c").location == "/a b/c"
    assert Source(name="a", location="s3a://bucket/a b/").location == "s3a://bucket/a b"
    assert Source(name="a", location="s3a://bucket/a b").local_root is None


def test_a_location_with_wildcards_is_a_folder_and_a_glob(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = Source(name="a", location="/data/20*/**/*.md")
    assert (found.location, found.glob) == ("/data", "20*/**/*.md")
    assert Source(name="a", location="*.md").location == str(tmp_path)
    assert Source(name="a", location="/*.md").location == "/"
    (tmp_path / "really [this]").mkdir()
    literal = Source(name="a", location=str(tmp_path / "really [this]"))
    assert literal.location == str(tmp_path / "really [this]")


def test_digest_changes_with_what_is_read_and_not_with_the_questions(tmp_path: Path) -> None:
    assert source(tmp_path).digest != source(tmp_path, glob="*.md").digest
    assert source(tmp_path).digest == source(tmp_path, questions="q.jsonl").digest


@pytest.mark.parametrize(
    ("glob", "matched", "unmatched"),
    [
        ("**/*", ["a", "a/b/c.md", ".x/y"], []),
        ("*.md", ["a.md"], ["a/b.md", "amd"]),
        ("**/*.md", ["a.md", "x/y/a.md"], ["a.mdx", "x/a.md/b"]),
        ("guide/**", ["guide/a", "guide/a/b"], ["guides/a"]),
        ("a?c", ["abc"], ["a/c", "ac"]),
        ("v[0-9].txt", ["v1.txt"], ["vx.txt", "v[.txt"]),
        ("v[!0-9].txt", ["vx.txt"], ["v1.txt", "v/.txt"]),
        ("v[^].txt", ["v^.txt"], ["vx.txt"]),
        ("**/*.{md,rst}", ["a.md", "b/c.rst"], ["a.{md", "a.txt"]),
        ("a,b", ["a,b"], ["a", "b"]),
        ("a.b+(c)", ["a.b+(c)"], ["axb+(c)"]),
        ("[]]", ["]"], ["a"]),
    ],
)
def test_globs(glob: str, matched: list[str], unmatched: list[str]) -> None:
    pattern = compile_source_glob(glob)
    assert [path for path in matched + unmatched if pattern.fullmatch(path)] == matched


@given(NAMES)
def test_any_name_survives_the_way_to_a_uri_and_back(name: Any) -> None:
    path = os.fsdecode(b"/folder/" + name)
    uri = path_to_source_uri(path)
    assert uri.isascii()
    assert not set("# ?\n\"'") & set(uri)
    assert source_uri_to_path(uri) == path


@given(st.text(min_size=1).filter(lambda t: "/" not in t and "\0" not in t and t not in (".", "..")))
def test_uris_are_those_of_pathlib(name: Any) -> None:
    try:
        path = Path("/folder") / name
        expected = path.as_uri()
    except UnicodeEncodeError:
        return  # a lone surrogate, which no file's name decodes to
    assert path_to_source_uri(str(path)) == expected


def test_registry_remembers_in_order_and_replaces_whole(tmp_path: Path) -> None:
    registry = SourceRegistry(tmp_path / "state" / "sources.json")
    assert registry.list() == []
    first = Source(name="b", location=str(tmp_path), tenant="t", glob="*.md")
    registry.add(first)
    registry.add(Source(name="a", location="python-environment"))
    again = SourceRegistry(tmp_path / "state" / "sources.json")
    assert [s.name for s in again.list()] == ["b", "a"]
    assert again.get("b") == first
    assert again.remove("b") == first
    assert [s.name for s in again.list()] == ["a"]
    assert not list((tmp_path / "state").glob("*.tmp"))


def test_registry_refuses_duplicates_missing_folders_and_unknown_names(tmp_path: Path) -> None:
    registry = SourceRegistry(tmp_path / "sources.json")
    registry.add(source(tmp_path))
    with pytest.raises(DuplicateSource, match=r"'docs' is there already.*remove docs"):
        registry.add(source(tmp_path))
    with pytest.raises(SourceUnreachable, match="nowhere"):
        registry.add(Source(name="x", location=str(tmp_path / "nowhere")))
    with pytest.raises(SourceUnreachable, match=r"q\.jsonl"):
        registry.add(Source(name="x", location=str(tmp_path), questions=str(tmp_path / "q.jsonl")))
    with pytest.raises(UnknownSource, match="'y'; there are: docs"):
        registry.get("y")
    with pytest.raises(UnknownSource):
        registry.remove("y")
    assert [s.name for s in registry.list()] == ["docs"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"sources": [{"name": "a b", "location": "/"}]}', "\xff"])
def test_registry_says_which_file_is_broken(tmp_path: Path, text: str) -> None:
    path = tmp_path / "sources.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(SourceError, match=str(path)):
        SourceRegistry(path).list()


def test_two_writers_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "sources.json"

    def add(worker: int) -> None:
        for i in range(10):
            SourceRegistry(path).add(Source(name=f"s{worker}-{i}", location=str(tmp_path)))

    threads = [threading.Thread(target=add, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(SourceRegistry(path).list()) == 40
    assert len(json.loads(path.read_text())["sources"]) == 40


def test_listing_has_sizes_times_and_every_visible_file_once(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.md").write_bytes(b"12345")
    os.utime(tmp_path / "sub" / "b.md", ns=(0, 1_700_000_000_123_456_789))
    (tmp_path / "a.txt").write_bytes(b"")
    for hidden in (".git", "_build"):
        (tmp_path / hidden).mkdir()
        (tmp_path / hidden / "x.md").touch()
    (tmp_path / ".hidden.md").touch()
    listing = list_local_files(source(tmp_path))
    assert listing.schema == SOURCE_LISTING_SCHEMA
    assert names(listing) == ["a.txt", "b.md"]
    assert listing["file_size_bytes"].to_pylist() == [0, 5]
    assert listing["file_modified_at"].to_pylist()[1].isoformat() == "2023-11-14T22:13:20.123456+00:00"
    assert names(list_local_files(source(tmp_path, glob="**/*.md"))) == ["b.md"]
    assert names(list_local_files(source(tmp_path / "sub" / "b.md"))) == ["b.md"]


def test_links_are_followed_once_and_loops_end(tmp_path: Path) -> None:
    real = tmp_path / "docs" / "real"
    real.mkdir(parents=True)
    (real / "a.txt").touch()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "b.txt").touch()
    (tmp_path / "docs" / "alias").symlink_to(real)  # sorts before the folder it points to
    (real / "loop").symlink_to(tmp_path / "docs")
    (real / "self").symlink_to("self")
    (tmp_path / "docs" / "linked").symlink_to(outside)
    (tmp_path / "docs" / "dangling.txt").symlink_to("nothing")
    (tmp_path / "docs" / "c.txt").symlink_to(outside / "b.txt")
    found = {
        uri.partition("/docs/")[2] for uri in list_local_files(source(tmp_path / "docs"))["uri"].to_pylist()
    }
    # What leads out of the source is listed, to be reported, and not followed.
    assert found == {"real/a.txt", "linked", "dangling.txt", "c.txt", "real/self"}


def test_a_root_that_is_gone_is_not_an_empty_folder(tmp_path: Path) -> None:
    gone = source(tmp_path / "gone")
    with pytest.raises(SourceUnreachable, match=r"source docs: can not list .*gone"):
        list_local_files(gone)
    (tmp_path / "gone").mkdir()
    with pytest.raises(SourceEmpty, match=r"no documents in .*gone"):
        list_local_files(gone)
    (tmp_path / "gone" / "a.txt").touch()
    with pytest.raises(SourceEmpty, match=r"of 1 file in .* none matches"):
        list_local_files(source(tmp_path / "gone", glob="**/*.md"))


def test_a_folder_that_can_not_be_listed_stops_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.txt").touch()
    scandir = os.scandir

    def refuse(path: Any) -> Any:
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(SourceUnreachable, match=r"/sub \(Permission denied\)"):
        list_local_files(source(tmp_path))


def test_the_cursor_changes_when_a_file_comes_goes_or_is_written(tmp_path: Path) -> None:
    cursors = []

    def look() -> None:
        cursors.append(source_listing_digest(list_local_files(source(tmp_path))))

    (tmp_path / "a.txt").write_text("a")
    look()
    (tmp_path / "b.txt").write_text("b")
    look()
    os.utime(tmp_path / "b.txt", ns=(1, 1))
    look()
    (tmp_path / "a.txt").unlink()
    look()
    assert len(set(cursors)) == 4
    look()
    assert cursors[-1] == cursors[-2]


@pytest.mark.parametrize(
    ("vanished", "known", "share", "stops"),
    [(5, 5, 0.5, False), (10, 12, 0.5, False), (11, 12, 0.5, True), (50, 100, 0.5, False),
     (51, 100, 0.5, True), (100, 100, 1.0, False), (11, 1000, 0.0, True)],
)  # fmt: skip
def test_a_source_that_shrank_by_much_is_asked_about_first(
    tmp_path: Path, vanished: int, known: int, share: float, stops: bool
) -> None:
    if not stops:
        check_source_shrink(source(tmp_path), vanished, known, share)
        return
    with pytest.raises(SourceShrunk, match=f"{vanished} of its {known} .*--accept-shrink"):
        check_source_shrink(source(tmp_path), vanished, known, share)
