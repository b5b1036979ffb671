"""An MLflow server by setting: away while a model is trained, there again, and told of what is live."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from free_ports import free_ports
from index_rows import NO_LINEAGE, Chunk, batch, made_with
from test_train_command import collection
from tiny_embedders import make_tiny_embedder
from typer.testing import CliRunner

from orchestration.cli.main import app
from orchestration.settings import Settings
from retrieval.embedding.config import EmbedderConfig
from retrieval.embedding.embedding_model import EmbeddingModel
from retrieval.index.index import Index
from retrieval.store.postgres import Postgres
from training.registry.mlflow_mirror import follow_in_mlflow
from training.registry.versions import ModelDecision, ModelRegistry

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Trained:
    """A state folder whose settings name a server, and the command that trained there."""

    home: Path
    uri: str
    command: tuple[str, ...]
    said: str

    @property
    def registry(self) -> ModelRegistry:
        return Settings(home=self.home).training_place.registry

    def headwater(self, *arguments: str) -> tuple[Any, str]:
        """Runs a command line; returns what it printed as JSON, and what it said beside."""
        environment = {"HEADWATER_HOME": str(self.home), "HEADWATER_MLFLOW_URI": self.uri}
        ran = CliRunner().invoke(app, [*arguments, "--json"], env=environment, catch_exceptions=False)
        assert ran.exit_code == 0, ran.output
        return json.loads(ran.stdout), ran.stderr


@pytest.fixture(scope="module")
def trained(module_folder: Path) -> Iterator[Trained]:
    """Trained while nobody listens at the server's address."""
    data, base = collection(module_folder / "rivers", 20), make_tiny_embedder(module_folder / "base")
    [port] = free_ports(1)
    command = ("train", "embedder", "--data", str(data), "--base", str(base), "--minutes", "0.1")
    made = Trained(module_folder / "state", f"http://127.0.0.1:{port}", command, "")
    _, said = made.headwater(*command)
    yield Trained(made.home, made.uri, command, said)
    settings = Settings(home=made.home)
    Postgres(settings.home, settings.postgres).stop()


@pytest.fixture(scope="module")
def server(trained: Trained, module_folder: Path) -> Iterator[None]:
    """The server, at that address, with a database of its own."""
    folder, port = module_folder / "server", trained.uri.rpartition(":")[2]
    folder.mkdir()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", port]
    command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        until = time.monotonic() + 180
        while not _answers(f"{trained.uri}/health"):
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < until, (folder / "log").read_text()
            time.sleep(0.2)
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def test_a_training_ends_with_its_version_while_the_server_is_away(trained: Trained) -> None:
    [version] = trained.registry.versions("embedder")
    assert trained.registry.aliases("embedder").candidate == version.version
    assert f"warning: MLflow at {trained.uri} does not follow, and is tried again" in trained.said.replace(
        "\n", " "
    )
    began = time.monotonic()
    assert follow_in_mlflow(trained.registry, "embedder", trained.uri) is not None
    assert time.monotonic() - began < 20  # by MLflow's own patience it is minutes


