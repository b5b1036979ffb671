"""`headwater evaluate`: how well a test collection is searched."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from orchestration.cli.terminal import (
    Json,
    console,
    print_json,
    print_progress,
    print_table,
    quiet_terminal,
    read_command_settings,
)


def evaluate_command(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="corpus.jsonl, queries.jsonl and qrels/SPLIT.tsv (BEIR's layout)."
        ),
    ],
    split: Annotated[str, typer.Option(help="Which judgements.")] = "test",
    chunks: Annotated[
        Literal["default", "document"],
        typer.Option(help="Chunk as the lake does, or one chunk per document."),
    ] = "default",
    compare: Annotated[
        tuple[str, str] | None, typer.Option(metavar="A B", help="Two modes: print how much A is above B.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw a bar chart, as SVG.")] = None,
    json_: Json = False,
) -> None:
    """Measure every search mode on a test collection, in a scratch index that is removed afterwards.

    Example: `headwater evaluate ~/scifact --chunks document --compare hybrid lexical`
    """
    from orchestration.operations.evaluation import evaluate_command_modes, evaluate_in_scratch_index
    from quality.evaluation.beir_collection import load_beir_collection
    from quality.evaluation.collection_evaluation import MEASURES
    from quality.evaluation.evaluation_chart import evaluation_svg
    from retrieval.search.query import InvalidSearchQuery

    settings = read_command_settings()
    known = evaluate_command_modes(settings)
    for name in compare or ():
        if name not in known:
            raise InvalidSearchQuery(f"there is no mode {name!r} to compare; there are {', '.join(known)}")
    if plot and not plot.expanduser().parent.is_dir():
        raise typer.BadParameter(f"--plot: there is no folder {plot.expanduser().parent}")
    with quiet_terminal():
        collection = load_beir_collection(folder.expanduser(), split)
        result = evaluate_in_scratch_index(settings, collection, chunks, print_progress)
    found: dict[str, Any] = result.to_dict()
    if compare:
        found["comparison"] = {"a": compare[0], "b": compare[1], **result.compare(*compare)}
    if plot:
        plot.expanduser().write_text(evaluation_svg(result), encoding="utf-8")
    if json_:
        print_json(found)
        return
    rows = []
    for name, mode in result.modes.items():
        intervals = {measure: mode.interval(measure) for measure in MEASURES}
        row = {m: f"{mean:.3f} [{low:.3f}, {high:.3f}]" for m, (mean, low, high) in intervals.items()}
        rows.append({"mode": name} | row | {"p50_ms": f"{mode.p50_ms:.1f}", "p95_ms": f"{mode.p95_ms:.1f}"})
    print_table(rows, f"{result.dataset}: {result.documents} documents, {result.queries} queries")
    if compare:
        for measure, each in result.compare(*compare).items():
            console.print(
                f"{measure}: {compare[0]} is {each['difference']:+.4f} above {compare[1]}, "
                f"95% interval {each['low']:+.4f} to {each['high']:+.4f}",
                markup=False,
            )
