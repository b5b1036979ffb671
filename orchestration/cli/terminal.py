"""Printing results as tables or JSON, and the options that commands share."""

import json
import math
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderableType, RenderHook, RenderResult
from rich.control import Control
from rich.segment import Segment
from rich.table import Table

if TYPE_CHECKING:
    from orchestration.settings import Settings


class _EscapedText:
    """A renderable whose control characters are shown, not sent: a terminal takes them for commands."""

    def __init__(self, shown: RenderableType) -> None:
        self._shown = shown

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self._shown, options):
            yield (
                segment if segment.control else Segment(escape_terminal_controls(segment.text), segment.style)
            )


class _EscapeHook(RenderHook):
    """Puts all text of documents, users and libraries through `escape_terminal_controls`."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [each if isinstance(each, Control) else _EscapedText(each) for each in renderables]


def escape_terminal_controls(text: str) -> str:
    """Returns a text with every control character except the line feed replaced by its Python escape.

    Control characters are C0, DEL, C1, and the marks that change the direction of writing
    (https://trojansource.codes).
    """
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


_CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

console = Console()
log = Console(stderr=True, highlight=False)
for each in (console, log):
    each.push_render_hook(_EscapeHook())

Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on standard output.")]
Tenant = Annotated[str, typer.Option(help="The tenant whose documents are meant.")]
Groups = Annotated[
    list[str] | None,
    typer.Option("--group", help="A group that the user is in; repeat it for more.", show_default=False),
]


def _require_release_or_time(as_of: str | None) -> str | None:
    if as_of is not None and not as_of.strip():
        raise typer.BadParameter("it is empty: give a release of `headwater releases`, or a time in ISO 8601")
    return as_of


AsOf = Annotated[
    str | None,
    typer.Option(
        "--as-of",
        metavar="RELEASE|TIME",
        callback=_require_release_or_time,
        help="Search what was live then: a release, or a time in ISO 8601.",
    ),
]


def read_command_settings() -> "Settings":
    """Reads the settings from the environment and makes the state folder.

    Raises:
        BadParameter: The value of a setting is not valid.
    """
    from pydantic import ValidationError

    from orchestration.settings import Settings, unknown_setting_variables
    from retrieval.redaction import redact_urls

    try:
        settings = Settings()
    except ValidationError as error:
        faults = "; ".join(
            f"HEADWATER_{'__'.join(str(part) for part in fault['loc']).upper()}: {fault['msg']}"
            for fault in error.errors()
        )
        raise typer.BadParameter(f"settings: {redact_urls(faults)}") from error
    for variable, meant in unknown_setting_variables(settings).items():
        hint = f"did you mean {meant}?" if meant else "`headwater settings` lists them all"
        log.print(f"warning: {variable} is no setting and changes nothing; {hint}", markup=False)
    settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    owner, user = settings.home.stat().st_uid, os.geteuid()
    if owner != user:
        raise typer.BadParameter(
            f"the state folder {settings.home} belongs to user {owner}, and you are {user}: work as its "
            "owner, or name a folder of your own with HEADWATER_HOME"
        )
    return settings


@contextmanager
def quiet_terminal() -> Iterator[None]:
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


def print_progress(line: str) -> None:
    """Prints a line about progress on standard error."""
    from retrieval.redaction import redact_urls

    log.print(redact_urls(line), style="dim", markup=False)


def print_json(value: Any) -> None:
    """Prints a value as JSON; a number that JSON has no form for is "NaN", "Infinity" or "-Infinity"."""
    text = json.dumps(_finite(value), ensure_ascii=False, default=str, indent=2, allow_nan=False)
    # JSON escapes C0 itself; a terminal takes C1 for commands too.
    sys.stdout.write(_CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n")


def _finite(value: Any) -> Any:
    """Returns a value with each number that is not finite as the text that PostgreSQL's JSON has for it."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value


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
