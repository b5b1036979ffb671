"""`headwater evaluate` and `evaluate-answers`: how well a test collection is searched, and answered."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

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
    from quality.evaluation.answer_evaluation import AnswerEvaluation
    from quality.evaluation.verdict import Gain


def evaluate_command(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="corpus.jsonl, queries.jsonl and qrels/SPLIT.tsv (BEIR's layout)."
        ),
    ],
    split: Annotated[str, typer.Option(help="Which judgements.")] = "test",
    embedder: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="NAME@VERSION, a digest, a name or a folder; the one that is used, unless given.",
        ),
    ] = None,
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
    from orchestration.cli.evaluation_chart import evaluation_svg
    from orchestration.operations.evaluation import evaluate_command_modes, evaluate_in_scratch_index
    from quality.evaluation.beir_collection import load_beir_collection
    from quality.evaluation.collection_evaluation import MEASURES
    from retrieval.search.query import InvalidSearchQuery

    settings = read_command_settings("made")
    if embedder:
        from orchestration.training.models import settings_with_embedder

        settings = settings_with_embedder(settings, embedder)
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
        found["comparison"] = {"a": compare[0], "b": compare[1], **_in_json(result.compare(*compare))}
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
    asked = f"{counted(result.documents, 'document')}, {counted(result.queries, 'query', 'queries')}"
    print_table(rows, f"{result.dataset}: {asked}")
    if compare:
        for measure, each in result.compare(*compare).items():
            console.print(
                f"{measure}: {compare[0]} is {each.difference:+.4f} above {compare[1]}, "
                f"95% interval {each.low:+.4f} to {each.high:+.4f}",
                markup=False,
            )


def evaluate_answers_command(
    path: Annotated[
        Path | None,
        typer.Argument(
            metavar="DIR|QUESTIONS",
            help="A file of questions to the lake; or a folder of passages with questions, of questions that "
            "bring passages, or of sentences to rank (docs/answers.md). Without it, the demo's questions.",
        ),
    ] = None,
    engine: Annotated[
        str | None, typer.Option(metavar="NAME", help="One engine; all that are set unless named.")
    ] = None,
    adapter: Annotated[
        str | None,
        typer.Option(
            metavar="VERSION",
            help="A generator's adapter, such as generator-acme@2, to measure beside its base; or none. "
            "Of questions to the lake, the one that answers the tenant's unless given.",
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Ask the first so many questions.")] = None,
    tenant: Tenant = "default",
    compare: Annotated[
        tuple[str, str] | None, typer.Option(metavar="A B", help="Two engines: print how much A is above B.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw a bar chart, as SVG.")] = None,
    gate: Annotated[
        bool,
        typer.Option(
            "--gate",
            help="Measure the engine that the settings name beside the one that answers: it answers from now "
            "on if it is not worse, else it is held and the exit code is 1.",
        ),
    ] = False,
    json_: Json = False,
) -> None:
    """Measure how well questions are answered: by the engine that `ask` uses, without recording the answers.

    Example: `headwater evaluate-answers ~/answers-bioasq --limit 200 --plot answers.svg`

    One that was stopped goes on when the same is asked again.

    Example: `headwater evaluate-answers ~/my-questions.jsonl --adapter generator-acme@2`

    Example: `headwater evaluate-answers ~/my-questions.jsonl --gate`
    """
    from orchestration.answer_evaluation.engine_gate import GatedEngine, gate_engine
    from orchestration.answer_evaluation.evaluation import (
        adapter_beside_base,
        evaluate_answers_of_engines,
        plan_engines,
    )
    from orchestration.cli.evaluation_chart import answers_svg
    from orchestration.operations.demo import demo_answer_collection, has_demo_source
    from quality.evaluation.answer_collection import load_answer_collection
    from quality.evaluation.answer_evaluation import UnknownAnswerEngine

    settings = read_command_settings("made")
    if gate and (engine or compare or adapter):
        raise typer.BadParameter("--gate compares the configured engine with the live one: leave out others")
    if gate and path is None and not has_demo_source(settings):
        raise typer.BadParameter("--gate: name questions to your documents; these are about the demo's")
    if plot and not plot.expanduser().parent.is_dir():
        raise typer.BadParameter(f"--plot: there is no folder {plot.expanduser().parent}")
    with quiet_terminal():
        collection = (
            load_answer_collection(path.expanduser(), limit) if path else demo_answer_collection(limit)
        )
        gated: GatedEngine | None = None
        if gate:
            gated = gate_engine(settings, collection, tenant, print_progress)
            result = gated.evaluation
        else:
            planned = plan_engines(settings, collection, tenant, engine, adapter)
            compare = compare or adapter_beside_base(planned)
            for name in compare or ():
                if name not in planned:
                    raise UnknownAnswerEngine(
                        f"there is no engine {name!r} to compare; there are {', '.join(planned)}"
                    )
            result = evaluate_answers_of_engines(settings, collection, tenant, planned, print_progress)
    found: dict[str, Any] = result.to_dict() if result else {}
    if compare and result:
        found["comparison"] = {"a": compare[0], "b": compare[1], **_in_json(result.compare(*compare))}
    if gated:
        found["gate"] = gated.decision.model_dump(mode="json")
    if plot and result:
        plot.expanduser().write_text(answers_svg(result), encoding="utf-8")
    if json_:
        print_json(found)
    else:
        if result:
            _print_answer_evaluation(result, compare)
        if gated and gated.live:
            shown = "not decided" if gated.decision.outcome == "undecided" else gated.decision.decision
            console.print(f"{shown}: {gated.decision.reason}", markup=False)
        elif gated:
            console.print(f"{gated.decision.engine} answers already; nothing was measured", markup=False)
    if gated and not gated.decision.answers:
        raise typer.Exit(1)


def _in_json(gains: "Mapping[str, Gain]") -> dict[str, Any]:
    return {name: asdict(each) for name, each in gains.items()}


def _print_answer_evaluation(result: "AnswerEvaluation", compare: tuple[str, str] | None) -> None:
    """Prints the figures of each engine with their intervals, and how much one is above another."""
    from quality.evaluation.answer_evaluation import ANSWER_MEASURES

    rows = []
    for measure in (*ANSWER_MEASURES, "p50_ms"):
        row = {"figure": measure}
        for name, each in result.engines.items():
            mean = each.p50_ms if measure == "p50_ms" else each.mean(measure)
            interval = None if measure == "p50_ms" else each.interval(measure)
            row[name] = "" if mean is None else f"{mean:.3f}"
            row[name] += f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""
        rows.append(row)
    print_table(
        [row for row in rows if any(value for name, value in row.items() if name != "figure")],
        f"{result.dataset} ({result.kind}): {counted(result.questions, 'question')}",
    )
    if compare:
        for measure, gain in result.compare(*compare).items():
            console.print(
                f"{measure}: {compare[0]} is {gain.difference:+.4f} above {compare[1]}, "
                f"95% interval {gain.low:+.4f} to {gain.high:+.4f}",
                markup=False,
            )
