"""What a reader of the page on a terminal sees, whatever macros the page is written with."""

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from manpage_text import declared_encoding, is_manual_page, read_manual_page

MAN = r"""'\" t
.\" Copyright: nobody
.de FN
\fI\|\\$1\|\fP
..
.TH TIDE 1 "2026-03-01" "tide 2.1"
.SH NAME
tide \- print tables of the tide
.SH SYNOPSIS
.B tide
[\fB\-a\fR] [\fB\-\-port\fR=\fINAME\fR]
.SH OPTIONS
.TP
.BR \-a ", " \-\-all
Print all ports,
also those without water.
.IP
It takes longer.
.TP
.B \-q
.TQ
.B \-\-quiet
Print nothing; see
.FN /etc/tide.conf
and
.BR tide.conf (5).
.PP
The ports are:
.IP \(bu 2
Brest
.IP \(bu
Le Havre
.SS "Exit status"
.TS
tab(:);
lb lb
l l.
Code:Meaning
_
0:success
2:no such port
.TE
.SH EXAMPLES
To print today\(cqs tide:
.PP
.nf
.RS
$ tide \-a \e
    \-\-port=brest
.RE
.fi
.PP
.if t On paper.
.ie n In a terminal.
.el In print.
"""
MDOC = r""".\" $OpenBSD$
.Dd March 1, 2026
.Dt TIDED 8
.Os
.Sh NAME
.Nm tided
.Nd serve tables of the tide
.Sh SYNOPSIS
.Nm
.Op Fl dv
.Op Fl p Ar port
.Sh DESCRIPTION
.Nm
listens
.Pq by default on port 4190 .
See
.Xr tide 1 ,
.Pa /etc/tide.conf .
.Bl -tag -width Ds
.It Fl d
Do not detach.
.It Fl p Ar port , Fl Fl port Ns = Ns Ar port
Listen on
.Ar port .
.Bl -bullet
.It
below 1024 as root
.El
.El
.Bd -literal -offset indent
tided -p 4190 &
.Ed
"""

ASCIIDOC_ITEM = r"""
.RS 4
.ie n \{\
\h'-04'\(bu\h'+03'\c
.\}
.el \{\
.IP \(bu 2.3
.\}
one
.RE
""".strip()
DOUBLED = "".join(f".ds {b} \\*{a}\\*{a}\\*{a}\n" for a, b in pairwise("abcdefghijkl"))


def test_a_page_in_man_is_read_with_its_options_tables_and_examples() -> None:
    page = read_manual_page(MAN)
    assert page.title == "tide(1)"
    assert [(block.text, block.level) for block in page.blocks if block.level] == [
        *(("NAME", 1), ("SYNOPSIS", 1), ("OPTIONS", 1), ("Exit status", 2), ("EXAMPLES", 1))
    ]
    assert page.text == (
        "NAME\n\ntide - print tables of the tide\n\nSYNOPSIS\n\ntide [-a] [--port=NAME]\n\nOPTIONS\n\n"
        "-a, --all\n  Print all ports, also those without water.\n\n  It takes longer.\n\n"
        "-q, --quiet\n  Print nothing; see /etc/tide.conf and tide.conf(5).\n\n"
        "The ports are:\n\n- Brest\n\n- Le Havre\n\n"
        "Exit status\n\nCode | Meaning\n0 | success\n2 | no such port\n\n"
        "EXAMPLES\n\nTo print today’s tide:\n\n      $ tide -a \\\n          --port=brest\n\nIn a terminal."
    )
    assert {"tables", "[--port=NAME]", "water.", "Brest"} <= set(page.source_words.split())


