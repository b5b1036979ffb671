"""`headwater demo`, `ingest` and `run`: from sources to a release."""

from dataclasses import asdict
from typing import Annotated

import typer

from orchestration.cli.terminal import (
    Json,
    Tenant,
    console,
    print_json,
    print_table,
    progress,
    read_settings,
    working,
)


def demo_command(json_: Json = False) -> None:
    """Build a lake from the installed software, then ask it, cite and trace.

    Example: `headwater demo`
    """
    from orchestration.cli.lake import trace_identity
    from orchestration.cli.render import answer_text, funnel_line, trace_tree
    from orchestration.operations.demo import run_demo

    settings = read_settings()
    with working():
        result = run_demo(settings, progress)
    if json_:
        print_json(asdict(result.ingested) | {"answers": result.answers})
        return
    console.print(funnel_line(result.ingested.funnel))
    metrics = result.ingested.metrics
    console.print(
        f"release [bold]{result.ingested.release}[/]: nDCG@10 {metrics['ndcg@10']:.3f}, "
        f"recall@10 {metrics['recall@10']:.3f} on {metrics['questions']:.0f} questions\n"
    )
    for answer in result.answers:
        console.print(answer_text(answer["question"], answer))
    cited = next((answer for answer in result.answers if answer["citations"]), None)
    if cited is not None:
        console.print(f"[bold]headwater trace {cited['answer_id']} --verify[/]")
        console.print(trace_tree(trace_identity(settings, cited["answer_id"], verify=True)))
    console.print('Next: `headwater ask "…"`, `headwater sql "show tables"`, `headwater up`')


def ingest_command(
    paths: Annotated[list[str], typer.Argument(help="Folders, files or URIs to add.")],
    tenant: Tenant = "default",
    json_: Json = False,
) -> None:
    """Add folders as sources, and bring the lake, the index and the release up to date.

    Example: `headwater ingest ~/my-docs && headwater ask "…"`
    """
    from assets.sources.source_registry import SourceRegistry
    from orchestration.cli.render import funnel_line
    from orchestration.operations.ingest import add_sources, ingest_and_release

    settings = read_settings()
    add_sources(SourceRegistry(settings.sources_file), paths, tenant)
    with working():
        result = ingest_and_release(settings, progress)
    if json_:
        print_json(asdict(result))
    else:
        console.print(funnel_line(result.funnel))
        console.print(f"live: release [bold]{result.release}[/]")


def run_command(
    select: Annotated[
        str | None, typer.Option(help='Only these assets, such as `key:"silver/documents"+`.')
    ] = None,
    accept_shrink: Annotated[
        bool, typer.Option("--accept-shrink", help="Remove the documents that are gone, however many.")
    ] = False,
    json_: Json = False,
) -> None:
    """Bring the lake, the index and the release up to date, as *Materialize all* in the web UI does.

    Example: `headwater run --select 'key:"gold/chunks"+'`
    """
    from orchestration.operations.runs import RunFailed, execute_run

    settings = read_settings()
    if accept_shrink:
        settings = settings.model_copy(update={"max_shrink": 1.0})
    with working():
        outcome = execute_run(settings, select, progress)
    if json_:
        print_json(asdict(outcome))
    if outcome.failures:
        raise RunFailed("\n".join(outcome.failures))
    if not json_:
        print_table([{"step": step, "seconds": seconds} for step, seconds in outcome.seconds.items()])
