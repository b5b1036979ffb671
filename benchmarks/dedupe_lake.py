"""Measures deduplication in a lake for `bench dedupe`: of all documents, and of a batch that is added.

`python -m benchmarks.dedupe_lake FOLDER` runs the assets `silver/signatures` and `silver/duplicates`
over the lake in a folder and prints their times and counts. It is a separate process, so that the times
include a cold start.
"""

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from assets.columns import Table
from assets.dedup.minhash import (
    MinHashConfig,
    lsh_bands,
    minhash_signatures,
    shingle_jaccard,
    signature_batches,
)
from assets.lake.audits import record_audit
from assets.lake.lake import Lake
from assets.lake.lineage import CODE_VERSION
from assets.lake.spark import SparkConfig
from assets.lake.tables import DOCUMENTS, DUPLICATES, SIGNATURES
from assets.recipe import Recipe
from common.lineage import Lineage
from orchestration.bench.report import BenchedProcess, run_benched

_CHUNK_DOCUMENTS = 100_000
_COPY_EVERY = 20
"""In a lake, each document at a multiple of this is the one before it with a word replaced."""
_RUN = "bench"

_WRITTEN = """
    select sha256('bench' || chr(31) || number) as doc_id, text, sha256(text) as text_sha256,
           length(text)::int as char_count, 'bench:' || number as uri,
           make_timestamptz(1700000000000000 + number) as first_seen_at
    from texts order by number
"""
_CHECKOUT = Path(__file__).parents[1]


class BenchedAssets(BaseModel):
    """The seconds and counts of `silver/signatures` and `silver/duplicates`, as their process prints them.

    Attributes:
        signatures_s: Seconds of `silver/signatures`.
        duplicates_s: Seconds of `silver/duplicates`.
        candidate_pairs: Pairs that share a band.
        similar_pairs: Candidate pairs whose exact Jaccard similarity reaches the threshold.
        hot_buckets: Bands that too many documents share.
        duplicates: Rows of `silver.duplicates` afterwards.
    """

    model_config = ConfigDict(frozen=True)

    signatures_s: float
    duplicates_s: float
    candidate_pairs: int
    similar_pairs: int
    hot_buckets: int
    duplicates: int


@dataclass(frozen=True)
class BenchedDedupe:
    """The measurements of one deduplication, which ran in a separate process.

    Attributes:
        process: The process's seconds, processor time and peak memory, with interpreter, imports and JVM.
        assets: The seconds and counts of both assets.
        documents: Documents in the lake, without the batch that is added.
        added: Documents that were deduplicated: the batch, or all documents of a new lake.
        found: The share of the added copies that became duplicates; 1 is right. None where no copies were
            added.
    """

    process: BenchedProcess
    assets: BenchedAssets
    documents: int
    added: int
    found: float | None = None

    def figures(self) -> dict[str, float]:
        """Returns the figures of the bench by name; the unit is in the name."""
        process = {
            "process_s": self.process.seconds,
            "process_cpu_s": self.process.cpu_s,
            "peak_mb": self.process.peak_mb,
        }
        lake = {"documents": self.documents, "added": self.added}
        found = {} if self.found is None else {"found": self.found}
        return process | self.assets.model_dump() | lake | found


def bench_whole_lake(texts: list[str], folder: Path) -> BenchedDedupe:
    """Deduplicates a lake of new documents in a new process, and returns the measurements.

    Args:
        texts: One per document.
        folder: A folder for the lake.
    """
    lake = _lake(folder)
    lake.ensure()
    for at in range(0, len(texts), _CHUNK_DOCUMENTS):
        _add_documents(lake, pa.array(texts[at : at + _CHUNK_DOCUMENTS], pa.string()), at)
    _pass(lake)
    process, assets = _run_assets_apart(folder)
    return BenchedDedupe(process, assets, documents=len(texts), added=len(texts))


