"""`headwater source`: where documents come from."""

from pathlib import Path
from typing import Annotated, Any

import typer

from orchestration.cli.terminal import (
    Groups,
    Json,
    Tenant,
    console,
    print_json,
    print_table,
    read_command_settings,
)

app = typer.Typer(no_args_is_help=True, help="Where documents come from.")


@app.command("add")
def source_add_command(
    name: Annotated[str, typer.Argument(help="Its name: letters, digits, - and _.")],
    location: Annotated[str, typer.Argument(help="A folder, a file, a URI, or `python-environment`.")],
    tenant: Tenant = "default",
    glob: Annotated[str, typer.Option(help="Which files to read, relative to the folder.")] = "**/*",
    text_column: Annotated[
        str | None, typer.Option(help="For files with one document per row: the column that holds the text.")
    ] = None,
    id_column: Annotated[str | None, typer.Option(help="The column that identifies a row.")] = None,
    title_column: Annotated[str | None, typer.Option(help="The column that holds the title.")] = None,
    group: Groups = None,
    questions: Annotated[
        str | None,
        typer.Option(help='A file of JSON lines {"question", "uri"} on which releases are measured.'),
    ] = None,
    json_: Json = False,
) -> None:
    """Add a source; `headwater run` reads it.

    Example: `headwater source add handbook ~/handbook --tenant acme --glob '**/*.md'`
    """
    from assets.sources.source_config import Source
    from assets.sources.source_registry import SourceRegistry

    values: dict[str, Any] = {
        "name": name,
        "location": location,
        "tenant": tenant,
        "glob": glob,
        "text_column": text_column,
        "id_column": id_column,
        "title_column": title_column,
        "groups": tuple(group) if group else None,
        "questions": str(Path(questions).expanduser().absolute()) if questions else None,
    }
    source = Source(**{key: value for key, value in values.items() if value is not None})
    SourceRegistry(read_command_settings().sources_file).add(source)
    if json_:
        print_json(source.model_dump())
    else:
        console.print(f"added {source.name}: {source.location} ({source.kind}); `headwater run` reads it")


@app.command("list")
def source_list_command(json_: Json = False) -> None:
    """List the sources and who may see their documents.

    Example: `headwater source list --json`
    """
    from assets.sources.source_registry import SourceRegistry

    rows = [source.model_dump() for source in SourceRegistry(read_command_settings().sources_file).list()]
    if json_:
        print_json(rows)
    else:
        shown = ("name", "location", "kind", "tenant", "groups", "glob", "text_column", "questions")
        rows = [row | {"groups": ", ".join(row["groups"])} for row in rows]
        print_table([{name: row[name] for name in shown} for row in rows])


@app.command("access")
def source_access_command(name: str, group: Groups = None, json_: Json = False) -> None:
    """Set which groups may see a source's documents; without `--group`, everybody of its tenant may.

    Example: `headwater source access handbook --group staff --group legal`
    """
    from assets.sources.source_registry import SourceRegistry

    source = SourceRegistry(read_command_settings().sources_file).set_groups(name, group or ())
    if json_:
        print_json(source.model_dump())
        return
    who = ", ".join(source.groups) or "everybody"
    console.print(f"{source.name}: {who} of {source.tenant}; `headwater run` applies it to the index")


@app.command("remove")
def source_remove_command(name: str, json_: Json = False) -> None:
    """Remove a source; the next release no longer has its documents.

    Example: `headwater source remove handbook`
    """
    from assets.sources.source_registry import SourceRegistry

    removed = SourceRegistry(read_command_settings().sources_file).remove(name)
    if json_:
        print_json(removed.model_dump())
    else:
        console.print(f"removed {removed.name}; `headwater run` removes its documents from the index")
