"""`headwater models check`: what does not agree about models, and having what follows follow again."""

from collections.abc import Callable

from assets.engine_releases import project_engine_releases
from assets.lake.releases import project_releases
from assets.model_consistency import ModelDiscrepancy, model_discrepancies
from orchestration.settings import Settings, open_configured_lake
from retrieval.index.index import Index
from retrieval.store.postgres import Postgres
from training.jobs.outcomes import training_curves
from training.registry.live import follow_release_log
from training.registry.mlflow_mirror import follow_in_mlflow


def check_models(settings: Settings, mend: bool, progress: Callable[[str], None]) -> list[ModelDiscrepancy]:
    """Returns what MLflow, the registry, training sets, the lake and the index do not agree about.

    Args:
        settings: The settings of the state folder.
        mend: Whether aliases, `ops.releases`, `ops.engine_releases` and MLflow follow the release log first.
        progress: Takes a line about what could not be mended.
    """
    place = settings.training_place
    if not place.registry.names():
        return []
    lake, index = open_configured_lake(settings), Index(Postgres(settings.home, settings.postgres))
    if mend:
        follow_release_log(place.registry, index)
        project_releases(lake, index.log)
        project_engine_releases(lake, index.log)
        for name in place.registry.names():
            fault = follow_in_mlflow(place.registry, name, place.mlflow_uri, training_curves(place.jobs))
            if fault:
                progress(f"warning: {fault}")
    return model_discrepancies(lake, index, place)
