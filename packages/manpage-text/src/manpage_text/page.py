"""Tells manual pages from other texts, and reads them."""

import re

from manpage_text.blocks import Block, ManualPage, TableFormat
from manpage_text.characters import plain_text
from manpage_text.lines import RoffReader
from manpage_text.man import IGNORED, MAN_MACROS, read_man
from manpage_text.mdoc import MDOC_MACROS, read_mdoc
from manpage_text.writer import PageWriter, table_lines

_HEAD_BYTES = 1 << 16
"""pod2man writes four kilobytes of definitions before the title."""
_BEGINS = re.compile(rb"\s*(?:['.][ \t]*(?:\\[\"#]|[a-zA-Z]{1,3}\b|$)|\\\"|'''|\.\.)", re.MULTILINE)
_TITLE = re.compile(rb"^['.][ \t]*(?:TH|Dd|Dt)[ \t]+\S", re.MULTILINE)
_SECTION = re.compile(rb"^['.][ \t]*(?:SH|Sh)\b", re.MULTILINE)
_REFERENCE = re.compile(rb"(?:['.]?\\\"[^\n]*\n|\s)*\.[ \t]*so[ \t]+\S+\s*(?:['.]?\\\"[^\n]*\s*)*")
_PAGE_EXTENSION = re.compile(r"\.(?:[1-9][a-z0-9]{0,9}|[nl])")
_MDOC = re.compile(r"^\.[ \t]*Dd\b", re.MULTILINE)
_CODING = re.compile(rb"-\*-.*coding:[ \t]*([\w-]+)")
_NAMES = re.compile(r"\S+(?:, \S+)*")
# The words of the source are found without knowing what its macros mean.
_DEFINITION = re.compile(
    r"^['.][ \t]*(?:(?:de1?|am1?|ig)\b.*?(?:^['.][ \t]*\.|\Z)|TS\b.{0,400}?\.[ \t]*$)",
    re.MULTILINE | re.DOTALL,
)
_LINE = re.compile(r"^(?:(['.])[ \t]*(\S*)[ \t]*)?(.*)$", re.MULTILINE)
_COMMENT = re.compile(r"\\[\"#].*")
_WITHOUT_WORDS = IGNORED | {
    "",
    *"if ie el nop TP HP RS RE INDENT UNINDENT sp Vb TS TE nf fi ce".split(),
    *"Bl El Bd Ed Bk Ek Sm Dd Dt Os ds als so".split(),
}


def is_manual_page(body: bytes, extension: str) -> bool:
    """Returns whether a file is a manual page's source: it starts with a macro, has title and section.

    Args:
        body: The file, or at least its first 64 KiB.
        extension: The extension of its name; that of a section, such as `.1`, makes up for a missing title.
    """
    head = body[:_HEAD_BYTES].removeprefix(b"\xef\xbb\xbf")
    if not _BEGINS.match(head):
        return False
    named = bool(_PAGE_EXTENSION.fullmatch(extension))
    if named and _REFERENCE.fullmatch(head):
        return True
    return bool(_SECTION.search(head) and (named or _TITLE.search(head)))


def declared_encoding(body: bytes) -> str | None:
    """Returns the encoding that a page's first lines name for preconv(1), as in `-*- coding: latin-1 -*-`."""
    named = _CODING.search(body[:200])
    return named[1].decode("ascii") if named else None


def read_manual_page(source: str, headed_table: TableFormat = table_lines) -> ManualPage:
    """Returns the headings, paragraphs, options, code and tables of a page written in man(7) or mdoc(7).

    An option stands on a line, its explanation indented below it. Included files are not read. Any text is
    read in time linear in its length, and no source raises an error.

    Args:
        source: The source of the page, decoded.
        headed_table: How tables with a header are written; by default a line for each row.
    """
    lines = list(RoffReader(MAN_MACROS | MDOC_MACROS).read(source))
    page = PageWriter(headed_table)
    (read_mdoc if _MDOC.search(source) else read_man)(iter(lines), page)
    blocks = page.finish()
    other = next((line.text for line in lines if line.macro == "so"), "")
    titled = next((line.arguments for line in lines if line.macro in ("TH", "Dt")), ())
    return ManualPage(
        _title(titled, blocks), blocks, _source_words(source), (other or None) if not blocks else None
    )


def _title(arguments: tuple[str, ...], blocks: list[Block]) -> str | None:
    """A title such as `ls(1)`, in the case of letters that the page's text uses."""
    if not arguments or not arguments[0].strip():
        return None
    name = arguments[0].strip()
    first = next((block.text for block in blocks if block.level is None), "")
    own = _NAMES.match(first.strip().replace(" ", "-") if " " not in name and "-" in name else first.strip())
    if own and own[0].split(",")[0].casefold()[: len(name)] == name.casefold():
        name = own[0][: len(name)]
    return f"{name}({arguments[1]})" if len(arguments) > 1 and arguments[1].strip() else name


def _source_words(source: str) -> str:
    """The words of all lines that a reader sees, without macros."""
    words: list[str] = []
    for line in _LINE.finditer(_DEFINITION.sub("", source)):
        name = line[2]
        if line[1] and (name in _WITHOUT_WORDS or not name[0].isalpha()):
            continue
        text = plain_text(_COMMENT.sub("", line[3]), {})
        if line[1] and name == "IP" and text[-1:].isdigit():  # the width of the indentation
            text = text.rsplit(" ", 1)[0]
        words.append(" ".join(each for each in text.replace('"', " ").split() if each not in MDOC_MACROS))
    return "\n".join(words)
