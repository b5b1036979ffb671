"""`bench support`: which altered sentences pass as supported, and which true ones do not."""

import hashlib
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from orchestration.bench.report import BenchTable
from orchestration.bench.support.rewrites import ALTERATIONS, RESTATEMENTS, names_of
from retrieval.chunking.sentences import sentence_spans
from retrieval.support.agreement import supports
from retrieval.support.statement import content_words

Half = Literal["tuned", "kept"]

_PASSAGE_SENTENCES = 3
"""So many sentences before and after a sentence are in its passage."""
_PROSE = re.compile(r"[A-Z0-9][^|{}<>=\\_]*[a-z)%\d]\.")
_NUMBERED = re.compile(r"\A\d+\. ")
_WORDS = range(6, 41)


class NoSupportTexts(RuntimeError):
    """A folder has no text file with prose, or a file of paraphrases can't be read."""


@dataclass(frozen=True)
class SupportRow:
    """How often a predicate is wrong about pairs of one kind.

    Attributes:
        texts: The folder, or the source of paraphrases.
        sentence: Whether the sentences are altered or true.
        change: What was changed.
        pairs: The number of pairs.
        wrong_by_words: The share of altered ones that half of their words keep, or of true ones that they
            withhold: what was done before.
        wrong: The same by what decides now.
    """

    texts: str
    sentence: Literal["altered", "true"]
    change: str
    pairs: int
    wrong_by_words: float
    wrong: float


@dataclass(frozen=True)
class _Pair:
    texts: str
    true: bool
    change: str
    sentence: str
    passage: Sequence[str]


def bench_support(
    folders: Sequence[Path], paraphrases: Path | None, half: Half, limit: int
) -> BenchTable[SupportRow]:
    """Alters and restates sentences of texts, and counts which of them their passages support.

    A passage is a sentence with those around it, and supports what any one of its sentences supports, as a
    reply is checked. Documents fall into halves by their hash, so that rules can be tuned on one.

    Args:
        folders: Folders of text files, a kind of text each.
        paraphrases: A file of lines {a, b, label, source}; those labelled `equivalent` count as true.
        half: The half of the documents.
        limit: The most sentences of a folder.

    Raises:
        NoSupportTexts: A folder has no prose, or a line of the paraphrases can't be read.
    """
    pairs = [pair for folder in folders for pair in _pairs(folder, half, limit)]
    if paraphrases:
        pairs += _paraphrases(paraphrases, half)
    judged = [(pair, _is_wrong(pair, _shares_words), _is_wrong(pair, supports)) for pair in pairs]
    rows = []
    for true in (False, True):
        of_kind = [each for each in judged if each[0].true is true]
        changes = dict.fromkeys(("all", pair.change) for pair, _, _ in of_kind)
        kinds = dict.fromkeys((pair.texts, "all") for pair, _, _ in of_kind)
        for texts, change in [("all", "all"), *changes, *kinds]:
            wrong = [
                (before, now)
                for pair, before, now in of_kind
                if texts in ("all", pair.texts) and change in ("all", pair.change)
            ]
            if wrong:
                before, now = (sum(column) / len(wrong) for column in zip(*wrong, strict=True))
                sentence: Literal["altered", "true"] = "true" if true else "altered"
                rows.append(SupportRow(texts, sentence, change, len(wrong), before, now))
    return BenchTable("support", rows, {})


def _is_wrong(pair: _Pair, predicate: Callable[[str, str], bool]) -> bool:
    return any(predicate(pair.sentence, span) for span in pair.passage) is not pair.true


def _shares_words(sentence: str, span: str) -> bool:
    wanted, held = Counter(content_words(sentence)), Counter(content_words(span))
    return bool(wanted) and (wanted & held).total() >= 0.5 * wanted.total()


def _in_half(text: str, half: Half) -> bool:
    return (hashlib.sha256(text.encode()).digest()[0] % 2 == 0) is (half == "tuned")


def _pairs(folder: Path, half: Half, limit: int) -> Iterator[_Pair]:
    documents = [
        [" ".join(text[start:end].split()) for start, end in sentence_spans(text)]
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.suffix in (".txt", ".md", ".rst", "")
        and _in_half(text := path.read_text(encoding="utf-8", errors="replace"), half)
    ]
    places = [
        (document, place)
        for document in documents
        for place, sentence in enumerate(document)
        if _PROSE.fullmatch(sentence) and len(sentence.split()) in _WORDS
    ]
    if not places:
        raise NoSupportTexts(
            f"{folder} has no text file with a sentence of prose in this half: name another folder"
        )
    chance = random.Random(0)  # noqa: S311 - no secret
    chance.shuffle(places)
    names = names_of([document[place] for document, place in places])
    for document, place in places[:limit]:
        sentence = _NUMBERED.sub("", document[place])
        passage = document[max(place - _PASSAGE_SENTENCES, 0) : place + _PASSAGE_SENTENCES + 1]
        yield _Pair(folder.name, True, "verbatim", sentence, passage)
        for true, rewrites in ((False, ALTERATIONS), (True, RESTATEMENTS)):
            for change, rewrite in rewrites.items():
                if (changed := rewrite(sentence, chance, names)) and changed not in passage:
                    yield _Pair(folder.name, true, change, changed, passage)


def _paraphrases(file: Path, half: Half) -> Iterator[_Pair]:
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            one, other, label, source = (str(row[name]) for name in ("a", "b", "label", "source"))
        except (ValueError, KeyError, TypeError) as error:
            raise NoSupportTexts(f"{file}, line {number}: {error!r}: give a, b, label and source") from error
        if label == "equivalent" and _in_half(one, half):
            yield _Pair(source.split("_")[0].split()[0], True, "paraphrase", other, [one])
