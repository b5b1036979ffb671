"""`headwater releases` and `rollback`: list the releases that are kept, and serve an earlier one."""

from typing import Annotated

import typer

from orchestration.cli.terminal import Json, console, print_json, print_table, read_command_settings


def releases_command(json_: Json = False) -> None:
    """List the releases that are kept, with their metrics and the table versions that they pin.

    Example: `headwater releases --json`
    """
    from orchestration.cli.render import render_release_row
    from orchestration.operations.ask import open_ask_service

    index = open_ask_service(read_command_settings()).index
    live, served = index.live(), index.releases()
    if not json_:
        print_table([render_release_row(each, live) for each in served])
        return
    print_json(
        [
            {
                "release": each.release_id,
                "live": live is not None and each.release_id == live.release_id,
                "released_at": each.released_at.isoformat(),
                "generation": each.generation,
                "epoch": each.epoch,
                "metrics": each.details.metrics,
                "versions": each.details.versions,
            }
            for each in served
        ]
    )


def rollback_command(
    release: Annotated[
        str | None, typer.Argument(help="Its id; by default the release before the live one.")
    ] = None,
    json_: Json = False,
) -> None:
    """Serve an earlier release again.

    Example: `headwater rollback r1.2`
    """
    from assets.lake.releases import roll_back_release
    from orchestration.operations.ask import open_ask_service
    from orchestration.settings import open_configured_lake

    settings = read_command_settings()
    made = roll_back_release(open_configured_lake(settings), open_ask_service(settings).index, release)
    if json_:
        print_json({"release": made.release_id, "generation": made.generation, "epoch": made.epoch})
    else:
        console.print(f"live: release [bold]{made.release_id}[/]")
