"""`headwater gates` and `quarantine`: what a table must hold to be read, and which documents are kept out."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

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
    UserSuites(read_command_settings("made").user_suites_folder).add(suite)
    if json_:
        print_json(suite.model_dump())
        return
    blocking = sum(each.severity == "error" for each in suite.expectations)
    console.print(
        f"added {suite.name} to the gate of {table}: {counted(blocking, 'expectation')} to block, "
        f"{len(suite.expectations) - blocking} to warn; `headwater run` validates them, "
        "and what is running (`headwater up`) shows them when no run is on its way",
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


quarantine_app = typer.Typer(
    no_args_is_help=True, help="Documents that are kept out, why, and what brings them in."
)

_Document = Annotated[str, typer.Argument(metavar="DOC_ID|URI", help="An id, its beginning, or a URI.")]


@quarantine_app.command("list")
def quarantine_list_command(json_: Json = False) -> None:
    """List the documents that are kept out, each with the reason and the cure.

    Example: `headwater quarantine list --json`
    """
    from orchestration.operations.quarantine import list_quarantined

    rows = [asdict(each) for each in list_quarantined(read_command_settings())]
    if json_:
        print_json(rows)
    elif rows:
        print_table(rows)
    else:
        console.print("nothing is quarantined")


@quarantine_app.command("show")
def quarantine_show_command(document: _Document, json_: Json = False) -> None:
    """Show all that is known of one document that is kept out.

    Example: `headwater quarantine show 3f2a90c1`
    """
    from orchestration.operations.quarantine import show_quarantined

    rows = show_quarantined(read_command_settings(), document)
    if json_:
        print_json(rows)
        return
    for row in rows:
        print_table([{"": name, "value": value} for name, value in row.items()], row["uri"])


@quarantine_app.command("release")
def quarantine_release_command(
    documents: Annotated[
        list[str], typer.Argument(metavar="DOC_ID|URI", help="Ids, their beginnings, or URIs.")
    ],
    json_: Json = False,
) -> None:
    """Release documents whose text is damaged, and bring everything up to date with them.

    A release holds for the document at its URI, also when its file changes and when the lake is made anew: it
    is kept as long as it has any text. It does not make the document fit for training.

    Example: `headwater quarantine release 3f2a90c1`
    """
    from orchestration.operations.quarantine import release_quarantined

    settings = read_command_settings()
    with quiet_terminal():
        released = release_quarantined(settings, documents, print_progress)
    if json_:
        print_json([asdict(each) for each in released])
        return
    for each in released:
        console.print(f"released {each.uri}", soft_wrap=True)


@quarantine_app.command("rerun")
def quarantine_rerun_command(
    documents: Annotated[
        list[str] | None,
        typer.Argument(metavar="[DOC_ID|URI]", help="Ids, their beginnings, or URIs; all unless given."),
    ] = None,
    json_: Json = False,
) -> None:
    """Parse documents that are kept out once more, and bring everything up to date with those that come in.

    It helps where something else has changed than the documents: a reader was installed or updated.

    Example: `make setup EXTRAS=ocr && HEADWATER_RECIPE__PARSER__OCR=true headwater quarantine rerun`
    """
    from orchestration.operations.quarantine import rerun_quarantined

    settings = read_command_settings()
    with quiet_terminal():
        outcome = rerun_quarantined(settings, documents or [], print_progress)
    if json_:
        print_json(asdict(outcome))
        return
    for each in outcome.kept:
        console.print(f"kept {each.uri}", soft_wrap=True)
    console.print(f"{len(outcome.kept)} came in, {len(outcome.quarantined)} are still quarantined")
    if outcome.quarantined:
        print_table([asdict(each) for each in outcome.quarantined])
