"""`headwater train`: makes a version of the embedder, or an adapter of the generator."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from orchestration.cli.terminal import (
    Json,
    console,
    print_json,
    print_progress,
    quiet_terminal,
    read_command_settings,
)
from orchestration.cli.training.models import print_version

if TYPE_CHECKING:
    from training.registry.versions import ModelVersion

app = typer.Typer(no_args_is_help=True, help="Train a model on what the lake, or a folder, holds.")

Dataset = Annotated[
    str | None,
    typer.Option(
        metavar="NAME[@DIGEST]",
        help="The training set, or one snapshot of it; the tenant's newest unless given.",
        show_default=False,
    ),
]


@app.callback()
def train_command() -> None:
    """Train a model on what the lake, or a folder, holds."""


@app.command("embedder")
def train_embedder_command(
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="corpus.jsonl, queries.jsonl and qrels/train.tsv (BEIR's layout); no other split is read.",
        ),
    ] = None,
    tenant: Annotated[
        list[str] | None,
        typer.Option(
            help="Whose training set; `default` unless given. May be repeated: it learns from all of them.",
            show_default=False,
        ),
    ] = None,
    dataset: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[@DIGEST]",
            help="A training set, or one snapshot of it; a tenant's newest unless given. May be repeated.",
            show_default=False,
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(metavar="NAME|PATH", help="What is trained; all-MiniLM-L6-v2 unless given."),
    ] = None,
    minutes: Annotated[float, typer.Option(min=0.1, help="The time that it may take.")] = 15,
    seed: Annotated[int, typer.Option(min=0, help="Decides what comes when.")] = 0,
    objective: Annotated[
        Literal["listwise", "contrastive"],
        typer.Option(help="Learn a teacher's whole list, or only which passage is right (InfoNCE)."),
    ] = "listwise",
    json_: Json = False,
) -> None:
    """Train the embedder, and register what comes out. Killed, it goes on from its last validation.

    Without --data it learns from a training set of each tenant (`headwater datasets list`), the newest unless
    --dataset names another.

    Example: `headwater train embedder --tenant acme --tenant globex --minutes 15`
    """
    from orchestration.training.train import train_embedder_version
    from training.jobs.plan import EmbedderTraining

    settings = read_command_settings("made")
    training = EmbedderTraining(minutes=minutes, seed=seed, objective=objective)
    folder = _learned_path(data, dataset)
    with quiet_terminal():
        version = train_embedder_version(
            settings, folder, tenant or [], base, training, print_progress, dataset or []
        )
    if _print_trained(version, json_):
        return
    asked = "" if version.lineage.training_sets else " --data DIR"
    console.print(
        f"`headwater models compare {version.address} live{asked}` measures it; "
        f"`headwater models promote {version.address} --reason …` has it served",
        markup=False,
    )


@app.command("generator")
def train_generator_command(
    tenant: Annotated[
        str | None,
        typer.Option(help="Whose adapter it is; with --data that of all tenants, else `default`."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR|FILE",
            help="corpus.jsonl, queries.jsonl and qrels/train.tsv (BEIR's layout); or a file of JSON lines: "
            '{"prompt": "…", "response": "…"}.',
        ),
    ] = None,
    dataset: Dataset = None,
    base: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="A model's folder or GGUF file; the local generator unless given."),
    ] = None,
    minutes: Annotated[float, typer.Option(min=0.1, help="The time that it may take.")] = 15,
    seed: Annotated[int, typer.Option(min=0, help="Decides what comes when.")] = 0,
    json_: Json = False,
) -> None:
    """Train an adapter (LoRA) of the local generator. Killed, it goes on from its last validation.

    Without --data it learns from a training set of the tenant (`headwater datasets list`), the newest unless
    --dataset names another: answers that cite their passages, and refusals. Of a folder it learns the answers
    of the default engine that cite judged passages alone.

    Example: `headwater train generator --tenant acme --minutes 15`
    """
    from orchestration.training.generators import train_generator_version
    from training.jobs.plan import GeneratorTraining

    settings = read_command_settings("made")
    training = GeneratorTraining(minutes=minutes, seed=seed)
    path = _learned_path(data, dataset)
    with quiet_terminal():
        version = train_generator_version(settings, path, tenant, base, training, print_progress, dataset)
    if not _print_trained(version, json_):
        console.print(
            f"`headwater models compare {version.address}` measures its answers; "
            f"`headwater models promote {version.address} --reason …` has it answer",
            markup=False,
        )


def _learned_path(data: Path | None, dataset: list[str] | str | None) -> Path | None:
    if data and dataset:
        raise typer.BadParameter("--data and --dataset are two things to learn from: give one of them")
    return data.expanduser() if data else None


def _print_trained(version: "ModelVersion", json_: bool) -> bool:
    """Prints what a training made; returns whether that was as JSON."""
    if json_:
        print_json(
            {
                "model": version.name,
                "version": version.version,
                "digest": version.digest,
                "dataset": version.lineage.dataset,
                "metrics": version.metrics,
                "seconds": round(version.seconds, 1),
            }
        )
    else:
        print_version(version)
    return json_
