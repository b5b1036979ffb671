"""Reading sources with Spark: every file and row ends as one document, or as an error that says why."""

import bz2
import gzip
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from pyspark.sql import SparkSession

from assets.parsing.sandbox import ParserLimits
from assets.sources.environment_corpus import list_environment_corpus
from assets.sources.local_files import list_local_files
from assets.sources.source_config import Source, SourceEmpty, SourceUnreachable, UnreadableTabularFile
from assets.sources.source_reader import list_local_source, list_source, read_local_source, read_source
from assets.sources.source_schemas import SOURCE_CONTENT_SCHEMA, source_uri_to_path
from assets.sources.tabular_files import read_tabular_files

ODD_NAMES = [
    "a b.txt",
    "naïve.txt",
    "日本.txt",
    "new\nline.txt",
    "hash#1.txt",
    "per%20cent.txt",
    "q'uo\"te.txt",
    "com,ma.txt",
    "col:on.txt",
    "br[a]{c}*?.txt",
    "plus+.txt",
    "back\\slash.txt",
]


def read(spark: SparkSession, source: Source, listing: pa.Table | None = None) -> dict[str, dict]:
    listing = list_source(spark, source) if listing is None else listing
    frame = read_source(spark, source, listing, ParserLimits())
    table = frame.toArrow()
    assert table.schema.names == SOURCE_CONTENT_SCHEMA.names
    assert [field.type for field in table.schema] == [field.type for field in SOURCE_CONTENT_SCHEMA]
    rows = {row["uri"]: row for row in table.to_pylist()}
    assert len(rows) == table.num_rows, "two rows of one address"
    return rows


def rows_of(spark: SparkSession, path: Path, **columns: Any) -> dict[str, dict]:
    """The rows of one file or folder by what follows the file's address."""
    source = Source(name="rows", location=str(path), **({"text_column": "text"} | columns))
    return {uri.partition("#")[2]: row for uri, row in read(spark, source).items()}


