"""`python -m benchmarks`: Headwater and the alternatives, measured in the same run."""

from pathlib import Path
from typing import Annotated

import typer

from orchestration.cli.bench import print_bench
from orchestration.cli.main import run_commands
from orchestration.cli.terminal import Json, print_progress, quiet_terminal, read_command_settings

app = typer.Typer(no_args_is_help=True, help="Measure Headwater and the alternatives in the same run.")


@app.command("chunking")
def bench_chunking_command(
    data: Annotated[Path, typer.Option(help="A folder in the layout of chunking_evaluation.")],
    json_: Json = False,
) -> None:
    """Compare Headwater's chunker with a recursive splitter of equal sizes, by the recall of answers' spans.

    Example: `python -m benchmarks chunking --data ~/chunking-eval`
    """
    from benchmarks.chunking import bench_chunking

    settings = read_command_settings("made")
    with quiet_terminal():
        result = bench_chunking(settings, data)
    print_bench(result, json_)


@app.command("dedupe")
def bench_dedupe_command(
    rows: Annotated[int, typer.Option(min=10_000, help="Documents in the largest lake.")] = 100_000,
    json_: Json = False,
) -> None:
    """Compare deduplication with datasketch, and measure adding 1% to lakes of several sizes.

    Example: `python -m benchmarks dedupe --json`
    """
    from benchmarks.dedupe import bench_dedupe

    with quiet_terminal():
        result = bench_dedupe(largest=rows)
    print_bench(result, json_)


@app.command("documents")
def bench_documents_command(
    folder: Annotated[Path, typer.Argument(help="The documents, in files.")],
    llama_index: Annotated[
        Path | None,
        typer.Option(help="The Python of an environment with LlamaIndex, which is measured beside it."),
    ] = None,
    json_: Json = False,
) -> None:
    """Measure the ingest of a folder, first and unchanged, per step, beside LlamaIndex with our embedder.

    Example: `python -m benchmarks documents ~/docs --llama-index ~/llama-index/bin/python`
    """
    from benchmarks.ingest import bench_documents

    settings = read_command_settings("made")
    with quiet_terminal():
        result = bench_documents(settings, folder.expanduser(), llama_index and llama_index.expanduser())
    print_bench(result, json_)


@app.command("html")
def bench_html_command(
    data: Annotated[
        Path,
        typer.Option(help="A folder of documentation, or of articles as in Scrapinghub's benchmark."),
    ],
    pages: Annotated[int, typer.Option(min=1, help="How many pages of each maker to read.")] = 200,
    json_: Json = False,
) -> None:
    """Compare how much of the main content of web pages is kept, and how fast, by Headwater and trafilatura.

    Example: `python -m benchmarks html --data /usr/share/doc/python3.11/html`
    """
    from benchmarks.html import bench_html

    with quiet_terminal():
        result = bench_html(data.expanduser(), pages)
    print_bench(result, json_)


@app.command("ingest")
def bench_ingest_command(
    data: Annotated[Path | None, typer.Option(help="A folder of files to ingest as well.")] = None,
    rows: Annotated[int, typer.Option(min=10_000, help="Documents in the larger lake.")] = 100_000,
    json_: Json = False,
) -> None:
    """Measure the seconds per stage from the source to chunks, for lakes of two sizes.

    Example: `python -m benchmarks ingest --data ~/medquad --rows 1000000 --json`
    """
    from benchmarks.ingest import bench_ingest

    with quiet_terminal():
        result = bench_ingest(data, rows)
    print_bench(result, json_)


@app.command("injections")
def bench_injections_command(
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many passages.")] = None,
    json_: Json = False,
) -> None:
    """Count how often the configured engines do what 30 injected passages order them to.

    Beside them is a model that obeys every order, whose replies are checked as any generator's.

    Example: `HEADWATER_GENERATOR__MODEL=~/models/qwen python -m benchmarks injections`
    """
    from benchmarks.injections import bench_injections

    settings = read_command_settings("made")
    with quiet_terminal():
        result = bench_injections(settings, limit)
    print_bench(result, json_)


@app.command("quality")
def bench_quality_command(json_: Json = False) -> None:
    """Measure how many injected defects are found, and how many sound documents are quarantined or unfit.

    Example: `python -m benchmarks quality --json`
    """
    from benchmarks.quality import bench_quality

    with quiet_terminal():
        result = bench_quality()
    print_bench(result, json_)


@app.command("router")
def bench_router_command(
    data: Annotated[
        Path, typer.Option(help="A folder with questions.jsonl (`text`, `scores`) and models.json (prices).")
    ],
    json_: Json = False,
) -> None:
    """Measure what answering as well as the best model costs, with each question routed to one of many.

    Example: `python -m benchmarks router --data ~/router`
    """
    from benchmarks.router import bench_router

    settings = read_command_settings("made")
    with quiet_terminal():
        result = bench_router(settings, data.expanduser())
    print_bench(result, json_)


@app.command("search")
def bench_search_command(
    chunks: Annotated[int, typer.Option(min=1000, help="How many chunks the index holds.")] = 100_000,
    tenants: Annotated[
        int, typer.Option(min=1, help="How many tenants share them; the first has half.")
    ] = 100,
    clients: Annotated[int, typer.Option(min=1, help="How many clients search at once.")] = 8,
    json_: Json = False,
) -> None:
    """Compare latency, recall and throughput of each search mode with bm25s and faiss.

    Example: `python -m benchmarks search --chunks 10000 --tenants 20 --clients 4`
    """
    from benchmarks.search.latency import bench_search

    settings = read_command_settings("made")
    with quiet_terminal():
        result = bench_search(settings, chunks, tenants, clients, print_progress)
    print_bench(result, json_)


if __name__ == "__main__":
    run_commands(app)
