"""What helps a quarantined document, by the reason, the kind of its source and its name."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import unquote

from assets.parsing.extract import OCR_CURE

_ID_CHARS = 12
"""How much of an id a cure names: enough to be the only one."""
_SYSTEM_FILES = ("thumbs.db", "ehthumbs.db", "desktop.ini", ".ds_store", "icon\r")
_UNPACK = {
    ".lzma": "unpack it (`xz --format=lzma -d`)",
    ".lz": "unpack it (`lzip -d`)",
    ".lz4": "unpack it (`lz4 -d`)",
    ".lzo": "unpack it (`lzop -d`)",
    ".br": "unpack it (`brotli -d`)",
    ".z": "unpack it (`uncompress`)",
    ".rar": "unpack it (`unrar x`)",
    ".cab": "unpack it (`cabextract`)",
    ".cpio": "unpack it (`cpio -id`)",
    ".deb": "unpack it (`dpkg-deb -x`)",
    ".rpm": "unpack it (`rpm2archive`)",
    ".iso": "mount or unpack it (`7z x`)",
    ".dmg": "mount or unpack it (`7z x`)",
}
"""How to unpack what is not opened, by the name's extension."""


@dataclass(frozen=True)
class QuarantineReason:
    """Why a document is quarantined, and where it is.

    Attributes:
        doc_id: Its id.
        uri: Its URI.
        source: The name of its source.
        kind: The kind of the source; None where the source was removed.
        expectation: The name of what it failed.
        reason: What was found, in a sentence.
    """

    doc_id: str
    uri: str
    source: str
    kind: str | None
    expectation: str
    reason: str

    @property
    def inside(self) -> bool:
        """Whether it is a file inside another one, or attached to a message."""
        return "#" in self.uri and self.kind not in ("rows", "sql")

    @property
    def name(self) -> str:
        """The last part of its URI, in lower case."""
        return PurePosixPath(unquote(self.uri)).name.rpartition("#")[2].lower()

    def says(self, pattern: str) -> bool:
        """Returns whether the reason has a part that matches, in either case."""
        return re.search(pattern, self.reason, re.IGNORECASE) is not None


def quarantine_cure(of: QuarantineReason) -> str:
    """Returns what a person can do to bring a quarantined document in, or to be rid of it."""
    find = _CURES.get(of.expectation)
    return _mend(of) if find is None else find(of)


def _when_mended(of: QuarantineReason) -> str:
    return "the next `headwater run` reads it again when it has changed"


def _release(of: QuarantineReason) -> str:
    command = f"`headwater quarantine release {of.doc_id[:_ID_CHARS]}`"
    return f"{command} keeps it as it is, and whatever it says later"


def _leave_out(of: QuarantineReason) -> str:
    """Returns how to have it read no more."""
    if of.inside:
        return "take it out of the file that it is in, or let it be: it is kept out, and the rest is read"
    if of.kind == "sql":
        return (
            "leave such rows out by a condition in the query (`headwater source remove "
            f"{of.source}`, then `source add sql` with another --query)"
        )
    if of.kind == "rows":
        return "take it out of its file"
    if of.kind == "sitemap":
        return "let it be: it is kept out, and the other pages are read"
    again = f"`headwater source remove {of.source}`, then `source add` with a --glob"
    return f"leave it out ({again}), or let it be"


def _empty(of: QuarantineReason) -> str:
    if of.kind in ("sql", "rows"):
        return f"its text column holds nothing: fill it, or {_leave_out(of)}"
    return f"there is nothing to read: fill it, or {_leave_out(of)}"


def _no_text(of: QuarantineReason) -> str:
    if of.says("needs OCR|without OCR") and not of.says("nothing was recognised"):
        return f"if its pages are pictures of text: {OCR_CURE}; `headwater quarantine rerun` then reads it"
    return f"it says nothing in words: {_leave_out(of)}"


def _unsupported(of: QuarantineReason) -> str:
    suffix = PurePosixPath(of.name).suffix
    if of.name in _SYSTEM_FILES or of.name.startswith("~$"):
        return f"a program keeps it for itself, and it is no document: delete it, or {_leave_out(of)}"
    if suffix in _UNPACK:
        return f"{_UNPACK[suffix]} and add what is inside"
    if of.says("without OCR"):
        then = "`headwater quarantine rerun` then reads it"
        return f"if it shows text: {OCR_CURE}; {then}; or {_leave_out(of)}"
    if of.says("^Sound|^Films"):
        return f"add its transcript as a text; or {_leave_out(of)}"
    if of.says("RAR|LZ4|compressed twice"):
        return "unpack it, and add what is inside"
    if of.says(r"\.pptx"):
        return f"save it as .pptx; {_when_mended(of)}"
    if of.says("device or a pipe|^Fonts|of no kind of file"):
        return f"if it is no document: {_leave_out(of)}; if it is one: save it as PDF or plain text"
    return f"save it in a format of docs/formats.md, or {_leave_out(of)}"


