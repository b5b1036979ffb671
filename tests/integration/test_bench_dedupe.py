"""The benches' lakes are made as the assets would have made them, or the assets could not add to them."""

import string
from pathlib import Path

import pytest

from benchmarks import dedupe_lake

_DOCUMENTS = 2_000


def test_a_batch_added_to_a_lake_finds_every_copy(tmp_path: Path) -> None:
    letters = string.ascii_lowercase
    words = dedupe_lake.bench_vocabulary(
        iter([[f"word{one}{other}" for one in letters for other in letters]])
    )

    measured = dedupe_lake.bench_added_documents(_DOCUMENTS, words, tmp_path)

    assert measured.added == _DOCUMENTS // 100
    assert measured.found == pytest.approx(1)
