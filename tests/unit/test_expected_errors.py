"""Which errors are the user's to mend: of those no traceback is told."""

from collections.abc import Callable

import pytest

from assets.sources.source_config import Source, SourceUnreachable, UnknownSource
from orchestration.cli.main import _is_expected
from orchestration.cli.terminal import print_table
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
