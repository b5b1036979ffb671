"""`bench ingest`: seconds per stage for a folder of files, and for rows of two sizes to show the growth.

`bench documents`: a folder to a release, first and again unchanged, beside LlamaIndex with the same embedder.
"""

import json
import math
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from assets.sources.source_config import Source
from assets.sources.source_registry import SourceRegistry
from benchmarks.dedupe import bench_prose
from orchestration.bench.report import BenchedProcess, BenchResult, measure_process, run_benched

if TYPE_CHECKING:
    from orchestration.settings import Settings

_SMALL_ROWS = 10_000
_FILE_ROWS = 100_000
_SENTENCES = (4, 8)
_SENTENCE = re.compile(r"(?<=[.!?] )[A-Z][^.!?]{40,240}[a-z][.!?](?= )")
_UNTIL = "gold/chunks"
_LEAST_S = 0.01
_GUARDED = {"silver_documents_gate": "documents", "gold_chunks_gate": "gold__chunks"}
"""The step of each gate, and the step of the asset that it guards."""

LLAMA_INDEX = (
    "llama-index-core==0.14.25",
    "llama-index-readers-file==0.7.0",
    "llama-index-embeddings-huggingface==0.8.0",
)
_LLAMA_INDEX_PROGRAM = Path(__file__).with_name("llama_index_ingest.py")
"""The packages of the environment beside ours, and the program that runs in it."""


def bench_ingest(data: Path | None = None, rows: int = 100_000) -> BenchResult:
    """Measures all steps from a source to `gold/chunks`, with their gates, in a new state folder per source.

    Embeddings and the index are left out, because the model would dominate the time; `bench embed` measures
    it.

    Args:
        data: A folder of files, such as MedQuAD, that is also ingested, one document per file.
        rows: Number of rows of the larger lake; the smaller one has 10,000. Each row is a document in Parquet
            with four to seven sentences from the texts of the installed software.

    Returns:
        For each source (`files`, `rows_N`): the number of documents and bytes, the seconds and documents per
        second of each step, the peak memory of the process, and the bytes of the lake per byte of the source.
        The ratios hold each gate's time divided by the time of the asset that it guards, and each step's
        growth: the exponent g for which seconds grow as rows**g between the two lakes (1 is proportional).
    """
    ingested: dict[str, _Ingested] = {}
    if data is not None:
        ingested["files"] = _ingested(Source(name="bench", location=str(data)))
    sentences = pa.array(sorted(set(_sentences())), pa.string())
    for size in sorted({_SMALL_ROWS, rows}):
        with tempfile.TemporaryDirectory(prefix="headwater-bench-") as folder:
            _write_rows(Path(folder), size, sentences)
            source = Source(name="bench", location=folder, glob="*.parquet", text_column="text")
            ingested[f"rows_{size}"] = _ingested(source)
    figures = {
        f"{name}_{key}": value for name, one in ingested.items() for key, value in one.figures().items()
    }
    ratios = {
        f"{name}_{key}": value for name, one in ingested.items() for key, value in one.gate_shares().items()
    }
    if rows > _SMALL_ROWS:
        larger = ingested[f"rows_{rows}"].seconds()
        for step, small_s in ingested[f"rows_{_SMALL_ROWS}"].seconds().items():
            # A step of less than 10 ms says nothing of its growth.
            grown = max(larger[step], _LEAST_S) / max(small_s, _LEAST_S)
            ratios[f"growth_{step}"] = math.log(grown) / math.log(rows / _SMALL_ROWS)
    return BenchResult("ingest", figures, ratios)


@dataclass(frozen=True)
class _Ingested:
    """One source, ingested in a process of its own."""

    counts: dict[str, int]
    """Documents, quarantined, duplicates and chunks."""
    read_bytes: int
    written_bytes: int
    process: BenchedProcess
    step_s: dict[str, float]

    def seconds(self) -> dict[str, float]:
        """Returns the seconds of each step, and of the whole process."""
        return {"process": self.process.seconds} | self.step_s

    def figures(self) -> dict[str, float]:
        documents, seconds = self.counts["documents"], self.seconds()
        return {
            **self.counts,
            "read_bytes": self.read_bytes,
            "written_bytes": self.written_bytes,
            "written_per_byte_read": self.written_bytes / self.read_bytes,
            "peak_mb": self.process.peak_mb,
            "process_cpu_s": self.process.cpu_s,
            **{f"{step}_s": value for step, value in seconds.items()},
            **{f"{step}_documents_s": documents / value for step, value in seconds.items() if value},
        }

    def gate_shares(self) -> dict[str, float]:
        """Returns the seconds of each gate as a share of those of the asset that it guards."""
        shares = {gate: asset for gate, asset in _GUARDED.items() if gate in self.step_s}
        return {f"{gate}_to_asset": self.step_s[gate] / self.step_s[asset] for gate, asset in shares.items()}


