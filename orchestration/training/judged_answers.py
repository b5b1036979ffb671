"""What `headwater train generator --data DIR` learns: right answers to the judged questions of a folder."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

from common.counts import counted
from common.progress import Progress
from inference.engines.generator import build_engine
from orchestration.answer_evaluation.evaluation import answer_engine_configs
from orchestration.operations.scratch_index import open_scratch_index
from orchestration.settings import Settings
from quality.evaluation.answer_collection import AnswerCollection, AnswerQuestion
from quality.evaluation.beir_collection import BeirCollection, load_beir_collection
from retrieval.embedding.embedding_model import EmbeddingModel
from training.generator.examples import text_hash
from training.generator.job import WrittenSource
from training.generator.judged_questions import (
    AnsweredQuestion,
    answer_judged_question,
    describe_answered,
    judged_examples,
)
from training.jobs.learned import folder_digest

_QUESTIONS_PER_MINUTE = 60
"""Two cores learn 16 examples a minute (docs/training.md); two of five questions of SciFact make one."""
_SEARCHED_PASSAGES = 50


class JudgedAnswersChanged(ValueError):
    """What was learned of a folder can not be had again."""


def written_by_questions(
    settings: Settings,
    data: Path,
    tenant: str | None,
    minutes: float,
    progress: Callable[[str], None],
    learned: str | None = None,
) -> WrittenSource:
    """Returns what the judged questions of a folder in BEIR's layout teach a generator.

    The extractive engine answers them from a scratch index of the corpus, at most so many as the minutes of
    the training have use for, drawn by their hashes. Answers are kept in the folder of jobs, one by one: what
    was interrupted goes on, and the same command asks nothing again.

    Args:
        settings: The settings, with the embedder and the extractive engine.
        data: The folder; of its judgements `qrels/train.tsv` is read, and no other.
        tenant: Whose adapter learns it; None for that of all tenants.
        minutes: The time that the training may take.
        progress: Takes a line about what happens.
        learned: The digest of what was learned, if that is wanted again.

    Raises:
        BadBeirCollection: The folder is not in that layout.
        JudgedAnswersChanged: The digest is another one now.
        EngineError: The engine fails.
    """
    collection = load_beir_collection(data, "train")
    chosen = sorted(collection.queries, key=lambda name: text_hash(collection.queries[name]))
    chosen = chosen[: max(1, round(_QUESTIONS_PER_MINUTE * minutes))]
    model = EmbeddingModel.of(settings.recipe.embedder, settings.home)
    engine = build_engine(answer_engine_configs(settings)["extractive"], model.embedder)
    recipe = [each.model_dump(mode="json") for each in (settings.recipe.search, settings.recipe.chunker)]
    decides = [folder_digest(data), model.digest, engine.digest, recipe, len(chosen)]
    digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
    if learned not in (None, digest):
        raise JudgedAnswersChanged(
            f"{data}, the embedder or the extractive engine is not what it was when this was learned, so it "
            "is not known any more what was held out: name examples with --data and questions with "
            "--questions"
        )
    kept = settings.training_place.jobs / f"{digest[:16]}-answered.jsonl"
    answered = _read(kept)
    missing = [name for name in chosen if name not in answered]
    if missing:
        among = f" of {len(collection.queries):,}" if len(chosen) < len(collection.queries) else ""
        progress(f"answering {counted(len(chosen), 'judged question')}{among}, to learn the right answers")
        asked = {name: collection.queries[name] for name in missing}
        searched = BeirCollection(collection.name, collection.documents, asked, {})
        with open_scratch_index(settings, searched, "default", progress) as index:
            answering = Progress("judged questions answered", len(missing))
            for name, text in asked.items():
                found = index.search("hybrid", text, _SEARCHED_PASSAGES)
                judged = collection.relevant[name]
                answered[name] = answer_judged_question(name, text, judged, found, engine)
                _keep(kept, answered[name])
                answering.advance()
    every = [answered[name] for name in chosen]
    progress(describe_answered(every))
    splits = judged_examples(every)
    names = {each.name for each in (*splits.train, *splits.validation)}
    prompted = (part for each in every if each.name in names for part in (*each.cited, *each.others))
    passages = frozenset(each.text for each in prompted)
    return WrittenSource(str(data.resolve()), digest, tenant, frozenset(), splits, passages=passages)


def held_out_questions(data: Path, source: WrittenSource) -> AnswerCollection | None:
    """Returns the questions of a folder that a training holds out, over its corpus; None without any."""
    collection = load_beir_collection(data, "train")
    names = [each.name for each in source.splits.test]
    if not names:
        return None
    queries = {name: collection.queries[name] for name in names}
    relevant = {name: collection.relevant[name] for name in names}
    questions = tuple(AnswerQuestion(queries[name], gold=tuple(relevant[name])) for name in names)
    searched = BeirCollection(collection.name, collection.documents, queries, relevant)
    return AnswerCollection(collection.name, "retrieval", questions, searched)


def _read(kept: Path) -> dict[str, AnsweredQuestion]:
    if not kept.is_file():
        return {}
    whole = kept.read_bytes()
    end = whole.rfind(b"\n") + 1  # a killed one may have begun a line
    os.truncate(kept, end)
    read = (AnsweredQuestion.model_validate_json(line) for line in whole[:end].splitlines())
    return {each.name: each for each in read}


def _keep(kept: Path, answered: AnsweredQuestion) -> None:
    kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(kept, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, (answered.model_dump_json() + "\n").encode())
    finally:
        os.close(descriptor)
