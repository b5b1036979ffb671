"""`bench quality`: the share of injected defects that are found, and of sound documents that are marked."""

import copy
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from assets.dedup.minhash import MinHashConfig, signature_batches
from assets.lake.tables import DOCUMENTS, DUPLICATES, TABLES
from assets.recipe import Recipe
from assets.sources.environment_corpus import list_environment_corpus, read_environment_corpus
from assets.sources.source_config import PYTHON_ENVIRONMENT
from assets.text.signals import QUALITY_SIGNALS
from benchmarks.defects import (
    DOCUMENT_DEFECTS,
    TABLE_DEFECTS,
    BenchDocument,
    InjectedDefect,
    Row,
    Rows,
    inject_near_duplicate,
)
from common.ids import doc_id
from orchestration.bench.report import BenchResult
from orchestration.bench.sound_documents import PARSER_COLUMNS, judge_documents
from quality.gate import gate_verdict
from quality.suites import SUITES

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_SEED = 2026
_PER_KIND = 100
"""Documents that are spoiled per kind of defect; a fifth of that for the kind that needs 64 MiB each."""
_BATCHES = 8
"""Versions of a table that are spoiled per kind of defect, and as many sound ones."""
_BATCH_DOCUMENTS = 30
_MIN_WORDS = 50
"""Shorter documents are not spoiled: half a line is not half a document."""
_LANGUAGES = ["en", "und"]
"""What the corpus is in; `und` are texts too short, or too much of names, to tell."""
_CAME_DAMAGED = {
    "protobuf/METADATA": "the placeholder UNKNOWN",
    "pypdfium2/licenses/BUILD_LICENSES/abseil.txt": "an include line",
    "pypdfium2/licenses/BUILD_LICENSES/highway.txt": "an include line",
    "graphene/METADATA": "emoji lost to ten U+FFFD",
    "questionary/NOTICE": "ends in the middle of a licence's last sentence",
}
"""Texts that a person found damaged as they are installed; they count as neither sound nor injected."""
_DIMENSIONS = 32
_DRIFT_BATCHES = 300
_DRIFT_DOCUMENTS = 60
_DRIFT_SHARE = 1 / 3
"""Of a shifted batch, the documents in another language."""
_RUN = {"OpenLineage_RunId": "bench"}


@dataclass
class _Tally:
    injected: int = 0
    caught: int = 0

    def add(self, by: str | None, kind: str, reasons: Counter[str]) -> None:
        self.injected += 1
        if by is not None:
            self.caught += 1
            reasons[f"{kind}_by_{by}"] += 1


