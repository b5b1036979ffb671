import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from test_model_assets import instruction_rows, ranked_rows, write_examples
from tiny_embedders import make_tiny_embedder
from typer.testing import CliRunner

from orchestration.cli.main import app
from orchestration.settings import Settings
from orchestration.training.train import train_embedder_version
from quality.evaluation.beir_collection import BadBeirCollection
from training.datasets.held_out import held_out_collection
from training.datasets.training_set import UnknownDataset, open_dataset
from training.job_folder import TrainingIsRunning, alone_in
from training.jobs.checkpoints import describe_job, stopped_on_other_snapshots
from training.jobs.learned import NothingToLearnFrom, learned_of_tenants
from training.jobs.network import UnknownBase
from training.jobs.plan import EmbedderTraining
from training.jobs.ranked_lists import TooFewExamples
from training.registry.versions import UnknownModel

TRAINING = EmbedderTraining(minutes=0.1)


def collection(folder: Path, questions: int) -> Path:
    """A small collection in BEIR's layout; its test split names a question that training must not see."""
    (folder / "qrels").mkdir(parents=True)
    words = ["stream", "peak", "loaf", "metal", "music", "port", "orbit", "flower"]
    texts = [
        f"A note says that the {a} stands beside the {b} in stories." for a in words for b in words if a != b
    ]
    rows = [json.dumps({"_id": f"d{n}", "title": "", "text": text}) for n, text in enumerate(texts[:24])]
    (folder / "corpus.jsonl").write_text("\n".join(rows) + "\n")
    asked = [json.dumps({"_id": f"q{n}", "text": f"where {texts[n][17:]} {n}"}) for n in range(questions)]
    (folder / "queries.jsonl").write_text("\n".join(asked) + "\n")
    header = "query-id\tcorpus-id\tscore\n"
    (folder / "qrels" / "train.tsv").write_text(
        header + "".join(f"q{n}\td{n}\t1\n" for n in range(questions - 1))
    )
    (folder / "qrels" / "test.tsv").write_text(f"{header}q{questions - 1}\td{questions - 1}\t1\n")
    return folder


@pytest.fixture(scope="module")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_embedder(tmp_path_factory.mktemp("base"))


