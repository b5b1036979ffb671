"""The job that makes a version of a generator's adapter: trains it, measures it, and registers it."""

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from quality.evaluation.model_gate import LOG_LIKELIHOOD, decide_model_release
from quality.evaluation.retrieval_metrics import paired_gain
from training.datasets.training_set import GENERATOR_KINDS, UnknownDataset, dataset_headers, open_dataset
from training.generator.examples import WrittenSplits, dataset_examples, read_written_examples
from training.generator.network import AdapterNetwork
from training.generator.training import GeneratorOutcome, train_generator
from training.jobs.checkpoints import Checkpoints, describe_job
from training.jobs.embedder_job import alone_in, follow_models
from training.jobs.network import UnknownBase
from training.jobs.outcomes import JobOutcome, read_job_outcome, write_job_outcome
from training.jobs.plan import GeneratorTraining
from training.place import TrainingPlace
from training.registry.live_adapters import generator_name
from training.registry.model_card import adapter_card
from training.registry.versions import ModelDecision, ModelLineage, ModelVersion


@dataclass(frozen=True)
class WrittenSource:
    """What a generator learns.

    Attributes:
        name: The address of the training set, or the path of the file.
        digest: SHA-256 (hex) of it.
        tenant: Whose adapter it makes; None for the one of all tenants.
        splits: The examples.
        documents: The ids of the lake's documents that they are made from.
    """

    name: str
    digest: str
    tenant: str | None
    splits: WrittenSplits
    documents: frozenset[str] = frozenset()


