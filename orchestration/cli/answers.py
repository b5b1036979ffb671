"""`headwater answers`: sets of questions, what was answered, and what the same question finds now."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

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
    from orchestration.operations.replay import AnswerReplay

app = typer.Typer(
    no_args_is_help=True, help="Answer many questions, show what was answered, and what a question finds now."
)

_SHOWN_FAILURES = 20
_SHOWN_FACTS = (
    *("answered_at", "tenant", "access_groups", "batch", "question_id", "outcome", "search_mode"),
    *("retrieval_digest", "engine", "generator_digest", "chosen_because", "prompt_tokens"),
    *("completion_tokens", "cost_usd"),
)
"""The facts about an answer that are printed where there are any."""

AnswerId = Annotated[
    str, typer.Argument(metavar="ANSWER_ID", help="An id from `headwater answers list`, or its beginning.")
]


@app.command("run")
def answers_run_command(
    questions: Annotated[
        Path,
        typer.Argument(
            metavar="QUESTIONS",
            help="JSON lines with `id` and `question`, and optionally `tenant`, `groups`, `as_of`; "
            "or a Delta table of such rows.",
        ),
    ],
    name: Annotated[str, typer.Option(help="The name of the batch.")],
    json_: Json = False,
) -> None:
    """Answer many questions. Run it again after it was stopped: it answers only what is missing.

    It exits with 1 where a question has no answer; the others are kept.

    Example: `headwater answers run questions.jsonl --name march`
    """
    from assets.answers.batches import AnswerBatches
    from orchestration.operations.runs import RunFailed, execute_answers_run

    settings = read_command_settings()
    batches = AnswerBatches(settings.batches_dir)
    batches.add(name, questions.expanduser())
    with quiet_terminal():
        run = execute_answers_run(settings, name, print_progress)
    outcome = batches.outcome(name)
    if outcome is not None:
        for failed in outcome.failed[:_SHOWN_FAILURES]:
            print_progress(f"failed: {failed}")
        if (more := len(outcome.failed) - _SHOWN_FAILURES) > 0:
            print_progress(f"and {more} more: `headwater answers batches --json` has them all")
    if run.failures or outcome is None:
        raise RunFailed("\n".join(run.failures))
    if json_:
        print_json(outcome.to_dict())
    else:
        console.print(
            f"{name}: {outcome.answered:,} of {counted(outcome.questions, 'question')} answered, "
            f"{len(outcome.failed)} failed; {outcome.computed} answered now in {outcome.seconds:.1f} s, "
            f"{outcome.questions_per_s:.1f} per second, {counted(outcome.shards, 'commit')}",
            markup=False,
        )
    if outcome.failed:
        raise RunFailed(
            f"{len(outcome.failed):,} of {counted(outcome.questions, 'question')} not answered: mend what is "
            f"said of each, and `headwater answers run {questions} --name {name}` asks these alone"
        )


@app.command("batches")
def answers_batches_command(json_: Json = False) -> None:
    """List the batches, with what became of each in its last run.

    Example: `headwater answers batches`
    """
    from assets.answers.batches import AnswerBatches

    batches = AnswerBatches(read_command_settings().batches_dir)
    found = [outcome for name in batches.names() if (outcome := batches.outcome(name)) is not None]
    if json_:
        rows = [each.to_dict() | {"failures": [asdict(fault) for fault in each.failed]} for each in found]
        print_json(rows)
    else:
        print_table([each.to_dict() for each in found])


@app.command("export")
def answers_export_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name of a batch.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write.")],
    format_: Annotated[
        Literal["jsonl", "parquet"] | None,
        typer.Option("--format", help="By default as the file's name ends."),
    ] = None,
    json_: Json = False,
) -> None:
    """Write the newest answer to each question of a batch to a file.

    Example: `headwater answers export march march.jsonl`
    """
    from assets.answers.batches import AnswerBatches
    from assets.answers.stored import export_stored_batch
    from orchestration.settings import open_configured_lake

    file = file.expanduser()
    if not file.parent.is_dir():
        raise typer.BadParameter(f"there is no folder {file.parent}")
    settings = read_command_settings()
    AnswerBatches(settings.batches_dir).questions(name)  # whether there is one
    parquet = format_ == "parquet" or (format_ is None and file.suffix == ".parquet")
    rows = export_stored_batch(open_configured_lake(settings), name, file, parquet)
    if json_:
        print_json({"name": name, "answers": rows, "file": str(file)})
    else:
        console.print(f"wrote {counted(rows, 'answer')} to {file}", markup=False)


@app.command("list")
def answers_list_command(
    limit: Annotated[int, typer.Option(min=1, help="How many answers at most, newest first.")] = 20,
    tenant: Annotated[str | None, typer.Option(help="Only answers to this tenant.")] = None,
    batch: Annotated[str | None, typer.Option(help="Only answers of this batch.")] = None,
    json_: Json = False,
) -> None:
    """List the newest answers.

    Example: `headwater answers list --limit 5`
    """
    from assets.answers.ratings import newest_ratings
    from assets.answers.stored import recent_stored_answers
    from orchestration.settings import open_configured_lake

    shown = ("answer_id", "answered_at", "tenant", "question", "release_id", "refused", "outcome")
    lake = open_configured_lake(read_command_settings())
    found = recent_stored_answers(lake, limit, tenant, batch)
    ratings = newest_ratings(lake, [answer.answer_id for answer in found])
    rows = [
        {name: getattr(answer, name) for name in shown}
        | {"rating": rated.rating if (rated := ratings.get(answer.answer_id)) else None}
        for answer in found
    ]
    if json_:
        print_json(rows)
    else:
        print_table([row | {"answered_at": f"{row['answered_at']:%Y-%m-%d %H:%M}"} for row in rows])


@app.command("show")
def answers_show_command(answer_id: AnswerId, json_: Json = False) -> None:
    """Show an answer with its citations, and who was answered when, by which engine and why.

    `--json` has the retrieved chunks too.

    Example: `headwater answers show 0f3c`
    """
    from assets.answers.ratings import newest_ratings
    from assets.answers.stored import find_stored_answer
    from orchestration.cli.render import render_answer
    from orchestration.settings import open_configured_lake

    lake = open_configured_lake(read_command_settings())
    row = find_stored_answer(lake, answer_id).model_dump()
    rated = newest_ratings(lake, [row["answer_id"]]).get(row["answer_id"])
    if json_:
        print_json(row | {"rating": asdict(rated) if rated else None})
    else:
        console.print(render_answer(row["question"], row | {"release": row["release_id"]}))
        for name in _SHOWN_FACTS:
            if row[name] is not None:
                console.print(f"{name}: {row[name]}", markup=False, soft_wrap=True)
        if rated:
            why = f": {rated.reason}" if rated.reason else ""
            console.print(f"rating: {rated.rating}, by {rated.rater}{why}", markup=False, soft_wrap=True)


@app.command("rate")
def answers_rate_command(
    target: Annotated[
        str,
        typer.Argument(
            metavar="ANSWER_ID|BATCH",
            help="An id from `headwater answers list`, or with `--known` the name of a batch.",
        ),
    ],
    rating: Annotated[Literal["good", "bad"] | None, typer.Argument(help="What you think of it.")] = None,
    reason: Annotated[str | None, typer.Option(help="Why, in a sentence.")] = None,
    known: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Rate a batch by known answers: JSON lines with `question` and `exact_answer`, and "
            'optionally `uri`, or `"answerable": false`, as `evaluate-answers` reads them.',
        ),
    ] = None,
    tenant: Annotated[str, typer.Option(help="With `--known`: whose answers are rated.")] = "default",
    json_: Json = False,
) -> None:
    """Say whether an answer is good, or have known answers say it of a batch. The newest rating counts.

    Training sets learn from good ones: the next `headwater run` or `headwater datasets snapshot` takes them.

    Example: `headwater answers rate 0f3c good`, or `headwater answers rate march --known known.jsonl`
    """
    from assets.answers.batches import AnswerBatches
    from assets.answers.ratings import rate_answer
    from orchestration.operations.rating import rate_batch_by_file
    from orchestration.settings import open_configured_lake

    settings = read_command_settings()
    if (known is None) == (rating is None):
        raise typer.BadParameter("give either good or bad, for an answer, or --known FILE, for a batch")
    if rating is not None and target in AnswerBatches(settings.batches_dir).names():
        raise typer.BadParameter(f"{target} is a batch: --known FILE rates its answers by known ones")
    if rating is not None:
        rated = rate_answer(open_configured_lake(settings), target, rating, reason)
        if json_:
            print_json(asdict(rated))
        else:
            console.print(f"{rated.answer_id}: {rated.rating}", markup=False)
        return
    if reason is not None:
        raise typer.BadParameter("--reason is for the rating of one answer: known answers say why")
    assert known is not None  # noqa: S101 - one of both is given
    of_batch = rate_batch_by_file(settings, target, tenant, known.expanduser())
    if json_:
        print_json(asdict(of_batch))
        return
    console.print(
        f"{target}: {of_batch.good:,} good, {of_batch.bad:,} bad; {of_batch.not_judged:,} whose known answer "
        f"does not decide, {of_batch.unknown:,} whose question is not in {known}, "
        f"{of_batch.by_person:,} that a person has rated, which stay so",
        markup=False,
        soft_wrap=True,
    )
    print_table([{"reason": reason, "answers": count} for reason, count in of_batch.reasons.items()])


@app.command("replay")
def answers_replay_command(
    answer_id: Annotated[
        str,
        typer.Argument(
            metavar="ANSWER_ID|BATCH", help="An id from `headwater answers list`, or the name of a batch."
        ),
    ],
    json_: Json = False,
) -> None:
    """Ask again what was asked.

    Of an answer: what its question finds in the release that it is from, and in the live one. Of a batch: all
    questions are answered again, each from the release of its answer, and what is not equal is listed.
    Nothing is recorded.

    Example: `headwater answers replay march`
    """
    from assets.answers.batches import AnswerBatches
    from orchestration.operations.ask import open_ask_service
    from orchestration.operations.replay import replay_answer, replay_batch
    from orchestration.settings import open_configured_lake

    settings = read_command_settings()
    if answer_id in AnswerBatches(settings.batches_dir).names():
        with quiet_terminal():
            batch = replay_batch(open_configured_lake(settings), open_ask_service(settings), answer_id)
        if json_:
            print_json(batch.to_dict())
            return
        if batch.differing:
            print_table([asdict(each) | {"differs": ", ".join(each.differs)} for each in batch.differing])
        equal = batch.answers - len(batch.differing)
        console.print(
            f"{equal:,} of {counted(batch.answers, 'answer')} equal, by {batch.engine} now", markup=False
        )
        return
    with quiet_terminal():
        replay = replay_answer(open_configured_lake(settings), open_ask_service(settings), answer_id)
    if json_:
        print_json(replay.to_dict())
        return
    print_table(_rank_rows(replay), replay.question)
    verdict = "gives what it gave" if replay.reproduced else "gives something else than it gave"
    console.print(f"release {replay.release_id} {verdict}")
    for chunk_id in replay.lost:
        console.print(f"no longer found: {chunk_id}")


def _rank_rows(replay: "AnswerReplay") -> list[dict[str, object]]:
    """One row per chunk: its rank then, at the answer's release now, and at the live release."""
    then = {chunk_id: rank for rank, chunk_id in enumerate(replay.recorded, start=1)}
    at_release = {hit.chunk_id: hit for hit in replay.at_release}
    at_live = {hit.chunk_id: hit for hit in replay.at_live}
    return [
        {
            "then": then.get(chunk_id),
            replay.release_id: at_release[chunk_id].rank if chunk_id in at_release else None,
            f"{replay.live_release_id} (live)": at_live[chunk_id].rank if chunk_id in at_live else None,
            "chunk": chunk_id,
            "uri": hit.uri,
        }
        for chunk_id, hit in (at_live | at_release).items()
    ]
