import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import chunking
from orchestration.settings import Settings
from retrieval.embedding.config import packaged_embedding_model

spans = st.lists(
    st.tuples(st.integers(0, 60), st.integers(1, 20)).map(lambda pair: (pair[0], sum(pair))), min_size=1
)


@given(retrieved=spans, wanted=spans)
def test_overlap_is_what_counting_characters_gives(
    retrieved: list[tuple[int, int]], wanted: list[tuple[int, int]]
) -> None:
    recall, precision, iou = chunking.bench_span_overlap(retrieved, wanted)
    asked = {i for start, end in wanted for i in range(start, end)}
    got = [i for start, end in retrieved for i in range(start, end)]
    common = len(asked & set(got))
    assert recall == common / len(asked)
    assert precision == common / len(got)
    assert iou == common / (len(got) + len(asked) - common)


@given(cut=spans, budget=st.integers(1, 100))
def test_a_budget_is_filled_and_never_exceeded(cut: list[tuple[int, int]], budget: int) -> None:
    filling = list(chunking._filling(cut, np.arange(len(cut)), budget))
    assert chunking._length(filling) == min(budget, chunking._length(cut))
    assert filling[:-1] == cut[: len(filling) - 1]


TEXTS = {
    "rivers": "The Danube rises in the Black Forest. It ends in the Black Sea.\n\n"
    + "Rivers are long. " * 60,
    "bread": "Bread is baked from flour and water.\n\n" + "The dough must rest for an hour. " * 60,
}


def written(folder: Path, references: list[tuple[str, list[Any], str]]) -> Path:
    (folder / "corpora").mkdir(parents=True)
    for name, text in TEXTS.items():
        (folder / "corpora" / f"{name}.md").write_text(text)
    rows = [
        f'"{question}","{json.dumps(spans).replace(chr(34), chr(34) * 2)}",{name}'
        for question, spans, name in references
    ]
    (folder / "questions_df.csv").write_text("\n".join(["question,references,corpus_id", *rows]) + "\n")
    return folder


def test_our_chunks_hold_the_span_that_a_question_wants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunking, "CHUNK_SIZES_TOKENS", (30,))
    monkeypatch.setattr(chunking, "_theirs", chunking._ours)  # the other library is not needed for this
    span = {"start_index": 0, "end_index": 37}
    data = written(tmp_path / "data", [("Where does the Danube rise?", [span], "rivers")])
    settings = Settings(home=tmp_path / "home")
    result = chunking.bench_chunking(settings, data)
    assert result.figures["headwater_30_recall@5"] == 1
    assert 0 < result.figures["headwater_30_precision@5"] < 0.5
    assert result.ratios["headwater_to_langchain_30_iou@5"] == 1
    kept = {file: file.stat().st_mtime_ns for file in (settings.home / "bench").iterdir()}
    assert len(kept) == 2  # a file per text: the same chunks are not embedded for both splitters
    assert chunking.bench_chunking(settings, data).figures == result.figures
    assert {file: file.stat().st_mtime_ns for file in (settings.home / "bench").iterdir()} == kept


def test_both_splitters_give_exact_spans_of_the_size_asked_for() -> None:
    pytest.importorskip("langchain_text_splitters")
    tokenizer = packaged_embedding_model() / "tokenizer.json"
    for split in (chunking._ours(tokenizer), chunking._theirs(tokenizer)):
        for text in TEXTS.values():
            cut = split(text, 40)
            assert len(cut) > 5
            assert "".join("".join(text[a:b].split()) for a, b in cut) == "".join(text.split())


@pytest.mark.parametrize("references", [[("q", [{"start_index": 1}], "rivers")], [("q", [], "stones")]])
def test_questions_in_another_form_are_named_by_record(
    tmp_path: Path, references: list[tuple[str, list[Any], str]]
) -> None:
    data = written(tmp_path, references)
    with pytest.raises(chunking.NoBenchChunkingSet, match=r"questions_df\.csv, record 2"):
        chunking.bench_chunking(Settings(home=tmp_path / "home"), data)


def test_a_folder_that_is_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(chunking.NoBenchChunkingSet, match=r"no questions_df\.csv"):
        chunking.bench_chunking(Settings(home=tmp_path / "home"), tmp_path)