def bench_quality() -> BenchResult:
    """Injects each kind of defect into the texts of the installed software and counts how many are caught.

    A damaged document is caught when it is quarantined, marked unfit for training or found to be a duplicate,
    a damaged version of a table when its gate does not open. A wrong encoding is also caught when parsing
    gives the undamaged text (`mended`). The thresholds were chosen on one half of the documents, with
    near-duplicates in the same half. The figures are those of the other half; `calibration_*` are those of
    the first. Every document with a body that was not damaged counts as sound, whatever is said of it.

    Drift is measured on resampled batches of the same documents: some have the distribution of all documents,
    and in the others a third of the documents are in other languages.

    Returns:
        For each kind K of defect the counts `K_injected` and `K_caught`, and `K_by_W` for each check W that
        caught it. The ratios hold the share caught of each kind and of all defects (`caught`), the mean over
        the kinds, and the shares of sound documents that were quarantined (or taken for duplicates) or marked
        unfit, and of sound table versions that were stopped.
    """
    from assets.lake.spark import SparkConfig, spark_session

    random = Random(_SEED)  # noqa: S311 - a bench must repeat itself
    rows = _corpus()
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as scratch:
        spark = spark_session(SparkConfig(), Path(scratch))
        try:
            parsed = judge_documents(rows.values(), _LANGUAGES)
            kept = [row for row in parsed if row["stage"] is None]
            canonical = _canonical(_duplicates(kept))
            halves = _halves(rows, canonical)
            sources = {
                row["doc_id"]: BenchDocument(rows[row["doc_id"]]["body"], row["media_type"], row["text"])
                for row in kept
                if row["word_count"] >= _MIN_WORDS
            }
            reasons: Counter[str] = Counter()
            calibration = _spoiled(sources, halves[0], Random(_SEED), Counter())  # noqa: S311
            tallies = _spoiled(sources, halves[1], random, reasons)
            unique = [row for row in kept if row["doc_id"] in halves[1] and row["doc_id"] not in canonical]
            tallies["near_duplicates"], shadowed = _copied(spark, unique, random, reasons)
            sound_versions = _Tally()
            tallies |= _gated(unique, random, reasons, sound_versions)
        finally:
            spark.stop()
    stopped = {row["doc_id"] for row in parsed if row["stage"] is not None}
    unfit = {row["doc_id"] for row in kept if row["unfit"]}
    sound = [{each for each in half if not _came_damaged(rows[each])} for half in halves]
    found_damaged = {each for each in rows if _came_damaged(rows[each])}
    drift_alarms, drift_found = _drifting(kept, random)
    figures = {
        "documents_came_damaged": len(found_damaged),
        "documents_came_damaged_found": len(found_damaged & (stopped | unfit)),
        "documents_sound": len(sound[1]),
        "documents_quarantined": len(sound[1] & stopped) + shadowed,
        "documents_unfit": len(sound[1] & unfit),
        "drift_batches_sound": drift_alarms.injected,
        "drift_batches_sound_alarmed": drift_alarms.caught,
        "drift_batches_shifted": drift_found.injected,
        "drift_batches_shifted_found": drift_found.caught,
        "versions_sound": sound_versions.injected,
        "versions_stopped": sound_versions.caught,
    }
    for kind, tally in tallies.items():
        figures |= {f"{kind}_injected": tally.injected, f"{kind}_caught": tally.caught}
        figures |= {name: count for name, count in reasons.most_common() if name.startswith(f"{kind}_by_")}
    ratios = {kind: tally.caught / tally.injected for kind, tally in tallies.items()}
    ratios["caught_mean_of_kinds"] = float(np.mean(list(ratios.values())))
    ratios["caught"] = _share(tallies.values())
    ratios["sound_quarantined"] = figures["documents_quarantined"] / len(sound[1])
    ratios["sound_unfit"] = figures["documents_unfit"] / len(sound[1])
    ratios["false_alarms_versions"] = sound_versions.caught / sound_versions.injected
    ratios["false_alarms_drift"] = _share([drift_alarms])
    ratios["drift_found"] = _share([drift_found])
    ratios["calibration_caught"] = _share(calibration.values())
    ratios["calibration_sound_quarantined"] = len(sound[0] & stopped) / len(sound[0])
    ratios["calibration_sound_unfit"] = len(sound[0] & unfit) / len(sound[0])
    return BenchResult("quality", {name: float(value) for name, value in figures.items()}, ratios)


def _share(tallies: Iterable[_Tally]) -> float:
    tallies = list(tallies)
    return sum(tally.caught for tally in tallies) / sum(tally.injected for tally in tallies)


def _corpus() -> dict[str, Row]:
    """Returns the texts of the installed software as rows for the parser, by doc_id."""
    rows = {}
    seen = datetime(2026, 1, 1, tzinfo=UTC)
    for row in read_environment_corpus(list_environment_corpus()).to_pylist():
        if row["body"]:
            identity = doc_id("bench", "environment", row["uri"])
            rows[identity] = row | {
                "doc_id": identity,
                "tenant": "bench",
                "source": "environment",
                "first_seen_at": seen,
            }
    return rows


def _came_damaged(row: Row) -> bool:
    return row["uri"].removeprefix(f"{PYTHON_ENVIRONMENT}://") in _CAME_DAMAGED


def _halves(rows: dict[str, Row], canonical: dict[str, str]) -> tuple[list[str], list[str]]:
    """Divides the documents into two halves by a hash, near-duplicates into the same half."""
    halves: tuple[list[str], list[str]] = ([], [])
    for identity in rows:
        cluster = canonical.get(identity, identity)
        halves[sha256(f"half {cluster}".encode()).digest()[0] % 2].append(identity)
    return halves


