import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil
import pyarrow as pa
import pytest
from packed_files import make_zip
from pyspark.sql import SparkSession
from pyspark.sql.pandas.types import from_arrow_schema
from test_parse import INPUT, parsed, row

from assets.parsing import content_type, sandbox
from assets.parsing.blocks import ExtractionError
from assets.parsing.extract import extract_document
from assets.parsing.parse import PARSED_DOCUMENT_SCHEMA, parse_document_batches
from assets.parsing.sandbox import ParserLimits, SandboxedParser
from assets.text.readability import ReadabilityThresholds

MARKDOWN = b"# Widget\n\nSome words about the widget.\n"
ODT = (
    '<d xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0"'
    ' xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0"><office:body><office:text><text:p>{}'
    "</text:p></office:text></office:body></d>"
)
LIMITS = ParserLimits(timeout_s=3, memory_bytes=1 << 29)


@pytest.fixture(autouse=True)
def hostile(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sandbox, "_CHILD_MODULE", "hostile_worker")
    monkeypatch.setattr(sandbox, "_parsers", {})
    yield
    for parser in sandbox._parsers.values():
        parser.close()


@pytest.fixture
def parser() -> Iterator[SandboxedParser]:
    parser = SandboxedParser(LIMITS)
    yield parser
    parser.close()


def refusal(parser: SandboxedParser, kind: str) -> ExtractionError:
    with pytest.raises(ExtractionError) as caught:
        parser.extract_document(b"some bytes", kind)
    return caught.value


@pytest.mark.parametrize(
    ("kind", "expectation", "words"),
    [
        ("test/sleep", "timeout", "not finished after 3 s"),
        ("test/allocate", "out_of_memory", "limit of 512 MiB"),
        ("test/abort", "crashed", "SIGABRT"),
        ("test/segfault", "crashed", "SIGSEGV"),
        ("test/exit", "crashed", "exit status 3"),
    ],
)
def test_a_spoilt_parser_costs_its_document_only(kind: str, expectation: str, words: str) -> None:
    rows = [
        row(MARKDOWN, "text/markdown"),
        row(b"some bytes", kind),
        row(MARKDOWN + b"More.", "text/markdown"),
    ]
    found = parsed(*rows, timeout_s=3, memory_bytes=1 << 29)
    assert [each["expectation"] for each in found] == [None, expectation, None]
    assert found[1]["stage"] == "extract"
    assert words in found[1]["reason"]
    assert [each["title"] for each in found] == ["Widget", None, "Widget"]


def test_what_earlier_documents_left_is_no_later_ones_fault(parser: SandboxedParser) -> None:
    parser.extract_document(MARKDOWN, "text/markdown")
    assert parser._child is not None
    parser._child.kill()  # as if an earlier document had corrupted its memory
    assert parser.extract_document(MARKDOWN, "text/markdown").title == "Widget"


def test_one_process_serves_many_documents_and_says_the_same(parser: SandboxedParser) -> None:
    assert parser.extract_document(MARKDOWN, "text/markdown") == extract_document(MARKDOWN, "text/markdown")
    first = parser._child
    assert refusal(parser, "application/pdf").expectation == "unreadable"
    assert parser.extract_document(MARKDOWN, "text/markdown").title == "Widget"
    assert parser._child is first
    parser.extract_document(b"Plain words.", "text/plain")
    assert parser._parsed == 3


def test_the_process_has_no_secrets_and_keeps_its_socket_to_itself(
    parser: SandboxedParser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADWATER_SECRET", "hunter2")
    assert parser.extract_document(b"x", "test/chatter").text == "secret None and '' was read"
    assert parser.extract_document(MARKDOWN, "text/markdown").title == "Widget"


def test_a_hanging_process_ends_soon_after_the_one_that_asked() -> None:
    code = (
        "from assets.parsing import sandbox\n"
        "sandbox._CHILD_MODULE = 'hostile_worker'\n"
        "parser = sandbox.SandboxedParser(sandbox.ParserLimits(timeout_s=1))\n"
        "print(parser._started() and parser._child.pid, flush=True)\n"
        "parser.extract_document(b'x', 'test/sleep')\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)}
    asking = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment)
    assert asking.stdout is not None
    child = psutil.Process(int(asking.stdout.readline()))
    time.sleep(0.5)
    asking.send_signal(signal.SIGKILL)
    asking.communicate()
    psutil.wait_procs([child], timeout=15)
    # Where nobody reaps orphans it stays as a zombie, which holds nothing.
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_more_text_than_the_limit_is_refused_where_it_was_made() -> None:
    # A small file can hold much text; the signals of the pipeline take many times its size.
    repeated = make_zip({"content.xml": ODT.format("word " * 30_000), "mimetype": content_type.ODT})
    [found] = parsed(row(repeated, content_type.ODT), max_text_chars=100_000)
    assert len(repeated) < 5000
    assert (found["expectation"], "149,999 characters" in found["reason"]) == ("oversize", True)


def test_holds_in_spark_workers(spark: SparkSession) -> None:
    here = str(Path(__file__).parent)

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        sys.path.insert(0, here)
        sandbox._CHILD_MODULE = "hostile_worker"
        yield from parse_document_batches(iter(batches), ReadabilityThresholds(), LIMITS)
        sandbox.sandboxed_parser(LIMITS).close()  # the worker serves other tests

    rows = [row(b"%s%d" % (MARKDOWN, n), "text/markdown") for n in range(6)]
    rows[1:1] = [row(b"some bytes", f"test/{name}") for name in ("sleep", "allocate", "abort")]
    frame = spark.createDataFrame(pa.Table.from_pylist(rows, schema=INPUT)).coalesce(1)
    found = frame.mapInArrow(run, from_arrow_schema(PARSED_DOCUMENT_SCHEMA)).collect()
    refused = sorted(each["expectation"] for each in found if each["stage"])
    assert refused == ["crashed", "out_of_memory", "timeout"]
    assert sum(each["title"] == "Widget" for each in found) == 6


def test_a_long_line_is_bounded(parser: SandboxedParser) -> None:
    # 200 MB are refused by their size alone; what is below the limit goes to the process and back.
    with pytest.raises(ExtractionError) as caught:
        parser.extract_document(b"x" * (200 << 20), "text/plain")
    assert caught.value.expectation == "oversize"
    line = b"words and more of them " * 100_000
    assert len(parser.extract_document(line, "text/plain").text) == len(line) - 1
    assert parser._parsed == 1


def test_a_document_among_the_members_of_an_open_archive_is_refused_and_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sandbox, "_CHILD_MODULE", "assets.parsing.worker")
    parser = SandboxedParser(ParserLimits())
    archive = make_zip({"a.html": b"<p>One</p>" * 400_000, "b.html": b"<p>Two</p>" * 400_000})
    members = parser.container_members(archive, "application/zip")
    next(members)
    with pytest.raises(RuntimeError, match="members of an archive"):
        parser.extract_document(b"<p>Words</p>" * 400_000, "text/html")
    assert [member.name for member in members] == ["b.html"]
    assert parser.extract_document(b"<p>Some words about it.</p>", "text/html").text
    parser.close()
