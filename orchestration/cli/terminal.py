"""Printing results as tables or JSON, and the options that commands share."""

import json
import logging
import math
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderableType, RenderHook, RenderResult
from rich.control import Control
from rich.panel import Panel
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

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

_UNLIMITED_WIDTH = 1_000_000
_MAX_CELL_CHARS = 300
"""On a terminal a longer cell of a table is cut."""
_ID = re.compile(r"[0-9a-f]{32,}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""An id or a digest, which is shown whole and in one piece: somebody may paste it."""


class _Output(Console):
    """Standard output or error. Where that is no terminal, no line of a table or a text is divided."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Prints as `Console.print` does."""
        if self.is_terminal:
            super().print(*objects, **options)
        elif not any(isinstance(each, str | Text | Panel) for each in objects):
            width, self.width = self.width, _UNLIMITED_WIDTH
            try:
                super().print(*objects, **options)
            finally:
                self.width = width
        else:
            super().print(
                *objects, **{"soft_wrap": all(isinstance(e, str | Text) for e in objects)} | options
            )


console = _Output()
log = _Output(stderr=True, highlight=False)
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


def read_command_settings(folder: Literal["needed", "made", "optional"] = "needed") -> "Settings":
    """Reads the settings from the environment.

    Args:
        folder: "needed" for a command that reads what is in the state folder, "made" for one that writes and
            makes it, "optional" for one that does without.

    Raises:
        BadParameter: The value of a setting is not valid.
        StateFolderError: There is no state folder, or it can not be used.
    """
    from pydantic import ValidationError
    from pydantic_settings import SettingsError

    from common.model_memory import MODEL_MEMORY
    from common.redaction import redact_urls
    from orchestration.settings import Settings, unknown_setting_variables
    from orchestration.state_folder import make_state_folder, require_state_folder

    try:
        settings = Settings()
    except ValidationError as error:
        faults = "; ".join(
            f"HEADWATER_{'__'.join(str(part) for part in fault['loc']).upper()}: {fault['msg']}"
            for fault in error.errors()
        )
        raise typer.BadParameter(f"settings: {redact_urls(faults)}") from error
    except SettingsError as error:  # 'error parsing value for field "web_hosts" from source …'
        field = str(error).partition('"')[2].partition('"')[0]
        raise typer.BadParameter(
            f'settings: HEADWATER_{field.upper()}: lists and groups of settings are JSON, such as ["a", "b"]'
        ) from error
    MODEL_MEMORY.budget_bytes = settings.model_memory_bytes
    for variable, meant in unknown_setting_variables(settings).items():
        hint = f"did you mean {meant}?" if meant else "`headwater settings` lists them all"
        log.print(f"warning: {variable} is no setting and changes nothing; {hint}", markup=False)
    if folder == "made":
        make_state_folder(settings.home)
    elif folder == "needed" or settings.home.exists():
        require_state_folder(settings.home)
    return settings


@contextmanager
def quiet_terminal() -> Iterator[None]:
    """Redirects standard output to standard error, so that what libraries print does not mix with results.

    Meanwhile progress is shown there.
    """
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with _progress.shown():
            yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def print_progress(line: str) -> None:
    """Prints a line about progress on standard error; a terminal shows below it what comes until the next."""
    from common.redaction import redact_urls

    with _progress.begun_anew():
        log.print(redact_urls(line), style="dim", markup=False)


@contextmanager
def _straight_to_terminal() -> Iterator[None]:
    """Has messages written to the terminal itself: Dagster puts a file in its place while a step runs."""
    with os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding="utf-8", errors="backslashreplace") as terminal:
        log.file = terminal
        try:
            yield
        finally:
            log.file = sys.stderr


