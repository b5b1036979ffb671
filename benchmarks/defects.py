"""The defects that `bench quality` injects into documents before parsing and into tables before their gates.

Each defect imitates damage that occurs in practice, and is written without regard to the checks that look for
it.
"""

import base64
import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from html import escape
from random import Random
from typing import Any

from retrieval.chunking.chunker import make_chunk_id

Row = dict[str, Any]
Rows = dict[str, list[Row]]


@dataclass(frozen=True)
class BenchDocument:
    """An undamaged document, with the text that parsing it gives.

    Attributes:
        body: Its bytes.
        media_type: The media type that its source gave.
        text: Its normalised text.
    """

    body: bytes
    media_type: str
    text: str


@dataclass(frozen=True)
class InjectedDefect:
    """One kind of damage to a document.

    Attributes:
        kind: Its name.
        spoil: Returns the damaged form of a document.
        fits: Returns whether a document can be damaged in this way.
        mended: True when the defect also counts as caught if parsing gives the undamaged text nevertheless.
    """

    kind: str
    spoil: Callable[[BenchDocument, Random], BenchDocument]
    fits: Callable[[BenchDocument], bool] = lambda source: True
    mended: bool = False


# The Universal Declaration of Human Rights, articles 1, 3, 4, 5 and 6, in its official translations.
_OTHER_LANGUAGES = {
    "de": (
        "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und Gewissen"
        " begabt und sollen einander im Geist der Brüderlichkeit begegnen.",
        "Jeder hat das Recht auf Leben, Freiheit und Sicherheit der Person.",
        "Niemand darf in Sklaverei oder Leibeigenschaft gehalten werden; Sklaverei und Sklavenhandel in allen"
        " ihren Formen sind verboten.",
        "Niemand darf der Folter oder grausamer, unmenschlicher oder erniedrigender Behandlung oder Strafe"
        " unterworfen werden.",
        "Jeder hat das Recht, überall als rechtsfähig anerkannt zu werden.",
    ),
    "fr": (
        "Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont doués de raison et"
        " de conscience et doivent agir les uns envers les autres dans un esprit de fraternité.",
        "Tout individu a droit à la vie, à la liberté et à la sûreté de sa personne.",
        "Nul ne sera tenu en esclavage ni en servitude; l'esclavage et la traite des esclaves sont interdits"
        " sous toutes leurs formes.",
        "Nul ne sera soumis à la torture, ni à des peines ou traitements cruels, inhumains ou dégradants.",
        "Chacun a le droit à la reconnaissance en tous lieux de sa personnalité juridique.",
    ),
    "es": (
        "Todos los seres humanos nacen libres e iguales en dignidad y derechos y, dotados como están de razón"
        " y conciencia, deben comportarse fraternalmente los unos con los otros.",
        "Todo individuo tiene derecho a la vida, a la libertad y a la seguridad de su persona.",
        "Nadie estará sometido a esclavitud ni a servidumbre, la esclavitud y la trata de esclavos están"
        " prohibidas en todas sus formas.",
        "Nadie será sometido a torturas ni a penas o tratos crueles, inhumanos o degradantes.",
        "Todo ser humano tiene derecho, en todas partes, al reconocimiento de su personalidad jurídica.",
    ),
    "it": (
        "Tutti gli esseri umani nascono liberi ed eguali in dignità e diritti. Essi sono dotati di ragione e"
        " di coscienza e devono agire gli uni verso gli altri in spirito di fratellanza.",
        "Ogni individuo ha diritto alla vita, alla libertà ed alla sicurezza della propria persona.",
        "Nessun individuo potrà essere tenuto in stato di schiavitù o di servitù; la schiavitù e la tratta"
        " degli schiavi saranno proibite sotto qualsiasi forma.",
        "Nessun individuo potrà essere sottoposto a tortura o a trattamento o a punizione crudeli, inumani o"
        " degradanti.",
        "Ogni individuo ha diritto, in ogni luogo, al riconoscimento della sua personalità giuridica.",
    ),
    "nl": (
        "Alle mensen worden vrij en gelijk in waardigheid en rechten geboren. Zij zijn begiftigd met verstand"
        " en geweten, en behoren zich jegens elkander in een geest van broederschap te gedragen.",
        "Een ieder heeft het recht op leven, vrijheid en onschendbaarheid van zijn persoon.",
        "Niemand zal in slavernij of horigheid gehouden worden. Slavernij en slavenhandel in iedere vorm zijn"
        " verboden.",
        "Niemand zal onderworpen worden aan folteringen, noch aan een wrede, onmenselijke of onterende"
        " behandeling of bestraffing.",
        "Een ieder heeft, waar hij zich ook bevindt, het recht als persoon erkend te worden voor de wet.",
    ),
    "ru": (
        "Все люди рождаются свободными и равными в своем достоинстве и правах. Они наделены разумом и"
        " совестью и должны поступать в отношении друг друга в духе братства.",
        "Каждый человек имеет право на жизнь, на свободу и на личную неприкосновенность.",
        "Никто не должен содержаться в рабстве или в подневольном состоянии; рабство и работорговля"
        " запрещаются во всех их видах.",
        "Никто не должен подвергаться пыткам или жестоким, бесчеловечным или унижающим его достоинство"
        " обращению и наказанию.",
        "Каждый человек, где бы он ни находился, имеет право на признание его правосубъектности.",
    ),
}

