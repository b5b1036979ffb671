"""Drafts of examples: questions and instructions that rules make of the text of chunks.

Questions are of several kinds, because a model tuned on one kind is known to get worse at the others:

* `title`: the innermost heading, with those around it while it is short (known-item search);
* `keyword`: the chunk's own words, those that it repeats and that are long;
* `natural`: what a sentence answers that defines something ("X is a …") or states a purpose ("To do X, …"),
  or a heading that asks;
* `claim`: one of the chunk's sentences. Its positive is the rest of the chunk without that sentence, so that
  the same words are not all that is learned (the inverse cloze task: Lee, Chang and Toutanova, 1906.00300).

Relevant to a question is the chunk that it was made of, by its id, whatever part of it is the positive.

Instructions are definitions, pairs of question and answer that stand in the text, and sections by their
heading. The rules for sentences are for English; texts in other languages get titles, keywords and claims.

The result depends on the chunk alone, so that a document makes the same examples whenever it is read.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import pyarrow as pa

from quality.evaluation.known_items import heading_question
from retrieval.chunking.sentences import sentence_spans
from retrieval.language.words import split_words

DRAFT_SCHEMA = pa.schema(
    [
        ("chunk_id", pa.string()),
        ("kind", pa.string()),
        ("query_kind", pa.string()),
        ("question", pa.string()),
        ("positive", pa.string()),
    ]
)
"""A draft; `positive` is null where it is the chunk's whole text."""

_KEYWORDS = 4
_SHORTEST_KEYWORD = 5
_LONGEST_COUNTED = 12
_CLAIM_WORDS = range(6, 31)
_FEWEST_LEFT_WORDS = 20
"""Words that a chunk must have beside a claim to be its positive."""
_MOST_QUESTION_CHARS = 300
_FEWEST_ANSWER_CHARS = 20

_NO_SUBJECT = (
    r"(?:It|This|That|These|Those|There|Here|He|She|They|We|You|I|What|Which|Who|Where|When|How|If|As|In|On|"
    r"At|For|To|But|And|Or|So|Such|Each|One|All|Most|Some|Any|Another|Note|Its?|His|Her|Our|Your|My)\b"
)
_DEFINES = re.compile(
    rf"(?!{_NO_SUBJECT})(?P<article>(?:An?|The) )?(?P<subject>\w[\w.+#/-]*(?: [\w.+#/-]+){{0,3}}?) "
    r"(?P<verb>is|are) (?:an?|the|one of|any) "
)
_PURPOSE = re.compile(r"To (?P<purpose>[a-z][^,.;:!?]{8,80}), ")
_PROSE = re.compile(r"[A-Z\"'(].*[.]$", re.DOTALL)
_QUESTION_AND_ANSWER = re.compile(
    r"^[ \t]*(?:Q|Question) ?\d*[:.)][ \t]*(?P<question>[^\n]+(?:\n[^\n]+)*?)\s*\n"
    r"[ \t]*(?:A|Answer) ?\d*[:.)][ \t]*(?P<answer>.+?)(?=\n[ \t]*(?:Q|Question) ?\d*[:.)]|\Z)",
    re.MULTILINE | re.DOTALL,
)


class Draft(NamedTuple):
    """A question or an instruction, with what answers it; None for the chunk's whole text."""

    kind: str
    query_kind: str
    question: str
    positive: str | None = None


