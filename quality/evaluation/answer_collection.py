"""Questions with what is right about their answers: four layouts, told apart by their files.

- a folder with `corpus.jsonl`, `questions.jsonl` and `qrels/test.tsv`: passages to search (BioASQ's);
- a folder with `questions.jsonl` whose questions bring passages, `positive` and `negative` ones (RGB's);
- a folder with `sentences.jsonl`: candidates to rank (TREC's answer sentences);
- a file of JSON lines: questions to the lake.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal, TypeVar

from quality.evaluation.beir_collection import BeirCollection, load_beir_collection

_Read = TypeVar("_Read")
AnswerCollectionKind = Literal["retrieval", "passages", "sentences", "questions"]

_PENN_TOKENS = {"-LRB-": "(", "-RRB-": ")", "-LSB-": "[", "-RSB-": "]", "``": '"', "''": '"', "--": "-"}
"""The Penn Treebank's names of signs, as TREC's sentences have them."""


class BadAnswerCollection(ValueError):
    """A folder or file of questions can not be used; the message names the file, and the line in it."""


@dataclass(frozen=True)
class AnswerQuestion:
    """A question and what is known of its answer.

    Attributes:
        text: The question.
        answerable: False if what is searched does not hold the answer.
        ideal: Whole answers that experts wrote; any of them.
        exact: The parts of the exact answer, each as the forms in which it is accepted.
        gold: The ids or URIs of the passages that answer it.
        passages: The passages to answer from; None if they are to be searched for.
        candidates: Sentences to rank.
        relevant: Whether each candidate answers the question.
    """

    text: str
    answerable: bool = True
    ideal: tuple[str, ...] = ()
    exact: tuple[tuple[str, ...], ...] = ()
    gold: tuple[str, ...] = ()
    passages: tuple[str, ...] | None = None
    candidates: tuple[str, ...] = ()
    relevant: tuple[bool, ...] = ()


@dataclass(frozen=True)
class AnswerCollection:
    """Questions whose answers can be judged.

    Attributes:
        name: The name of the folder or file.
        kind: Where the passages come from.
        questions: The questions.
        searched: The passages to search, with all questions as queries; None if there are none to search.
    """

    name: str
    kind: AnswerCollectionKind
    questions: tuple[AnswerQuestion, ...]
    searched: BeirCollection | None = None


def load_answer_collection(path: Path, limit: int | None = None) -> AnswerCollection:
    """Returns the questions in a folder or file, the first `limit` of them.

    Raises:
        BadAnswerCollection: There is nothing of these layouts, or a line is not as its layout wants it.
        BadBeirCollection: The passages to search are not in BEIR's layout.
    """
    name = path.resolve().name
    if path.is_file():
        return AnswerCollection(path.stem, "questions", tuple(_lines(path, _lake_question, limit)))
    if (path / "sentences.jsonl").is_file():
        return AnswerCollection(name, "sentences", tuple(_ranked(path / "sentences.jsonl", limit)))
    if (path / "corpus.jsonl").is_file():
        return _searched(path, limit)
    if (path / "questions.jsonl").is_file():
        pairs = _lines(path / "questions.jsonl", _pair, limit)
        return AnswerCollection(name, "passages", tuple(chain.from_iterable(pairs)))
    raise BadAnswerCollection(
        f"{path} is no file and has neither questions.jsonl nor sentences.jsonl: name a file of "
        '{"question": …} lines, or a folder in one of the layouts of docs/answers.md'
    )


def _searched(folder: Path, limit: int | None) -> AnswerCollection:
    asked = folder / "questions.jsonl"
    collection = load_beir_collection(folder, queries_file=asked.name)
    named = dict(_lines(asked, lambda row, where: (row["_id"], _expert_question(row, where)), None))
    judged = {name: question for name, question in named.items() if name in collection.relevant}
    chosen = dict(list(judged.items())[:limit])
    questions = tuple(
        replace(question, gold=tuple(collection.relevant[name])) for name, question in chosen.items()
    )
    queries = {name: question.text for name, question in chosen.items()}
    searched = BeirCollection(collection.name, collection.documents, queries, collection.relevant)
    return AnswerCollection(collection.name, "retrieval", questions, searched)


def expert_answers(folder: Path) -> dict[str, AnswerQuestion]:
    """Returns the answered questions of a folder's `questions.jsonl` by their text; none without that file.

    Raises:
        BadAnswerCollection: A line is not as the layout wants it.
    """
    file = folder / "questions.jsonl"
    found = _lines(file, _expert_question, None) if file.is_file() else []
    return {each.text: each for each in found if each.ideal or each.exact}


def _expert_question(row: Mapping[str, Any], where: str) -> AnswerQuestion:
    """A line of BioASQ: `exact_answer` is parts with their forms, or yes or no, which no span holds."""
    exact = row.get("exact_answer")
    parts = _parts(exact, f'{where}: "exact_answer"') if isinstance(exact, list) else ()
    return AnswerQuestion(_text(row, "text", where), ideal=_texts(row, "ideal_answer", where), exact=parts)


def _pair(row: Mapping[str, Any], where: str) -> tuple[AnswerQuestion, ...]:
    """A line of RGB: the question over passages that answer, and over those that only look like it."""
    text = _text(row, "text", where)
    exact = _parts(row.get("answer"), f'{where}: "answer"')
    holding = row.get("negative_with_answer", [])
    if not isinstance(holding, list) or not all(isinstance(each, int) for each in holding):
        raise BadAnswerCollection(f'{where}: "negative_with_answer" must be a list of places in "negative"')
    negative = tuple(
        text for place, text in enumerate(_texts(row, "negative", where)) if place not in holding
    )
    pair = [AnswerQuestion(text, exact=exact, passages=_texts(row, "positive", where))]
    if negative:
        pair.append(AnswerQuestion(text, answerable=False, passages=negative))
    return tuple(pair)


_LAKE_FIELDS = ("question", "ideal_answer", "exact_answer", "uri", "answerable", "subject")
"""`subject` names the document that a question without an answer is about; it is not read."""


def _lake_question(row: Mapping[str, Any], where: str) -> AnswerQuestion:
    """A line of the user's own, with `_LAKE_FIELDS` and notes, whose names begin with `_`."""
    for name in row:
        if name not in _LAKE_FIELDS and not name.startswith("_"):
            raise BadAnswerCollection(
                f'{where}: there is no field "{name}"; there are {", ".join(_LAKE_FIELDS)}, and notes of '
                "your own begin with _"
            )
    exact = row.get("exact_answer")
    answerable = row.get("answerable", True)
    if not isinstance(answerable, bool):
        raise BadAnswerCollection(f'{where}: "answerable" must be true or false')
    return AnswerQuestion(
        _text(row, "question", where),
        answerable,
        _texts(row, "ideal_answer", where),
        _parts(exact, f'{where}: "exact_answer"') if exact is not None else (),
        _texts(row, "uri", where),
    )


