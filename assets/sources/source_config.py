"""The configuration of one source: where its documents are, who may read them, and which files are read."""

import hashlib
import os
import re
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import unquote_to_bytes

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from assets.sources.connector_options import (
    GitOptions,
    SitemapOptions,
    SqlOptions,
    git_location,
    sitemap_location,
    sql_location,
)
from assets.text.license import SpdxLicense
from common.redaction import CREDENTIALS_ADVICE, has_credentials
from retrieval.access import encode_access_groups

PYTHON_ENVIRONMENT = "python-environment"
"""The location of the demo's corpus: what is installed beside Headwater."""

DELIMITERS_BY_SUFFIX = {".csv": ",", ".tsv": "\t"}
JSON_LINES_SUFFIXES = (".jsonl", ".ndjson")
"""The suffixes of files that a source with a text column can read."""
COMPRESSED_ROWS_BY_SUFFIX = {".gz": "gzip", ".bz2": "bzip2", ".zst": "zstd"}
"""The suffixes that come after them where the file is compressed, with the name of the compression."""

SYSTEM_FOLDER_ERROR = "what is under /proc, /sys or /dev is the system's and no source of documents"

CONNECTED_KINDS = ("git", "sql", "sitemap")
"""The kinds of sources that are no files which can be listed: connectors read them."""

SourceName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]+$", max_length=64)]


class SourceError(Exception):
    """A source can not be used. The message says which source, why, and what to do."""


class DuplicateSource(SourceError):
    """A source of that name exists already."""


class UnknownSource(SourceError):
    """There is no source of that name."""


class SourceUnreachable(SourceError):
    """The source's root is missing or can not be listed. This must not look as if every file was deleted."""


class SourceShrunk(SourceError):
    """More of a source's documents are gone than may disappear between two runs."""


class SourceEmpty(SourceError):
    """The source was listed and has no documents."""


class UnreadableTabularFile(SourceError):
    """A tabular file lacks a column that the source names, or its format has no rows."""


