"""`headwater gates`: what a table must hold before anything reads it, and suites of one's own."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from orchestration.cli.terminal import (
    Json,
    console,
    print_json,
    print_table,
    quiet_terminal,
    read_command_settings,
)

app = typer.Typer(no_args_is_help=True, help="Gates of tables, and suites of your own in them.")


@app.command("add")
def gates_add_command(
    table: Annotated[str, typer.Argument(help="A gated table, such as silver.documents.")],
    file: Annotated[
        Path,
        typer.Argument(
            metavar="SUITE",
            help="JSON as Great Expectations writes it, or Python that makes an ExpectationSuite: it is run.",
        ),
    ],
    severity: Annotated[
        Literal["error", "warn"] | None,
        typer.Option(help="For all its expectations; each one's own unless given."),
    ] = None,
    json_: Json = False,
) -> None:
    """Add a Great Expectations suite to a table's gate.

    An expectation of severity `critical`, the default, closes the gate when it fails; others warn.
    `--severity` sets it for the whole suite.

    A Python file is code, and is run by this command with your rights: add only what you have read.

    Example: `headwater gates add silver.documents my_suite.json --severity warn`
    """
    from assets.lake.tables import TABLES
    from quality.suites import SUITES
    from quality.user_suites import BadSuite, UserSuites, read_user_suite

    if table not in SUITES:
        raise BadSuite(f"no gate guards {table!r}; the gated tables are {', '.join(SUITES)}")
    with quiet_terminal():
        suite = read_user_suite(file.expanduser(), table, TABLES[table].schema.names, severity)
    own = {each.name for each in SUITES[table].expectations}
    if taken := own & {each.name for each in suite.expectations}:
        raise BadSuite(f"{table} has a check {min(taken)} already: give the suite another name")
    UserSuites(read_command_settings().user_suites_folder).add(suite)
    if json_:
        print_json(suite.model_dump())
        return
    blocking = sum(each.severity == "error" for each in suite.expectations)
    console.print(
        f"added {suite.name} to the gate of {table}: {blocking} expectations that block, "
        f"{len(suite.expectations) - blocking} that warn; `headwater run` validates them, "
        "and what is running (`headwater up`) shows them after its definitions are reloaded",
        markup=False,
    )


@app.command("list")
def gates_list_command(json_: Json = False) -> None:
    """List every gate's expectations, Headwater's own and those of added suites.

    Example: `headwater gates list --json`
    """
    from quality.suites import SUITES
    from quality.user_suites import UserSuites

    added = UserSuites(read_command_settings().user_suites_folder).list()
    gates = [(table, "", suite.expectations) for table, suite in SUITES.items()]
    gates += [(each.table, each.name, each.expectations) for each in added]
    rows: list[dict[str, Any]] = [
        {
            "table": table,
            "suite": suite or "headwater",
            "check": each.name,
            "severity": each.severity,
            "expected": each.in_words,
            "why": each.why,
        }
        for table, suite, expectations in gates
        for each in expectations
    ]
    if json_:
        print_json(rows)
    else:
        print_table([{name: row[name] for name in list(row)[:-1]} for row in rows])


@app.command("remove")
def gates_remove_command(
    name: Annotated[str, typer.Argument(help="The suite's name.")], json_: Json = False
) -> None:
    """Remove an added suite from its gate.

    Example: `headwater gates remove my_suite`
    """
    from quality.user_suites import UserSuites

    removed = UserSuites(read_command_settings().user_suites_folder).remove(name)
    if json_:
        print_json(removed.model_dump())
    else:
        console.print(f"removed {removed.name} from the gate of {removed.table}", markup=False)
