"""`headwater models compare`: two embedders on one collection, and the verdict that `promote` asks for."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from inference.answering.answer import InvalidQuestion, validate_question
from inference.engines.generator import EngineConfig
from orchestration.answer_evaluation.asking import MeasureJournal, measure_answers
from orchestration.answer_evaluation.evaluation import answers_journal, asked_engine
from orchestration.answer_evaluation.passages import find_in_scratch_index
from orchestration.operations.evaluation import evaluate_searches
from orchestration.operations.scratch_index import open_scratch_index
from orchestration.settings import Settings
from orchestration.training.compared import (
    MOST_ASKED,
    ComparedModels,
    answer_figures,
    known_decision,
    log_verdict,
)
from orchestration.training.models import model_registry, settings_with_embedder
from orchestration.unlearned import searching_versions, unlearned_collection
from quality.evaluation.answer_collection import AnswerCollection, AnswerQuestion, expert_answers
from quality.evaluation.answer_evaluation import evaluate_answers
from quality.evaluation.beir_collection import BeirCollection, load_beir_collection
from quality.evaluation.collection_evaluation import MEASURES
from quality.evaluation.engine_gate import judged_figures
from quality.evaluation.model_gate import RANKING, decide_model_release
from quality.evaluation.verdict import paired_gains, question_set_digest
from retrieval.embedding.embedding_model import EmbeddingModel
from training.datasets.held_out import NothingHeldOut, held_out_collection, known_answers
from training.datasets.training_set import open_dataset
from training.registry.versions import ModelDecision

_COMPARED_MODES = ("hybrid", "vector")


@dataclass(frozen=True)
class ModelComparison(ComparedModels):
    """Two embedders on one collection; see `ComparedModels`.

    Figures are those of rankings, by search mode and measure, and those of the answers that the default
    engine gives from what each of them finds.

    Attributes:
        queries: The queries of the collection that neither learned from.
    """

    queries: int


def compare_models(
    settings: Settings, one: str, other: str, data: Path | None, split: str, progress: Callable[[str], None]
) -> ModelComparison:
    """Measures two models on one collection; where the first is of the registry, the verdict is kept.

    On questions that a verdict on both was kept of, it is returned again, and nothing is measured.

    Measured are the rankings of all its queries, and on the whole path the answers that the extractive engine
    gives to the first of them, those of which an answer is known before the others.

    Args:
        settings: The settings of the state folder.
        one: The candidate.
        other: The model that it is compared with; `live` for the one that is served.
        data: A folder in BEIR's layout; None for the held-out examples of the training set that the first
            model was made from.
        split: Which judgements of the folder.
        progress: Takes a line about what happens.

    Raises:
        UnknownModel: There is no model of a name.
        ModelNotTrusted: A model's files are not those that were signed.
        BadBeirCollection: The folder is not in that layout.
        BadAnswerCollection: It has a `questions.jsonl`, and a line of that is no question.
        NothingHeldOut: The first model was not made from a training set, that holds out no questions, or one
            of the two learned from all of them.
        DatasetHasRemovedDocuments: The training set holds documents that were removed since.
    """
    if data:
        collection, known = load_beir_collection(data, split), expert_answers(data)
    else:
        collection, known = _held_out(settings, one)
    registry, split = model_registry(settings), split if data else "test"
    with_model = {name: settings_with_embedder(settings, name) for name in (one, other)}
    versions = {name: searching_versions(each) for name, each in with_model.items()}
    collection = unlearned_collection(registry, [*versions[one], *versions[other]], collection, progress)
    asked = _asked(collection, known)
    models = {name: EmbeddingModel.of(each.recipe.embedder, each.home) for name, each in with_model.items()}
    against, version = models[other].digest, next(iter(versions[one]), None)
    digest = _questions_digest(collection, asked)
    known_before = known_decision(registry, version, against, digest) if version else None
    if known_before is not None:
        return _compared(one, other, collection, {}, known_before)
    progress(f"{len(asked.questions)} questions are answered with each")
    journal = answers_journal(settings, asked, "")
    measured = {
        name: _measure(with_model[name], models[name], name, collection, asked, journal, progress)
        for name in (one, other)
    }
    journal.remove()
    answers = evaluate_answers(asked, {name: each.answers for name, each in measured.items()})
    rankings = measured[other].rankings
    differences = {key: each - rankings[key] for key, each in measured[one].rankings.items()}
    differences |= judged_figures(answers.differences(one, other))
    verdict = decide_model_release(
        differences, settings.recipe.gate.tolerance, RANKING, settings.recipe.engine_gate.tolerance
    )
    decision = ModelDecision.of_verdict(
        verdict,
        version.version if version else 0,
        against,
        f"{collection.name}/{split}",
        paired_gains(differences),
        len(asked.questions),
        digest,
    )
    if version:
        decision = log_verdict(registry, version, decision)
    of_answers = answer_figures(answers, one, other)
    figures = {
        name: {key: float(values.mean()) for key, values in each.rankings.items()} | of_answers[name]
        for name, each in measured.items()
    }
    return _compared(one, other, collection, figures, decision)


def _compared(
    one: str,
    other: str,
    collection: BeirCollection,
    figures: dict[str, dict[str, float]],
    decision: ModelDecision,
) -> ModelComparison:
    return ModelComparison(
        *(one, other, collection.name, decision.questions or 0, figures, decision.gains, decision.decision),
        *(decision.reason, decision.questions_needed),
        queries=len(collection.queries),
    )


def _questions_digest(collection: BeirCollection, asked: AnswerCollection) -> str:
    queries = [(text, sorted(collection.relevant[name].items())) for name, text in collection.queries.items()]
    return question_set_digest([*queries, *asked.questions])


@dataclass(frozen=True)
class _Measured:
    """An embedder's rankings of all queries by figure, and the answers to what is asked."""

    rankings: dict[str, npt.NDArray[np.float64]]
    answers: list[dict[str, float]]


