"""`headwater releases`, `rollback`, `hold`, `engines`: what is served, what answers, going back, staying."""

import getpass
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

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

if TYPE_CHECKING:
    from assets.engine_releases import EngineRelease
    from retrieval.index.release_log import ReleaseHold
    from retrieval.index.types import IndexRelease

releases_app = typer.Typer(help="Which release is live, what was decided about it, and by whom.")
engines_app = typer.Typer(no_args_is_help=True, help="Which engine answers questions, and since when.")

OptionalReason = Annotated[str, typer.Option("--reason", help="Why, in a sentence; status shows it.")]
Reason = Annotated[str, typer.Option(help="Why, in a sentence; it is recorded.")]


@releases_app.callback(invoke_without_command=True)
def releases_command(context: typer.Context, json_: Json = False) -> None:
    """List the releases that are kept, with their metrics and the table versions that they pin.

    Example: `headwater releases --json`
    """
    if context.invoked_subcommand is not None:
        return
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


@releases_app.command("show")
def releases_show_command(
    tenant: Annotated[str, typer.Option(help="Whose questions.")] = "default", json_: Json = False
) -> None:
    """Show all that can change an answer to a tenant's questions, as it is live now, in one record.

    Example: `headwater releases show --tenant acme`
    """
    from orchestration.operations.ask import open_ask_service

    live = open_ask_service(read_command_settings()).live_record(tenant)
    if json_:
        print_json(asdict(live) | {"digest": live.digest})
    else:
        print_table(
            [{"": name, "value": value or "none"} for name, value in asdict(live).items()], live.digest
        )


@releases_app.command("log")
def releases_log_command(
    most: Annotated[int, typer.Option("--most", min=1, help="How many of the newest are shown.")] = 30,
    json_: Json = False,
) -> None:
    """Show every decision about index, engine and adapters, and every hold: who, when and why, newest first.

    Example: `headwater releases log --most 5`
    """
    from orchestration.operations.ask import open_ask_service

    decisions = open_ask_service(read_command_settings()).index.log.decisions()[::-1][:most]
    told = ("move_id", "at", "kind", "subject", "decision", "digest", "decided_by", "reason")
    rows = [{name: getattr(each, name) for name in told} for each in decisions]
    if json_:
        print_json([row | {"at": row["at"].isoformat()} for row in rows])
    else:
        print_table(
            [row | {"at": f"{row['at']:%Y-%m-%d %H:%M}", "digest": row["digest"] or ""} for row in rows]
        )


@releases_app.command("approve")
def releases_approve_command(
    release: Annotated[str, typer.Argument(help="A release whose evaluation did not decide.")],
    because: Annotated[
        str, typer.Option("--because", help="Why, in a sentence; it is recorded with your name.")
    ],
    json_: Json = False,
) -> None:
    """Decide that a release may go live which was asked too few questions; the next run makes it live.

    Example: `headwater releases approve r2.1 --because "I read fifty answers"`
    """
    from assets.lake.releases import approve_release
    from orchestration.operations.ask import open_ask_service
    from orchestration.settings import open_configured_lake

    settings = read_command_settings()
    index = open_ask_service(settings).index
    approved = approve_release(open_configured_lake(settings), index, release, because)
    if json_:
        print_json({"release": release, "decided_by": approved.decided_by, "reason": approved.reason})
    else:
        console.print(
            f"{release} is approved by {approved.decided_by}: `headwater run` makes it live", markup=False
        )


@releases_app.command("rebuild")
def releases_rebuild_command(json_: Json = False) -> None:
    """Have tables, aliases and MLflow say what the release log says, where they lag behind it.

    Example: `headwater releases rebuild`
    """
    from orchestration.training.consistency import rebuild_projections

    settings = read_command_settings()
    with quiet_terminal():
        behind = rebuild_projections(settings, print_progress)
    if json_:
        print_json({"rebuilt": behind})
    else:
        console.print(
            f"rebuilt: {', '.join(behind)}" if behind else "all follow the release log", markup=False
        )


def rollback_command(
    release: Annotated[
        str | None, typer.Argument(help="Its id; by default the release before the live one.")
    ] = None,
    reason: OptionalReason = "",
    json_: Json = False,
) -> None:
    """Serve an earlier release again, and hold it: no other goes live until `headwater hold --off`.

    Example: `headwater rollback r1.2 --reason "answers about tides are wrong"`
    """
    from assets.lake.releases import roll_back_release
    from orchestration.operations.ask import open_ask_service
    from orchestration.settings import open_configured_lake
    from training.registry.live import follow_release_log

    settings = read_command_settings()
    index = open_ask_service(settings).index
    made = roll_back_release(open_configured_lake(settings), index, release, getpass.getuser(), reason)
    follow_release_log(settings.training_place.registry, index)
    _print_held(made, index.live_hold(), json_)


