"""`headwater models compare` of a generator's adapter: what it writes likelier, and how well it answers."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from inference.engines.digest import model_files_digest
from inference.engines.protocol import Adapter
from orchestration.answer_evaluation.evaluation import evaluate_adapters
from orchestration.settings import Settings
from orchestration.training.compared import (
    MOST_ASKED,
    ComparedModels,
    answer_figures,
    known_decision,
    log_verdict,
)
from orchestration.training.generators import version_beside
from orchestration.training.judged_answers import held_out_questions, written_by_questions
from orchestration.training.models import model_registry
from orchestration.unlearned import unlearned_examples
from quality.evaluation.answer_collection import AnswerCollection, load_answer_collection
from quality.evaluation.answer_evaluation import AnswerEvaluation
from quality.evaluation.engine_gate import judged_figures
from quality.evaluation.model_gate import decide_model_release
from quality.evaluation.verdict import LOG_LIKELIHOOD, paired_gains, question_set_digest
from training.datasets.held_out import NothingHeldOut, held_out_answers
from training.datasets.training_set import open_dataset
from training.generator.examples import WrittenExample
from training.generator.job import WrittenSource, likelihood_differences, written_by_file, written_by_tenant
from training.generator.network import AdapterNetwork
from training.generator.training import token_losses
from training.jobs.network import UnknownBase
from training.jobs.plan import GeneratorTraining
from training.registry.live_adapters import registered_adapter
from training.registry.versions import ModelDecision, ModelVersion

_MOST_COMPARED = 200


@dataclass(frozen=True)
class AdapterComparison(ComparedModels):
    """An adapter and another, or its base; see `ComparedModels`.

    Of each `loss` is the mean of a token of the examples in nats, and the gain is that of `log_likelihood`,
    the loss with its sign turned.

    Attributes:
        examples: How many examples both were measured on.
    """

    examples: int


def compare_adapters(
    settings: Settings,
    address: str,
    other: str,
    data: Path | None,
    questions: Path | None,
    progress: Callable[[str], None],
) -> AdapterComparison:
    """Measures an adapter beside another, or beside its base, and keeps the verdict.

    Measured are the losses of examples, and answers to questions from what search finds: those that the
    version's training set holds out, of which search has the passages of all splits, or those that a folder
    of questions does.

    Args:
        settings: The settings of the state folder.
        address: The version.
        other: `live` for the version of its name that answers, or the base where none does; `base`, or
            another version.
        data: A file of JSON lines with `prompt` and `response`, of which those are measured that neither
            learned; None for the held-out examples of what the version was trained on.
        questions: Questions in a form that `headwater evaluate-answers` takes, those of a file to the lake's
            documents of the version's tenant; None for those that its training set holds out.
        progress: Takes a line about what happens.

    Raises:
        UnknownModel: There is no such version.
        ModelNotTrusted: Its files are not those that were signed.
        UnknownBase: Its base is gone.
        InvalidWrittenExamples: A line of the file is no example.
        BadAnswerCollection: The questions can not be read.
        UnknownDataset: What it was trained on is gone.
        EngineError: The model fails at a question.
        NothingHeldOut: There is nothing to measure it on that neither learned.
        JudgedAnswersChanged: It is not known any more what was held out of its folder.
    """
    registry = model_registry(settings)
    version = registry.find(address)
    beside = version_beside(registry, version, other)
    examples, dataset = _held_out(settings, version, data, progress)
    compared = [version, beside] if beside else [version]
    examples = unlearned_examples(registry, compared, examples, dataset, progress)[:_MOST_COMPARED]
    asked = _questions(settings, version, questions, progress)
    if not examples and asked is None:
        raise NothingHeldOut(
            f"{dataset} holds nothing to measure {version.address} on: name a file of examples with --data, "
            "or one of questions with --questions"
        )
    base = _base_of(settings, version)
    names = (version.address, beside.address if beside else "base")
    against = beside.digest if beside else version.lineage.base_digest
    questions_asked = len(asked.questions) if asked else 0
    digest = question_set_digest([*examples, *(asked.questions if asked else ())])
    figures: dict[str, dict[str, float]] = {}
    decision = known_decision(registry, version, against, digest)
    if decision is None:
        progress(f"{len(examples)} examples are measured and {questions_asked} questions answered with each")
        losses = []
        for name, each in zip(names, (version, beside), strict=True):
            progress(f"measuring {name}")
            network = AdapterNetwork(base, GeneratorTraining(), registry.open(each) if each else None)
            losses.append(token_losses(network, network.tokenize(examples), "examples measured"))
            del network  # before a model is loaded that answers
        differences = likelihood_differences(losses[1], losses[0])
        figures = {
            name: {"loss": float(each.mean())} for name, each in zip(names, losses, strict=True) if len(each)
        }
        if asked:
            adapters = {
                name: registered_adapter(registry, each) if each else None
                for name, each in zip(names, (version, beside), strict=True)
            }
            evaluation = _answers(settings, base, asked, version.lineage.tenant, adapters, progress)
            answered, questions_asked = answer_figures(evaluation, *names), evaluation.questions
            differences |= judged_figures(evaluation.differences(*names))
            figures = {name: figures.get(name, {}) | answered[name] for name in names}
        verdict = decide_model_release(differences, settings.recipe.engine_gate.tolerance, LOG_LIKELIHOOD)
        gains, number = paired_gains(differences), version.version
        decision = ModelDecision.of_verdict(verdict, number, against, dataset, gains, questions_asked, digest)
        decision = log_verdict(registry, version, decision)
    return AdapterComparison(
        *(*names, dataset, questions_asked, figures, decision.gains, decision.decision, decision.reason),
        decision.questions_needed,
        examples=len(examples),
    )


def _answers(
    settings: Settings,
    base: Path,
    asked: AnswerCollection,
    tenant: str | None,
    adapters: dict[str, Adapter | None],
    progress: Callable[[str], None],
) -> AnswerEvaluation:
    over_base = settings.model_copy(
        update={"generator": settings.generator.model_copy(update={"model": base})}
    )
    return evaluate_adapters(over_base, asked, tenant or "default", adapters, progress)


def _questions(
    settings: Settings, version: ModelVersion, named: Path | None, progress: Callable[[str], None]
) -> AnswerCollection | None:
    """Returns the questions that both are asked; None where there are none."""
    if named:
        return load_answer_collection(named)
    learned = Path(version.lineage.dataset)
    if learned.is_dir():
        held = held_out_questions(learned, _of_folder(settings, version, progress))
    elif learned.is_absolute():
        return None  # a file of examples
    else:
        held = held_out_answers(open_dataset(settings.datasets_folder, version.lineage.dataset))
    return replace(held, questions=held.questions[:MOST_ASKED]) if held else None


def _base_of(settings: Settings, version: ModelVersion) -> Path:
    """Returns where a version's base is: where it was trained, or where the settings name it now."""
    for path in (Path(version.lineage.base), settings.generator.model):
        if path and path.exists() and model_files_digest(path) == version.lineage.base_digest:
            return path
    raise UnknownBase(
        f"the base of {version.address} is no longer at {version.lineage.base}: put it back, or set "
        "HEADWATER_GENERATOR__MODEL to where it is"
    )


def _of_folder(settings: Settings, version: ModelVersion, progress: Callable[[str], None]) -> WrittenSource:
    """Returns what a version learned of a folder of judged questions."""
    lineage = version.lineage
    minutes = float(lineage.settings["minutes"])
    return written_by_questions(
        settings, Path(lineage.dataset), lineage.tenant, minutes, progress, lineage.dataset_digest
    )


def _held_out(
    settings: Settings, version: ModelVersion, data: Path | None, progress: Callable[[str], None]
) -> tuple[list[WrittenExample], str]:
    if data:
        written = written_by_file(data, None)
        every = [*written.splits.train, *written.splits.validation, *written.splits.test]
        return every, written.name
    name = version.lineage.dataset
    if Path(name).is_dir():
        written = _of_folder(settings, version, progress)
    elif Path(name).is_file():
        written = written_by_file(Path(name), version.lineage.tenant)
    else:
        written = written_by_tenant(settings.datasets_folder, version.lineage.tenant or "default", name)
    return written.splits.test, f"{name}/test"