class Source(BaseModel):
    """One source of documents: a location, a tenant, groups, and which files are read.

    The constructor makes a local location absolute. Any other location is a URI as Hadoop writes it
    (`s3a://bucket/folder`, not percent-encoded). A location with wildcards is split into a folder and a glob.
    """

    # A location may hold a password: errors don't repeat what was given.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: SourceName
    """The source's name: letters, digits, - and _."""
    location: str = Field(min_length=1)
    """A folder, a file, a path with wildcards, or `python-environment`."""
    tenant: str = Field(default="default", pattern=r"^[^\x00-\x1f\x7f]+$")
    """The tenant that owns its documents."""
    groups: tuple[str, ...] = ()
    """The groups of the tenant that may see its documents; without any, all of the tenant may."""
    glob: str = "**/*"
    """The files under the location that are taken. It is matched against the whole relative path: `*` stays
    within a folder, `**/` is any number of folders, `?` a character, `[a-c]` a class, `{md,rst}`
    alternatives."""
    kind: Literal["files", "rows", "python-environment", "git", "sql", "sitemap"] = "files"
    """One document per file, or per row of a file, or what a connector reads. It follows from the rest."""
    text_column: str | None = None
    """The column that holds the text, for files of rows (JSONL, CSV, TSV, Parquet)."""
    id_column: str | None = None
    """The column that identifies a row. Without it, `_id` or `id` if the file has one, else a hash of the
    text."""
    title_column: str | None = None
    """The column that holds a row's title. Without it, `title` if the file has one."""
    git: GitOptions | None = None
    """Which branch of a Git repository is read, and as whom."""
    license: SpdxLicense | None = None
    """The SPDX licence of its documents, such as `MIT` or `CC-BY-4.0`; None where it is not known."""
    sql: SqlOptions | None = None
    """Which rows of a database are read, and as whom."""
    sitemap: SitemapOptions | None = None
    """How many pages of a website are read, and how fast."""
    questions: str | None = None
    """A JSONL file of {"question", "uri"} on which releases are evaluated."""

    @model_validator(mode="before")
    @classmethod
    def _resolve(cls, values: dict[str, Any]) -> dict[str, Any]:
        values = dict(values)
        location = str(values.get("location", ""))
        if values.get("questions"):
            values["questions"] = _absolute(str(values["questions"]))
        if values.get("git") is not None:
            return values | {"kind": "git", "location": git_location(location)}
        if values.get("sql") is not None:
            return values | {"kind": "sql", "location": sql_location(location)}
        if values.get("sitemap") is not None:
            return values | {"kind": "sitemap", "location": sitemap_location(location)}
        if has_credentials(location):
            raise ValueError(CREDENTIALS_ADVICE)
        if not values.get("kind"):
            rows = values.get("text_column") is not None
            values["kind"] = (
                PYTHON_ENVIRONMENT if location == PYTHON_ENVIRONMENT else "rows" if rows else "files"
            )
        if location and location != PYTHON_ENVIRONMENT:
            folder, wildcards = _split_wildcards(location)
            if wildcards:
                if values.get("glob", "**/*") != "**/*":
                    raise ValueError(f"{location} has wildcards and a glob was given too: write one of them")
                values["glob"] = wildcards
            values["location"] = _absolute(folder)
        return values

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.kind == "rows" and self.text_column is None:
            raise ValueError("a source of rows needs to know which column holds the text: --text-column")
        if self.kind != "rows" and (self.text_column or self.id_column or self.title_column):
            raise ValueError("columns are for sources of rows, which need --text-column")
        if self.kind == "files" and self.location.endswith(".parquet"):
            raise ValueError(
                f"{self.location} holds rows: say which column holds the text with --text-column"
            )
        if (self.kind == PYTHON_ENVIRONMENT) != (self.location == PYTHON_ENVIRONMENT):
            raise ValueError(f"a source of kind {self.kind} can not be at {self.location}")
        if any((self.kind == kind) != (getattr(self, kind) is not None) for kind in CONNECTED_KINDS):
            raise ValueError(f"a source of kind {self.kind} has other options than were given")
        compile_source_glob(self.glob)
        encode_access_groups(self.groups)
        return self

    @property
    def access_groups(self) -> str | None:
        """The groups as the lake stores them; see `encode_access_groups`."""
        return encode_access_groups(self.groups)

    @cached_property
    def local_root(self) -> Path | None:
        """The location as a local path; None for another file system and for the Python environment."""
        return Path(self.location) if self.location.startswith("/") else None

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of all settings that decide which documents there are and what is said of them."""
        return hashlib.sha256(self.model_dump_json(exclude={"questions"}).encode()).hexdigest()


def is_system_source(location: str) -> bool:
    """Returns whether a local location, with links resolved, is under /proc, /sys or /dev."""
    return os.path.realpath(location).split("/")[1] in ("proc", "sys", "dev")


def _split_wildcards(location: str) -> tuple[str, str]:
    """Splits a location before its first component with a wildcard. A path that exists is never a pattern."""
    if not re.search(r"[*?\[{]", location) or ("://" not in location and os.path.lexists(location)):
        return location, ""
    parts = location.split("/")
    first = next(i for i, part in enumerate(parts) if re.search(r"[*?\[{]", part))
    return "/".join(parts[:first]) or ("/" if first else "."), "/".join(parts[first:])


def _absolute(location: str) -> str:
    """Makes a local location an absolute path; leaves a URI of another file system as it is."""
    if location.startswith("file:"):
        return os.fsdecode(unquote_to_bytes("/" + location.removeprefix("file:").lstrip("/")))
    if re.match(r"^[a-z][a-z0-9+.-]*://", location):
        return location if location.endswith("://") else location.rstrip("/")
    # Not resolve(): a document keeps the address that its owner gave, wherever a link points today.
    return os.path.abspath(Path(location).expanduser())  # noqa: PTH100


def compile_source_glob(glob: str) -> re.Pattern[str]:
    """Compiles a glob such as `guide/**/*.{md,rst}` to a pattern for whole relative paths.

    Raises:
        ValueError: A bracket or brace is not closed.
    """
    rules = {"**/": r"(?:[^/]+/)*", "**": r".*", "*": r"[^/]*", "?": r"[^/]", "{": "(?:", "}": ")"}
    out, depth = [], 0
    for piece in re.findall(r"\*\*/|\*\*|\[!?\]?[^\]]*\]|.", glob, flags=re.DOTALL):
        if piece == "[":
            raise ValueError(f"the glob {glob!r} is not complete: a [ is not closed; the character is [[]")
        depth += (piece == "{") - (piece == "}")
        if piece == "," and depth:
            out.append("|")
        elif len(piece) > 1 and piece.startswith("["):
            inside = piece[1:-1].replace("\\", r"\\").replace("[", r"\[").replace("]", r"\]")
            negated, inside = inside.startswith("!"), inside.removeprefix("!").replace("^", r"\^")
            out.append(f"[^/{inside}]" if negated else f"(?!/)[{inside}]")
        else:
            out.append(rules.get(piece, re.escape(piece)))
    try:
        return re.compile("".join(out), re.DOTALL)
    except re.error as error:
        raise ValueError(f"the glob {glob!r} is not complete: {error}") from None
