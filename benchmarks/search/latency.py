"""`bench search`: latency, throughput and recall with many tenants, many clients and a changing index."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np
import numpy.typing as npt
import psutil

from benchmarks.search import floors as search_floors
from benchmarks.search.corpus import BenchCorpus, BenchQuery, bench_chunk_id
from benchmarks.search.line_chart import BenchLine, bench_chart_svg
from common.lineage import Lineage
from orchestration.bench.report import BenchResult, bench_machine_description
from retrieval.embedding.config import EmbedderConfig
from retrieval.index.index import Index, IndexState
from retrieval.index.types import IndexReleaseDetails
from retrieval.search.searcher import RetrievalMode, Searcher
from retrieval.store.postgres import Postgres, PostgresConfig, fetch_postgres_value

if TYPE_CHECKING:
    from orchestration.settings import Settings

_K = 10
_MODES: tuple[RetrievalMode, ...] = get_args(RetrievalMode)
_MODEL = "bench"
_LINEAGE = Lineage(run_id="", asset="serving/index", code_version="", config_digest="bench", inputs={})
_DETAILS = IndexReleaseDetails(
    metrics={}, versions={}, model_digest=_MODEL, embedder=EmbedderConfig(), run_id="bench"
)
_QUERIES = 400
_RECALL_QUERIES = 100
"""Queries whose vectors are also compared with every chunk of their tenant."""
_LOADED_S = 20.0
"""Seconds that the clients search in each mode."""
_CHANGED = 0.01
"""The share of the chunks that is added, changed or deleted, a third each."""


def bench_search(
    settings: "Settings",
    chunks: int = 100_000,
    tenants: int = 100,
    clients: int = 8,
    progress: Callable[[str], None] = print,
) -> BenchResult:
    """Builds an index of `chunks` chunks in a separate server and measures searches in it.

    A search's time is that of the call of `Searcher.search`, under row-level security. The query's vector is
    given, so its embedding is not included. The index is kept in the state folder, and later runs only search
    it; they repeat the build's figures from the run that built it.

    Args:
        settings: The settings of the state folder, the server and the search.
        chunks: How many chunks the index holds.
        tenants: How many tenants share them; the first has half of the chunks, see `BenchCorpus`.
        clients: How many clients search at once.
        progress: Called with a line for each stage.

    Returns:
        Seconds of the build, the peak memory of the server, sizes, and the recall of the vector search
        against an exact one. For each mode: the latency of one client at the first and at the second search
        of each query, the latency and queries per second of all clients at once, and the processor time per
        query; the same while one chunk in a hundred changes. As floors the figures of bm25s and faiss, which
        have no tenants, transactions or changes.
    """
    home = settings.home / "bench"
    folder = home / f"search-{chunks}-{tenants}"
    corpus = BenchCorpus(chunks, tenants, home)
    queries = corpus.queries(_QUERIES)
    config = PostgresConfig(pool_size=clients + 2, server=settings.postgres.server)
    postgres = Postgres(folder, config)
    try:
        index = Index(postgres)
        state, figures = _built(index, postgres, corpus, folder, progress)
        searcher = Searcher(postgres, settings.recipe.search)
        figures |= {"chunks": float(chunks), "tenants": float(tenants)} | _sizes(postgres, state)
        figures[f"vector_recall@{_K}"] = _recall(searcher, queries[:_RECALL_QUERIES])
        ratios: dict[str, float] = {}
        for mode in _MODES:
            first = _ask(searcher, queries, mode, 1, None)  # pages have yet to be read
            alone = _ask(searcher, queries, mode, 1, None)
            used = _processor_ms(postgres, searcher, queries, mode)
            figures |= {f"{mode}_processor_p{percent}_ms": used.percentile(percent) for percent in (50, 95)}
            together = _ask(searcher, queries, mode, clients, _LOADED_S)
            for name, load in (("first", first), ("alone", alone), (f"{clients}_clients", together)):
                figures |= load.figures(f"{mode}_{name}")
                progress(f"{mode}, {name}: {load}")
        changed, ratios["p95_while_changing_to_quiet"] = _while_changing(
            index, postgres, searcher, corpus, queries, state, clients, progress
        )
        figures |= changed
    finally:
        postgres.stop()
    floors = search_floors.bench_search_floors(corpus, queries, _K, progress)
    figures |= floors
    for mode, floor in (("lexical", "bm25s"), ("vector", "faiss")):
        if f"{floor}_p50_ms" in floors:
            ratios[f"{mode}_p50_to_{floor}"] = figures[f"{mode}_alone_p50_ms"] / floors[f"{floor}_p50_ms"]
    result = BenchResult("search", figures, ratios)
    (folder / "result.json").write_text(result.to_json())
    progress(f"plot: {_plotted(home)}")
    return result


@dataclass(frozen=True)
class _Load:
    """Searches that ended: milliseconds each, seconds all together, and the errors there were."""

    milliseconds: npt.NDArray[np.float64]
    seconds: float
    errors: list[str] = field(default_factory=list)

    def percentile(self, percent: float) -> float:
        return float(np.percentile(self.milliseconds, percent))

    def figures(self, name: str) -> dict[str, float]:
        values = {f"{name}_p{percent}_ms": self.percentile(percent) for percent in (50, 95, 99)}
        return values | {f"{name}_queries_s": len(self.milliseconds) / self.seconds}

    def __str__(self) -> str:
        shown = ", ".join(f"p{percent} {self.percentile(percent):.1f} ms" for percent in (50, 95, 99))
        return f"{shown}, {len(self.milliseconds) / self.seconds:.0f} queries/s"


def _ask(
    searcher: Searcher,
    queries: list[BenchQuery],
    mode: RetrievalMode,
    clients: int,
    seconds: float | None,
    stop: threading.Event | None = None,
) -> _Load:
    """Lets clients ask, each the same queries in another order: all once, or until the time or `stop`."""
    ended = stop or threading.Event()

    def client(number: int) -> tuple[list[float], list[str]]:
        taken, errors = [], []
        order = np.random.default_rng(number).permutation(len(queries))
        while True:
            for query in (queries[place] for place in order):
                began = time.perf_counter()
                try:
                    searcher.search(query.tenant, query.text, query.vector, _K, mode, model_digest=_MODEL)
                except Exception as error:  # every one is counted, and none ends the others
                    errors.append(f"{type(error).__name__}: {error}")
                taken.append(1000 * (time.perf_counter() - began))
                if ended.is_set():
                    return taken, errors
            if seconds is None and stop is None:
                return taken, errors

    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        asked = [pool.submit(client, number) for number in range(clients)]
        if seconds is not None:
            time.sleep(seconds)
            ended.set()
        found = [each.result() for each in asked]
    return _Load(
        np.array([each for taken, _ in found for each in taken]),
        time.perf_counter() - began,
        [error for _, errors in found for error in errors],
    )


def _built(
    index: Index, postgres: Postgres, corpus: BenchCorpus, folder: Path, progress: Callable[[str], None]
) -> tuple[IndexState, dict[str, float]]:
    record = folder / "build.json"
    name = f"{corpus.chunks}/{corpus.tenants}"
    state = index.state(_MODEL, name)
    if state is not None and record.is_file():
        progress(f"{folder} holds the index of an earlier run")
        return state, json.loads(record.read_text())
    with postgres.owner():
        pass  # the server runs
    progress(f"building the index of {corpus.chunks:,} chunks")
    began = time.perf_counter()
    with _most_memory(postgres) as memory:
        state = index.build(_MODEL, name, 384, corpus.batches(), _LINEAGE)
    build_s = time.perf_counter() - began
    live = index.live()
    index.release(f"r{state.generation}", state, live.release_id if live else None, _DETAILS)
    figures = {
        "build_s": build_s,
        "build_server_memory_mb": max(memory),
        "build_load_average": float(bench_machine_description()["load_average"]),
    }
    record.write_text(json.dumps(figures))
    return state, figures


@contextmanager
def _most_memory(postgres: Postgres) -> Iterator[list[float]]:
    """Samples the memory of the server once per second; shared pages are counted once."""
    server, found, ended = _server(postgres), [0.0], threading.Event()

    def look() -> None:
        while not ended.wait(1):
            total = 0
            for process in (server, *server.children()):
                try:
                    total += process.memory_full_info().pss
                except (psutil.NoSuchProcess, psutil.AccessDenied):
                    continue
            found.append(total / 1e6)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield found
    finally:
        ended.set()
        watcher.join()


def _server(postgres: Postgres) -> psutil.Process:
    folder = postgres.server.data if postgres.server else Path()
    return psutil.Process(int((folder / "postmaster.pid").read_text().splitlines()[0]))


def _processor_ms(
    postgres: Postgres, searcher: Searcher, queries: list[BenchQuery], mode: RetrievalMode
) -> _Load:
    """Measures the processor time of each query, in this process and in the server."""
    server = [Path(f"/proc/{process.pid}/schedstat") for process in _server(postgres).children()]

    def used_s() -> float:
        # Its first number is in nanoseconds; what psutil reads is in hundredths of a second.
        busy_ns = sum(int(file.read_text().split()[0]) for file in server if file.exists())
        return time.process_time() + busy_ns / 1e9

    taken = []
    for query in queries:
        before = used_s()
        searcher.search(query.tenant, query.text, query.vector, _K, mode, model_digest=_MODEL)
        taken.append(1000 * (used_s() - before))
    return _Load(np.array(taken), sum(taken) / 1000)


def _sizes(postgres: Postgres, state: IndexState) -> dict[str, float]:
    """Megabytes: a generation's HNSW graphs, its rows with every index, its postings, and the database."""
    chunks, postings = (f"headwater.{table}_g{state.generation}" for table in ("chunks", "postings"))
    graph_of = (
        "SELECT coalesce(sum(pg_relation_size(i.indexrelid)), 0) "
        "FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
        "JOIN pg_am a ON a.oid = c.relam WHERE a.amname = 'hnsw' AND i.indrelid = %s::regclass"
    )
    with postgres.owner() as connection:
        sizes = {
            "graph_mb": fetch_postgres_value(connection, graph_of, chunks),
            "chunks_mb": fetch_postgres_value(
                connection, "SELECT pg_total_relation_size(%s::regclass)", chunks
            ),
            "postings_mb": fetch_postgres_value(
                connection, "SELECT pg_total_relation_size(%s::regclass)", postings
            ),
            "database_mb": fetch_postgres_value(connection, "SELECT pg_database_size(current_database())"),
        }
    return {name: float(size_bytes) / 1e6 for name, size_bytes in sizes.items()}


