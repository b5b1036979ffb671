"""Where does training read and write? The folders of training sets, jobs and models of one state folder."""

from dataclasses import dataclass
from pathlib import Path

from training.registry.mlflow_mirror import local_mlflow_uri
from training.registry.versions import ModelRegistry


@dataclass(frozen=True)
class TrainingPlace:
    """The folders of one state folder, and the registry of MLflow that follows.

    Attributes:
        datasets: The folder of training sets.
        jobs: The folder of jobs, each in one of its own.
        models: The folder of models: keys, and the versions that were made.
        mlflow_server: The address of an MLflow server; None for a file among the models.
    """

    datasets: Path
    jobs: Path
    models: Path
    mlflow_server: str | None = None

    @property
    def registry(self) -> ModelRegistry:
        """The versions of models."""
        return ModelRegistry(self.models)

    @property
    def mlflow_uri(self) -> str:
        """The address of MLflow's registry."""
        return self.mlflow_server or local_mlflow_uri(self.models)
