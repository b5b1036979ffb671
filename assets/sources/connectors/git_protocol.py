"""What the process that reads a Git repository is asked, and the schema of what it answers."""

from typing import Literal

import pyarrow as pa
from pydantic import BaseModel

from assets.sources.connector_options import GitOptions

GIT_FILE_SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("commit", pa.string(), nullable=False),
        pa.field("committed_at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("newest", pa.bool_(), nullable=False),
        pa.field("read", pa.bool_(), nullable=False),
        pa.field("size_bytes", pa.int64()),
        pa.field("body", pa.binary()),
        pa.field("error", pa.string()),
    ]
)
"""One row per file of the branch, with the commit that changed it last. A row where `read` is true is new or
changed, and has its bytes or an error ("expectation: what happened"). Rows where `newest` is false are what a
file was between the last reading and now, oldest first, and come before its newest. The path is relative to
the repository and percent-encoded."""

GitWanted = Literal["contents", "sizes", "branch"]


class GitRequest(BaseModel):
    """What the process is asked, as JSON on its standard input.

    Attributes:
        location: The folder or URL of the repository.
        options: The branch and the user.
        password: The password, or None.
        mirror: The folder in which a repository that is read by URL is kept.
        glob: The paths that are taken.
        known: The commit of each file that the lake knows, by its path.
        read_again: The paths that are read though they have not changed.
        read_all: Whether all files are.
        wanted: What is wanted: the bytes of what is read, only their number, or no file at all: then the
            branch is looked for, and nothing is fetched.
        max_file_bytes: The size above which a file is not read.
        memory_bytes: The largest address space of the process.
        answer: The file to write: a stream of Arrow batches with the schema `GIT_FILE_SCHEMA`.
    """

    location: str
    options: GitOptions
    password: str | None
    mirror: str
    glob: str
    known: dict[str, str]
    read_again: list[str]
    read_all: bool
    wanted: GitWanted
    max_file_bytes: int
    memory_bytes: int
    answer: str


class GitFault(BaseModel):
    """Why a repository could not be read, as JSON on the process's standard output."""

    fault: str
