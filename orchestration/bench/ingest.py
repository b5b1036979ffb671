"""`bench ingest`: seconds per stage for files, and for rows at two sizes, which shows the growth."""

import json
import math
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from assets.sources.source_config import Source
from assets.sources.source_registry import SourceRegistry
from orchestration.bench.dedupe import installed_prose
from orchestration.bench.report import BenchResult, run_measured

_SMALL_ROWS = 10_000
_FILE_ROWS = 100_000
_SENTENCES = (4, 8)
_SENTENCE = re.compile(r"(?<=[.!?] )[A-Z][^.!?]{40,240}[a-z][.!?](?= )")
_UNTIL = "gold/chunks"
_GUARDED = {"silver_documents_gate": "documents", "gold_chunks_gate": "gold__chunks"}
"""The step of each gate, and the step of the asset that it guards."""


def bench_ingest(data: Path | None = None, rows: int = 100_000) -> BenchResult:
    """Runs everything from the source to `gold/chunks` and its gates, in a fresh state folder per source.

    Embeddings and the index are left out: `bench embed` measures the model, which would dominate.

    Args:
        data: A folder of files to ingest too, one document per file, such as MedQuAD.
        rows: Rows of the large lake; the small one has 10,000. Each row is a document of four to seven
            sentences of what the installed software says of itself, put together anew, in Parquet.

    Returns:
        For each source (`files`, `rows_N`) its documents, bytes, the seconds and documents a second of each
        step, the process's peak memory, and bytes that the lake takes a byte of the source. As ratios each
        gate's share of the time of the asset that it guards, and each step's growth: its seconds in the large
        lake over those in the small one, as a power of the rows' ratio (1 is proportional).
    """
    figures: dict[str, float] = {}
    ratios: dict[str, float] = {}
    seconds: dict[int, dict[str, float]] = {}
    if data is not None:
        _put("files", _ingested(Source(name="bench", location=str(data))), figures, ratios)
    sentences = pa.array(sorted(set(_sentences())), pa.string())
    for size in sorted({_SMALL_ROWS, rows}):
        with tempfile.TemporaryDirectory(prefix="headwater-bench-") as folder:
            _write_rows(Path(folder), size, sentences)
            source = Source(name="bench", location=folder, glob="*.parquet", text_column="text")
            seconds[size] = _put(f"rows_{size}", _ingested(source), figures, ratios)
    if rows > _SMALL_ROWS:
        for step, small_s in seconds[_SMALL_ROWS].items():
            growth = math.log(seconds[rows][step] / small_s) / math.log(rows / _SMALL_ROWS)
            ratios[f"growth_{step}"] = growth
    return BenchResult("ingest", figures, ratios)


def _put(
    name: str, measured: dict[str, float], figures: dict[str, float], ratios: dict[str, float]
) -> dict[str, float]:
    """Adds the measurements of one ingest to the figures and ratios, and returns the seconds per step."""
    steps = {
        step.removesuffix("_s"): value
        for step, value in measured.items()
        if step.endswith("_s") and step != "process_cpu_s"
    }
    figures |= {f"{name}_{figure}": value for figure, value in measured.items()}
    figures |= {f"{name}_{step}_documents_s": measured["documents"] / s for step, s in steps.items() if s}
    ratios |= {
        f"{name}_{gate}_to_asset": steps[gate] / steps[asset]
        for gate, asset in _GUARDED.items()
        if gate in steps
    }
    return {step: max(s, 0.01) for step, s in steps.items()}


def _ingested(source: Source) -> dict[str, float]:
    """Ingests one source in a new process and a new state folder, and returns what it took."""
    from orchestration.settings import Settings, open_lake

    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as home:
        settings = Settings(home=Path(home))
        SourceRegistry(settings.sources_file).add(source)
        done = run_measured(
            "orchestration.cli.main", "run", "--select", f'+key:"{_UNTIL}"', "--json", HEADWATER_HOME=home
        )
        steps: dict[str, float] = json.loads(done.output)["seconds"]
        lake = open_lake(settings)
        [counts] = lake.query(
            """
            select (select count(*) from raw) as documents, (select count(*) from quarantine) as quarantined,
                   (select count(*) from duplicates) as duplicates, (select count(*) from chunks) as chunks
            """,
            raw=lake.delta("bronze.raw_documents"),
            quarantine=lake.delta("silver.quarantine"),
            duplicates=lake.delta("silver.duplicates"),
            chunks=lake.delta("gold.chunks"),
        ).to_pylist()
        read, written = _size_bytes(Path(source.location)), _size_bytes(Path(settings.lake_root))
    return {
        **counts,
        "read_bytes": read,
        "written_bytes": written,
        "written_a_byte_read": written / read,
        "peak_mb": done.peak_mb,
        "process_s": done.seconds,
        "process_cpu_s": done.cpu_s,
        **{f"{step}_s": value for step, value in steps.items()},
    }


def _size_bytes(folder: Path) -> int:
    return sum((Path(parent) / name).stat().st_size for parent, _, names in os.walk(folder) for name in names)


def _sentences() -> Iterator[str]:
    for text in installed_prose():
        for paragraph in text.split("\n\n"):
            if paragraph.isascii():
                yield from _SENTENCE.findall(" ".join(paragraph.split()))


def _write_rows(folder: Path, rows: int, sentences: pa.StringArray) -> None:
    """Writes Parquet files of `id` and `text`: real sentences, combined at random with a fixed seed."""
    for first in range(0, rows, _FILE_ROWS):
        count = min(_FILE_ROWS, rows - first)
        rng = np.random.default_rng([first, count])
        lengths = rng.integers(*_SENTENCES, count)
        drawn = sentences.take(pa.array(rng.integers(0, len(sentences), int(lengths.sum()))))
        offsets = pa.array(np.append(0, np.cumsum(lengths)), pa.int32())
        texts = pc.binary_join(pa.ListArray.from_arrays(offsets, drawn), " ")
        ids = pa.array(np.arange(first, first + count)).cast(pa.string())
        pq.write_table(pa.table({"id": ids, "text": texts}), folder / f"{first:09}.parquet")