def _recall(searcher: Searcher, queries: list[BenchQuery]) -> float:
    """The mean share of the true nearest `_K` chunks, or all of a tenant's, that the vector search finds."""
    shares = []
    for query in queries:
        asked = (query.tenant, query.text, query.vector, _K)
        found = searcher.search(*asked, "vector", model_digest=_MODEL)
        true = searcher.exact_neighbours(query.tenant, query.vector, _K, model_digest=_MODEL)
        both = {hit.chunk_id for hit in found} & {hit.chunk_id for hit in true}
        shares.append(len(both) / max(1, len(true)))
    return float(np.mean(shares))


def _while_changing(
    index: Index,
    postgres: Postgres,
    searcher: Searcher,
    corpus: BenchCorpus,
    queries: list[BenchQuery],
    state: IndexState,
    clients: int,
    progress: Callable[[str], None],
) -> tuple[dict[str, float], float]:
    """Changes a part of the index twice, and keeps house after each, while clients go on asking.

    The second round puts its rows where those of the first were: what the database grows by then is what
    maintenance does not give back.

    Returns:
        Figures, and the 95th percentile of a hybrid search meanwhile in relation to the same clients alone.
    """
    quiet = _ask(searcher, queries, "hybrid", clients, _LOADED_S)
    stop = threading.Event()
    figures = {}
    began = time.perf_counter()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(_ask, searcher, queries, "hybrid", clients, None, stop)
        try:
            size_mb = _sizes(postgres, state)["database_mb"]
            for turn in ("first", "second"):
                state = _change(index, corpus, state)
                live = index.live()
                index.release(f"e{state.epoch}", state, live.release_id if live else None, _DETAILS)
                index.prune([])
                index.maintain()
                grown_mb = _sizes(postgres, state)["database_mb"] - size_mb
                figures[f"{turn}_change_growth_mb"] = grown_mb
                size_mb += grown_mb
                progress(f"{turn} change and maintenance: {time.perf_counter() - began:.0f} s")
        finally:
            stop.set()
        load = asked.result()
    figures |= load.figures(f"changing_{clients}_clients")
    figures |= {"changing_s": load.seconds, "changing_errors": float(len(load.errors))}
    for error in sorted(set(load.errors))[:5]:
        progress(f"error: {error}")
    return figures, load.percentile(95) / quiet.percentile(95)


