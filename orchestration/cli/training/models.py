"""`headwater models`: versions of models, and which of them is served."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from common.counts import counted
from orchestration.cli.terminal import (
    Json,
    console,
    print_json,
    print_progress,
    print_table,
    quiet_terminal,
    read_command_settings,
)

if TYPE_CHECKING:
    from orchestration.settings import Settings
    from orchestration.training.compared import ComparedModels
    from orchestration.training.generators import ServedAdapter
    from orchestration.training.models import ServedModel
    from training.registry.versions import ModelVersion

models_app = typer.Typer(
    no_args_is_help=True, help="Versions of models: what they were made from, and which is served."
)

Address = Annotated[
    str, typer.Argument(metavar="NAME@VERSION", help="Or NAME@live, or a digest or its beginning.")
]
Reason = Annotated[str, typer.Option(help="Why, in a sentence; it is recorded.")]


@models_app.command("list")
def models_list_command(json_: Json = False) -> None:
    """List the versions of models, newest first, with the names that they have.

    Example: `headwater models list --json`
    """
    from orchestration.training.learned import all_learned_versions

    rows: list[dict[str, Any]] = [
        {
            "model": version.name,
            "version": version.version,
            "aliases": learned.aliases,
            "digest": version.digest,
            "dataset": version.lineage.dataset,
            "documents": learned.documents,
            "removed_documents": len(learned.removed),
            "made_at": version.made_at.isoformat(timespec="seconds"),
            "metrics": version.metrics,
        }
        for learned in all_learned_versions(read_command_settings())
        for version in [learned.version]
    ]
    if json_:
        print_json(rows)
        return
    shown = ("validation_ndcg@10_of_base", "validation_ndcg@10")
    print_table(
        [
            {key: value for key, value in row.items() if key != "metrics"}
            | {"digest": row["digest"][:16], "aliases": ", ".join(row["aliases"])}
            | {name: f"{row['metrics'][name]:.3f}" for name in shown if name in row["metrics"]}
            for row in rows
        ]
    )


@models_app.command("show")
def models_show_command(address: Address, json_: Json = False) -> None:
    """Show what a version was made from, and what was decided about it; its files are checked.

    Example: `headwater models show embedder@live`
    """
    from orchestration.training.learned import what_version_learned
    from orchestration.training.models import model_registry

    settings = read_command_settings()
    registry = model_registry(settings)
    version = registry.find(address)
    learned = what_version_learned(settings, version)
    path = registry.open(version)
    decisions = [each for each in registry.decisions(version.name) if each.version == version.version]
    if json_:
        print_json(
            version.model_dump(mode="json")
            | {"path": str(path), "decisions": [each.model_dump(mode="json") for each in decisions]}
            | {"documents": learned.documents, "removed_documents": learned.removed}
        )
        return
    print_version(version)
    said = version.lineage.model_dump(exclude={"settings"}) | version.lineage.settings
    print_table([{"": key, "value": value} for key, value in said.items()])
    if learned.removed:
        console.print(
            f"{learned}, of {learned.documents:,}; nothing is trained from it, and --json lists them",
            markup=False,
            soft_wrap=True,
        )
    if decisions:
        rows = [each.model_dump(include={"decision", "dataset", "reason"}) for each in decisions]
        print_table(rows, "decisions")


@models_app.command("check")
def models_check_command(
    mend: Annotated[
        bool,
        typer.Option("--mend", help="First have aliases, ops.releases and MLflow follow what is live."),
    ] = False,
    json_: Json = False,
) -> None:
    """Compare what MLflow, the registry, training sets, the lake and the index say about models.

    Example: `headwater models check --mend`
    """
    from orchestration.training.consistency import check_models

    settings = read_command_settings()
    with quiet_terminal():
        found = check_models(settings, mend, print_progress)
    if json_:
        print_json([asdict(each) for each in found])
    elif found:
        print_table([asdict(each) for each in found])
    else:
        console.print("all agree")
    if found:
        raise typer.Exit(1)


@models_app.command("compare")
def models_compare_command(
    one: Annotated[str, typer.Argument(metavar="MODEL", help="NAME@VERSION, a digest, a name or a folder.")],
    other: Annotated[str, typer.Argument(metavar="OTHER", help="What it is compared with.")] = "live",
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Of an embedder: a collection in BEIR's layout. Of a generator: JSON lines with prompt and "
            "response. Unless given: what MODEL's training set holds out.",
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="Which judgements of a collection.")] = "test",
    questions: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR|QUESTIONS",
            help="Of a generator: questions to both, as `headwater evaluate-answers` takes them. Unless "
            "given: what MODEL's training set holds out.",
        ),
    ] = None,
    json_: Json = False,
) -> None:
    """Measure two models on one collection; the verdict on a version beside the live model is kept.

    Without --data they are measured on the examples that the model's training set holds out. Questions are
    answered too, of embedders from what each finds. Approved is what was shown to be better where it was
    meant to be, and nowhere worse; what the questions are too few to show is not decided.

    Example: `headwater models compare embedder@3 live --data ~/my-questions`

    Example: `headwater models compare generator-acme@2 --questions ~/my-questions.jsonl`
    """
    from orchestration.training.comparison import compare_models
    from orchestration.training.models import model_registry
    from training.registry.live_adapters import means_generator

    settings = read_command_settings()
    path = data.expanduser() if data else None
    if means_generator(model_registry(settings), one):
        _compare_adapters(settings, one, other, path, questions.expanduser() if questions else None, json_)
        return
    if questions:
        raise typer.BadParameter(
            "--questions are asked of a generator: name an embedder's collection by --data"
        )
    with quiet_terminal():
        found = compare_models(settings, one, other, path, split, print_progress)
    _print_comparison(found, counted(found.queries, "query", "queries"), json_)


@models_app.command("promote")
def models_promote_command(
    address: Address,
    reason: Reason,
    because: Annotated[
        str | None,
        typer.Option("--because", help="Why, where its comparison did not decide: a person then decides."),
    ] = None,
    json_: Json = False,
) -> None:
    """Have a version be served, after it was compared with the live one.

    An embedder is served with the index that is built with it; a generator's adapter answers its tenant.

    Example: `headwater models promote embedder@3 --reason "better on our questions"`
    """
    from orchestration.training.models import model_registry, promote_model
    from training.registry.live_adapters import is_generator

    settings = read_command_settings()
    with quiet_terminal():
        if is_generator(model_registry(settings).find(address).name):
            from orchestration.training.generators import promote_adapter

            served: ServedModel | ServedAdapter = promote_adapter(
                settings, address, reason, print_progress, because
            )
        else:
            served = promote_model(settings, address, reason, print_progress, because)
    _print_served(served, json_)


@models_app.command("rollback")
def models_rollback_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The model.")],
    reason: Reason,
    json_: Json = False,
) -> None:
    """Have the model be served again that was before: an embedder with the index that was built with it.

    Example: `headwater models rollback embedder --reason "worse on names"`
    """
    from orchestration.training.models import model_registry, roll_back_model
    from training.registry.live_adapters import is_generator

    settings = read_command_settings()
    with quiet_terminal():
        if is_generator(name) and name in model_registry(settings).names():
            from orchestration.training.generators import roll_back_adapter

            served: ServedModel | ServedAdapter = roll_back_adapter(settings, name, reason, print_progress)
        else:
            served = roll_back_model(settings, name, reason, print_progress)
    _print_served(served, json_)


def _compare_adapters(
    settings: "Settings", one: str, other: str, data: Path | None, questions: Path | None, json_: bool
) -> None:
    from orchestration.training.adapter_comparison import compare_adapters

    with quiet_terminal():
        found = compare_adapters(settings, one, other, data, questions, print_progress)
    _print_comparison(found, counted(found.examples, "example"), json_)


def _print_comparison(found: "ComparedModels", measured_on: str, json_: bool) -> None:
    if json_:
        print_json(asdict(found) | {"approved": found.approved})
        return
    rows: list[dict[str, Any]] = []
    for name in dict.fromkeys(name for each in found.figures.values() for name in each):
        gain = found.gains.get("log_likelihood" if name == "loss" else name)
        row = {
            model: f"{figures[name]:.3f}" if name in figures else ""
            for model, figures in found.figures.items()
        }
        rows.append({"figure": name} | row | {"gain": str(gain or "")})
    if rows:  # else the verdict was known
        print_table(rows, f"{found.dataset}: {measured_on}, {counted(found.questions, 'question')} answered")
    console.print(f"{found.decision.replace('undecided', 'not decided')}: {found.reason}", markup=False)


def print_version(version: "ModelVersion") -> None:
    """Prints the name, digest and figures of a version."""
    console.print(f"{version.address} ({version.digest})", markup=False)
    print_table([{"figure": name, "value": f"{value:.6g}"} for name, value in version.metrics.items()])


def _print_served(served: "ServedModel | ServedAdapter", json_: bool) -> None:
    from orchestration.training.models import ServedModel

    if json_:
        print_json(asdict(served))
        return
    which = f"{served.model}@{served.version}" if served.version else None
    if isinstance(served, ServedModel):
        said = f"{which or 'the model that the settings name'}, with release {served.release}"
    else:
        whose = f"the tenant {served.tenant}" if served.tenant else "tenants without an adapter of their own"
        said = f"{which or 'the base'}, for {whose}"
    console.print(f"live: {said} ({served.pointer_seconds:.3f} s): {served.reason}", markup=False)
