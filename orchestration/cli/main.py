"""The `headwater` command line. What takes time to import is imported by the command that needs it."""

import errno
import os
import shutil
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from orchestration.cli import answers, bench, evaluate, services, source
from orchestration.cli.terminal import (
    AsOf,
    Groups,
    Json,
    Tenant,
    console,
    log,
    print_json,
    print_table,
    progress,
    read_settings,
    working,
)

if TYPE_CHECKING:
    from orchestration.settings import Settings

app = typer.Typer(
    name="headwater",
    help="A lakehouse, a cited retrieval index and training sets from one heap of documents.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
_FULL_BYTES = 1 << 20
"""A disk with less room than that is full."""


def main() -> None:
    """Runs the command line: an error is one message and exit code 1, never a traceback."""
    try:
        app()
    except Exception as error:
        log.print(f"[bold red]error:[/] {_message(error)}", soft_wrap=True)
        _keep_traceback()
        sys.exit(1)


def _message(error: Exception) -> str:
    from rich.markup import escape

    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    text = text or type(error).__name__
    refused = isinstance(error, OSError) and error.errno in _NO_ROOM
    # What a full disk was in the way of says so in its own words, or not at all.
    if refused or (_home().is_dir() and shutil.disk_usage(_home()).free < _FULL_BYTES):
        text += (
            f"\nthe disk that holds {_home()} is full or takes no more: make room, or name "
            "another state folder with HEADWATER_HOME; `headwater run` goes on from what was committed"
        )
    return escape(text)


def _home() -> Path:
    """The state folder, also where the settings can not be read."""
    return Path(os.environ.get("HEADWATER_HOME", ".headwater")).absolute()


def _keep_traceback() -> None:
    """Where the state folder can be written, the traceback goes to its log: useful, and not in the way."""
    if os.environ.get("HEADWATER_DEBUG"):
        log.print_exception()
        return
    home = _home()
    if not home.is_dir() or not os.access(home, os.W_OK):
        return
    with suppress(OSError):  # a full disk is what it may have to tell of
        (home / "logs").mkdir(exist_ok=True)
        with (home / "logs" / "errors.log").open("a", encoding="utf-8") as file:
            file.write(f"$ {' '.join(sys.argv)}\n{traceback.format_exc()}\n")
        log.print(f"[dim]traceback in {home / 'logs' / 'errors.log'}[/]", soft_wrap=True)


@app.command()
def demo(json_: Json = False) -> None:
    """Build a lake from the software installed beside it, then ask, cite and trace.

    Example: `headwater demo`
    """
    from orchestration.cli.render import answer_text, funnel_line, trace_tree
    from orchestration.operations.demo import demo as run_demo

    settings = read_settings()
    with working():
        result = run_demo(settings, progress)
    if json_:
        print_json(result)
        return
    console.print(funnel_line(result["funnel"]))
    metrics = result["metrics"]
    console.print(
        f"release [bold]{result['release']}[/]: nDCG@10 {metrics['ndcg@10']:.3f}, "
        f"recall@10 {metrics['recall@10']:.3f} on {metrics['questions']:.0f} questions\n"
    )
    for answer in result["answers"]:
        console.print(answer_text(answer["question"], answer))
    cited = next((answer for answer in result["answers"] if answer["citations"]), None)
    if cited is not None:
        console.print(f"[bold]headwater trace {cited['answer_id']} --verify[/]")
        console.print(trace_tree(_trace(settings, cited["answer_id"], verify=True)))
    console.print('Next: `headwater ask "…"`, `headwater sql "show tables"`, `headwater up`')


@app.command()
def ingest(
    paths: Annotated[list[str], typer.Argument(help="Folders, files or URIs.")],
    tenant: Tenant = "default",
    json_: Json = False,
) -> None:
    """Add folders as sources and bring everything up to date with them.

    Example: `headwater ingest ~/my-docs && headwater ask "…"`
    """
    from assets.sources.registry import SourceRegistry
    from orchestration.cli.render import funnel_line
    from orchestration.operations.ingest import add_paths, build

    settings = read_settings()
    add_paths(SourceRegistry(settings.sources_file), paths, tenant)
    with working():
        result = build(settings, progress)
    if json_:
        print_json(result)
    else:
        console.print(funnel_line(result["funnel"]))
        console.print(f"live: release [bold]{result['release']}[/]")


@app.command()
def run(
    select: Annotated[
        str | None, typer.Option(help='Only these assets, e.g. `key:"silver/documents"+`.')
    ] = None,
    accept_shrink: Annotated[
        bool, typer.Option("--accept-shrink", help="Take out what is gone, however much it is.")
    ] = False,
    json_: Json = False,
) -> None:
    """Bring the lake, the index and the release up to date: what the UI's Materialize button does.

    Example: `headwater run --select 'key:"gold/chunks"+'`
    """
    from orchestration.operations.runs import RunFailed, execute

    settings = read_settings()
    if accept_shrink:
        settings = settings.model_copy(update={"max_shrink": 1.0})
    with working():
        outcome = execute(settings, select, progress)
    if json_:
        print_json({"run_id": outcome.run_id, "seconds": outcome.seconds, "failures": outcome.failures})
    if outcome.failures:
        raise RunFailed("\n".join(outcome.failures))
    if not json_:
        print_table([{"step": step, "seconds": seconds} for step, seconds in outcome.seconds.items()])


@app.command()
def ask(
    question: Annotated[str, typer.Argument(help="In plain words.")],
    tenant: Tenant = "default",
    group: Groups = None,
    as_of: AsOf = None,
    json_: Json = False,
) -> None:
    """Answer a question from the live release, or from an earlier one, with citations.

    Example: `headwater ask "How do I pin a dependency?" --as-of 2026-03-01`
    """
    from orchestration.cli.render import answer_text
    from orchestration.operations.ask import open_query_service

    settings = read_settings()
    with working():
        service = open_query_service(settings)
        at = service.release_as_of(as_of) if as_of else None
        answer = service.ask(question, tenant, at, group or ()).to_dict()
    if json_:
        print_json(answer)
    else:
        console.print(answer_text(question, answer))


@app.command()
def search(
    query: Annotated[str, typer.Argument(help='Words, "a phrase in quotes", -word to leave out.')],
    k: Annotated[int, typer.Option("--k", help="How many chunks.")] = 10,
    mode: Annotated[
        Literal["hybrid", "lexical", "vector", "reranked"] | None,
        typer.Option(help="Which lists; reranked where a reranker is configured, else hybrid."),
    ] = None,
    tenant: Tenant = "default",
    group: Groups = None,
    as_of: AsOf = None,
    explain: Annotated[
        bool,
        typer.Option("--explain", help="Say how vectors were compared, and why; JSON: `plan` and `hits`."),
    ] = False,
    json_: Json = False,
) -> None:
    """Find the chunks that speak to a query; a chunk must hold what is in quotes, and not what has a minus.

    Example: `headwater search "structured logging" --k 5 --mode lexical`
    """
    from dataclasses import asdict

    from orchestration.operations.ask import open_query_service
    from retrieval.rerank.reranking import RerankedHits
    from retrieval.search.vector_search import VectorSearchPlan

    settings = read_settings()
    plans: list[VectorSearchPlan] = []
    looks: list[RerankedHits] = []
    with working():
        service = open_query_service(settings)
        mode = mode or service.default_mode
        at = service.release_as_of(as_of) if as_of else None
        hits = service.search(query, k, mode, tenant, at, group or (), plans.append, looks.append)
    plan = {
        "mode": mode,
        "asked": k,
        "found": len(hits),
        "vector": asdict(plans[0]) if plans else None,
        "reranked": looks[0].summary() if looks else None,
    }
    names = ("rank", "score", "chunk_id", "doc_id", "uri", "char_start", "char_end", "text")
    rows = [{name: getattr(hit, name) for name in names} for hit in hits]
    if len(hits) < k:
        reason = f"{tenant} has no more" if plans else "no other holds a word of the query"
        progress(f"{len(hits)} of the {k} chunks asked for: {reason}")
    if json_:
        print_json({"plan": plan, "hits": rows} if explain else rows)
        return
    shown = [
        {
            "rank": r["rank"],
            "score": f"{r['score']:.3f}",
            "uri": r["uri"],
            "text": " ".join(r["text"].split())[:160],
        }
        for r in rows
    ]
    print_table(shown)
    if explain and looks:
        console.print(f"second look: {looks[0].explanation()}", soft_wrap=True)
    if explain and plans:
        console.print(f"vectors: {plans[0].method}; {plans[0].why}", soft_wrap=True)
        console.print(", ".join(f"{name} = {value}" for name, value in plans[0].settings.items()))
    elif explain:
        console.print("vectors: not compared; every chunk that holds a word of the query was scored")


@app.command()
def sql(
    statement: Annotated[str, typer.Argument(help="One SELECT; `layer.table@N` is a table as of version N.")],
    format_: Annotated[Literal["table", "csv", "json"], typer.Option("--format")] = "table",
    json_: Json = False,
    engine: Annotated[Literal["duckdb", "spark"], typer.Option(help="duckdb needs no JVM.")] = "duckdb",
) -> None:
    """Query the lake, read-only.

    Example: `headwater sql "select language, count(*) from silver.documents group by 1"`
    """
    from orchestration.operations import sql as lake_sql
    from orchestration.settings import open_lake

    settings = read_settings()
    with working():
        answer = lake_sql.query_spark if engine == "spark" else lake_sql.query
        result = answer(open_lake(settings), statement)
    if json_ or format_ == "json":
        print_json(result.to_pylist())
    elif format_ == "csv":
        import pyarrow.csv

        pyarrow.csv.write_csv(result, sys.stdout.buffer)
    else:
        print_table(result.to_pylist())


def _trace(settings: "Settings", identity: str, verify: bool) -> Any:
    from orchestration.operations.trace import Tracer
    from orchestration.settings import open_lake
    from retrieval.index.index import Index
    from retrieval.store.postgres import Postgres

    index = Index(Postgres(settings.home, settings.postgres))
    return Tracer(open_lake(settings), index.document_rows, verify).trace(identity)


@app.command()
def trace(
    identity: Annotated[
        str, typer.Argument(metavar="ID", help="Answer, chunk, document, release, run, URI or hash.")
    ],
    verify: Annotated[bool, typer.Option("--verify", help="Recompute every hash and span.")] = False,
    json_: Json = False,
) -> None:
    """Walk from anything back to source bytes, and forward to everything made from it.

    Example: `headwater trace file:///home/me/my-docs/a.md --verify`
    """
    from orchestration.cli.render import trace_tree

    settings = read_settings()
    with working():
        found = _trace(settings, identity, verify)
    if json_:
        print_json(found.to_dict())
    else:
        console.print(trace_tree(found))
    if found.verified is False:
        raise RuntimeError(
            f"{identity} does not hold against the stored bytes: see the checks that are false"
        )


@app.command()
def releases(json_: Json = False) -> None:
    """List the releases that can be served, with their metrics and the versions they pin.

    Example: `headwater releases --json`
    """
    from orchestration.operations.ask import open_query_service

    service = open_query_service(read_settings())
    live = service.index.live()
    rows = [
        {
            "release": each.release_id,
            "live": live is not None and each.release_id == live.release_id,
            "released_at": each.released_at.isoformat(),
            "generation": each.generation,
            "epoch": each.epoch,
            "metrics": each.details["metrics"],
            "versions": each.details["versions"],
        }
        for each in service.index.releases()
    ]
    if json_:
        print_json(rows)
        return
    for row in rows:
        metrics, versions = row["metrics"], row["versions"]
        row["live"] = "●" if row["live"] else ""
        row["metrics"] = ", ".join(f"{n} {metrics[n]:.3f}" for n in ("ndcg@10", "recall@10") if n in metrics)
        row["versions"] = " ".join(f"{name}@{version}" for name, version in versions.items())
    print_table(rows)


@app.command()
def rollback(
    release: Annotated[str | None, typer.Argument(help="The one before the live one unless given.")] = None,
    json_: Json = False,
) -> None:
    """Serve an earlier release again.

    Example: `headwater rollback r1.2`
    """
    from assets.ops import roll_back
    from orchestration.operations.ask import open_query_service
    from orchestration.settings import open_lake

    settings = read_settings()
    made = roll_back(open_lake(settings), open_query_service(settings).index, release)
    if json_:
        print_json({"release": made.release_id, "generation": made.generation, "epoch": made.epoch})
    else:
        console.print(f"live: release [bold]{made.release_id}[/]")


@app.command()
def settings(json_: Json = False) -> None:
    """List every setting with its environment variable, value and origin.

    Example: `HEADWATER_RECIPE__MINHASH__JACCARD_THRESHOLD=0.9 headwater settings`
    """
    from orchestration.settings import listed

    rows = listed(read_settings())
    if json_:
        print_json(rows)
    else:
        print_table(rows)


# After those above: `--help` lists them in this order.
app.add_typer(source.app, name="source")
app.add_typer(answers.app, name="answers")
app.add_typer(bench.app, name="bench")
app.command()(evaluate.evaluate)
for command in (
    services.up,
    services.down,
    services.status,
    services.doctor,
    services.backup,
    services.restore,
):
    app.command()(command)


if __name__ == "__main__":
    main()
