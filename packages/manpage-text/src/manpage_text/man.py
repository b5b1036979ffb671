"""Reads the macros of man(7), and those that pod2man, docutils and asciidoc add."""

from collections.abc import Iterator

from manpage_text.lines import RoffLine
from manpage_text.table import read_table
from manpage_text.writer import PageWriter

_FONTS = {"B", "I", "R", "SM", "SB", "CW", "C", "L", "Q"}
_MIXED = {"BI", "BR", "IB", "IR", "RB", "RI", "LR", "RL", "CR", "RC"}
_PARAGRAPHS = {"PP", "P", "LP", "HP"}
_VERBATIM = {"nf", "EX", "Vb"}
_VERBATIM_ENDS = {"fi", "EE", "Ve"}
_GAPS = {"sp", "Sp"}
_BREAKS = {"br", "ti", "ce", "bp", "pdfhref"}
MAN_MACROS = frozenset(
    _FONTS | _MIXED | _PARAGRAPHS | _VERBATIM | _VERBATIM_ENDS | _GAPS | _BREAKS
    | {"TH", "SH", "SS", "TP", "TQ", "IP", "RS", "RE", "INDENT", "UNINDENT", "UR", "UE", "MT", "ME", "SY"}
    | {"YS", "OP", "MR", "PD", "DT", "UC", "AT", "IX", "TS", "TE", "EQ", "EN", "URL", "MTO", "LINKSTYLE"}
)  # fmt: skip
"""Macros and requests that `read_man` understands."""
IGNORED = frozenset(
    (
        "ad af am as bd box boxa break c2 cc cf ch char color continue cp cs cu da dei device devicem di do"
        " ds dt ec ecr ecs el em eo ev evc ex fam fc fchar fcolor fl fp fschar fspecial ft fzoom gcolor hc"
        " hcode hla hlm hpf hpfa hpfcode hw hy hym hys in it itc kern lc length lf lg linetabs ll ls lt mc"
        " mk mso na ne nh nm nn nr nroff ns nx open opena os output pc pi pl pm pn pnr po ps psbb pso ptr"
        " pvs rchar rd return rfschar rj rm rn rnn rr rs rt schar shc shift sizes so spreadwarn ss"
        " stringdown stringup sty substring sv sy ta tag taga tc ti tkf tl tm tm1 tmc tr trf trin trnt troff"
        " uf ul vpt vs warn warnscale wh write writec writem PD DT UC AT IX LINKSTYLE TH"
    ).split()
)
"""Requests of troff(7) and macros that print nothing."""


def read_man(lines: Iterator[RoffLine], page: PageWriter) -> None:
    """Writes the text of a page; the arguments of unknown macros are text."""
    waits_for_term = False
    link = ""
    for line in lines:
        name, arguments = line.macro, line.arguments
        if not name and not line.text.strip() and not page.verbatim:
            page.gap()
        elif name == "\\c":
            page.glue()
        elif not name or name in _FONTS or name in _MIXED:
            words = "".join(arguments) if name in _MIXED else line.text
            if waits_for_term and words.strip():
                page.item(words)
                waits_for_term = False
            elif words or page.verbatim:
                page.text(words)
        elif name in IGNORED and name not in _BREAKS:
            pass
        elif name in ("SH", "SS"):
            heading = line if line.text else next(lines, line)
            page.heading(heading.text, 1 if name == "SH" else 2)
            waits_for_term = False
        elif name in ("TP", "TQ"):
            waits_for_term = True
        elif name == "IP":
            page.item(arguments[0] if arguments else "")
        elif name in _PARAGRAPHS:
            page.paragraph(hangs=name == "HP")
        elif name in ("RS", "INDENT"):
            page.push()
        elif name in ("RE", "UNINDENT"):
            page.pop()
        elif name in _VERBATIM or name in _VERBATIM_ENDS:
            page.gap()
            page.verbatim = name in _VERBATIM
        elif name in _GAPS and page.verbatim:
            page.text("")
        elif name in _GAPS:
            page.gap()
        elif name in _BREAKS or name == "YS":
            page.line()
        elif name == "TS":
            page.table(*read_table(lines))
        elif name in ("UR", "MT"):
            link = line.text
        elif name in ("UE", "ME"):
            page.text(f"<{link}>{line.text}" if link else line.text)
        elif name in ("URL", "MTO") and arguments:
            page.text(f"{' '.join(arguments[1:2])} <{arguments[0]}>{''.join(arguments[2:])}")
        elif name == "MR":
            page.text(f"{''.join(arguments[:1])}({''.join(arguments[1:2])}){''.join(arguments[2:])}")
        elif name == "OP":
            page.text(f"[{line.text}]")
        elif name == "SY":
            page.line()
            page.text(line.text)
        elif name not in ("EQ", "EN", "TE"):
            page.text(line.text)