def test_training_prints_what_it_made_and_the_same_command_makes_nothing_new(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    data = collection(tmp_path / "rivers", 20)
    monkeypatch.setenv("HEADWATER_HOME", str(tmp_path / "state"))
    command = [
        "train",
        "embedder",
        "--data",
        str(data),
        "--base",
        str(tiny_base),
        "--minutes",
        "0.1",
        "--json",
    ]
    ran = CliRunner().invoke(app, command, catch_exceptions=False)
    made = json.loads(ran.stdout)
    assert set(made) == {"model", "version", "digest", "dataset", "metrics", "seconds"}
    assert (made["model"], made["version"], made["dataset"]) == ("embedder", 1, str(data))
    assert 0 <= made["metrics"]["validation_ndcg@10"] <= 1
    told = ran.stderr + capfd.readouterr().err
    better = made["metrics"]["validation_ndcg@10"] > made["metrics"]["validation_ndcg@10_of_base"]
    assert ("warning: it may be no better than" in told) != better
    assert "INFO" not in told  # MLflow's
    assert "loss_type" not in told  # transformers'
    rankings = next((tmp_path / "state" / "training").glob("*-rankings.parquet"))
    asked = set(pq.read_table(rankings).column("name").to_pylist())
    assert {"judged q0", "judged q18"} < asked
    assert "judged q19" not in asked  # it is judged in the test split only
    again = CliRunner().invoke(app, command, catch_exceptions=False)
    assert json.loads(again.stdout) == made
    version = tmp_path / "state" / "models" / "registry" / "embedder" / "1"
    files = {str(path.relative_to(version)) for path in version.rglob("*") if path.is_file()}
    learned = {f"model/learned_{kind}.parquet" for kind in ("questions", "passages")}
    assert files == {"model.sig", "model/headwater.json", "model/README.md"} | learned | {
        f"model/{path.relative_to(tiny_base)}" for path in tiny_base.rglob("*") if path.is_file()
    }
    assert {Path(name).suffix for name in files} == {".sig", ".json", ".md", ".safetensors", ".parquet"}, (
        "no pickle"
    )
    listed = CliRunner().invoke(app, ["models", "list", "--json"], catch_exceptions=False)
    assert [row["digest"] for row in json.loads(listed.stdout)] == [made["digest"]]


def test_what_can_not_be_learned_from_is_told(tiny_base: Path, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "state")

    def train(data: Path | None, base: str = str(tiny_base)) -> None:
        train_embedder_version(settings, data, ["acme"], base, TRAINING, lambda line: None)

    with pytest.raises(BadBeirCollection, match="there is no folder"):
        train(tmp_path / "none")
    empty = collection(tmp_path / "empty", 2)
    (empty / "corpus.jsonl").write_text("")
    with pytest.raises(BadBeirCollection, match=r"corpus\.jsonl is empty"):
        train(empty)
    tiny = collection(tmp_path / "tiny", 3)
    (tiny / "corpus.jsonl").write_text("".join((tiny / "corpus.jsonl").read_text().splitlines(True)[:3]))
    with pytest.raises(TooFewExamples, match="training needs 8 at least"):
        train(tiny)
    with pytest.raises(UnknownDataset, match=r"tenant 'acme' has no training set yet.*--data"):
        train(None)
    header = write_examples(settings, "acme", instruction_rows(("Danube", "Rhine")))
    learned = learned_of_tenants(settings.datasets_folder, ["acme"])
    with pytest.raises(NothingToLearnFrom, match=f"{header.address} has no questions with passages"):
        learned.lists()
    with pytest.raises(UnknownBase, match="can not be trained"):
        train(tiny, str(tmp_path))
    for unknown in ("MiniLM", "embedder@3", "no/such/folder"):
        with pytest.raises(
            UnknownModel, match=r"folder that is there, or one of all-MiniLM-L6-v2, bge-small"
        ):
            train(tiny, unknown)


def test_training_sets_of_several_tenants_are_learned_together_but_for_what_one_is_tested_on(
    tmp_path: Path,
) -> None:
    settings = Settings(home=tmp_path / "state")
    folder, rows = settings.datasets_folder, ranked_rows(["shared"])
    own = [
        row
        | {key: f"{row[key]} there" for key in ("example_id", "positive")}
        | {"candidates": [f"{each} there" for each in row["candidates"]]}
        | {"question": row["question"][::-1], "doc_ids": [who]}
        for row, who in zip(rows, map(str, range(len(rows))), strict=True)
    ]
    acme = write_examples(settings, "acme", rows)
    globex = write_examples(settings, "globex", [rows[0], *own[1:]])
    both = learned_of_tenants(folder, ["globex", "acme", "globex"])
    assert both.tenant is None
    assert both.name == f"{acme.address}, {globex.address}"
    assert len(both.lists().ids) == 2 * (len(rows) - 1), "each is tested on the first of the other"
    assert both.documents == {"shared", *map(str, range(1, len(rows)))}
    for tenants, addresses in (
        (["acme", "globex"], []),
        ([], [globex.address, acme.name]),
        (["acme", "globex"], [acme.address]),
    ):
        same = learned_of_tenants(folder, tenants, addresses)
        assert (same.name, same.digest, same.datasets) == (both.name, both.digest, both.datasets)
    nearly = [row | {"question": f"{row['question']}?"} for row in own[1:]]
    write_examples(settings, "initrode", nearly)
    assert len(learned_of_tenants(folder, ["globex", "initrode"]).lists().ids) == 1, "and on what is alike"
    one = learned_of_tenants(folder, [], [acme.name, acme.address])
    assert (one.name, one.digest, one.tenant, one.datasets) == (acme.address, acme.digest, "acme", ())
    with pytest.raises(UnknownDataset, match=f"{globex.address} is a training set of the tenant 'globex'"):
        learned_of_tenants(folder, ["acme", "initech"], [globex.address])
    held = held_out_collection(*(open_dataset(folder, each.address) for each in both.datasets))
    assert (held.name, len(held.queries)) == (both.name, 2 * len(rows) - 1)


def test_a_stopped_job_on_other_snapshots_of_the_same_tenants_is_found(tmp_path: Path) -> None:
    learned = ["a@11, b@11", "a@22, b@11", "a@22", "a@22, c@11"]
    for number, dataset in enumerate(learned):
        folder = tmp_path / f"embedder-{number}"
        folder.mkdir()
        describe_job(folder, {"dataset": dataset, "base": "mine", "seed": 0})
        (folder / "checkpoint.safetensors").touch()
    assert stopped_on_other_snapshots(tmp_path / "embedder-0") == ["a@22, b@11"]


def test_the_same_job_does_not_run_twice_at_once(tiny_base: Path, tmp_path: Path) -> None:
    with (
        alone_in(tmp_path / "job"),
        pytest.raises(TrainingIsRunning, match="another process"),
        alone_in(tmp_path / "job"),
    ):
        pass
