"""`headwater demo`, `ingest` and `run`: from sources to a release."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from common.counts import counted
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

if TYPE_CHECKING:
    from orchestration.settings import Settings

DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Say what would be read, and about how long and how much disk it takes; nothing is written.",
    ),
]


def demo_command(json_: Json = False) -> None:
    """Build a lake from the installed software, then ask it, cite and trace.

    Example: `headwater demo`
    """
    from orchestration.cli.render import render_answer, render_funnel, render_trace
    from orchestration.operations.demo import run_demo
    from orchestration.tracing.tracer import trace_identity

    settings = read_command_settings("made")
    with quiet_terminal():
        result = run_demo(settings, print_progress)
    if json_:
        print_json(asdict(result.ingested) | {"answers": result.answers})
        return
    console.print(render_funnel(result.ingested.funnel))
    metrics = result.ingested.metrics
    console.print(
        f"release [bold]{result.ingested.release}[/]: nDCG@10 {metrics['ndcg@10']:.3f}, "
        f"recall@10 {metrics['recall@10']:.3f} on {counted(metrics['questions'], 'question')}\n"
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
    dry_run: DryRun = False,
    json_: Json = False,
) -> None:
    """Add folders as sources, and bring the lake, the index and the release up to date.

    Example: `headwater ingest ~/my-docs --dry-run`, then `headwater ingest ~/my-docs && headwater ask "…"`
    """
    from assets.sources.source_registry import SourceRegistry
    from orchestration.operations.ingest import add_ingest_sources

    if dry_run:
        _print_preview(json_, paths, tenant)
        return
    settings = read_command_settings("made")
    add_ingest_sources(SourceRegistry(settings.sources_file), paths, tenant)
    _run(settings, None, json_)


def run_command(
    select: Annotated[
        str | None, typer.Option(help='Only these assets, such as `key:"silver/documents"+`.')
    ] = None,
    accept_shrink: Annotated[
        bool, typer.Option("--accept-shrink", help="Remove the documents that are gone, however many.")
    ] = False,
    dry_run: DryRun = False,
    json_: Json = False,
) -> None:
    """Bring the lake, the index and the release up to date, as *Materialize all* in the web UI does.

    Example: `headwater run --select 'key:"gold/chunks"+'`, or `headwater run --dry-run`
    """
    if dry_run:
        _print_preview(json_)
        return
    settings = read_command_settings()
    if accept_shrink:
        settings = settings.model_copy(update={"max_shrink": 1.0})
    _run(settings, select, json_)


def _run(settings: "Settings", select: str | None, json_: bool) -> None:
    """Brings everything up to date, and says what stands then."""
    from orchestration.cli.render import render_summary
    from orchestration.operations.ingest import summarize_run
    from orchestration.operations.runs import RunFailed, execute_run

    _print_rebuilds(settings)
    with quiet_terminal():
        outcome = execute_run(settings, select, print_progress)
        summary = None
        try:
            summary = summarize_run(settings, outcome)
        except Exception:  # what made the run fail may fail here too
            if not outcome.failures:
                raise
    if json_:
        print_json(asdict(outcome) | (asdict(summary) if summary else {}))
    elif outcome.failures and summary is not None and summary.release:
        print_progress(f"release {summary.release} stays live")
    elif summary is not None and not outcome.failures:
        console.print(render_summary(summary), soft_wrap=True, markup=False)
    if outcome.failures:
        raise RunFailed("\n".join(outcome.failures))


def _print_preview(json_: bool, paths: list[str] | None = None, tenant: str = "default") -> None:
    """Says what a run would do, of some paths or of all sources."""
    from assets.sources.source_registry import SourceRegistry
    from orchestration.cli.render import render_preview, render_preview_rows
    from orchestration.operations.ingest import ingest_sources
    from orchestration.preview.run_preview import preview_run

    settings = read_command_settings("optional")
    known = SourceRegistry(settings.sources_file).list()
    with quiet_terminal():
        only = None if paths is None else ingest_sources(known, paths, tenant)
        found = preview_run(settings, known, only)
    if json_:
        print_json(found.to_dict())
    else:
        if rows := render_preview_rows(found):
            print_table(rows)
        console.print(render_preview(found), soft_wrap=True, markup=False)


def _print_rebuilds(settings: "Settings") -> None:
    """Says what an upgrade makes the run do again, before it begins."""
    from orchestration.preview.run_preview import rebuild_lines

    for line in rebuild_lines(settings):
        print_progress(line)