def test_a_page_in_mdoc_is_read_with_its_macros_of_macros() -> None:
    page = read_manual_page(MDOC)
    assert page.title == "tided(8)"
    assert page.text == (
        "NAME\n\ntided – serve tables of the tide\n\nSYNOPSIS\n\ntided [-dv] [-p port]\n\nDESCRIPTION\n\n"
        "tided listens (by default on port 4190). See tide(1), /etc/tide.conf.\n\n"
        "-d\n  Do not detach.\n\n"
        "-p port, --port=port\n  Listen on port.\n\n  - below 1024 as root\n\n"
        "    tided -p 4190 &"
    )


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (r"caf\['e] \(:u \[u2014] \(em \(*a \[char65] \(co", "café ü — — α A ©"),
        (r"a\ b\~c\0d \fBbold\fP \f[CR]x\f[] \s-2small\s0 \h'3n'moved", "a b c d bold x small moved"),
        (r"C:\ea\\b \&.5 it\(aqs \`\'", r"C:\a\b .5 it's `" + "'"),
        (r"one\" a comment" + "\n.\\\" another\n'\\\" and another\ntwo", "one two"),
        (".de X\nnot \\\\$1 here\n..\nseen", "seen"),
        (".de X\nsee \\\\$1, \\\\$2\n..\n.X one \"and two\"", "see one, and two"),
        (".ig\nnot this\n..\nseen", "seen"),
        (".ig \\\" with a comment\nnot this\n..\nseen", "seen"),
        (".ds PORT Brest\nto \\*[PORT] and \\*(PO.", "to Brest and ."),
        (".if t \\{\\\nnot this\n.nf\n.\\}\n.if n \\{\\\nthis\n.\\}\nthat", "this that"),
        (".ie !'a'b' yes\n.el no", "yes"),
        ("half\\\nof it\n.B bold\n.I slanted\n.RB ( x )", "halfof it bold slanted (x)"),
        ("joined\\c\n.B up", "joinedup"),
        ("not joined \\c\n.B up", "not joined up"),
        ("from \\c\n.URL https://tide.example Tide .", "from Tide <https://tide.example>."),
        (".I file\\c\n.RB ( \\-o\\c\n.BR , \"bar) \\c\"\nends", "file(-o,bar) ends"),
        ("a \\c\n.UR https://tide.example\nsite\n.UE \\c\n, on", "a site <https://tide.example>, on"),
        (".TP\n.B \\-p \\c\n.I port\nListen.", "-p port\n  Listen."),
        (".HP\n\\fB\\-n\\fR, \\-\\-quiet\n.IP\nnothing\n.IP\nat all", "-n, --quiet\n  nothing\n\n  at all"),
        (".UR https://tide.example\nthe site\n.UE .", "the site <https://tide.example>."),
        (".XYZ words of an unknown macro", "words of an unknown macro"),
        ("  begins with spaces\nand goes on", "  begins with spaces and goes on"),
        (".EX\na  b\n\n c\n.EE", "    a  b\n\n     c"),
        (ASCIIDOC_ITEM, "  - one"),
        (".TS\nl l.\na\tT{\nlong\n.B cell\nT}\n.TE", "a | long cell"),
    ],
)  # fmt: skip
def test_escapes_and_requests(source: str, text: str) -> None:
    assert read_manual_page(f".TH X 1\n.SH A\n{source}\n").text == f"A\n\n{text}"


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (".Pq Sq \\&! .", "(‘!’)."),
        (".Fn open path flags ,\n.Vt int", "open(path, flags), int"),
        (".Fo open\n.Fa path\n.Fa flags\n.Fc", "open(path, flags)"),
        (".Fl Fl all Ns = Ns Ar x Ns Oo , Ns y Oc", "--all=x[,y]"),
        (".Dq one two ;", "“one two”;"),
        (".Bl -column a b\n.It one Ta two\n.El", "one | two"),
        (".Bl -enum\n.It\nfirst\n.It\nsecond\n.El", "1. first\n\n2. second"),
        (".Bl -tag\n.It Xo\n.Fl a\n.Ar b\n.Xc\nit\n.El", "-a b\n  it"),
        (".Lk https://a.example site", "site <https://a.example>"),
        (".Rs\n.%A Ada\n.%T Tides\n.Re", "Ada, Tides."),
        (".Ex -std tided", "The tided utility exits 0 on success, and >0 if an error occurs."),
    ],
)
def test_macros_of_mdoc(source: str, text: str) -> None:
    assert read_manual_page(f".Dd today\n.Dt X 1\n.Sh A\n{source}\n").text.removeprefix("A\n\n") == text


