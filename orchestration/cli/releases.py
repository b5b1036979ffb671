"""`headwater releases` and `rollback`: what can be served, and going back to it."""

from typing import Annotated

import typer

from orchestration.cli.terminal import Json, console, print_json, print_table, read_settings


def releases_command(json_: Json = False) -> None:
    """List the releases that can be served, with their metrics and the versions they pin.

    Example: `headwater releases --json`
    """
    from orchestration.operations.ask import open_query_service

    service = open_query_service(read_settings())
    live = service.index.live()
    rows = [
        {
            "release": each.release_id,
            "live": live is not None and each.release_id == live.release_id,
            "released_at": each.released_at.isoformat(),
            "generation": each.generation,
            "epoch": each.epoch,
            "metrics": each.details["metrics"],
            "versions": each.details["versions"],
        }
        for each in service.index.releases()
    ]
    if json_:
        print_json(rows)
        return
    for row in rows:
        metrics, versions = row["metrics"], row["versions"]
        row["live"] = "●" if row["live"] else ""
        row["metrics"] = ", ".join(f"{n} {metrics[n]:.3f}" for n in ("ndcg@10", "recall@10") if n in metrics)
        row["versions"] = " ".join(f"{name}@{version}" for name, version in versions.items())
    print_table(rows)


def rollback_command(
    release: Annotated[str | None, typer.Argument(help="The one before the live one unless given.")] = None,
    json_: Json = False,
) -> None:
    """Serve an earlier release again.

    Example: `headwater rollback r1.2`
    """
    from assets.ops import roll_back
    from orchestration.operations.ask import open_query_service
    from orchestration.settings import open_lake

    settings = read_settings()
    made = roll_back(open_lake(settings), open_query_service(settings).index, release)
    if json_:
        print_json({"release": made.release_id, "generation": made.generation, "epoch": made.epoch})
    else:
        console.print(f"live: release [bold]{made.release_id}[/]")
