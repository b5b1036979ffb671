"""The job that makes a version of a generator's adapter: trains it, measures it, and registers it."""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from inference.engines.digest import model_files_digest
from inference.engines.model_files import check_model_files
from inference.engines.protocol import EngineError
from quality.evaluation.model_gate import decide_model_release
from quality.evaluation.verdict import LOG_LIKELIHOOD, paired_gains
from training.datasets.training_set import GENERATOR_KINDS, open_tenant_dataset
from training.generator.example_files import generator_outcome_of_json, give_examples
from training.generator.examples import WrittenSplits, dataset_examples, read_written_examples
from training.generator.network import AdapterNetwork
from training.generator.training import GeneratorOutcome, train_generator
from training.job_folder import TrainingWorker
from training.jobs.job import Base, LearnedSource, Trained, run_job
from training.jobs.network import UnknownBase
from training.jobs.plan import GeneratorTraining
from training.place import TrainingPlace
from training.registry.addresses import is_address
from training.registry.learned_texts import LearnedTexts
from training.registry.live_adapters import generator_name, is_generator
from training.registry.model_card import adapter_card
from training.registry.versions import ModelDecision, ModelRegistry, ModelVersion


@dataclass(frozen=True)
class WrittenSource(LearnedSource):
    """What a generator learns.

    Attributes:
        splits: The examples.
        passages: Texts of the passages of their prompts, where they are a folder's.
    """

    splits: WrittenSplits
    passages: frozenset[str] = field(default=frozenset(), kw_only=True)

    @property
    def texts(self) -> LearnedTexts:
        """What is kept of the texts with the model."""
        learned = [*self.splits.train, *self.splits.validation]
        return LearnedTexts(self.documents, [each.question for each in learned], self.passages)


def written_by_file(file: Path, tenant: str | None) -> WrittenSource:
    """Returns what a file of JSON lines with `prompt` and `response` teaches.

    Raises:
        InvalidWrittenExamples: It can not be read; the message names the line.
    """
    splits = read_written_examples(file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return WrittenSource(str(file.resolve()), digest, tenant, frozenset(), splits)


def written_by_tenant(datasets: Path, tenant: str | None, address: str | None = None) -> WrittenSource:
    """Returns what a training set of a tenant teaches a generator.

    Args:
        datasets: The folder of training sets.
        tenant: The tenant; None for that of the named snapshot, or for `default`.
        address: The snapshot, NAME or NAME@DIGEST; the tenant's newest unless given.

    Raises:
        UnknownDataset: The tenant has none yet, or the named one is not there or is another tenant's.
        BrokenDataset: A file of it was changed since it was written.
        DatasetHasRemovedDocuments: It holds documents that were removed since.
    """
    opened = open_tenant_dataset(datasets, tenant, address)
    header = opened.header
    rows = opened.examples["train"].select(["kind", "doc_ids"]).to_pylist()
    documents = frozenset(each for row in rows if row["kind"] in GENERATOR_KINDS for each in row["doc_ids"])
    splits = dataset_examples(opened.examples)
    return WrittenSource(header.address, header.digest, header.tenant, documents, splits)


def generator_base(named: str | Path | None, local_model: Path | None, registry: ModelRegistry) -> Path:
    """Returns the absolute path of the model that an adapter is trained over.

    Args:
        named: A folder or GGUF file; None for the local model.
        local_model: The local model of the settings; None if they have none.
        registry: The versions of models, none of which is such a base.

    Raises:
        UnknownBase: Neither is given, or a version of the registry is named.
        UnknownModel: An address is named that the registry does not have.
    """
    if named and is_address(str(named)):
        version = registry.find(str(named))
        if not is_generator(version.name):
            raise UnknownBase(
                f"{version.address} is an embedder, which writes nothing: name a model's folder or a GGUF "
                "file"
            )
        raise UnknownBase(
            f"{version.address} is an adapter, and adapters are trained over a whole model: name the one "
            f"that it was trained over, --base {version.lineage.base}, and have a new one learn all examples"
        )
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
        TrainingWorkerFailed: A worker was to train, and did not.
    """
    trainer = place.worker or AdapterNetwork(base, training)
    base_digest = _base_digest(base) if isinstance(trainer, TrainingWorker) else trainer.base_digest

    def train(folder: Path) -> Trained:
        if isinstance(trainer, TrainingWorker):
            give = partial(give_examples, splits=written.splits)
            made = trainer.train(folder, "generator", training, give, (base, base_digest))
            outcome, write = generator_outcome_of_json(made.outcome), made.write
        else:
            outcome = train_generator(trainer, written.splits, training, folder, progress)
            write = trainer.save
        differences = likelihood_differences(outcome.before, outcome.after)
        gains, verdict = paired_gains(differences), decide_model_release(differences, 0.0, LOG_LIKELIHOOD)
        progress(f"beside its base on {len(outcome.after)} held-out examples: {verdict.reason}")

        def decision(version: ModelVersion) -> ModelDecision:
            return ModelDecision.of_verdict(
                verdict, version.version, base_digest, f"{written.name}/test", gains
            )

        trained, metrics = outcome.training, _metrics(outcome)
        return Trained(
            *(trained.standing, trained.ended, metrics, written.texts, write, adapter_card),
            figure="validation_likelihood",
            decision=decision,
        )

    name, trained_over = generator_name(written.tenant), Base(str(base), base_digest)
    return run_job(place, name, written, trained_over, training, code_version, train, progress)


def _base_digest(base: Path) -> str:
    """Returns the digest of a base that a worker is to train, without loading it."""
    try:
        check_model_files(base)
    except EngineError as error:
        raise UnknownBase(f"{base} can not be trained: {error}") from error
    return model_files_digest(base)


def likelihood_differences(
    before: npt.NDArray[np.float64], after: npt.NDArray[np.float64]
) -> dict[str, npt.NDArray[np.float64]]:
    """Returns how much likelier each held-out response is; empty without examples.

    Args:
        before: The loss of each example by the model that it would replace, in nats a token.
        after: The same by the candidate.
    """
    return {LOG_LIKELIHOOD: before - after} if len(before) else {}


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