def hold_command(
    off: Annotated[bool, typer.Option("--off", help="End the hold: releases go live again.")] = False,
    reason: OptionalReason = "",
    json_: Json = False,
) -> None:
    """Hold the live release: runs go on and evaluate, but none goes live until `headwater hold --off`.

    Example: `headwater hold --reason "the auditors look at it"`
    """
    from orchestration.operations.ask import open_ask_service

    index = open_ask_service(read_command_settings()).index
    if not off:
        made = index.hold(None, getpass.getuser(), reason)
        _print_held(made, index.live_hold(), json_)
        return
    ended, live = index.end_hold(getpass.getuser()), index.live()
    newest = next(iter(index.releases()), None)
    if json_:
        print_json(
            {
                "release": live.release_id if live else None,
                "newest": newest.release_id if newest else None,
                "held": None,
                "ended": _hold_row(ended),
            }
        )
        return
    console.print(f"{ended.release_id} is no longer held" if ended else "no release was held", markup=False)
    if live is None or newest is None:
        return
    console.print(
        f"{live.release_id} stays live until `headwater run` finds an approved state that never was live",
        markup=False,
        soft_wrap=True,
    )
    if newest.release_id != live.release_id:
        console.print(
            f"{newest.release_id} is newer and was live before, so no run makes it live again: "
            f"`headwater rollback {newest.release_id}` does, and holds it",
            markup=False,
            soft_wrap=True,
        )


def _print_held(made: "IndexRelease", hold: "ReleaseHold | None", json_: bool) -> None:
    if json_:
        row = {"release": made.release_id, "generation": made.generation, "epoch": made.epoch}
        print_json(row | {"held": _hold_row(hold)})
        return
    console.print(f"live: release [bold]{made.release_id}[/]")
    if hold is not None:
        console.print(f"{hold}; no other goes live until `headwater hold --off`", markup=False)


def _hold_row(hold: "ReleaseHold | None") -> dict[str, str] | None:
    if hold is None:
        return None
    return {"by": hold.held_by, "reason": hold.reason, "since": hold.held_since.isoformat(timespec="seconds")}


@engines_app.command("list")
def engines_list_command(json_: Json = False) -> None:
    """List what was decided about engines, newest first; say which one answers, and why another is held.

    Until the first decision, the engine that the settings name answers.

    Example: `headwater engines list`
    """
    from assets.engine_releases import engine_releases, engine_standing
    from inference.engines.generator import engine_name
    from orchestration.operations.ask import open_ask_service

    settings = read_command_settings()
    decisions = engine_releases(open_ask_service(settings).index.log)
    standing = engine_standing(decisions, settings.generator)
    answering = engine_name(standing.answering)
    if json_:
        print_json(
            {
                "answers": answering,
                "configured": engine_name(settings.generator),
                "held_because": standing.held_because(),
                "decisions": [each.model_dump(mode="json") for each in decisions],
            }
        )
        return
    shown = {"engine", "generator_digest", "decision", "questions", "reason"}
    rows = [
        {"live": "●" if each == standing.live else "", "decided_at": f"{each.decided_at:%Y-%m-%d %H:%M}"}
        | each.model_dump(include=shown)
        for each in decisions
    ]
    print_table(rows)
    console.print(standing.held_because() or f"{answering} answers, as the settings name it", markup=False)


@engines_app.command("promote")
def engines_promote_command(reason: Reason, json_: Json = False) -> None:
    """Have the engine that the settings name answer, measured or not.

    `headwater evaluate-answers QUESTIONS --gate` measures it first.

    Example: `headwater engines promote --reason "the endpoint moved"`
    """
    from orchestration.answer_evaluation.engine_gate import promote_engine

    settings = read_command_settings()
    with quiet_terminal():
        decision = promote_engine(settings, reason)
    _print_decision(decision, json_)


@engines_app.command("rollback")
def engines_rollback_command(
    reason: Reason,
    digest: Annotated[
        str | None,
        typer.Argument(metavar="DIGEST", help="Its digest; by default the engine that answered before."),
    ] = None,
    json_: Json = False,
) -> None:
    """Have an earlier engine answer again, whatever the settings name.

    Example: `headwater engines rollback --reason "it refuses too much"`
    """
    from orchestration.answer_evaluation.engine_gate import return_to_engine

    settings = read_command_settings()
    with quiet_terminal():
        decision = return_to_engine(settings, digest, reason)
    _print_decision(decision, json_)


def _print_decision(decision: "EngineRelease", json_: bool) -> None:
    if json_:
        print_json(decision.model_dump(mode="json"))
    else:
        console.print(f"{decision.engine} ({decision.generator_digest}) answers now", markup=False)
