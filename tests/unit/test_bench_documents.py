"""`headwater bench documents` names what it lacks before it measures anything."""

import sys
from pathlib import Path

import pytest

from benchmarks.ingest import LLAMA_INDEX, NoLlamaIndex, bench_documents
from orchestration.settings import Settings


def test_an_environment_without_llama_index_is_named_with_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(NoLlamaIndex, match="there is no folder"):
        bench_documents(Settings(home=tmp_path), tmp_path / "nothing", None)
    with pytest.raises(NoLlamaIndex, match="No module named 'llama_index'") as error:
        bench_documents(Settings(home=tmp_path), tmp_path, Path(sys.executable))
    assert "uv pip install --link-mode copy" in str(error.value)
    assert all(package in str(error.value) for package in LLAMA_INDEX)
    assert list(tmp_path.iterdir()) == []