def test_no_file_is_included(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("password")
    files = f".so {secret}\n.mso {secret}\n.sy cat {secret}\n.pso cat {secret}\n"
    assert read_manual_page(f".TH X 1\n.SH A\nSeen.\n{files}").text == "A\n\nSeen."


def test_a_page_that_only_refers_to_another_one_says_to_which() -> None:
    page = read_manual_page(".so man1/tide.1\n")
    assert (page.blocks, page.refers_to) == ([], "man1/tide.1")
    assert read_manual_page(f"{MAN}.so man1/tide.1\n").refers_to is None


@pytest.mark.parametrize(
    ("body", "extension", "is_page"),
    [
        (MAN.encode(), "", True),
        (MDOC.encode(), ".txt", True),
        (b".SH NAME\na \\- without a title\n", ".5", True),
        (b".SH NAME\na \\- without a title\n", ".txt", False),
        (b".so man1/a.1\n", ".1", True),
        (b".so man1/a.1\n", ".txt", False),
        (b"Not a macro.\n.TH A 1\n.SH B\n", ".1", False),
        (b"", ".1", False),
    ],
)
def test_pages_are_told_from_other_files(body: bytes, extension: str, is_page: bool) -> None:
    assert is_manual_page(body, extension) is is_page


def test_a_page_declares_its_encoding() -> None:
    assert declared_encoding(b"'\\\" t -*- coding: latin-1 -*-\n.TH A 1\n") == "latin-1"
    assert declared_encoding(MAN.encode()) is None


def test_tables_with_a_header_can_be_written_otherwise() -> None:
    def markdown(rows: list[list[str]]) -> list[str]:
        return ["\n".join(f"| {' | '.join(row)} |" for row in rows)]

    assert "| Code | Meaning |\n| 0 | success |\n" in read_manual_page(MAN, markdown).text


@pytest.mark.parametrize(
    "bomb",
    [
        ".de A\n.A\n.A\n..\n.A\n",
        ".de A\n.B\n.B\n..\n.de B\n.A\n.A\n..\n.A\n",
        ".ds a xxxxxxxxxx\n" + DOUBLED + "\\*l\n",
        ".de A\n" + "word\n" * 1000 + "..\n" + ".A\n" * 2000,
        ".de A\n\\\\$*\\\\$*\\\\$*\\\\$*\n..\n.A " + "word " * 100_000 + "\n",
        ".while 1 \\{\\\nword\n.\\}\n",
        ".if n \\{\\\n" * 10_000,
        ".if t \\{\\\n" * 10_000,
        ".ie n .ie n " * 5_000,
        ".de\n.ig\n.de X\n" * 5_000,
        ".RS\n.Bl -tag\n.IP x\n" * 5_000 + "word\n",
        ".TS\n" * 10_000,
        ".TS\nl.\nT{\n" + "T{\tT{\n" * 10_000,
        ".Op " * 10_000,
        ".It Xo\n" * 10_000,
        "\\*[" * 50_000,
        "\\h'" * 50_000,
        "\\Z'" * 50_000,
        '.B "' + '"' * 100_000,
        "\\\n" * 50_000,
        ".als A B\n.als B A\n.A\n",
    ],
)  # fmt: skip
def test_bombs_do_nothing(bomb: str) -> None:
    for head in (".TH X 1\n.SH A\n", ".Dd now\n.Dt X 1\n.Sh A\n"):
        page = read_manual_page(f"{head}Seen.\n{bomb}")
        assert page.text.startswith("A\n\nSeen.")
        assert len(page.text) < 2_500_000


LINES = st.sampled_from([*MAN.split("\n"), *MDOC.split("\n"), ".TS", "T{", ".Bl", ".de X", "\\", ".if", "."])


@given(st.lists(st.one_of(LINES, st.text(max_size=30)), max_size=40))
@settings(max_examples=300, deadline=None)
def test_any_lines_are_read(lines: list[str]) -> None:
    for head in (".TH X 1", ".Dd now"):
        page = read_manual_page("\n".join([head, *lines]))
        assert all(block.text.strip() for block in page.blocks)
