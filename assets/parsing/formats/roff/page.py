"""Tells manual pages from other texts, and reads them."""

import re

from assets.parsing.blocks import DocumentBlocks, ExtractionError, TextBlock
from assets.parsing.decoding import decode_text
from assets.parsing.formats.roff.characters import plain_text
from assets.parsing.formats.roff.man import IGNORED, MAN_MACROS, read_man
from assets.parsing.formats.roff.mdoc import MDOC_MACROS, read_mdoc
from assets.parsing.formats.roff.requests import RoffReader

_HEAD_BYTES = 1 << 16
"""Pages made from Perl's documentation begin with definitions of four kilobytes."""
_BEGINS = re.compile(rb"\s*(?:['.][ \t]*(?:\\[\"#]|[a-zA-Z]{1,3}\b|$)|\\\"|'''|\.\.)", re.MULTILINE)
_TITLE = re.compile(rb"^['.][ \t]*(?:TH|Dd|Dt)[ \t]+\S", re.MULTILINE)
_SECTION = re.compile(rb"^['.][ \t]*(?:SH|Sh)\b", re.MULTILINE)
_REFERENCE = re.compile(rb"(?:['.]?\\\"[^\n]*\n|\s)*\.[ \t]*so[ \t]+\S+\s*(?:['.]?\\\"[^\n]*\s*)*")
_PAGE_EXTENSION = re.compile(r"\.(?:[1-9][a-z0-9]{0,9}|[nl])")
_MDOC = re.compile(r"^\.[ \t]*Dd\b", re.MULTILINE)
_CODING = re.compile(rb"-\*-.*coding:[ \t]*([\w-]+)")
_NAMES = re.compile(r"\S+(?:, \S+)*")
# What a page says in its source lines, found without its macros' meaning.
_DEFINITION = re.compile(
    r"^['.][ \t]*(?:(?:de1?|am1?|ig)\b.*?(?:^['.][ \t]*\.|\Z)|TS\b.{0,400}?\.[ \t]*$)",
    re.MULTILINE | re.DOTALL,
)
_LINE = re.compile(r"^(?:(['.])[ \t]*(\S*)[ \t]*)?(.*)$", re.MULTILINE)
_COMMENT = re.compile(r"\\[\"#].*")
_WITHOUT_WORDS = {
    "",
    "if",
    "ie",
    "el",
    "nop",
    "TP",
    "HP",
    "RS",
    "RE",
    "INDENT",
    "UNINDENT",
    "sp",
    "Vb",
    "TS",
    "TE",
}
_WITHOUT_WORDS |= {
    "nf",
    "fi",
    "ce",
    "Bl",
    "El",
    "Bd",
    "Ed",
    "Bk",
    "Ek",
    "Sm",
    "Dd",
    "Dt",
    "Os",
    "ds",
    "als",
    "so",
}


def is_manual_page(body: bytes, extension: str) -> bool:
    """Returns whether a file is a manual page's source: it begins with a macro, and has title and section.

    Args:
        body: The file's bytes.
        extension: The extension of its name, such as `.1`; one of a manual's section stands for the title.
    """
    head = body[:_HEAD_BYTES].removeprefix(b"\xef\xbb\xbf")
    if not _BEGINS.match(head):
        return False
    named = bool(_PAGE_EXTENSION.fullmatch(extension))
    if named and _REFERENCE.fullmatch(head):
        return True
    return bool(_SECTION.search(head) and (named or _TITLE.search(head)))


def read_manual_page(body: bytes) -> DocumentBlocks:
    """Returns the headings, paragraphs, options, code and tables of a manual page; its title is `ls(1)`.

    An option stands in a line, and what it does below it, indented. Files that it includes are not read.

    Raises:
        ExtractionError: `no_text` for a page that only names another one.
    """
    source = _decoded(body)
    reader = RoffReader(MAN_MACROS | MDOC_MACROS)
    lines = list(reader.read(source))
    is_mdoc = bool(_MDOC.search(source))
    blocks = (read_mdoc(lines) if is_mdoc else read_man(lines)).finish()
    if not blocks:
        other = next((line.text for line in lines if line.macro == "so"), None)
        if other:
            raise ExtractionError(
                "no_text", f"The manual page holds nothing but the name of another: {other}."
            )
    titled = next((line.arguments for line in lines if line.macro in ("TH", "Dt")), ())
    return DocumentBlocks(blocks, _title(titled, blocks), visible_text=_visible_text(source))


def _decoded(body: bytes) -> str:
    """The text of a page, in the encoding that a comment for preconv(1) names, or else the likeliest."""
    named = _CODING.search(body[:200])
    if named:
        try:
            return body.decode(named[1].decode("ascii"))
        except (LookupError, UnicodeDecodeError):
            pass
    return decode_text(body)


def _title(arguments: tuple[str, ...], blocks: list[TextBlock]) -> str | None:
    """A title such as `ls(1)`; in capital letters only where the page's own words have them."""
    if not arguments or not arguments[0].strip():
        return None
    name = arguments[0].strip()
    first = next((block.text for block in blocks if block.level is None), "")
    own = _NAMES.match(first.strip().replace(" ", "-") if " " not in name and "-" in name else first.strip())
    if own and own[0].split(",")[0].casefold()[: len(name)] == name.casefold():
        name = own[0][: len(name)]
    return f"{name}({arguments[1]})" if len(arguments) > 1 and arguments[1].strip() else name


def _visible_text(source: str) -> str:
    """The words of a page's source lines, whatever they are part of."""
    words: list[str] = []
    for line in _LINE.finditer(_DEFINITION.sub("", source)):
        name = line[2]
        if line[1] and (name in _WITHOUT_WORDS or name in IGNORED or not name[0].isalpha()):
            continue
        text = plain_text(_COMMENT.sub("", line[3]), {})
        if line[1] and name in ("IP", "It"):
            text = text.rsplit(" ", 1)[0] if name == "IP" and text[-1:].isdigit() else text
        words.append(" ".join(each for each in text.replace('"', " ").split() if each not in MDOC_MACROS))
    return "\n".join(words)
