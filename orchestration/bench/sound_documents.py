"""Documents that a person calls sound: how many are quarantined or marked unfit, and are those found?"""

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa

from assets.lake.lake import Lake
from assets.parsing.parse import PARSED_DOCUMENT_SCHEMA, parse_document_batches
from assets.parsing.sandbox import ParserLimits
from assets.recipe import Recipe
from assets.sources.local_files import list_local_files, read_local_file_batches
from assets.sources.source_config import Source
from assets.text.training_fit import training_unfit_sql
from common.ids import doc_id
from common.lineage import Lineage
from orchestration.bench.report import BenchResult
from retrieval.chunking.chunker import chunk_document_batches
from retrieval.chunking.sentences import sentence_spans
from retrieval.embedding.embedding_model import EmbeddingModel
from retrieval.index.index import Index
from retrieval.index.rows import INDEX_COLUMNS
from retrieval.search.query import SearchQuery
from retrieval.search.searcher import Searcher
from retrieval.store.postgres import Postgres, PostgresConfig

_SEED = 2026
_MOST_FILES = 2000
_MOST_CHARS = 20_000
"""So much of each document is indexed, and its sentence is one of these."""
_DIMENSION = 8
_MOST_WORDS = 40
_HITS = 10
_WITHOUT_TEXT = ("unsupported_media_type", "no_text", "encrypted", "empty")
"""What documents without a text to read are quarantined for: they are not among those that count as sound."""
_TENANT = "bench"

Row = dict[str, Any]
PARSER_COLUMNS = pa.schema(
    [
        *((name, pa.string()) for name in ("doc_id", "tenant", "source", "uri", "title", "media_type")),
        ("content_sha256", pa.string()),
        ("body", pa.large_binary()),
        ("error", pa.string()),
        ("first_seen_at", pa.timestamp("us", tz="UTC")),
    ]
)
"""The columns of a document that is judged."""


@dataclass(frozen=True)
class SoundDocuments:
    """What became of the documents of a folder that count as sound.

    Attributes:
        documents: How many have a text; pictures, empty and encrypted files have none.
        quarantined: Why the quarantined ones are, by URI.
        unfit: Why the ones that are not fit for training are not, by URI.
        unfound: Those of them that a search for one of their sentences does not find, by URI.
    """

    documents: int
    quarantined: dict[str, str]
    unfit: dict[str, str]
    unfound: dict[str, str] = field(default_factory=dict)


def judge_documents(rows: Iterable[Row], languages: list[str] | None) -> list[Row]:
    """Parses documents one by one; those that are readable have in `unfit` why they are not fit, or ''.

    Args:
        rows: Documents with `PARSER_COLUMNS`.
        languages: The languages that are fit; None for all.
    """
    recipe = Recipe()
    batches = (
        pa.RecordBatch.from_pylist([{name: row[name] for name in PARSER_COLUMNS.names}], PARSER_COLUMNS)
        for row in rows
    )
    parsed = pa.Table.from_batches(
        parse_document_batches(batches, recipe.readability), PARSED_DOCUMENT_SCHEMA
    )
    unfit = training_unfit_sql(recipe.training.model_copy(update={"languages": languages}))
    found: list[Row] = Lake.query(f"SELECT *, {unfit} AS unfit FROM parsed", parsed=parsed).to_pylist()
    return found


def judge_sound_documents(location: Path, progress: Callable[[str], None]) -> SoundDocuments:
    """Judges the documents of a folder, 2,000 files drawn with a seed, or the rows of a JSONL file.

    Each document that is not fit for training is searched for by its longest sentence among all readable
    documents of the folder, by words alone: it is found when one of the ten best chunks is its own, or holds
    the sentence.
    """
    judged = judge_documents(_documents(location), None)
    quarantined = {
        row["uri"]: f"{row['expectation']}: {row['reason']}"
        for row in judged
        if row["stage"] is not None and row["expectation"] not in _WITHOUT_TEXT
    }
    kept = [row for row in judged if row["stage"] is None]
    unfit = [row for row in kept if row["unfit"]]
    progress(f"{location}: {len(kept)} readable, {len(quarantined)} quarantined, {len(unfit)} unfit")
    return SoundDocuments(
        len(kept) + len(quarantined),
        quarantined,
        {row["uri"]: row["unfit"] for row in unfit},
        _unfound(kept, unfit) if unfit else {},
    )


