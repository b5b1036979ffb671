"""Where does training read and write? The folders of training sets, jobs and models of one state folder."""

from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import BaseModel

from inference.engines.worker.launch import Launch
from training.job_folder import TrainingWorker
from training.registry.mlflow_mirror import local_mlflow_uri
from training.registry.versions import ModelRegistry


class TrainingConfig(BaseModel):
    """Where models are trained."""

    worker_python: Path | None = None
    """The Python of an environment that trains in a process of its own, such as one with a GPU; unless set,
    this process trains (docs/training.md)."""


@dataclass(frozen=True)
class TrainingPlace:
    """The folders of one state folder, and the registry of MLflow that follows.

    Attributes:
        datasets: The folder of training sets.
        jobs: The folder of jobs, each in one of its own.
        models: The folder of models: keys, and the versions that were made.
        mlflow_server: The address of an MLflow server; None for a file among the models.
        worker: What trains in a process of its own; None where this one trains.
    """

    datasets: Path
    jobs: Path
    models: Path
    mlflow_server: str | None = None
    worker: TrainingWorker | None = None

    def launching_by(self, launch: Launch) -> "TrainingPlace":
        """Returns the place with its worker, if it has one, being launched in another way."""
        return replace(self, worker=replace(self.worker, launch=launch)) if self.worker else self

    @property
    def registry(self) -> ModelRegistry:
        """The versions of models."""
        return ModelRegistry(self.models)

    @property
    def mlflow_uri(self) -> str:
        """The address of MLflow's registry."""
        return self.mlflow_server or local_mlflow_uri(self.models)
