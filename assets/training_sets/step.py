"""Brings `gold.training_splits` and `gold.training_examples` up to the live release."""

import hashlib
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from assets.answers.batches import AnswerBatches
from assets.engine.limits import LocalLimits
from assets.engine.local_relations import LocalRelations
from assets.engine.step import Step, begin_step
from assets.lake.lake import Lake
from assets.lake.tables import (
    ANSWER_RATINGS,
    ANSWERS,
    CHUNKS,
    DOCUMENTS,
    DUPLICATES,
    EMBEDDINGS,
    TRAINING_EXAMPLES,
    TRAINING_SPLITS,
)
from assets.recipe import Recipe
from assets.sources.source_registry import SourceRegistry
from assets.training_sets.examples import ExampleSettings, define_training_examples
from assets.training_sets.splits import define_splits, split_bounds
from assets.training_sets.teachers import TeacherModels
from common.ids import config_digest
from inference.answering.release_models import ReleaseModels
from quality.evaluation.questions import load_questions
from retrieval.index.index import Index
from retrieval.index.types import IndexRelease
from retrieval.search.searcher import Searcher
from retrieval.search.snapshot import NoLiveSnapshot
from training.datasets.requests import DatasetRequests

_ALGORITHM = "training examples 2"
_HERE = LocalLimits(change_bytes=sys.maxsize)
"""Mining is matrix products over all of a tenant's vectors, so it runs in this process whatever the size."""

_QUESTIONS = pa.schema([("tenant", pa.string()), ("question", pa.string())])


@dataclass(frozen=True)
class TrainingInputs:
    """What the examples are made from and by.

    Attributes:
        lake: The tables.
        recipe: How they are made.
        sources: The sources, with their licences.
        requests: The training sets that were asked for.
        rated_answers: Answers that are rated good, of `rated_answers`.
        evaluation_questions: `tenant` and `question`, of `evaluation_questions`.
        teachers: The models that ranked lists can be taught by.
    """

    lake: Lake
    recipe: Recipe
    sources: SourceRegistry
    requests: DatasetRequests
    rated_answers: pa.Table
    evaluation_questions: pa.Table
    teachers: TeacherModels
    run_id: str


def evaluation_questions(
    sources: SourceRegistry, batches: AnswerBatches, rated_answers: pa.Table
) -> pa.Table:
    """Returns `tenant` and `question` of every question that a source or a batch evaluates by.

    A batch's question whose answer is rated good is to be learned, and so none of them, unless a source
    evaluates by it as well.

    Args:
        sources: The sources, with their files of questions.
        batches: The sets of questions.
        rated_answers: Of `rated_answers`.

    Raises:
        BadQuestions: A source's file of questions is missing, or a line of it is none.
    """
    rows = {
        (source.tenant, asked.question)
        for source in sources.list()
        if source.questions
        for asked in load_questions(Path(source.questions))
    }
    learned = set(zip(*(rated_answers[name].to_pylist() for name in ("tenant", "question")), strict=True))
    rows |= {
        (asked.tenant, asked.question)
        for name in batches.names()
        for asked in batches.questions(name).questions
        if (asked.tenant, asked.question) not in learned
    }
    return pa.Table.from_pylist(
        [{"tenant": tenant, "question": question} for tenant, question in sorted(rows)], _QUESTIONS
    )