def _spoiled(
    sources: dict[str, BenchDocument], half: list[str], random: Random, reasons: Counter[str]
) -> dict[str, _Tally]:
    """Sends spoiled documents of each kind through the parser and its filters, and counts the caught ones."""
    tallies = {}
    for defect in DOCUMENT_DEFECTS:
        tally = tallies[defect.kind] = _Tally()
        fitting = [identity for identity in half if identity in sources and defect.fits(sources[identity])]
        wanted = _PER_KIND // 5 if defect.kind == "oversize" else _PER_KIND
        for identity in random.sample(fitting, min(wanted, len(fitting))):
            tally.add(_found_by(defect, sources[identity], random), defect.kind, reasons)
    return tallies


def _found_by(defect: InjectedDefect, source: BenchDocument, random: Random) -> str | None:
    """Returns what found a document after it was spoiled: the first reason; None if nothing did."""
    spoiled = defect.spoil(source, random)
    row = dict.fromkeys(PARSER_COLUMNS.names) | {
        "doc_id": "spoiled",
        "uri": "bench:spoiled",
        "body": spoiled.body,
        "media_type": spoiled.media_type,
    }
    # The other kinds have to be found where no language is expected, as is the default.
    [found] = judge_documents([row], _LANGUAGES if defect.kind == "wrong_language" else None)
    if found["stage"] is not None:
        return str(found["expectation"])
    if found["unfit"]:
        return str(found["unfit"]).partition(",")[0]
    return "mended" if defect.mended and found["text"] == source.text else None


def _duplicates(documents: list[Row]) -> list[Row]:
    """Returns the rows of silver.duplicates for documents: doc_id, canonical_id, method."""
    from assets.dedup.near_duplicates import find_duplicates
    from assets.engine.local_relations import LocalRelations

    config = MinHashConfig()
    columns = ("doc_id", "tenant", "text", "text_sha256", "first_seen_at")
    table = pa.table({name: [row[name] for row in documents] for name in columns})
    signed = pa.Table.from_batches(list(signature_batches(iter(table.to_batches()), config)))
    with LocalRelations() as on:
        on.add("documents", table)
        on.add("signatures", signed)
        on.add("duplicates", DUPLICATES.schema.empty_table())
        find_duplicates(on, config)
        rows: list[Row] = on.arrow("found_duplicates").to_pylist()
    return rows


def _canonical(duplicates: list[Row]) -> dict[str, str]:
    return {row["doc_id"]: row["canonical_id"] for row in duplicates}


def _copied(
    spark: "SparkSession", documents: list[Row], random: Random, reasons: Counter[str]
) -> tuple[_Tally, int]:
    """Adds near-copies to documents that have no duplicates, and counts which are found.

    Returns:
        The tally, and how many of the documents themselves were newly taken for duplicates of one another.
    """
    long = [row for row in documents if row["word_count"] >= _MIN_WORDS]
    later = datetime(2026, 2, 1, tzinfo=UTC)
    copies = {}
    for row in random.sample(long, min(_PER_KIND, len(long))):
        text = inject_near_duplicate(row["text"], random)
        identity = doc_id("bench", "copies", row["uri"])
        digest = sha256(text.encode()).hexdigest()
        copies[identity] = row | {
            "doc_id": identity,
            "text": text,
            "text_sha256": digest,
            "first_seen_at": later,
        }
    found = {row["doc_id"]: row["method"] for row in _duplicates([*documents, *copies.values()])}
    tally = _Tally()
    for identity in copies:
        tally.add(found.get(identity), "near_duplicates", reasons)
    return tally, len(found.keys() - copies.keys())


def _gated(documents: list[Row], random: Random, reasons: Counter[str], sound: _Tally) -> dict[str, _Tally]:
    """Spoils versions of the tables, and counts which gates open."""
    tallies = {kind: _Tally() for kind in TABLE_DEFECTS}
    for _ in range(_BATCHES):
        tables = _version(random.sample(documents, _BATCH_DOCUMENTS), random)
        for table in SUITES:
            closed = _closed_by(table, tables)
            sound.add(closed, table, reasons)
        for kind, (table, spoil) in TABLE_DEFECTS.items():
            spoiled = copy.deepcopy(tables)
            spoil(spoiled, random)
            tallies[kind].add(_closed_by(table, spoiled), kind, reasons)
    return tallies


