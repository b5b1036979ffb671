"""A command whose packages are not installed names the command that installs them."""

import sys

import pytest

from benchmarks.__main__ import app
from orchestration.cli import main
from orchestration.environment.extras import missing_package_advice


@pytest.mark.parametrize(
    ("module", "extra"),
    [
        ("datasketch", "dev"),
        ("faiss", "dev"),
        ("sentence_transformers", "train"),
        ("mlflow.tracking", "train"),
        ("rapidocr", "ocr"),
    ],
)
def test_the_smallest_extra_that_has_a_package_is_named(module: str, extra: str) -> None:
    assert missing_package_advice(module) == f"`make setup EXTRAS={extra}` installs it"


def test_a_package_of_no_extra_has_no_such_command() -> None:
    assert missing_package_advice("duckdb") is None
    assert missing_package_advice("no_such_module") is None


def test_a_bench_without_its_extra_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "datasketch", None)
    monkeypatch.delitem(sys.modules, "benchmarks.dedupe", raising=False)
    monkeypatch.setattr(sys, "argv", ["benchmarks", "dedupe"])
    with pytest.raises(SystemExit) as ended:
        main.run_commands(app)
    assert ended.value.code == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "error: datasketch is not installed: `make setup EXTRAS=dev` installs it\n"
