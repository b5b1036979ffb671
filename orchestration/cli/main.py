"""The `headwater` command line. Each command imports what is slow to import when it runs."""

import atexit
import errno
import io
import os
import shutil
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from common.atomic_files import PRIVATE_UMASK
from common.rooms import ROOMS
from orchestration.cli import (
    answers,
    bench,
    evaluate,
    gates,
    ingest,
    lake,
    releases,
    search,
    services,
)
from orchestration.cli.sources import source, tenant
from orchestration.cli.terminal import log
from orchestration.cli.training import datasets, models, train

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

app = typer.Typer(
    name="headwater",
    help="A lakehouse and a cited retrieval index from one heap of documents, kept in step.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
_CODE = Path(__file__).parents[2]
_FULL_BYTES = 1 << 20
"""A disk with less room counts as full."""


def main() -> None:
    """Runs `headwater`."""
    run_commands(app)


def run_commands(commands: typer.Typer) -> None:
    """Runs a command line: an error is one message and exit code 1, never a traceback."""
    os.umask(PRIVATE_UMASK)
    atexit.register(_end_quietly)
    # Processes of Python that this one starts do not import from the folder that it is called in.
    os.environ["PYTHONSAFEPATH"] = "1"
    # Read on import: the bars of libraries would stand between the lines of progress.
    os.environ.setdefault("TQDM_DISABLE", "1")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a locale without a character, an argument that is no text
            stream.reconfigure(errors="backslashreplace")
    try:
        commands()
    except Exception as error:
        log.print(f"[bold red]error:[/] {_message(error)}", soft_wrap=True)
        _keep_traceback(told=not _is_expected(error))
        sys.exit(1)


def _end_quietly() -> None:
    """Ends standard error before the interpreter takes itself apart.

    DuckDB's binding then lists, in a dozen lines, what others still refer to; nothing of ours is said then.
    """
    with suppress(OSError, ValueError):  # closed already
        sys.stderr.flush()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)


def _message(error: Exception) -> str:
    from pydantic import ValidationError
    from rich.markup import escape

    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    if isinstance(error, ValidationError):
        text = "; ".join(_fault(each) for each in error.errors(include_url=False))
    if isinstance(error, ModuleNotFoundError) and (advice := _missing_package_advice(error)):
        text = f"{error.name} is not installed: {advice}"
    text = text or type(error).__name__
    refused = isinstance(error, OSError) and error.errno in _NO_ROOM
    # Libraries report a full disk in their own words, or not at all.
    if refused or (_home().is_dir() and shutil.disk_usage(_home()).free < _FULL_BYTES):
        text += (
            f"\nthe disk that holds {_home()} is full or takes no more: make room, or name "
            "another state folder with HEADWATER_HOME; `headwater run` continues from what was committed"
        )
    return escape(_without_secrets(text))


def _missing_package_advice(error: ModuleNotFoundError) -> str | None:
    from orchestration.environment.extras import missing_package_advice

    return missing_package_advice(error.name) if error.name else None


def _fault(fault: "ErrorDetails") -> str:
    """Returns what is wrong with a value that was given, such as `name: String should match pattern …`."""
    said = fault["msg"].removeprefix("Value error, ")
    return ": ".join([*(str(part) for part in fault["loc"]), said])


def _without_secrets(text: str) -> str:
    """Returns a text without the secrets of the settings and the credentials of URLs."""
    from common.redaction import redact_secrets

    secrets: list[str] = []
    with suppress(Exception):  # the settings may be what is wrong
        from orchestration.settings import Settings, secret_setting_values

        secrets = secret_setting_values(Settings())
    return redact_secrets(text, secrets)


def _home() -> Path:
    """Returns the state folder, also when the settings are not valid."""
    from orchestration.state_folder import default_state_folder, named_state_folder

    return named_state_folder() or default_state_folder()


def _is_expected(error: Exception) -> bool:
    """Returns whether an error was raised on purpose: its message is for the user, its traceback for nobody.

    Its class is one of ours, or the statement that raised it is one of ours that raises.
    """
    from pydantic import ValidationError

    if isinstance(error, ValidationError) or type(error).__module__.partition(".")[0] in ROOMS:
        return True
    if isinstance(error, ModuleNotFoundError) and _missing_package_advice(error):
        return True
    last = traceback.extract_tb(error.__traceback__)[-1]
    ours = any(Path(last.filename).is_relative_to(_CODE / room) for room in ROOMS)
    return ours and (last.line or "").startswith("raise ")


def _keep_traceback(told: bool) -> None:
    """Writes the traceback to a log in the state folder, or prints it if HEADWATER_DEBUG is set.

    Args:
        told: Whether the user is told where it is.
    """
    if os.environ.get("HEADWATER_DEBUG"):
        log.print(_without_secrets(traceback.format_exc()), markup=False, soft_wrap=True)
        return
    home = _home()
    if not home.is_dir() or not os.access(home, os.W_OK) or home.stat().st_uid != os.geteuid():
        return
    with suppress(OSError):  # the disk may be full
        (home / "logs").mkdir(exist_ok=True)
        with (home / "logs" / "errors.log").open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(_without_secrets(f"$ {' '.join(sys.argv)}\n{traceback.format_exc()}\n"))
        if told:
            log.print(f"[dim]traceback in {home / 'logs' / 'errors.log'}[/]", soft_wrap=True)


# `--help` lists them in this order.
app.command("demo")(ingest.demo_command)
app.command("ingest")(ingest.ingest_command)
app.command("run")(ingest.run_command)
app.command("ask")(search.ask_command)
app.command("search")(search.search_command)
app.command("sql")(lake.sql_command)
app.command("trace")(lake.trace_command)
app.add_typer(releases.releases_app, name="releases")
app.command("rollback")(releases.rollback_command)
app.command("hold")(releases.hold_command)
app.command("settings")(services.settings_command)
app.add_typer(source.app, name="source")
app.add_typer(tenant.app, name="tenant")
app.add_typer(gates.quarantine_app, name="quarantine")
app.add_typer(gates.app, name="gates")
app.add_typer(answers.app, name="answers")
app.add_typer(releases.engines_app, name="engines")
app.add_typer(datasets.app, name="datasets")
app.add_typer(train.app, name="train")
app.add_typer(models.models_app, name="models")
app.add_typer(bench.app, name="bench")
app.command("evaluate")(evaluate.evaluate_command)
app.command("evaluate-answers")(evaluate.evaluate_answers_command)
app.command("up")(services.up_command)
app.command("down")(services.down_command)
app.command("status")(services.status_command)
app.command("doctor")(services.doctor_command)
app.command("backup")(services.backup_command)
app.command("restore")(services.restore_command)


if __name__ == "__main__":
    main()