def draft_batches(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yields the drafts of chunks, as a function for `Relations.map_batches`.

    Args:
        batches: Columns chunk_id, title (nullable), heading (nullable), text, language, sampled: whether
            questions are made of the chunk; pairs of question and answer are found in every chunk.

    Yields:
        Batches of `DRAFT_SCHEMA`.
    """
    for batch in batches:
        ids, rows = list[str](), list[Draft]()
        names = ("chunk_id", "title", "heading", "text", "language", "sampled")
        columns = (batch[name].to_pylist() for name in names)
        for chunk_id, title, heading, text, language, sampled in zip(*columns, strict=True):
            drafts = [*_asked_in_text(text)]
            if sampled:
                drafts += chunk_drafts(chunk_id, title, heading, text, language)
            ids += [chunk_id] * len(drafts)
            rows += drafts
        columns_of_drafts = zip(*rows, strict=True) if rows else ((),) * len(Draft._fields)
        arrays = [pa.array(column, pa.string()) for column in (ids, *columns_of_drafts)]
        yield pa.RecordBatch.from_arrays(arrays, schema=DRAFT_SCHEMA)


def chunk_drafts(
    chunk_id: str, title: str | None, heading: str | None, text: str, language: str
) -> Iterator[Draft]:
    """Yields the questions and instructions that a chunk answers, at most one question of each kind.

    Args:
        chunk_id: The chunk's id in hexadecimal, which chooses among its sentences.
        title: The document's title.
        heading: The path of headings above the chunk, as `A > B > C`.
        text: The chunk's text.
        language: ISO 639-1 code of its language.
    """
    spans = sentence_spans(text)
    sentences = [text[start:end] for start, end in spans]
    innermost = (heading or "").split(" > ")[-1].strip()
    titled = heading_question(heading or title or "", split_words)
    if titled:
        yield Draft("retrieval_pair", "title", titled)
    if keywords := _keywords(text):
        yield Draft("retrieval_pair", "keyword", keywords)
    if claim := _claim(chunk_id, text, spans):
        yield claim
    if language == "en":
        asked = [*_defined(sentences), *_purposes(sentences)]
        if innermost.endswith("?"):
            asked.insert(0, (innermost, ""))
        for question, answer in asked[:1]:
            yield Draft("retrieval_pair", "natural", question)
            if answer:
                yield Draft("instruction", "definition", question, answer)
        if innermost.endswith("?"):
            yield Draft("instruction", "question_answer", innermost)
        elif titled:
            subject = f" in {title}" if title and title != innermost else ""
            yield Draft("instruction", "section", f"Explain {innermost or title}{subject}.")


def _keywords(text: str) -> str:
    """Returns the words that a text repeats, and long ones, in the order in which they first stand there."""
    words = [word.casefold() for word in split_words(text)]
    counts = Counter(word for word in words if len(word) >= _SHORTEST_KEYWORD and word.isalpha())
    if len(counts) < _KEYWORDS:
        return ""
    weight = {word: count * min(len(word), _LONGEST_COUNTED) for word, count in counts.items()}
    place = {word: number for number, word in enumerate(counts)}
    best = sorted(weight, key=lambda word: (-weight[word], place[word]))[:_KEYWORDS]
    return " ".join(sorted(best, key=place.__getitem__))


def _claim(chunk_id: str, text: str, spans: list[tuple[int, int]]) -> Draft | None:
    """Returns a sentence of a chunk as a claim, with the rest as its positive; None if it has none."""
    claims = [
        (start, end)
        for start, end in spans
        if _PROSE.match(text[start:end].strip()) and len(split_words(text[start:end])) in _CLAIM_WORDS
    ]
    if not claims:
        return None
    start, end = claims[int(chunk_id[:8], 16) % len(claims)]
    rest = f"{text[:start].rstrip()} {text[end:].lstrip()}".strip()
    if len(split_words(rest)) < _FEWEST_LEFT_WORDS:
        return None
    return Draft("retrieval_pair", "claim", _one_line(text[start:end]), rest)


def _defined(sentences: list[str]) -> Iterator[tuple[str, str]]:
    """Yields (question, answer) of sentences that say what something is, with the sentence after each."""
    for number, sentence in enumerate(sentences):
        line = _one_line(sentence)
        found = _DEFINES.match(line)
        if found and _PROSE.match(line):
            after = _one_line(sentences[number + 1]) if number + 1 < len(sentences) else ""
            answer = f"{line} {after}" if _PROSE.match(after) else line
            article = (found["article"] or "").lower()
            yield f"What {found['verb']} {article}{found['subject']}?", answer


def _purposes(sentences: list[str]) -> Iterator[tuple[str, str]]:
    """Yields (question, answer) of sentences that say how to do something."""
    for sentence in sentences:
        line = _one_line(sentence)
        found = _PURPOSE.match(line)
        if found and _PROSE.match(line):
            yield f"How do you {found['purpose']}?", line


def _asked_in_text(text: str) -> Iterator[Draft]:
    """Yields the pairs of question and answer that a text is marked with: `Q: …`, `A: …`."""
    if "?" not in text:
        return
    for found in _QUESTION_AND_ANSWER.finditer(text):
        question, answer = _one_line(found["question"]), found["answer"].strip()
        if question.endswith("?") and len(question) <= _MOST_QUESTION_CHARS:
            if len(answer) >= _FEWEST_ANSWER_CHARS:
                yield Draft("instruction", "question_answer", question, answer)
            yield Draft("retrieval_pair", "natural", question, answer)


def _one_line(text: str) -> str:
    return " ".join(text.split())
