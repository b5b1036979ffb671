"""A set of questions to answer in one batch, read line by line: a bad line fails alone, with its reason."""

import json
from collections.abc import Iterable
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from inference.answering.answer import validate_question
from retrieval.access import checked_tenant, encode_access_groups
from retrieval.search.query import is_encodable


class BatchQuestion(BaseModel, frozen=True):
    """A question of a batch, as one line of its file has it."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    id: str = Field(min_length=1, max_length=200)
    """Its id, unique in the batch."""
    question: str
    """The question, in plain words."""
    tenant: str = "default"
    """The tenant whose documents are searched."""
    groups: tuple[str, ...] = ()
    """The groups of the user who asks."""
    as_of: str | None = None
    """A release or a time: what was live then is searched; None for what is live now."""

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, line: object) -> object:
        if not isinstance(line, dict):
            raise ValueError('it is no JSON object such as {"id": "q1", "question": "…"}')
        return {name: value for name, value in line.items() if value is not None}

    @field_validator("id", mode="before")
    @classmethod
    def _numbers_are_ids(cls, value: object) -> object:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("id", "as_of", "tenant", "groups")
    @classmethod
    def _storable(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if not is_encodable("".join(value)):
            raise ValueError("it holds half a character (a surrogate by itself), which can not be stored")
        return value

    @field_validator("question")
    @classmethod
    def _valid_question(cls, question: str) -> str:
        return validate_question(question)

    @field_validator("tenant")
    @classmethod
    def _valid_tenant(cls, tenant: str) -> str:
        return checked_tenant(tenant)

    @field_validator("groups")
    @classmethod
    def _valid_groups(cls, groups: tuple[str, ...]) -> tuple[str, ...]:
        encode_access_groups(groups)
        return groups


@dataclass(frozen=True)
class FailedQuestion:
    """A question without an answer.

    Attributes:
        id: Its id; `line N` where it has none.
        reason: Why, in a sentence.
    """

    id: str
    reason: str

    def __str__(self) -> str:
        """Returns id and reason for whoever reads a list; a line without an id is named once."""
        return self.reason if self.reason.startswith(f"{self.id}: ") else f"{self.id}: {self.reason}"


@dataclass(frozen=True)
class QuestionSet:
    """The questions of a batch.

    Attributes:
        questions: Those that can be asked, in the order of the file.
        invalid: Those that can't.
    """

    questions: tuple[BatchQuestion, ...]
    invalid: tuple[FailedQuestion, ...]

    def __len__(self) -> int:
        return len(self.questions) + len(self.invalid)


def read_question_set(lines: Iterable[bytes]) -> QuestionSet:
    """Returns the questions in JSON lines such as `{"id": "q1", "question": "…"}`; empty lines are skipped.

    An id that occurs again fails, and its first question stays.
    """
    questions: dict[str, BatchQuestion] = {}
    invalid = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            question = BatchQuestion.model_validate(json.loads(line))
        except (
            ValueError,
            RecursionError,
        ) as error:  # ValidationError, bad JSON and bad UTF-8 are ValueErrors
            invalid.append(FailedQuestion(_line_id(line, number), f"line {number}: {_fault(error)}"))
            continue
        if question.id in questions:
            invalid.append(FailedQuestion(question.id, f"line {number}: this id has occurred before"))
            continue
        questions[question.id] = question
    return QuestionSet(tuple(questions.values()), tuple(invalid))


def _line_id(line: bytes, number: int) -> str:
    try:
        found = json.loads(line)["id"]
    except (ValueError, LookupError, TypeError, RecursionError):
        found = None
    valid = isinstance(found, str) and 0 < len(found) <= 200 and is_encodable(found)
    return found if valid else f"line {number}"


_PLAIN = {
    "missing": "it is missing",
    "string_type": "it must be a text",
    "string_too_short": "it is empty",
    "string_too_long": "it has more than 200 characters",
    "tuple_type": "it must be a list of texts",
    "extra_forbidden": f"there is no such field; a question has {', '.join(BatchQuestion.model_fields)}",
}
"""Pydantic's kinds of errors in words for whoever wrote the line."""


def _fault(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'the line'}: "
            f"{_PLAIN.get(fault['type']) or fault['msg'].removeprefix('Value error, ')}"
            for fault in error.errors()
        )
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return f"not JSON: {error}"
