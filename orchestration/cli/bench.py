"""`headwater bench`: Headwater and the alternatives, measured in the same run."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestration.cli.terminal import Json, console, print_progress, quiet_terminal, read_command_settings

if TYPE_CHECKING:
    from orchestration.bench.report import BenchResult

app = typer.Typer(no_args_is_help=True, help="Measure Headwater and the alternatives in the same run.")


def _print(result: "BenchResult", json_: bool) -> None:
    if json_:
        sys.stdout.write(result.to_json() + "\n")
    else:
        console.print(result)


@app.command("chunking")
def bench_chunking_command(
    data: Annotated[Path, typer.Option(help="A folder in the layout of chunking_evaluation.")],
    json_: Json = False,
) -> None:
    """Compare Headwater's chunker with a recursive splitter of equal sizes, by the recall of answers' spans.

    Example: `headwater bench chunking --data ~/chunking-eval`
    """
    from orchestration.bench.chunking import bench_chunking

    settings = read_command_settings()
    with quiet_terminal():
        result = bench_chunking(settings, data)
    _print(result, json_)


@app.command("dedupe")
def bench_dedupe_command(
    rows: Annotated[int, typer.Option(min=10_000, help="Documents in the largest lake.")] = 100_000,
    json_: Json = False,
) -> None:
    """Compare deduplication with datasketch, and measure adding 1% to lakes of several sizes.

    Example: `headwater bench dedupe --json`
    """
    from orchestration.bench.dedupe import bench_dedupe

    with quiet_terminal():
        result = bench_dedupe(largest=rows)
    _print(result, json_)


@app.command("embed")
def bench_embed_command(
    data: Annotated[
        Path | None, typer.Option(help="A folder in BEIR's layout, on which ranking is measured too.")
    ] = None,
    json_: Json = False,
) -> None:
    """Compare documents embedded per second with sentence-transformers, and what the speed costs in ranking.

    Example: `headwater bench embed --data ~/scifact`
    """
    from orchestration.bench.embed import bench_embedding

    with quiet_terminal():
        result = bench_embedding(read_command_settings(), data)
    _print(result, json_)


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

    Example: `headwater bench html --data /usr/share/doc/python3.11/html`
    """
    from orchestration.bench.html import bench_html

    with quiet_terminal():
        result = bench_html(data.expanduser(), pages)
    _print(result, json_)


@app.command("ingest")
def bench_ingest_command(
    data: Annotated[Path | None, typer.Option(help="A folder of files to ingest as well.")] = None,
    rows: Annotated[int, typer.Option(min=10_000, help="Documents in the larger lake.")] = 100_000,
    json_: Json = False,
) -> None:
    """Measure the seconds per stage from the source to chunks, for lakes of two sizes.

    Example: `headwater bench ingest --data ~/medquad --rows 1000000 --json`
    """
    from orchestration.bench.ingest import bench_ingest

    with quiet_terminal():
        result = bench_ingest(data, rows)
    _print(result, json_)


@app.command("quality")
def bench_quality_command(json_: Json = False) -> None:
    """Measure how many injected defects are caught, and how many sound documents are stopped.

    Example: `headwater bench quality`
    """
    from orchestration.bench.quality import bench_quality

    with quiet_terminal():
        result = bench_quality()
    _print(result, json_)


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

    Example: `headwater bench search --chunks 10000 --tenants 20 --clients 4`
    """
    from orchestration.bench.search import bench_search

    settings = read_command_settings()
    with quiet_terminal():
        result = bench_search(settings, chunks, tenants, clients, print_progress)
    _print(result, json_)
