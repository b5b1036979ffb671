"""`headwater answers`: what was answered, and what the same question finds now."""

from typing import TYPE_CHECKING, Annotated

import typer

from orchestration.cli.terminal import (
    Json,
    console,
    print_json,
    print_table,
    quiet_terminal,
    read_command_settings,
)

if TYPE_CHECKING:
    from orchestration.operations.replay import AnswerReplay

app = typer.Typer(no_args_is_help=True, help="What was answered, and what the same question finds now.")

AnswerId = Annotated[str, typer.Argument(metavar="ANSWER_ID", help="An id from `headwater answers list`.")]


@app.command("list")
def answers_list_command(
    limit: Annotated[int, typer.Option(min=1, help="How many answers at most, newest first.")] = 20,
    tenant: Annotated[str | None, typer.Option(help="Only answers to this tenant.")] = None,
    json_: Json = False,
) -> None:
    """List the newest answers.

    Example: `headwater answers list --limit 5`
    """
    from assets.lake.answers import recent_stored_answers
    from orchestration.settings import open_configured_lake

    shown = ("answer_id", "answered_at", "tenant", "question", "release_id", "refused")
    rows = [
        {name: getattr(answer, name) for name in shown}
        for answer in recent_stored_answers(open_configured_lake(read_command_settings()), limit, tenant)
    ]
    if json_:
        print_json(rows)
    else:
        print_table([row | {"answered_at": f"{row['answered_at']:%Y-%m-%d %H:%M}"} for row in rows])


@app.command("show")
def answers_show_command(answer_id: AnswerId, json_: Json = False) -> None:
    """Show an answer with its citations, and what it was chosen from.

    Example: `headwater answers show 0f3c…`
    """
    from assets.lake.answers import find_stored_answer
    from orchestration.cli.render import render_answer
    from orchestration.settings import open_configured_lake

    row = find_stored_answer(open_configured_lake(read_command_settings()), answer_id).model_dump()
    if json_:
        print_json(row)
    else:
        console.print(render_answer(row["question"], row | {"release": row["release_id"]}))


@app.command("replay")
def answers_replay_command(answer_id: AnswerId, json_: Json = False) -> None:
    """Retrieve for an old answer's question again: from its release, and from the live one.

    Example: `headwater answers replay 0f3c…`
    """
    from orchestration.operations.ask import open_ask_service
    from orchestration.operations.replay import replay_answer
    from orchestration.settings import open_configured_lake

    settings = read_command_settings()
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
            "chunk": chunk_id[:12],
            "uri": hit.uri,
        }
        for chunk_id, hit in (at_live | at_release).items()
    ]
