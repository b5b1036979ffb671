"""How much work this process does itself before it is left to Spark."""

from dataclasses import dataclass

LOCAL_BYTES = 256 * 1024 * 1024
"""Rows that this process holds at once, in memory."""

PARSED_BYTES = 4 * 1024 * 1024
"""Text that one core parses, or cuts into chunks, in less time than a JVM takes to start."""


@dataclass(frozen=True)
class LocalLimits:
    """The most work of one step that is done in this process.

    Attributes:
        change_bytes: Memory that the changes of its inputs take.
        change_rows: Rows that came or changed; None for any number.
        table_rows: Rows of each whole table that is read; None for any number.
    """

    change_bytes: int = LOCAL_BYTES
    change_rows: int | None = None
    table_rows: int | None = None

    def fit(self, change_bytes: int, change_rows: int = 0, table_rows: int = 0) -> bool:
        """Returns whether work of that size is done in this process."""
        return (
            change_bytes <= self.change_bytes
            and (self.change_rows is None or change_rows <= self.change_rows)
            and (self.table_rows is None or table_rows <= self.table_rows)
        )