def _ingested(source: Source) -> _Ingested:
    """Ingests one source in a new process and a new state folder, and returns what it took."""
    from orchestration.settings import Settings, open_configured_lake

    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as home:
        settings = Settings(home=Path(home))
        SourceRegistry(settings.sources_file).add(source)
        done = run_benched(
            "orchestration.cli.main", "run", "--select", f'+key:"{_UNTIL}"', "--json", HEADWATER_HOME=home
        )
        steps: dict[str, float] = json.loads(done.output)["seconds"]
        lake = open_configured_lake(settings)
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
    return _Ingested(counts, read, written, done, steps)


def _size_bytes(folder: Path) -> int:
    return sum((Path(parent) / name).stat().st_size for parent, _, names in os.walk(folder) for name in names)


def _sentences() -> Iterator[str]:
    for text in bench_prose():
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


class NoLlamaIndex(RuntimeError):
    """The interpreter that was named can not run LlamaIndex, or the folder is none."""


def bench_documents(settings: "Settings", folder: Path, python: Path | None) -> BenchResult:
    """Ingests a folder in a new state folder, and then again unchanged; LlamaIndex takes turns with it.

    LlamaIndex reads with `SimpleDirectoryReader` and runs `IngestionPipeline` with `SentenceSplitter`, the
    same embedding model and a docstore that leaves out what it has seen. It keeps no lake, no gates and no
    search index, and splits the text that its readers give, with the tags of HTML.

    Args:
        settings: Whose embedder and further settings are measured; its state folder is left alone.
        folder: The documents.
        python: The interpreter of an environment with `LLAMA_INDEX`; None to measure Headwater alone.

    Returns:
        For each of the two, first and unchanged: seconds of the whole process, its processor seconds (without
        PostgreSQL's), the share of the cores' time that it left idle, and its chunks. Of Headwater also the
        seconds of each step; of LlamaIndex those of reading and of the pipeline. The ratios are LlamaIndex's
        seconds divided by Headwater's.

    Raises:
        NoLlamaIndex: The folder is none, or the interpreter can not import LlamaIndex.
    """
    from retrieval.store.postgres import Postgres

    if not folder.is_dir():
        raise NoLlamaIndex(f"there is no folder {folder}")
    if python is not None:
        _require_llama_index(python)
    figures, seconds = dict[str, float](), dict[str, float]()
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as scratch:
        home, docstore = Path(scratch) / "state", Path(scratch) / "docstore"
        ours = [sys.executable, "-m", "orchestration.cli.main", "ingest", str(folder), "--json"]
        theirs = [
            str(python),
            "-P",
            str(_LLAMA_INDEX_PROGRAM),
            str(folder),
            str(settings.recipe.embedder.model_path),
        ]
        try:
            for turn in ("first", "unchanged"):
                done = measure_process(ours, {"HEADWATER_HOME": str(home)})
                said = json.loads(done.output)
                figures |= _turn_figures(f"headwater_{turn}", done, said["funnel"]["chunks"], said["seconds"])
                seconds[f"headwater_{turn}"] = done.seconds
                if python is not None:
                    done = measure_process([*theirs, str(docstore)], {"HF_HUB_OFFLINE": "1"})
                    said = json.loads(done.output.splitlines()[-1])
                    figures |= _turn_figures(f"llama_index_{turn}", done, said["chunks"], said["seconds"])
                    seconds[f"llama_index_{turn}"] = done.seconds
        finally:
            Postgres(home, settings.postgres).remove()
    ratios = {
        f"llama_index_to_headwater_{turn}": seconds[f"llama_index_{turn}"] / seconds[f"headwater_{turn}"]
        for turn in ("first", "unchanged")
        if python is not None
    }
    return BenchResult("documents", figures, ratios)


def _require_llama_index(python: Path) -> None:
    looked = subprocess.run(
        [
            python,
            "-c",
            "import llama_index.core, llama_index.readers.file, llama_index.embeddings.huggingface",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if looked.returncode:
        raise NoLlamaIndex(
            f"{python} has no LlamaIndex ({looked.stderr.strip().rpartition(chr(10))[2]}). It wants an "
            f"environment of its own: `uv venv llama-index && uv pip install --link-mode copy --python "
            f"llama-index/bin/python {' '.join(LLAMA_INDEX)}`, and then --llama-index llama-index/bin/python"
        )


def _turn_figures(name: str, done: BenchedProcess, chunks: int, steps: dict[str, float]) -> dict[str, float]:
    cores = os.cpu_count() or 1
    return {
        f"{name}_s": done.seconds,
        f"{name}_cpu_s": done.cpu_s,
        f"{name}_idle_share": max(0.0, 1 - done.cpu_s / (done.seconds * cores)),
        f"{name}_peak_mb": done.peak_mb,
        f"{name}_chunks": chunks,
        **{f"{name}_{step}_s": value for step, value in steps.items()},
    }