def test_a_server_that_takes_a_connection_and_says_nothing_is_not_waited_for(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert int(os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"]) <= 10
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        fault = follow_in_mlflow(trained.registry, "embedder", uri)
        assert time.monotonic() - began < 10
    assert fault is not None
    assert "is tried again the next time" in fault


def test_the_same_command_registers_the_version_once_the_server_is_there(
    trained: Trained, server: None
) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(trained.uri, trained.uri)
    for _ in range(2):  # the second has nothing to do
        made, said = trained.headwater(*trained.command)
        assert "trained before, as embedder@1" in said
        assert "does not follow" not in said
        [registered] = client.search_model_versions("name = 'embedder'")
        assert registered.tags["headwater.digest"] == made["digest"]
        assert registered.source == "headwater:///embedder/1"
        experiment = client.get_experiment_by_name("headwater")
        assert experiment is not None
        [run] = client.search_runs([experiment.experiment_id])
        assert (run.info.run_id, run.info.status) == (registered.run_id, "FINISHED")
        assert run.data.params["dataset"] == made["dataset"]
        assert run.data.metrics["validation_ndcg_at_10"] == made["metrics"]["validation_ndcg@10"]
        assert client.get_metric_history(run.info.run_id, "loss")
        assert client.get_model_version_by_alias("embedder", "candidate").version == registered.version


def test_a_run_that_was_begun_before_the_server_went_away_is_gone_on_with(
    trained: Trained, server: None
) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(trained.uri, trained.uri)
    client.delete_model_version("embedder", "1")
    assert follow_in_mlflow(trained.registry, "embedder", trained.uri) is None
    experiment = client.get_experiment_by_name("headwater")
    assert experiment is not None
    assert len(client.search_runs([experiment.experiment_id])) == 1
    assert len(client.search_model_versions("name = 'embedder'")) == 1


def test_its_aliases_follow_a_promotion_and_the_way_back(trained: Trained, server: None) -> None:
    from mlflow import MlflowClient

    client, settings = MlflowClient(trained.uri, trained.uri), Settings(home=trained.home)
    [version] = trained.registry.versions("embedder")
    index, live = Index(Postgres(settings.home, settings.postgres)), None
    packaged = EmbeddingModel.of(EmbedderConfig(), settings.home).digest
    embedders = [(packaged, EmbedderConfig())]
    embedders += [(version.digest, EmbedderConfig(model=trained.registry.path(version)))]
    for number, (digest, embedder) in enumerate(embedders):
        state = index.build(digest, "chunker", 8, [batch([Chunk("danube", "The Danube")])], NO_LINEAGE)
        details = made_with(digest).model_copy(
            update={"embedder": embedder, "versions": {"silver.documents": 0, "gold.embeddings": number}}
        )
        live = index.release(f"r{number}", state, live, details).release_id
    index.rollback("r0")
    approved = {"version": 1, "decision": "approved", "reason": "as measured", "against": packaged}
    approved |= {"questions_digest": "0123456789abcdef"}
    trained.registry.log_decision(
        "embedder", ModelDecision.model_validate(approved | {"decided_at": datetime.now(UTC)})
    )

    served, said = trained.headwater("models", "promote", "embedder@1", "--reason", "better on rivers")
    assert served.pop("pointer_seconds") < 60
    assert served == {"model": "embedder", "version": 1, "release": "r1", "reason": "better on rivers"}
    assert "does not follow" not in said
    found = client.get_model_version_by_alias("embedder", "live")
    assert found.tags["headwater.digest"] == version.digest

    back, said = trained.headwater("models", "rollback", "embedder", "--reason", "worse on names")
    assert (back["model"], back["version"], back["release"]) == ("embedder", None, "r0")
    assert "does not follow" not in said
    assert client.get_registered_model("embedder").aliases == {}, "a rollback goes back to no version"
    assert trained.headwater("models", "check")[0] == []


ANSWERS = """
import importlib, os, pkgutil, sys
from pathlib import Path
import inference
import orchestration.operations.ask
from orchestration.api import open_lake
from orchestration.settings import Settings
from retrieval.embedding.embedding_model import EmbeddingModel

released, trained = map(Path, sys.argv[1:])
for module in pkgutil.walk_packages(inference.__path__, "inference."):
    importlib.import_module(module.name)
with open_lake(released) as lake:
    answer = lake.ask("Where does the Danube rise?", tenant="acme")
assert "Black Forest" in answer.answer, answer
os.environ["HEADWATER_RECIPE__EMBEDDER__MODEL"] = "embedder@1"
settings = Settings(home=trained)
assert settings.recipe.embedder.model_path.is_relative_to(trained)
assert len(EmbeddingModel.of(settings.recipe.embedder, trained).embedder.encode_queries(["A river?"])) == 1
print({name.partition(".")[0] for name in sys.modules} & {"mlflow", "pyspark", "inference"})
"""
TELEMETRY = """
import os, sys
from pathlib import Path
from training.registry.mlflow_mirror import follow_in_mlflow
from training.registry.versions import ModelRegistry

folder, uri = sys.argv[1:]
assert "orchestration" not in sys.modules, "which sets the variable too"
assert "MLFLOW_DISABLE_TELEMETRY" not in os.environ
assert follow_in_mlflow(ModelRegistry(Path(folder)), "embedder", uri) is not None
from mlflow.telemetry import get_telemetry_client
print(get_telemetry_client())
"""


def run_alone(code: str, *arguments: str) -> str:
    """Runs Python in an environment in which MLflow does not see that it is tested; returns what it said."""
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    ran = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def test_what_answers_imports_no_mlflow(small_release: Settings, trained: Trained) -> None:
    assert run_alone(ANSWERS, str(small_release.home), str(trained.home)) == "{'inference'}"


def test_mlflows_telemetry_is_off(tmp_path: Path) -> None:
    [closed] = free_ports(1)
    assert run_alone(TELEMETRY, str(tmp_path), f"http://127.0.0.1:{closed}") == "None"