def _ranked(path: Path, limit: int | None) -> list[AnswerQuestion]:
    """TREC's questions that have both kinds of candidates; published figures are over these."""
    candidates: dict[str, list[tuple[str, bool]]] = {}
    for question, sentence, label in _lines(path, _sentence, None):
        candidates.setdefault(question, []).append((sentence, label))
    both = [
        AnswerQuestion(
            _untreebanked(question),
            candidates=tuple(_untreebanked(text) for text, _ in found),
            relevant=tuple(label for _, label in found),
        )
        for question, found in candidates.items()
        if len({label for _, label in found}) == 2
    ]
    if not both:
        raise BadAnswerCollection(f"{path} has no question with both kinds of sentences: there is no order")
    return both[:limit]


def _sentence(row: Mapping[str, Any], where: str) -> tuple[str, str, bool]:
    if row.get("label") not in (0, 1):
        raise BadAnswerCollection(f'{where}: "label" must be 0 or 1')
    return _text(row, "question", where), _text(row, "sentence", where), bool(row["label"])


def _untreebanked(text: str) -> str:
    return " ".join(_PENN_TOKENS.get(token, token) for token in text.split())


def _lines(path: Path, read: Callable[[Mapping[str, Any], str], _Read], limit: int | None) -> list[_Read]:
    """What is read from each object of a file of JSON lines."""
    found: list[_Read] = []
    for row, where in _rows(path):
        if len(found) == limit:
            break
        found.append(read(row, where))
    if not found:
        raise BadAnswerCollection(f"{path} holds no questions")
    return found


def _rows(path: Path) -> Iterator[tuple[Mapping[str, Any], str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BadAnswerCollection(f"{path} is not UTF-8 text: {error}") from error
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise BadAnswerCollection(f"{where}: not JSON: {error}") from error
        if not isinstance(row, dict):
            raise BadAnswerCollection(f"{where}: expected an object")
        yield row, where


def _text(row: Mapping[str, Any], key: str, where: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise BadAnswerCollection(f'{where}: "{key}" must be a text')
    return value.strip()


def _texts(row: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    """A text or a list of texts; none if the key is missing."""
    value = row.get(key)
    values = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(each, str) for each in values):
        raise BadAnswerCollection(f'{where}: "{key}" must be a text or a list of texts')
    return tuple(values)


def _parts(value: object, what: str) -> tuple[tuple[str, ...], ...]:
    """The parts of an exact answer: a text, or a list of parts, each a text or a list of accepted forms.

    Empty forms, and parts without any other, are left out: experts' lists hold some.
    """
    parts = [value] if isinstance(value, str) else value
    if not isinstance(parts, list):
        raise BadAnswerCollection(f"{what} must be a text or a list of parts")
    found = []
    for part in parts:
        forms = [part] if isinstance(part, str) else part
        if not isinstance(forms, list) or not all(isinstance(form, str) for form in forms):
            raise BadAnswerCollection(f"{what}: a part must be a text or a list of accepted forms")
        found.append(tuple(form for form in forms if form.strip()))
    return tuple(forms for forms in found if forms)
