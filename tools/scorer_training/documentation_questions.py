"""Questions from the documentation of installed software: what the section under a heading answers."""

import hashlib
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from retrieval.chunking.sentences import sentence_spans
from tools.scorer_training.synthetic_facts import AskedFact

_FILES = re.compile(r"(?:METADATA|README[\w.-]*|NEWS[\w.-]*|FAQ[\w.-]*|[\w.-]+\.(?:md|rst|txt))$")
_NO_PROSE = re.compile(r"licen[cs]e|copying|notice|stoplist|top_level|requires|headwater", re.I)
"""Parts of paths below which texts are the same in many packages, or no sentences."""
_LARGEST_BYTES = 400_000
_MARKED_HEADING = re.compile(r"#{1,5}\s+(\S.*?)[\s#]*$")
_UNDERLINE = re.compile(r"([=~^\"'*+-])\1{2,}\s*$")
_FENCE = re.compile(r"\s*(?:```|~~~)")
_ITEM = re.compile(r"\s*(?:[-*•+]|\d{1,2}[.)])\s+")
_MARKS = re.compile(
    r"[\U0001F000-\U0001FAFF\u2600-\u27BF\uFE0F]+|!\[[^\]]*\]\([^)]*\)|\[([^\]]+)\](?:\([^)]*\)|\[[^\]]*\])|`+|\*\*|__|:\w+:(?=`)|<[^<>]{1,80}>"
)
_STATED = re.compile(r"[A-Z\"'(].*[.]$")
_LEAST_CHARS, _MOST_CHARS = 30, 300
_FORMS = (
    "{h}",
    "{s} {h}",
    "What is {h} in {s}?",
    "How does {s} handle {h}?",
    "What does {s} say of {h}?",
    "Where is {h} of {s} described?",
    "Tell me about {h}.",
)
_KNOWN_HEADINGS = (
    (re.compile(r"install", re.I), ("How do I install {s}?", "How is {s} installed?", "How can I get {s}?")),
    (re.compile(r"licen[cs]e", re.I), ("Under which license is {s}?", "What is the license of {s}?")),
    (
        re.compile(r"requirement|dependenc|prerequisite", re.I),
        ("What does {s} need?", "What does {s} require?"),
    ),
    (
        re.compile(r"usage|quick ?start|getting started|example", re.I),
        ("How do I use {s}?", "How is {s} used?"),
    ),
    (re.compile(r"contribut", re.I), ("How can I contribute to {s}?", "Who may contribute to {s}?")),
    (re.compile(r"test", re.I), ("How do I run the tests of {s}?", "How is {s} tested?")),
    (
        re.compile(r"support|help|contact", re.I),
        ("Where do I get help with {s}?", "Where do I ask about {s}?"),
    ),
)


@dataclass(frozen=True)
class DocumentedProgram:
    """A file of documentation.

    Attributes:
        subject: What it is about.
        sections: `(heading, sentences)` of each section that says anything.
    """

    subject: str
    sections: tuple[tuple[str, tuple[str, ...]], ...]

    @property
    def sentences(self) -> list[str]:
        """The sentences of all sections, in order."""
        return [sentence for _, sentences in self.sections for sentence in sentences]


class ChangedDocumentation(ValueError):
    """A folder does not hold the files that a manifest lists; the message names them."""


def read_documentation(folder: Path, manifest: Path | None = None) -> list[DocumentedProgram]:
    """Returns the files of documentation below a folder that say anything, in order, each text once.

    Args:
        folder: A folder, such as an environment's site-packages.
        manifest: The files to read, as `sha256sum` writes and checks them: lines of a hex SHA-256, two
            spaces, and a path below the folder. All that the folder holds are read unless given.

    Raises:
        ChangedDocumentation: A file of the manifest is missing or has another content.
    """
    found = folder.rglob("*") if manifest is None else _verified(folder, manifest)
    programs: list[DocumentedProgram] = []
    seen: set[str] = set()
    for path in sorted(found):
        if not _FILES.match(path.name) or _NO_PROSE.search(str(path.relative_to(folder))):
            continue
        if path.is_symlink() or not path.is_file() or path.stat().st_size > _LARGEST_BYTES:
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        if text in seen:
            continue
        seen.add(text)
        program = _program(path, text)
        if program.sections:
            programs.append(program)
    return programs


