"""A column as it is declared once: its name, type and comment, for Delta, the web UI and JDBC."""

import pyarrow as pa

_COMMENT = b"comment"  # the key that Delta's protocol names for it


def column(name: str, comment: str, kind: pa.DataType | None = None, *, nullable: bool = False) -> pa.Field:
    """Declares a column; a string that is never NULL unless told.

    Args:
        name: Its name.
        comment: What it holds, in one line.
        kind: Its type.
        nullable: False is enforced by Delta at every write.
    """
    return pa.field(name, kind or pa.string(), nullable, metadata={_COMMENT: comment})


def column_comment(field: pa.Field) -> str:
    """What a declared column holds; empty where nothing was declared."""
    return (field.metadata or {}).get(_COMMENT, b"").decode()
