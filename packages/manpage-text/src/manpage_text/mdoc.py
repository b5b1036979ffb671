"""Reads the macros of mdoc(7)."""

import re
from collections.abc import Iterable, Iterator

from manpage_text.lines import RoffLine
from manpage_text.man import IGNORED
from manpage_text.table import read_table
from manpage_text.writer import PageWriter, table_row

_CLOSING, _OPENING = frozenset(".,:;)]?!"), frozenset("([")
_ENCLOSURES = {
    **{"Op": "[]", "Aq": "<>", "Bq": "[]", "Pq": "()", "Dq": "“”", "Sq": "‘’", "Ql": "‘’", "Qq": '""'},
    **{"Brq": "{}", "En": "  "},
}
_BEGINS = {"Oo": "[", "Ao": "<", "Bo": "[", "Po": "(", "Do": "“", "So": "‘", "Qo": '"', "Bro": "{"}
_ENDS = {"Oc": "]", "Ac": ">", "Bc": "]", "Pc": ")", "Dc": "”", "Sc": "’", "Qc": '"', "Brc": "}"}
_SYSTEMS = {
    **{"Bx": "BSD", "Nx": "NetBSD", "Fx": "FreeBSD", "Ox": "OpenBSD", "Ux": "UNIX", "Bsx": "BSD/OS"},
    **{"Dx": "DragonFly", "At": "AT&T UNIX"},
}
_WORDS = frozenset(
    (
        "Ad An Ar Cd Cm Dv Em Er Ev Fa Fd Fl Fn Fo Fc Fr Ft Ic In Lb Li Lk Ms Mt Nd Nm No Ns Pa Pf Ap St Sx"
        " Sy Tn Ta Va Vt Xo Xc Xr Es Eo Ec Hf Ot"
    ).split()
)
_INLINE = _WORDS | _ENCLOSURES.keys() | _BEGINS.keys() | _ENDS.keys() | _SYSTEMS.keys()
_BLOCKS = frozenset("Dd Dt Os Sh Ss Pp Lp Bl El It Bd Ed D1 Dl Rs Re Bk Ek Sm Rv Ex Bt Ud Fo Fc".split())
MDOC_MACROS = _INLINE | _BLOCKS
"""Macros that `read_mdoc` understands, apart from those of references, `%A` to `%V`."""
_MARKED = {"-bullet": "•", "-dash": "-", "-hyphen": "-", "-item": "", "-enum": ""}
_VERBATIM = ("-literal", "-unfilled")
_STANDARD_EXIT = "utility exits 0 on success, and >0 if an error occurs."
_STANDARD_RETURN = (
    "function returns the value 0 if successful; otherwise the value -1 is returned and the global variable"
    " errno is set to indicate the error."
)
_NO_SPACE = "\0"
"""Marks a place in a rendered line where no space is printed."""
_TIGHT = re.compile(f" ?{_NO_SPACE}[ {_NO_SPACE}]*")


def read_mdoc(lines: Iterator[RoffLine], page: PageWriter) -> None:
    """Writes the text of a page; the arguments of unknown macros are text."""
    _Reader(page).read(lines)


