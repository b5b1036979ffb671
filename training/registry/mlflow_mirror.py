"""MLflow's registry follows ours: its runs, versions and aliases are made from the signed manifests.

Ours is the truth, so a server that can not be reached stops nothing: what it lacks is registered the next
time that it can be. Only training and `headwater models` import MLflow, serving never does.
"""

import importlib.util
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from training.registry.versions import ModelRegistry, ModelVersion

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)

_EXPERIMENT = "headwater"
_DIGEST_TAG = "headwater.digest"
_SWITCHES = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # Its own patience with a server that is away is several minutes.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    # It prints the address of a run where a command prints JSON.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""Variables that MLflow reads, unless the user has set them."""

Curves = Mapping[str, Sequence[tuple[int, float]]]
"""By the name of a figure, its values by step."""


def local_mlflow_uri(models: Path) -> str:
    """Returns the address of the local registry, a SQLite file in the folder of models."""
    return f"sqlite:///{models / 'mlflow.db'}"


def follow_in_mlflow(
    registry: ModelRegistry, name: str, uri: str, curves: Mapping[str, Curves] | None = None
) -> str | None:
    """Registers in MLflow what it lacks of a model, and moves its aliases to where ours are.

    Args:
        registry: Our versions.
        name: The model.
        uri: MLflow's address.
        curves: The curves of jobs, by the job's id.

    Returns:
        Why MLflow does not follow, in a sentence, or None if it does.
    """
    if importlib.util.find_spec("mlflow") is None:
        return (
            "MLflow is not installed, so nothing is registered there: `make setup EXTRAS=train` installs it"
        )
    _set_switches()
    try:
        _follow(registry, name, uri, curves or {})
    except Exception as error:  # a server's, a database's, a proxy's: none of them may stop a training
        logger.debug("MLflow does not follow", exc_info=True)
        said = str(error).strip().splitlines() or [type(error).__name__]
        return f"MLflow at {uri} does not follow, and is tried again the next time: {said[0][:300]}"
    return None


@dataclass(frozen=True)
class MlflowModel:
    """What MLflow has of a model.

    Attributes:
        digests: The digests of its versions.
        aliases: The digest of the version of each alias.
    """

    digests: frozenset[str]
    aliases: dict[str, str]


class MlflowNotReached(RuntimeError):
    """MLflow can not be asked; the message says why."""


def registered_in_mlflow(name: str, uri: str) -> MlflowModel | None:
    """Returns what MLflow has of a model; None where MLflow is not installed.

    Raises:
        MlflowNotReached: It can not be asked.
    """
    if importlib.util.find_spec("mlflow") is None:
        return None
    _set_switches()
    try:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        client = MlflowClient(uri, uri)
        found = client.search_model_versions(f"name = '{name}'")
        digests = {str(each.version): each.tags.get(_DIGEST_TAG, "") for each in found}
        try:
            aliases = dict(client.get_registered_model(name).aliases)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            aliases = {}
    except Exception as error:  # a server's, a database's, a proxy's
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise MlflowNotReached(f"it can not be asked at {uri}: {said[0][:300]}") from error
    named = {alias: digests.get(str(number), "") for alias, number in aliases.items()}
    return MlflowModel(frozenset(digests.values()), named)


def _set_switches() -> None:
    for variable, value in _SWITCHES.items():
        os.environ.setdefault(variable, value)


def _follow(registry: ModelRegistry, name: str, uri: str, curves: Mapping[str, Curves]) -> None:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    for noisy in ("alembic", "mlflow"):  # MLflow sets its own level when it is imported
        logging.getLogger(noisy).setLevel(logging.WARNING)
    if uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    client, is_server = MlflowClient(uri, uri), uri.startswith(("http://", "https://"))
    experiment = client.get_experiment_by_name(_EXPERIMENT)
    experiment_id = (
        experiment.experiment_id
        if experiment
        else client.create_experiment(
            _EXPERIMENT,
            artifact_location=None if is_server else (registry.folder / "mlflow").as_uri(),
        )
    )
    try:
        client.create_registered_model(name, description="Trained by Headwater; `headwater models list`.")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    found = client.search_model_versions(f"name = '{name}'")
    numbers = {each.tags.get(_DIGEST_TAG): each.version for each in found}
    for version in reversed(registry.versions(name)):
        if version.digest not in numbers:
            source = registry.path(version).as_uri()
            if is_server:  # which takes no path of another machine's, nor its own but to its artifacts
                source = f"headwater:///{name}/{version.version}"
            numbers[version.digest] = _register(
                client, experiment_id, version, source, curves.get(version.lineage.run_id, {})
            )
    by_number = {version.version: numbers[version.digest] for version in registry.versions(name)}
    for alias, number in registry.aliases(name).model_dump().items():
        if number in by_number:
            client.set_registered_model_alias(name, alias, str(by_number[number]))
        else:
            client.delete_registered_model_alias(name, alias)


def _register(
    client: "MlflowClient", experiment_id: str, version: ModelVersion, source: str, curves: Curves
) -> str:
    """Makes a run and a version of a model; returns its number there, which on a shared server is another."""
    from mlflow.entities import Metric, Param

    # One that was made before the server went away, or before this process was killed, is gone on with.
    same = f"tags.`{_DIGEST_TAG}` = '{version.digest}' and attributes.run_name = '{version.address}'"
    begun = client.search_runs([experiment_id], same, max_results=1)
    run = (
        begun[0]
        if begun
        else client.create_run(experiment_id, run_name=version.address, tags={_DIGEST_TAG: version.digest})
    )
    made_at_ms = int(version.made_at.timestamp() * 1000)
    points = [(key, number, 0) for key, number in version.metrics.items()]
    points += [(key, number, step) for key, curve in curves.items() for step, number in curve]
    lineage = version.lineage.model_dump(exclude={"settings", "datasets"}) | version.lineage.settings
    client.log_batch(
        run.info.run_id,
        [Metric(key.replace("@", "_at_"), number, made_at_ms, step) for key, number, step in points],
        [Param(key, str(value)) for key, value in lineage.items()],
        synchronous=True,
    )
    client.set_terminated(run.info.run_id)
    made = client.create_model_version(
        version.name,
        source=source,
        run_id=run.info.run_id,
        tags={_DIGEST_TAG: version.digest, "headwater.version": str(version.version)},
    )
    return str(made.version)
