"""The training sets that were asked for: a tenant each, and examples that a user adds to what is made."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from common.atomic_files import atomic_file
from retrieval.access import checked_tenant
from training.datasets.training_set import (
    UnknownDataset,
    dataset_headers,
    find_dataset,
    is_dataset_name,
    snapshot_folder,
)

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

USER_EXAMPLE_SCHEMA = pa.schema(
    [
        ("tenant", pa.string()),
        ("kind", pa.string()),
        ("question", pa.string()),
        ("positive", pa.string()),
        ("negatives", pa.list_(pa.string())),
    ]
)

_REQUEST = "request.json"
_EXAMPLES = "examples.jsonl"
_MOST_CHARS = 100_000


class InvalidExamples(ValueError):
    """A file of examples can not be used; the message names the line."""


class InvalidDatasetRequest(ValueError):
    """A training set can not be asked for so; the message says why."""


class UserExample(BaseModel, frozen=True):
    """A line of a user's file: `{"question": "…", "answer": "…"}`, or with `positive` and `negatives`."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    question: str = Field(min_length=1, max_length=_MOST_CHARS)
    """What is asked or instructed."""
    answer: str | None = Field(default=None, min_length=1, max_length=_MOST_CHARS)
    """What a generator is to answer."""
    positive: str | None = Field(default=None, min_length=1, max_length=_MOST_CHARS)
    """The passage that an embedder is to find."""
    negatives: tuple[str, ...] = Field(default=(), max_length=64)
    """Passages that it is not to find."""

    @model_validator(mode="before")
    @classmethod
    def _is_an_object(cls, line: object) -> object:
        if not isinstance(line, dict):
            raise ValueError('it is no JSON object such as {"question": "…", "answer": "…"}')
        return line

    @model_validator(mode="after")
    def _one_of_both(self) -> "UserExample":
        if (self.answer is None) == (self.positive is None):
            raise ValueError('give either an "answer" or a "positive" passage')
        if self.negatives and self.positive is None:
            raise ValueError('"negatives" are for a "positive" passage')
        return self

    @field_validator("question", "answer", "positive", "negatives")
    @classmethod
    def _not_blank(cls, value: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        for text in (value,) if isinstance(value, str) else value or ():
            if not text.strip():
                raise ValueError("it is blank")
        return value


@dataclass(frozen=True)
class DatasetRequest:
    """A training set that was asked for.

    Attributes:
        name: Its name.
        tenant: The tenant from whose documents it is made.
    """

    name: str
    tenant: str


class DatasetRequests:
    """The training sets that were asked for, each in a folder of its name.

    Until one is asked for, no training example is made; from then on each run keeps those of its tenant up to
    date.

    Args:
        folder: The folder of training sets.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def all(self) -> list[DatasetRequest]:
        """Returns all that were asked for, by name."""
        return [
            DatasetRequest(file.parent.name, json.loads(file.read_bytes())["tenant"])
            for file in sorted(self.folder.glob(f"*/{_REQUEST}"))
        ]

    @property
    def tenants(self) -> list[str]:
        """The tenants of which examples are made, sorted."""
        return sorted({each.tenant for each in self.all()})

    def add(self, name: str, tenant: str | None = None, examples: Path | None = None) -> DatasetRequest:
        """Asks for a training set; one that was asked for before keeps its tenant, and its examples.

        Args:
            name: Letters, digits, - and _; 64 characters at most.
            tenant: The tenant; None for that of before, or `default`.
            examples: A file of JSON lines that are `UserExample`; it replaces the one of before.

        Raises:
            InvalidDatasetRequest: The name is not valid, or names the set of another tenant.
            InvalidExamples: The file is missing or empty, or a line is no example; nothing was changed.
        """
        if not is_dataset_name(name):
            raise InvalidDatasetRequest(
                f"{name!r} can not name a training set: use up to 64 letters, digits, '_' and '-'"
            )
        before = next((each for each in self.all() if each.name == name), None)
        if before is not None and tenant not in (None, before.tenant):
            raise InvalidDatasetRequest(
                f"the training set {name!r} is of the tenant {before.tenant!r}: give another name to one of "
                f"{tenant!r}"
            )
        request = before or DatasetRequest(name, checked_tenant(tenant or "default"))
        if examples is not None:
            read_examples(examples)
            with atomic_file(self.folder / name / _EXAMPLES) as fresh:
                shutil.copyfile(examples, fresh)
        if before is None:
            with atomic_file(self.folder / name / _REQUEST) as fresh:
                fresh.write_text(json.dumps({"tenant": request.tenant}))
        return request

    def remove(self, name: str) -> list[str]:
        """Removes a training set with its examples and snapshots, or one snapshot of it.

        Args:
            name: NAME, or NAME@DIGEST for the snapshot alone.

        Returns:
            The addresses of the snapshots that were removed.

        Raises:
            UnknownDataset: There is none of that name.
        """
        wanted, _, digest = name.partition("@")
        if digest:
            headers = [find_dataset(self.folder, name)]
        elif any(each.name == wanted for each in self.all()):
            headers = dataset_headers(self.folder, wanted)
        else:
            known = ", ".join(each.name for each in self.all()) or "none yet"
            raise UnknownDataset(f"no training set {name!r} was asked for; there are: {known}")
        for header in headers:
            shutil.rmtree(snapshot_folder(self.folder, header))
        if not digest:
            shutil.rmtree(self.folder / wanted)
        return [header.address for header in headers]

    def examples(self) -> pa.Table:
        """Returns the examples that users gave, in `USER_EXAMPLE_SCHEMA`.

        Raises:
            InvalidExamples: A file was changed by hand, and a line is no example.
        """
        rows = [
            {
                "tenant": request.tenant,
                "kind": "instruction" if example.positive is None else "retrieval_pair",
                "question": example.question.strip(),
                "positive": example.positive or example.answer,
                "negatives": [*example.negatives],
            }
            for request in self.all()
            if (file := self.folder / request.name / _EXAMPLES).is_file()
            for example in read_examples(file)
        ]
        return pa.Table.from_pylist(rows, USER_EXAMPLE_SCHEMA)

    @property
    def digest(self) -> str:
        """A digest of the tenants and of the examples that users gave."""
        said = hashlib.sha256("\x1f".join(self.tenants).encode())
        for file in sorted(self.folder.glob(f"*/{_EXAMPLES}")):
            said.update(file.parent.name.encode() + b"\x1f" + file.read_bytes())
        return said.hexdigest()[:16]


def read_examples(file: Path) -> list[UserExample]:
    """Returns the examples in a file of JSON lines; empty lines are skipped.

    Raises:
        InvalidExamples: The file is missing or empty, or a line is no example.
    """
    try:
        with file.open("rb") as lines:
            examples = list(_examples(file, lines))
    except OSError as error:
        raise InvalidExamples(f"{file} can not be read: {error.strerror}") from None
    if not examples:
        raise InvalidExamples(
            f'{file} holds no example: write one in each line, such as {{"question": "…", "answer": "…"}}'
        )
    return examples


def _examples(file: Path, lines: Iterator[bytes]) -> Iterator[UserExample]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield UserExample.model_validate(json.loads(line))
        except ValidationError as error:
            said = "; ".join(map(_fault, error.errors()))
            raise InvalidExamples(f"{file}, line {number}: {said}") from None
        except RecursionError:
            raise InvalidExamples(f"{file}, line {number}: nested too deeply") from None
        except ValueError as error:  # bad JSON and bad UTF-8
            raise InvalidExamples(f"{file}, line {number}: not JSON: {error}") from None


def _fault(fault: "ErrorDetails") -> str:
    where = ".".join(map(str, fault["loc"])) or "the line"
    return f"{where}: {fault['msg'].removeprefix('Value error, ')}"
