"""How tables and columns are declared; Delta, the web UI and JDBC show their comments."""

from dataclasses import dataclass

import pyarrow as pa

STAMP = pa.timestamp("us", tz="UTC")
"""The type of a column that says when."""

_COMMENT = b"comment"  # the key that Delta's protocol names for it


def column(name: str, comment: str, kind: pa.DataType | None = None, *, nullable: bool = False) -> pa.Field:
    """Returns the declaration of a column, by default a string that is never NULL.

    Args:
        name: The column's name.
        comment: What the column holds, in one line.
        kind: The column's type.
        nullable: Whether the column may be NULL; Delta enforces False at every write.
    """
    return pa.field(name, kind or pa.string(), nullable, metadata={_COMMENT: comment})


def column_comment(field: pa.Field) -> str:
    """Returns the comment of a declared column; empty if it has none."""
    return (field.metadata or {}).get(_COMMENT, b"").decode()


@dataclass(frozen=True)
class Table:
    """One Delta table: its name is its asset key and its folder.

    Attributes:
        name: `layer.table`.
        schema: Its columns; a field that is not nullable is enforced by Delta at every write.
        key: The columns that identify a row.
        content: The columns that its content digest, and so its Dagster data version, is made from.
        volatile: The columns that say when or by which run a row was written. A row that differs only in
            these is not rewritten.
        gated: Consumers read its last audited version, never the newest.
        about: One line for the UI and for `headwater sql`'s help.
    """

    name: str
    schema: pa.Schema
    key: tuple[str, ...]
    content: tuple[str, ...]
    about: str
    volatile: tuple[str, ...] = ("OpenLineage_RunId",)
    gated: bool = False

    @property
    def layer(self) -> str:
        """The table's layer: the part of its name before the dot."""
        return self.name.partition(".")[0]
