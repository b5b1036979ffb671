"""`headwater bench`: what a user measures on their own machine, model and documents."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from orchestration.cli.terminal import (
    Json,
    Tenant,
    console,
    print_progress,
    quiet_terminal,
    read_command_settings,
)

if TYPE_CHECKING:
    from orchestration.bench.report import BenchResult, BenchTable

app = typer.Typer(
    no_args_is_help=True, help="Measure Headwater on this machine, with your models and documents."
)


def print_bench(result: "BenchResult | BenchTable[Any]", json_: bool) -> None:
    """Prints what a bench measured, as a table or as JSON."""
    if json_:
        sys.stdout.write(result.to_json() + "\n")
    else:
        console.print(result)


@app.command("answers")
def bench_answers_command(
    questions: Annotated[
        Path | None,
        typer.Argument(metavar="QUESTIONS", help="A file of {question} lines; by default the demo's."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Ask the first so many questions.")] = 100,
    tenant: Tenant = "default",
    json_: Json = False,
) -> None:
    """Measure how many questions a batch answers per second, by engine, and where its time goes.

    The live release is asked. A local model and an endpoint are measured where the settings name them.

    Example: `HEADWATER_GENERATOR__MODEL=~/models/next headwater bench answers ~/questions.jsonl`
    """
    from orchestration.bench.answers import bench_answers
    from orchestration.operations.demo import demo_answer_collection
    from quality.evaluation.answer_collection import load_answer_collection

    settings = read_command_settings("made")
    with quiet_terminal():
        collection = load_answer_collection(questions.expanduser()) if questions else demo_answer_collection()
        result = bench_answers(settings, collection.questions[:limit], tenant, print_progress)
    print_bench(result, json_)


@app.command("embed")
def bench_embed_command(
    data: Annotated[
        Path | None, typer.Option(help="A folder in BEIR's layout, on which ranking is measured too.")
    ] = None,
    formats: Annotated[
        bool, typer.Option("--formats", help="Compare runtimes and numeric formats of the embedder instead.")
    ] = False,
    batch: Annotated[str, typer.Option(help="With --formats: numbers of texts at once.")] = "1,16,64,256",
    json_: Json = False,
) -> None:
    """Compare documents embedded per second with sentence-transformers, and what the speed costs in ranking.

    Example: `headwater bench embed --data ~/scifact`, `headwater bench embed --formats --batch 1,64`
    """
    from orchestration.bench.embedding.formats import bench_embedder_formats
    from orchestration.bench.embedding.speed import bench_embedding

    batches, folder = _numbers(batch, int, "--batch"), data and data.expanduser()
    settings = read_command_settings("made")
    result: BenchResult | BenchTable[Any]
    with quiet_terminal():
        if formats:
            result = bench_embedder_formats(settings, batches, folder)
        else:
            result = bench_embedding(settings, folder)
    print_bench(result, json_)


@app.command("generate")
def bench_generate_command(
    model: Annotated[
        Path | None,
        typer.Option(help="A model's folder or GGUF file; the configured one, or SmolLM2 as installed."),
    ] = None,
    prompts: Annotated[int, typer.Option(min=1, help="Number of prompts.")] = 32,
    shared: Annotated[
        str, typer.Option(help="Skews of Zipf's law by which prompts share passages, such as 0.8,1.1,1.5.")
    ] = "",
    max_tokens: Annotated[int, typer.Option(min=1, help="Number of tokens of each text.")] = 64,
    formats: Annotated[
        bool, typer.Option("--formats", help="Compare the model's numeric formats instead.")
    ] = False,
    batch: Annotated[str, typer.Option(help="With --formats: numbers of prompts at once.")] = "1,16",
    adapters: Annotated[
        int,
        typer.Option(min=0, help="Compare so many adapters in one batch with an engine for each instead."),
    ] = 0,
    json_: Json = False,
) -> None:
    """Compare the batch decoder with transformers' generate, or the numeric formats that it can compute in.

    Example: `headwater bench generate --prompts 64 --shared 0.8,1.1,1.5`,
    `headwater bench generate --formats --batch 1,16,64`, `headwater bench generate --adapters 3`
    """
    from orchestration.bench.decoding.adapters import bench_adapters
    from orchestration.bench.decoding.formats import bench_formats
    from orchestration.bench.decoding.generate import bench_generate, model_to_measure

    skews = _numbers(shared, float, "--shared")
    batches = _numbers(batch, int, "--batch")
    path = model_to_measure(read_command_settings(), model and model.expanduser())
    result: BenchResult | BenchTable[Any]
    with quiet_terminal():  # which sends what models print to standard error
        if formats:
            result = bench_formats(path, batches, max_tokens)
        elif adapters:
            result = bench_adapters(path, adapters, prompts, max_tokens)
        else:
            result = bench_generate(path, prompts, skews, max_tokens)
    print_bench(result, json_)


N = TypeVar("N", int, float)


def _numbers(text: str, kind: Callable[[str], N], option: str) -> list[N]:
    """Returns positive numbers that commas divide."""
    try:
        numbers = [kind(each) for each in text.split(",") if each.strip()]
    except ValueError:
        numbers = [kind("0")]
    if not all(0 < each < 10_000 for each in numbers):
        raise typer.BadParameter(f"{text!r}: give positive numbers that commas divide", param_hint=option)
    return numbers


@app.command("quality")
def bench_quality_command(
    sound: Annotated[
        list[Path],
        typer.Argument(
            metavar="SOUND", help="Folders of sound documents, or JSONL files of rows with a text."
        ),
    ],
    json_: Json = False,
) -> None:
    """Measure how many of your sound documents are quarantined, or unfit for training.

    It names each such document with the reason, and says whether a search for one of its sentences finds it.

    Example: `headwater bench quality ~/handbook`
    """
    from orchestration.bench.sound_documents import bench_sound_documents

    with quiet_terminal():
        result = bench_sound_documents(sound, print_progress)
    print_bench(result, json_)


@app.command("verdicts")
def bench_verdicts_command(json_: Json = False) -> None:
    """Measure how often a gate releases simulated candidates whose true difference is known.

    Beside each stands the bound that is promised, and what the rule before it did: release what a bootstrap
    did not show to be worse.

    Example: `headwater bench verdicts`
    """
    from orchestration.bench.verdicts import bench_verdicts

    settings = read_command_settings("made")
    with quiet_terminal():
        result = bench_verdicts(settings.recipe.engine_gate.tolerance, print_progress)
    print_bench(result, json_)


@app.command("support")
def bench_support_command(
    folders: Annotated[list[Path], typer.Argument(help="Folders of text files, each of one kind of text.")],
    paraphrases: Annotated[
        Path | None, typer.Option(help="A file of {a, b, label, source} lines; `equivalent` ones are true.")
    ] = None,
    tuned: Annotated[
        bool, typer.Option("--tuned", help="The half of the documents that rules were tuned on.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, help="The most sentences of a folder.")] = 400,
    json_: Json = False,
) -> None:
    """Alter and restate sentences of texts, and count which of them pass as supported by their passage.

    Example: `headwater bench support ~/texts/manuals ~/texts/licences --json`
    """
    from orchestration.bench.support.measuring import bench_support

    with quiet_terminal():
        result = bench_support(
            [folder.expanduser() for folder in folders],
            paraphrases and paraphrases.expanduser(),
            "tuned" if tuned else "kept",
            limit,
        )
    print_bench(result, json_)