def refresh_training_examples(
    inputs: TrainingInputs, index: Index, searcher: Searcher, models: ReleaseModels
) -> None:
    """Brings the splits and the examples up to the tables that the live release was made from.

    Raises:
        NoLiveSnapshot: Nothing is released yet.
        WriteConflict: Another run has written to a table meanwhile; nothing was written to it.
        RerankError: A reranker is to score the lists, and none is configured, or it fails.
    """
    live = index.live()
    if live is None:
        raise NoLiveSnapshot(
            "nothing is released yet, and examples are mined from the index: `headwater run`"
        )
    _refresh_splits(inputs, live)
    step, restated = _begin_examples(inputs, live)
    if step.idle and not restated:
        return
    model = models.model_of(live)
    model.prepare()
    settings = ExampleSettings(
        inputs.recipe.training_sets,
        inputs.recipe.search,
        inputs.requests.tenants,
        _licences(inputs.sources),
        inputs.requests.examples(),
        inputs.rated_answers,
        inputs.evaluation_questions,
        live.details.model_digest,
        json.dumps(step.lineage.inputs, sort_keys=True),
        inputs.teachers.load(inputs.recipe.training_sets.teacher),
    )
    tables = (DOCUMENTS, CHUNKS, EMBEDDINGS, TRAINING_SPLITS, TRAINING_EXAMPLES)
    with step.relations((DOCUMENTS, CHUNKS), tables, limits=_HERE) as on:
        assert isinstance(on, LocalRelations)  # noqa: S101 - by its limits
        define_training_examples(
            on,
            settings,
            model.embedder.encode_queries,
            lambda tenant, asked: searcher.lexical_matrices(live, tenant, asked),
            step.rebuild,
        )
        step.merge(on, "examples")


def _refresh_splits(inputs: TrainingInputs, live: IndexRelease) -> None:
    config = inputs.recipe.training_sets
    step = begin_step(
        inputs.lake,
        TRAINING_SPLITS,
        {each: live.details.versions[each.name] for each in (DOCUMENTS, DUPLICATES)},
        run_id=inputs.run_id,
        config_digest=config_digest(f"splits 1 {' '.join(split_bounds(config))}"),
    )
    if not step.idle:
        with step.relations((), (DOCUMENTS, DUPLICATES, TRAINING_SPLITS)) as on:
            define_splits(on, config)
            step.merge(on, "splits")


def _begin_examples(inputs: TrainingInputs, live: IndexRelease) -> tuple[Step, bool]:
    """Begins the step of the examples; returns it, and whether something else than its inputs has changed.

    The digest of its commit has two parts. Where the first differs, all is made anew. Where only the second
    does (a licence, a tenant, a user's examples, a rating, an evaluation question), what is there is brought
    up to it.
    """
    lake = inputs.lake
    teacher = inputs.teachers.digest(inputs.recipe.training_sets.teacher)
    base = config_digest(f"{_ALGORITHM} {live.details.model_digest}{teacher}", inputs.recipe.training_sets)
    stated = json.dumps(
        [
            inputs.requests.digest,
            _licences(inputs.sources).to_pylist(),
            inputs.evaluation_questions.to_pylist(),
            inputs.rated_answers.to_pylist(),
        ]
    )
    full = f"{base}-{hashlib.sha256(stated.encode()).hexdigest()[:16]}"
    last = lake.last_commit(TRAINING_EXAMPLES.name)
    before = last.lineage.config_digest if last is not None else ""
    versions = {each: live.details.versions[each.name] for each in (DOCUMENTS, CHUNKS, EMBEDDINGS)}
    step = begin_step(
        lake,
        TRAINING_EXAMPLES,
        versions | {TRAINING_SPLITS: lake.version(TRAINING_SPLITS.name)},
        run_id=inputs.run_id,
        config_digest=before if before.startswith(f"{base}-") else full,
    )
    rated = (ANSWERS, ANSWER_RATINGS) if len(inputs.rated_answers) else ()
    read = {each.name: lake.version(each.name) for each in rated}
    lineage = step.lineage.model_copy(update={"config_digest": full, "inputs": step.lineage.inputs | read})
    return replace(step, lineage=lineage), before != full


def _licences(sources: SourceRegistry) -> pa.Table:
    found = sources.list()
    return pa.table(
        {
            "source": pa.array([source.name for source in found], pa.string()),
            "licence": pa.array([source.license for source in found], pa.string()),
        }
    )