def _unreadable(of: QuarantineReason) -> str:
    if of.says("permission denied|operation not permitted|access to it was refused"):
        return (
            "give the user who runs Headwater the right to read it, and its folders (`chmod`); the next "
            "`headwater run` tries it again"
        )
    if of.says("no such file"):
        return "it went away, or is a link that leads nowhere: mend the link or delete it"
    if of.says("input/output|no such device|stale|timed out|not connected|host is"):
        return "check the disk or the share that it is on; the next `headwater run` tries it again"
    if of.says("not a regular file|is a directory|not a file"):
        return f"it is no file that can be read to its end: {_leave_out(of)}"
    if of.says("not a row"):
        return f"mend that line of its file; {_when_mended(of)}"
    if of.kind == "sitemap" and of.says("leads to"):
        return "the page is on another site now: add that as a source (`headwater source add sitemap`)"
    if of.kind == "sitemap":
        return _leave_out(of)
    if of.says("encoding|not text"):
        return f"if it is a text, save it as UTF-8, and {_when_mended(of)}; if it is none, {_leave_out(of)}"
    if of.says("damaged|can not be (read|parsed)|not well-formed|not valid|not a complete|does not begin"):
        return (
            "open it in the program that made it and save it again, or get it again; "
            f"{_when_mended(of)}; or {_leave_out(of)}"
        )
    return _mend(of)


def _unreachable(of: QuarantineReason) -> str:
    if of.says("HTTP 40[13]|HTTP 407|HTTP 451"):
        return "the site shows it to nobody without a login, and a website is read as anybody: let it be"
    if of.says("HTTP 4(?!29)"):
        return "the site refuses this page: look at it in a browser; the next `headwater run` asks again"
    if of.says("partial clone"):
        return "fetch the whole repository (`git fetch --refetch`) or clone it again; the next run reads it"
    if of.kind == "git":
        return "check the repository (`git fsck`) or clone it again; the next `headwater run` tries it again"
    return (
        "nothing, if it was the server: the next `headwater run` asks again; if it stays so, look at it in a "
        "browser, or ask for fewer pages a second (`source add sitemap --pages-per-second`)"
    )


def _link(of: QuarantineReason) -> str:
    if of.kind == "git":
        return "nothing, where the file that it leads to is in the repository: that is read at its own path"
    if of.inside:
        return "nothing, where the file that it leads to is in the archive too; else add that file"
    return "add the folder that it leads to as a source of its own"


def _oversize(of: QuarantineReason) -> str:
    if of.says("bomb|unpacks to"):
        return "if it is no bomb: unpack it, divide what is inside, and add the folder as a source"
    if of.kind == "sql":
        return f"the text of this row is too long: divide it, or {_leave_out(of)}"
    return f"divide it into smaller files; {_when_mended(of)}"


def _rerun(of: QuarantineReason) -> str:
    return f"`headwater quarantine rerun {of.doc_id[:_ID_CHARS]}` tries it once more"


def _mend(of: QuarantineReason) -> str:
    return f"mend what the reason names, or get the file again; {_when_mended(of)}"


_UNPACK_ARCHIVE = "unpack the archive and add the folder as a source"

_CURES: dict[str, Callable[[QuarantineReason], str]] = {
    "empty": _empty,
    "no_text": _no_text,
    "unsupported_media_type": _unsupported,
    "unreadable": _unreadable,
    "unreachable": _unreachable,
    "link": _link,
    "submodule": lambda of: "add its repository as a source of its own: `headwater source add git URL`",
    "lfs_pointer": lambda of: (
        "`git lfs pull` in a clone fetches it, and the folder of the clone can be a source: "
        "`headwater source add NAME FOLDER`"
    ),
    "encrypted": lambda of: f"save it without its password; {_when_mended(of)}",
    "oversize": _oversize,
    "timeout": lambda of: "give it longer: HEADWATER_RECIPE__PARSER__TIMEOUT_S, then `headwater run`",
    "out_of_memory": lambda of: "give it more: HEADWATER_RECIPE__PARSER__MEMORY_BYTES, then `headwater run`",
    "crashed": lambda of: f"{_rerun(of)}; if it fails again, save it in another format",
    "parser_error": lambda of: f"{_rerun(of)}, after an update for example; or save it in another format",
    "too_many_members": lambda of: _UNPACK_ARCHIVE,
    "nested_too_deeply": lambda of: _UNPACK_ARCHIVE,
    "unsafe_name": lambda of: "unpack the archive where you trust it, and add the folder as a source",
    "lost_in_parsing": lambda of: f"save it in another format, such as PDF or plain text; or {_release(of)}",
    "max_damaged_char_ratio": lambda of: (
        f"get it again in its own encoding; {_when_mended(of)}; or {_release(of)}"
    ),
    "min_alphanumeric_word_ratio": lambda of: f"{_leave_out(of)}; or {_release(of)}",
    "min_letter_coincidence": lambda of: f"decode it; or {_leave_out(of)}; or {_release(of)}",
}
"""What helps, by the expectation that was failed."""
