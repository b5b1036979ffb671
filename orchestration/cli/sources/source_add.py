"""`headwater source add git|sql|sitemap`: sources that a connector reads."""

from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer
from typer.core import TyperGroup

from orchestration.cli.terminal import (
    Groups,
    Json,
    Tenant,
    console,
    print_json,
    quiet_terminal,
    read_command_settings,
)

FILES = "files"
"""The command that is meant where none is named: `headwater source add NAME LOCATION`."""


class SourceAddGroup(TyperGroup):
    """The commands of `headwater source add`: a first word that names none is the name of a source."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parses the arguments, with `FILES` as the command where they name none."""
        if args and args[0] not in self.commands and args[0] != "--help":
            args = [FILES, *args]
        return super().parse_args(ctx, args)


Name = Annotated[
    str | None,
    typer.Option(help="Its name: letters, digits, - and _; the last part of the address unless given."),
]
Questions = Annotated[
    str | None,
    typer.Option(help='A file of JSON lines {"question", "uri"} on which releases are measured.'),
]
License = Annotated[
    str | None,
    typer.Option(
        "--license", help="The SPDX licence of its documents, such as CC-BY-4.0.", show_default=False
    ),
]
User = Annotated[str | None, typer.Option(help="The user who reads it.", show_default=False)]
PasswordEnv = Annotated[
    str | None,
    typer.Option(
        help="The environment variable that holds the user's password or token. Only its name is stored.",
        show_default=False,
    ),
]
NoCheck = Annotated[
    bool,
    typer.Option(
        "--no-check",
        help="Add it without trying it: where it, or its password, can not be reached from here.",
    ),
]
Glob = Annotated[str, typer.Option(help="Which files to read, relative to the repository.")]


def add_git_command(
    location: Annotated[str, typer.Argument(metavar="URL|PATH", help="An http or https URL, or a folder.")],
    branch: Annotated[
        str | None, typer.Option(help="The branch to read; the repository's HEAD unless given.")
    ] = None,
    glob: Glob = "**/*",
    name: Name = None,
    user: User = None,
    password_env: PasswordEnv = None,
    tenant: Tenant = "default",
    group: Groups = None,
    license_: License = None,
    questions: Questions = None,
    no_check: NoCheck = False,
    json_: Json = False,
) -> None:
    """Add a branch of a Git repository: a document per file, a revision per commit that changed it.

    Example: `headwater source add git https://example.org/handbook.git --branch main --glob 'docs/**/*.md'`
    """
    options = {"branch": branch, "user": user, "password_env": password_env}
    given = {"glob": glob, "license": license_, "git": _given(options)}
    name = name or _last_part(location.removesuffix(".git"))
    _add(location, name, tenant, group, questions, given, no_check, json_)


def add_sql_command(
    url: Annotated[
        str,
        typer.Argument(metavar="URL", help="As SQLAlchemy writes it: postgresql://host/db, sqlite:///a.db."),
    ],
    query: Annotated[str, typer.Option(help="One SELECT, whose rows are the documents.")],
    id_column: Annotated[str, typer.Option(help="The column that identifies a row.")],
    text_column: Annotated[
        list[str], typer.Option(help="The column that holds the text; repeat it for more.")
    ],
    title_column: Annotated[str | None, typer.Option(help="The column that holds the title.")] = None,
    url_column: Annotated[
        str | None, typer.Option(help="The column that holds the address that is cited for a row.")
    ] = None,
    cursor_column: Annotated[
        str | None,
        typer.Option(
            help="A column that changes whenever the row does, such as updated_at: only rows with another "
            "value than the last time are read. Without it every run reads all rows."
        ),
    ] = None,
    statement_timeout: Annotated[
        float, typer.Option(metavar="SECONDS", help="The longest that one statement may run.")
    ] = 600,
    name: Annotated[
        str | None, typer.Option(help="Its name: letters, digits, - and _; the database's unless given.")
    ] = None,
    user: User = None,
    password_env: PasswordEnv = None,
    tenant: Tenant = "default",
    group: Groups = None,
    license_: License = None,
    questions: Questions = None,
    no_check: NoCheck = False,
    json_: Json = False,
) -> None:
    """Add a query of a database: a document per row.

    Example: `headwater source add sql postgresql://db.example.org/shop --user reader --password-env SHOP_DB
    --query 'select * from articles' --id-column id --text-column body --cursor-column updated_at`
    """
    options = {
        "query": query,
        "id_column": id_column,
        "text_columns": text_column,
        "title_column": title_column,
        "url_column": url_column,
        "cursor_column": cursor_column,
        "statement_timeout_s": statement_timeout,
        "user": user,
        "password_env": password_env,
    }
    _add(
        url,
        name or _last_part(url.partition("?")[0]),
        tenant,
        group,
        questions,
        {"license": license_, "sql": _given(options)},
        no_check,
        json_,
    )


def add_sitemap_command(
    url: Annotated[str, typer.Argument(metavar="URL", help="The sitemap, or the site.")],
    max_pages: Annotated[int, typer.Option(help="The most pages that are taken of it.")] = 10_000,
    pages_per_second: Annotated[
        float, typer.Option(help="The most pages that are asked for; the site's Crawl-delay holds too.")
    ] = 2,
    private_addresses: Annotated[
        bool,
        typer.Option("--private-addresses", help="The site may be at a private address, as in an intranet."),
    ] = False,
    name: Name = None,
    tenant: Tenant = "default",
    group: Groups = None,
    license_: License = None,
    questions: Questions = None,
    no_check: NoCheck = False,
    json_: Json = False,
) -> None:
    """Add a website by its sitemap: a document per page. robots.txt is honoured.

    Example: `headwater source add sitemap https://docs.example.org/sitemap.xml --max-pages 2000`
    """
    options = {
        "max_pages": max_pages,
        "pages_per_second": pages_per_second,
        "private_addresses": private_addresses,
    }
    given = {"license": license_, "sitemap": options}
    name = name or _last_part(urlsplit(url).netloc)
    _add(url, name, tenant, group, questions, given, no_check, json_)


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _last_part(location: str) -> str:
    """Returns a name for a source that was given only an address, numbered where it is taken."""
    from assets.sources.source_registry import SourceRegistry
    from orchestration.operations.ingest import ingest_source_name

    known = SourceRegistry(read_command_settings("made").sources_file).list()
    return ingest_source_name(location, {source.name for source in known})


def _add(
    location: str,
    name: str,
    tenant: str,
    group: list[str] | None,
    questions: str | None,
    options: dict[str, Any],
    no_check: bool,
    json_: bool,
) -> None:
    from assets.sources.source_check import check_connected_source
    from assets.sources.source_config import Source, SourceError
    from assets.sources.source_registry import SourceRegistry

    asked = str(Path(questions).expanduser().absolute()) if questions else None
    source = Source(
        name=name, location=location, tenant=tenant, groups=tuple(group or ()), questions=asked, **options
    )
    registry = SourceRegistry(read_command_settings("made").sources_file)
    if not no_check:
        try:
            with quiet_terminal():
                check_connected_source(source)
        except SourceError as error:
            reason = str(error).removesuffix("; nothing was changed")
            raise type(error)(f"{reason}; it was not added (--no-check adds it untried)") from error
    registry.add(source)
    if json_:
        print_json(source.model_dump())
    else:
        console.print(f"added {source.name}: {source.location} ({source.kind}); `headwater run` reads it")