# What is left of a page when its contents did not load: notices, sign-in, menus and footers.
_PAGE_FURNITURE = (
    "We value your privacy",
    "We and our partners store cookies on your device to improve your experience.",
    "Accept all cookies",
    "Reject non-essential cookies",
    "Manage cookie preferences",
    "Please enable JavaScript in your browser to view this page.",
    "Your browser is out of date. Please upgrade to continue.",
    "Checking your browser before you continue.",
    "Sign in to your account",
    "Forgot your password?",
    "Create a free account",
    "Log in with Google",
    "Subscribe to our newsletter",
    "Enter your email address",
    "Follow us on Twitter",
    "Share on Facebook",
    "Skip to main content",
    "Toggle navigation",
    "Back to top",
    "Terms of Service",
    "Privacy Policy",
    "Contact us",
    "About us",
    "Copyright 2024. All rights reserved.",
    "Powered by WordPress",
    "Page not found",
    "Loading, please wait.",
    "Read more",
    "Next page",
)

_FILLER = (
    "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor incididunt ut labore et"
    " dolore magna aliqua.",
    "Ut enim ad minim veniam, quis nostrud exercitation ullamco laboris nisi ut aliquip ex ea commodo"
    " consequat.",
    "Duis aute irure dolor in reprehenderit in voluptate velit esse cillum dolore eu fugiat nulla pariatur.",
    "Excepteur sint occaecat cupidatat non proident, sunt in culpa qui officia deserunt mollit anim id est"
    " laborum.",
)


def _plain(source: BenchDocument, text: str) -> BenchDocument:
    return replace(source, body=text.encode(), media_type="text/plain", text=text)


def _truncated(source: BenchDocument, random: Random) -> BenchDocument:
    """Cut at any byte between a tenth and nine tenths."""
    return replace(source, body=source.body[: int(len(source.body) * random.uniform(0.1, 0.9))])


def _torn_record(source: BenchDocument, random: Random) -> BenchDocument:
    """The document as a JSON record whose transfer broke off."""
    record = json.dumps({"title": "Record", "text": source.text}, ensure_ascii=random.random() < 0.5).encode()
    return replace(
        source, body=record[: int(len(record) * random.uniform(0.1, 0.95))], media_type="application/json"
    )


def _mojibake(source: BenchDocument, random: Random) -> BenchDocument:
    """UTF-8 read as Windows-1252, once or twice, by a program that keeps or replaces what is undefined."""
    text = source.body.decode("utf-8", "replace")
    errors = random.choice(("keep", "replace"))
    for _ in range(random.choice((1, 1, 2))):
        raw = text.encode()
        if errors == "replace":
            text = raw.decode("cp1252", "replace")
        else:
            text = "".join(bytes([b]).decode("cp1252", "ignore") or chr(b) for b in raw)
    return replace(source, body=text.encode())


