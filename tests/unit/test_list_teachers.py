"""Teachers of ranked lists: the scorer of answers, and rerankers that do not do what they should."""

from pathlib import Path

import pyarrow as pa
import pytest
from cross_encoders import save_cross_encoder

from assets.engine.local_relations import LocalRelations
from assets.training_sets.mining import MINED_SCHEMA
from assets.training_sets.teachers import TaughtPassage, TeacherModels, define_taught_lists
from retrieval.rerank.reranker import RerankerConfig, RerankError

PACKAGED = TeacherModels(None, RerankerConfig())
PASSAGES = {
    "harbour": "The harbour of Lisbon was rebuilt in stone. Ships from Brazil unload coffee there.",
    "danube": "Rivers are old. The Danube rises in the Black Forest, near Donaueschingen.",
    "salt": "Salt is cheap today. In the Middle Ages towns grew rich by it.",
}


def mined(on: LocalRelations, teacher: str, questions: list[str]) -> list[dict[str, object]]:
    """Returns what becomes of a pair and of a list for each question, whose passages have a fused order."""
    ids, rows = [*PASSAGES], []
    for number, _ in enumerate(questions):
        shared = {"draft_no": number, "left_out": None}
        pair = {"kind": "retrieval_pair", "chunk_ids": ids[:2], "doc_ids": ids[:2], "scores": [0.9, 0.1]}
        listed = {"kind": "ranked_list", "chunk_ids": ids, "doc_ids": ids, "scores": [0.9, 0.5, 0.1]}
        rows += [shared | pair | {"teacher": None}, shared | listed | {"teacher": "fused"}]
    on.add("ranked", pa.Table.from_pylist(rows, MINED_SCHEMA))
    on.add("numbered", pa.table({"draft_no": [*range(len(questions))], "question": questions}))
    nothing = pa.nulls(len(ids), pa.string())
    passages = {"chunk_id": ids, "doc_id": ids, "text": [*PASSAGES.values()]}
    on.add("passages", pa.table(passages | {"title": nothing, "heading": nothing}))
    define_taught_lists(on, teacher, PACKAGED.load(teacher))  # type: ignore[arg-type]
    return on.arrow("mined").sort_by([("draft_no", "ascending"), ("kind", "ascending")]).to_pylist()


def test_the_scorer_puts_first_what_answers_and_leaves_lists_that_it_was_not_made_for() -> None:
    asked = ["Where does the Danube rise?", "多瑙河发源于哪里?"]
    rows = mined(LocalRelations(), "scorer", asked)
    scored, pair, foreign, _ = rows
    assert scored["chunk_ids"][0] == scored["doc_ids"][0] == "danube"  # type: ignore[index]
    assert scored["scores"] == sorted(scored["scores"], reverse=True)  # type: ignore[call-overload]
    assert scored["teacher"] == "scorer"
    assert (pair["scores"], pair["teacher"]) == ([0.9, 0.1], None)
    assert (foreign["chunk_ids"], foreign["teacher"]) == ([*PASSAGES], "fused")
    assert mined(LocalRelations(), "fused", asked)[0]["chunk_ids"] == [*PASSAGES]


def test_a_reranker_teaches_what_it_scores_and_another_model_is_another_teacher(tmp_path: Path) -> None:
    folder = save_cross_encoder(tmp_path / "cross-encoder")
    models = TeacherModels(None, RerankerConfig(model=folder))
    score = models.load("reranker")
    assert score is not None
    scores = score("Where?", [TaughtPassage(text, None, None) for text in PASSAGES.values()])
    assert scores is not None
    assert len({*scores}) == len(PASSAGES)
    other = RerankerConfig(model=save_cross_encoder(tmp_path / "other", hidden_size=64))
    asked = RerankerConfig(endpoint="http://127.0.0.1:9/rerank?key=secret")
    digests = {TeacherModels(None, each).digest("reranker") for each in (models.reranker, other, asked)}
    digests.add(PACKAGED.digest("scorer"))
    assert len(digests) == 4
    assert not any("secret" in each for each in digests)
    assert PACKAGED.digest("fused") == models.digest("fused") == ""
    with pytest.raises(RerankError, match=r"TEACHER is `reranker`, and no reranker is configured: set"):
        PACKAGED.digest("reranker")
    gone = TeacherModels(None, RerankerConfig(endpoint="http://127.0.0.1:9/rerank")).load("reranker")
    assert gone is not None
    with pytest.raises(RerankError, match="can not be asked"):
        gone("Where?", [TaughtPassage("There.", None, None)])
