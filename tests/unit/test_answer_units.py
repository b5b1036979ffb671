"""Units of answers: what they are made of, and that they are exact spans whatever the text."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.scoring.answer_units import MAX_UNIT_CHARS, answer_units

_LINES = """
It listens on port 80.
Use this command:
    apt-get install foo
$ foo --version
```
- one item
- another: item
1. Stop the service.
   and wait
| a | b |
| --- | --- |
| -v | verbose |
1.2 Title ...... 5
A wrapped line that
goes on. And ends.
Note:
名前は「何」です。次の文。
>>> f(1)
…
?
a | b"""
LINES = st.sampled_from(["", " ", "\t:\t", *_LINES.split("\n")])
TEXTS = st.one_of(st.lists(LINES, max_size=25).map("\n".join), st.text(max_size=200))


def quoted(text: str) -> list[list[str]]:
    return [[text[start:end] for start, end in unit.spans] for unit in answer_units(text)]


@given(TEXTS)
@settings(max_examples=300, deadline=None)
def test_units_are_exact_spans_in_order_and_no_fragments(text: str) -> None:
    units = answer_units(text)
    assert [unit.end for unit in units] == sorted(unit.end for unit in units)
    for unit in units:
        assert 1 <= len(unit.spans) <= 2
        previous = 0
        for start, end in unit.spans:
            assert previous <= start < end <= len(text)
            assert text[start:end] == text[start:end].strip()
            previous = end


@given(st.lists(st.sampled_from(["It is so.", "Note:", "a wrapped line", "", "Then: this."]), max_size=12))
@settings(deadline=None)
def test_no_sentence_stands_without_what_its_colon_leads_into(lines: list[str]) -> None:
    text = "\n".join(lines)
    assert not [each for unit in quoted(text) for each in unit if each.endswith(":")]


@given(TEXTS)
@settings(deadline=None)
def test_a_fenced_block_is_never_divided(text: str) -> None:
    for unit in answer_units(text):
        body = [line.strip() for line in text[unit.start : unit.end].splitlines()]
        inside = [line.strip() for line in text[: unit.start].splitlines()].count("```") % 2
        complete = body.count("```") % 2 == 0
        assert not inside
        assert complete or not text[unit.end :].strip()  # only a block that the text itself cuts off


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It stops. It starts again.", [["It stops."], ["It starts again."]]),
        (
            "Run this:\n\n    apt-get install foo\n    foo --start\n\nIt runs.",
            [["Run this:\n\n    apt-get install foo\n    foo --start"], ["It runs."]],
        ),
        (
            "To see the version, ask it.\n\n$ foo --version\n1.2",
            [["To see the version, ask it."], ["To see the version, ask it.\n\n$ foo --version"], ["1.2"]],
        ),
        (
            "Edit it.\n```\nport = 1\n\nx = 2\n```\n",
            [["Edit it."], ["Edit it.\n```\nport = 1\n\nx = 2\n```"]],
        ),
        (
            "The steps are:\n1. Stop it.\n2. Edit the file,\n   and save it.\n\n3. Start it.",
            [["The steps are:\n1. Stop it.\n2. Edit the file,\n   and save it.\n\n3. Start it."]],
        ),
        (
            "| a | b |\n| --- | --- |\n| -v | verbose |",
            [["| a | b |\n| --- | --- |\n| -v | verbose |"]],
        ),
        ("1.1 First ........ 3\n1.2 Second ....... 5\n\nIt is here.", [["It is here."]]),
        ("It is wrapped\nby hand. Then:", [["It is wrapped\nby hand."]]),
        ("He said: yes. Remember:\nIt is so.", [["He said: yes."], ["Remember:\nIt is so."]]),
        (
            "       The server reads its file again when it gets the signal\n       SIGHUP. See below.",
            [
                ["The server reads its file again when it gets the signal\n       SIGHUP."],
                ["See below."],
            ],
        ),
        (
            "--keep=<yes|no> [default: no]\n    Keeps the input. " + "It is kept as it was found there. " * 6,
            [
                ["--keep=<yes|no> [default: no]\n    Keeps the input."],
                *[["--keep=<yes|no> [default: no]", "It is kept as it was found there."]] * 6,
            ],
        ),
        (
            "--one\n    Is one. It counts.\n--two\n    Is two.\nAll are numbers.",
            [
                ["--one\n    Is one."],
                ["--one", "It counts."],
                ["--two\n    Is two."],
                ["All are numbers."],
            ],
        ),
        ("", []),
        ("Note:", []),
    ],
)
def test_a_unit_is_what_a_person_would_quote(text: str, expected: list[list[str]]) -> None:
    assert quoted(text) == expected