def _wrong_encoding(source: BenchDocument, random: Random) -> BenchDocument:
    """Bytes in another encoding than UTF-8, and nothing that says so."""
    text = source.body.decode("utf-8", "replace")
    choices = ["utf-16-le", "utf-16-be", "cp500"]
    if not text.isascii():
        choices.append("cp1252")
    return replace(source, body=text.encode(random.choice(choices), "replace"))


def _markup(source: BenchDocument, random: Random) -> BenchDocument:
    """The document as a web page, whole or its body alone, taken for plain text."""
    paragraphs = [escape(each.strip()) for each in source.text.split("\n\n") if each.strip()]
    shapes = ("<p>{}</p>", '<div class="section"><p>{}</p></div>', "<li>{}</li>")
    shape = random.choice(shapes)
    body = "\n".join(shape.format(each) for each in paragraphs)
    if random.random() < 0.5:
        head = '<head>\n<meta charset="utf-8">\n<title>Page</title>\n</head>'
        body = f'<!DOCTYPE html>\n<html lang="en">\n{head}\n<body>\n{body}\n</body>\n</html>\n'
    return _plain(source, body)


def _repeated_lines(source: BenchDocument, random: Random) -> BenchDocument:
    """One to three lines in a row said over and over, until the text is ten to thirty times as long."""
    lines = [line for line in source.text.split("\n") if line.strip()]
    at = random.randrange(len(lines))
    block = "\n".join(lines[at : at + random.randint(1, 3)])
    times = int(len(source.text) * random.uniform(10, 30) / len(block)) + 1
    return _plain(source, source.text + "\n" + "\n".join([block] * times))


def _boilerplate(source: BenchDocument, random: Random) -> BenchDocument:
    lines = random.sample(_PAGE_FURNITURE, random.randint(8, 20))
    return _plain(source, "\n".join(lines))


def _empty(source: BenchDocument, random: Random) -> BenchDocument:
    return _plain(source, random.choice(("", " \n\t\n", "\n" * 40, "\ufeff", "\u00a0\n\u2003")))


def _gibberish(source: BenchDocument, random: Random) -> BenchDocument:
    """Each word as so many letters drawn at random, or the whole as its own compressed bytes in base64."""
    if random.random() < 0.3:
        coded = base64.b64encode(zlib.compress(source.body)).decode()
        return _plain(source, "\n".join(coded[at : at + 76] for at in range(0, len(coded), 76)))
    letters = random.choice(("abcdefghijklmnopqrstuvwxyz", "asdfghjkl", "qwertyuiop"))
    return _plain(
        source,
        "\n".join(
            " ".join("".join(random.choices(letters, k=len(word))) for word in line.split())
            for line in source.text.split("\n")
        ),
    )


def _filler(source: BenchDocument, random: Random) -> BenchDocument:
    return _plain(source, "\n\n".join(random.choices(_FILLER, k=random.randint(3, 12))))


def _binary(source: BenchDocument, random: Random) -> BenchDocument:
    """Compressed bytes under the name of text."""
    return replace(source, body=zlib.compress(source.body) + random.randbytes(64))


def _wrong_language(source: BenchDocument, random: Random) -> BenchDocument:
    articles = _OTHER_LANGUAGES[random.choice(sorted(_OTHER_LANGUAGES))]
    return _plain(source, "\n\n".join(random.sample(articles, random.randint(2, 5))))


