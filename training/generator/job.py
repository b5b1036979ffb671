"""The job that makes a version of a generator's adapter: trains it, measures it, and registers it."""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from quality.evaluation.model_gate import LOG_LIKELIHOOD, decide_model_release
from quality.evaluation.retrieval_metrics import paired_gain
from training.datasets.training_set import GENERATOR_KINDS, open_dataset, open_tenant_dataset
from training.generator.examples import WrittenSplits, dataset_examples, read_written_examples
from training.generator.network import AdapterNetwork
from training.generator.training import GeneratorOutcome, train_generator
from training.jobs.job import Base, LearnedSource, Trained, run_job
from training.jobs.network import UnknownBase
from training.jobs.plan import GeneratorTraining
from training.place import TrainingPlace
from training.registry.live_adapters import generator_name
from training.registry.model_card import adapter_card
from training.registry.versions import ModelDecision, ModelVersion


@dataclass(frozen=True)
class WrittenSource(LearnedSource):
    """What a generator learns.

    Attributes:
        splits: The examples.
    """

    splits: WrittenSplits


def written_by_file(file: Path, tenant: str | None) -> WrittenSource:
    """Returns what a file of JSON lines with `prompt` and `response` teaches.

    Raises:
        InvalidWrittenExamples: It can not be read; the message names the line.
    """
    splits = read_written_examples(file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return WrittenSource(str(file.resolve()), digest, tenant, frozenset(), splits)


def written_by_tenant(datasets: Path, tenant: str, address: str | None = None) -> WrittenSource:
    """Returns what a training set of a tenant teaches a generator.

    Args:
        datasets: The folder of training sets.
        tenant: The tenant.
        address: The snapshot; the tenant's newest unless given.

    Raises:
        UnknownDataset: The tenant has none yet, or it is gone.
        BrokenDataset: A file of it was changed since it was written.
        DatasetHasRemovedDocuments: It holds documents that were removed since.
    """
    opened = open_dataset(datasets, address) if address else open_tenant_dataset(datasets, tenant)
    header = opened.header
    rows = opened.examples["train"].select(["kind", "doc_ids"]).to_pylist()
    documents = frozenset(each for row in rows if row["kind"] in GENERATOR_KINDS for each in row["doc_ids"])
    splits = dataset_examples(opened.examples)
    return WrittenSource(header.address, header.digest, tenant, documents, splits)


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
    network = AdapterNetwork(base, training)

    def train(folder: Path) -> Trained:
        outcome = train_generator(network, written.splits, training, folder, progress)
        gains = likelihood_gains(outcome.before, outcome.after)
        verdict = decide_model_release(gains, 0.0, LOG_LIKELIHOOD)
        progress(f"beside its base on {len(outcome.after)} held-out examples: {verdict.reason}")

        def decision(version: ModelVersion) -> ModelDecision:
            return ModelDecision.of_verdict(
                verdict, version, network.base_digest, f"{written.name}/test", gains
            )

        trained, metrics = outcome.training, _metrics(outcome)
        return Trained(
            *(trained.standing, trained.ended, metrics, network.save, adapter_card),
            figure="validation_likelihood",
            decision=decision,
        )

    name, trained_over = generator_name(written.tenant), Base(str(base), network.base_digest)
    return run_job(place, name, written, trained_over, training, code_version, train, progress)


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
        "micro_batch": trained.standing.micro_batch,
        "examples_per_s": outcome.batch * trained.standing.step / max(trained.standing.seconds, 1e-9),
    }
