"""The folder of a job: one process is in it at a time, and a worker gets there what it trains on."""

import fcntl
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

import common
import inference
import quality
import retrieval
import training
from common.atomic_files import atomic_file
from inference.engines.digest import model_files_digest
from inference.engines.protocol import EngineError
from inference.engines.worker.launch import Launch, launch_worker, link_packages


class TrainingIsRunning(RuntimeError):
    """The same job runs in another process."""


class TrainingWorkerFailed(RuntimeError):
    """A worker trained nothing, or what it made did not arrive whole; the message says why."""


class JobOrder(BaseModel, frozen=True):
    """What a worker is to train.

    Attributes:
        model: An embedder, or the adapter of a generator.
        settings: The settings of the training.
        given: The digest of the files that it is given.
        base: The path of a generator, which is the same where the worker is; an embedder is among the files.
        base_digest: The digest of that generator.
    """

    model: Literal["embedder", "generator"]
    settings: dict[str, Any]
    given: str
    base: str | None = None
    base_digest: str | None = None


class JobResult(BaseModel, frozen=True):
    """What a worker made.

    Attributes:
        outcome: What became of the training, as the job of its model has it.
        model: The digest of the model's files.
        failure: Why there is no model; None if there is one.
    """

    model_config = ConfigDict(ser_json_inf_nan="constants")  # a loss may be no number

    outcome: dict[str, Any] = {}
    model: str | None = None
    failure: str | None = None


@dataclass(frozen=True)
class WorkerFolder:
    """What is between a worker and who started it; its checkpoints are here too.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def given(self) -> Path:
        """The folder of what is learned."""
        return self.path / "given"

    @property
    def model(self) -> Path:
        """The folder of what was made."""
        return self.path / "model"

    @property
    def _order(self) -> Path:
        return self.path / "order.json"

    @property
    def _result(self) -> Path:
        return self.path / "result.json"

    def write_order(self, order: JobOrder) -> None:
        """Has a worker find what it is to train; a result of before is no longer one."""
        self._result.unlink(missing_ok=True)
        with atomic_file(self._order) as fresh:
            fresh.write_text(order.model_dump_json(indent=2) + "\n", encoding="utf-8")

    def read_order(self) -> JobOrder:
        """Returns what is to be trained.

        Raises:
            TrainingWorkerFailed: There is no order, or the given files are not those that were written.
        """
        if not self._order.is_file():
            raise TrainingWorkerFailed(
                f"no training was asked for in {self.path}: {self._order.name} is not there"
            )
        order = JobOrder.model_validate_json(self._order.read_bytes())
        if model_files_digest(self.given) != order.given:
            raise TrainingWorkerFailed(
                f"{self.given} does not hold what was written there: both machines need this folder whole"
            )
        return order

    def write_result(self, result: JobResult) -> None:
        """Tells who started the worker what it made."""
        with atomic_file(self._result) as fresh:
            fresh.write_text(result.model_dump_json(indent=2) + "\n", encoding="utf-8")

    def read_result(self) -> JobResult | None:
        """Returns what a worker made; None if it ended without a word."""
        found = self._result
        return JobResult.model_validate_json(found.read_bytes()) if found.is_file() else None


@dataclass(frozen=True)
class TrainedByWorker:
    """What a worker made.

    Attributes:
        outcome: What became of the training, as the job of its model has it.
        write: Writes the model's files into an empty folder, and raises TrainingWorkerFailed unless they are
            those that the worker wrote.
    """

    outcome: dict[str, Any]
    write: Callable[[Path], None]


@dataclass(frozen=True)
class TrainingWorker:
    """What trains in a process of its own, with a Python of its own.

    Attributes:
        python: The Python of an environment with what training needs, or a script that takes its arguments.
        launch: What runs it.
    """

    python: Path
    launch: Launch = launch_worker

    def require_python(self) -> None:
        """Says that the worker can not be started, before anything is prepared for it.

        Raises:
            TrainingWorkerFailed: There is no such program.
        """
        if shutil.which(self.python) is None:
            raise TrainingWorkerFailed(
                f"HEADWATER_TRAINING__WORKER_PYTHON is {self.python}, and no program that can be run is "
                "there: name the Python of an environment with what training needs, or a script that takes "
                "its arguments"
            )

    def train(
        self,
        job: Path,
        model: Literal["embedder", "generator"],
        settings: BaseModel,
        give: Callable[[Path], None],
        base: tuple[Path, str] | None = None,
    ) -> TrainedByWorker:
        """Has a worker train, and returns what it made; one that was killed before is gone on with.

        Args:
            job: The job's folder.
            model: What is trained.
            settings: The settings of the training.
            give: Writes what is learned into a folder.
            base: The path of a generator and its digest; an embedder is given.

        Raises:
            TrainingWorkerFailed: The worker can not be started, is killed, or can not train.
        """
        folder = WorkerFolder(worker_folder(job))
        folder.path.mkdir(mode=0o700, exist_ok=True)
        shutil.rmtree(folder.given, ignore_errors=True)
        folder.given.mkdir(mode=0o700)
        try:
            give(folder.given)
            path, digest = base or (None, None)
            folder.write_order(
                JobOrder(
                    model=model,
                    settings=settings.model_dump(mode="json"),
                    given=model_files_digest(folder.given),
                    base=str(path) if path else None,
                    base_digest=digest,
                )
            )
            result = self._launched(folder)
        finally:
            shutil.rmtree(folder.given, ignore_errors=True)  # texts are not kept

        def write(target: Path) -> None:
            shutil.copytree(folder.model, target, dirs_exist_ok=True)
            if model_files_digest(target) != result.model:
                raise TrainingWorkerFailed(
                    f"{folder.model} is not what the worker wrote there: run the same command again, which "
                    "goes on from the last checkpoint"
                )

        return TrainedByWorker(result.outcome, write)

    def _launched(self, folder: WorkerFolder) -> JobResult:
        command = [str(self.python), "-m", "training.worker", str(folder.path), "--end-with-parent"]
        packages = link_packages(folder.path / "packages", (training, inference, quality, retrieval, common))
        fault = "the worker ended without a result"
        try:
            self.launch(command, {"PYTHONPATH": str(packages)})
        except EngineError as error:
            fault = str(error)
        result = folder.read_result()
        if result is None:
            begun = any(folder.path.rglob("*.safetensors"))
            goes_on = (
                "from the last checkpoint" if begun else "from the beginning, for it has no checkpoint yet"
            )
            raise TrainingWorkerFailed(f"{fault}. The same command goes on {goes_on}")
        if result.failure is not None:
            raise TrainingWorkerFailed(f"the worker: {result.failure}")
        return result


def worker_folder(job: Path) -> Path:
    """Returns the folder of what is between a job and its worker."""
    return job / "worker"


def remove_worker_files(job: Path) -> None:
    """Removes what was between a job and its worker."""
    shutil.rmtree(worker_folder(job), ignore_errors=True)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keeps a job's folder to this process, until the `with` block ends.

    Raises:
        TrainingIsRunning: Another process has it.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TrainingIsRunning(
                f"this training runs in another process, in {folder}: wait for it, or end it"
            ) from None
        yield
