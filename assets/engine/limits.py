"""The limits up to which a step runs in this process; a larger step runs on Spark."""

from dataclasses import dataclass

LOCAL_BYTES = 256 * 1024 * 1024
"""Rows that this process holds at once, in memory."""

PARSED_BYTES = 8 * 1024 * 1024
"""Text that one core parses, or cuts into chunks, in less time than Spark takes to start.

The demo's texts are 5 MiB by this count, and take 7 s instead of 30.
"""


@dataclass(frozen=True)
class LocalLimits:
    """The size limits of a step that runs in this process.

    Attributes:
        change_bytes: The most bytes of memory that the changes of its inputs take.
        change_rows: The most rows that were added or changed; None for no limit.
        table_rows: The most rows of any table that is read in full; None for no limit.
    """

    change_bytes: int = LOCAL_BYTES
    change_rows: int | None = None
    table_rows: int | None = None

    def fit(self, change_bytes: int, change_rows: int = 0, table_rows: int = 0) -> bool:
        """Returns whether a step of this size runs in this process."""
        return (
            change_bytes <= self.change_bytes
            and (self.change_rows is None or change_rows <= self.change_rows)
            and (self.table_rows is None or table_rows <= self.table_rows)
        )