def _verified(folder: Path, manifest: Path) -> list[Path]:
    """The files of a manifest, which all have the content that it says."""
    lines = [line.split("  ", 1) for line in manifest.read_text(encoding="utf-8").splitlines()]
    changed = [
        name
        for digest, name in lines
        if not (folder / name).is_file() or hashlib.sha256((folder / name).read_bytes()).hexdigest() != digest
    ]
    if changed:
        raise ChangedDocumentation(
            f"{len(changed)} of the {len(lines)} files that {manifest} lists are missing below {folder} or "
            f"have another content: {', '.join(changed[:5])}{' …' if changed[5:] else ''}. Install the "
            "versions of the packages that are named there into a folder, and give that."
        )
    return [folder / name for _, name in lines]


def _program(path: Path, text: str) -> DocumentedProgram:
    subject = path.parent.name
    if path.name == "METADATA":
        head, _, text = text.partition("\n\n")
        named = re.search(r"(?m)^Name: (.+)$", head)
        subject = named[1] if named else subject
    sections = [(heading, tuple(_sentences(lines))) for heading, lines in _sections(text.split("\n"))]
    return DocumentedProgram(subject, tuple(each for each in sections if each[1]))


def _sections(lines: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Yields headings with the lines below them, without code blocks; the first heading may be empty."""
    heading, body, fenced = "", list[str](), False
    for place, line in enumerate(lines):
        if _FENCE.match(line):
            fenced = not fenced
        if fenced or _FENCE.match(line):
            body.append("")
            continue
        marked = _MARKED_HEADING.match(line)
        below = lines[place + 1] if place + 1 < len(lines) else ""
        if marked or (line.strip() and not line[0].isspace() and _UNDERLINE.match(below)):
            yield heading, body
            heading, body = _plain(marked[1] if marked else line), []
        elif not _UNDERLINE.match(line):
            body.append("" if line.startswith(("    ", "\t", ".. ", ">>>", "|")) else _ITEM.sub("\n", line))
    yield heading, body


def _sentences(lines: Sequence[str]) -> Iterator[str]:
    text = "\n".join(lines)
    for start, end in sentence_spans(text):
        sentence = _plain(text[start:end])
        if _LEAST_CHARS <= len(sentence) <= _MOST_CHARS and _STATED.match(sentence):
            yield sentence


def _plain(text: str) -> str:
    return " ".join(_MARKS.sub(r"\1", text).split())


def ask_heading(programs: Sequence[DocumentedProgram], rng: random.Random) -> AskedFact | None:
    """Returns a question that a section answers, with the sentences of other sections; None if it asks none.

    The first sentences of the section answer. Those of the neighbouring sections of the same file do not.
    """
    program = rng.choice(programs)
    titled = [place for place, (heading, _) in enumerate(program.sections) if _is_asked(heading)]
    if not titled or len(program.sections) < 2:
        return None
    place = rng.choice(titled)
    heading, sentences = program.sections[place]
    answering = tuple(rng.sample(sentences[:2], rng.randint(1, len(sentences[:2]))))
    rest = [
        each
        for other, (_, text) in enumerate(program.sections)
        if other != place
        for each in text[:4]
        if each not in sentences
    ]
    if rng.random() < 0.25:
        answering = ()
    return AskedFact(
        _question(heading, program.subject, rng), answering, tuple(rng.sample(rest, min(6, len(rest))))
    )


def _is_asked(heading: str) -> bool:
    return 1 <= len(heading.split()) <= 12 and bool(re.search("[a-z]{3}", heading)) and "http" not in heading


def _question(heading: str, subject: str, rng: random.Random) -> str:
    if heading.endswith("?"):
        return heading
    known = [forms for pattern, forms in _KNOWN_HEADINGS if pattern.search(heading)]
    form = rng.choice(rng.choice([*known, _FORMS]))
    return form.format(h=heading.rstrip(":. "), s=subject)