class _ProgressDisplay(logging.Handler):
    """Shows records of `common.progress` on standard error.

    On a terminal that is one line, which is replaced, with the time since the last line that stays; elsewhere
    it is a line per record.
    """

    def __init__(self) -> None:
        super().__init__()
        self._live: Progress | None = None
        self._shown = False

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Shows progress until the `with` block ends."""
        logger = logging.getLogger("common.progress")
        logger.setLevel(logging.INFO)
        logger.addHandler(self)
        self._shown = log.is_terminal and not log.is_dumb_terminal
        try:
            with _straight_to_terminal() if self._shown else nullcontext():
                try:
                    yield
                finally:
                    self._end()
        finally:
            logger.removeHandler(self)
            self._shown = False

    @contextmanager
    def begun_anew(self) -> Iterator[None]:
        """Takes the line away while the `with` block prints, and counts its time anew."""
        self._end()
        try:
            yield
        finally:
            if self._shown:
                self._begin()

    def emit(self, record: logging.LogRecord) -> None:
        """Shows a record."""
        if not self._shown:
            log.print(record.getMessage(), style="dim", markup=False)
            return
        live = self._live or self._begin()
        live.update(live.task_ids[0], description=record.getMessage())

    def _begin(self) -> Progress:
        live = Progress(
            SpinnerColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}", style="dim", markup=False),
            console=log,
            transient=True,
            redirect_stdout=False,
        )
        live.add_task("", total=None)
        live.start()
        self._live = live
        return live

    def _end(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


_progress = _ProgressDisplay()


def print_json(value: Any) -> None:
    """Prints a value as JSON; a number that JSON has no form for is "NaN", "Infinity" or "-Infinity"."""
    text = json.dumps(_finite(value), ensure_ascii=False, default=json_default, indent=2, allow_nan=False)
    # JSON escapes C0 itself; a terminal takes C1 for commands too.
    sys.stdout.write(_CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n")


def json_default(value: Any) -> int | str:
    """Returns a value that JSON has no form for: an integer of a DECIMAL, as of sums, if 64 bits hold it."""
    if isinstance(value, Decimal) and value.as_tuple().exponent == 0 and -(1 << 63) <= value < 1 << 63:
        return int(value)
    return str(value)


def _finite(value: Any) -> Any:
    """Returns a value with each number that is not finite as the text that PostgreSQL's JSON has for it."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value


def print_table(rows: list[dict[str, Any]], title: str | None = None) -> None:
    """Prints rows as a table; the keys of the first row are the columns.

    On a terminal, long cells are cut and said to be, and the values of a row with ids are printed below one
    another where they do not fit beside one another, so that every id can be copied.
    """
    if not rows:
        console.print("(nothing)")
        return
    names = list(rows[0])
    cells = [["" if value is None else str(value) for value in row.values()] for row in rows]
    cut = False
    if console.is_terminal:
        cut = any(len(cell) > _MAX_CELL_CHARS for row in cells for cell in row)
        cells = [[shortened(cell, _MAX_CELL_CHARS) for cell in row] for row in cells]
        if _ids_do_not_fit(names, cells):
            _print_records(names, cells, title)
            _print_cut(cut)
            return
    table = Table(title=title, title_justify="left")
    for name in names:
        table.add_column(name, overflow="fold")
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)
    _print_cut(cut)


def shortened(text: str, most: int) -> str:
    """Returns a text of at most so many characters, with … where it was cut."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _print_cut(cut: bool) -> None:
    if cut:
        console.print(
            f"cells of more than {_MAX_CELL_CHARS} characters are cut; --json has them whole", style="dim"
        )


def _ids_do_not_fit(names: list[str], cells: list[list[str]]) -> bool:
    """Returns whether a table would divide an id: its lines are as long as the terminal is wide."""
    if not any(_ID.fullmatch(cell) for row in cells for cell in row):
        return False
    columns = [[name, *column] for name, *column in zip(names, *cells, strict=True)]
    widths = [
        max(cell_len(line) for cell in column for line in [*cell.splitlines(), ""]) for column in columns
    ]
    return sum(width + 3 for width in widths) + 1 > console.width


def _print_records(names: list[str], cells: list[list[str]], title: str | None) -> None:
    """Prints each row as lines of a name and a value."""
    if title:
        console.print(Text(title, style="italic"))
    space = max(map(cell_len, names))
    for row in cells:
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="bold", width=space)
        grid.add_column(overflow="fold")
        for name, cell in zip(names, row, strict=True):
            grid.add_row(Text(name), Text(cell))
        console.print(grid)
        console.print()
