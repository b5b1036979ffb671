"""What models are measured on: nothing that one of them learned from, word for word or nearly."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from common.counts import counted
from orchestration.settings import Settings
from quality.evaluation.answer_collection import AnswerCollection
from quality.evaluation.beir_collection import BeirCollection
from training.alike import text_digest
from training.datasets.held_out import NothingHeldOut
from training.generator.examples import WrittenExample
from training.registry.addresses import embedder_version
from training.registry.learned_texts import read_fingerprints, read_learned_passages, scorer_questions_file
from training.registry.versions import LearnedQuestionsUnknown, ModelRegistry, ModelVersion

_Asked = TypeVar("_Asked")


def searching_versions(settings: Settings) -> list[ModelVersion]:
    """Returns the version of the embedder that the settings search by; none if it is not of the registry."""
    version = embedder_version(settings.training_place.registry, settings.recipe.embedder)
    return [version] if version else []


def unlearned_collection(
    registry: ModelRegistry,
    versions: Iterable[ModelVersion],
    collection: BeirCollection,
    progress: Callable[[str], None],
) -> BeirCollection:
    """Returns a collection without the queries that a version, or one below it, learned from.

    How many are left out is said, and of how many of the others a relevant document was learned.

    Raises:
        NothingHeldOut: None is left, or it is not known which questions a version learned from.
    """
    versions = list(versions)
    asked = [*collection.queries.items()]
    kept = dict(_unlearned(registry, versions, asked, itemgetter(1), collection.name, progress))
    learned = {each for one in _files(registry, versions) for each in read_learned_passages(one)}
    about = 0
    if learned:
        known = {
            key
            for key, each in collection.documents.items()
            if text_digest(f"{each.title}\n\n{each.text}".strip()) in learned
        }
        about = sum(not known.isdisjoint(collection.relevant[name]) for name in kept)
    if about:
        progress(
            f"warning: {about} of {counted(len(kept), 'question')} of {collection.name} are about documents "
            f"that {_named(versions)} learned from: elsewhere it may be worse, so compare it there too"
        )
    return replace(collection, queries=kept, relevant={name: collection.relevant[name] for name in kept})


def unlearned_questions(
    registry: ModelRegistry,
    versions: Iterable[ModelVersion],
    asked: AnswerCollection,
    progress: Callable[[str], None],
    scorers: Iterable[Path] = (),
) -> AnswerCollection:
    """Returns questions without those that a version, or one below it, or a scorer learned from.

    How many are left out is said. What a scorer of your own learned from is known where its training kept it
    beside its weights.

    Raises:
        NothingHeldOut: None is left, or it is not known which questions a version learned from.
    """
    kept = _unlearned(
        registry, versions, asked.questions, lambda each: each.text, asked.name, progress, scorers
    )
    return replace(asked, questions=tuple(kept))


def unlearned_examples(
    registry: ModelRegistry,
    versions: Iterable[ModelVersion],
    examples: Sequence[WrittenExample],
    name: str,
    progress: Callable[[str], None],
) -> list[WrittenExample]:
    """Returns examples without those that a version, or one below it, learned from; how many is said.

    Raises:
        NothingHeldOut: None is left, or it is not known which questions a version learned from.
    """
    return _unlearned(registry, versions, examples, lambda each: each.question, name, progress)


def _unlearned(
    registry: ModelRegistry,
    versions: Iterable[ModelVersion],
    asked: Sequence[_Asked],
    text_of: Callable[[_Asked], str],
    name: str,
    progress: Callable[[str], None],
    scorers: Iterable[Path] = (),
) -> list[_Asked]:
    texts = [text_of(each) for each in asked]
    learned_by = dict[str, npt.NDArray[np.bool_]]()
    for version in versions:
        try:
            learned_by[version.address] = registry.learned_questions(version, texts)
        except LearnedQuestionsUnknown as error:
            raise NothingHeldOut(str(error)) from error
    for scorer in scorers:
        if questions := read_fingerprints(scorer_questions_file(scorer)):
            learned_by[f"the scorer {scorer.stem}"] = questions.holds(texts)
    learned = np.any([np.zeros(len(asked), bool), *learned_by.values()], axis=0)
    by = " and ".join(each for each, found in learned_by.items() if found.any())
    if not learned.any():
        return list(asked)
    said = f"{by} learned from {int(learned.sum())} of the {len(asked)} questions of {name}"
    if learned.all():
        raise NothingHeldOut(
            f"{said}, or from nearly the same, so they say nothing about it: name questions that it did not "
            "learn from (--data or --questions of `models compare`, another file of `evaluate-answers`)"
        )
    progress(f"{said}, or from nearly the same: they are left out")
    return [each for each, is_learned in zip(asked, learned, strict=True) if not is_learned]


def _files(registry: ModelRegistry, versions: Iterable[ModelVersion]) -> list[Path]:
    return [registry.path(each) for version in versions for each in registry.with_bases(version)]


def _named(versions: Sequence[ModelVersion]) -> str:
    return " and ".join(dict.fromkeys(each.address for each in versions))
