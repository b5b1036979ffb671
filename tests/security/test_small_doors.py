"""Doors that a document, a folder, a terminal or an argument opens."""

import ast
import csv
import io
import json
import os
import resource
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from assets.parsing.sandbox import ParserLimits
from assets.recipe import Recipe
from assets.sources.file_contents import source_file_contents
from assets.sources.local_files import list_local_files, read_local_files
from assets.sources.source_config import Source, SourceUnreachable
from assets.sources.source_reader import read_source
from assets.sources.source_registry import SourceRegistry
from assets.sources.source_schemas import ListedFile
from common.rooms import ROOMS
from orchestration.cli.lake import render_nested_columns
from orchestration.cli.terminal import escape_terminal_controls
from orchestration.operations.runs import execute_run
from orchestration.services.supervision.service_definitions import service_environment
from orchestration.settings import Settings, open_configured_lake

ROOT = Path(__file__).parents[2]
HEADWATER = str(Path(sys.executable).parent / "headwater")


def headwater(
    home: Path, *arguments: str | bytes, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    (home / "state").mkdir(parents=True, exist_ok=True)
    return subprocess.run(
        [HEADWATER, *arguments],
        env=os.environ | {"HEADWATER_HOME": str(home / "state"), "COLUMNS": "200"} | environment,
        cwd=cwd,
        capture_output=True,
        timeout=240,
        check=False,
    )


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    """A folder with a document, and links out of it: to a file, and to a folder."""
    folder, outside = tmp_path / "docs", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    (folder / "a.txt").write_text("inside")
    (folder / "b.txt").symlink_to(folder / "a.txt")
    (outside / "secret.txt").write_text("SECRET")
    (outside / "rows.jsonl").write_text('{"text": "SECRET"}\n')
    (folder / "file.txt").symlink_to(outside / "secret.txt")
    (folder / "folder.txt").symlink_to(outside)
    return folder


def test_a_link_out_of_the_source_is_not_followed_and_is_reported(docs: Path) -> None:
    source = Source(name="docs", location=str(docs))
    read = read_local_files(list_local_files(source), str(docs), ParserLimits())
    assert read is not None
    rows = {row["uri"].rpartition("/")[2]: row for row in read.to_pylist()}
    assert set(rows) == {"a.txt", "b.txt", "file.txt", "folder.txt"}
    assert rows["a.txt"]["body"] == rows["b.txt"]["body"] == b"inside"
    for name in ("file.txt", "folder.txt"):
        assert rows[name]["body"] is None
        assert "leads out of the source" in rows[name]["error"]


def test_a_file_of_rows_that_is_a_link_out_of_the_source_is_not_read(docs: Path, spark: SparkSession) -> None:
    (docs / "rows.jsonl").symlink_to(docs.parent / "outside" / "rows.jsonl")
    (docs / "own.jsonl").write_text('{"text": "inside"}\n')
    source = Source(name="docs", location=str(docs), glob="*.jsonl", text_column="text")
    rows = read_source(spark, source, list_local_files(source), ParserLimits()).collect()
    assert {(row.uri.rpartition("/")[2].partition("#")[0], bytes(row.body or b"")) for row in rows} == {
        ("own.jsonl", b"inside"),
        ("rows.jsonl", b""),
    }


@pytest.mark.parametrize("location", ["/proc", "/proc/self", "/sys/kernel", "/dev"])
def test_a_folder_of_the_system_is_no_source(location: str, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(location)
    for place in (location, str(tmp_path / "link")):
        source = Source(name="s", location=place)
        with pytest.raises(SourceUnreachable, match="/proc, /sys or /dev"):
            SourceRegistry(tmp_path / "sources.json").add(source)
        with pytest.raises(SourceUnreachable, match="/proc, /sys or /dev"):
            list_local_files(source)


@pytest.mark.parametrize("glob", ["[", "a[b", "**/[!x"])
def test_a_glob_with_an_open_bracket_is_refused(glob: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not complete"):
        Source(name="s", location=str(tmp_path), glob=glob)
    assert Source(name="s", location=str(tmp_path), glob="[[]x[]]").glob == "[[]x[]]"


def test_attachments_are_parsed_within_bounds() -> None:
    """Four million empty parts took 1.6 GB of the run's own process."""
    body = (
        b"From: a@b.example\nSubject: s\nContent-Type: multipart/mixed; boundary=b\n\n"
        + b"--b\n\n" * 4_000_000
    )
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    file = ListedFile("file:///bomb.eml", len(body), datetime.now(UTC))
    message, attachments = source_file_contents(file, body, ParserLimits(timeout_s=10))
    assert message.body == body
    assert attachments.uri == "file:///bomb.eml#!attachments"
    assert (attachments.error or "").partition(":")[0] in {"out_of_memory", "timeout"}
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib
    assert grown_kib < 400 << 10


@pytest.mark.parametrize("by_spark", [False, True])
def test_attachments_are_parsed_within_the_bounds_that_were_set(tmp_path: Path, by_spark: bool) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "a.eml").write_text(
        "From: a@b.example\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\nhello\n--b\n"
        "Content-Disposition: attachment; filename=plan.txt\n\nthe plan\n--b--\n"
    )
    for number in range(300 if by_spark else 0):
        (docs / f"{number}.txt").write_text("so many files are read by Spark")

    def read(home: str, recipe: Recipe) -> set[str]:
        settings = Settings(home=tmp_path / home, recipe=recipe)
        SourceRegistry(settings.sources_file).add(Source(name="docs", location=str(docs)))
        assert execute_run(settings, 'key:"bronze/raw_documents"', print).failures == []
        raw = open_configured_lake(settings).delta("bronze.raw_documents")
        return {name for name in raw.to_pyarrow_table()["uri"].to_pylist() if ".eml" in name}

    mail = (docs / "a.eml").as_uri()
    assert read("by default", Recipe()) == {mail, f"{mail}#plan.txt"}
    assert read("in no time", Recipe(parser=ParserLimits(timeout_s=0.001))) == {mail, f"{mail}#!attachments"}


def test_no_model_is_loaded_with_its_own_code() -> None:
    loaders = {"from_pretrained", "SentenceTransformer", "CrossEncoder"}
    loading = []
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call):
                    name = (
                        node.func.attr
                        if isinstance(node.func, ast.Attribute)
                        else getattr(node.func, "id", "")
                    )
                    # PEFT puts an adapter's parameters into a model that is loaded, and has no code to run.
                    if name in loaders and not ast.unparse(node.func).startswith("PeftModel."):
                        loading.append((path.name, {ast.unparse(word) for word in node.keywords}))
    assert len(loading) >= 5
    assert [name for name, words in loading if "trust_remote_code=False" not in words] == []


HOSTILE = "\x1b]0;owned\x07\x1b[2J \x9b31m \u202eabc\r\x08"


def sent(output: bytes) -> set[str]:
    """The control characters of an output that is no terminal's, where Rich sends none of its own."""
    return {c for c in output.decode() if c in "\x1b\x07\x9b\u202e\r\x08\x7f"}


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_terminal_escapes_in_results_are_shown(module_folder: Path, options: list[str]) -> None:
    statement = "select chr(27) || '[2J' || chr(155) || '31m' || chr(8238) as x"
    done = headwater(module_folder, "sql", statement, *options)
    assert done.returncode == 0, done.stderr
    assert sent(done.stdout) == set()
    assert b"[2J" in done.stdout
    if options:
        assert json.loads(done.stdout)[0]["x"] == "\x1b[2J\x9b31m\u202e"


def test_terminal_escapes_in_errors_and_names_are_shown(module_folder: Path) -> None:
    failed = headwater(module_folder, "trace", HOSTILE)
    assert failed.returncode == 1
    assert sent(failed.stderr) == set()
    (module_folder / f"docs{HOSTILE}").mkdir()
    added = headwater(module_folder, "source", "add", "hostile", str(module_folder / f"docs{HOSTILE}"))
    assert added.returncode == 0, added.stderr
    assert sent(added.stdout) == set()
    assert sent(headwater(module_folder, "source", "list").stdout) == set()
    headwater(module_folder, "source", "remove", "hostile")


def test_escaped_text_keeps_everything_else() -> None:
    assert escape_terminal_controls("Grüße, 日本\n✓") == "Grüße, 日本\n✓"
    assert escape_terminal_controls("\x1b[31m\x9b") == "\\x1b[31m\\x9b"


@pytest.mark.parametrize("locale", ["C.UTF-8", "C", "en_US.ISO-8859-1"])
@pytest.mark.parametrize(
    "arguments",
    [
        ["trace", b"\xff\xfe"],
        ["sql", b"select '\xff'"],
        ["source", "add", b"\xff", "/tmp"],
        ["source", "add", "latin", b"/nowhere/\xe9"],
        ["sql", "select '●' as x"],
    ],
)
def test_what_is_no_utf_8_gives_no_traceback(
    module_folder: Path, arguments: list[str | bytes], locale: str
) -> None:
    # Not every machine has the locale; Python's own setting stands in for it.
    encoding = "latin-1" if "8859" in locale else ""
    done = headwater(module_folder, *arguments, LC_ALL=locale, LANG=locale, PYTHONIOENCODING=encoding)
    assert b"Traceback" not in done.stderr, done.stderr
    assert done.returncode in (0, 1, 2)
    assert done.stdout or done.stderr


def test_an_empty_as_of_is_an_error(module_folder: Path) -> None:
    for command in (["search", "wind"], ["ask", "wind"]):
        done = headwater(module_folder, *command, "--as-of", "")
        assert done.returncode == 2
        assert b"--as-of" in done.stderr
        assert b"it is empty" in done.stderr


def test_nested_columns_are_json_in_csv(module_folder: Path) -> None:
    statement = "select [1, 2] as l, {'a': [null, 'é']} as s, map {'k': 1} as m, 1 as n"
    done = headwater(module_folder, "sql", statement, "--format", "csv")
    assert done.returncode == 0, done.stderr
    [row] = csv.DictReader(io.StringIO(done.stdout.decode()))
    assert json.loads(row["l"]) == [1, 2]
    assert json.loads(row["s"]) == {"a": [None, "é"]}
    assert json.loads(row["m"]) == {"k": 1}
    assert row["n"] == "1"
    empty = pa.table({"l": pa.array([None, []], pa.list_(pa.int64()))})
    assert render_nested_columns(empty)["l"].to_pylist() == [None, "[]"]


def test_a_state_folder_of_another_user_is_refused(module_folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder to another user")
    home = module_folder / "of another"
    (home / "state").mkdir(parents=True)
    os.chown(home / "state", 12345, 12345)
    done = headwater(home, "source", "list")
    assert done.returncode == 1
    assert b"belongs to user 12345" in done.stderr
    assert list((home / "state").iterdir()) == []


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """A folder whose modules, when they are imported, say so in the file `taken`."""
    for name in ("gql", "json", "pyspark", "orchestration", "duckdb"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'taken')!r}, 'a').write('{name} ')\n")
    return tmp_path


