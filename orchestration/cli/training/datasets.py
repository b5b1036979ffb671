"""`headwater datasets`: training sets, their snapshots, and files of them for other programs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

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
    from orchestration.training.datasets import DatasetState

app = typer.Typer(no_args_is_help=True, help="Make training sets of documents, show them and export them.")

DatasetName = Annotated[
    str, typer.Argument(metavar="NAME[@DIGEST]", help="A training set's newest snapshot, or one of it.")
]


@app.command("snapshot")
def datasets_snapshot_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Letters, digits, - and _.")],
    tenant: Annotated[
        str | None, typer.Option(help="The tenant of whose documents it is made; `default` unless given.")
    ] = None,
    examples: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help='Examples of your own: JSON lines with "question" and "answer", or with "question", '
            '"positive" and "negatives".',
        ),
    ] = None,
    json_: Json = False,
) -> None:
    """Make a training set of the documents that are fit for training, and keep a snapshot of it.

    From then on each `headwater run` keeps the examples of its tenant up to date; this command again keeps
    the next snapshot.

    Example: `headwater datasets snapshot manuals`
    """
    from orchestration.training.datasets import DatasetState, make_dataset

    settings = read_command_settings()
    with quiet_terminal():
        header = make_dataset(
            settings, name, tenant, examples.expanduser() if examples else None, print_progress
        )
    _print_state(DatasetState(header, []), json_)


@app.command("list")
def datasets_list_command(json_: Json = False) -> None:
    """List the snapshots of training sets, newest first.

    Example: `headwater datasets list`
    """
    from orchestration.training.datasets import list_datasets

    found = list_datasets(read_command_settings())
    if json_:
        print_json([each.to_dict() for each in found])
        return
    print_table(
        [
            {
                "address": each.header.address,
                "made_at": f"{each.header.made_at:%Y-%m-%d %H:%M}",
                "tenant": each.header.tenant,
                **{str(split): count for split, count in each.header.splits.items()},
                "documents": each.header.documents,
                "removed since": len(each.removed) or "",
            }
            for each in found
        ]
    )


@app.command("show")
def datasets_show_command(name: DatasetName, json_: Json = False) -> None:
    """Show a snapshot: its splits, kinds, licences, what it was made from, and what was removed since.

    Example: `headwater datasets show manuals`
    """
    from orchestration.training.datasets import show_dataset

    _print_state(show_dataset(read_command_settings(), name), json_)


@app.command("export")
def datasets_export_command(
    name: DatasetName,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder.")],
    format_: Annotated[
        Literal["jsonl", "parquet", "hf"],
        typer.Option("--format", help="hf: what Hugging Face `datasets.load_dataset(DIR)` reads."),
    ] = "hf",
    json_: Json = False,
) -> None:
    """Write a snapshot and its card to a folder, which only you can read.

    Example: `headwater datasets export manuals manuals-hf --format hf`
    """
    from orchestration.training.datasets import export_named_dataset

    files = export_named_dataset(read_command_settings(), name, folder.expanduser().absolute(), format_)
    if json_:
        print_json({"name": name, "format": format_, "files": [str(file) for file in files]})
        return
    for file in files:
        console.print(str(file), markup=False, soft_wrap=True)


@app.command("remove")
def datasets_remove_command(name: DatasetName, json_: Json = False) -> None:
    """Remove a training set with all its snapshots and your own examples, or one snapshot by NAME@DIGEST.

    The next run takes its examples out of the lake, unless another training set is of the same tenant.

    Example: `headwater datasets remove manuals@1e6c21bb`
    """
    from training.datasets.requests import DatasetRequests

    removed = DatasetRequests(read_command_settings().datasets_folder).remove(name)
    if json_:
        print_json({"name": name, "removed": removed})
    else:
        console.print(f"removed: {', '.join(removed) or name}", markup=False, soft_wrap=True)


def _print_state(state: "DatasetState", json_: bool) -> None:
    if json_:
        print_json(state.to_dict())
        return
    header = state.header
    console.print(
        f"{header.address}: {counted(sum(header.splits.values()), 'example')} of "
        f"{counted(header.documents, 'document')} of the tenant {header.tenant}",
        markup=False,
        soft_wrap=True,
    )
    for title, counts in (
        ("split", header.splits),
        ("kind", header.kinds),
        ("kind of question", header.query_kinds),
        ("licence", header.licences),
    ):
        said = ", ".join(f"{name} {count:,}" for name, count in counts.items())
        console.print(f"{title}: {said or 'none'}", markup=False, soft_wrap=True)
    tables = ", ".join(f"{table}@{version}" for table, version in header.versions.items())
    console.print(f"made from: {tables}", markup=False, soft_wrap=True)
    if not header.splits["test"]:
        console.print(
            "no example is in the split test, into which a hash puts a tenth of the documents: `headwater "
            "models compare` needs --data, or a snapshot of more documents",
            soft_wrap=True,
        )
    if state.removed:
        console.print(
            f"{counted(len(state.removed), 'document')} of it removed since: nothing new learns from it; "
            f"`headwater datasets snapshot {header.name}` makes one without them",
            markup=False,
            soft_wrap=True,
        )
