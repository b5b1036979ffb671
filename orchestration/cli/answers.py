"""`headwater answers`: what was answered, and what the same question finds then and now."""

from typing import Annotated

import typer

from orchestration.cli.terminal import Json, console, print_json, print_table, read_settings, working

app = typer.Typer(no_args_is_help=True, help="What was answered, and what the same question finds now.")

AnswerId = Annotated[str, typer.Argument(metavar="ANSWER_ID", help="As `headwater answers list` says it.")]


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, help="At most so many, newest first.")] = 20,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    json_: Json = False,
) -> None:
    """List the newest answers.

    Example: `headwater answers list --limit 5`
    """
    from orchestration.operations.replay import answers
    from orchestration.settings import open_lake

    rows = answers(open_lake(read_settings()), limit, tenant)
    if json_:
        print_json(rows)
    else:
        print_table([row | {"answered_at": f"{row['answered_at']:%Y-%m-%d %H:%M}"} for row in rows])


@app.command()
def show(answer_id: AnswerId, json_: Json = False) -> None:
    """Show an answer with its citations, and what it was chosen from.

    Example: `headwater answers show 0f3c…`
    """
    from orchestration.cli.render import answer_text
    from orchestration.operations.replay import stored_answer
    from orchestration.settings import open_lake

    row = stored_answer(open_lake(read_settings()), answer_id)
    if json_:
        print_json(row)
    else:
        console.print(answer_text(row["question"], row | {"release": row["release_id"]}))


@app.command()
def replay(answer_id: AnswerId, json_: Json = False) -> None:
    """Retrieve for an old answer's question again: from its release, and from the live one.

    Example: `headwater answers replay 0f3c…`
    """
    from orchestration.operations.ask import open_query_service
    from orchestration.operations.replay import replay as run
    from orchestration.settings import open_lake

    settings = read_settings()
    with working():
        found = run(open_lake(settings), open_query_service(settings), answer_id).to_dict()
    if json_:
        print_json(found)
        return
    ranks = {hit["chunk_id"]: hit["rank"] for hit in found["now"]}
    then = {chunk_id: rank for rank, chunk_id in enumerate(found["then"], start=1)}
    at_release = {hit["chunk_id"]: hit for hit in found["at_release"]}
    hits = at_release | {hit["chunk_id"]: hit for hit in found["now"] if hit["chunk_id"] not in at_release}
    rows = [
        {
            "then": then.get(chunk_id),
            found["release"]: at_release[chunk_id]["rank"] if chunk_id in at_release else None,
            f"{found['live']} (live)": ranks.get(chunk_id),
            "chunk": chunk_id[:12],
            "uri": hit["uri"],
        }
        for chunk_id, hit in hits.items()
    ]
    print_table(rows, found["question"])
    verdict = "gives what it gave" if found["reproduced"] else "gives something else than it gave"
    console.print(f"release {found['release']} {verdict}")
    for chunk_id in found["since_then"]["went"]:
        console.print(f"not found any more: {chunk_id}")
