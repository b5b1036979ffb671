"""`bench search`: its corpus is what it says, and a small run measures everything and keeps its index."""

import tempfile
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.search import floors, latency
from benchmarks.search.corpus import BenchCorpus
from benchmarks.search.line_chart import BenchLine, bench_chart_svg
from orchestration.settings import Settings
from retrieval.index.binary_copy import copied_vectors

DIMENSION = 384


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """With passages whose vectors are made up: to embed real ones takes minutes, and is tested elsewhere."""
    rng = np.random.default_rng(0)
    words = [f"word{i}" for i in range(500)]
    texts = [" ".join(rng.choice(words, size)) for size in [160] * 30 + [10] * 20]
    made = rng.normal(size=(len(texts), DIMENSION)).astype(np.float32)
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    with tempfile.TemporaryDirectory() as folder:
        bench = Path(folder) / "bench"
        bench.mkdir()
        table = {
            "text": texts,
            "asked": [size > 29 for size in range(len(texts))],
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(made.ravel()), DIMENSION),
        }
        pq.write_table(pa.table(table), bench / "passages.parquet")
        yield Path(folder)


def test_the_corpus_is_skewed_and_the_same_each_time(home: Path) -> None:
    corpus = BenchCorpus(12_000, 20, home / "bench")
    table = pa.Table.from_batches(corpus.batches())
    assert table.equals(pa.Table.from_batches(BenchCorpus(12_000, 20, home / "bench").batches()))
    assert table.num_rows == len(set(table["chunk_id"].to_pylist())) == 12_000
    sizes = Counter(table["tenant"].to_pylist())
    assert sizes["tenant-0"] == pytest.approx(6000, rel=0.05)
    assert sizes["tenant-1"] > 3 * sizes["tenant-5"] > 0
    assert np.linalg.norm(copied_vectors(table["vector"].combine_chunks()), axis=1) == pytest.approx(
        1, abs=1e-5
    )
    assert len(set(table["text"].to_pylist())) == 12_000
    # A changed chunk is the same chunk, of the same tenant, and says something else.
    (changed,) = corpus.batches(5000, 100, salt=3)
    same = table.slice(5000, 100)
    assert changed.column("chunk_id").equals(same["chunk_id"].combine_chunks())
    assert changed.column("tenant").equals(same["tenant"].combine_chunks())
    assert not set(changed.column("text").to_pylist()) & set(same["text"].to_pylist())


def test_a_small_run_measures_everything(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "_LOADED_S", 0.5)
    monkeypatch.setattr(latency, "_QUERIES", 30)
    monkeypatch.setattr(floors, "_installed", lambda name: False)
    said: list[str] = []
    result = latency.bench_search(
        Settings(home=home), chunks=2000, tenants=5, clients=2, progress=said.append
    )
    figures = result.figures
    assert figures["chunks"] == 2000
    assert figures["vector_recall@10"] > 0.9
    for mode in ("hybrid", "lexical", "vector"):
        for load in ("alone", "2_clients"):
            assert 0 < figures[f"{mode}_{load}_p50_ms"] <= figures[f"{mode}_{load}_p99_ms"]
            assert figures[f"{mode}_{load}_queries_s"] > 0
        assert 0 < figures[f"{mode}_processor_p50_ms"] <= figures[f"{mode}_processor_p95_ms"]
    assert figures["changing_errors"] == 0
    assert result.ratios["p95_while_changing_to_quiet"] > 0
    assert figures["build_server_memory_mb"] > 0
    assert figures["graph_mb"] == 0  # no tenant has chunks enough for one
    assert 0 < figures["chunks_mb"] < figures["database_mb"]
    assert any("faiss is not installed" in line for line in said)
    assert ET.fromstring((home / "bench" / "search.svg").read_text()).tag.endswith("svg")
    # Another run asks the same index.
    said.clear()
    again = latency.bench_search(Settings(home=home), 2000, tenants=5, clients=2, progress=said.append)
    assert any("of an earlier run" in line for line in said)
    assert again.figures["build_s"] == figures["build_s"]


def test_a_chart_names_every_line_that_has_points_and_draws_each_point() -> None:
    panels = {
        "a < b": [BenchLine("x", [(10, 1), (1000, 7)]), BenchLine("none", [])],
        "two": [BenchLine("y", [(5, 0)])],
    }
    chart = ET.fromstring(bench_chart_svg("chunks", panels))
    texts = [each.text for each in chart.iter() if each.tag.endswith("text")]
    assert {"a < b", "two", "x", "y", "chunks", "10", "100", "1,000"} <= set(texts)
    assert "none" not in texts
    # Markers of the panels, without those of ticks and legends.
    groups = [each for each in chart.iter() if (each.get("id") or "").startswith("axes_")]
    data_lines = [
        [use for use in line.iter() if use.tag.endswith("use")]
        for group in groups
        for line in group
        if (line.get("id") or "").startswith("line2d_")
    ]
    assert [len(markers) for markers in data_lines] == [2, 1]
    first, second = data_lines[0]
    assert float(first.get("x") or 0) < float(second.get("x") or 0)
    assert float(first.get("y") or 0) > float(second.get("y") or 0)  # y grows downwards in SVG
    assert bench_chart_svg("chunks", panels) == bench_chart_svg("chunks", panels)