def write_jsonl(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_odd_names_are_listed_read_and_found_again(spark: SparkSession, tmp_path: Path) -> None:
    for name in ODD_NAMES:
        (tmp_path / name).write_text(f"the text of {name}", encoding="utf-8")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff.txt")).write_text("not UTF-8")
    rows = read(spark, Source(name="odd", location=str(tmp_path)))
    assert len(rows) == len(ODD_NAMES) + 1
    for uri, row in rows.items():
        body = Path(source_uri_to_path(uri)).read_bytes()
        assert (row["error"], row["body"], row["size_bytes"]) == (None, body, len(body))
        assert row["content_sha256"] == hashlib.sha256(body).hexdigest()
        assert row["media_type"] == "text/plain"
    assert {Path(source_uri_to_path(uri)).name for uri in rows} >= set(ODD_NAMES)


def test_what_can_not_be_read_is_a_row_and_not_the_end(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "good.md").write_text("# Good\n")
    (tmp_path / "gone.md").write_text("soon gone")
    (tmp_path / "folder.md").write_text("soon a folder")
    (tmp_path / "dangling.md").symlink_to("nothing")
    os.mkfifo(tmp_path / "pipe.md")
    source = Source(name="docs", location=str(tmp_path))
    listing = list_local_files(source)
    (tmp_path / "gone.md").unlink()
    (tmp_path / "folder.md").unlink()
    (tmp_path / "folder.md").mkdir()
    rows = {Path(source_uri_to_path(uri)).name: row for uri, row in read(spark, source, listing).items()}
    assert rows["good.md"]["error"] is None
    assert rows["good.md"]["media_type"] == "text/markdown"
    assert {name: row["error"] for name, row in rows.items() if name != "good.md"} == {
        "gone.md": "unreadable: No such file or directory",
        "dangling.md": "unreadable: No such file or directory",
        "folder.md": "unreadable: Is a directory",
        "pipe.md": "unreadable: not a regular file",
    }
    assert all(
        row["body"] is None and row["content_sha256"] is None for n, row in rows.items() if n != "good.md"
    )


def test_size_and_time_are_the_listings(spark: SparkSession, tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("before")
    source = Source(name="docs", location=str(tmp_path))
    listing = list_local_files(source)
    file.write_text("changed after it was listed")
    (row,) = read(spark, source, listing).values()
    assert row["body"] == b"changed after it was listed"
    assert row["file_size_bytes"] == 6
    assert row["file_modified_at"] == listing["file_modified_at"][0].as_py()


@pytest.fixture
def elsewhere(spark: SparkSession, tmp_path: Path) -> Iterator[tuple[Path, Source]]:
    """A folder behind a Hadoop file system that is not this machine's, as far as Headwater can tell."""
    conf = spark.sparkContext._jsc.hadoopConfiguration()
    conf.set("fs.viewfs.impl.disable.cache", "true")
    conf.set("fs.viewfs.mounttable.elsewhere.link./docs", tmp_path.as_uri())
    yield tmp_path, Source(name="far", location="viewfs://elsewhere/docs/", glob="**/*.{txt,md}")
    conf.unset("fs.viewfs.mounttable.elsewhere.link./docs")


def test_other_file_systems_through_hadoop(spark: SparkSession, elsewhere: tuple[Path, Source]) -> None:
    folder, source = elsewhere
    (folder / "sub").mkdir()
    names = [name for name in ODD_NAMES if ":" not in name and "*" not in name]
    for name in names:
        (folder / "sub" / name).write_text(f"the text of {name}", encoding="utf-8")
    (folder / "other.csv").touch()
    assert list_local_source(source) is None
    listing = list_source(spark, source)
    assert listing["uri"].to_pylist() == sorted(
        f"viewfs://elsewhere/docs/sub/{quote(name)}" for name in names
    )
    (folder / "sub" / names[0]).unlink()
    rows = read(spark, source, listing.slice(0, 6))
    assert len(rows) == 6
    for row in rows.values():
        assert (row["error"] is None) == (row["body"] is not None)
    assert sum(row["body"] is not None for row in rows.values()) == 6 - (
        f"viewfs://elsewhere/docs/sub/{quote(names[0])}" in rows
    )
    (gone,) = read(
        spark, source, listing.filter(pa.compute.match_substring(listing["uri"], quote(names[0])))
    ).values()
    assert gone["error"].startswith("unreadable:")


def test_an_unreachable_root_is_an_error_that_names_it(
    spark: SparkSession, elsewhere: tuple[Path, Source]
) -> None:
    _, far = elsewhere
    missing = far.model_copy(update={"location": "viewfs://elsewhere/docs/missing"})
    with pytest.raises(SourceUnreachable, match=r"source far: .*viewfs://elsewhere/docs/missing"):
        list_source(spark, missing)
    with pytest.raises(SourceUnreachable, match="nosuchscheme"):
        list_source(spark, Source(name="far", location="nosuchscheme://x/y"))
    with pytest.raises(SourceEmpty, match="source far"):
        list_source(spark, far)


def test_jsonl_ids_titles_and_empty_texts(spark: SparkSession, tmp_path: Path) -> None:
    file = write_jsonl(
        tmp_path / "r:o w#s.jsonl",
        {"_id": "a/b c", "title": "Tea", "text": "Steep it – gently."},
        {"_id": 7, "title": None, "text": ""},
        {"_id": "x", "text": None},
        {"_id": "y"},
        {"_id": "z", "text": {"nested": 1}},
    )
    with file.open("a", encoding="utf-8") as more:
        more.write("\n   \n{broken\n")
    rows = rows_of(spark, file)
    broken = hashlib.sha256(b"{broken").hexdigest()[:16]
    assert set(rows) == {"a%2Fb%20c", "7", "x", "y", "z", broken}
    tea = rows["a%2Fb%20c"]
    assert tea["title"] == "Tea"
    assert tea["uri"] == f"{file.as_uri()}#a%2Fb%20c"
    assert tea["body"] == "Steep it – gently.".encode()
    assert tea["content_sha256"] == hashlib.sha256(tea["body"]).hexdigest()
    assert tea["size_bytes"] == len(tea["body"])
    assert tea["media_type"] == "text/plain; charset=utf-8"
    assert tea["file_size_bytes"] == file.stat().st_size
    assert (
        tea["file_modified_at"]
        == list_local_files(Source(name="a", location=str(file)))["file_modified_at"][0].as_py()
    )
    assert [rows[i]["body"] for i in ("7", "x", "y")] == [b"", b"", b""]
    assert rows["z"]["body"] == b'{"nested":1}'
    assert rows[broken]["error"] == "unreadable: not a row of this file: {broken"
    assert rows[broken]["body"] is None


def test_rows_without_an_id_are_named_by_their_text_wherever_they_stand(
    spark: SparkSession, tmp_path: Path
) -> None:
    texts = ["one", "two", "one"]
    first = rows_of(spark, write_jsonl(tmp_path / "a.jsonl", *({"text": t} for t in texts)))
    one, two = (hashlib.sha256(t.encode()).hexdigest()[:16] for t in ("one", "two"))
    assert {i: row["body"] for i, row in first.items()} == {one: b"one", f"{one}~2": b"one", two: b"two"}
    again = rows_of(spark, write_jsonl(tmp_path / "a.jsonl", *({"text": t} for t in ["zero", "two", "one"])))
    assert {one, two} < set(again)


def test_rows_that_share_an_id_are_all_kept(spark: SparkSession, tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", *({"id": "same~2", "text": t} for t in "cab"))
    rows = rows_of(spark, file)
    assert set(rows) == {"same%7E2", "same%7E2~2", "same%7E2~3"}
    assert {row["body"] for row in rows.values()} == {b"a", b"b", b"c"}


def test_csv_quotes_line_ends_and_ragged_rows(spark: SparkSession, tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text(
        "key,text,note\r\n"
        '1,"two\nlines, and ""quotes""",x\r\n'
        "2,short row\r\n"
        "3,not quoted, so cut,y\r\n"
        "4,,z\r\n"
        "5\r\n",
        newline="",
    )
    rows = rows_of(spark, file, id_column="key", title_column="note")
    assert rows["1"]["body"] == b'two\nlines, and "quotes"'
    assert rows["1"]["title"] == "x"
    assert (rows["2"]["body"], rows["2"]["error"]) == (b"short row", None)
    assert rows["4"]["body"] == b""
    assert rows["5"]["body"] == b""
    assert rows["3"]["error"] == "unreadable: not a row of this file: 3,not quoted, so cut,y"
    assert len(rows) == 5


def test_files_with_other_columns_in_one_folder(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,text\n1,first\n")
    (tmp_path / "b.csv").write_text("text,id\nsecond,1\n")
    (tmp_path / "c.tsv").write_text("id\ttext\n1\tthird, with a comma\n")
    write_jsonl(tmp_path / "d.ndjson", {"text": "fourth", "id": 1})
    pq.write_table(pa.table({"id": [1], "text": ["fifth"], "n": [2.5]}), tmp_path / "e.parquet")
    rows = read(spark, Source(name="rows", location=str(tmp_path), text_column="text"))
    assert {Path(uri).name: row["body"].decode() for uri, row in rows.items()} == {
        "a.csv#1": "first",
        "b.csv#1": "second",
        "c.tsv#1": "third, with a comma",
        "d.ndjson#1": "fourth",
        "e.parquet#1": "fifth",
    }


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_a_missing_column_names_itself_the_file_and_what_there_is(
    spark: SparkSession, tmp_path: Path, name: str
) -> None:
    file = tmp_path / name
    if name == "a.csv":
        file.write_text("id,body\n1,x\n")
    elif name == "a.jsonl":
        write_jsonl(file, {"id": 1, "body": "x"})
    else:
        pq.write_table(pa.table({"body": ["x"], "id": [1]}), file)
    with pytest.raises(
        UnreadableTabularFile, match=rf"source rows: .*'text' in .*{name}.*: .*(body, id|id, body)"
    ):
        rows_of(spark, file)
    with pytest.raises(UnreadableTabularFile, match="'key'"):
        rows_of(spark, file, text_column="body", id_column="key")


def test_a_file_without_rows_can_not_be_a_source_of_rows(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "readme.md").write_text("# Read me")
    with pytest.raises(UnreadableTabularFile, match=r"readme\.md has no rows"):
        rows_of(spark, tmp_path)


def test_files_of_rows_that_have_none_are_reported_and_stop_nothing(
    spark: SparkSession, tmp_path: Path
) -> None:
    write_jsonl(tmp_path / "good.jsonl", {"id": 1, "text": "x"})
    for name in ("empty.jsonl", "empty.csv", "gone.csv", "broken.parquet"):
        (tmp_path / name).write_bytes(b"not Parquet" if "parquet" in name else b"")
    (tmp_path / "dangling.jsonl").symlink_to("nothing")
    source = Source(name="rows", location=str(tmp_path), text_column="text")
    listing = list_local_files(source)
    (tmp_path / "gone.csv").unlink()
    rows = {Path(uri).name: row for uri, row in read(spark, source, listing).items()}
    assert rows.pop("good.jsonl#1")["body"] == b"x"
    assert set(rows) == {"empty.jsonl", "empty.csv", "gone.csv", "broken.parquet", "dangling.jsonl"}
    for row in rows.values():
        assert row["error"].startswith("unreadable: ")
        assert row["body"] is None
        assert row["file_modified_at"] is not None


def test_compressed_files_of_rows_are_read_and_damaged_ones_named(
    spark: SparkSession, tmp_path: Path
) -> None:
    lines = b"".join(b'{"id": %d, "text": "row %d"}\n' % (n, n) for n in range(3000))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines))
    (tmp_path / "b.ndjson.bz2").write_bytes(bz2.compress(b'{"id": 1, "text": "b"}\n'))
    (tmp_path / "c.csv.zst").write_bytes(zstandard.compress(b"id,text\n1,c\n"))
    (tmp_path / "d.tsv.gz").write_bytes(gzip.compress(b"id\ttext\n1\td\n"))
    for codec in ("gzip", "zstd", "snappy", "lz4"):
        pq.write_table(
            pa.table({"id": [1], "text": [codec]}), tmp_path / f"{codec}.parquet", compression=codec
        )
    # Spark would give the rows before the damage, and nothing would say that there were more.
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(lines)[:-200])
    (tmp_path / "trailing.jsonl.gz").write_bytes(gzip.compress(lines) + b"garbage")
    (tmp_path / "bomb.jsonl.gz").write_bytes(gzip.compress(bytes(1 << 27)))
    (tmp_path / "other.jsonl.gz").write_bytes(lines)
    rows = read(spark, Source(name="rows", location=str(tmp_path), text_column="text"))
    errors = {Path(uri).name: row["error"].partition(":")[0] for uri, row in rows.items() if row["error"]}
    assert errors == {
        "cut.jsonl.gz": "unreadable",
        "trailing.jsonl.gz": "unreadable",
        "bomb.jsonl.gz": "oversize",
        "other.jsonl.gz": "unreadable",
    }
    found = {Path(uri).name: row["body"].decode() for uri, row in rows.items() if row["body"]}
    assert len(found) == 3000 + 3 + 4
    assert found["a.jsonl.gz#2999"] == "row 2999"
    assert (found["b.ndjson.bz2#1"], found["c.csv.zst#1"], found["d.tsv.gz#1"]) == ("b", "c", "d")
    (tmp_path / "e.jsonl.xz").write_bytes(b"")
    with pytest.raises(UnreadableTabularFile, match=r"e\.jsonl\.xz has no rows .*\.gz, \.bz2 or \.zst"):
        read(spark, Source(name="rows", location=str(tmp_path), text_column="text"))


def test_a_damaged_compressed_file_elsewhere_fails_its_source(
    spark: SparkSession, elsewhere: tuple[Path, Source]
) -> None:
    folder, far = elsewhere
    source = Source(name="far", location=far.location, text_column="text")
    (folder / "a.jsonl.gz").write_bytes(gzip.compress(b'{"id": 1, "text": "a"}\n'))
    assert [row["body"] for row in read(spark, source).values()] == [b"a"]
    lines = b"".join(b'{"id": %d, "text": "row %d"}\n' % (n, n) for n in range(3000))
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(lines)[:-200])
    with pytest.raises(Exception, match=r"(?s)b\.jsonl\.gz|Unexpected end|FAILED_READ_FILE"):
        read(spark, source)


def test_rows_of_files_with_odd_names(spark: SparkSession, tmp_path: Path) -> None:
    names = [name.replace(".txt", ".jsonl") for name in ODD_NAMES]
    files = [write_jsonl(tmp_path / name, {"id": 1, "text": name}) for name in names]
    source = Source(name="rows", location=str(tmp_path), text_column="text")
    rows = read_tabular_files(spark, source, list_local_files(source)).select("uri", "body").collect()
    assert {row.uri: row.body.decode() for row in rows} == {f"{file.as_uri()}#1": file.name for file in files}


def test_the_environment_is_a_source(spark: SparkSession) -> None:
    source = Source(name="demo", location="python-environment")
    listing = list_source(spark, source)
    assert listing.equals(list_local_source(source))
    few = listing.filter(
        pa.compute.is_in(listing["uri"], pa.array(["python-environment://python/topics/assert"]))
    )
    assert few.num_rows == 1
    contents = read_local_source(source, few, ParserLimits())
    assert contents is not None
    (row,) = contents.to_pylist()
    assert row["title"] == "Python: assert"
    assert b"AssertionError" in row["body"]
    assert listing.equals(list_environment_corpus())
