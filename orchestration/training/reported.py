"""Has Dagster know of what a command trained, so that web UI and command line show the same versions."""

from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError

from orchestration.services.dagster_home import dagster_home_instance
from orchestration.settings import Settings
from training.jobs.outcomes import training_curves
from training.registry.versions import ModelVersion


def report_training(settings: Settings, version: ModelVersion, progress: Callable[[str], None]) -> None:
    """Records a materialization of the model's asset, as a run of it would.

    Before Dagster's first run there is nothing that it could be recorded in. A version that several tenants'
    documents taught is recorded in the partition of each. Without any tenant that has a partition it is
    recorded without one.

    Args:
        settings: The settings of the state folder.
        version: What was trained.
        progress: Takes a line if Dagster's storage takes no event: the version is there all the same.
    """
    if not settings.dagster_home.is_dir():
        return
    import dagster as dg

    from assets.dagster.models import TRAINING_TENANTS, model_key, model_metadata

    curves = training_curves(settings.training_place.jobs).get(version.lineage.run_id, {})
    try:
        with dagster_home_instance(settings) as instance:
            known = instance.get_dynamic_partitions(str(TRAINING_TENANTS.name))
            partitions: list[str | None] = [*filter(known.__contains__, version.lineage.tenants)]
            for partition in partitions or [None]:
                instance.report_runless_asset_event(
                    dg.AssetMaterialization(
                        model_key(version.name),
                        metadata=model_metadata(version, curves),
                        partition=partition,
                        tags={"dagster/data_version": version.digest},
                    )
                )
    except SQLAlchemyError as error:
        progress(
            f"warning: the web UI does not show {version.address}, since Dagster's storage took no event "
            f"({type(error).__name__}): the same command tells it again"
        )
