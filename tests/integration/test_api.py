"""Headwater from Python: every example runs, errors are those of the command line, nothing is printed."""

import doctest
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest

import orchestration.api
from assets.sources.source_config import SourceError
from inference.answering.answer import InvalidQuestion
from orchestration.api import InvalidArgument, OpenLake, open_lake
from orchestration.operations.sql import SqlStatementRefused
from orchestration.settings import Settings
from orchestration.state_folder import StateFolderError
from orchestration.tracing.nodes import Untraceable
from retrieval.search.snapshot import NoLiveSnapshot
from retrieval.store.postgres import Postgres

NOTEBOOK = Path(__file__).parents[2] / "docs" / "from-python.ipynb"
EXAMPLES = {test.name.removeprefix("orchestration.api."): test for test in doctest.DocTestFinder().find(
    orchestration.api
) if test.examples}  # fmt: skip
INGEST = "OpenLake.ingest"


def run_example(name: str) -> None:
    said: list[str] = []
    outcome = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(
        EXAMPLES[name], out=said.append
    )
    assert outcome.failed == 0, "".join(said)


@pytest.fixture(scope="module")
def handbook(module_folder: Path) -> Iterator[Path]:
    """The working folder of the examples, after the example of `ingest` has made its lake."""
    (module_folder / "handbook").mkdir()
    (module_folder / "handbook" / "warranty.md").write_text(
        "# Warranty\n\nThe warranty lasts for twenty-four months from the day of purchase. "
        "To make a warranty claim, send the device and the receipt to the service centre.\n"
    )
    (module_folder / "handbook" / "leave.md").write_text(
        "# Leave\n\nEvery employee has thirty days of paid leave a year, to be agreed with the team.\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(module_folder)
        patch.setenv("HEADWATER_HOME", str(module_folder / "state"))
        run_example(INGEST)
        yield module_folder
        Postgres(Settings().home, Settings().postgres).stop()


def test_every_method_has_an_example() -> None:
    methods = {f"OpenLake.{name}" for name in vars(OpenLake) if not name.startswith("_")} - {"OpenLake.close"}
    assert methods | {"orchestration.api", "open_lake"} == set(EXAMPLES)


@pytest.mark.parametrize("name", sorted(EXAMPLES.keys() - {INGEST}))
def test_an_example_of_the_documentation_does_what_it_says(name: str, handbook: Path) -> None:
    run_example(name)


def test_errors_are_those_of_the_command_line(handbook: Path) -> None:
    with open_lake() as lake:
        with pytest.raises(InvalidQuestion):
            lake.ask(" ")
        with pytest.raises(SqlStatementRefused):
            lake.sql("delete from gold.chunks")
        with pytest.raises(Untraceable):
            lake.trace("no-such-thing")
        with pytest.raises(SourceError, match="nowhere"):
            lake.ingest("handbook", "nowhere")
        with pytest.raises(SourceError, match="sitemap"):
            lake.ingest("https://example.org")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda lake: lake.search(None), r'query is None: give words, as in lake.search\("warranty"\)'),
        (lambda lake: lake.search("warranty", k="3"), "k is '3': give how many"),
        (lambda lake: lake.search("warranty", mode="semantic"), "give one of hybrid, .*reranked"),
        (
            lambda lake: lake.search("warranty", groups="staff"),
            "groups is 'staff': give a list of names",
        ),
        (lambda lake: lake.ask(7), "question is 7: give a question"),
        (lambda lake: lake.ask("How?", tenant=None), "tenant is None: give a name"),
        (lambda lake: lake.ask("How?", as_of=datetime.now(UTC)), "as_of is datetime.*: give a release"),
        (lambda lake: lake.sql(b"select 1"), "statement is b'select 1': give a query"),
        (lambda lake: lake.sql("select 1", engine="sqlite"), "engine is 'sqlite': give duckdb or spark"),
        (lambda lake: lake.trace(None), "identity is None: give an id"),
        (lambda lake: lake.ingest(["a", "b"]), r"path is \['a', 'b'\]: give a folder"),
    ],
)
def test_an_argument_of_the_wrong_type_is_named_with_what_is_taken(
    call: Callable[[Any], object], said: str, tmp_path: Path
) -> None:
    with open_lake(tmp_path / "none") as lake, pytest.raises(InvalidArgument, match=said):
        call(lake)
    assert not (tmp_path / "none").exists()


def test_answers_are_committed_when_the_lake_is_closed_and_a_closed_lake_can_be_asked_again(
    handbook: Path,
) -> None:
    with open_lake(handbook / "state") as lake:
        answer = lake.ask("How long is the warranty?")
    stored = lake.sql(f"select question from gold.answers where answer_id = '{answer.answer_id}'")
    assert stored.to_pylist() == [{"question": "How long is the warranty?"}]
    assert lake.ask("How long is the warranty?", as_of="r1.1").answer == answer.answer
    lake.close()


def test_a_lake_that_holds_nothing_says_so(module_folder: Path) -> None:
    with open_lake(module_folder / "empty") as lake:
        with pytest.raises(StateFolderError, match="empty"):
            lake.ask("How long is the warranty?")
        assert not lake.settings.home.exists()
        lake.settings.home.mkdir()
        with pytest.raises(NoLiveSnapshot, match="headwater ingest"):
            lake.search("warranty")
    Postgres(lake.settings.home, lake.settings.postgres).stop()


@pytest.mark.slow
def test_the_notebook_gives_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HEADWATER_UPDATE_SNAPSHOTS=1 writes its outputs anew."""
    monkeypatch.delenv("HEADWATER_HOME", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOK.parents[1]))
    notebook = nbformat.read(NOTEBOOK, nbformat.NO_CONVERT)
    shown = [cell.get("outputs") for cell in notebook.cells]
    try:
        nbclient.NotebookClient(
            notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}, record_timing=False
        ).execute()
    finally:
        Postgres(tmp_path / "my-lake", Settings().postgres).stop()
    if os.environ.get("HEADWATER_UPDATE_SNAPSHOTS"):
        nbformat.write(notebook, NOTEBOOK)
        return
    assert [cell.get("outputs") for cell in notebook.cells] == shown
    printed = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert all(output["output_type"] == "execute_result" for output in printed)