class _Reader:
    def __init__(self, page: PageWriter) -> None:
        self._page = page
        self._name = ""
        self._lists: list[tuple[str, int]] = []
        self._head: list[str] | None = None
        self._reference: list[str] | None = None
        self._arguments: list[str] | None = None

    def read(self, lines: Iterator[RoffLine]) -> None:
        for line in lines:
            if line.macro == "TS":
                self._page.table(*read_table(lines))
            else:
                self._line(line)
        self._end_head()

    def _line(self, line: RoffLine) -> None:
        page, name, arguments = self._page, line.macro, line.arguments
        if not name:
            if page.verbatim or line.text.strip():
                self._add(line.text)
            else:
                page.gap()
        elif name in ("Sh", "Ss"):
            self._end_head()
            page.heading(self._inline(line), 1 if name == "Sh" else 2)
            self._lists = []
        elif name in ("Pp", "Lp", "sp", "Sp"):
            page.gap()
        elif name == "br":
            page.line()
        elif name == "Bl":
            self._end_head()
            page.gap()
            page.push(step=0)
            kinds = (each for each in arguments if each in _MARKED or each == "-column")
            self._lists.append((next(kinds, ""), 0))
        elif name == "El":
            self._end_head()
            if self._lists:
                self._lists.pop()
                page.pop()
        elif name == "It":
            self._item(line)
        elif name in ("Bd", "nf"):
            page.gap()
            page.verbatim = name == "nf" or any(each in _VERBATIM for each in arguments)
        elif name in ("Ed", "fi"):
            page.gap()
            page.verbatim = False
        elif name in ("D1", "Dl"):
            page.gap()
            text = self._inline(line)
            verbatim, page.verbatim = page.verbatim, True
            page.text(text)
            page.verbatim = verbatim
            page.gap()
        elif name == "Rs":
            self._reference = []
        elif name == "Re":
            page.text(", ".join(self._reference or ()) + ".")
            self._reference = None
        elif name.startswith("%"):
            if self._reference is not None:
                self._reference.append(line.text)
        elif name == "Ex":
            page.text(f"The {' '.join(arguments[1:]) or self._name} {_STANDARD_EXIT}")
        elif name == "Rv":
            page.text(f"The {'(), '.join(arguments[1:]) or self._name}() {_STANDARD_RETURN}")
        elif name in ("Dd", "Dt", "Os", "Bk", "Ek", "Sm") or name in IGNORED:
            pass
        elif name == "\\c":
            page.glue()
        else:
            self._add(self._inline(line))

    def _item(self, line: RoffLine) -> None:
        self._end_head()
        kind, number = self._lists[-1] if self._lists else ("", 0)
        if kind == "-enum":
            self._lists[-1] = (kind, number + 1)
            self._page.item(f"{number + 1}.")
        elif kind in _MARKED:
            self._page.item(_MARKED[kind])
        elif kind == "-column":
            cells = self._inline(line, cells=True).split("\t")
            self._page.line()
            self._page.text(table_row(cells))
            self._page.line()
        else:
            self._head = []
            self._add(self._inline(line))
            if "Xo" not in line.arguments or "Xc" in line.arguments:
                self._end_head()

    def _end_head(self) -> None:
        """Ends an item's term."""
        if self._head is not None:
            term = _spaced(self._head)
            self._head = None
            self._page.item(term or "•")

    def _add(self, text: str) -> None:
        """Adds rendered words to the paragraph, or to the term that is not yet complete."""
        if self._head is not None:
            self._head.append(text)
            return
        if text.startswith(_NO_SPACE) and not self._page.verbatim:
            self._page.glue()
        self._page.text(text.strip(_NO_SPACE))
        if text.endswith(_NO_SPACE):
            self._page.glue()

    def _inline(self, line: RoffLine, cells: bool = False) -> str:
        """Renders a line with macros in it; it may begin or end with `_NO_SPACE`."""
        given = list(zip(line.arguments, line.quoted, strict=True))
        if line.macro not in ("It", "Sh", "Ss", "D1", "Dl"):
            given.insert(0, (line.macro, False))
        ending: list[str] = []
        while len(given) > 1 and given[-1][0] in _CLOSING and not given[-1][1]:
            ending.insert(0, _NO_SPACE + given.pop()[0])
        parts: list[str] = []
        closing: list[str] = []
        place = 0
        while place < len(given):
            name, quoted = given[place]
            place += 1
            if quoted or name not in _INLINE:
                parts.append(name if quoted else _punctuated(name))
                continue
            if name in _ENCLOSURES:
                parts.append(_ENCLOSURES[name][0] + _NO_SPACE)
                closing.append(_NO_SPACE + _ENCLOSURES[name][1])
                continue
            first = place
            while place < len(given) and (given[place][1] or given[place][0] not in _INLINE):
                place += 1
            words = [each for each, _ in given[first:place]]
            if name == "Xc" and self._head is not None:
                self._head.append(_spaced([*parts, *map(_punctuated, words), *closing[::-1], *ending]))
                self._end_head()
                return ""
            parts += ["\t", *words] if name == "Ta" and cells else self._word(name, words)
        return _spaced([*parts, *closing[::-1], *ending])

    def _word(self, name: str, words: list[str]) -> list[str]:
        """Renders a macro and its words."""
        first = words[0] if words else ""
        rest = [_punctuated(each) for each in words[1:]]
        everything = [_punctuated(each) for each in words]
        match name:
            case "Fl":
                return [each if each in _CLOSING or each == "|" else f"-{each}" for each in words] or [
                    "-" + _NO_SPACE
                ]
            case "Nm":
                if first and first not in _CLOSING:
                    self._name = self._name or first
                    return everything
                return [self._name, *everything]
            case "Nd":
                return ["–", *everything]
            case "Ns":
                return [_NO_SPACE, *everything]
            case "Ap":
                return [f"{_NO_SPACE}'{_NO_SPACE}", *everything]
            case "Pf":
                return [first + _NO_SPACE, *rest]
            case "Ar":
                return everything or ["file ..."]
            case "Xr":
                section = f"({words[1]})" if len(words) > 1 and words[1] not in _CLOSING else ""
                return [first + section, *(rest[1:] if section else rest)]
            case "Fn":
                return [f"{first}({', '.join(each for each in words[1:] if each not in _CLOSING)})"]
            case "Fo":
                self._arguments = []
                return [f"{first}({_NO_SPACE}"]
            case "Fc":
                inside, self._arguments = ", ".join(self._arguments or ()), None
                return [f"{_NO_SPACE}{inside})", *everything]
            case "Fa" if self._arguments is not None:
                self._arguments += words
                return []
            case "In":
                return [f"<{first}>", *rest]
            case "Lk":
                return [*rest, f"<{first}>"]
            case "St":
                return [first.removeprefix("-"), *rest]
            case _ if name in _BEGINS:
                return [_BEGINS[name] + _NO_SPACE, *everything]
            case _ if name in _ENDS:
                return [_NO_SPACE + _ENDS[name], *everything]
            case _ if name in _SYSTEMS:
                return [_SYSTEMS[name], *everything]
        return everything


def _punctuated(word: str) -> str:
    if word in _CLOSING:
        return _NO_SPACE + word
    return word + _NO_SPACE if word in _OPENING else word


def _spaced(parts: Iterable[str]) -> str:
    """Joins parts by spaces, except at `_NO_SPACE`, which stays only at the ends."""
    text = _TIGHT.sub(_NO_SPACE, " ".join(part for part in parts if part))
    return text[:1] + text[1:-1].replace(_NO_SPACE, "") + text[-1:] if len(text) > 1 else text
