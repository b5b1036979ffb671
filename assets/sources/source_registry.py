"""The store of a lake's source configurations: a JSON file, changed under a lock."""

import fcntl
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from assets.sources.source_config import (
    SYSTEM_FOLDER_ERROR,
    DuplicateSource,
    Source,
    SourceError,
    SourceUnreachable,
    UnknownSource,
    is_system_source,
)
from common.atomic_files import atomic_file


class SourceRegistry:
    """The sources of one lake, in one JSON file.

    The file is replaced atomically, and a lock keeps two writers apart.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def list(self) -> list[Source]:
        """Returns all sources, in the order in which they were added.

        Raises:
            SourceError: Headwater did not write the file.
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
        """Returns the source of that name.

        Raises:
            UnknownSource: There is none; the message lists the sources that exist.
        """
        sources = {source.name: source for source in self.list()}
        if name not in sources:
            known = ", ".join(sorted(sources)) or "none yet: headwater source add NAME LOCATION"
            raise UnknownSource(f"no source is called {name!r}; there are: {known}")
        return sources[name]

    def add(self, source: Source) -> None:
        """Adds a source.

        Raises:
            DuplicateSource: The name is taken.
            SourceUnreachable: The local location, or the file of questions, does not exist, or the location
                is the system's.
        """
        if source.local_root and is_system_source(source.location):
            raise SourceUnreachable(f"source {source.name}: {SYSTEM_FOLDER_ERROR}")
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

    def set_groups(self, name: str, groups: Sequence[str]) -> Source:
        """Sets which groups may see a source's documents from the next run on; returns the source.

        Raises:
            UnknownSource: There is no source of that name.
            ValueError: A group's name is not valid.
        """
        return self._change(name, groups=tuple(groups))

    def set_license(self, name: str, expression: str | None) -> Source:
        """Sets the SPDX licence of a source's documents from the next run on; returns the source.

        Raises:
            UnknownSource: There is no source of that name.
            ValueError: It is no SPDX expression.
        """
        return self._change(name, license=expression)

    def _change(self, name: str, **values: object) -> Source:
        with self._locked():
            self.get(name)
            sources = [
                Source(**source.model_dump() | values) if source.name == name else source
                for source in self.list()
            ]
            self._write(sources)
        return self.get(name)

    def remove(self, name: str) -> Source:
        """Removes a source and returns it.

        Raises:
            UnknownSource: There is no source of that name.
        """
        with self._locked():
            removed = self.get(name)
            self._write([source for source in self.list() if source.name != name])
        return removed

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # A lock on the file itself would stay with the old file when the file is replaced.
        with self._path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _write(self, sources: Sequence[Source]) -> None:
        text = json.dumps({"sources": [s.model_dump(exclude_defaults=True) for s in sources]}, indent=2)
        with atomic_file(self._path) as new_file:
            new_file.write_text(text + "\n", encoding="utf-8")
