"""Test collections in BEIR's layout: documents, queries, and judgements of which documents are relevant.

`corpus.jsonl` (`_id`, `title`, `text`), `queries.jsonl` (`_id`, `text`), `qrels/SPLIT.tsv` (query-id,
corpus-id, score, with that header): Thakur et al., "BEIR" (2021), https://github.com/beir-cellar/beir. The
queries may be called `questions.jsonl`.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_QRELS_HEADER = ["query-id", "corpus-id", "score"]


class BadBeirCollection(ValueError):
    """A folder can not be used as a test collection; the message names the file, and the line in it."""


@dataclass(frozen=True)
class BeirDocument:
    """A document of a test collection.

    Attributes:
        title: The title; empty if it has none.
        text: The text; empty if the document has only a title.
    """

    title: str
    text: str


@dataclass(frozen=True)
class BeirCollection:
    """A test collection, with the queries of one split.

    Attributes:
        name: The name of the folder.
        documents: The documents by id.
        queries: The texts of the judged queries by id.
        relevant: The relevant documents of each query, with their relevance, which is above zero.
    """

    name: str
    documents: Mapping[str, BeirDocument]
    queries: Mapping[str, str]
    relevant: Mapping[str, Mapping[str, int]]


def load_beir_collection(
    folder: Path, split: str = "test", queries_file: str | None = None
) -> BeirCollection:
    """Returns the test collection in a folder with BEIR's layout.

    Args:
        folder: The folder.
        split: Which judgements.
        queries_file: The name of the file of queries; that of `queries_file_of` unless given.

    Raises:
        BadBeirCollection: A file is missing or not in that layout, an id occurs twice, a judgement names an
            unknown id, or no document is judged relevant.
    """
    if not folder.is_dir():
        raise BadBeirCollection(f"there is no folder {folder}")
    corpus, asked = folder / "corpus.jsonl", folder / (queries_file or queries_file_of(folder))
    documents = {
        name: BeirDocument(_text(row, "title", where, required=False), _text(row, "text", where))
        for name, row, where in _rows(corpus)
    }
    queries = {name: _text(row, "text", where) for name, row, where in _rows(asked)}
    relevant: dict[str, dict[str, int]] = {}
    for query, document, score, where in _judgements(folder, split):
        if query not in queries:
            raise BadBeirCollection(f"{where}: no query {query!r} in {asked}")
        if document not in documents:
            raise BadBeirCollection(f"{where}: no document {document!r} in {corpus}")
        judged = relevant.setdefault(query, {})
        if document in judged:
            raise BadBeirCollection(f"{where}: query {query!r} and document {document!r} are judged twice")
        judged[document] = score
    relevant = {
        query: kept
        for query, judged in relevant.items()
        if (kept := {document: score for document, score in judged.items() if score > 0})
    }
    if not relevant:
        raise BadBeirCollection(
            f"{folder / 'qrels' / split}.tsv judges nothing relevant: there is nothing to find"
        )
    for query in relevant:
        if not queries[query].strip():
            raise BadBeirCollection(f"{asked}: query {query!r} is empty")
    return BeirCollection(
        folder.resolve().name, documents, {query: queries[query] for query in relevant}, relevant
    )


def queries_file_of(folder: Path) -> str:
    """Returns the name of the file of queries: `questions.jsonl` where there is no `queries.jsonl`."""
    names = ("queries.jsonl", "questions.jsonl")
    return next((name for name in names if (folder / name).is_file()), names[0])


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """The lines of a file that are not blank, each with its place."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise BadBeirCollection(
            f"there is no {path}: a collection is corpus.jsonl, queries.jsonl and qrels/SPLIT.tsv"
        ) from None
    except UnicodeDecodeError as error:
        raise BadBeirCollection(f"{path} is not UTF-8 text: {error}") from error
    # Not splitlines: a text may hold a line separator of Unicode, which ends no line of JSON.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield line, f"{path}, line {number}"


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any], str]]:
    """The objects of a file of JSON lines, each with its id and its place."""
    seen: dict[str, str] = {}
    for line, where in _lines(path):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise BadBeirCollection(f"{where}: not JSON: {error}") from error
        name = row.get("_id") if isinstance(row, dict) else None
        if not isinstance(name, str) or not name:
            raise BadBeirCollection(f'{where}: expected an object with an "_id" that is a text')
        if name in seen:
            raise BadBeirCollection(f"{where}: the _id {name!r} was given before, in {seen[name]}")
        seen[name] = where
        yield name, row, where
    if not seen:
        raise BadBeirCollection(f"{path} is empty")


def _text(row: Mapping[str, Any], key: str, where: str, required: bool = True) -> str:
    value = row.get(key)
    if value is None and not required:
        return ""
    if not isinstance(value, str):
        raise BadBeirCollection(f'{where}: "{key}" must be a text')
    return value


def _judgements(folder: Path, split: str) -> Iterator[tuple[str, str, int, str]]:
    """The rows of a split's judgements: query, document, score, and their place."""
    path = folder / "qrels" / f"{split}.tsv"
    there = sorted(each.stem for each in (folder / "qrels").glob("*.tsv"))
    if split not in there:
        raise BadBeirCollection(f"there is no {path}; the splits there are: {', '.join(there) or 'none'}")
    lines = _lines(path)
    header, where = next(lines, ("", str(path)))
    if header.rstrip("\r").split("\t") != _QRELS_HEADER:
        raise BadBeirCollection(f"{where}: expected the header {' '.join(_QRELS_HEADER)}, separated by tabs")
    for line, where in lines:
        fields = line.rstrip("\r").split("\t")
        try:
            query, document, score = fields[0], fields[1], int(fields[2])
        except (IndexError, ValueError):
            raise BadBeirCollection(
                f"{where}: expected query-id, corpus-id and a whole number, separated by tabs"
            ) from None
        yield query, document, score, where
