"""Where documents come from, as configuration rows: what a source is, and the file that remembers them."""

import fcntl
import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import unquote_to_bytes

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from retrieval.access import encode_access_groups
from retrieval.atomic_files import atomic_file

ENVIRONMENT = "python-environment"
"""The location that means the demo's corpus: what is installed beside Headwater."""

SEPARATED = {".csv": ",", ".tsv": "\t"}
JSON_LINES = (".jsonl", ".ndjson")
ROW_SUFFIXES = (*SEPARATED, *JSON_LINES, ".parquet")
"""File name endings that a source with a text column can be read from."""

Label = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]+$", max_length=64)]


class SourceError(Exception):
    """A source can not be used as it is; the message says which, why, and what to do."""


class DuplicateSource(SourceError):
    """A source of that name is there already."""


class UnknownSource(SourceError):
    """No source has that name."""


class SourceUnreachable(SourceError):
    """The source's root is missing or can not be listed, which must not look like every file deleted."""


class SourceShrunk(SourceError):
    """More of a source's documents are gone than is taken for an ordinary day's."""


class SourceEmpty(SourceError):
    """The source was listed and holds no document."""


class UnreadableRows(SourceError):
    """A file of rows lacks a column that the source names, or is of a format that has no rows."""


class Source(BaseModel):
    """One place that documents come from.

    A location on this machine is made absolute when the source is made; any other is a URI as Hadoop
    writes it (`s3a://bucket/folder`, not percent-encoded). A location with wildcards is split into a
    folder and a glob.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Label
    """What the source is called: letters, digits, - and _."""
    location: str = Field(min_length=1)
    """A folder, a file, a path with wildcards, or `python-environment`."""
    tenant: str = Field(default="default", pattern=r"^[^\x00-\x1f\x7f]+$")
    """Whose its documents are."""
    groups: tuple[str, ...] = ()
    """Who of the tenant may see them: those in one of these groups; everybody where there is none."""
    glob: str = "**/*"
    """Which files under the location, matched on the whole relative path: `*` stays within a folder, `**/`
    is any number of folders, `?` a character, `[a-c]` a class, `{md,rst}` alternatives."""
    kind: Literal["files", "rows", "python-environment"] = "files"
    """A document a file, or a document a row; follows from the location and the text column."""
    text_column: str | None = None
    """The column that holds the text, for files of rows (JSONL, CSV, TSV, Parquet)."""
    id_column: str | None = None
    """The column that names a row; else `_id` or `id` where there is one, else a hash of the text."""
    title_column: str | None = None
    """The column that holds a row's title; else `title` where there is one."""
    questions: str | None = None
    """A JSONL file of {"question", "uri"} that releases are evaluated on."""

    @model_validator(mode="before")
    @classmethod
    def _resolve(cls, values: dict[str, Any]) -> dict[str, Any]:
        values = dict(values)
        location = str(values.get("location", ""))
        if not values.get("kind"):
            rows = values.get("text_column") is not None
            values["kind"] = ENVIRONMENT if location == ENVIRONMENT else "rows" if rows else "files"
        if location and location != ENVIRONMENT:
            folder, wildcards = _split_wildcards(location)
            if wildcards:
                if values.get("glob", "**/*") != "**/*":
                    raise ValueError(f"{location} has wildcards and a glob was given too: write one of them")
                values["glob"] = wildcards
            values["location"] = _absolute(folder)
        if values.get("questions"):
            values["questions"] = _absolute(str(values["questions"]))
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
        if (self.kind == ENVIRONMENT) != (self.location == ENVIRONMENT):
            raise ValueError(f"a source of kind {self.kind} can not be at {self.location}")
        glob_pattern(self.glob)
        encode_access_groups(self.groups)
        return self

    @property
    def access_groups(self) -> str | None:
        """Its groups as the lake keeps them; see `group_set`."""
        return encode_access_groups(self.groups)

    @cached_property
    def local_root(self) -> Path | None:
        """The location as a path of this machine; None for another file system and for the environment."""
        return Path(self.location) if self.location.startswith("/") else None

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of everything that decides which documents the source has."""
        return hashlib.sha256(self.model_dump_json(exclude={"questions"}).encode()).hexdigest()


def _split_wildcards(location: str) -> tuple[str, str]:
    """Splits a location at its first component with a wildcard; a name that exists is never a pattern."""
    if not re.search(r"[*?\[{]", location) or ("://" not in location and os.path.lexists(location)):
        return location, ""
    parts = location.split("/")
    first = next(i for i, part in enumerate(parts) if re.search(r"[*?\[{]", part))
    return "/".join(parts[:first]) or ("/" if first else "."), "/".join(parts[first:])


def _absolute(location: str) -> str:
    """A local location as an absolute path, and a URI of another file system as it is."""
    if location.startswith("file:"):
        return os.fsdecode(unquote_to_bytes("/" + location.removeprefix("file:").lstrip("/")))
    if re.match(r"^[a-z][a-z0-9+.-]*://", location):
        return location if location.endswith("://") else location.rstrip("/")
    # Not resolve(): a document's address is the one its owner gave, not where a link happens to point today.
    return os.path.abspath(Path(location).expanduser())  # noqa: PTH100


def glob_pattern(glob: str) -> re.Pattern[str]:
    """Compiles a glob over a whole relative path, such as `guide/**/*.{md,rst}`.

    Raises:
        ValueError: When its brackets or braces don't close.
    """
    rules = {"**/": r"(?:[^/]+/)*", "**": r".*", "*": r"[^/]*", "?": r"[^/]", "{": "(?:", "}": ")"}
    out, depth = [], 0
    for piece in re.findall(r"\*\*/|\*\*|\[!?\]?[^\]]*\]|.", glob, flags=re.DOTALL):
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


class SourceRegistry:
    """The sources of one lake, in one JSON file that is replaced whole and never seen half-written."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def list(self) -> list[Source]:
        """All sources, in the order in which they were added.

        Raises:
            SourceError: When the file is not one that Headwater wrote.
        """
        if not self._path.exists():
            return []
        try:
            rows = json.loads(self._path.read_text(encoding="utf-8"))["sources"]
            return [Source.model_validate(row) for row in rows]
        except (ValueError, KeyError, TypeError, ValidationError) as error:
            raise SourceError(
                f"{self._path} is not a list of sources ({error}): mend or remove it"
            ) from error

    def get(self, name: str) -> Source:
        """The source of that name.

        Raises:
            UnknownSource: When there is none; the message lists those there are.
        """
        sources = {source.name: source for source in self.list()}
        if name not in sources:
            known = ", ".join(sorted(sources)) or "none yet: headwater source add NAME LOCATION"
            raise UnknownSource(f"no source is called {name!r}; there are: {known}")
        return sources[name]

    def add(self, source: Source) -> None:
        """Remembers a source.

        Raises:
            DuplicateSource: When the name is taken.
            SourceUnreachable: When a local location or its questions are missing.
        """
        for path in (source.local_root, source.questions and Path(source.questions)):
            if path and not path.exists():
                raise SourceUnreachable(f"source {source.name}: there is no {path}: check the path")
        with self._locked():
            sources = self.list()
            if any(known.name == source.name for known in sources):
                raise DuplicateSource(
                    f"a source called {source.name!r} is there already: "
                    f"choose another name, or headwater source remove {source.name} first"
                )
            self._write([*sources, source])

    def give_to(self, name: str, groups: Sequence[str]) -> Source:
        """Sets which groups may see a source's documents, from the next run on; returns it.

        Raises:
            UnknownSource: When there is none of that name.
            ValueError: When a group's name can not be one.
        """
        with self._locked():
            self.get(name)
            sources = [
                Source(**source.model_dump() | {"groups": tuple(groups)}) if source.name == name else source
                for source in self.list()
            ]
            self._write(sources)
        return self.get(name)

    def remove(self, name: str) -> Source:
        """Forgets a source and returns it.

        Raises:
            UnknownSource: When there is none of that name.
        """
        with self._locked():
            removed = self.get(name)
            self._write([source for source in self.list() if source.name != name])
        return removed

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # A file beside it: a lock on the file itself would stay with the old one when it is replaced.
        with self._path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _write(self, sources: Sequence[Source]) -> None:
        text = json.dumps({"sources": [s.model_dump(exclude_defaults=True) for s in sources]}, indent=2)
        with atomic_file(self._path) as fresh:
            fresh.write_text(text + "\n", encoding="utf-8")
