"""Access to a Delta table's storage: its files, their size and rows, and its registration in DuckDB."""

from urllib.parse import unquote

import duckdb
import pyarrow as pa
from deltalake import DeltaTable


def delta_hadoop_path(path: str) -> str:
    """Returns a path in a form that Hadoop does not read as a glob."""
    return "".join("\\" + c if c in "*?[]{}\\" else c for c in path)


def delta_files(table: DeltaTable) -> list[str]:
    """Returns the paths of a table's files on this machine, or their URIs if the lake is elsewhere."""
    return [unquote(file) if file.startswith("/") else file for file in table.file_uris()]


def register_delta_table(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    table: DeltaTable | pa.Table,
    read_files: bool = True,
) -> None:
    """Gives a table a name in DuckDB, which reads a local lake's files itself: filters reach the Parquet.

    Elsewhere delta-rs and Arrow read them. There DuckDB filters after reading: delta-rs merges write strings
    as views, and Arrow can not compare those with the plain strings of a filter that is handed down to it.

    Args:
        read_files: Whether DuckDB may read files; if not, delta-rs and Arrow read a local lake's too.
    """
    if isinstance(table, pa.Table):
        connection.register(name, without_views_for_delta(table))
    elif not (files := delta_files(table)):
        connection.register(name, pa.schema(table.schema().to_arrow()).empty_table())
    elif read_files and files[0].startswith("/"):
        schema = pa.schema(table.schema().to_arrow())
        rows = connection.read_parquet(files, union_by_name=True)
        if set(schema.names) != set(rows.columns):  # none of the files has a column that was added since
            # By names of their own: a variable's could be that of another table of the connection.
            connection.register(f"{name} columns", schema.empty_table())
            rows.create_view(f"{name} files")
            rows = connection.query(f'from "{name} columns" union all by name from "{name} files"')
        rows.create_view(name)
    else:
        connection.execute("set disabled_optimizers = 'filter_pushdown,join_filter_pushdown'")
        connection.register(name, table.to_pyarrow_dataset())


def delta_bytes(table: DeltaTable) -> int:
    """Returns the size in bytes of a table version's files, which are compressed."""
    return sum(table.get_add_actions().column("size_bytes").to_pylist())


def delta_rows(table: DeltaTable) -> int:
    """Returns the number of rows of a table version, from its files' statistics."""
    return sum(table.get_add_actions().column("num_records").to_pylist())


def without_views_for_delta(table: pa.Table) -> pa.Table:
    """Returns the table with string and binary views as plain strings and bytes, which Arrow can compare."""
    plain = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}
    return table.cast(
        pa.schema([field.with_type(plain.get(field.type, field.type)) for field in table.schema])
    )