def _documents(location: Path) -> Iterator[Row]:
    identity = {"tenant": _TENANT, "source": location.name, "first_seen_at": datetime(2026, 1, 1, tzinfo=UTC)}
    random = Random(_SEED)  # noqa: S311 - a bench must repeat itself
    if location.suffix == ".jsonl":
        lines = location.read_text().splitlines()
        for line in random.sample(lines, min(_MOST_FILES, len(lines))):
            row = json.loads(line)
            uri = f"{location.as_uri()}#{row['_id']}"
            content = {"uri": uri, "title": row.get("title"), "body": row["text"].encode(), "error": None}
            content |= {"media_type": "text/plain; charset=utf-8", "content_sha256": None}
            yield identity | content | {"doc_id": doc_id(_TENANT, location.name, uri)}
        return
    source = Source(name="sound", location=str(location))
    listing = list_local_files(source)
    drawn = sorted(random.sample(range(listing.num_rows), min(_MOST_FILES, listing.num_rows)))
    files = listing.take(drawn).to_batches(max_chunksize=16)
    # Read before any is parsed: archives are opened by the parser's process, which does one thing at a time.
    for batch in list(read_local_file_batches(files, source.location, ParserLimits())):
        for row in batch.to_pylist():
            # An archive is no document, its files are.
            if not (row["error"] is None and "#" not in row["uri"] and _is_archive(row["media_type"])):
                yield identity | row | {"doc_id": doc_id(_TENANT, location.name, row["uri"])}


def _is_archive(media_type: str | None) -> bool:
    from assets.parsing.content_type import ARCHIVES

    return (media_type or "").partition(";")[0] in ARCHIVES


def _unfound(kept: list[Row], unfit: list[Row]) -> dict[str, str]:
    """Returns the sentences for which a search does not find the document that they are from, by its URI."""
    missed = {}
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as folder:
        postgres = Postgres(Path(folder), PostgresConfig())
        try:
            lineage = Lineage(run_id="", asset="bench", code_version="", config_digest="", inputs={})
            state = Index(postgres).build("bench", "bench", _DIMENSION, _index_rows(kept), lineage)
            searcher = Searcher(postgres)
            for row in unfit:
                sentence = _longest_sentence(row["text"][:_MOST_CHARS])
                hits = searcher.search(_TENANT, SearchQuery.plain(sentence), None, _HITS, "lexical", state)
                if not any(hit.doc_id == row["doc_id"] or sentence in hit.text for hit in hits):
                    missed[row["uri"]] = sentence
        finally:
            postgres.remove()
    return missed


def _longest_sentence(text: str) -> str:
    """Returns the sentence with the most words, of a long one the beginning; '' for a text without any."""
    sentences = [text[start:end].split() for start, end in sentence_spans(text)]
    return " ".join(max(sentences, key=len, default=[])[:_MOST_WORDS])


def _index_rows(kept: list[Row]) -> Iterator[pa.RecordBatch]:
    recipe = Recipe()
    tokenizer = EmbeddingModel.of(recipe.embedder, Path()).tokenizer_path
    drawn = np.random.default_rng(_SEED)
    names = ("doc_id", "uri", "title", "language", "content_sha256")
    for at in range(0, len(kept), 64):
        documents = {row["doc_id"]: row for row in kept[at : at + 64]}
        table = pa.table(
            {
                "doc_id": list(documents),
                "tenant": [_TENANT] * len(documents),
                "text": [row["text"][:_MOST_CHARS] for row in documents.values()],
                "headings": [
                    [each for each in row["headings"] if each["char_start"] + 1000 < _MOST_CHARS]
                    for row in documents.values()
                ],
            }
        )
        for batch in chunk_document_batches(iter(table.to_batches()), recipe.chunker, tokenizer):
            rows = [
                chunk | {name: documents[chunk["doc_id"]][name] or "" for name in names}
                for chunk in batch.to_pylist()
            ]
            # Words alone are searched: any vectors do.
            vectors = drawn.normal(size=(len(rows), _DIMENSION)).astype(np.float32)
            column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), _DIMENSION)
            yield pa.RecordBatch.from_pylist(rows, INDEX_COLUMNS).append_column("vector", column)


def bench_sound_documents(locations: Sequence[Path], progress: Callable[[str], None]) -> BenchResult:
    """Judges folders of documents that a person calls sound; see `judge_sound_documents`.

    Returns:
        For each folder, by its name, the counts of documents, of those quarantined, unfit for training, and
        unfit and not found by a search; the reasons with their counts; and the shares.
    """
    figures: dict[str, float] = {}
    ratios: dict[str, float] = {}
    for location in locations:
        name, sound = location.stem, judge_sound_documents(location.expanduser().absolute(), progress)
        for uri, reason in (sound.quarantined | sound.unfit).items():
            progress(f"{uri}: {reason}")
        for uri, sentence in sound.unfound.items():
            progress(f"{uri}: not found by: {sentence}")
        counts = {"documents": sound.documents, "quarantined": len(sound.quarantined)}
        counts |= {"unfit": len(sound.unfit), "unfit_unfound": len(sound.unfound)}
        reasons = Counter(reason for each in sound.unfit.values() for reason in each.split(","))
        counts |= {f"unfit_by_{reason}": count for reason, count in reasons.most_common()}
        figures |= {f"{name}_{what}": float(count) for what, count in counts.items()}
        for what in ("quarantined", "unfit"):
            ratios[f"{name}_{what}"] = counts[what] / max(1, sound.documents)
    return BenchResult("quality", figures, ratios)