def bench_added_documents(documents: int, words: pa.StringArray, folder: Path) -> BenchedDedupe:
    """Adds 1% to a lake of short documents (60 to 100 words) that were deduplicated before.

    The lake's rows are written directly, in the form that the assets give them. A quarter of the batch are
    exact copies of documents in the lake, and a quarter are copies with one word replaced.

    Args:
        documents: How many documents the lake has before.
        words: A vocabulary to draw from.
        folder: A folder for the lake.

    Returns:
        The measurements. `found` counts only copies that share a band with their original and are similar
        enough.
    """
    lake, config = _lake(folder), MinHashConfig()
    lake.ensure()
    for at in range(0, documents, _CHUNK_DOCUMENTS):
        _add_documents(lake, _texts(at, min(_CHUNK_DOCUMENTS, documents - at), words), at)
    # In two passes: a row says which version of its input it was made from.
    read = {DOCUMENTS.name: lake.version(DOCUMENTS.name)}
    standing = [DUPLICATES.schema.empty_table()]
    for at in range(0, documents, _CHUNK_DOCUMENTS):
        texts = _texts(at, min(_CHUNK_DOCUMENTS, documents - at), words)
        rows = _rows(texts, at)
        batches = rows.select(["doc_id", "text", "text_sha256"]).to_batches()
        signed = pa.Table.from_batches(signature_batches(iter(batches), config), None)
        _append(lake, SIGNATURES, signed, read, config.config_hash)
        copies = np.arange(_COPY_EVERY - 1, len(texts), _COPY_EVERY)
        standing.append(_duplicates(rows, texts, copies - 1, copies, config))
    read |= {SIGNATURES.name: lake.version(SIGNATURES.name)}
    _append(lake, DUPLICATES, pa.concat_tables(standing), read, config.decision_hash)

    size = documents // 100
    originals = _texts(0, min(documents, _CHUNK_DOCUMENTS), words)
    # Each has its own original, and none of these is itself a copy.
    places = np.arange(size // 4) * _COPY_EVERY
    exact, copied = originals.take(pa.array(places)), originals.take(pa.array(places + 2))
    near = _one_word_replaced(copied)
    fresh = _texts(documents, size, words)
    fresh = fresh.filter(pa.array(np.arange(size) % _COPY_EVERY != _COPY_EVERY - 1))
    batch = pa.concat_arrays([exact, near, fresh])[:size]
    _add_documents(lake, batch, documents)
    _pass(lake)
    expected = len(exact) + int(_alike(copied, near, config).sum())
    before = lake.query("select count(*) as n from t", t=lake.delta(DUPLICATES.name))["n"][0].as_py()
    process, assets = _run_assets_apart(folder)
    found = (assets.duplicates - before) / expected
    return BenchedDedupe(process, assets, documents=documents, added=size, found=found)


def bench_vocabulary(texts: Iterator[list[str]]) -> pa.StringArray:
    """Returns the distinct words of real texts, sorted."""
    return pa.array(sorted({word for words in texts for word in words if word.isascii() and word.isalpha()}))


def _lake(folder: Path) -> Lake:
    return Lake(folder / "lake", SparkConfig(), folder / "spark", folder / "docs")


def _texts(first: int, count: int, words: pa.StringArray) -> pa.StringArray:
    """Returns `count` documents of the lake from number `first` on; the same at each call."""
    rng = np.random.default_rng([first, count])
    lengths = rng.integers(60, 101, count)
    drawn = words.take(pa.array(rng.integers(0, len(words), int(lengths.sum()))))
    offsets = pa.array(np.append(0, np.cumsum(lengths)), pa.int32())
    texts = pc.binary_join(pa.ListArray.from_arrays(offsets, drawn), " ")
    places = np.arange(count)
    copied = pa.array(np.where(places % _COPY_EVERY == _COPY_EVERY - 1, places - 1, places))
    copies = pa.array(places % _COPY_EVERY == _COPY_EVERY - 1)
    return pc.if_else(copies, _one_word_replaced(texts.take(copied)), texts)


def _one_word_replaced(texts: pa.StringArray) -> pa.StringArray:
    return pc.replace_substring_regex(texts, r"^(\S+ \S+ \S+ \S+ \S+ \S+ \S+ )\S+", r"\1replaced")


def _alike(left: pa.Array, right: pa.Array, config: MinHashConfig) -> npt.NDArray[np.bool_]:
    """Returns for each pair whether it shares a band and is similar enough."""
    texts = pa.concat_arrays([left, right])
    values = lsh_bands(minhash_signatures(texts, config), config).reshape(2, len(left), -1)
    places = np.arange(len(left))
    jaccard = shingle_jaccard(texts, places, places + len(left), config)
    return np.asarray((values[0] == values[1]).any(axis=1) & (jaccard >= config.jaccard_threshold))


def _duplicates(
    rows: pa.Table,
    texts: pa.Array,
    originals: npt.NDArray[np.int64],
    copies: npt.NDArray[np.int64],
    config: MinHashConfig,
) -> pa.Table:
    alike = _alike(texts.take(pa.array(originals)), texts.take(pa.array(copies)), config)
    originals, copies = originals[alike], copies[alike]
    ids = rows["doc_id"].combine_chunks()
    found = {
        "doc_id": ids.take(pa.array(copies)),
        "canonical_id": ids.take(pa.array(originals)),
        "matched_id": ids.take(pa.array(originals)),
        "jaccard": shingle_jaccard(texts, originals, copies, config),
        "method": pa.repeat("minhash", len(copies)),
        "OpenLineage_RunId": pa.repeat(_RUN, len(copies)),
    }
    return pa.table(found).cast(DUPLICATES.schema)


def _rows(texts: pa.Array, first: int) -> pa.Table:
    numbered = pa.table({"number": pa.array(np.arange(first, first + len(texts))), "text": texts})
    return Lake.query(_WRITTEN, texts=numbered)


def _add_documents(lake: Lake, texts: pa.Array, first: int) -> None:
    rows = _rows(texts, first)
    same = {"tenant": "bench", "source": "bench", "language": "en"}
    columns = {name: rows[name] for name in rows.column_names}
    columns |= {name: pa.repeat(value, len(texts)) for name, value in same.items()}
    columns["content_sha256"] = rows["text_sha256"]
    columns["pii_count"] = pa.array(np.zeros(len(texts), np.int32))
    _append(lake, DOCUMENTS, pa.table(columns), {}, "")


def _append(lake: Lake, table: Table, rows: pa.Table, read: dict[str, int], digest: str) -> None:
    """Commits rows; missing columns that may be null are filled with nulls."""
    if "OpenLineage_RunId" not in rows.column_names:
        rows = rows.append_column("OpenLineage_RunId", pa.repeat(_RUN, rows.num_rows))
    for field in table.schema:
        if field.nullable and field.name not in rows.column_names:
            rows = rows.append_column(field, pa.nulls(rows.num_rows, field.type))
    lineage = Lineage(
        run_id=_RUN,
        asset=table.name.replace(".", "/"),
        code_version=CODE_VERSION,
        config_digest=digest,
        inputs=read,
    )
    lake.append(table, rows.select(table.schema.names).cast(table.schema), lineage)


def _pass(lake: Lake) -> None:
    """Records that the gate passed, which the assets wait for."""
    record_audit(lake, DOCUMENTS.name, lake.version(DOCUMENTS.name), True, [], _RUN)


def _run_assets_apart(folder: Path) -> tuple[BenchedProcess, BenchedAssets]:
    done = run_benched("benchmarks.dedupe_lake", str(folder), PYTHONPATH=str(_CHECKOUT))
    return done, BenchedAssets.model_validate_json(done.output.splitlines()[-1])


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def bench_dedupe_assets(folder: Path) -> None:
    """Runs `silver/signatures` and `silver/duplicates`; prints their seconds and counts as a JSON object."""
    import dagster as dg

    from assets import silver

    lake = _lake(folder)
    given = {"lake": lake, "recipe": Recipe()}
    results: dict[str, dg.ExecuteInProcessResult] = {}

    def make(asset: dg.AssetsDefinition) -> None:
        results[asset.key.path[-1]] = dg.materialize([asset], resources=given)

    signatures_s, duplicates_s = (
        _timed(partial(make, asset)) for asset in (silver.signatures_asset, silver.duplicates_asset)
    )
    [made] = results["duplicates"].asset_materializations_for_node("silver__duplicates")
    counts = {name: made.metadata[name].value for name in ("candidate_pairs", "similar_pairs", "hot_buckets")}
    rows = lake.query("select count(*) as n from t", t=lake.delta(DUPLICATES.name))["n"][0].as_py()
    measured = BenchedAssets.model_validate(
        {**counts, "signatures_s": signatures_s, "duplicates_s": duplicates_s, "duplicates": rows}
    )
    sys.stdout.write(measured.model_dump_json() + "\n")


if __name__ == "__main__":
    bench_dedupe_assets(Path(sys.argv[1]))
