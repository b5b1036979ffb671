"""`headwater train generator`, and which adapters of generators answer.

An adapter answers from the moment that its alias `live` names it: the registry's folder is the truth about
it, and one that is promoted while another command promotes is told.
"""

from collections.abc import Callable
from pathlib import Path

from assets.lake.lineage import CODE_VERSION
from orchestration.settings import Settings
from training.generator.job import run_generator_job, written_by_file, written_by_tenant
from training.jobs.network import UnknownBase
from training.jobs.plan import GeneratorTraining
from training.registry.versions import ModelVersion


def train_generator_version(
    settings: Settings,
    data: Path | None,
    tenant: str | None,
    base: Path | None,
    training: GeneratorTraining,
    progress: Callable[[str], None],
) -> ModelVersion:
    """Trains an adapter of a generator and registers it, or returns what the same command made before.

    What the documents of a tenant teach, only that tenant's adapter learns: one of all tenants is made from a
    file.

    Args:
        settings: The settings of the state folder.
        data: A file of JSON lines with `prompt` and `response`; None for the tenant's training set.
        tenant: Whose adapter it is; None for that of all tenants with `data`, and else for `default`.
        base: A folder or GGUF file; the settings' local model unless given.
        training: The settings of the training.
        progress: Takes a line about what happens.

    Raises:
        UnknownBase: The base is no model that can be trained, or there is none.
        UnknownDataset: The tenant has no training set yet.
        InvalidWrittenExamples: A line of the file is no example.
        TooFewExamples: There are too few examples, or all have one response.
        TrainingIsRunning: The same job runs elsewhere.
        TrainingDiverged: The loss is no number any more.
        CheckpointNotWritten: The disk is full; the checkpoint before is as it was.
    """
    found = base.expanduser() if base else settings.generator.model
    if found is None:
        raise UnknownBase(
            "there is no generator to train: name a model's folder or a GGUF file with --base, or set "
            "HEADWATER_GENERATOR__MODEL"
        )
    written = (
        written_by_file(data, tenant)
        if data
        else written_by_tenant(settings.datasets_folder, tenant or "default")
    )
    return run_generator_job(
        settings.training_place, written, found.absolute(), training, CODE_VERSION, progress
    )
