"""`headwater source`: where documents come from."""

from pathlib import Path
from typing import Annotated, Any

import typer

from orchestration.cli.sources.source_add import (
    FILES,
    SourceAddGroup,
    add_git_command,
    add_sitemap_command,
    add_sql_command,
)
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
add = typer.Typer(
    cls=SourceAddGroup,
    no_args_is_help=True,
    help="""Add a source; `headwater run` reads it.

    Example: `headwater source add handbook ~/handbook --tenant acme --glob '**/*.md'`,
    the same as `headwater source add files handbook …`
    """,
)
app.add_typer(add, name="add")


@add.command(FILES)
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
    license_: Annotated[
        str | None,
        typer.Option(
            "--license",
            help="The SPDX licence of its documents, such as MIT or 'CC-BY-4.0 OR MIT'; see "
            "HEADWATER_RECIPE__TRAINING__LICENSES.",
        ),
    ] = None,
    questions: Annotated[
        str | None,
        typer.Option(help='A file of JSON lines {"question", "uri"} on which releases are measured.'),
    ] = None,
    json_: Json = False,
) -> None:
    """Add a folder, a file or files of rows; it is what is added where no other kind is named.

    Example: `headwater source add files handbook ~/handbook --tenant acme --glob '**/*.md'`
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
        "license": license_,
        "questions": str(Path(questions).expanduser().absolute()) if questions else None,
    }
    source = Source(**{key: value for key, value in values.items() if value is not None})
    SourceRegistry(read_command_settings("made").sources_file).add(source)
    if json_:
        print_json(source.model_dump())
    else:
        console.print(f"added {source.name}: {source.location} ({source.kind}); `headwater run` reads it")


add.command("git")(add_git_command)
add.command("sql")(add_sql_command)
add.command("sitemap")(add_sitemap_command)


@app.command("list")
def source_list_command(json_: Json = False) -> None:
    """List the sources: where they are, what is read of them, and who may see their documents.

    Example: `headwater source list --json`
    """
    from assets.sources.source_registry import SourceRegistry
    from orchestration.cli.render import render_source_row

    sources = SourceRegistry(read_command_settings().sources_file).list()
    if json_:
        print_json([source.model_dump() for source in sources])
    else:
        print_table([render_source_row(source) for source in sources])


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


@app.command("license")
def source_license_command(
    name: str,
    expression: Annotated[
        str | None, typer.Argument(help="An SPDX licence; without it, the licence is not known.")
    ] = None,
    json_: Json = False,
) -> None:
    """Set the licence of a source's documents, which decides whether they may go into training sets.

    Example: `headwater source license handbook CC-BY-SA-4.0`
    """
    from assets.sources.source_registry import SourceRegistry

    source = SourceRegistry(read_command_settings().sources_file).set_license(name, expression)
    if json_:
        print_json(source.model_dump())
    else:
        console.print(f"{source.name}: {source.license or 'licence not known'}; `headwater run` applies it")


@app.command("remove")
def source_remove_command(name: str, json_: Json = False) -> None:
    """Remove a source; the next release no longer has its documents.

    Example: `headwater source remove handbook`
    """
    from assets.sources.source_registry import SourceRegistry
    from orchestration.training.learned import versions_learned_from_source

    settings = read_command_settings()
    removed = SourceRegistry(settings.sources_file).remove(name)
    models = versions_learned_from_source(settings, name)
    if json_:
        print_json(removed.model_dump() | {"models": models})
        return
    console.print(f"removed {removed.name}; `headwater run` removes its documents from the index")
    for address, count in models.items():
        console.print(
            f"{address} learned from {count:,} of its documents: `headwater models list` counts them then",
            markup=False,
            soft_wrap=True,
        )