def test_a_long_list_is_quoted_by_the_item_and_a_long_table_by_the_row() -> None:
    items = [f"- item {number} {'word ' * 30}".rstrip() for number in range(10)]
    text = "These are there:\n\n" + "\n".join(items)
    assert len(text) > MAX_UNIT_CHARS
    assert quoted(text)[0] == ["These are there:\n\n" + items[0]]
    assert quoted(text)[3] == ["These are there:", items[3]]
    rows = [f"| -{number} | {'word ' * 20}|" for number in range(10)]
    table = "\n".join(["| option | meaning |", "| --- | --- |", *rows])
    assert quoted(table)[4] == ["| option | meaning |", rows[4]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (  # a sentence that a blank line cuts in two
            "The server reads all of its files again when it gets the\n\nsignal SIGHUP. It does so at once.",
            [
                ["The server reads all of its files again when it gets the\n\nsignal SIGHUP."],
                ["It does so at once."],
            ],
        ),
        (
            "It waits for all packets at the port\n323. You open it.",
            [["It waits for all packets at the port\n323."], ["You open it."]],
        ),
        (  # the same words, where a list or heading stands alone
            "Options of the server\n\nare these.",
            [["Options of the server"], ["are these."]],
        ),
        (  # an option with several paragraphs
            "-a, --all\n  Print all ports.\n\n  It takes longer.\n\n-b\n  Print none.\n\nPorts are places.",
            [
                ["-a, --all\n  Print all ports."],
                ["-a, --all", "It takes longer."],
                ["-b\n  Print none."],
                ["Ports are places."],
            ],
        ),
        (
            "Version 1.2.3 (2026-03-01)\n\n- Fix the crash.\n- Add a port.\n\n"
            "Version 1.2.2 (2026-02-01)\n\nAll is new.",
            [
                ["Version 1.2.3 (2026-03-01)\n\n- Fix the crash.\n- Add a port."],
                ["Version 1.2.2 (2026-02-01)\n\nAll is new."],
            ],
        ),
        (
            "tide (2.1-1) unstable; urgency=medium\n\n  * New version.\n\n -- A. Body <a@b.example>",
            [["tide (2.1-1) unstable; urgency=medium\n\n  * New version.\n\n -- A. Body <a@b.example>"]],
        ),
        (
            "Table of contents\n\n- 1.1. How do I start?\n- 1.2. How do I stop it\n\nYou start it by hand.",
            [["You start it by hand."]],
        ),
        (
            "- Edit the file:\n\nport = 1 and\nname = x\n\nIt is read at once.",
            [
                ["- Edit the file:\n\nport = 1 and\nname = x"],
                ["port = 1 and\nname = x"],
                ["It is read at once."],
            ],
        ),
        (  # headings, in capitals or underlined, and what points to other pages
            "SEE ALSO\n\nport(8), gate(8), and harbour(5)\n\nPorts and Their Gates\n\n"
            "All of the ports\n================\nA port is a gate.\n\n1. Ports\n--------\nIt is open.",
            [["A port is a gate."], ["It is open."]],
        ),
        (  # a label tells nothing apart from its list
            f"Bug fixes:\n\n- Fix the {'very ' * 90}old crash.\n- Close the port.",
            [[f"Bug fixes:\n\n- Fix the {'very ' * 90}old crash."], ["- Close the port."]],
        ),
        (
            "In that case,\n\n$ port --open\n\nopens it, as they say,",
            [["In that case,\n\n$ port --open"], ["opens it, as they say,"]],
        ),
        (
            "Write this into the file:\n\n    server:\n        port: 1\n\n    client:\n\nand start it.",
            [
                ["Write this into the file:\n\n    server:\n        port: 1\n\n    client:\n\nand start it."],
                ["and start it."],
            ],
        ),
    ],
)  # fmt: skip
def test_no_unit_is_a_fragment(text: str, expected: list[list[str]]) -> None:
    assert quoted(text) == expected


def test_an_option_is_judged_by_the_sentence_and_quoted_with_all_that_lies_between() -> None:
    text = (
        "-k, --keep\n  Keeps the input. It is safe.\n\n  It takes room.\n"
        + f"  {'Much is said of it. ' * 40}"
    )
    units = answer_units(text)
    assert units[2].text_of(text) == "-k, --keep It takes room."
    assert [text[start:end] for start, end in units[2].quoted] == [text[: text.index("room.") + 5]]
    assert [text[start:end] for start, end in units[-1].quoted] == ["-k, --keep", "Much is said of it."]


@given(TEXTS)
@settings(max_examples=300, deadline=None)
def test_no_unit_ends_in_a_colon_while_a_unit_follows(text: str) -> None:
    units = answer_units(text)
    for unit, following in pairwise(units):
        if text[unit.end - 1] in ":：" and following.start >= unit.end:
            assert text[unit.end : following.start].strip()