def _drifting(documents: list[Row], random: Random) -> tuple[_Tally, _Tally]:
    """Compares resampled batches with the other documents: sound ones, and a tenth as many shifted ones."""
    from quality.drift import column_drift

    spoil = next(defect.spoil for defect in DOCUMENT_DEFECTS if defect.kind == "wrong_language")
    columns = (*QUALITY_SIGNALS, "language", "char_count")
    config = Recipe().drift
    sound, shifted = _Tally(), _Tally()
    for at in range(_DRIFT_BATCHES + _DRIFT_BATCHES // 10):
        dealt = random.sample(documents, len(documents))
        batch, reference = dealt[:_DRIFT_DOCUMENTS], dealt[_DRIFT_DOCUMENTS:]
        tally = sound if at < _DRIFT_BATCHES else shifted
        if tally is shifted:
            for place in range(round(_DRIFT_SHARE * len(batch))):
                source = spoil(BenchDocument(b"", "text/plain", ""), random)
                row = dict.fromkeys(PARSER_COLUMNS.names) | {
                    "body": source.body,
                    "media_type": source.media_type,
                }
                [batch[place]] = judge_documents([row], None)
        here, before = (
            pa.table({name: [row[name] for row in rows] for name in columns}) for rows in (batch, reference)
        )
        findings = column_drift(
            here,
            before,
            config,
            numbers=tuple(QUALITY_SIGNALS),
            categories=("language",),
            binned=("char_count",),
        )
        drifted = next((each.column for each in findings if each.drifted), None)
        tally.add(drifted, "drift", Counter())
    return sound, shifted


def _version(documents: list[Row], random: Random) -> Rows:
    """A sound version of the gated tables; its vectors are random unit ones, for a gate reads no meaning."""
    from retrieval.chunking.chunker import chunk_document_batches

    recipe = Recipe()
    rows = [
        {name: row.get(name) for name in DOCUMENTS.schema.names}
        | _RUN
        | {
            "training_fit": not row["unfit"],
            "training_unfit_reasons": [reason for reason in row["unfit"].split(",") if reason],
        }
        for row in documents
    ]
    columns = ("doc_id", "tenant", "text", "headings")
    table = pa.table({name: [row[name] for row in rows] for name in columns})
    chunks = [
        row | _RUN
        for batch in chunk_document_batches(iter(table.to_batches()), recipe.chunker, _tokenizer(recipe))
        for row in batch.to_pylist()
    ]
    drawn = np.random.default_rng(random.randrange(1 << 32))
    wanted = sorted({(row["tenant"], row["text_sha256"]) for row in chunks})
    vectors = drawn.normal(size=(len(wanted), _DIMENSIONS))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    embeddings = [
        {"tenant": tenant, "text_sha256": digest, "model_digest": "bench", "vector": vector, **_RUN}
        for (tenant, digest), vector in zip(wanted, vectors.astype(np.float32).tolist(), strict=True)
    ]
    return {
        "silver.documents": rows,
        "silver.duplicates": [],
        "gold.chunks": chunks,
        "gold.embeddings": embeddings,
    }


def _tokenizer(recipe: Recipe) -> Path:
    from retrieval.embedding.embedding_model import EmbeddingModel

    return EmbeddingModel.of(recipe.embedder, Path()).tokenizer_path


def _closed_by(table: str, tables: Rows) -> str | None:
    """Returns the first expectation that closed the table's gate, or None where it opened."""
    import duckdb

    from quality.gx import run_gate_suite

    suite = SUITES[table]
    parameters: dict[str, Any] = {"token_budget": Recipe().chunker.max_tokens, "model_digest": "bench"}
    with duckdb.connect() as connection:
        for name in (table, *suite.reads):
            # Without Delta's NOT NULL, as something else may have written it.
            schema = pa.schema([field.with_nullable(True) for field in TABLES[name].schema])
            connection.register(name.partition(".")[2], pa.Table.from_pylist(tables[name], schema))
        judged = gate_verdict(suite.expectations, run_gate_suite(connection, suite, None, parameters))
    errors = [each.name for each in suite.expectations if each.severity == "error"]
    return None if judged.passed else next(name for name in judged.failed if name in errors)
