"""Declares columns: name, type and comment, which Delta, the web UI and JDBC show."""

import pyarrow as pa

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