def _measure(
    settings: Settings,
    model: EmbeddingModel,
    name: str,
    collection: BeirCollection,
    asked: AnswerCollection,
    journal: MeasureJournal,
    progress: Callable[[str], None],
) -> _Measured:
    """Ranks by the embedder of the settings, and answers from what a search with it finds."""
    progress(f"evaluating {name}")
    with open_scratch_index(settings, collection, "default", progress) as index:
        evaluation = evaluate_searches(settings, index, collection, "default", progress)
        found = find_in_scratch_index(settings, index, asked.questions)
    rankings = {
        f"{mode} {measure}": evaluation.modes[mode].values[measure]
        for mode in _COMPARED_MODES
        for measure in MEASURES
    }
    engine = asked_engine(settings, EngineConfig(), model)
    return _Measured(rankings, measure_answers(name, engine, found, journal))


def _asked(collection: BeirCollection, known: Mapping[str, AnswerQuestion]) -> AnswerCollection:
    """Returns the queries of a collection that are answered: first those of which an answer is known."""

    def questions() -> Iterator[AnswerQuestion]:
        for name, text in sorted(collection.queries.items(), key=lambda query: query[1].strip() not in known):
            try:
                validate_question(text)
            except InvalidQuestion:
                continue  # a search takes it, `headwater ask` does not
            question = known.get(text.strip(), AnswerQuestion(text))
            yield replace(question, text=text, gold=tuple(collection.relevant[name]))

    first = tuple(islice(questions(), MOST_ASKED))
    return AnswerCollection(collection.name, "retrieval", first, collection)


def _held_out(settings: Settings, one: str) -> tuple[BeirCollection, dict[str, AnswerQuestion]]:
    """Returns the questions that a version's training set holds out, and which answers are known."""
    version = model_registry(settings).find(one)
    learned = version.lineage.training_sets
    if not learned:
        raise NothingHeldOut(
            f"{version.address} was trained on the folder {version.lineage.dataset}, not on a tenant's "
            "training set: name a collection with --data"
        )
    opened = [open_dataset(settings.datasets_folder, each.address) for each in learned]
    known = {text: AnswerQuestion(text, ideal=ideal) for text, ideal in known_answers(*opened).items()}
    return held_out_collection(*opened), known
