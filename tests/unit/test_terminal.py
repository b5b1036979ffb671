"""What is printed: whole where it is no terminal, and on one cut, said to be, with ids that can be copied."""

import io
import json
import subprocess
import sys

import duckdb
import pytest

from orchestration.cli import terminal
from orchestration.cli.terminal import print_json, print_table, shortened

ID = "0123456789abcdef" * 4
LONG = "word " * 200


def printed(monkeypatch: pytest.MonkeyPatch, rows: list[dict[str, str]], is_terminal: bool) -> list[str]:
    output = terminal._Output(file=io.StringIO(), force_terminal=is_terminal, width=80, color_system=None)
    monkeypatch.setattr(terminal, "console", output)
    print_table(rows)
    assert isinstance(output.file, io.StringIO)
    return output.file.getvalue().splitlines()


def test_a_table_that_is_piped_has_a_line_per_row_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = printed(monkeypatch, [{"doc_id": ID, "reason": LONG}] * 3, is_terminal=False)
    assert [ID in line and LONG.strip() in line for line in lines].count(True) == 3


def test_text_that_is_piped_is_not_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    output = terminal._Output(file=io.StringIO(), width=80)
    output.print(LONG)
    assert isinstance(output.file, io.StringIO)
    assert output.file.getvalue() == f"{LONG}\n"


def test_a_terminal_shows_ids_whole_and_says_what_it_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = printed(monkeypatch, [{"doc_id": ID, "reason": LONG}], is_terminal=True)
    assert any(ID in line for line in lines)
    assert max(map(len, lines)) <= 80
    assert "…" in "".join(lines)
    assert "cells of more than 300 characters are cut; --json has them whole" in lines


def test_a_terminal_keeps_a_table_where_ids_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = printed(monkeypatch, [{"doc_id": ID, "n": "1"}], is_terminal=True)
    assert any(ID in line and "1" in line for line in lines)
    lines = printed(monkeypatch, [{"uri": "file:///a", "text": "word " * 50}], is_terminal=True)
    assert lines[0].startswith("┏")
    assert not any("are cut" in line for line in lines)


def test_a_text_that_is_cut_shows_it() -> None:
    assert shortened("a" * 160, 160) == "a" * 160
    assert shortened("a" * 161, 160) == "a" * 159 + "…"


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("sum(1)", 1),
        ("sum(9223372036854775807)", 9223372036854775807),
        ("-9223372036854775808::hugeint", -9223372036854775808),
        ("sum(9223372036854775807) + 1", "9223372036854775808"),
        ("sum(0)", 0),
        ("3::decimal(38, 0)", 3),
        ("3.10::decimal(10, 2)", "3.10"),
        ("[sum(2)]", [2]),
    ],
)
def test_integers_of_sums_are_numbers_in_json(
    column: str, value: object, capsys: pytest.CaptureFixture[str]
) -> None:
    print_json(duckdb.sql(f"select {column} as x").to_arrow_table().to_pylist())
    assert json.loads(capsys.readouterr().out) == [{"x": value}]


def test_what_a_document_says_is_no_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    assert any(
        "[bold]x[/]" in line for line in printed(monkeypatch, [{"text": "[bold]x[/]"}], is_terminal=True)
    )


_SAYS_AT_THE_VERY_END = """
import atexit, ctypes, sys
from orchestration.cli.main import main
libc = ctypes.CDLL(None)
libc.on_exit(libc.psignal, None)  # says "Unknown signal 0" after the interpreter, as DuckDB's binding does
sys.argv = ["headwater", "--help"]
try:
    main()
finally:
    print("said before the end", file=sys.stderr)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="on_exit is of the GNU C library")
def test_bindings_say_nothing_after_the_end() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", _SAYS_AT_THE_VERY_END], capture_output=True, text=True, check=True
    )
    assert "said before the end" in ran.stderr
    assert "Unknown signal" not in ran.stderr
    without = _SAYS_AT_THE_VERY_END.replace("    main()", "    pass")
    loud = subprocess.run([sys.executable, "-c", without], capture_output=True, text=True, check=True)
    assert "Unknown signal" in loud.stderr