def _change(index: Index, corpus: BenchCorpus, state: IndexState) -> IndexState:
    """Adds, changes and deletes a third of `_CHANGED` each; what, depends on the epoch."""
    part = max(1, round(corpus.chunks * _CHANGED / 3))
    added = corpus.batches(corpus.chunks + state.epoch * part, part)
    first = 2 * state.epoch * part % max(1, corpus.chunks - 2 * part)
    changed = corpus.batches(first, part, salt=state.epoch)
    removed = [bench_chunk_id(number) for number in range(first + part, first + 2 * part)]
    return index.apply(state, [*added, *changed], removed, _LINEAGE)


def _plotted(home: Path) -> Path:
    """Draws latency and recall by the number of chunks, for every size that was measured in this folder."""
    results = [json.loads(file.read_text())["figures"] for file in home.glob("search-*/result.json")]
    results.sort(key=lambda figures: figures["chunks"])
    latency = [
        BenchLine(mode, [(each["chunks"], each[f"{mode}_alone_p95_ms"]) for each in results])
        for mode in _MODES
    ] + [
        BenchLine(floor, [(r["chunks"], r[f"{floor}_p95_ms"]) for r in results if f"{floor}_p95_ms" in r])
        for floor in search_floors.FLOOR_NAMES
    ]
    recall = [
        BenchLine(name, [(each["chunks"], each[figure]) for each in results if figure in each])
        for name, figure in (("vector", f"vector_recall@{_K}"), ("faiss", f"faiss_recall@{_K}"))
    ]
    file = home / "search.svg"
    file.write_text(
        bench_chart_svg(
            "chunks", {"95th percentile, ms": latency, f"recall@{_K} of the vector search": recall}
        )
    )
    return file
