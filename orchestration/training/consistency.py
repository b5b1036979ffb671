"""`headwater models check`: what does not agree about models, and having what follows follow again."""

from collections.abc import Callable

from assets.lake.releases import log_live_history
from assets.model_consistency import ModelDiscrepancy, model_discrepancies
from orchestration.settings import Settings, open_configured_lake
from retrieval.index.index import Index
from retrieval.store.postgres import Postgres
from training.jobs.outcomes import training_curves
from training.registry.live import follow_live_release
from training.registry.mlflow_mirror import follow_in_mlflow


def check_models(settings: Settings, mend: bool, progress: Callable[[str], None]) -> list[ModelDiscrepancy]:
    """Returns what MLflow, the registry, training sets, the lake and the index do not agree about.

    Args:
        settings: The settings of the state folder.
        mend: Whether aliases, `ops.releases` and MLflow follow PostgreSQL's pointer and the registry first.
        progress: Takes a line about what could not be mended.
    """
    place = settings.training_place
    if not place.registry.names():
        return []
    lake, index = open_configured_lake(settings), Index(Postgres(settings.home, settings.postgres))
    if mend:
        follow_live_release(place.registry, index)
        log_live_history(lake, index, "")
        for name in place.registry.names():
            fault = follow_in_mlflow(place.registry, name, place.mlflow_uri, training_curves(place.jobs))
            if fault:
                progress(f"warning: {fault}")
    return model_discrepancies(lake, index, place)