def _oversize(source: BenchDocument, random: Random) -> BenchDocument:
    from assets.parsing.extract import MAX_DOCUMENT_BYTES

    return replace(source, body=source.body * (MAX_DOCUMENT_BYTES // len(source.body) + 1))


def _undecodable(source: BenchDocument, random: Random) -> BenchDocument:
    """Every character outside ASCII lost to U+FFFD by a program that knew ASCII only."""
    return replace(source, body=source.body.decode("ascii", "replace").encode())


def _has_foreign_letters(source: BenchDocument) -> bool:
    return not source.text.isascii()


DOCUMENT_DEFECTS: tuple[InjectedDefect, ...] = (
    InjectedDefect("truncated", _truncated),
    InjectedDefect("torn_record", _torn_record),
    InjectedDefect("mojibake", _mojibake, _has_foreign_letters, mended=True),
    InjectedDefect("undecodable", _undecodable, _has_foreign_letters),
    InjectedDefect("wrong_encoding", _wrong_encoding, mended=True),
    InjectedDefect("wrong_language", _wrong_language),
    InjectedDefect("markup_left_in", _markup),
    InjectedDefect("repeated_lines", _repeated_lines),
    InjectedDefect("boilerplate_only", _boilerplate),
    InjectedDefect("filler", _filler),
    InjectedDefect("empty", _empty),
    InjectedDefect("gibberish", _gibberish),
    InjectedDefect("binary_as_text", _binary),
    InjectedDefect("oversize", _oversize),
)
"""What the parser and its filters have to catch."""


def inject_near_duplicate(text: str, random: Random) -> str:
    """Returns a near-duplicate of a text: a new first line, and about one word in two hundred changed."""
    words = text.split(" ")
    for at in random.sample(range(len(words)), max(1, len(words) // 200)):
        words[at] = random.choice(("revised", "2025", "updated", words[at].upper()))
    return f"Copy {random.randrange(10_000)}\n\n{' '.join(words)}"


def _some(rows: list[Row], random: Random, share: float = 0.02) -> list[Row]:
    return random.sample(rows, max(1, round(share * len(rows))))


def _duplicated_ids(tables: Rows, random: Random) -> None:
    rows = tables["silver.documents"]
    rows.extend(dict(row) for row in _some(rows, random))


_NEEDED = (
    "doc_id",
    "tenant",
    "source",
    "uri",
    "content_sha256",
    "text",
    "text_sha256",
    "language",
    "char_count",
)


def _null_fields(tables: Rows, random: Random) -> None:
    for row in _some(tables["silver.documents"], random):
        row[random.choice(_NEEDED)] = None


def _future_dates(tables: Rows, random: Random) -> None:
    for row in _some(tables["silver.documents"], random):
        row["first_seen_at"] = datetime.now(UTC) + timedelta(days=random.uniform(2, 3650))


def _altered_texts(tables: Rows, random: Random) -> None:
    for row in _some(tables["silver.documents"], random):
        at = random.randrange(len(row["text"]))
        row["text"] = row["text"][:at] + random.choice("xyz?") + row["text"][at:]
        row["char_count"] += 1


def _wrong_spans(tables: Rows, random: Random) -> None:
    """The span moved by some characters, its text and length as they were and its id derived anew."""
    for row in _some(tables["gold.chunks"], random):
        by = random.choice([step for step in range(-20, 21) if step and row["char_start"] + step >= 0])
        row["char_start"] += by
        row["char_end"] += by
        row["chunk_id"] = make_chunk_id(row["doc_id"], row["text_sha256"], row["char_start"])


def _lost_documents(tables: Rows, random: Random) -> None:
    """All chunks of a document gone, as after a write that only half happened."""
    gone = random.choice(tables["gold.chunks"])["doc_id"]
    tables["gold.chunks"] = [row for row in tables["gold.chunks"] if row["doc_id"] != gone]


def _nan_vectors(tables: Rows, random: Random) -> None:
    for row in _some(tables["gold.embeddings"], random):
        row["vector"] = list(row["vector"])
        row["vector"][random.randrange(len(row["vector"]))] = random.choice((float("nan"), float("inf")))


def _zero_vectors(tables: Rows, random: Random) -> None:
    for row in _some(tables["gold.embeddings"], random):
        row["vector"] = [0.0] * len(row["vector"])


TABLE_DEFECTS: Mapping[str, tuple[str, Callable[[Rows, Random], None]]] = {
    "duplicated_ids": ("silver.documents", _duplicated_ids),
    "null_fields": ("silver.documents", _null_fields),
    "future_dates": ("silver.documents", _future_dates),
    "altered_texts": ("silver.documents", _altered_texts),
    "wrong_spans": ("gold.chunks", _wrong_spans),
    "lost_documents": ("gold.chunks", _lost_documents),
    "nan_vectors": ("gold.embeddings", _nan_vectors),
    "zero_vectors": ("gold.embeddings", _zero_vectors),
}
"""What the gates have to catch: the table whose gate it is, and what is done to its rows in place."""
