"""`headwater sql` and `trace`: queries over the tables, and where anything comes from."""

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from common.counts import counted
from orchestration.cli.terminal import (
    Json,
    console,
    json_default,
    print_json,
    print_table,
    quiet_terminal,
    read_command_settings,
)

if TYPE_CHECKING:
    import pyarrow as pa


def sql_command(
    statement: Annotated[str, typer.Argument(help="One SELECT; `layer.table@N` is the table at version N.")],
    format_: Annotated[
        Literal["table", "csv", "json"], typer.Option("--format", help="How to print the rows.")
    ] = "table",
    json_: Json = False,
    engine: Annotated[
        Literal["duckdb", "spark"], typer.Option(help="What runs the query; duckdb needs no JVM.")
    ] = "duckdb",
) -> None:
    """Query the tables of the lake; nothing can be written.

    Example: `headwater sql "select language, count(*) from silver.documents group by 1"`
    """
    from orchestration.operations.sql_process import run_sql_query

    settings = read_command_settings()
    with quiet_terminal():
        result = run_sql_query(settings, statement, engine)
    if json_ or format_ == "json":
        print_json(result.to_pylist())
    elif format_ == "csv":
        import pyarrow.csv

        pyarrow.csv.write_csv(render_nested_columns(result), sys.stdout.buffer)
    else:
        print_table(result.to_pylist())


def render_nested_columns(table: "pa.Table") -> "pa.Table":
    """Returns the table with each column of lists, structs or maps as JSON, for CSV has no nested columns."""
    import pyarrow as pa

    for position, field in enumerate(table.schema):
        if pa.types.is_nested(field.type):
            values = [
                None
                if value is None
                else json.dumps(_json_value(value, field.type), ensure_ascii=False, default=json_default)
                for value in table[position].to_pylist()
            ]
            table = table.set_column(position, field.name, pa.array(values, pa.string()))
    return table


def _json_value(value: Any, type_: "pa.DataType") -> Any:
    """Returns a value for JSON: a map as an object; pyarrow gives its pairs."""
    import pyarrow as pa

    return dict(value) if pa.types.is_map(type_) else value


def trace_command(
    identity: Annotated[
        str,
        typer.Argument(
            metavar="ID",
            help="The id of an answer, chunk, document, release or run, a content hash, a model such as "
            "embedder@1 or a digest, or the beginning of one; a URI or a path.",
        ),
    ],
    verify: Annotated[
        bool, typer.Option("--verify", help="Recompute every hash and span from the stored bytes.")
    ] = False,
    json_: Json = False,
) -> None:
    """Trace anything back to the bytes of its source, and forward to everything made from it.

    Example: `headwater trace file:///home/me/my-docs/a.md --verify`
    """
    from orchestration.cli.render import render_trace
    from orchestration.tracing.tracer import trace_identity

    settings = read_command_settings()
    with quiet_terminal():
        found = trace_identity(settings, identity, verify)
    if json_:
        print_json(found.to_dict())
    else:
        console.print(render_trace(found))
        if found.unverifiable:
            console.print(
                f"{counted(found.unverifiable, 'citation')} can not be verified: the tables' versions that "
                "they are from are no longer kept"
            )
        elif verify and found.verified is None:
            console.print("nothing to verify: no hash or span in this trace")
    if found.verified is False:
        raise RuntimeError(
            f"{identity} does not hold against the stored bytes: see the checks that are false"
        )
