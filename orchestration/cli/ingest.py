"""`headwater demo`, `ingest` and `run`: from sources to a release."""

from dataclasses import asdict
from typing import Annotated

import typer

from orchestration.cli.terminal import (
    Json,
    Tenant,
    console,
    print_json,
    print_progress,
    print_table,
    quiet_terminal,
    read_command_settings,
)


def demo_command(json_: Json = False) -> None:
    """Build a lake from the installed software, then ask it, cite and trace.

    Example: `headwater demo`
    """
    from orchestration.cli.render import render_answer, render_funnel, render_trace
    from orchestration.operations.demo import run_demo
    from orchestration.tracing.tracer import trace_identity

    settings = read_command_settings()
    with quiet_terminal():
        result = run_demo(settings, print_progress)
    if json_:
        print_json(asdict(result.ingested) | {"answers": result.answers})
        return
    console.print(render_funnel(result.ingested.funnel))
    metrics = result.ingested.metrics
    console.print(
        f"release [bold]{result.ingested.release}[/]: nDCG@10 {metrics['ndcg@10']:.3f}, "
        f"recall@10 {metrics['recall@10']:.3f} on {metrics['questions']:.0f} questions\n"
    )
    for answer in result.answers:
        console.print(render_answer(answer["question"], answer))
    cited = next((answer for answer in result.answers if answer["citations"]), None)
    if cited is not None:
        console.print(f"[bold]headwater trace {cited['answer_id']} --verify[/]")
        console.print(render_trace(trace_identity(settings, cited["answer_id"], verify=True)))
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
    from orchestration.cli.render import render_funnel
    from orchestration.operations.ingest import add_ingest_sources, ingest_and_release

    settings = read_command_settings()
    add_ingest_sources(SourceRegistry(settings.sources_file), paths, tenant)
    with quiet_terminal():
        result = ingest_and_release(settings, print_progress)
    if json_:
        print_json(asdict(result))
    else:
        console.print(render_funnel(result.funnel))
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

    settings = read_command_settings()
    if accept_shrink:
        settings = settings.model_copy(update={"max_shrink": 1.0})
    with quiet_terminal():
        outcome = execute_run(settings, select, print_progress)
    if json_:
        print_json(asdict(outcome))
    if outcome.failures:
        raise RunFailed("\n".join(outcome.failures))
    if not json_:
        print_table([{"step": step, "seconds": seconds} for step, seconds in outcome.seconds.items()])