def written_by_file(file: Path, tenant: str | None) -> WrittenSource:
    """Returns what a file of JSON lines with `prompt` and `response` teaches.

    Raises:
        InvalidWrittenExamples: It can not be read; the message names the line.
    """
    splits = read_written_examples(file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return WrittenSource(str(file.resolve()), digest, tenant, splits)


def written_by_tenant(datasets: Path, tenant: str, address: str | None = None) -> WrittenSource:
    """Returns what a training set of a tenant teaches a generator.

    Args:
        datasets: The folder of training sets.
        tenant: The tenant.
        address: The snapshot; the tenant's newest unless given.

    Raises:
        UnknownDataset: The tenant has none yet.
        BrokenDataset: A file of it was changed since it was written.
        DatasetHasRemovedDocuments: It holds documents that were removed since.
    """
    of_tenant = [each for each in dataset_headers(datasets) if each.tenant == tenant]
    header = next((each for each in of_tenant if address in (None, each.address)), None)
    if header is None and address:
        raise UnknownDataset(f"the training set {address} is gone: name a file of examples with --data")
    if header is None:
        raise UnknownDataset(
            f"the tenant {tenant!r} has no training set yet: `headwater datasets snapshot NAME` makes one, "
            "or name a file of examples with --data"
        )
    opened = open_dataset(datasets, f"{header.name}@{header.digest}")
    rows = opened.examples["train"].select(["kind", "doc_ids"]).to_pylist()
    documents = frozenset(each for row in rows if row["kind"] in GENERATOR_KINDS for each in row["doc_ids"])
    return WrittenSource(header.address, header.digest, tenant, dataset_examples(opened.examples), documents)


def generator_base(named: str | Path | None, local_model: Path | None) -> Path:
    """Returns the absolute path of the model that an adapter is trained over.

    Args:
        named: A folder or GGUF file; None for the local model.
        local_model: The local model of the settings; None if they have none.

    Raises:
        UnknownBase: Neither is given.
    """
    found = Path(named).expanduser() if named else local_model
    if found is None:
        raise UnknownBase(
            "there is no generator to train: name a model's folder or a GGUF file as its base, or set "
            "HEADWATER_GENERATOR__MODEL"
        )
    return found.absolute()


def run_generator_job(
    place: TrainingPlace,
    written: WrittenSource,
    base: Path,
    training: GeneratorTraining,
    code_version: str,
    progress: Callable[[str], None],
) -> ModelVersion:
    """Trains an adapter and registers it, or returns the version that the same job made before.

    A job that was killed goes on from its last checkpoint.

    Args:
        place: The state folder's folders.
        written: What is learned.
        base: The model over which it is trained: a folder or a GGUF file.
        training: The settings of the training.
        code_version: The version of the code, for the lineage.
        progress: Takes a line about what happens.

    Raises:
        UnknownBase: The base is no model that can be trained.
        TooFewExamples: There are too few examples, or all have one response.
        TrainingIsRunning: The same job runs elsewhere.
        TrainingDiverged: The loss is no number any more.
        OutOfMemory: One example does not fit into the memory.
        CheckpointNotWritten: The disk is full; the checkpoint before is as it was.
    """
    network, registry = AdapterNetwork(base, training), place.registry
    name = generator_name(written.tenant)
    said = json.dumps([written.digest, network.base_digest, training.model_dump()], sort_keys=True)
    run_id = f"{name}-{hashlib.sha256(said.encode()).hexdigest()[:16]}"
    folder = place.jobs / run_id
    with alone_in(folder):
        before = read_job_outcome(folder)
        for known in registry.versions(name):
            if before and known.address == before.address and known.lineage.run_id == run_id:
                progress(f"trained before, as {known.address}")
                return known
        describe_job(folder, {"dataset": written.name, "base": str(base), **training.model_dump()})
        outcome = train_generator(network, written.splits, training, folder, progress)
        standing = outcome.training.standing
        progress(f"ended: {outcome.training.ended}; the best of step {standing.best_step} is kept")
        version = registry.add(
            name,
            ModelLineage(
                dataset=written.name,
                dataset_digest=written.digest,
                base=str(base),
                base_digest=network.base_digest,
                code_version=code_version,
                run_id=run_id,
                settings=training.model_dump(),
                tenant=written.tenant,
            ),
            _metrics(outcome),
            standing.seconds,
            network.save,
            adapter_card,
            written.documents,
        )
        registry.set_candidate(version)
        gains = likelihood_gains(outcome.before, outcome.after)
        verdict = decide_model_release(gains, 0.0, LOG_LIKELIHOOD)
        registry.log_decision(
            name,
            ModelDecision(
                version=version.version,
                decision="approved" if verdict.released else "refused",
                reason=verdict.reason,
                against=network.base_digest,
                dataset=f"{written.name}/test",
                gains=gains,
                decided_at=datetime.now(UTC),
            ),
        )
        write_job_outcome(
            folder,
            JobOutcome(
                address=version.address,
                standing=standing,
                ended=outcome.training.ended,
                figure="validation_likelihood",
            ),
        )
        Checkpoints(folder).remove()
    progress(f"beside its base on {len(outcome.after)} held-out examples: {verdict.reason}")
    follow_models(place, name, progress)
    return version


def likelihood_gains(
    before: npt.NDArray[np.float64], after: npt.NDArray[np.float64]
) -> dict[str, dict[str, float]]:
    """Returns how much likelier held-out responses are, as `paired_gain` has it; empty without examples.

    Args:
        before: The loss of each example by the model that it would replace, in nats a token.
        after: The same by the candidate.
    """
    return {LOG_LIKELIHOOD: paired_gain(before - after)} if len(before) else {}


def _metrics(outcome: GeneratorOutcome) -> dict[str, float]:
    trained = outcome.training
    held_out = {
        "test_loss": float(outcome.after.mean()),
        "test_loss_of_base": float(outcome.before.mean()),
        "test_examples": float(len(outcome.after)),
    }
    return {
        "validation_loss": -math.log(max(trained.after, 1e-300)),
        "validation_loss_of_base": -math.log(max(trained.before, 1e-300)),
        **(held_out if len(outcome.after) else {}),
        "examples": outcome.examples,
        "examples_left_out": trained.cut_off,
        "mean_tokens": outcome.tokens / outcome.examples,
        "validation_examples": outcome.validation,
        "steps": trained.standing.step,
        "best_step": trained.standing.best_step,
        "micro_batch": trained.standing.micro_batch,
        "first_loss": trained.standing.losses[0],
        "last_loss": trained.standing.losses[-1],
        "examples_per_s": outcome.batch * trained.standing.step / max(trained.standing.seconds, 1e-9),
        "peak_memory_mib": trained.standing.peak_bytes / (1 << 20),
    }
