"""Printing results as tables or JSON, and the options that commands share."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from orchestration.settings import Settings

console = Console()
log = Console(stderr=True, highlight=False)

Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on standard output.")]
Tenant = Annotated[str, typer.Option(help="The tenant whose documents are meant.")]
Groups = Annotated[
    list[str] | None,
    typer.Option("--group", help="A group that the user is in; repeat it for more.", show_default=False),
]
AsOf = Annotated[
    str | None,
    typer.Option(
        "--as-of", metavar="RELEASE|TIME", help="Search what was live then: a release, or a time in ISO 8601."
    ),
]


def read_settings() -> "Settings":
    """Reads the settings from the environment and makes the state folder.

    Raises:
        BadParameter: The value of a setting is not valid.
    """
    from pydantic import ValidationError

    from orchestration.settings import Settings, unknown_variables

    try:
        settings = Settings()
    except ValidationError as error:
        faults = "; ".join(
            f"HEADWATER_{'__'.join(str(part) for part in fault['loc']).upper()}: {fault['msg']}"
            for fault in error.errors()
        )
        raise typer.BadParameter(f"settings: {faults}") from error
    for variable, meant in unknown_variables(settings).items():
        hint = f"did you mean {meant}?" if meant else "`headwater settings` lists them all"
        log.print(f"warning: {variable} is no setting and changes nothing; {hint}", markup=False)
    settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    return settings


@contextmanager
def working() -> Iterator[None]:
    """Redirects standard output to standard error, so that what libraries print does not mix with results."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def progress(line: str) -> None:
    """Prints a line about progress on standard error."""
    log.print(line, style="dim", markup=False)


def print_json(value: Any) -> None:
    """Prints a value as JSON."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, default=str, indent=2) + "\n")


def print_table(rows: list[dict[str, Any]], title: str | None = None) -> None:
    """Prints rows as a table; the keys of the first row are the columns."""
    if not rows:
        console.print("(nothing)")
        return
    table = Table(title=title, title_justify="left")
    for name in rows[0]:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    console.print(table, markup=False)
