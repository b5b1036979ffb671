"""`headwater up`, `down`, `status`, `doctor`, `settings`, `backup`, `restore`: running a state folder."""

import os
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
    pass


def up_command(
    jdbc: Annotated[
        bool,
        typer.Option("--jdbc", help="Start the JDBC endpoint too, for one user with a password."),
    ] = False,
    path_prefix: Annotated[
        str | None,
        typer.Option(
            help="The path under which the web UI lies, behind a proxy that serves more than it. "
            "HEADWATER_WEB_PATH_PREFIX says it to `headwater run` too, whose checks link to Data Docs.",
            show_default=False,
        ),
    ] = None,
    json_: Json = False,
) -> None:
    """Start the web UI and the daemon, on loopback unless HEADWATER_WEB_ADDRESS says otherwise.

    Example: `HEADWATER_WEB_PORT=3100 headwater up --path-prefix /lake`
    """
    from orchestration.services import lifecycle

    if path_prefix is not None:
        os.environ["HEADWATER_WEB_PATH_PREFIX"] = path_prefix
    settings = read_command_settings("made")
    with quiet_terminal():
        from orchestration.settings import open_configured_lake
        from orchestration.training.consistency import rebuild_projections

        open_configured_lake(settings)
        if any(settings.models_folder.glob("registry/*/*")):  # a process may have died before they followed
            rebuild_projections(settings, print_progress)
        found = lifecycle.start_services(settings, print_progress, jdbc=jdbc)
    _print_services(found, json_)
    if jdbc and not json_:
        from orchestration.services.jdbc import JDBC_USER, jdbc_password_file

        url = next(status.address for status in found if status.service == "thrift")
        file = jdbc_password_file(settings.home)
        console.print(f"{url}: the user is {JDBC_USER}, the password is in {file}", soft_wrap=True)


def down_command(json_: Json = False) -> None:
    """Stop everything that `headwater up` started.

    Example: `headwater down`
    """
    from orchestration.services import lifecycle

    stopped = lifecycle.stop_services(read_command_settings(), print_progress)
    if json_:
        print_json({"stopped": stopped})
    else:
        console.print(f"stopped: {', '.join(stopped) or 'nothing ran'}")


def status_command(json_: Json = False) -> None:
    """Show what runs, which release is live and how old it is, which engine answers, and what is wrong.

    The exit code is 1 when something is wrong; what to do about it is said in a line each.

    Example: `headwater status --json`
    """
    from orchestration.preview.run_preview import rebuild_lines
    from orchestration.services.status import state_status

    settings = read_command_settings()
    found, rebuilds = state_status(settings), rebuild_lines(settings)
    if json_:
        print_json(found.to_dict() | {"rebuilds": rebuilds})
        if found.problems:
            raise typer.Exit(1)
        return
    _print_services(found.services, json_=False)
    live = found.live.to_dict() if found.live else {"release": _why_nothing_live(found.stored_release)}
    print_table([{name: value for name, value in live.items() if name != "held"}], "live")
    if found.live and found.live.held:
        console.print(f"{found.live.held}; `headwater hold --off` ends that", markup=False, soft_wrap=True)
    console.print(f"questions are answered by: {found.engine}", markup=False)
    print_table([asdict(run) for run in found.runs], "last runs")
    for line in rebuilds:
        console.print(f"the next run: {line}", soft_wrap=True)
    for line in found.models:
        console.print(line, markup=False, soft_wrap=True)
    for problem in found.problems:
        console.print(f"[bold red]✗[/] {problem}", soft_wrap=True)
    if not any(service.wanted for service in found.services):
        console.print("the services are stopped: `headwater up` starts them", markup=False)
    if found.problems:
        raise typer.Exit(1)
    console.print("nothing is wrong")


def doctor_command(json_: Json = False) -> None:
    """Check Java, disk, ports, versions and models, and say how to fix what is missing.

    Example: `headwater doctor`
    """
    from orchestration.operations.doctor import run_doctor

    found = run_doctor(read_command_settings("optional"))
    if json_:
        print_json([asdict(check) for check in found])
    else:
        print_table([asdict(check) | {"ok": "✓" if check.ok else "✗"} for check in found])
    if not all(check.ok for check in found):
        raise typer.Exit(1)


def settings_command(json_: Json = False) -> None:
    """List every setting: its environment variable, its value, and where the value comes from.

    Rows `embedders.…` name models that set-up can install, their folder, and the command that does it.

    Example: `HEADWATER_RECIPE__MINHASH__JACCARD_THRESHOLD=0.9 headwater settings`
    """
    from orchestration.settings import list_installable_embedders, list_settings

    listed = [*list_settings(read_command_settings("optional")), *list_installable_embedders()]
    rows = [setting.to_dict() for setting in listed]
    if json_:
        print_json(rows)
    else:
        print_table(rows)


def backup_command(
    file: Annotated[Path, typer.Argument(help="The tar file to write.")],
    json_: Json = False,
) -> None:
    """Back up the whole state folder to one file; nothing has to stop for it.

    Example: `headwater backup ~/headwater-monday.tar`
    """
    from orchestration.operations.backup import BACKUP_KEY_FILE, write_backup

    settings = read_command_settings()
    with quiet_terminal():
        made = write_backup(settings, file.expanduser().absolute(), print_progress)
    if json_:
        print_json(asdict(made))
    else:
        size_mb = made.size_bytes / 1e6
        console.print(f"{made.file}: {counted(made.files, 'file')}, {size_mb:.1f} MB, release {made.release}")
        key = settings.home / BACKUP_KEY_FILE
        console.print(f"keep a copy of {key} elsewhere: a restore needs it, and no backup holds it")


def restore_command(
    file: Annotated[Path, typer.Argument(help="A file that `headwater backup` wrote.")],
    key: Annotated[
        Path | None,
        typer.Option(
            help="The `backup.key` of the state folder that it was made from; "
            "by default the one in the new state folder, where that holds nothing else.",
            show_default=False,
        ),
    ] = None,
    json_: Json = False,
) -> None:
    """Restore a backup into an empty state folder.

    Example: `HEADWATER_HOME=~/restored headwater restore ~/headwater-monday.tar --key ~/backup.key`
    """
    from orchestration.operations.backup import restore_backup

    settings = read_command_settings("made")
    with quiet_terminal():
        made = restore_backup(
            settings, file.expanduser().absolute(), print_progress, key.expanduser() if key else None
        )
    if json_:
        print_json(asdict(made))
    else:
        console.print(f"{settings.home}: release {made.release}, {counted(made.chunks, 'chunk')} served")


def _why_nothing_live(stored_release: str | None) -> str:
    """Returns why no live release is shown: only PostgreSQL knows which it is, and it may be stopped."""
    if stored_release is None:
        return "nothing is released yet: headwater ingest PATH"
    return f"{stored_release} went live last; PostgreSQL is stopped, and headwater up or any search starts it"


def _print_services(found: list[Any], json_: bool) -> None:
    rows = [asdict(each) for each in found]
    if json_:
        print_json(rows)
        return
    for row in rows:
        if hangs := row["hangs"]:
            row["restarts"] = f"{row['restarts']} (hung: {hangs})"
        for told in ("wanted", "given_up", "fault", "hangs", "unanswered"):  # by what is said to be wrong
            del row[told]
        row["uptime_s"] = None if row["uptime_s"] is None else f"{row['uptime_s']:.0f}"
        row["healthy"] = "✓" if row["healthy"] else "✗"
    print_table(rows)
