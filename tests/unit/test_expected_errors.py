"""Which errors are the user's to mend: of those no traceback is told."""

from collections.abc import Callable

import pytest
from dagster_shared.error import SerializableErrorInfo

from assets.sources.source_config import Source, SourceUnreachable, UnknownSource
from orchestration.cli.main import _is_expected
from orchestration.cli.terminal import print_table
from orchestration.services.run_texts import said_of_error
from retrieval.access import encode_access_groups


def raised(what: Callable[[], object]) -> Exception:
    with pytest.raises(Exception) as error:  # noqa: PT011 - of any kind
        what()
    return error.value


def unreachable() -> None:
    raise SourceUnreachable("the disk is away")


def test_what_is_raised_on_purpose_is_expected() -> None:
    assert _is_expected(raised(unreachable))
    assert _is_expected(raised(lambda: Source(name="a b", location="/docs")))  # pydantic's
    assert _is_expected(raised(lambda: encode_access_groups(["a,b\n"])))  # a ValueError of Python's, by us
    assert _is_expected(UnknownSource("it was never raised, and is ours all the same"))


def test_a_fault_of_the_program_is_not() -> None:
    nothing: dict[str, int] = {}
    assert not _is_expected(raised(lambda: nothing["missing"]))
    assert not _is_expected(raised(lambda: print_table([1])))  # type: ignore[list-item]
    assert not _is_expected(raised(lambda: int("no number")))


def test_one_text_is_not_taken_for_a_group_per_letter() -> None:
    with pytest.raises(ValueError, match=r"give \['finance'\]"):
        encode_access_groups("finance")


@pytest.mark.parametrize(
    ("message", "stack", "name", "said"),
    [
        ("assets.sources.source_config.SourceShrunk: source a: 9 are gone\n", [], "SourceShrunk",
         "source a: 9 are gone"),
        ("dagster._core.errors.DagsterExecutionInterruptedError\n", [], "DagsterExecutionInterruptedError",
         "stopped by a signal; `headwater run` continues from what was committed"),
        ("py4j.protocol.Py4JError: org does not exist in the JVM\n", ["py4j"], "Py4JError",
         "Spark's JVM has ended"),
        ("ValueError: SourceShrunk: is no class here", [], "ValueError", "SourceShrunk: is no class here"),
    ],
)  # fmt: skip
def test_a_run_says_its_error_without_class_names(
    message: str, stack: list[str], name: str, said: str
) -> None:
    assert said_of_error(SerializableErrorInfo(message, stack, name)).startswith(said)
