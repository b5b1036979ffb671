"""A training that is killed anywhere and run again ends with the model that an undisturbed one makes.

All of them run where Spark can not be imported.
"""

import json
import os
import shutil
import signal
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from forked_commands import run_forked
from free_ports import free_ports
from test_train_command import collection
from tiny_embedders import make_tiny_embedder

from orchestration.settings import Settings
from training.registry.versions import ModelAliases, ModelRegistry

IMPORTED = ("without_spark", "orchestration.training.train", "mlflow", "sentence_transformers")
POINTS = [
    ("training.jobs.checkpoints:Checkpoints.save,1,before", False),
    ("training.jobs.checkpoints:Checkpoints.save,1,after", False),
    # Within the second file that it writes, of which a part is in a scratch folder then.
    ("training.jobs.checkpoints:save_file,2,after", True),
    ("training.registry.versions:ModelRegistry.add,1,before", True),
    ("training.registry.versions:sign_model,1,after", True),
    ("training.jobs.job:follow_models,1,before", True),
]
"""Where it is killed, in turn on one folder, and whether it goes on from a checkpoint."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def command(module_folder: Path) -> list[str]:
    """A training of a tiny model by a folder: forty steps, and no clock that ends it."""
    data, base = collection(module_folder / "rivers", 20), make_tiny_embedder(module_folder / "base")
    return ["train", "embedder", "--data", str(data), "--base", str(base), "--minutes", "30", "--json"]


@pytest.fixture(scope="module")
def undisturbed(module_folder: Path, command: list[str]) -> Path:
    """The state folder of a training that nothing happened to."""
    ended = train(module_folder / "undisturbed", command)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return module_folder / "undisturbed"


def train(home: Path, command: list[str], point: str = "") -> CompletedProcess[str]:
    [closed] = free_ports(1)
    mlflow = {"HEADWATER_MLFLOW_URI": f"http://127.0.0.1:{closed}"}
    environment = os.environ | mlflow | {"HEADWATER_HOME": str(home)}
    return run_forked([point, *command], environment, module="killed_trainings", imported=IMPORTED)


def test_a_training_that_is_killed_anywhere_ends_with_the_same_model(
    module_folder: Path, command: list[str], undisturbed: Path
) -> None:
    home = module_folder / "killed"
    (home / "training").mkdir(parents=True, mode=0o700)
    for rankings in (undisturbed / "training").glob("*.parquet"):  # the teacher's, which need an index
        shutil.copy(rankings, home / "training")
    for point, resumes in POINTS:
        died = train(home, command, point)
        assert died.returncode == -signal.SIGKILL, f"{point}: {died.stderr[-3000:]}"
        assert ("going on from the checkpoint" in died.stderr) == resumes, f"{point}: {died.stderr[-3000:]}"
    ended = train(home, command)
    assert ended.returncode == 0, ended.stderr[-3000:]
    registry = ModelRegistry(Settings(home=home).models_folder)
    [version] = registry.versions("embedder")
    [expected] = ModelRegistry(Settings(home=undisturbed).models_folder).versions("embedder")
    assert json.loads(ended.stdout)["digest"] == version.digest == expected.digest
    assert version.metrics | {"peak_memory_mib": 0} == expected.metrics | {"peak_memory_mib": 0}
    assert registry.open(version).is_dir()  # the signature is good
    assert registry.aliases("embedder") == ModelAliases(candidate=1)
    # Nothing is half-written, and what only a job needs that goes on is gone.
    files = {path.name for path in (home / "models" / "registry" / "embedder").iterdir()}
    assert files == {"1"}
    [job] = [path for path in (home / "training").iterdir() if path.is_dir()]
    assert {path.name for path in job.iterdir()} == {"job.json", "lock", "outcome.json"}


def test_a_training_needs_no_spark(undisturbed: Path) -> None:
    assert len(ModelRegistry(Settings(home=undisturbed).models_folder).versions("embedder")) == 1