def test_services_do_not_import_from_the_current_folder(module_folder: Path, planted: Path) -> None:
    environment = service_environment(Settings(home=module_folder / "state"))
    command = [sys.executable, "-m", "dagster", "--version"]
    done = subprocess.run(command, cwd=planted, env=environment, capture_output=True, check=False)
    assert not (planted / "taken").exists()
    assert done.returncode == 0, done.stderr


def test_workers_of_spark_do_not_import_from_the_current_folder(planted: Path) -> None:
    script = """
from pathlib import Path
from assets.lake.spark import SparkConfig, spark_session
spark = spark_session(SparkConfig(master="local[1]", driver_memory="512m"), Path("scratch").absolute())
print(spark.range(3).mapInArrow(lambda batches: batches, "id long").count())
"""
    command = [sys.executable, "-P", "-c", script]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=planted, env=environment, capture_output=True, timeout=200, check=False
    )
    assert not (planted / "taken").exists()
    assert done.stdout.split()[-1:] == [b"3"], done.stderr


def test_commands_do_not_import_from_the_current_folder(module_folder: Path, planted: Path) -> None:
    for engine in ("duckdb", "spark"):
        done = headwater(module_folder, "sql", "select 1", "--engine", engine, cwd=planted)
        assert done.returncode == 0, done.stderr
    assert not (planted / "taken").exists()
