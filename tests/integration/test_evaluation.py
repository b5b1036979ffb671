"""`headwater evaluate` on a small collection, through the command line and the real index."""

import fcntl
import json
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from cross_encoders import save_cross_encoder
from typer.testing import CliRunner, Result

from orchestration.cli.main import app
from orchestration.operations.scratch_index import open_scratch_index
from orchestration.settings import Settings
from quality.evaluation.beir_collection import load_beir_collection
from retrieval.embedding.embedder import Embedder
from retrieval.store.postgres import Postgres, PostgresConfig

DOCUMENTS = {
    "copper": ("Copper", "Copper conducts electricity well and resists corrosion in sea water."),
    "salt": ("Salt", "Salt is harvested from evaporated sea water in shallow ponds."),
    "wind": ("", "Wind turbines turn moving air into electric power."),
    "long": ("Rivers", "A river rises in the hills and falls to the sea. " * 60),
    "title": ("Only a title", ""),
    "nothing": ("", ""),
}
QUERIES = {
    "q1": "which metal conducts electricity",
    "q2": "where does salt come from",
    "q3": "a river's \"way",
}


@pytest.fixture(scope="module")
def collection(module_folder: Path) -> Path:
    folder = module_folder / "small"
    (folder / "qrels").mkdir(parents=True)
    rows = [{"_id": name, "title": title, "text": text} for name, (title, text) in DOCUMENTS.items()]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    asked = [{"_id": name, "text": text} for name, text in QUERIES.items()]
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, asked)), encoding="utf-8")
    judged = "query-id\tcorpus-id\tscore\nq1\tcopper\t1\nq2\tsalt\t1\nq3\tlong\t1\n"
    (folder / "qrels" / "test.tsv").write_text(judged, encoding="utf-8")
    return folder


@pytest.fixture
def home(module_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    state = module_folder / "state"
    monkeypatch.setenv("HEADWATER_HOME", str(state))
    yield state
    # Nothing of the scratch index is left, whatever happened.
    assert [path.name for path in state.iterdir()] in ([], ["evaluations"])


def evaluate(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def test_the_server_and_the_folder_of_a_killed_evaluation_go_with_the_next_one(
    collection: Path, home: Path
) -> None:
    killed = home / "evaluation-killed"
    killed.mkdir(parents=True)
    (killed / "in-use").touch()
    server = Postgres(killed, PostgresConfig()).server
    assert server
    server.start()
    running = home / "evaluation-running"
    running.mkdir()
    with (running / "in-use").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert evaluate(collection).exit_code == 0
        assert not killed.exists()
        assert not server.running()
        assert running.exists()
    assert evaluate(collection).exit_code == 0
    assert not running.exists()


def test_many_queries_are_ranked_at_once_as_a_search_ranks_each(collection: Path, home: Path) -> None:
    asked = load_beir_collection(collection)
    questions = list(asked.queries.values())
    with open_scratch_index(Settings(), asked, "document", print) as index:
        together = index.rank_in_bulk(questions, 3)
        for question, found, scores in zip(questions, *together.to_pydict().values(), strict=True):
            hits = index.search("hybrid", question, 3)
            assert [hit.doc_id for hit in hits] == found
            assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("chunks", ["default", "document"])
def test_every_mode_is_measured(collection: Path, home: Path, tmp_path: Path, chunks: str) -> None:
    picture = tmp_path / "small.svg"
    done = evaluate(
        collection, "--json", "--chunks", chunks, "--compare", "hybrid", "lexical", "--plot", picture
    )
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert (result["dataset"], result["documents"], result["queries"]) == ("small", 6, 3)
    assert set(result["modes"]) == {"lexical", "vector", "hybrid"}
    for figures in result["modes"].values():
        assert set(figures) == {"ndcg@10", "recall@100", "mrr@10", "p50_ms", "p95_ms"}
        assert figures["ndcg@10"] == figures["recall@100"] == figures["mrr@10"] == 1.0
        assert 0 < figures["p50_ms"] <= figures["p95_ms"]
    compared = result["comparison"]
    assert (compared["a"], compared["b"]) == ("hybrid", "lexical")
    assert compared["ndcg@10"]["difference"] == 0
    assert compared["ndcg@10"]["low"] < 0 < compared["ndcg@10"]["high"]
    chart = ElementTree.parse(picture).getroot()
    assert chart.tag.endswith("svg")
    texts = [each.text for each in chart.iter() if each.tag.endswith("text")]
    assert {"ndcg@10", "recall@100", "mrr@10", "lexical", "vector", "hybrid"} <= set(texts)
    assert "small: 6 documents, 3 queries" in texts
    assert texts.count("1.000") == 9  # each bar's mean


def test_a_configured_reranker_is_a_mode(
    collection: Path, home: Path, module_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADWATER_RERANKER__MODEL", str(save_cross_encoder(module_folder / "cross-encoder")))
    monkeypatch.setenv("HEADWATER_RERANKER__BUDGET_S", "60")
    done = evaluate(collection, "--json", "--compare", "reranked", "hybrid")
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert set(result["modes"]) == {"lexical", "vector", "hybrid", "reranked"}
    assert result["modes"]["reranked"]["recall@100"] == 1.0
    assert "not reranked" not in done.stderr
    monkeypatch.setenv("HEADWATER_RERANKER__BUDGET_S", "0.000001")
    late = evaluate(collection, "--json", "--compare", "reranked", "hybrid")
    found = json.loads(late.stdout)["comparison"]["ndcg@10"]
    assert found["difference"] == 0
    assert found["low"] < 0 < found["high"]
    assert "was not done in 1e-06 s" in " ".join(late.stderr.split())


def test_what_was_embedded_once_is_not_again(
    collection: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert evaluate(collection).exit_code == 0

    def refuse(self: Embedder, texts: object, prompt: object) -> None:
        raise AssertionError(f"embedded again: {texts}")

    monkeypatch.setattr(Embedder, "_encode", refuse)
    done = evaluate(collection, "--compare", "vector", "lexical")
    assert done.exit_code == 0, done.exception
    assert "ndcg@10: vector is +0.0000 above lexical" in done.stdout


def test_what_can_not_be_evaluated_says_why(collection: Path, home: Path, tmp_path: Path) -> None:
    assert "there is no folder" in str(evaluate(tmp_path / "absent").exception)
    assert "the splits there are: test" in str(evaluate(collection, "--split", "dev").exception)
    assert "no mode 'psychic'" in str(evaluate(collection, "--compare", "psychic", "lexical").exception)
    assert evaluate(collection, "--chunks", "sentence").exit_code == 2
    assert evaluate(collection, "--plot", tmp_path / "absent" / "a.svg").exit_code == 2
    rows = (collection / "corpus.jsonl").read_text(encoding="utf-8")
    huge = json.dumps({"_id": "huge", "text": "river " * 40_000})
    (collection / "corpus.jsonl").write_text(f"{rows}\n{huge}", encoding="utf-8")
    done = evaluate(collection, "--chunks", "document")
    assert "document 'huge' has 239999 characters" in str(done.exception)
    assert "--chunks default" in str(done.exception)
